"""The loop: rows to outputs, outputs to a loss, the loss to a step.

What makes it fast for small nets: rows stay one tensor and are gathered by index, losses stay where
they were computed until somebody looks, and looking happens by time, never by step.
"""

from __future__ import annotations

import math
import time

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
                recent = _keep(losses[looked:step], training)
                pulse.look(step, sum(recent) / len(recent))
                looked, next_look = step, time.perf_counter() + _LOOK_EVERY
            if step == settings.steps:
                break

        _keep(losses[looked:step], training)
        looked = step
        history.steps["lr"] += rates[first:step]
        row = {"epoch": epoch + 1, "step": step, "loss": float(losses[first:step].mean())}
        if preprocessing.classes:
            row["accuracy"] = int(correct) / seen
        if validation is not None:
            row |= _validate(model, validation, preprocessing, loss, settings.device)
        history.epochs.append(row)
        pulse.epoch(row)
    if not all(value.isfinite().all() for value in model.parameters()):
        # the last step's harm shows in no loss
        raise _diverged(math.nan, step, training)


def _hits(outputs: Tensor, targets: Tensor, classes: tuple[str, ...]) -> Tensor:
    """Return how many rows were answered rightly, as a tensor, so that nobody waits for it."""
    said = outputs[:, 0] > 0 if is_binary(outputs, classes) else outputs.argmax(1)
    return (said == targets).sum()


def _validate(
    model: nn.Module, split: Split, preprocessing: Preprocessing, loss: Loss, device: str
) -> dict[str, float]:
    outputs = infer(model, preprocessing.batch(split.inputs), preprocessing)
    row = {"validation_loss": float(loss(outputs.to(device), split.targets.to(device)))}
    if split.classes:
        hits = _hits(outputs, split.targets, split.classes)
        row["validation_accuracy"] = int(hits) / len(split)
    return row


def _keep(recent: Tensor, training: Training) -> list[float]:
    """Add the losses of the last steps to the history; raise at one that has left the ground."""
    losses = training.history["loss"]
    values: list[float] = recent.tolist()
    for value in values:
        losses.append(value)
        if not abs(value) <= _EXPLODED * max(abs(losses[0]), 1.0):  # also true of NaN
            raise _diverged(value, len(losses), training)
    return values


def _diverged(value: float, step: int, training: Training) -> DivergedError:
    return DivergedError(
        f"the loss is {value:g} at step {step:,} of {training.settings.steps:,}, "
        f"it began with {training.history['loss'][0]:.4g}"
    )
