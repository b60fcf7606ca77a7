"""`workbench trainings` and `workbench stop`."""

from __future__ import annotations

import json
from typing import Annotated

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of trainings to `app`."""
    app.command("trainings")(_trainings)
    app.command("stop")(_stop)


def _trainings(
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """List what trains and what has trained, oldest first."""
    from workbench.training import list_trainings

    found = list_trainings()
    if as_json:
        rows = [
            {
                "name": t.name,
                "state": t.state,
                "step": len(t.history),
                "seconds": t.seconds,
                "folder": str(t.folder),
                "settings": t.settings.to_json(),
                "last": t.history.epochs[-1] if t.history.epochs else {},
            }
            for t in found
        ]
        typer.echo(json.dumps(rows, indent=2, ensure_ascii=False))
    else:
        typer.echo(repr(found))


def _stop(
    training: Annotated[str, typer.Argument(help="A name, a unique prefix of one, or `last`.")],
) -> None:
    """Stop a training after the step it is in; it keeps a checkpoint to go on from."""
    from workbench.training import list_trainings

    found = list_trainings()[training]
    found.stop()
    found.wait()
    typer.echo(f"{found.name}: {found!r}")
