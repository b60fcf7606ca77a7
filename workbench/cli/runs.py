"""`workbench run`, and what is done with runs afterwards."""

from __future__ import annotations

import json
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from workbench.runs import Run
    from workbench.types import JSON

__all__ = ["DETERMINISTIC", "LIMIT_MEMORY", "LIMIT_TIME", "register"]

Which = Annotated[str, typer.Argument(help="An id, a unique prefix of one, `last`, or a folder.")]
DETERMINISTIC = typer.Option(
    help="How far the numbers are the same: same-machine, or any-x86, which is slower."
)
LIMIT_TIME = typer.Option(metavar="SECONDS", help="End the run after so long.")
LIMIT_MEMORY = typer.Option(metavar="GB", help="End the run when its kernel takes more.")


def register(app: typer.Typer) -> None:
    """Add the commands of runs to `app`."""
    app.command("run", context_settings={"help_option_names": []})(_run)
    app.command("runs")(_runs)
    app.command("resume")(_resume)
    app.command("verify")(_verify)
    app.command("compare")(_compare)
    app.command("report")(_report)


def _run(  # noqa: PLR0913, PLR0917 - an option each, named on the command line
    context: typer.Context,
    notebook: Annotated[
        Path | None, typer.Argument(help="A notebook, or a folder of notebooks.")
    ] = None,
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
    deterministic: Annotated[str, DETERMINISTIC] = "same-machine",
    time_limit: Annotated[float | None, LIMIT_TIME] = None,
    memory_limit: Annotated[float | None, LIMIT_MEMORY] = None,
    widgets: Annotated[
        bool, typer.Option("--widgets", help="Keep the state of widgets in the notebook.")
    ] = False,
    require: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help="Fail unless, say, 'test_accuracy>=last-0.01'."),
    ] = None,
    junit: Annotated[Path | None, typer.Option(help="Write a JUnit report there.")] = None,
    on_failure: Annotated[
        str | None,
        typer.Option(
            metavar="URL",
            envvar="WORKBENCH_ON_FAILURE",
            help="Tell a webhook of a run that ends badly.",
        ),
    ] = None,
    exclusive: Annotated[
        bool, typer.Option("--exclusive", help="Refuse while another such run goes on.")
    ] = False,
    schema: Annotated[
        bool, typer.Option("--schema", help="Print the notebook's parameters as JSON Schema.")
    ] = False,
    show_help: Annotated[
        bool, typer.Option("--help", help="Show this, and the notebook's own parameters.")
    ] = False,
) -> None:
    """Execute a notebook reproducibly; the last line of stdout is the folder of the run.

    Of a folder, the notebooks run in the order of their names, up to the first that fails.
    """
    from workbench.errors import RequestError, RunError
    from workbench.runs import execute
    from workbench.runs.envelopes import make_envelope
    from workbench.runs.execution import alone
    from workbench.runs.judging import Judge
    from workbench.runs.queueing import Limits, check_out
    from workbench.runs.warm import warm_parent

    if show_help or schema:
        typer.echo(_about(context, notebook, schema=schema))
        return
    if notebook is None:
        raise RequestError("run what? Give a notebook, or a folder of notebooks")
    many = notebook.is_dir()
    # All of the request is checked before any of it starts.
    judge = Judge(require or (), junit, on_failure)
    envelope, limits = make_envelope(deterministic), Limits(time_limit, memory_limit)
    paths = _notebooks(notebook) if many else [notebook]
    plans = [
        (path, _given(path, parameter or [], file, seed), out / path.stem if out and many else out)
        for path in paths
    ]
    for _, _, folder in plans:
        if folder is not None:
            check_out(folder)
    with ExitStack() as stack:
        for path in paths if exclusive else ():
            stack.enter_context(alone(path))
        warm = stack.enter_context(warm_parent(envelope)) if len(plans) > 1 else None
        for path, given, folder in plans:
            try:
                done = execute(
                    path, given, out=folder, envelope=envelope, limits=limits, widgets=widgets,
                    warm=warm,
                )  # fmt: skip
                typer.echo(_summary(done), err=True, nl=False)
                typer.echo(done.folder)
            except RunError as error:
                if error.folder:
                    typer.echo(error.folder)
                    judge.ended(error.folder)
                raise
            judge.ended(done.folder)


