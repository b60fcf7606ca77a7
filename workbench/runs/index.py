"""All runs of this home, listed fast: what lists show is kept in an index, which can be rebuilt.

The records are the truth. An entry of the index counts while its record has not changed since, and
only of runs that have ended.
"""

from __future__ import annotations

import contextlib
import os
import warnings
from pathlib import Path
from typing import Any

import msgspec

from workbench.errors import RequestError, TamperedError
from workbench.home import home, write_file
from workbench.runs.records import ENDED, Run, RunList, brief_of
from workbench.types import JSON

__all__ = ["RunWatch", "find_run", "list_runs"]

_FORMAT = 1
_FILE = ".index.json"
_WORTH_KEEPING = 20  # new entries; fewer are read faster than the index is written


class RunWatch:
    """The runs of this home for whoever looks again and again: what has not changed is kept."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[Run, JSON | None]] = {}  # and its entry, if it has ended

    def look(self) -> RunList:
        """Return the runs as they stand, oldest first; of one that cannot be read, warn."""
        root = home() / "runs"
        index, new = {} if self._known else _read(root), 0
        found: dict[str, tuple[Run, JSON | None]] = {}
        for name, stamp in _stamps(root).items():
            run, kept = self._known.get(name, (None, index.get(name)))
            if kept is None or kept["stamp"] != stamp:
                try:
                    run = Run.read(root / name)
                except TamperedError as error:  # one damaged record must not hide all the others
                    warnings.warn(str(error), stacklevel=3)
                    continue
                except RequestError:  # it was removed since
                    continue
                has_ended = run.record["state"] in ENDED
                kept = {"stamp": stamp, "brief": brief_of(run.record)} if has_ended else None
                new += has_ended
            found[name] = (run or Run(root / name, (kept or {})["brief"]), kept)
        if new > _WORTH_KEEPING or len(index) > len(found) + _WORTH_KEEPING:
            _write(root, {name: kept for name, (_, kept) in found.items() if kept})
        self._known = found
        return RunList(sorted((run for run, _ in found.values()), key=lambda r: (r.began, r.id)))


def list_runs() -> RunList:
    """Return the runs of this home, oldest first; of one that cannot be read, warn.

    A run that was given another folder is not among them; `Run.read(folder)` reads it.
    """
    return RunWatch().look()


def find_run(name: str) -> Run:
    """Return a run by its id, a unique prefix of one, `last`, or its folder.

    Raises:
        RequestError: there is none, or several.
    """
    path = Path(name).expanduser()
    if (path / "run.json").exists():
        return Run.read(path.absolute())
    if os.sep in name:
        raise RequestError(f"no run in {name!r}: expected the folder of one, which holds run.json")
    return list_runs()[name]


def _stamps(root: Path) -> dict[str, list[int]]:
    """Return the folders of runs by name, with what changes when their record is written anew."""
    found = {}
    with contextlib.suppress(FileNotFoundError), os.scandir(root) as entries:
        for entry in entries:
            if not entry.name.startswith("."):
                with contextlib.suppress(OSError):
                    seen = os.stat(f"{entry.path}/run.json")
                    found[entry.name] = [seen.st_mtime_ns, seen.st_ino, seen.st_size]
    return found


def _read(root: Path) -> dict[str, Any]:
    try:
        index = msgspec.json.decode((root / _FILE).read_bytes())
    except (OSError, msgspec.DecodeError):
        return {}
    if not isinstance(index, dict) or index.get("format") != _FORMAT:
        return {}
    runs: dict[str, Any] = index["runs"]
    return runs


def _write(root: Path, runs: dict[str, JSON | None]) -> None:
    content = msgspec.json.encode({"format": _FORMAT, "runs": runs})
    with contextlib.suppress(OSError):  # a full disk, or a home that is only read
        write_file(root / _FILE, content)
