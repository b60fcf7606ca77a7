"""`workbench trainings` and `workbench stop`."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from workbench.training import Training

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
    what: Annotated[
        str,
        typer.Argument(
            help="A service's name, a training's name, a run's id, a unique prefix, or `last`."
        ),
    ],
) -> None:
    """Stop a service once it has answered what it accepted; a training after its step; or a run.

    A training and a run keep what they need to go on.
    """
    from workbench.runs import list_runs
    from workbench.training import list_trainings

    trainings = list_trainings()
    if _stop_service(what, trainings):
        return
    runs = list_runs().filter(lambda run: run.state == "running")
    named = [run for run in runs if what == "last" or run.id.startswith(what)]
    if named and not any(training.name.startswith(what) for training in trainings):
        run = runs[what]
        run.stop()
        typer.echo(f"run {run.id} is told to end")
        return
    found = trainings[what]
    found.stop()
    found.wait()
    typer.echo(f"{found.name}: {found!r}")


def _stop_service(name: str, trainings: Iterable[Training]) -> bool:
    """Stop the service of that name; return whether there is one.

    Raises:
        RequestError: a training of that name goes on, or the service lives in a kernel.
    """
    from workbench.errors import RequestError
    from workbench.serving import list_services

    service = next((one for one in list_services() if one.name == name), None)
    if service is None:
        return False
    if any(t.name == name and t.state == "running" for t in trainings):
        raise RequestError(
            f"{name!r} is a service and a training that goes on: stop the training from its "
            f"notebook, or end the service by SIGTERM to process {service.pid}"
        )
    service.stop()
    typer.echo(f"service {name} is stopped")
    return True
