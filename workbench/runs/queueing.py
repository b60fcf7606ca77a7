"""A run before it begins: the request checked, its folder made, the notebook that it will execute.

Everything that can be wrong with a request is found here, before a kernel starts. What is executed
is the copy in the run's folder, so editing the notebook changes no run that waits or is resumed.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
from collections.abc import Container, Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from workbench import journal
from workbench.errors import RequestError
from workbench.home import home, write_file, write_json
from workbench.runs.envelopes import Envelope, make_envelope
from workbench.runs.notebooks import code_cells, headings, read_notebook
from workbench.runs.parameters import bind, declared, inject, is_plain, source_of, value_of
from workbench.runs.records import FORMAT, Run
from workbench.runs.redaction import Redaction
from workbench.types import JSON

__all__ = [
    "SECRET",
    "Limits",
    "check_out",
    "clear",
    "first_cells",
    "new_id",
    "prepare",
    "queue",
    "rebind",
    "save",
    "secret_variable",
    "sha256_of",
]

SECRET = "(secret)"  # stands for the value of one, wherever that is kept
_KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


@dataclass(frozen=True)
class Limits:
    """How much a run may take.

    Args:
        seconds: in all; None for no limit.
        memory_gb: of the kernel and the processes that it starts, in 10**9 bytes; None for no
            limit.

    Raises:
        RequestError: a limit is not a number above 0.
    """

    seconds: float | None = None
    memory_gb: float | None = None

    def __post_init__(self) -> None:
        for name, value in (("time_limit", self.seconds), ("memory_limit", self.memory_gb)):
            if value is not None and not (isinstance(value, (int, float)) and value > 0):
                raise RequestError(f"{name} is {value!r}, expected a number above 0, or None")

    def to_json(self) -> JSON:
        """Return the limits as the record of a run keeps them."""
        return asdict(self)


def queue(
    notebook: str | Path,
    parameters: Mapping[str, Any],
    *,
    out: str | Path | None = None,
    envelope: Envelope | None = None,
    limits: Limits | None = None,
    widgets: bool = False,
    identity: str | None = None,
    sweep: JSON | None = None,
    copy: Path | None = None,
) -> Run:
    """Make the folder of a run that waits to be executed, and return it.

    Args:
        notebook: its path; it is only read.
        parameters: by the names that the cell tagged `parameters` assigns.
        out: the run's folder, absent or empty; by default one of its own in the home.
        envelope: what decides its numbers; by default that of this machine.
        limits: of time and memory; none by default.
        widgets: whether the executed notebook keeps the state of its widgets.
        identity: its id, where that is settled.
        sweep: which one it is of, and its point there.
        copy: of the notebook as it was, to be executed in its place.

    Raises:
        RequestError: the notebook, a parameter or `out` cannot be used.
    """
    path = Path(notebook).expanduser().absolute()
    document = read_notebook(copy or path)
    told = prepare(document, parameters)
    record: JSON = {
        "format": FORMAT,
        "id": identity or new_id(path),
        "state": "queued",
        "pid": None,
        "notebook": {"path": str(path), "sha256": sha256_of(copy or path), "executed_sha256": None},
        **told,
        "queued": journal.now(),
        "started": None,
        "ended": None,
        "seconds": None,
        "cells": first_cells(document),
        "error": None,
        **{"metrics": {}, "tolerances": {}, "published": [], "datasets": []},
        "environment": None,
        "envelope": (envelope or make_envelope()).to_json(),
        "limits": (limits or Limits()).to_json(),
        "widgets": widgets,
        "attempts": [],
        "sweep": sweep,
        "requirements": [],
    }
    folder = _new_folder(out, record["id"])
    save(folder, record, document, Redaction())
    return Run.read(folder)


def prepare(document: Any, parameters: Mapping[str, Any]) -> JSON:
    """Make a notebook ready to be executed, and return what its record says of its parameters.

    A secret's value is in neither. One that is not given, and whose environment variable is set,
    counts as given.

    Args:
        document: of a notebook; changed in place.
        parameters: values by name.

    Raises:
        RequestError: a value is none that the notebook takes.
    """
    declares = declared(document)
    known = declares or {}
    secret = {name for name, parameter in known.items() if parameter.is_secret}
    there = {n: os.environ[v] for n in secret if (v := secret_variable(n)) in os.environ}
    given = bind(declares, {**there, **parameters})
    inject(document, given)
    clear(document)
    kept = {name: SECRET if name in secret else value for name, value in given.items()}
    shown = {name: parameter.shown() for name, parameter in known.items()}
    return {
        "parameters": {**shown, **{n: v if is_plain(v) else source_of(v) for n, v in kept.items()}},
        "given": list(given),
        "assigned": {name: source_of(value) for name, value in kept.items()},
        "seed": given.get("seed", shown.get("seed")),
    }


def rebind(run: Run) -> tuple[Any, JSON]:
    """Return the notebook of a run as it is now, with its values, and what its record says of it.

    Raises:
        RequestError: it is gone, or takes them no more.
    """
    document = read_notebook(run.source)
    assigned = {name: value_of(source) for name, source in run.record["assigned"].items()}
    told = prepare(document, {name: v for name, v in assigned.items() if v != SECRET})
    return document, {
        **told,
        "notebook": {**run.record["notebook"], "sha256": sha256_of(run.source)},
    }


def secret_variable(name: str) -> str:
    """Return the environment variable that a parameter which is a secret comes in."""
    return f"WORKBENCH_PARAMETER_{name.upper()}"


def save(folder: Path, record: JSON, document: Any, redact: Redaction) -> None:
    """Keep the notebook and the record of a run, each whole or as it was, without secrets."""
    import nbformat

    if "widgets" in document.metadata:
        document.metadata["widgets"] = redact(document.metadata["widgets"])
    for place in code_cells(document):
        document.cells[place].outputs = redact(document.cells[place].outputs)
    write_file(folder / "notebook.ipynb", nbformat.writes(document).encode())
    told = {key: redact(record[key]) for key in ("error", "cells")}
    write_json(folder / "run.json", {**record, **told})


def first_cells(document: Any) -> list[JSON]:
    """Return the cells of a record that has not begun, one a code cell."""
    titles = headings(document)
    return [
        {
            **{"index": i, "heading": titles[i], "state": "pending"},
            **{"started": None, "seconds": None, "error": None},
        }
        for i in code_cells(document)
    ]


def clear(document: Any) -> None:
    """Take out what an earlier execution left."""
    document.metadata.pop("widgets", None)
    document.metadata["kernelspec"] = dict(_KERNEL)
    for place in code_cells(document):
        document.cells[place].outputs = []
        document.cells[place].execution_count = None
        document.cells[place].metadata.pop("execution", None)


def new_id(notebook: Path, taken: Container[str] = ()) -> str:
    """Return an id that no run of this home has: moment, notebook, four hexadecimal digits.

    Args:
        notebook: its path.
        taken: ids that are given away already.
    """
    stem = re.sub(r"[^\w-]+", "-", notebook.stem)
    while True:
        made = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{stem}-{secrets.token_hex(2)}"
        if made not in taken and not (home() / "runs" / made).exists():
            return made


def check_out(out: Path) -> None:
    """Check that a run's folder can be at `out`, and make nothing.

    Raises:
        RequestError: it is a file, or holds something.
    """
    folder = out.expanduser().absolute()
    try:
        held = sorted(path.name for path in folder.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise RequestError(_no_folder(folder, error)) from None
    if held:
        raise RequestError(
            f"out {str(folder)!r} holds {', '.join(held[:3])}, expected an absent or empty folder: "
            "a run never writes over another, so give it a folder of its own"
        )


def _new_folder(out: str | Path | None, identity: str) -> Path:
    """Return the run's folder, made and empty.

    Raises:
        RequestError: `out` is a file, or holds something; or the home cannot be written.
    """
    folder = home() / "runs" / identity if out is None else Path(out).expanduser().absolute()
    if out is not None:
        check_out(folder)
    try:
        folder.mkdir(parents=True, exist_ok=out is not None)
    except OSError as error:
        raise RequestError(_no_folder(folder, error)) from None
    return folder


def _no_folder(folder: Path, error: OSError) -> str:
    return f"out {str(folder)!r} cannot be a run's folder: {error.strerror}"


def sha256_of(path: Path) -> str:
    """Return the hash of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()
