"""What a model is put into for the while: evaluation mode, and the hands of one thread alone."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

from torch import nn

from workbench.attached import attached, lock_of

__all__ = ["at_rest", "evaluating", "settled"]

_PATIENCE = 2.0  # seconds after which one wants to know what one waits for


@contextlib.contextmanager
def settled(model: nn.Module) -> Iterator[None]:
    """Wait until no training moves the model's weights, and let none do so for the while.

    A training that is paused or has ended moves none; the training's own thread never waits.
    """
    lock = lock_of(model)
    if not lock.acquire(timeout=_PATIENCE):
        training = attached(model).training
        name = f"training {training.name!r}" if training else "another thread"
        print(f"{name} is using the model: pause or stop it to go on now", file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode for the while, then each back into its own.

    Flags are set one by one: a module frozen by `eval()` inside a model in training stays so, and
    an exported program, which refuses `eval()`, works too. A model in training is waited for.
    """
    with settled(model), at_rest(model):
        yield


@contextlib.contextmanager
def at_rest(model: nn.Module) -> Iterator[None]:
    """Do as `evaluating`, for whoever has the model to himself already."""
    before = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in before:
            module.training = False
        yield
    finally:
        for module, flag in before:
            module.training = flag
