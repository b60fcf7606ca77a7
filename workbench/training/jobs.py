"""`Job`: what the loop works with and where it stands, and that to a checkpoint and back."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from weakref import ReferenceType

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from workbench.datasets import Split
from workbench.determinism import random_state
from workbench.errors import RequestError
from workbench.evaluation.losses import Loss
from workbench.preprocessing import Preprocessing
from workbench.training.averages import Average
from workbench.training.batches import Batches
from workbench.training.callbacks import Callback
from workbench.training.checkpoints import Snapshot, copied, copy_into, tensors_of
from workbench.training.clocks import Clock
from workbench.training.phases import all_ends, all_rates
from workbench.training.schedules import Schedule
from workbench.training.settings import Settings
from workbench.training.trainings import Training
from workbench.types import JSON

__all__ = ["Job", "group_state", "restore", "snapshot", "weights_of"]

_PLAIN = (bool, int, float, str, type(None))


@dataclass
class Job:
    """All that the loop works with, and where it stands.

    Args:
        model_ref: the model, on its device; weakly, so that a training does not keep it alive.
        batches: give the rows of each step.
        preprocessing: of validation rows.
        loss: from outputs and targets to a scalar.
        optimizer: its groups have a `share` of the rate each.
        rates: the learning rate of each step, as many as there are to take.
        ends: for each step, the one that its phase is sized to end on.
        schedule: what the rates are made by.
        validation: the split that is scored after each epoch, or None.
        average: of the weights, or None.
        clock: keeps a budget of minutes, or None.
        inherited: of a branch, the rates of the steps that its parent had taken.
        callbacks: code of the user's own.
        held: the average so far, by name.
        step: how many steps are done.
        correct: rows of this epoch that were answered rightly.
        seen: rows of this epoch.
        best: the lowest validation loss so far, or training loss where nothing is validated.
        random: states of the global generators to go on from, after an interruption.
    """

    model_ref: ReferenceType[nn.Module]
    batches: Batches
    preprocessing: Preprocessing
    loss: Loss
    optimizer: Optimizer
    rates: list[float]
    ends: list[int]
    schedule: Schedule
    validation: Split | None = None
    average: Average | None = None
    clock: Clock | None = None
    inherited: list[float] = field(default_factory=list)
    callbacks: Sequence[Callback] = ()
    held: dict[str, Tensor] = field(default_factory=dict)
    step: int = 0
    correct: int = 0
    seen: int = 0
    best: float = math.inf
    random: JSON | None = None

    @property
    def model(self) -> nn.Module:
        """The model.

        Raises:
            RequestError: nobody holds it any more.
        """
        model = self.model_ref()
        if model is None:
            raise RequestError("the model of this training is gone: fit another one")
        return model

    def hooks(self, name: str) -> list[Callable[..., None]]:
        """Return the methods of that name that the callbacks override."""
        empty = getattr(Callback, name)
        return [getattr(c, name) for c in self.callbacks if getattr(type(c), name) is not empty]

    def follow(self, settings: Settings) -> None:
        """Take the steps of the settings' phases from now on."""
        self.rates = all_rates(settings.phases, self.schedule, settings.lr)
        self.rates[: len(self.inherited)] = self.inherited
        self.ends = all_ends(settings.phases)

    def let_go(self) -> None:
        """Free what only a training that runs needs; a checkpoint brings it back."""
        self.optimizer.zero_grad()
        self.optimizer.state.clear()
        self.batches.let_go()
        self.held, self.clock = {}, None


def weights_of(job: Job) -> dict[str, Tensor]:
    """Return what the model is at its best: all its tensors, those with an average by that."""
    return {**tensors_of(job.model), **job.held}


