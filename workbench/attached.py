"""What is remembered of a model while it lives, beside it and never inside its state dict."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from threading import Lock, RLock
from typing import TYPE_CHECKING, Any
from weakref import ReferenceType, WeakKeyDictionary, ref

import torch
from torch import Tensor, nn

from workbench.determinism import generator
from workbench.types import JSON

if TYPE_CHECKING:
    from workbench.preprocessing import Preprocessing
    from workbench.training import Training

__all__ = [
    "EXAMPLE_ROWS",
    "Attached",
    "Follower",
    "attached",
    "follow",
    "followers_of",
    "lock_of",
    "released",
    "sample_of",
]

# Called between two steps of a training with the model, averages of its weights, the steps done.
Follower = Callable[[nn.Module, Mapping[str, Tensor], int], None]

EXAMPLE_ROWS = 4  # raw rows kept to show what a model takes
_SAMPLE_ROWS = 2000
_SAMPLE_BYTES = 64 * 2**20


@dataclass
class Attached:
    """What `build`, `fit` and `load` leave beside a model for `publish`, `predict` and `serve`.

    Args:
        architecture: builder name and sizes, where `build` made the model.
        preprocessing: what turns raw inputs into what `forward` takes.
        example: a few raw rows, shaped (rows, ...); or by the names of several inputs.
        sample: raw rows, as `sample_of` picks them: of the validation split where there is one.
        sample_split: the split that they are of, `"validation"` or `"train"`.
        training: the last call to `fit`.
        version: the reference of the model version it was loaded from.
    """

    architecture: JSON | None = None
    preprocessing: Preprocessing | None = None
    example: Any = None
    sample: Tensor | None = None
    sample_split: str = "train"
    training: Training | None = None
    version: str | None = None


_models: WeakKeyDictionary[nn.Module, Attached] = WeakKeyDictionary()
_locks: WeakKeyDictionary[nn.Module, RLock] = WeakKeyDictionary()  # apart: a copy is free
_followers: WeakKeyDictionary[nn.Module, list[ReferenceType[Follower]]] = WeakKeyDictionary()
_guard = Lock()


def attached(model: nn.Module) -> Attached:
    """Return what is remembered of `model`, empty at first; change it in place."""
    with _guard:
        return _models.setdefault(model, Attached())


def lock_of(model: nn.Module) -> RLock:
    """Return the lock that the thread holds which moves the model's weights; it is reentrant."""
    with _guard:
        return _locks.setdefault(model, RLock())


def follow(model: nn.Module, follower: Follower) -> None:
    """Let trainings of `model` call `follower` between steps, for as long as it lives."""
    with _guard:
        known = _followers.setdefault(model, [])
        known[:] = [*(one for one in known if one() is not None), ref(follower)]


def followers_of(model: nn.Module) -> list[Follower]:
    """Return those that `follow` the model and still live."""
    with _guard:
        known = [one() for one in _followers.get(model, ())]
    return [follower for follower in known if follower is not None]


def sample_of(rows: Tensor) -> Tensor:
    """Return a copy of at most 2,000 rows and 64 MiB of `rows`, the same each time.

    One is drawn from each of as many equal stretches: whatever recurs in the order of the rows, a
    day or a class, is met as often as it occurs.

    Args:
        rows: shaped (rows, ...), one or more.
    """
    fitting = max(1, _SAMPLE_BYTES // max(1, rows[:1].nbytes))
    n = min(len(rows), _SAMPLE_ROWS, fitting)
    bounds = torch.arange(n + 1) * len(rows) // n
    within = torch.rand(n, generator=generator(0, "sample"), dtype=torch.float64)
    return rows[bounds[:-1] + (within * bounds.diff()).long()]


@contextlib.contextmanager
def released(model: nn.Module) -> Iterator[None]:
    """Let other threads have the model for the while; the caller holds its lock, once."""
    lock = lock_of(model)
    lock.release()
    try:
        yield
    finally:
        lock.acquire()
