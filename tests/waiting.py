"""Waiting for what is to come, no longer than a person would, and for what is to end."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

__all__ = ["end_background", "once"]


def once(holds: Callable[[], object], seconds: float = 60) -> None:
    """Return once something holds.

    Raises:
        AssertionError: it has not come to that.
    """
    ends = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < ends, "it has not come to that"
        time.sleep(0.02)


def end_background(folder: Path) -> None:
    """End what works on runs in the background, long notebooks of a folder too."""
    from workbench.runs.background import stop, tasks

    (folder / "go.txt").touch()
    for task in tasks():
        stop(task)
    once(lambda: not tasks())
