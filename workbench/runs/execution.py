"""A run from beginning to end: execute the notebook in its folder, and keep the record true."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from workbench import journal
from workbench.errors import RequestError, RunEnvironmentError, RunInterruptedError
from workbench.home import home, write_file
from workbench.runs.envelopes import Envelope, make_envelope
from workbench.runs.environment import environment, kernel_variables
from workbench.runs.index import list_runs
from workbench.runs.narration import Narrator
from workbench.runs.outcomes import failure, outcome
from workbench.runs.queueing import (
    SECRET,
    Limits,
    clear,
    first_cells,
    queue,
    rebind,
    save,
    secret_variable,
    sha256_of,
)
from workbench.runs.records import Run, remembered, run_lock
from workbench.runs.redaction import Redaction
from workbench.types import JSON

__all__ = [
    "alone",
    "check_ready",
    "execute",
    "point_latest",
    "run",
    "secrets_of",
    "went_on",
    "work",
]

_LONGEST_DIFF = 2_000_000  # characters of uncommitted code that are kept; its hash is of all
_MOMENT = 0.2  # seconds; whoever looks at a run's state takes its lock for less
_LEFT = ("metrics.jsonl", "events.jsonl", "kernel.log")  # by an attempt, and begun anew by the next


def run(
    notebook: str | Path,
    /,
    *,
    out: str | Path | None = None,
    deterministic: str = "same-machine",
    time_limit: float | None = None,
    memory_limit: float | None = None,
    **parameters: Any,
) -> Run:
    """Execute a notebook with these parameters in a fresh kernel, and return the record of it.

    Args:
        notebook: its path; it is only read.
        out: the run's folder, absent or empty; by default one of its own in the home.
        deterministic: how far the numbers are the same: `"same-machine"`, or `"any-x86"`, which
            is slower.
        time_limit: seconds that the run may take; None for no limit.
        memory_limit: GB that its kernel may take; None for no limit.
        parameters: by the names that the cell tagged `parameters` assigns, `seed` among them.

    Raises:
        RequestError: the notebook, a parameter or `out` cannot be used; nothing was started.
        RunError: a cell raised.
        RunEnvironmentError: the kernel died, memory or time ran out, or no source of data answered.
        RunInterruptedError: Ctrl-C or SIGTERM; what was done is kept.
    """
    limits = Limits(time_limit, memory_limit)
    envelope = make_envelope(deterministic)
    return execute(notebook, parameters, out=out, envelope=envelope, limits=limits)


def execute(
    notebook: str | Path,
    parameters: Mapping[str, Any],
    *,
    out: str | Path | None = None,
    envelope: Envelope | None = None,
    limits: Limits | None = None,
    widgets: bool = False,
    warm: str | None = None,
) -> Run:
    """Execute a notebook as `run` does, its parameters given as a mapping.

    So a parameter may have any name, `out` too. Args and Raises are those of `queue` and `work`.
    """
    waits = queue(notebook, parameters, out=out, envelope=envelope, limits=limits, widgets=widgets)
    point_latest(waits.folder)
    return work(waits.folder, warm=warm, variables=secrets_of(waits, parameters))


def secrets_of(run: Run, parameters: Mapping[str, Any]) -> dict[str, str]:
    """Return the secrets among the parameters of a run, which its record lacks, as variables.

    Args:
        run: that waits.
        parameters: it was queued with.
    """
    return {
        secret_variable(name): value
        for name, value in parameters.items()
        if run.parameters.get(name) == SECRET and isinstance(value, str)
    }


def work(
    folder: Path,
    *,
    warm: str | None = None,
    edited: bool = False,
    variables: Mapping[str, str] | None = None,
    limits: Limits | None = None,
) -> Run:
    """Execute the run that waits in a folder, or one that did not come to its end, from the top.

    The second time, a `fit` goes on from its checkpoint, a finished one returns at once, and a
    finished `publish` returns its version.

    Args:
        folder: of the run.
        warm: the address of a parent that forks its kernel; None for a cold one.
        edited: whether to execute the notebook as it is now, rather than the run's own copy.
        variables: of the kernel's environment, over those that a run has anyway.
        limits: in place of those that it was begun with.

    Raises:
        RequestError: it is done already, is running, or lacks what it needs.
        RunError: as `run` does.
    """
    otherwise = (
        f"the run in {folder} is running, here or in another process: wait until it has ended"
    )
    with _held(run_lock(folder), otherwise):
        try:
            known = Run.read(folder)
            if limits is not None:
                known.record["limits"] = limits.to_json()
            record = _work(known, warm, edited=edited, variables=variables or {})
        except KeyboardInterrupt:  # before anybody listened for it
            raise RunInterruptedError(
                f"interrupted before its first cell: `workbench resume {folder}` goes on",
                folder=folder,
            ) from None
        (folder / ".lock").unlink(missing_ok=True)  # while it is held, so that it is nobody else's
    if record["state"] != "done":
        raise failure(record, folder)
    return Run.read(folder)


def _work(known: Run, warm: str | None, *, edited: bool, variables: Mapping[str, str]) -> JSON:
    """Execute a run that nobody else executes, and return its record."""
    if known.state == "done":
        raise RequestError(f"run {known.id} is done: there is nothing to resume")
    check_ready(known, variables)
    document, told = rebind(known) if edited else (_own_copy(known), {})
    record = _begin(known, document, told)
    envelope = Envelope.from_json(record["envelope"])
    resumed = {"WORKBENCH_RESUMED": "1" if record["attempts"] else "0"}
    changed = {"WORKBENCH_EDITED": "1"} if edited else {}
    whole = {**kernel_variables(known.folder, envelope), **resumed, **changed, **variables}
    redact = Redaction(whole)
    record["environment"], diff = environment(known.source.parent, envelope)
    if diff:
        kept = redact(diff)[:_LONGEST_DIFF].encode(errors="surrogateescape")
        write_file(known.folder / "code.diff", kept)
    _execute(known.folder, record, document, warm, whole, redact)
    return record


def _execute(
    folder: Path,
    record: JSON,
    document: Any,
    warm: str | None,
    variables: dict[str, str],
    redact: Redaction,
) -> None:
    """Execute a notebook that is ready, keeping it and its record as it goes."""
    from workbench.runs.kernels import kernel

    source, log = Path(record["notebook"]["path"]), folder / "kernel.log"
    keep = partial(_keep, folder, record, document, redact)
    began = time.perf_counter()
    with log.open("wb") as said, kernel(warm) as km:
        km.begin(variables, source.parent, said)
        from workbench.runs.engine import Client, Watch  # takes a second, while the kernel comes up

        keep()
        with Narrator(record["cells"], source.stem) as tell:
            watch = Watch(document, record["cells"], save=keep, tell=tell)
            limits, widgets = Limits(**record["limits"]), record["widgets"]
            client = Client(watch, km, seed=_seed(record), limits=limits, widgets=widgets)
            error = client.work()
        record.update(ended=journal.now(), seconds=round(time.perf_counter() - began, 3))
        record.update(redact(outcome(record, client, error)), **remembered(folder))
        record["environment"]["hardware"].update(client.facts.get("hardware", {}))
        record["environment"]["modules"] = client.facts.get("modules", {})
        record["warm"] = km.warm is not None
    keep()
    record["notebook"]["executed_sha256"] = sha256_of(folder / "notebook.ipynb")
    keep()
    if error is None or not log.stat().st_size:
        log.unlink()  # of interest only after a crash
    else:
        log.write_text(redact(log.read_text(errors="replace")))


def _keep(folder: Path, record: JSON, document: Any, redact: Redaction) -> None:
    """Save a run.

    Raises:
        RunEnvironmentError: it cannot be written.
    """
    try:
        save(folder, record, document, redact)
    except OSError as error:
        raise RunEnvironmentError(
            f"what run {record['id']} left could not be written to {folder}: "
            f"{error.strerror or error}: make room, then `workbench resume {record['id']}`",
            folder=folder,
        ) from None


@contextlib.contextmanager
def alone(notebook: Path) -> Iterator[None]:
    """Make sure that no run of a notebook goes on, and that none that asks for the same begins.

    Raises:
        RequestError: one is going on.
    """
    path = notebook.expanduser().absolute()
    name = hashlib.sha256(str(path).encode()).hexdigest()[:16]
    file = home() / "locks" / f"{path.stem}-{name}.lock"
    file.parent.mkdir(parents=True, exist_ok=True)
    otherwise = (
        f"another run of {path} is going on, and this one was to be alone: wait for it, or look at "
        "it with `workbench runs`"
    )
    with _held(FileLock(file, timeout=0), otherwise):
        if any(run.state == "running" and run.source == path for run in list_runs()):
            raise RequestError(otherwise)
        yield


@contextlib.contextmanager
def _held(lock: FileLock, otherwise: str) -> Iterator[None]:
    """Hold a lock for the while.

    Raises:
        RequestError: another process holds it; with the words that are given.
    """
    try:
        lock.acquire(timeout=_MOMENT)
    except Timeout:
        raise RequestError(otherwise) from None
    try:
        yield
    finally:
        lock.release()


def check_ready(known: Run, variables: Mapping[str, str]) -> None:
    """Raise where a run lacks what it needs besides its folder.

    Args:
        known: the run.
        variables: of its environment, over this process's.

    Raises:
        RequestError: its notebook's folder is gone, a secret is not given, or it is too old.
    """
    if "envelope" not in known.record:
        raise RequestError(
            f"run {known.id} was made by an older workbench, which kept too little to run it "
            f"again: run {known.source} anew"
        )
    if not known.source.parent.is_dir():
        raise RequestError(
            f"run {known.id} works in {known.source.parent}, which is gone: put the folder back"
        )
    for name, source in known.record["assigned"].items():
        variable = secret_variable(name)
        if source == repr(SECRET) and variable not in {**os.environ, **variables}:
            raise RequestError(
                f"parameter {name!r} is a secret, which run {known.id} has not kept: set the "
                f"environment variable {variable}"
            )


def _own_copy(known: Run) -> Any:
    """Return the notebook that the run executes, as it was before."""
    import nbformat

    document = nbformat.read(known.notebook, as_version=4)
    clear(document)
    return document


def _begin(known: Run, document: Any, told: JSON) -> JSON:
    """Return the record of a run that begins now; what an earlier attempt left is put aside.

    Args:
        known: the run.
        document: that it will execute.
        told: what the record says otherwise from now on.
    """
    record = {**known.record, **told}
    if record["started"]:
        _carry_curves(known.folder, _put_aside(known.folder))
        attempt = {key: record[key] for key in ("started", "ended", "state", "error")}
        record["attempts"] = [*record["attempts"], attempt]
    document.metadata["workbench"] = {"run": record["id"]}
    record.update(
        **{"state": "running", "pid": os.getpid(), "started": journal.now()},
        **{"ended": None, "seconds": None, "error": None, "cells": first_cells(document)},
        **{"metrics": {}, "tolerances": {}, "published": [], "datasets": []},
    )
    return record


def _put_aside(folder: Path) -> int:
    """Keep the notebook and the journals of an attempt in a folder of its own; return its number.

    One that is killed in the middle of this is put aside in two folders.
    """
    attempts = folder / "attempts"
    attempts.mkdir(exist_ok=True)
    number = 1 + len(list(attempts.iterdir()))
    place = attempts / str(number)
    place.mkdir()
    shutil.copy2(folder / "notebook.ipynb", place)
    for name in _LEFT:
        if (folder / name).exists():
            os.replace(folder / name, place / name)
    return number


def _carry_curves(folder: Path, attempts: int) -> None:
    """Keep what trainings have recorded by step, since one that goes on does not tell it again.

    It counts once the training is taken up again; what a cell records itself, it records again.
    """
    files = [folder / "attempts" / str(n) / "metrics.jsonl" for n in range(1, attempts + 1)]
    lines = [line for file in files for line in journal.read_lines(file)]
    kept = {
        (line["name"], line["step"], line["training"]): {**line, "carried": True}
        for line in lines
        if "step" in line and "training" in line
    }
    if kept:
        text = "".join(json.dumps(line, ensure_ascii=False) + "\n" for line in kept.values())
        write_file(folder / "metrics.jsonl", text.encode())


def point_latest(folder: Path) -> None:
    """Let the link `latest` in the home name the newest run; one inside another is not meant."""
    if journal.current_run() is not None:
        return
    link, new = home() / "latest", home() / f".latest-{os.getpid()}"
    with contextlib.suppress(OSError):  # Windows has links for few, and a home may be read-only
        home().mkdir(parents=True, exist_ok=True)
        new.unlink(missing_ok=True)
        new.symlink_to(folder)
        os.replace(new, link)


def went_on(folder: Path) -> str:
    """Return what a resumed run has taken up of its earlier attempts, a line each."""
    lines = []
    for event in journal.read_lines(folder / "events.jsonl"):
        if event["event"] == "fit" and event.get("begun_at"):
            step, steps = event["begun_at"], event["settings"]["steps"]
            how = "was finished" if step >= steps else f"went on from step {step:,} of {steps:,}"
            lines.append(f"training {event['name']} {how}\n")
        if event["event"] == "publish" and event.get("before"):
            lines.append(f"{event['ref']} was published already\n")
    return "".join(lines)


def _seed(record: JSON) -> int:
    """Return the seed of the global generators: the notebook's own, where that can be one."""
    seed = record["seed"]
    return seed if type(seed) is int and 0 <= seed < 2**32 else 0
