"""The loop: rows to outputs, outputs to a loss, the loss to a step.

What makes it fast for small nets: rows stay one tensor and are gathered by index, losses stay where
they were computed until somebody looks, and looking happens by time, never by step.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from workbench.training.averages import floating
from workbench.training.checkpoints import Checkpoints
from workbench.training.dropout import own_dropout
from workbench.training.histories import HistoryFiles
from workbench.training.jobs import Job
from workbench.training.optimizers import set_rate, train_mode
from workbench.training.pulses import Pulse
from workbench.training.scores import hits
from workbench.training.trainings import Training
from workbench.training.watchers import Watcher

__all__ = ["in_parts", "n_parts", "train"]

_LOOK_EVERY = 0.25  # seconds


def train(
    job: Job,
    training: Training,
    *,
    pulse: Pulse | None = None,
    checkpoints: Checkpoints | None = None,
    files: HistoryFiles | None = None,
) -> None:
    """Take the steps that are left, writing the training's history as they go.

    Args:
        job: what to work with, and where it stands.
        training: whose settings are followed; its reins are read after each step.
        pulse: shows that the training lives.
        checkpoints: keeps what it would take to go on.
        files: keep the history where others can read it.

    Raises:
        DivergedError: the loss is not a number, or is a million times the first one.
    """
    settings, reins = training.settings, training.reins
    device, classes = torch.device(settings.device), job.preprocessing.classes
    model, loss, optimizer, average = job.model, job.loss, job.optimizer, job.average
    forward = torch.compile(model) if settings.compile else model
    half = settings.precision == "bf16"
    precision = torch.autocast(device.type, torch.bfloat16) if half else nullcontext()
    learned = [p for group in optimizer.param_groups for p in group["params"]]
    weights = [tensor.detach() for tensor in floating(model).values()]
    on_step = job.hooks("on_step")
    correct = torch.tensor(job.correct, device=device)
    watcher = Watcher(job, training, correct, pulse, checkpoints, files)
    next_look = 0.0  # so the first one comes right after the first step

    with own_dropout(model, settings.seed, device) as draws:
        while watcher.goes_on() and not (reins.halted and watcher.hold()):
            train_mode(model)
            for inputs, targets in watcher.begin():
                set_rate(optimizer, job.rates[job.step])
                optimizer.zero_grad()
                if draws is not None:
                    draws.step(job.step)
                if settings.accumulate > 1:
                    outputs, value = in_parts(
                        forward, loss, inputs, targets, settings.accumulate, precision
                    )
                else:
                    with precision:
                        outputs = forward(inputs)
                    outputs = outputs.float()
                    value = loss(outputs, targets)
                    value.backward()
                if settings.clip is not None:
                    torch.nn.utils.clip_grad_norm_(learned, settings.clip)
                optimizer.step()

                watcher.losses[job.step] = value.detach()
                if classes:
                    correct += hits(outputs.detach(), targets, classes)
                job.seen += len(targets)
                job.step += 1
                if average is not None:
                    average.update(job.held, weights, job.step, job.ends[job.step - 1])
                if time.perf_counter() >= next_look:
                    watcher.look()
                    next_look = time.perf_counter() + _LOOK_EVERY
                for hook in on_step:
                    hook(training, job.step)
                if job.step == len(job.rates) or (reins.halted and watcher.hold()):
                    break
            watcher.end_epoch()
    watcher.end()


def in_parts(
    forward: Callable[[Tensor], Tensor],
    loss: Callable[[Tensor, Tensor], Tensor],
    inputs: Tensor,
    targets: Tensor,
    n: int,
    precision: AbstractContextManager[Any],
) -> tuple[Tensor, Tensor]:
    """Add up the gradients of a step's rows in `n` parts; return all outputs and the mean loss."""
    answers, total = [], torch.zeros((), device=inputs.device)
    n = n_parts(n, len(inputs))
    for part, truth in zip(inputs.tensor_split(n), targets.tensor_split(n), strict=True):
        with precision:
            outputs = forward(part)
        value = loss(outputs.float(), truth) * (len(part) / len(inputs))
        value.backward()
        answers.append(outputs.detach().float())
        total += value.detach()
    return torch.cat(answers), total


def n_parts(asked: int, rows: int) -> int:
    """Return how many parts the rows of a step go through the model in."""
    return max(1, min(asked, rows // 2))  # BatchNorm can learn nothing of a row alone
