"""A run from beginning to end: check the request, execute the notebook, keep the record true.

Everything that can be wrong with a request is found before the folder is made and a kernel started.
"""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import home, journal
from workbench.errors import RequestError, RunEnvironmentError, RunError, RunInterruptedError
from workbench.runs.environment import environment, kernel_variables
from workbench.runs.narration import Narrator
from workbench.runs.notebooks import code_cells, headings, read_notebook
from workbench.runs.parameters import bind, declared, inject
from workbench.runs.records import FORMAT, Run, State, remembered, run_lock
from workbench.types import JSON

if TYPE_CHECKING:
    from workbench.runs.engine import Client

__all__ = ["check_out", "execute", "run"]

# What a cell raises when its environment fails: no data source, no memory, no time.
_ENVIRONMENT = {"SourceError", "MemoryError", "OutOfMemoryError", "TimeoutError"}
_KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}


def run(notebook: str | Path, /, *, out: str | Path | None = None, **parameters: Any) -> Run:
    """Execute a notebook with these parameters in a fresh kernel, and return the record of it.

    Args:
        notebook: its path; it is only read.
        out: the run's folder, absent or empty; by default one of its own in the home.
        parameters: by the names that the cell tagged `parameters` assigns, `seed` among them.

    Raises:
        RequestError: the notebook, a parameter or `out` cannot be used; nothing was started.
        RunError: a cell raised.
        RunEnvironmentError: the kernel died, memory ran out, or no source of data answered.
        RunInterruptedError: Ctrl-C or SIGTERM; what was done is kept.
    """
    return execute(notebook, parameters, out=out)


def execute(
    notebook: str | Path, parameters: Mapping[str, Any], *, out: str | Path | None = None
) -> Run:
    """Execute a notebook as `run` does, its parameters given as a mapping.

    So a parameter may have any name, `out` too. Args and Raises are those of `run`.
    """
    import nbformat

    path = Path(notebook).expanduser().absolute()
    document = read_notebook(path)
    known = declared(document)
    given = bind(known, parameters)
    defaults = {name: parameter.shown() for name, parameter in (known or {}).items()}
    inject(document, given)
    _clear(document)
    from workbench.runs.engine import Client, Watch, kernel  # papermill: only for a good request

    record = _first_record(path, document, {**defaults, **given}, list(given))
    folder = _new_folder(out, record["id"])
    variables = kernel_variables(folder)
    record["environment"] = environment(path.parent, variables["OMP_NUM_THREADS"])
    document.metadata["workbench"] = {"run": record["id"]}

    def save() -> None:
        home.write_file(folder / "notebook.ipynb", nbformat.writes(document).encode())
        home.write_json(folder / "run.json", record)

    log = folder / "kernel.log"
    began = time.perf_counter()
    with run_lock(folder), kernel() as km, Narrator(record["cells"], path.stem) as tell:
        save()
        watch = Watch(document, record["cells"], save=save, tell=tell)
        client = Client(watch, km)
        error = client.work(variables, path.parent, log)
        record.update(ended=journal.now(), seconds=round(time.perf_counter() - began, 3))
        record.update(_outcome(record["cells"], client, error), **remembered(folder))
        record["environment"]["hardware"].update(client.hardware or {})
        save()
    (folder / ".lock").unlink(missing_ok=True)
    if error is None or not log.stat().st_size:
        log.unlink()  # of interest only after a crash
    if record["state"] != "done":
        raise _failure(record, folder, crashed=error is not None) from error
    return Run.read(folder)


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
        raise RequestError(_not_empty(folder, held))


def _no_folder(folder: Path, error: OSError) -> str:
    return f"out {str(folder)!r} cannot be a run's folder: {error.strerror}"


def _not_empty(folder: Path, held: list[str]) -> str:
    return (
        f"out {str(folder)!r} holds {', '.join(held[:3])}, expected an absent or empty folder: "
        "a run never writes over another, so give it a folder of its own"
    )