def _runs(
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help="Those for which, say, 'lr>0.01' holds."),
    ] = None,
    notebook: Annotated[str | None, typer.Option(help="Those of a notebook.")] = None,
    state: Annotated[str | None, typer.Option(help="Those that stand so.")] = None,
    sort: Annotated[
        str | None, typer.Option(help="By a parameter, a metric, seconds, ... from the least on.")
    ] = None,
    last: Annotated[int | None, typer.Option(help="The last so many of them.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print the records as JSON.")] = False,
) -> None:
    """List the runs, oldest first."""
    from workbench.runs import list_runs
    from workbench.runs.queries import check_known, pick

    conditions = [*(where or ()), *([f"notebook={Path(notebook).stem}"] if notebook else ())]
    conditions += [f"state={state}"] if state else []
    found = list_runs()
    check_known(found, conditions)
    runs = pick(found, conditions, sort)
    runs = runs[-last:] if last else runs
    if as_json:
        records = [{"folder": str(run.folder), **run.record} for run in runs]
        typer.echo(json.dumps(records, indent=2, ensure_ascii=False))
    elif len(runs) or not conditions:
        typer.echo(repr(runs))
    else:
        typer.echo(f"no run for which {' and '.join(conditions)}", err=True)


def _resume(
    run: Annotated[str, typer.Argument(help="A run or a sweep: id, prefix, `last`, or folder.")],
    edited: Annotated[
        bool,
        typer.Option("--edited", help="Execute the notebook as it is now, not the run's own copy."),
    ] = False,
    jobs: Annotated[int | None, typer.Option(help="Of a sweep: how many runs at once.")] = None,
    time_limit: Annotated[float | None, LIMIT_TIME] = None,
    memory_limit: Annotated[float | None, LIMIT_MEMORY] = None,
) -> None:
    """Go on with a run that did not come to its end, or with a sweep.

    The notebook executes from the top in a fresh kernel. A training that had not finished goes on
    from its checkpoint, one that had returns at once, and nothing is published twice.
    """
    from workbench.errors import RunError
    from workbench.runs import find_run
    from workbench.runs.execution import went_on, work
    from workbench.runs.queueing import Limits
    from workbench.runs.sweeping import go_on
    from workbench.runs.sweeps import find_sweep

    sweep = find_sweep(run)
    if sweep is not None:
        typer.echo(go_on(sweep, jobs=jobs))
        return
    found = find_run(run)
    limits = Limits(time_limit, memory_limit) if time_limit or memory_limit else None
    if found.is_behind and not edited:
        typer.echo(
            f"{found.source} has changed since: going on with the run's own copy; --edited takes "
            "it as it is now",
            err=True,
        )
    try:
        done = work(found.folder, edited=edited, limits=limits)
    except RunError as error:
        typer.echo(went_on(found.folder), err=True, nl=False)
        typer.echo(error.folder)
        raise
    typer.echo(went_on(found.folder), err=True, nl=False)
    typer.echo(_summary(done), err=True, nl=False)
    typer.echo(done.folder)


def _verify(run: Which) -> None:
    """Run a run again, and prove its numbers or name the first that differs, and why."""
    from workbench.errors import RunError
    from workbench.runs import find_run, verify

    found = verify(find_run(run))
    typer.echo(found)
    if found.verdict != "identical":
        raise RunError(f"run {found.run.id} differs from what it was", folder=found.run.folder)


def _compare(
    runs: Annotated[list[str], typer.Argument(help="Two runs or more.")],
    html: Annotated[Path | None, typer.Option(help="Write a page to look at there.")] = None,
) -> None:
    """Show in what runs differ: parameters, metrics, environment, code, curves."""
    from workbench.runs import find_run
    from workbench.runs.comparisons import compare

    found = compare([find_run(name) for name in runs])
    typer.echo(found)
    if html:
        typer.echo(found.save(html))


def _report(
    run: Which,
    out: Annotated[Path | None, typer.Option(help="Where to; report.html in its folder.")] = None,
) -> None:
    """Write a run as one HTML page to show to somebody, and print its path."""
    from workbench.runs import find_run
    from workbench.runs.reports import report

    typer.echo(report(find_run(run), out))


def _about(context: typer.Context, notebook: Path | None, *, schema: bool) -> str:
    """Return the help of the command and of a notebook's parameters, or their schema."""
    from workbench.errors import RequestError
    from workbench.runs.notebooks import read_notebook
    from workbench.runs.parameters import declared, help_text
    from workbench.runs.parameters import schema as schema_of

    if notebook is None:
        if schema:
            raise RequestError("--schema of what? Give a notebook")
        return context.get_help()
    known = declared(read_notebook(notebook))
    if schema:
        return json.dumps(schema_of(known, notebook.stem), indent=2, ensure_ascii=False)
    own = help_text(known, notebook.name)
    return f"{own}\n\n`workbench run --help` tells of the options that every notebook has."


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
