"""`workbench sweep` and `workbench sweeps`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from workbench.cli.runs import DETERMINISTIC, LIMIT_MEMORY, LIMIT_TIME

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of sweeps to `app`."""
    app.command("sweep")(_sweep)
    app.command("sweeps")(_sweeps)


def _sweep(
    notebook: Annotated[Path, typer.Argument(help="A notebook.")],
    parameter: Annotated[
        list[str] | None,
        typer.Option(
            "-p",
            metavar="NAME=VALUES",
            help="Alternatives (lr=0.01,0.1), a range (lr=0.01..0.1), or one of powers "
            "(lr=log:1e-4..0.1).",
        ),
    ] = None,
    file: Annotated[
        Path | None, typer.Option("-f", help="Take the points of a CSV, JSON or YAML list.")
    ] = None,
    samples: Annotated[int | None, typer.Option(help="Points to draw from the ranges.")] = None,
    seeds: Annotated[int | None, typer.Option(help="Run every point with so many seeds.")] = None,
    jobs: Annotated[
        int | None, typer.Option(help="How many runs at once; by default one a core.")
    ] = None,
    halving: Annotated[
        str | None,
        typer.Option(
            metavar="METRIC:STEP[:min|max]",
            help="Stop the worse half at that step of a recorded metric, at twice it, ...",
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder of the sweep and its runs.")] = None,
    deterministic: Annotated[str, DETERMINISTIC] = "same-machine",
    time_limit: Annotated[float | None, LIMIT_TIME] = None,
    memory_limit: Annotated[float | None, LIMIT_MEMORY] = None,
    cold: Annotated[
        bool, typer.Option("--cold", help="Start each process afresh, rather than fork it.")
    ] = False,
) -> None:
    """Execute a notebook at many points, several at once; the last line is the sweep's folder.

    Killed or interrupted, it goes on with `workbench resume`, and repeats no run that is done.
    """
    from workbench.errors import RunError
    from workbench.runs.envelopes import make_envelope
    from workbench.runs.halving import Halving
    from workbench.runs.queueing import Limits
    from workbench.runs.spaces import asked_points
    from workbench.runs.sweeping import go_on
    from workbench.runs.sweeps import plan

    points = asked_points(notebook, parameter or [], file, samples=samples, seeds=seeds)
    made = plan(
        notebook,
        points,
        envelope=make_envelope(deterministic, threads=1),
        limits=Limits(time_limit, memory_limit),
        halving=Halving.parse(halving) if halving else None,
        seeds=seeds,
        out=out,
    )
    typer.echo(f"sweep {made.id}: {len(made)} runs", err=True)
    done = go_on(made, jobs=jobs, cold=cold)
    typer.echo(done)
    typer.echo(done.folder)
    failed = [run.id for run in done.runs if run.state != "done" and run.id not in done.stopped]
    if failed:
        raise RunError(
            f"{len(failed)} of {len(done)} runs did not end well: {failed[0]}", folder=done.folder
        )


def _sweeps() -> None:
    """List the sweeps, oldest first."""
    from workbench.runs import list_sweeps

    typer.echo(repr(list_sweeps()))
