"""Where the runs of a sweep are executed: each in a process of its own, behind five methods.

Another engine, such as a cluster's, stands behind the same five.
"""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Protocol

from workbench.runs.warm import Forked

__all__ = ["Executor", "LocalExecutor"]

_LOG = "run.log"


class Executor(Protocol):
    """Executes runs that wait in folders, any number at once."""

    def submit(self, folder: Path, variables: Mapping[str, str]) -> None:
        """Start the run in a folder, with variables over those of its kernel's environment."""

    def poll(self) -> dict[Path, int]:
        """Return the exit codes, by folder, of the runs that have ended since the last call."""

    def cancel(self, folder: Path) -> None:
        """Ask a run to end, which it does with what it has."""

    def logs(self, folder: Path) -> str:
        """Return what a run's own process said."""

    def close(self) -> None:
        """End what still goes on."""


class LocalExecutor:
    """Executes runs on this machine, one process each.

    Args:
        warm: the address of a parent that forks them; None for cold ones.
    """

    def __init__(self, warm: str | None) -> None:
        self._warm = warm
        self._going: dict[Path, Forked | subprocess.Popen[bytes]] = {}

    def submit(self, folder: Path, variables: Mapping[str, str]) -> None:
        """Start the run in a folder."""
        environment = {**os.environ, "WORKBENCH_HEADLESS": "1", **variables}
        if self._warm is not None:
            request = {
                **{"kind": "run", "file": str(folder), "environment": environment},
                **{"folder": os.getcwd(), "log": str(folder / _LOG)},
            }
            with contextlib.suppress(OSError):  # the parent is gone: a cold start does the same
                self._going[folder] = Forked(self._warm, request)
                return
        with (folder / _LOG).open("ab") as log:
            self._going[folder] = _start(folder, environment, log)

    def poll(self) -> dict[Path, int]:
        """Return the exit codes of the runs that have ended since the last call."""
        codes = {folder: process.poll() for folder, process in self._going.items()}
        ended = {folder: code for folder, code in codes.items() if code is not None}
        for folder in ended:
            del self._going[folder]
        return ended

    def cancel(self, folder: Path) -> None:
        """Ask a run to end."""
        if folder in self._going:
            self._going[folder].terminate()

    def logs(self, folder: Path) -> str:
        """Return what a run's own process said."""
        path = folder / _LOG
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def close(self) -> None:
        """Kill what still goes on."""
        for process in self._going.values():
            process.kill()
            process.wait()
        self._going.clear()


def _start(folder: Path, environment: Mapping[str, str], log: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "workbench", "resume", str(folder)],
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=log,
        stderr=log,
        start_new_session=True,  # Ctrl-C is for the sweep, which tells each of them
    )
