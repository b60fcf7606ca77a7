"""Seeds: every random number of the workbench is a function of a seed and of what it is for."""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch

__all__ = ["generator", "seed_everything"]


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
