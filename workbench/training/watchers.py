"""What is done beside the steps: by time, and at the end of an epoch."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor

from workbench.attached import followers_of
from workbench.determinism import alone, restore_random_state
from workbench.errors import DivergedError
from workbench.training.checkpoints import Checkpoints, Snapshot, copied
from workbench.training.dropout import GlobalWatch
from workbench.training.histories import HistoryFiles
from workbench.training.jobs import Job, snapshot, weights_of
from workbench.training.phases import Phase
from workbench.training.pulses import Pulse
from workbench.training.scores import lent, validate
from workbench.training.trainings import Training, TrainingState

__all__ = ["Watcher"]

_EXPLODED = 1e6  # times the first loss, or 1 where that is smaller


class Watcher:
    """Looks at a training that runs: takes its losses, shows, scores and keeps them.

    Args:
        job: what the loop works with.
        training: whose history is written.
        correct: where the loop counts the rows of the epoch that were answered rightly.
        pulse: shows that the training lives, or None.
        checkpoints: keeps what it would take to go on, or None.
        files: keep the history where others can read it, or None.
    """

    def __init__(
        self,
        job: Job,
        training: Training,
        correct: Tensor,
        pulse: Pulse | None,
        checkpoints: Checkpoints | None,
        files: HistoryFiles | None,
    ) -> None:
        self._job, self._training = job, training
        self.losses = torch.empty(training.settings.steps, device=training.settings.device)
        self._correct = correct
        self._pulse, self._checkpoints, self._files = pulse, checkpoints, files
        self._looked = job.step
        self._best: Snapshot | None = None
        self._kept = -1  # the step of the last checkpoint
        self._started = time.perf_counter() - training.seconds - training.reins.waited
        self._draws: GlobalWatch | None = None
        self._watched = job.batches.draws_globally or files is None
        if job.step < training.settings.steps:
            self._drop_part()
        if checkpoints is not None and job.step == 0:
            checkpoints.save(snapshot(job, training))
        if files is not None:
            files.begin(training.history)

    def _drop_part(self) -> None:
        """Forget the row of a part of an epoch that goes on: it will be scored whole."""
        history, per_epoch = self._training.history, self._training.settings.steps_per_epoch
        history.epochs = [row for row in history.epochs if row["step"] % per_epoch == 0]

    def goes_on(self) -> bool:
        """Return whether there are steps to take, those of the latest extension too."""
        while self._job.step == len(self._job.rates):
            if self._training.reins.close():
                return False
            self._look_at_budget()
            self._drop_part()
        return True

    def begin(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the batches of an epoch, or what is left of it."""
        job = self._job
        epoch, done = divmod(job.step, self._training.settings.steps_per_epoch)
        if not done:
            self._take_up_random()  # before it, since a loader seeds its whole epoch
        batches = job.batches.epoch(epoch, skip=done)
        self._take_up_random()  # after it, since a loader draws for the batches it skips
        if not self._watched:
            self._draws, self._watched = GlobalWatch(), True
        return batches

    def _take_up_random(self) -> None:
        """Put the global generators once to where an interruption left them."""
        if self._job.random is not None and alone():
            restore_random_state(self._job.random)
            self._job.random = None

    def look(self) -> None:
        """Take the losses since the last look into the history; keep a checkpoint if one is due."""
        job, history = self._job, self._training.history
        recent = self.losses[self._looked : job.step].tolist()
        history.steps["lr"] += job.rates[self._looked : job.step]
        for value in recent:
            history.steps["loss"].append(value)
            if not abs(value) <= _EXPLODED * max(abs(history["loss"][0]), 1.0):  # also true of NaN
                raise self._diverged(value)
        self._looked = job.step
        self._training.seconds = time.perf_counter() - self._started - self._training.reins.waited
        if self._files is not None:
            self._files.append(history, self._training.seconds)
            self._training.reins.obey(self._training.folder)
        self._look_at_draws()
        self._look_at_budget()
        if self._pulse is not None and recent:
            self._pulse.look(job.step, sum(recent) / len(recent))
        for follower in followers_of(job.model):
            follower(job.model, job.held, job.step)
        if not self._at_a_row():  # there the row comes first
            self._keep_if_due()

    def hold(self) -> bool:
        """Let others use the model while the training is paused; return whether to stop."""
        job, training = self._job, self._training
        self.look()
        if self._owes_a_row():
            return training.reins.stopping  # held after it, where the epoch ends
        if training.reins.paused:
            if self._checkpoints is not None and self._kept < job.step:
                self._check_weights()
                self._keep()
            self._tell("paused")
            with lent(job.model, job.held):
                training.reins.wait(training.folder)
            self._tell("running")
        return training.reins.settle()

    def _tell(self, state: TrainingState) -> None:
        """Let everyone know how the training stands, in other processes too."""
        self._training.state = state
        if self._files is not None:
            with contextlib.suppress(OSError):  # a full disk stops nobody from pausing
                self._training.write()

    def _look_at_draws(self) -> None:
        """Say where something draws globally; in a thread only its own first step can tell."""
        if self._draws is not None:
            found = self._draws.look()
            if found:
                self._training.say(found)
            if not alone():
                self._draws = None

    def _look_at_budget(self) -> None:
        """Size minutes anew where that is due, and take up extensions."""
        job, training = self._job, self._training
        changed = job.clock is not None and job.clock.look(training, job.step)
        for steps in training.reins.asked():
            phases = (*training.settings.phases, Phase(steps, steps, added=True))
            training.settings = replace(training.settings, phases=phases)
            job.clock, changed = None, True
            self._tell("running")
        if changed:
            self._take_up_phases()

    def _take_up_phases(self) -> None:
        """Follow phases that have changed."""
        settings = self._training.settings
        self._job.follow(settings)
        more = torch.empty(max(0, settings.steps - len(self.losses)), device=settings.device)
        self.losses = torch.cat([self.losses, more])

    def end_epoch(self) -> None:
        """Add a row to the history: of the epoch, or of the part that the budget had left for."""
        job, history = self._job, self._training.history
        self.look()
        reins = self._training.reins
        if not self._at_a_row() and (reins.interrupted or not reins.stopping):
            return  # what was left of an epoch goes on, here or when it is resumed
        per_epoch = self._training.settings.steps_per_epoch
        epoch = -(-job.step // per_epoch)
        first = (epoch - 1) * per_epoch
        row = {"epoch": epoch, "step": job.step, "loss": _mean(history["loss"][first:])}
        if job.preprocessing.classes:
            row["accuracy"] = int(self._correct) / job.seen
        if job.validation is not None:
            started = time.perf_counter()
            row |= validate(job)
            if job.clock is not None:
                job.clock.scored(time.perf_counter() - started)
        history.epochs.append(row)
        if self._at_an_end():
            job.seen = 0
            self._correct.zero_()
        score = row.get("validation_loss", row["loss"])
        if score < job.best and self._at_a_row():
            job.best = score
            rest = {"step": job.step, "epochs": [row]}
            self._best = Snapshot(copied(weights_of(job), "model"), rest)
        if self._pulse is not None:
            self._pulse.epoch(row)
        for hook in job.hooks("on_epoch"):
            hook(self._training, row)
        self._keep_if_due()

    def end(self) -> None:
        """Keep the last checkpoint, and what the loop has counted of an epoch."""
        self._check_weights()
        self._job.correct = int(self._correct)
        if self._files is not None:
            self._files.append(self._training.history, self._training.seconds)
        if self._checkpoints is not None and self._kept < self._job.step:
            self._keep()

    def _owes_a_row(self) -> bool:
        rows, step = self._training.history.epochs, self._job.step
        return step > 0 and self._at_a_row() and not (rows and rows[-1]["step"] == step)

    def _at_an_end(self) -> bool:
        return self._job.step % self._training.settings.steps_per_epoch == 0

    def _at_a_row(self) -> bool:
        """Return whether the history of a training that is never stopped has a row here."""
        return self._at_an_end() or self._job.step == self._training.settings.steps

    def _keep_if_due(self) -> None:
        if self._checkpoints is not None and self._checkpoints.due():
            self._check_weights()
            self._keep()

    def _check_weights(self) -> None:
        """Raise where the last step's harm shows in no loss yet."""
        learned = (p for p in self._job.model.parameters() if p.requires_grad)
        if not all(value.isfinite().all() for value in learned):
            raise self._diverged(math.nan)

    def _keep(self) -> None:
        assert self._checkpoints is not None
        self._job.correct = int(self._correct)
        best, self._best, self._kept = self._best, None, self._job.step
        self._checkpoints.save(snapshot(self._job, self._training), best)

    def _diverged(self, value: float) -> DivergedError:
        settings, losses = self._training.settings, self._training.history["loss"]
        step = len(losses)
        return DivergedError(
            f"the loss is {value:g} at step {step:,} of {settings.steps:,} with a learning rate of "
            f"{self._job.rates[step - 1]:.3g}, it began with {losses[0]:.4g}"
        )


def _mean(values: list[float]) -> float:
    """Return the mean, summed exactly, so that it is the same however the values came together."""
    return math.fsum(values) / len(values)
