"""Seeds: every random number of the workbench is a function of a seed and of what it is for."""

from __future__ import annotations

import contextlib
import hashlib
import random
import threading
from collections.abc import Iterator
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.errors import RequestError
from workbench.types import JSON

__all__ = [
    "OwnDraws",
    "alone",
    "apart",
    "check_seed",
    "generator",
    "random_state",
    "restore_random_state",
    "seed_everything",
    "undisturbed",
]


_thread = threading.local()
_turn = threading.RLock()  # whose turn it is to have the global generators


def check_seed(seed: Any) -> None:
    """Raise where a number cannot seed every generator.

    Raises:
        RequestError: it is no whole number from 0 to 2**32 - 1.
    """
    if isinstance(seed, bool) or not isinstance(seed, Integral) or not 0 <= int(seed) < 2**32:
        raise RequestError(f"seed must be a whole number from 0 to 2**32 - 1, got {seed!r:.60}")


def seed_everything(seed: int) -> None:
    """Seed Python's, NumPy's and torch's global generators.

    Args:
        seed: any integer from 0 to 2**32 - 1.
    """
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def generator(seed: int, *purpose: str | int) -> torch.Generator:
    """Return a fresh CPU generator for one purpose, independent of every other purpose.

    Being a function of its arguments alone, it has no state that an interruption could lose.

    Args:
        seed: the seed of the whole.
        purpose: what the numbers are for, for instance `"order", epoch`.

    >>> int(torch.randint(100, (1,), generator=generator(0, "order", 1)))
    40
    """
    key = repr((seed, *purpose)).encode()
    number = int.from_bytes(hashlib.sha256(key).digest()[:8], "big") >> 1
    return torch.Generator().manual_seed(number)


def random_state() -> JSON:
    """Return the state of Python's, NumPy's and torch's global generators as plain data."""
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    return {
        "python": [version, list(numbers), gauss],
        "numpy": [kind, np.asarray(keys).tolist(), position, has_gauss, cached],
        "torch": _hex(torch.get_rng_state()),
        "cuda": [_hex(state) for state in torch.cuda.get_rng_state_all()],
    }


def restore_random_state(state: JSON) -> None:
    """Set the global generators to what `random_state` returned."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(numbers), gauss))
    kind, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((kind, np.array(keys, dtype=np.uint32), position, has_gauss, cached))
    torch.set_rng_state(_bytes(state["torch"]))
    if state["cuda"] and torch.cuda.device_count() == len(state["cuda"]):
        torch.cuda.set_rng_state_all([_bytes(text) for text in state["cuda"]])


@contextlib.contextmanager
def undisturbed() -> Iterator[None]:
    """Give the global generators back at the end as they were at the beginning.

    Trainings that borrow them in other threads wait until then.
    """
    with _turn:
        before = random_state()
        try:
            yield
        finally:
            restore_random_state(before)


def alone() -> bool:
    """Return whether this thread may set the global generators: not while cells run beside it."""
    return not getattr(_thread, "apart", False)


@contextlib.contextmanager
def apart() -> Iterator[None]:
    """Let this thread, for the while, leave the global generators to the others."""
    before = not alone()
    _thread.apart = True
    try:
        yield
    finally:
        _thread.apart = before


class OwnDraws:
    """A course of the global generators of its own, put in their place for moments at a time.

    So a thread can use code that draws globally, and two such threads do not disturb each other.
    What another thread draws in these very moments comes from this course, and moves it.

    Args:
        seed: what the course begins with.
    """

    def __init__(self, seed: int) -> None:
        self._own: tuple[Any, ...] | None = None
        self._theirs: tuple[Any, ...] = ()
        self._seed = seed

    def __enter__(self) -> OwnDraws:
        _turn.acquire()
        self._theirs = _states()
        if self._own is None:
            random.seed(self._seed)
            np.random.seed(self._seed)
            torch.default_generator.manual_seed(self._seed)  # of the CPU alone
        else:
            _set_states(self._own)
        return self

    def __exit__(self, *_: object) -> None:
        self._own = _states()
        _set_states(self._theirs)
        _turn.release()


def _states() -> tuple[Any, ...]:
    return random.getstate(), np.random.get_state(legacy=True), torch.get_rng_state()


def _set_states(states: tuple[Any, ...]) -> None:
    python, numpy, torchs = states
    random.setstate(python)
    np.random.set_state(numpy)
    torch.set_rng_state(torchs)


def _hex(state: Tensor) -> str:
    return state.numpy().tobytes().hex()


def _bytes(text: str) -> Tensor:
    return torch.frombuffer(bytearray.fromhex(text), dtype=torch.uint8)
