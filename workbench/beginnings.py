"""What a run's kernel begins with, seeds and deterministic algorithms, and what it ends with.

It costs a notebook nothing that uses neither NumPy nor torch: what is theirs is done when they are
imported.
"""

from __future__ import annotations

import atexit
import contextlib
import hashlib
import importlib.abc
import importlib.util
import json
import os
import random
import site
import sys
import threading
from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import NoReturn

__all__ = ["begin", "facts", "leave"]


def begin(seed: int) -> None:
    """Let every global random number come from a seed, and torch choose deterministic algorithms.

    Args:
        seed: from 0 to 2**32 - 1.
    """
    random.seed(seed)
    _afterwards("numpy.random", lambda numpy_random: numpy_random.seed(seed))
    _afterwards("torch", lambda torch: _settle_torch(torch, seed))


def facts() -> str:
    """Return, as JSON, what is known once all is imported: the hardware as torch sees it, modules.

    Of the hardware there is nothing where torch was not imported, which it never is for this.
    """
    hardware: dict[str, object] = {}
    if "torch" in sys.modules:
        from workbench.devices import hardware as seen

        hardware = seen()
    return json.dumps({"hardware": hardware, "modules": _modules()})


def _modules() -> dict[str, str]:
    """Return the hash of every Python file that was imported and that no package has installed."""
    found = {}
    for module in list(sys.modules.values()):
        path = getattr(module, "__file__", None)
        if isinstance(path, str) and path.endswith(".py") and not path.startswith(_installed()):
            with contextlib.suppress(OSError), open(path, "rb") as file:
                found[os.path.abspath(path)] = hashlib.sha256(file.read()).hexdigest()
    return dict(sorted(found.items()))


def _installed() -> tuple[str, ...]:
    ours = os.path.dirname(os.path.abspath(__file__))
    return (*{sys.prefix, sys.base_prefix, sys.exec_prefix, *site.getsitepackages()}, ours)


def leave(seconds: float, code: int = 0) -> NoReturn:
    """End this process as Python would, but without taking its modules apart.

    First its threads come to their end, then what was registered with `atexit` is done.

    Args:
        seconds: that threads have, daemons aside, which are not waited for.
        code: that the process ends with.
    """
    waiting = threading.Thread(target=_join_threads, daemon=True)
    waiting.start()
    waiting.join(seconds)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _join_threads() -> None:
    main = threading.main_thread()
    # by which the idle workers of a pool hear that it is over
    for act in reversed(getattr(threading, "_threading_atexits", ())):
        act()
    while left := [t for t in threading.enumerate() if not t.daemon and t is not main]:
        for thread in left:
            thread.join()


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
