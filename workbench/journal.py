"""What the current run remembers: metrics and events, one JSON line each, appended and flushed.

A run's kernel finds its folder in `WORKBENCH_RUN`. Outside a run there is nothing to remember and
every call here does nothing but check its arguments. `WORKBENCH_RESUMED` says that the run goes on
after an interruption, `WORKBENCH_REPLAYED` names the folder of the run that this one verifies.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import signal
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from numbers import Integral
from pathlib import Path
from typing import Any, SupportsFloat

from workbench.errors import RequestError
from workbench.home import read_json
from workbench.types import JSON

__all__ = [
    "count",
    "current_run",
    "is_edited",
    "is_resumed",
    "note",
    "now",
    "read_lines",
    "record",
    "replayed_run",
    "run_id",
    "within",
]

_counted: Counter[str] = Counter()
_counting = threading.Lock()
_current = threading.local()  # has the name of the training that a thread is in


def current_run() -> Path | None:
    """Return the folder of the run this process belongs to, or None."""
    folder = os.environ.get("WORKBENCH_RUN")
    return Path(folder) if folder else None


def run_id() -> str | None:
    """Return the id of the run this process belongs to, or None."""
    folder = current_run()
    if folder is None:
        return None
    try:
        return str(read_json(folder / "run.json")["id"])
    except (OSError, ValueError, KeyError):  # a folder that somebody else has set up
        return folder.name


@contextlib.contextmanager
def within(training: str) -> Iterator[None]:
    """Let what this thread records for the while say in which training it was recorded."""
    _current.training = training
    try:
        yield
    finally:
        del _current.training


def is_edited() -> bool:
    """Return whether the current run is resumed with another notebook than it was begun with."""
    return is_resumed() and os.environ.get("WORKBENCH_EDITED") == "1"


def is_resumed() -> bool:
    """Return whether the current run is resumed, so that what is there counts."""
    return current_run() is not None and os.environ.get("WORKBENCH_RESUMED") == "1"


def replayed_run() -> Path | None:
    """Return the folder of the run whose choices this one repeats, to verify it, or None."""
    folder = os.environ.get("WORKBENCH_REPLAYED")
    return Path(folder) if folder else None


def count(kind: str) -> int:
    """Return how many times this process has asked for this kind, this time included.

    A notebook asks in the same order each time it runs, so the number finds again what the last
    attempt at a run had left.
    """
    with _counting:
        _counted[kind] += 1
        return _counted[kind]


def now() -> str:
    """Return the present moment in UTC, as ISO 8601 to the millisecond."""
    return datetime.now(UTC).isoformat(timespec="milliseconds")


def record(
    name: str,
    value: SupportsFloat,
    *,
    tolerance: float | None = None,
    step: int | None = None,
) -> None:
    """Record a scalar of this run; the last value of a name is the run's metric.

    Args:
        name: what it is, for instance `"test_accuracy"`.
        value: a finite number, or a tensor or array of one element.
        tolerance: how far a second run may be off and still agree, in the value's own unit;
            None asks for equality.
        step: where on the way the value was taken, for a curve of the name; None of a whole.

    Raises:
        RequestError: the name is empty, the value is not one finite number, the tolerance is less
            than 0, or the step is not a whole number.
    """
    if not name or not isinstance(name, str):
        raise RequestError(f"a metric needs a name, got {name!r}")
    number = _scalar(name, value)
    line = {"name": name, "value": number, "time": now()}
    if tolerance is not None:
        line["tolerance"] = _tolerance(name, tolerance)
    if step is not None:
        line["step"] = _step(name, step)
    if hasattr(_current, "training"):
        line["training"] = _current.training
    _append("metrics.jsonl", line)
    _stop_at(line)


def note(event: str, **fields: Any) -> None:
    """Append an event to the current run: what was loaded, trained, published.

    Args:
        event: `"load"`, `"fit"`, `"publish"`, ...
        fields: what belongs to it; anything JSON can hold.
    """
    _append("events.jsonl", {"event": event, "time": now(), **fields})


def read_lines(path: Path) -> list[JSON]:
    """Return the lines of a journal in order; what a kill or a full disk cut off is left out."""
    if not path.exists():
        return []
    whole = path.read_bytes().split(b"\n")[:-1]
    return [line for line in map(_parsed, whole) if isinstance(line, dict)]


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


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


def _tolerance(name: str, tolerance: Any) -> float:
    number = float(_scalar(f"tolerance of {name}", tolerance))
    if number < 0:
        raise RequestError(f"tolerance of {name!r} is {tolerance}, expected 0 or more")
    return number


def _step(name: str, step: Any) -> int:
    if isinstance(step, bool) or not isinstance(step, Integral) or step < 0:
        raise RequestError(f"step of {name!r} is {step!r:.60}, expected a whole number from 0 up")
    return int(step)


def _stop_at(line: JSON) -> None:
    """Interrupt this process where its sweep wants to look at it: a training keeps a checkpoint."""
    name, _, step = os.environ.get("WORKBENCH_STOP_AT", "").rpartition(":")
    if name == line["name"] and line.get("step", -1) >= int(step):
        signal.raise_signal(signal.SIGINT)


def _append(file: str, line: JSON) -> None:
    run = current_run()
    if run is None:
        return
    text = json.dumps(line, ensure_ascii=False, allow_nan=False) + "\n"
    handle = os.open(run / file, os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        end = os.fstat(handle).st_size
        torn = end > 0 and os.pread(handle, 1, end - 1) != b"\n"
        left = ("\n" * torn + text).encode()
        while left:  # once, but for a disk that is nearly full: then the next write raises
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    finally:
        os.close(handle)
