"""What the current run remembers: metrics and events, one JSON line each, appended and flushed.

A run's kernel finds its folder in `WORKBENCH_RUN`. Outside a run there is nothing to remember and
every call here does nothing but check its arguments.
"""

from __future__ import annotations

import json
import math
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, SupportsFloat

from workbench.errors import RequestError
from workbench.types import JSON

__all__ = ["current_run", "note", "now", "read_lines", "record"]


def current_run() -> Path | None:
    """Return the folder of the run this process belongs to, or None."""
    folder = os.environ.get("WORKBENCH_RUN")
    return Path(folder) if folder else None


def now() -> str:
    """Return the present moment in UTC, as ISO 8601 to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def record(name: str, value: SupportsFloat, *, tolerance: float | None = None) -> None:
    """Record a scalar of this run; the last value of a name is the run's metric.

    Args:
        name: what it is, for instance `"test_accuracy"`.
        value: a finite number, or a tensor or array of one element.
        tolerance: how far a second run may be off and still agree, in the value's own unit;
            None asks for equality.

    Raises:
        RequestError: the name is empty, or the value is not one finite number.
    """
    if not name or not isinstance(name, str):
        raise RequestError(f"a metric needs a name, got {name!r}")
    number = _scalar(name, value)
    line = {"name": name, "value": number, "time": now()}
    if tolerance is not None:
        line["tolerance"] = float(tolerance)
    _append("metrics.jsonl", line)


def note(event: str, **fields: Any) -> None:
    """Append an event to the current run: what was loaded, trained, published.

    Args:
        event: `"load"`, `"fit"`, `"publish"`, ...
        fields: what belongs to it; anything JSON can hold.
    """
    _append("events.jsonl", {"event": event, "time": now(), **fields})


def read_lines(path: Path) -> list[JSON]:
    """Return the lines of a journal in order; a last line cut off by a kill is left out."""
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]
    return [json.loads(line) for line in whole if line]


def _scalar(name: str, value: Any) -> int | float:
    try:
        item = value.item() if hasattr(value, "item") else value
        number = item if isinstance(item, int) and not isinstance(item, bool) else float(item)
    except (TypeError, ValueError, RuntimeError):
        raise RequestError(
            f"metric {name!r} must be one number, got {type(value).__name__}: {value!r:.60}"
        ) from None
    if not math.isfinite(number):
        raise RequestError(f"metric {name!r} is {number}; a metric must be finite")
    return number


def _append(file: str, line: JSON) -> None:
    run = current_run()
    if run is None:
        return
    text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
    handle = os.open(run / file, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        os.write(handle, text.encode())
        os.fsync(handle)
    finally:
        os.close(handle)
