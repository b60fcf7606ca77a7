"""What is remembered of a model while it lives, beside it and never inside its state dict."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from threading import Lock, RLock
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from workbench.types import JSON

if TYPE_CHECKING:
    from workbench.preprocessing import Preprocessing
    from workbench.training import Training

__all__ = ["EXAMPLE_ROWS", "Attached", "attached", "lock_of", "released"]

EXAMPLE_ROWS = 4  # raw rows kept to show what a model takes


@dataclass
class Attached:
    """What `build`, `fit` and `load` leave beside a model for `publish`, `predict` and `serve`.

    Args:
        architecture: builder name and sizes, where `build` made the model.
        preprocessing: what turns raw inputs into what `forward` takes.
        example: a few raw rows, shaped (rows, ...).
        training: the last call to `fit`.
        version: the reference of the model version it was loaded from.
    """

    architecture: JSON | None = None
    preprocessing: Preprocessing | None = None
    example: Tensor | None = None
    training: Training | None = None
    version: str | None = None


_models: WeakKeyDictionary[nn.Module, Attached] = WeakKeyDictionary()
_locks: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()  # apart: a copy is free
_guard = Lock()


def attached(model: nn.Module) -> Attached:
    """Return what is remembered of `model`, empty at first; change it in place."""
    with _guard:
        return _models.setdefault(model, Attached())


def lock_of(model: nn.Module) -> RLock:
    """Return the lock that the thread holds which moves the model's weights; it is reentrant."""
    with _guard:
        return _locks.setdefault(model, RLock())


@contextlib.contextmanager
def released(model: nn.Module) -> Iterator[None]:
    """Let other threads have the model for the while; the caller holds its lock, once."""
    lock = lock_of(model)
    lock.release()
    try:
        yield
    finally:
        lock.acquire()
