"""How a run ended: its state, the cell where it did, and the error that tells whoever asked."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from workbench.errors import RunEnvironmentError, RunError, RunInterruptedError
from workbench.runs.records import State
from workbench.types import JSON

if TYPE_CHECKING:
    from workbench.runs.engine import Client

__all__ = ["failure", "outcome"]

# What a cell raises when its environment fails: no data source, no memory, no time.
_ENVIRONMENT = {"SourceError", "MemoryError", "OutOfMemoryError", "TimeoutError"}
_ENDED_HERE = ("running", "failed")


def outcome(record: JSON, client: Client, error: Exception | None) -> JSON:
    """Return how a run ended, and name the same in the cell where it did.

    Args:
        record: of the run; the states of its cells are changed in place.
        client: that has executed it.
        error: what went wrong besides what a cell raised.
    """
    cells, watch = record["cells"], client.watch
    finished = all(cell["state"] in ("done", "skipped") for cell in cells)
    state = _state(client, error, finished=finished)
    told = watch.error or (_told(error, client.ended_with) if error else None)
    if watch.stopping in ("timed out", "out of memory") and not finished:
        told = {**_limit(record["limits"], str(watch.stopping)), "traceback": ""}
    for number, cell in enumerate(cells, 1):
        if cell["state"] in _ENDED_HERE:
            cell["state"] = state
            told = {"cell": number, "heading": cell["heading"], **(told or {})}
            cell["error"] = cell["error"] or f"{told.get('name', state)}: {told.get('value', '')}"
    return {"state": state, "error": told if state != "done" else None}


def _state(client: Client, error: Exception | None, *, finished: bool) -> State:
    stopping = client.watch.stopping
    if stopping and not finished:
        return "killed" if stopping == "out of memory" else stopping
    if error is not None:
        return "killed" if client.kernel_died else "failed"
    if client.watch.error is None:
        return "done"
    # a cell that somebody else has interrupted, or that came to where its sweep looks at it
    return "interrupted" if client.watch.error["name"] == "KeyboardInterrupt" else "failed"


def _told(error: Exception, code: int | None) -> JSON:
    """Return what there is to say of an error that is not a cell's."""
    value = str(error) or "no reason was given"
    if code is not None:
        value = f"the kernel's process ended with exit code {code}"
    if code is not None and code < 0:
        value = f"the kernel was killed by signal {-code}"
        value += ", most often because memory ran out" if code == -9 else ""
    return {"name": type(error).__name__, "value": value, "traceback": ""}


def _limit(limits: JSON, reason: str) -> JSON:
    if reason == "timed out":
        value = f"the run took more than its time_limit of {limits['seconds']:g} s"
        return {"name": "TimeLimit", "value": f"{value}: give it more, or resume it"}
    value = f"the kernel took more than the run's memory_limit of {limits['memory_gb']:g} GB"
    return {"name": "MemoryLimit", "value": f"{value}: give it more, or the cell less to hold"}


def failure(record: JSON, folder: Path) -> RunError:
    """Return the error that says where a run ended, why, and where its record is."""
    error: JSON = record["error"] or {}
    where = _where(record["cells"], error)
    rest = f"What was done is in {folder}"
    if record["state"] == "interrupted":
        again = f"`workbench resume {record['id']}` goes on"
        return RunInterruptedError(f"interrupted {where}. {rest}; {again}", folder=folder)
    why = f"{error['name']}: {error['value']}"
    traceback = f"\n\n{error['traceback']}" if error["traceback"] else ""
    if (folder / "kernel.log").exists():
        rest += ", what the kernel's process said in its kernel.log"
    kind = RunEnvironmentError if _is_environment(record, error) else RunError
    return kind(f"the run failed {where}: {why}{traceback}\n\n{rest}", folder=folder)


def _where(cells: list[JSON], error: JSON) -> str:
    if "cell" in error:
        heading = f" ({error['heading']})" if error["heading"] else ""
        return f"in cell {error['cell']} of {len(cells)}{heading}"
    begun = sum(cell["state"] != "pending" for cell in cells)
    return f"before cell {begun + 1} of {len(cells)}" if begun < len(cells) else "after its cells"


def _is_environment(record: JSON, error: JSON) -> bool:
    """Return whether it was the environment that failed, and no cell has made a mistake."""
    if record["state"] in ("killed", "timed out") or "cell" not in error:
        return True
    if error["name"] in _ENVIRONMENT:
        return True
    return "can't allocate memory" in error["value"]  # how torch says it, in a RuntimeError