def snapshot(job: Job, training: Training) -> Snapshot:
    """Return copies of everything that it takes to go on from here."""
    history = training.history
    moving, plain = _optimizer_state(job)
    tensors = copied(tensors_of(job.model), "model") | copied(job.held, "average")
    tensors |= copied(moving, "optimizer")
    tensors["history.loss"] = torch.tensor(history["loss"], dtype=torch.float64)
    tensors["history.lr"] = torch.tensor(history["lr"], dtype=torch.float64)
    rest = {
        "step": job.step,
        "correct": job.correct,
        "seen": job.seen,
        "best": job.best,
        "epochs": list(history.epochs),
        "seconds": training.seconds,
        "optimizer": plain,
        "groups": group_state(job),
        "random": random_state(),
    }
    return Snapshot(tensors, rest)


def restore(job: Job, training: Training, state: Snapshot, source: str) -> None:
    """Put a job and its training's history where a checkpoint left them.

    Args:
        job: new; its model must have the checkpoint's tensors.
        training: whose history is filled.
        state: from `read_checkpoint`.
        source: names the checkpoint in an error.

    Raises:
        RequestError: the model is another one, or the learning rates are.
    """
    losses, lrs = (state.tensors[f"history.{name}"].tolist() for name in ("loss", "lr"))
    if training.branched_from is not None:
        job.inherited = lrs[: training.branched_from.step]
        job.follow(training.settings)
    for i, (ours, theirs) in enumerate(zip(job.rates, lrs, strict=False)):
        if ours != theirs:
            raise RequestError(
                f"{source} was trained by another schedule: the rate of step {i + 1:,} was "
                f"{theirs:g} and would be {ours:g}: pass the schedule it had"
            )
    copy_into(job.model, state.part("model"), source)
    _restore_optimizer(job, state.part("optimizer"), state.rest["optimizer"])
    for group, kept in zip(job.optimizer.param_groups, state.rest["groups"], strict=True):
        group.update(kept)
    for name, value in state.part("average").items():
        job.held[name].copy_(value)
    job.step, job.best, job.random = state.step, state.rest["best"], state.rest["random"]
    job.correct, job.seen = state.rest["correct"], state.rest["seen"]
    training.history.steps = {"loss": losses, "lr": lrs}
    training.history.epochs = list(state.rest["epochs"])
    training.seconds = state.rest["seconds"]


def _optimizer_state(job: Job) -> tuple[dict[str, Tensor], JSON]:
    """Return the optimizer's tensors by parameter and key, and the rest as plain data."""
    moving, plain = {}, {}
    for name, p in job.model.named_parameters():
        for key, value in job.optimizer.state.get(p, {}).items():
            if isinstance(value, Tensor):
                moving[f"{name}.{key}"] = value
            else:
                plain[f"{name}.{key}"] = _plain(job, key, value)
    return moving, plain


def group_state(job: Job) -> list[JSON]:
    """Return the plain values of the optimizer's groups, where some optimizers keep a state."""
    return [
        {key: value for key, value in group.items() if isinstance(value, _PLAIN)}
        for group in job.optimizer.param_groups
    ]


def _plain(job: Job, key: str, value: Any) -> Any:
    if isinstance(value, _PLAIN):
        return value
    raise RequestError(
        f"{type(job.optimizer).__name__} keeps a {type(value).__name__} as {key!r}, expected "
        "tensors and plain numbers, which a checkpoint can hold: use another optimizer"
    )


def _restore_optimizer(job: Job, moving: dict[str, Tensor], plain: JSON) -> None:
    fused = job.optimizer.defaults.get("fused", False)
    parameters = dict(job.model.named_parameters())
    for whole, value in {**moving, **plain}.items():
        name, _, key = whole.rpartition(".")
        job.optimizer.state[parameters[name]][key] = _like(parameters[name], value, fused=fused)


def _like(p: Tensor, value: Any, *, fused: bool) -> Any:
    """Return a tensor of a parameter's shape in its memory format; anything else as it is.

    Fused optimizers walk both through memory alike, and count their steps where the parameter is.
    """
    if not isinstance(value, Tensor):
        return value
    if value.shape == p.shape:
        return torch.empty_like(p, dtype=value.dtype).copy_(value)
    return value.to(p.device) if fused else value
