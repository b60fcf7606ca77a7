"""`RunFace`: a face that watches runs, however they are executed, and stops and resumes them."""

from __future__ import annotations

import operator
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench.home import write_file
from workbench.runs import Run, RunList
from workbench.runs.background import AT_ONCE, Kind, Task, start, stop, tasks
from workbench.runs.execution import check_ready
from workbench.runs.index import RunWatch
from workbench.runs.outcomes import failure
from workbench.types import JSON
from workbench.widgets.faces import Face, action
from workbench.widgets.links import folder_of_copies

__all__ = ["RunFace", "last_words", "standing"]

_EVERY, _REST = 1.0, 20.0  # seconds between two looks, and how much longer than one at least
_METRICS = 8  # that a line shows


class RunFace(Face):
    """Shows runs as they stand: looks at them about once a second for as long as it is seen."""

    def __init__(self) -> None:
        super().__init__()
        self._watch, self._runs = RunWatch(), RunList([])
        self._by_id: dict[str, Run] = {}
        self._tasks: list[Task] = []
        self._due = 0.0
        self._ending: set[Path] = set()  # that were asked to end; a second time would kill
        self._copies = folder_of_copies()
        self.take_stock()

    def catch_up(self) -> bool:
        """Show what is new, unless the last look was a moment ago; return whether it is seen."""
        began = time.monotonic()
        if began >= self._due:
            if self.take_stock():
                self.refresh()
            now = time.monotonic()
            self._due = now + max(_EVERY, _REST * (now - began))
        return self.is_seen

    def take_stock(self) -> bool:
        """Take note of how all runs stand; return whether that may be otherwise than before."""
        runs, work = self._watch.look(), tasks()
        is_same = len(runs) == len(self._runs) and all(map(operator.is_, runs, self._runs))
        is_same = is_same and work == self._tasks
        self._runs, self._tasks = runs, work
        self._by_id = {run.id: run for run in runs}
        going = {run.folder for run in runs if run.state == "running"}
        self._ending &= going | {task.folder for task in work}
        return not is_same

    def run_of(self, name: str) -> Run:
        """Return a run of this home by its id.

        Raises:
            UnknownNameError: there is none, or no more.
        """
        return self._by_id[name] if name in self._by_id else self._runs[name]

    @action
    def stop(self, run: str) -> None:
        """End a run, which keeps what it has; one that waits does not begin."""
        found = Run.read(self.run_of(run).folder)
        task = self.task_of(found.folder)
        if task is not None:
            stop(task)
        else:
            found.stop()
        self._ending.add(found.folder)
        self.take_stock()

    @action
    def resume(self, run: str) -> None:
        """Go on, in the background, with a run that did not come to its end."""
        found = Run.read(self.run_of(run).folder)
        check_ready(found, {})
        start("run", found.folder)
        self.take_stock()

    @action
    def copy(self, run: str) -> None:
        """Copy a run's notebook to where Jupyter opens it; its own stays as it was recorded."""
        found = self.run_of(run)
        copy = self._copies / f"{found.id}.ipynb"
        if not copy.exists():  # what was written into it since is somebody's
            write_file(copy, found.notebook.read_bytes())

    def notebook_of(self, run: Run) -> str:
        """Return where a run's notebook can be opened: its copy, where there is one."""
        copy = self._copies / f"{run.id}.ipynb"
        return str(copy if copy.exists() else run.notebook)

    def task_of(self, folder: Path, kind: Kind = "run") -> Task | None:
        """Return what goes on in the background with a run or a sweep, or waits; or None."""
        return next((t for t in self._tasks if (t.kind, t.folder) == (kind, folder)), None)

    def place_of(self, task: Task | None) -> int:
        """Return which of those that must wait a task is, from 1 on; 0 if it need not, any more."""
        waiting = [other.asked for other in self._tasks if other.waits]
        free = AT_ONCE - (len(self._tasks) - len(waiting))
        must = waiting[max(free, 0) :]
        return 1 + must.index(task.asked) if task and task.asked in must else 0

    def line_of(self, run: Run) -> JSON:
        """Return how a run stands, and what can be asked of it."""
        task = self.task_of(run.folder)
        line = standing(run) | {
            "notebook": self.notebook_of(run),
            "place": self.place_of(task),
            "ending": run.folder in self._ending,
        }
        if task is not None and task.waits:
            line["state"] = "queued"
        can_stop = task is not None or line["state"] == "running"
        can_resume = not can_stop and line["state"] != "done"
        return line | {"can": ["stop"] * can_stop + ["resume"] * can_resume}


def standing(run: Run) -> JSON:
    """Return how a run stands: where it is, for how long, what it has recorded, what went wrong."""
    line: JSON = {
        "id": run.id,
        "state": run.state,
        "asked": run.record.get("queued") or run.began,
        "seconds": run.seconds,
        "metrics": dict(list(run.metrics.items())[:_METRICS]),
    }
    cells = run.record.get("cells") or []
    if run.state == "running":
        line |= _progress(cells) | {"seconds": _since(run.began)}
    return line | {"cells": len(cells), "trouble": _trouble(run)}


def last_words(task_log: Path) -> str:
    """Return the error that a process in the background has ended with, or nothing."""
    try:
        lines = task_log.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return ""
    begun = [i for i, line in enumerate(lines) if line.startswith("error: ")]
    return "\n".join(lines[begun[-1] :]).removeprefix("error: ")[:2000] if begun else ""


def _progress(cells: Sequence[JSON]) -> JSON:
    over = sum(cell["state"] in ("done", "skipped") for cell in cells)
    now: Any = next((cell for cell in cells if cell["state"] == "running"), {})
    return {"over": over, "cell": over + bool(now), "heading": now.get("heading") or ""}


def _since(moment: str) -> float:
    return round((datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds())


def _trouble(run: Run) -> str:
    """Return what went wrong, as the command line says it, without the traceback."""
    if run.state in ("done", "running"):
        return ""
    if run.record.get("error") and "cells" in run.record:
        return str(failure(run.record, run.folder)).partition("\n\n")[0]
    if run.state == "killed":
        return "its process ended without a word: resume goes on with it"
    return last_words(run.folder / "run.log") if run.state == "queued" else ""
