"""Aliases and retirements: a log for each model, `models/<name>/log.jsonl`, whose last word counts.

The log is the truth, there is no other file to agree with it. A line is appended by one write under
a lock and flushed to the disk, so an alias is at every moment where it was or where it is moved to;
what a killed process left of a line is not read, and cut off before the next one. Lines look like

    {"format": 1, "event": "promote", "alias": "champion", "version": 3, "before": 2,
     "who": "ada@lab", "when": "2026-01-01T12:00:00.000+00:00", "run": null, "why": "fewer misses",
     "evidence": {"digits@3": {"accuracy": 0.98}, "digits@2": {"accuracy": 0.97}}}

with `event` one of promote, demote, retire, restore; the last two have no `alias` and no `before`.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from filelock import FileLock

from workbench import journal
from workbench.errors import RequestError, TamperedError
from workbench.home import write_file
from workbench.registry.folders import folder_of, is_name
from workbench.registry.lineage import user
from workbench.types import JSON

__all__ = ["Standing", "append", "check_alias", "lock_of", "standing"]

_FORMAT = 1
_EVENTS = ("promote", "demote", "retire", "restore")
_LIKE_A_VERSION = re.compile(r"v?[0-9]+|latest|newest", re.IGNORECASE)


@dataclass(frozen=True)
class Standing:
    """What the log of a model comes to.

    Args:
        lines: all of it, oldest first.
        aliases: the version that each is on.
        retired: the line that retired each retired version.
        versions: every version that was ever spoken of.
    """

    lines: tuple[JSON, ...] = ()
    aliases: Mapping[str, int] = field(default_factory=dict)
    retired: Mapping[int, JSON] = field(default_factory=dict)
    versions: frozenset[int] = frozenset()

    @classmethod
    def after(cls, lines: list[JSON]) -> Standing:
        """Return what lines of a log come to, oldest first."""
        aliases: dict[str, int] = {}
        retired: dict[int, JSON] = {}
        for line in lines:
            if line["event"] == "promote":
                aliases[line["alias"]] = line["version"]
            elif line["event"] == "demote":
                aliases.pop(line["alias"], None)
            elif line["event"] == "retire":
                retired[line["version"]] = line
            else:
                retired.pop(line["version"], None)
        return cls(tuple(lines), aliases, retired, frozenset(line["version"] for line in lines))

    def of(self, number: int) -> tuple[str, ...]:
        """Return the aliases of a version, by name."""
        return tuple(sorted(alias for alias, on in self.aliases.items() if on == number))


_read_before: dict[Path, tuple[tuple[int, ...], Standing]] = {}


def standing(name: str) -> Standing:
    """Return what the log of a model comes to now; one look at the file where nothing has changed.

    Raises:
        TamperedError: the log is damaged, or of a newer format.
    """
    path = _log_of(name)
    try:
        found = path.stat()
    except OSError:  # nobody has written one
        return Standing()
    mark = (found.st_ino, found.st_size, found.st_mtime_ns)  # taken before the content
    known = _read_before.get(path)
    if known is None or known[0] != mark:
        lines, _ = _read(path)
        _read_before[path] = known = (mark, Standing.after(lines))
    return known[1]


def append(name: str, decide: Callable[[Standing], JSON | None]) -> None:
    """Append a line to the log of a model, alone; say in it who, when and in which run.

    Args:
        name: of the model, which is there.
        decide: returns the line for what the log comes to, or None for none; it may raise.

    Raises:
        TamperedError: the log is damaged, or of a newer format.
    """
    path = _log_of(name)
    with lock_of(name):
        if not path.exists():
            write_file(path, b"")
        lines, end = _read(path)
        line = decide(Standing.after(lines))
        if line is None:
            return
        stamps = {"who": user(), "when": journal.now(), "run": journal.run_id()}
        text = json.dumps({"format": _FORMAT, **line, **stamps}, allow_nan=False) + "\n"
        _write(path, end, text.encode())
    known = {key: line.get(key) for key in ("alias", "before")} if "alias" in line else {}
    journal.note(line["event"], ref=f"{name}@{line['version']}", **known)


def lock_of(name: str) -> FileLock:
    """Return the lock under which the log of a model is written, and versions are imported."""
    return FileLock(folder_of(name) / ".lock")


def check_alias(alias: object) -> None:
    """Raise where that cannot be an alias.

    Raises:
        RequestError: it cannot.
    """
    if not is_name(alias):
        raise RequestError(
            f"{alias!r:.120} cannot be an alias: use letters, digits, '.', '_' and '-', beginning "
            "with a letter or a digit, as in 'champion'"
        )
    if _LIKE_A_VERSION.fullmatch(str(alias)):
        raise RequestError(
            f"{alias!r} cannot be an alias, since it reads like a version: take a word such as "
            "'champion'; the newest version is meant by the model's name alone"
        )


def _log_of(name: str) -> Path:
    return folder_of(name) / "log.jsonl"


def _read(path: Path) -> tuple[list[JSON], int]:
    """Return the whole lines of a log and where the last of them ends, in bytes."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TamperedError(f"{path} cannot be read: {error.strerror}") from None
    end = content.rfind(b"\n") + 1
    whole = content[:end].split(b"\n")[:-1]
    return [_line(path, number, text) for number, text in enumerate(whole, 1)], end


def _line(path: Path, number: int, text: bytes) -> JSON:
    try:
        line: JSON = json.loads(text)
        if line["format"] > _FORMAT:
            raise TamperedError(
                f"line {number} of {path} has format {line['format']}, this workbench reads up to "
                f"{_FORMAT}: upgrade with pip install --upgrade maas-workbench"
            )
        alias_fits = line["event"] in ("retire", "restore") or is_name(line["alias"])
        if not (line["event"] in _EVENTS and type(line["version"]) is int and alias_fits):
            raise ValueError(f"no event of a version: {text[:80]!r}")
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        if isinstance(error, TamperedError):
            raise
        raise TamperedError(
            f"line {number} of {path} cannot be read: {error!r:.200}: it was changed or damaged; "
            "put it back, or take the line out"
        ) from None
    return line


def _write(path: Path, end: int, content: bytes) -> None:
    """Let the content be what the log goes on with after `end`, or nothing where that fails."""
    handle = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.ftruncate(handle, end)
        left = content
        while left:  # once, but for a disk that is nearly full: then the next write raises
            left = left[os.write(handle, left) :]
        os.fsync(handle)
    except OSError:
        with contextlib.suppress(OSError):
            os.ftruncate(handle, end)
        raise
    finally:
        os.close(handle)
