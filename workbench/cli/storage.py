"""`workbench rm` and `workbench gc`: runs, trainings and sweeps that are no longer needed."""

from __future__ import annotations

import sys
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands that remove things."""
    app.command("rm")(_rm)
    app.command("gc")(_gc)


def _rm(
    what: Annotated[
        list[str],
        typer.Argument(
            help="Ids of runs, unique prefixes of them, `last`, folders of runs, ids of sweeps "
            "(which take their runs along), names of trainings."
        ),
    ],
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")] = False,
) -> None:
    """Remove runs, sweeps and trainings; a running one is refused, published versions stay."""
    from workbench.errors import RequestError
    from workbench.runs.retention import discard, named

    removals = named(what)
    for removal in removals:
        line = f"{removal.kind}  {removal.folder}  {_shown(removal.size)}  {removal.note}"
        typer.echo(line.rstrip(), err=True)
    if not yes:
        if not sys.stdin.isatty():
            raise RequestError(
                "rm asks before it removes anything, and there is no terminal to ask at: pass --yes"
            )
        total = _shown(sum(removal.size for removal in removals))
        typer.confirm(f"Remove this for good, {total}?", abort=True, err=True)
    for folder in discard(removals):
        typer.echo(folder)


def _gc(
    keep_days: Annotated[
        float | None, typer.Option(help="Keep what began in the last so many days.")
    ] = None,
    keep_last: Annotated[
        int | None, typer.Option(help="Keep so many runs of each notebook, the newest.")
    ] = None,
    with_published: Annotated[
        bool, typer.Option("--with-published", help="Remove runs that published a version too.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only say what would be removed.")
    ] = False,
) -> None:
    """Remove the runs that no rule keeps, and what killed processes left behind.

    Never removed: what runs or waits, has a file called keep in its folder, is what others are
    compared with, is of a sweep of which not all goes, or published a version that is still there.
    """
    from workbench.runs.retention import gc

    found = gc(
        keep_days=keep_days, keep_last=keep_last, with_published=with_published, dry_run=dry_run
    )
    for name, why in found.kept.items():
        typer.echo(f"kept {name}: {why}", err=True)
    for removal in (*found.runs, *found.sweeps):
        typer.echo(removal.folder)
    typer.echo(
        f"{'would remove' if dry_run else 'removed'}: runs {len(found.runs)}, sweeps "
        f"{len(found.sweeps)}, leftovers {len(found.leftovers)}, {_shown(found.size)}",
        err=True,
    )


def _shown(size: int) -> str:
    return f"{size / 1e6:,.1f} MB"
