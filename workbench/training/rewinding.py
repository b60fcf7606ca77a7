"""Going back: a training taken once more from a checkpoint to any step, on a copy of its model.

A checkpoint has all that it takes to go on, and whatever else a step depends on is a function of
(seed, epoch, row); so the steps after it can be taken again to the same bits, and the losses that
they come to say whether they were.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Integral
from pathlib import Path
from typing import Any
from weakref import ReferenceType, ref

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.data import DataLoader

from workbench.attached import attached
from workbench.datasets import Dataset
from workbench.determinism import apart
from workbench.errors import DivergedError, RequestError
from workbench.preprocessing import Preprocessing
from workbench.progress import progress
from workbench.training.batches import Batches, own_loader
from workbench.training.callbacks import Callback
from workbench.training.checkpoints import Snapshot, copy_into, read_checkpoint, tensors_of
from workbench.training.dropout import own_forward
from workbench.training.folders import check_same, environment
from workbench.training.histories import History
from workbench.training.jobs import Job, restore, weights_of
from workbench.training.live import is_busy
from workbench.training.loop import train
from workbench.training.phases import cut_short
from workbench.training.planning import Plan, make_plan, prepared, remember
from workbench.training.scores import validate
from workbench.training.trainings import Training
from workbench.types import JSON

__all__ = [
    "Given",
    "Replay",
    "Told",
    "blank_copy",
    "checked_step",
    "figures_at",
    "history_until",
    "no_model",
    "replayed",
    "weights_at",
]

_PATIENCE = 3.0  # seconds in which the first checkpoint, or the next one after a thinning, is there

Told = Callable[[int, int], None]  # is given how many steps are done, and of how many


@dataclass(frozen=True)
class Given:
    """What `fit` was given: enough to plan the same training for a copy of the model.

    Args:
        model: weakly, since all else is kept as long as it lives; copied by whoever goes back.
        learned: names of the parameters that were trainable when the training began.
        architecture: what was remembered of the model.
        preprocessing: likewise.
        data: describes the rows.
        loader: gives them instead, or None.
        asked: `fit`'s arguments by name.
        callbacks: code of the user's own.
        every: seconds from one checkpoint to the next.
    """

    model: ReferenceType[nn.Module]
    learned: frozenset[str]
    architecture: JSON | None
    preprocessing: Preprocessing | None
    data: Dataset
    loader: DataLoader[Any] | None
    asked: Mapping[str, Any]
    callbacks: Sequence[Callback] = ()
    every: float = 30.0

    @classmethod
    def of(
        cls, model: nn.Module, preprocessing: Preprocessing | None, data: Dataset, *rest: Any
    ) -> Given:
        """Return what was given together with a model, before it is trained."""
        learned = frozenset(name for name, p in model.named_parameters() if p.requires_grad)
        return cls(ref(model), learned, attached(model).architecture, preprocessing, data, *rest)

    def copy_for(self, training: Training) -> nn.Module:
        """Return a copy of the model, on the training's device, that has no values yet.

        Raises:
            RequestError: nobody holds the model any more, or it cannot be copied.
        """
        model = self.model()
        if model is None:
            raise no_model(training)
        try:
            twin = blank_copy(model, training.settings.device)
        except Exception:  # whatever a class of the user's own raises
            raise RequestError(
                f"the model of training {training.name!r} cannot be copied (copy.deepcopy fails), "
                "so its weights cannot be put beside it: training.checkpoints have some to load"
            ) from None
        for name, p in twin.named_parameters():
            p.requires_grad_(name in self.learned)
        return twin

    def plan_for(self, model: nn.Module, training: Training) -> Plan:
        """Return what the training does, to be done with another model, and with no callbacks."""
        attached(model).__dict__.update(
            architecture=self.architecture, preprocessing=self.preprocessing
        )
        loader = own_loader(self.loader) if self.loader is not None else None
        then = training.settings
        plan = make_plan(model, self.data, self.asked, loader=loader, callbacks=(), then=then)
        check_same(training.name, then, plan.settings)
        plan.job.validation = None
        return plan


@dataclass(frozen=True)
class Replay:
    """A training that was taken once more as far as it was wanted.

    Args:
        model: a copy, which has come to the same weights.
        plan: what was done with it; its job stands where the training stood.
        training: what that has come to: settings and history up to there.
    """

    model: nn.Module
    plan: Plan
    training: Training

    @property
    def job(self) -> Job:
        """Where it stands."""
        return self.plan.job


def no_model(training: Training) -> RequestError:
    """Return what to say where nobody holds the model any more."""
    return RequestError(
        f"training {training.name!r} has no model to go back with in this process: pass model= "
        "and data=, as they were given to fit"
    )


def blank_copy(model: nn.Module, device: str | torch.device) -> nn.Module:
    """Return a copy of a model whose parameters and buffers have memory, but no values yet.

    It may be in training: what its passes have left in it is copied without their graphs, which
    torch refuses to copy, and its dropout draws as it would alone.
    """
    copies = {id(tensor): _blank(tensor, device) for tensor in tensors_of(model).values()}
    for module in model.modules():
        for left in tree_leaves(vars(module)):
            if isinstance(left, Tensor) and not left.is_leaf:
                copies[id(left)] = left.detach().clone()
    twin = copy.deepcopy(model, copies)
    own_forward(twin)
    return twin


def _blank(tensor: Tensor, device: str | torch.device) -> Tensor:
    blank = torch.empty_like(tensor, device=device)
    if isinstance(tensor, nn.Parameter):
        return nn.Parameter(blank, requires_grad=tensor.requires_grad)
    return blank


def history_until(history: History, step: int) -> History:
    """Return what had happened when `step` steps were done."""
    steps = {name: values[:step] for name, values in history.steps.items()}
    return History(steps, [row for row in history.epochs if row["step"] <= step])


def weights_at(
    training: Training, given: Given, step: int, *, told: Told | None = None
) -> nn.Module:
    """Return a copy of the model with the weights that a training had after a step.

    It remembers what the trained one does, and as its training the part up to that step.
    """
    with replayed(training, given, step, told=told) as replay:
        copy_into(replay.model, weights_of(replay.job), training.name)
        remember(replay.plan)
    attached(replay.model).training = replay.training
    return replay.model.eval()


def figures_at(
    training: Training, given: Given, step: int, *, told: Told | None = None
) -> dict[str, float]:
    """Return the figures of the validation split after a step, as the history of an epoch has them.

    Empty where the data has no such split.
    """
    with replayed(training, given, step, told=told) as replay:
        replay.job.validation = replay.plan.data.validation
        return validate(replay.job) if replay.job.validation is not None else {}


@contextlib.contextmanager
def replayed(
    training: Training,
    given: Given,
    step: int,
    *,
    start: int | None = None,
    through: Callable[[Job, Batches], Batches] | None = None,
    told: Told | None = None,
) -> Iterator[Replay]:
    """Take a training once more up to a step; while it lasts, all is as it was between two steps.

    Args:
        training: that has taken the step, or is taking it.
        given: what it was given.
        step: how many steps are to be done.
        start: the latest checkpoint to begin at, by its step; by default any that helps.
        through: puts something between the loop and its batches.
        told: called after each step, instead of a bar.

    Raises:
        RequestError: there is no such step, or the training cannot be taken there exactly.
    """
    step = checked_step(training, step)
    source, state = _before(training, step if start is None else min(start, step))
    settings = replace(training.settings, phases=cut_short(training.settings.phases, step))
    model = given.copy_for(training)
    copy_into(model, state.part("model"), str(source))
    plan = given.plan_for(model, training)
    job = plan.job
    if through is not None:
        job.batches = through(job, job.batches)
    past = Training(
        settings, training.folder, begun=training.begun, environment=training.environment
    )
    past.branched_from, past.state = training.branched_from, "stopped"
    with _left_alone(training), prepared(model, settings):
        job.held = job.average.start(model) if job.average else {}
        job.follow(settings)
        restore(job, past, state, str(source))
        if job.step < step:
            _take_again(training, job, past, told)
        past.history.epochs = history_until(training.history, step).epochs
        yield Replay(model, plan, past)
        job.let_go()


def _take_again(training: Training, job: Job, past: Training, told: Told | None) -> None:
    begun, steps = job.step, past.settings.steps - job.step
    with _shown(steps, told) as count:
        job.callbacks = [_Counting(count)]
        try:
            train(job, past)
        except DivergedError as error:
            raise RequestError(
                f"training {training.name!r} cannot be taken back to step "
                f"{past.settings.steps:,}, where its weights were no numbers any more ({error}): "
                "ask for a step before"
            ) from None
    theirs, ours = training.history["loss"], past.history["loss"]
    for i in range(begun, len(ours)):
        if ours[i] != theirs[i]:
            raise _otherwise(training, i, ours[i])


def _otherwise(training: Training, i: int, loss: float) -> RequestError:
    """Return what to say where a step came to another loss than it had."""
    here = environment()
    changed = [
        f"{name} was {then}, and is {here[name]} here"
        for name, then in training.environment.items()
        if name in here and name != "threads" and here[name] != then
    ]
    reason = "; ".join(changed) or (
        "it depends on more than seed, epoch and row, for instance on global random numbers "
        "(F.dropout), a callback that changes the model, a GPU's order of adding up, or data that "
        "has changed since"
    )
    steps = ", ".join(f"{one.step:,}" for one in training.checkpoints)
    return RequestError(
        f"step {i + 1:,} of training {training.name!r} does not come out as it did: its loss was "
        f"{training.history['loss'][i]:.9g}, and is {loss:.9g} now: {reason}. Exact are the "
        f"checkpoints, of steps {steps}"
    )


def checked_step(training: Training, asked: Any) -> int:
    """Return a step that a training has taken, or is at.

    Raises:
        RequestError: it is none.
    """
    done = len(training.history)
    if isinstance(asked, bool) or not isinstance(asked, Integral) or int(asked) < 0:
        raise RequestError(f"step must be a whole number from 0 to {done:,}, got {asked!r:.60}")
    step, origin = int(asked), training.branched_from
    if step > done:
        going = ": wait until it has" if training.is_going else ""
        raise RequestError(
            f"training {training.name!r} has not come to step {step:,}, it has taken "
            f"{done:,}{going}"
        )
    if origin is not None and step < origin.step:
        raise RequestError(
            f"training {training.name!r} begins at step {origin.step:,}, where it was branched "
            f"from {origin.name!r}: ask that one for step {step:,}"
        )
    return step


def _before(training: Training, step: int) -> tuple[Path, Snapshot]:
    """Return the last checkpoint up to a step.

    Raises:
        RequestError: there is none.
    """
    since = time.perf_counter()
    while True:
        found = [one for one in training.checkpoints if one.step <= step]
        try:
            if found:
                return found[-1].path, read_checkpoint(found[-1].path)
        except RequestError:  # it was thinned out in this moment, and another one is there
            if time.perf_counter() - since > _PATIENCE:
                raise
        if not training.is_going or time.perf_counter() - since > _PATIENCE:
            raise RequestError(
                f"training {training.name!r} has no checkpoint of step {step:,} or before in "
                f"{training.folder}, so nothing leads there"
            )
        time.sleep(0.02)


@contextlib.contextmanager
def _left_alone(training: Training) -> Iterator[None]:
    """Leave the global generators to others, where the training did so or others need them."""
    with apart() if training.has_thread or is_busy() else contextlib.nullcontext():
        yield


@contextlib.contextmanager
def _shown(steps: int, told: Told | None) -> Iterator[Callable[[], Any]]:
    """Give what to call after each step: it moves a bar, or tells somebody."""
    if told is not None:
        done = iter(range(1, steps + 1))
        yield lambda: told(next(done), steps)
    elif threading.current_thread() is threading.main_thread():
        with progress(steps, "going back", unit="step") as bar:
            yield lambda: bar.update(1)
    else:  # a thread that works never prints
        yield lambda: None


class _Counting(Callback):
    """Calls a function after each step."""

    def __init__(self, count: Callable[[], Any]) -> None:
        self._count = count

    def on_step(self, training: Training, step: int) -> None:
        self._count()
