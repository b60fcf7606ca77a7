"""How the sweeps of a notebook stand: which there are, and of each a table of its runs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from filelock import FileLock, Timeout

from workbench.errors import UnknownNameError
from workbench.home import home
from workbench.runs import Run, Sweep, list_sweeps
from workbench.runs.reports import said
from workbench.types import JSON
from workbench.widgets.figures import plain
from workbench.widgets.run_faces import last_words

__all__ = ["SweepWatch", "sweep_line"]

_SHOWN = 6  # sweeps
_ROWS, _METRICS = 50, 6  # of the table of one


class SweepWatch:
    """The last sweeps of a notebook, listed anew only where there is another one.

    Args:
        notebook: its path.
    """

    def __init__(self, notebook: Path) -> None:
        self._notebook, self._stamp = str(notebook), 0
        self._found: list[Sweep] = []

    def look(self) -> list[Sweep]:
        """Return them, the newest first."""
        folder = home() / "sweeps"
        stamp = folder.stat().st_mtime_ns if folder.exists() else 0
        if stamp != self._stamp:
            found = [made for made in list_sweeps() if made.record["notebook"] == self._notebook]
            self._found, self._stamp = found[::-1][:_SHOWN], stamp
        return self._found

    def find(self, name: str) -> Sweep:
        """Return one of them by its id.

        Raises:
            UnknownNameError: it is none of them.
        """
        found = {sweep.id: sweep for sweep in self.look()}
        if name not in found:
            raise UnknownNameError("sweep", name, found)
        return found[name]


def sweep_line(sweep: Sweep, runs: Sequence[Run], *, is_going: bool) -> JSON:
    """Return how a sweep stands, and a table of its runs.

    Args:
        sweep: to be told of.
        runs: those of its notebook, as they stand.
        is_going: whether this home's background works on it.
    """
    known = {run.id: run for run in runs if run.sweep == sweep.id}
    ids, stopped = sweep.record["runs"], sweep.stopped
    states = {i: str(known[i].state) if i in known else "queued" for i in ids}
    states |= {i: "stopped" for i in ids if i in stopped}
    state = _state(sweep, list(states.values()), is_going=is_going)
    recorded = dict.fromkeys(name for run in known.values() for name in run.metrics)
    metrics = list(recorded)[:_METRICS]
    names = list(dict.fromkeys(name for point in sweep.record["points"] for name in point))
    rows = [
        {
            "id": i,
            "state": states[i],
            "values": [said(point.get(name, "")) for name in names],
            "metrics": [known[i].metrics.get(m) if i in known else None for m in metrics],
        }
        for i, point in list(zip(states, sweep.points, strict=True))[:_ROWS]
    ]
    return {
        "id": sweep.id,
        "state": state,
        "asked": sweep.record["created"],
        "counts": dict(Counter(states.values())),
        "total": len(states),
        "names": names,
        "metrics": metrics,
        "rows": rows,
        "over_seeds": _over_seeds(sweep) if state == "done" else None,
        "trouble": last_words(sweep.folder / "sweep.log") if state == "interrupted" else "",
    }


def _over_seeds(sweep: Sweep) -> JSON | None:
    """Return a row a point: how many seeds are done, and of each metric mean and spread.

    Where each point has one seed alone, it is None.
    """
    if (sweep.record["seeds"] or 1) == 1:
        return None
    table = sweep.table()
    rows = [
        [plain(v) if isinstance(v, float) else said(v) for v in row] for row in table.to_numpy()
    ]
    return {"columns": [str(name) for name in table.columns], "rows": rows[:_ROWS]}


def _state(sweep: Sweep, states: Sequence[str], *, is_going: bool) -> str:
    is_over = not any(state in ("queued", "running", "interrupted", "killed") for state in states)
    if is_going or (not is_over and _is_held(sweep.folder / ".lock")):
        return "running"
    if not is_over:
        return "interrupted"
    return "done" if set(states) <= {"done", "stopped"} else "failed"


def _is_held(lock: Path) -> bool:
    """Return whether a process works on a sweep, wherever that was begun."""
    try:
        with FileLock(lock, timeout=0) if lock.exists() else nullcontext():
            return False
    except Timeout:
        return True
