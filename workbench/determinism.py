"""Seeds: every random number of the workbench is a function of a seed and of what it is for."""

from __future__ import annotations

import hashlib
import random
from numbers import Integral
from typing import Any

import numpy as np
import torch

from workbench.errors import RequestError

__all__ = ["check_seed", "generator", "seed_everything"]


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