def _first_record(path: Path, document: Any, parameters: JSON, given: list[str]) -> JSON:
    """Return the record of a run that has not begun."""
    titles = headings(document)
    stem = re.sub(r"[^\w-]+", "-", path.stem)
    return {
        "format": FORMAT,
        "id": f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{stem}-{secrets.token_hex(2)}",
        "state": "running",
        "pid": os.getpid(),
        "notebook": {
            "path": str(path),
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        },
        "parameters": parameters,
        "given": given,
        "seed": parameters.get("seed"),
        "started": journal.now(),
        "ended": None,
        "seconds": None,
        "cells": [
            {"index": i, "heading": titles[i], "state": "pending", "seconds": None}
            for i in code_cells(document)
        ],
        "error": None,
        "metrics": {},
        "published": [],
        "datasets": [],
    }


def _new_folder(out: str | Path | None, identity: str) -> Path:
    """Return the run's folder, made and empty.

    Raises:
        RequestError: `out` is a file, or holds something.
    """
    folder = home.home() / "runs" / identity if out is None else Path(out).expanduser().absolute()
    try:
        folder.mkdir(parents=True, exist_ok=out is not None)
        held = sorted(path.name for path in folder.iterdir())
    except OSError as error:
        raise RequestError(_no_folder(folder, error)) from None
    if held:
        raise RequestError(_not_empty(folder, held))
    return folder


def _clear(document: Any) -> None:
    """Take out what an earlier execution left."""
    document.metadata.pop("widgets", None)
    document.metadata["kernelspec"] = dict(_KERNEL)
    for place in code_cells(document):
        document.cells[place].outputs = []
        document.cells[place].execution_count = None


def _outcome(cells: list[JSON], client: Client, error: Exception | None) -> JSON:
    """Return how it ended, and name the same in the cell where it did."""
    watch = client.watch
    finished = all(cell["state"] in ("done", "skipped") for cell in cells)
    state: State = "done"
    if watch.stopping and not finished:
        state = "interrupted"
    elif error is not None:
        state = "killed" if client.kernel_died else "failed"
    elif watch.error:
        state = "failed"
    told = watch.error or (_told(error, client.ended_with) if error else None)
    for number, cell in enumerate(cells, 1):
        if cell["state"] in ("running", "failed", "interrupted"):
            cell["state"] = state
            told = {"cell": number, "heading": cell["heading"], **(told or {})}
    return {"state": state, "error": told if state != "done" else None}


def _told(error: Exception, code: int | None) -> JSON:
    """Return what there is to say of an error that is not a cell's."""
    value = str(error) or "no reason was given"
    if code is not None:
        value = f"the kernel's process ended with exit code {code}"
    if code is not None and code < 0:
        value = f"the kernel was killed by signal {-code}"
        value += ", most often because memory ran out" if code == -9 else ""
    return {"name": type(error).__name__, "value": value, "traceback": ""}


def _failure(record: JSON, folder: Path, *, crashed: bool) -> RunError:
    """Return the error that says where the run ended, why, and where its record is."""
    error: JSON = record["error"] or {}
    where = _where(record["cells"], error)
    rest = f"What was done is in {folder}"
    if record["state"] == "interrupted":
        return RunInterruptedError(f"interrupted {where}. {rest}", folder=folder)
    why = f"{error['name']}: {error['value']}"
    traceback = f"\n\n{error['traceback']}" if error["traceback"] else ""
    if (folder / "kernel.log").exists():
        rest += ", what the kernel's process said in its kernel.log"
    environment_failed = crashed or _is_environment(error)
    kind = RunEnvironmentError if environment_failed else RunError
    return kind(f"the run failed {where}: {why}{traceback}\n\n{rest}", folder=folder)


def _where(cells: list[JSON], error: JSON) -> str:
    if "cell" in error:
        heading = f" ({error['heading']})" if error["heading"] else ""
        return f"in cell {error['cell']} of {len(cells)}{heading}"
    begun = sum(cell["state"] != "pending" for cell in cells)
    return f"before cell {begun + 1} of {len(cells)}" if begun < len(cells) else "after its cells"


def _is_environment(error: JSON) -> bool:
    """Return whether a cell met the limits of its environment, and made no mistake."""
    if error["name"] in _ENVIRONMENT:
        return True
    return "can't allocate memory" in error["value"]  # how torch says it, in a RuntimeError
