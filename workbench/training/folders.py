"""Where a training is kept, who writes there, and whether it can go on as it was."""

from __future__ import annotations

import contextlib
import re
import secrets
import warnings
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path

import torch
from filelock import FileLock, Timeout

from workbench import journal
from workbench.devices import hardware
from workbench.errors import RequestError, TamperedError
from workbench.home import home, read_json
from workbench.training.settings import Settings
from workbench.training.trainings import GOING, RECORD
from workbench.types import JSON, NAME_PATTERN

__all__ = [
    "check_same",
    "claimed",
    "environment",
    "folder_of",
    "kept_record",
    "warn_of_changes",
]

_MOMENT = 0.2  # seconds; whoever looks at a training's state takes its lock for less
_CHOICES = {"phases", "fingerprint", "threads"}  # settled once, or only warned of


def folder_of(name: str | None, model: str) -> Path:
    """Return where a training of that name is kept; of the current run, if there is one.

    Args:
        name: None makes one: in a run from how many there were before and the model, so that the
            run finds it again when it is resumed; else from the time and the model.
        model: what is trained, in a word.

    Raises:
        RequestError: it cannot be a name.
    """
    if name is not None and not (isinstance(name, str) and re.fullmatch(NAME_PATTERN, name)):
        raise RequestError(
            f"name of a training is {name!r:.60}, expected at most 100 letters, digits, '.', '_' "
            "and '-': name='night'"
        )
    run = journal.current_run()
    return (run or home()) / "trainings" / (name or _made_name(model, in_run=run is not None))


def _made_name(model: str, *, in_run: bool) -> str:
    if in_run:
        return f"{journal.count('fit'):02d}-{model}"
    return f"{datetime.now():%Y%m%d-%H%M%S}-{model}-{secrets.token_hex(2)}"


def kept_record(folder: Path) -> JSON | None:
    """Return the record of a training that was begun in a folder, or None.

    Its state is the truth: one that says running and that no process runs was killed.

    Raises:
        TamperedError: it is damaged, or of a newer format.
    """
    record = _record(folder)
    if record and record["state"] in GOING and not _is_claimed(folder):
        record = _record(folder)  # it may have ended in between
        if record and record["state"] in GOING:
            record["state"] = "killed"
    return record


def _is_claimed(folder: Path) -> bool:
    try:
        with FileLock(folder / ".lock", timeout=0):
            return False
    except Timeout:
        return True


def _record(folder: Path) -> JSON | None:
    path = folder / RECORD
    if not path.exists():
        return None
    try:
        record: JSON = read_json(path)
        form = record["format"]
    except (ValueError, KeyError, TypeError) as error:
        raise TamperedError(_unreadable(path, str(error))) from None
    if form != 1:
        raise TamperedError(
            f"record {path} has format {form}, expected 1: use the workbench that wrote it"
        )
    if "state" not in record:
        raise TamperedError(_unreadable(path, "it has no state"))
    return record


def _unreadable(path: Path, found: str) -> str:
    return f"record {path} cannot be read: {found}: put it back, or train under another name"


@contextlib.contextmanager
def claimed(folder: Path) -> Iterator[None]:
    """Keep everyone else from training into a folder for the while; make it first.

    Raises:
        RequestError: another training is writing there, or nobody can.
    """
    lock = FileLock(folder / ".lock", timeout=_MOMENT)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock.acquire()
    except Timeout:
        raise RequestError(
            f"training {folder.name!r} is running, here or in another process: wait until it has "
            "ended, or take another name"
        ) from None
    except OSError as error:
        raise RequestError(
            f"trainings are kept in {folder.parent}, which cannot be written: {error.strerror}: "
            "set WORKBENCH_HOME to a folder of yours"
        ) from None
    try:
        yield
    finally:
        lock.release()


def environment() -> JSON:
    """Return what a training's numbers depend on besides its settings."""
    machine = hardware()
    return {
        "torch": torch.__version__,
        "processor": machine["processor"],
        "instruction_set": machine["instruction_set"],
        "threads": machine["threads"],
    }


def check_same(name: str, then: Settings, wanted: Settings) -> None:
    """Raise where a training would go on with other settings than it was begun with.

    Raises:
        RequestError: naming the first one that differs.
    """
    before, after = then.to_json(), wanted.to_json()
    for key in Settings.__dataclass_fields__:
        if key not in _CHOICES and before[key] != after[key]:
            raise RequestError(
                f"training {name!r} was begun with {key}={before[key]!r}, now it would be "
                f"{after[key]!r}: pass what it had, or take another name"
            )


def warn_of_changes(name: str, then: JSON, data: str) -> None:
    """Warn where the data or the environment is another one than when a training was begun.

    Args:
        name: of the training.
        then: its record.
        data: the fingerprint of the data that it would go on with.
    """
    before = {**then["environment"], "data": then["settings"]["fingerprint"][:12]}
    after = {**environment(), "data": data[:12]}
    changes = [
        f"{key} {before[key] or 'unknown'}, now {after[key] or 'unknown'}"
        for key in after
        if before.get(key) != after[key] or (key == "data" and not data)
    ]
    if changes:
        warnings.warn(
            f"training {name!r} goes on where something has changed since it was begun: "
            f"{'; '.join(changes)}. Its numbers from here on may not be those of a training that "
            "was never interrupted",
            stacklevel=2,
        )
