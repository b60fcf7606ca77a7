"""`workbench run` and `workbench runs`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from workbench.runs import Run
    from workbench.types import JSON

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of runs to `app`."""
    app.command("run")(_run)
    app.command("runs")(_runs)


def _run(
    notebook: Annotated[Path, typer.Argument(help="A notebook, or a folder of notebooks.")],
    parameter: Annotated[
        list[str] | None, typer.Option("-p", metavar="NAME=VALUE", help="Set a parameter.")
    ] = None,
    file: Annotated[
        Path | None, typer.Option("-f", help="Set the parameters of a YAML or JSON file.")
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Set the parameter seed.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="The run's folder; of a folder, one run a notebook in it.")
    ] = None,
) -> None:
    """Execute a notebook reproducibly; the last line of stdout is the folder of the run.

    Of a folder, the notebooks run in the order of their names, up to the first that fails.
    """
    from workbench.errors import RunError
    from workbench.runs import execute
    from workbench.runs.execution import check_out

    many = notebook.is_dir()
    paths = _notebooks(notebook) if many else [notebook]
    # All of the request is checked before any of it starts.
    plans = [
        (path, _given(path, parameter or [], file, seed), out / path.stem if out and many else out)
        for path in paths
    ]
    for _, _, folder in plans:
        if folder is not None:
            check_out(folder)
    for path, given, folder in plans:
        try:
            done = execute(path, given, out=folder)
        except RunError as error:
            typer.echo(error.folder)
            raise
        typer.echo(_summary(done), err=True, nl=False)
        typer.echo(done.folder)


def _runs(
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> None:
    """List the runs, oldest first."""
    from workbench.runs import list_runs

    runs = list_runs()
    if as_json:
        records = [{"folder": str(run.folder), **run.record} for run in runs]
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
    else:
        typer.echo(repr(runs))


def _notebooks(folder: Path) -> list[Path]:
    from workbench.errors import RequestError

    found = sorted(folder.glob("*.ipynb"))
    if not found:
        raise RequestError(f"the folder {str(folder)!r} holds no notebook: expected .ipynb files")
    return found


def _given(path: Path, pairs: list[str], file: Path | None, seed: int | None) -> JSON:
    """Return the parameters of one notebook: the file's, over them `-p`, over them `--seed`."""
    from workbench.runs.notebooks import read_notebook
    from workbench.runs.parameters import bind, declared, parse_assignments, read_file

    known = declared(read_notebook(path))
    given = {**(read_file(file) if file else {}), **parse_assignments(pairs, known or {})}
    if seed is not None:
        given["seed"] = seed
    return bind(known, given)


def _summary(run: Run) -> str:
    """Return the metrics and the published versions, a line each."""
    rows = [(name, f"{value:.6g}") for name, value in run.metrics.items()]
    rows += [("published", ref) for ref in run.published]
    width = max((len(name) for name, _ in rows), default=0)
    return "".join(f"{name:{width}}  {value}\n" for name, value in rows)
