"""Evaluation mode for the while."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from torch import nn

__all__ = ["evaluating"]


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode for the while, then each back into its own.

    Flags are set one by one: a module frozen by `eval()` inside a model in training stays so, and
    an exported program, which refuses `eval()`, works too.
    """
    before = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in before:
            module.training = False
        yield
    finally:
        for module, flag in before:
            module.training = flag
