"""What is new of a job since a moment ago, read from the files that its run writes as it goes.

The moment is a text, which each event carries as its id. It says how much of each file was told, so
any process of the service can go on where another one's stream broke off.
"""

from __future__ import annotations

import json
import re
import zlib
from collections.abc import Iterator
from dataclasses import astuple, dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

from workbench.home import read_json
from workbench.runs.jobs import OVER
from workbench.serving.answers import Event
from workbench.types import JSON

__all__ = ["Moment", "mark_of", "news"]

_ID = re.compile(r"([0-9a-f]{1,8})" + r"-([0-9]{1,12})" * 4)
_AT_ONCE = 64 * 2**10  # bytes of metrics, and characters of text, in one look
_CELL_GOES_ON = ("pending", "running")
_MARKING = ("state", "place", "attempts", "cell", "cancelling")  # what is told when it changes


@dataclass(frozen=True)
class Moment:
    """How much of a job was told.

    Args:
        mark: of what was said of its state; empty before anything was.
        attempt: of the run, from 0.
        metrics: bytes of its `metrics.jsonl`.
        cell: that was told of last, by its place among the code cells.
        text: characters that this one has printed.
    """

    mark: str = "0"
    attempt: int = 0
    metrics: int = 0
    cell: int = 0
    text: int = 0

    def __str__(self) -> str:
        return "-".join(map(str, astuple(self)))

    @classmethod
    def parse(cls, text: str | None) -> Moment:
        """Return the moment that an event's id says; the beginning where there is no such id."""
        found = _ID.fullmatch(text or "")
        if found is None:
            return cls()
        mark, *numbers = found.groups()
        return cls(mark, *map(int, numbers))


def news(told: JSON, folder: Path, since: Moment) -> tuple[list[Event], Moment]:
    """Return what is new of a job, and the moment after that; there may be more at once.

    Its end is told after all else, when there is nothing more.

    Args:
        told: what there is to say of the job now, read before this is called.
        folder: of its run.
        since: the moment before.
    """
    if told["attempts"] != since.attempt:  # begun again: its files are new
        since = Moment(since.mark, told["attempts"])
    is_over = told["state"] in OVER
    events: list[Event] = []
    changed = mark_of(told) != since.mark
    if changed and not is_over:
        since = replace(since, mark=mark_of(told))
        events.append(Event(told, str(since), "state"))
    for line, end in _metrics(folder / "metrics.jsonl", since.metrics):
        since = replace(since, metrics=end)
        if line is not None and not line.get("carried"):
            events.append(Event(line, str(since), "metric"))
    for cell, text, size in _printed(folder, since.cell, since.text, is_over=is_over):
        since = replace(since, cell=cell, text=size)
        if text:
            events.append(Event({"cell": cell + 1, "text": text}, str(since), "log"))
    if changed and is_over and not events:
        since = replace(since, mark=mark_of(told))
        events.append(Event(told, str(since), "state"))
    return events, since


def mark_of(told: JSON) -> str:
    """Return a short mark of what is said of a job's state, the same in every process."""
    said = json.dumps([told[key] for key in _MARKING])
    return f"{zlib.crc32(said.encode()):x}"


def _metrics(path: Path, start: int) -> Iterator[tuple[JSON | None, int]]:
    """Yield the whole lines of a journal from a byte on, each with the byte where it ends.

    A line that a kill has cut off is None.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            read = file.read(_AT_ONCE)
    except FileNotFoundError:
        return
    for line in read.splitlines(keepends=True):
        if line.endswith(b"\n"):
            start += len(line)
            yield _parsed(line), start


def _parsed(line: bytes) -> JSON | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) and "name" in found else None


def _printed(
    folder: Path, cell: int, start: int, *, is_over: bool
) -> Iterator[tuple[int, str, int]]:
    """Yield what cells have printed from a character on: the cell, the text, how far it is told.

    Of a cell that runs these are whole lines, since the last one may be overwritten yet.

    Args:
        folder: of the run.
        cell: its place among the code cells.
        start: characters that are told of it.
        is_over: whether nothing more is printed.
    """
    cells = _cells(folder)  # before the notebook, which is kept before it
    texts = _texts(folder) if cells else {}
    left = _AT_ONCE
    for number, known in enumerate(cells[cell:], cell):
        text = texts.get(known["index"], "")
        start = start if start <= len(text) else 0  # the cell has cleared what it had printed
        ended = is_over or known["state"] not in _CELL_GOES_ON
        end = len(text) if ended else text.rfind("\n") + 1
        new = text[start : min(max(end, start), start + left)]
        left -= len(new)
        if new:
            yield number, new, start + len(new)
        if not ended or left <= 0:
            return
        start = 0


def _cells(folder: Path) -> list[JSON]:
    return list(_read(folder / "run.json").get("cells", ()))


def _texts(folder: Path) -> dict[int, str]:
    """Return what each cell has printed by its place in the notebook."""
    path = folder / "notebook.ipynb"
    try:
        seen = path.stat()
    except OSError:
        return {}
    return _texts_of(path, (seen.st_ino, seen.st_mtime_ns, seen.st_size))


@lru_cache(maxsize=4)  # a notebook may be large, and is kept anew every few seconds only
def _texts_of(path: Path, stamp: tuple[int, ...]) -> dict[int, str]:
    found = {}
    for place, cell in enumerate(_read(path).get("cells", ())):
        parts = [_text(out) for out in cell.get("outputs", ()) if out["output_type"] == "stream"]
        if parts:
            found[place] = "".join(parts).encode(errors="replace").decode()
    return found


def _text(output: JSON) -> str:
    text = output["text"]  # a list of lines, as nbformat writes it
    return text if isinstance(text, str) else "".join(text)


def _read(path: Path) -> dict[str, Any]:
    try:
        found = read_json(path)
    except (OSError, ValueError):  # it is gone, or damaged
        return {}
    return found if isinstance(found, dict) else {}
