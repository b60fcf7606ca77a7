"""The loop: rows to outputs, outputs to a loss, the loss to a step.

What makes it fast for small nets: rows stay one tensor and are gathered by index, losses stay where
they were computed until somebody looks, and looking happens by time, never by step.
"""

from __future__ import annotations

import math
import time
from typing import Any

import torch
from torch import Tensor, nn

from workbench.datasets import Split
from workbench.errors import DivergedError
from workbench.evaluation import infer
from workbench.evaluation.losses import Loss, is_binary
from workbench.preprocessing import Preprocessing
from workbench.training.batches import Batches
from workbench.training.pulses import Pulse
from workbench.training.schedules import triangle
from workbench.training.trainings import Training

__all__ = ["train"]

_EXPLODED = 1e6  # times the first loss, or 1 where that is smaller
_LOOK_EVERY = 0.25  # seconds


def train(
    model: nn.Module,
    batches: Batches,
    *,
    training: Training,
    preprocessing: Preprocessing,
    optimizer: torch.optim.Optimizer,
    loss: Loss,
    validation: Split | None,
    pulse: Pulse,
) -> None:
    """Take the training's steps, writing its history as they go.

    Raises:
        DivergedError: the loss is not a number, or is a million times the first one.
    """
    settings, history = training.settings, training.history
    rates = [settings.lr * share for share in triangle(settings.steps)]
    losses = torch.empty(settings.steps, device=settings.device)
    step, looked = 0, 0
    next_look = time.perf_counter() + _LOOK_EVERY
    for epoch in range(-(-settings.steps // batches.steps_per_epoch)):
        model.train()
        first, seen = step, 0
        correct = torch.zeros((), dtype=torch.int64, device=settings.device)
        for inputs, targets in batches.epoch(epoch):
            for group in optimizer.param_groups:
                group["lr"] = rates[step]
            outputs = model(preprocessing(inputs))
            value = loss(outputs, targets)
            optimizer.zero_grad(set_to_none=True)
            value.backward()
            optimizer.step()

            losses[step] = value.detach()
            if preprocessing.classes:
                correct += _hits(outputs.detach(), targets, preprocessing.classes)
            seen += len(targets)
            step += 1
            if time.perf_counter() >= next_look:
                recent = _finite(losses[looked:step], looked, history["loss"], training)
                pulse.look(step, sum(recent) / len(recent))
                history.steps["loss"] += recent
                looked, next_look = step, time.perf_counter() + _LOOK_EVERY
            if step == settings.steps:
                break

        history.steps["loss"] += _finite(losses[looked:step], looked, history["loss"], training)
        looked = step
        history.steps["lr"] += rates[first:step]
        row = {"epoch": epoch + 1, "step": step, "loss": float(losses[first:step].mean())}
        if preprocessing.classes:
            row["accuracy"] = int(correct) / seen
        if validation is not None:
            row |= _validate(model, validation, preprocessing, loss)
        history.epochs.append(row)
        pulse.epoch(row)
    if not all(value.isfinite().all() for value in model.parameters()):
        # the last step's harm shows in no loss
        raise _diverged(math.nan, step, history["loss"][0], training)


def _hits(outputs: Tensor, targets: Tensor, classes: tuple[str, ...]) -> Tensor:
    """Return how many rows were answered rightly, as a tensor, so that nobody waits for it."""
    said = outputs[:, 0] > 0 if is_binary(outputs, classes) else outputs.argmax(1)
    return (said == targets).sum()


def _validate(
    model: nn.Module, split: Split, preprocessing: Preprocessing, loss: Loss
) -> dict[str, float]:
    outputs = infer(model, preprocessing.batch(split.inputs), preprocessing)
    row = {"validation_loss": float(loss(outputs, split.targets))}
    if split.classes:
        hits = _hits(outputs, split.targets, split.classes)
        row["validation_accuracy"] = int(hits) / len(split)
    return row


def _finite(recent: Tensor, start: int, before: list[float], training: Training) -> list[float]:
    """Return the losses of the last steps, or raise at the first that has left the ground."""
    values: list[float] = recent.tolist()
    first = before[0] if before else values[0]
    limit = _EXPLODED * max(abs(first), 1.0)
    for i, value in enumerate(values):
        if not abs(value) <= limit:  # also true of NaN
            raise _diverged(value, start + i + 1, first, training)
    return values


def _diverged(value: float, step: int, first: float, training: Training) -> DivergedError:
    s: Any = training.settings
    return DivergedError(
        f"the loss is {value:g} at step {step:,} of {s.steps:,}, it began with {first:.4g}: "
        f"try a smaller lr, for instance {s.lr / 10:g} instead of {s.lr:g}, and look for inputs or "
        "targets that are NaN or far larger than the rest. The model is as it was before this fit."
    )
