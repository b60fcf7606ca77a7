"""What a run's kernel begins with: seeds, and deterministic algorithms once torch is there.

It costs a notebook nothing that uses neither NumPy nor torch: what is theirs is done when they are
imported.
"""

from __future__ import annotations

import importlib.abc
import importlib.util
import random
import sys
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType

__all__ = ["begin"]


def begin(seed: int) -> None:
    """Let every global random number come from a seed, and torch choose deterministic algorithms.

    Args:
        seed: from 0 to 2**32 - 1.
    """
    random.seed(seed)
    _afterwards("numpy.random", lambda numpy_random: numpy_random.seed(seed))
    _afterwards("torch", lambda torch: _settle_torch(torch, seed))


def _settle_torch(torch: ModuleType, seed: int) -> None:
    torch.manual_seed(seed)
    torch.use_deterministic_algorithms(True, warn_only=True)
    torch.utils.deterministic.fill_uninitialized_memory = False  # costs time, and changes no number
    torch.backends.cudnn.benchmark = False


def _afterwards(name: str, act: Callable[[ModuleType], object]) -> None:
    """Call `act` with a module: now where it is imported already, else once it is."""
    if name in sys.modules:
        act(sys.modules[name])
    else:
        sys.meta_path.insert(0, _Awaiting(name, act))


class _Awaiting(importlib.abc.MetaPathFinder):
    """Finds one module as all others do, and acts once it has been executed."""

    def __init__(self, name: str, act: Callable[[ModuleType], object]) -> None:
        self._name, self._act = name, act

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name != self._name:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(name)
        if spec is None or spec.loader is None:
            return spec
        execute = spec.loader.exec_module

        def executed(module: ModuleType) -> None:
            execute(module)
            self._act(module)

        spec.loader.exec_module = executed  # type: ignore[method-assign]
        return spec
