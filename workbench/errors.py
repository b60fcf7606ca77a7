"""Every error the workbench raises, one tree.

    WorkbenchError
    ├── RequestError (ValueError)        what was asked for cannot be done: wrong name, shape, value
    │   └── UnknownNameError (LookupError)   a name that does not exist, with the nearest one
    ├── SourceError (OSError)            no source of a dataset answered with the right bytes
    ├── DivergedError (ArithmeticError)  a loss that is not a number, or explodes
    ├── RunError (RuntimeError)          a run that did not end well
    │   ├── RunInterruptedError          it was stopped by Ctrl-C or SIGTERM
    │   └── RunEnvironmentError          its environment failed: kernel death, out of memory
    ├── TamperedError (ValueError)       a stored file is not what was written
    └── ServiceError (RuntimeError)      a service that cannot start, or answered with an error

Each also is the builtin that people already catch, and carries the exit code that the command line
ends with when nothing catches it.
"""

from __future__ import annotations

import traceback
from collections.abc import Iterable
from difflib import get_close_matches
from pathlib import Path
from typing import ClassVar

__all__ = [
    "DivergedError",
    "RequestError",
    "RunEnvironmentError",
    "RunError",
    "RunInterruptedError",
    "ServiceError",
    "SourceError",
    "TamperedError",
    "UnknownNameError",
    "WorkbenchError",
    "let_go",
]


_LISTED = 30  # names that a message lists


class WorkbenchError(Exception):
    """The root of every error raised on purpose by the workbench."""

    exit_code: ClassVar[int] = 1


class RequestError(WorkbenchError, ValueError):
    """What was asked for cannot be done as asked; nothing was started."""

    exit_code = 2


class UnknownNameError(RequestError, LookupError):
    """A name that does not exist; the message lists those that do and suggests the nearest.

    Args:
        kind: what is named, in the singular ("dataset", "parameter").
        name: the name that was given.
        known: the names that exist.

    >>> str(UnknownNameError("parameter", "epcohs", ["epochs", "lr"]))
    "unknown parameter 'epcohs': did you mean epochs? There are: epochs, lr."
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        near = get_close_matches(name, self.known, n=1)
        hint = f"did you mean {near[0]}? " if near else ""
        names = ", ".join(self.known[-_LISTED:])
        listed = f"There are: {names}." if names else f"There is no {kind} yet."
        if len(self.known) > _LISTED:
            listed = f"There are {len(self.known)}, the last of them: {names}."
        super().__init__(f"unknown {kind} {name!r}: {hint}{listed}")


class SourceError(WorkbenchError, OSError):
    """No source of a dataset answered with the right bytes."""

    exit_code = 4


class DivergedError(WorkbenchError, ArithmeticError):
    """A training whose loss stopped being a number, or exploded."""


class RunError(WorkbenchError, RuntimeError):
    """A run that did not end well.

    Args:
        message: which run, in which cell, why.
        folder: where its record and its outputs so far are, if there is such a folder.
    """

    def __init__(self, message: str, *, folder: Path | None = None) -> None:
        self.folder = folder
        super().__init__(message)


class RunInterruptedError(RunError):
    """A run that was stopped by Ctrl-C or SIGTERM; its outputs so far are kept."""

    exit_code = 3


class RunEnvironmentError(RunError):
    """A run whose environment failed: its kernel died, memory ran out, no data source answered."""

    exit_code = 4


class TamperedError(WorkbenchError, ValueError):
    """A stored file is not what was written, or is of a newer format than this workbench reads."""


class ServiceError(WorkbenchError, RuntimeError):
    """A service that cannot start, or that answered with an error."""


def let_go(error: BaseException | None) -> None:
    """Empty the frames of an error's traceback, and of its causes', which keep tensors alive."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__
