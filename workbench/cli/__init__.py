"""The `workbench` command: parse, call one function, print. The only place that exits."""

from __future__ import annotations

import signal
import sys
from types import FrameType

import typer

from workbench.cli import data, doctor, lab, models, runs, services, storage, sweeps, trainings
from workbench.errors import WorkbenchError

__all__ = ["app", "main"]

app = typer.Typer(
    name="workbench",
    help="Train, run, publish and serve models from notebooks.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
app.add_typer(data.app, name="data")
doctor.register(app)
lab.register(app)
models.register(app)
runs.register(app)
services.register(app)
storage.register(app)
sweeps.register(app)
trainings.register(app)


def main() -> None:
    """Run the command line and exit with its code: 0 done, 1 failed, 2 wrong, 3 interrupted, 4 env.

    An error of the workbench is printed without a traceback; any other is a defect and keeps its.
    """
    signal.signal(signal.SIGTERM, _interrupt)  # serve and run set handlers of their own
    # jsonschema would load a grammar for most of a second, for a format that no notebook has
    sys.modules.setdefault("rfc3987_syntax", None)  # type: ignore[arg-type]
    try:
        app()
    except WorkbenchError as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(error.exit_code)
    except SystemExit as end:
        sys.exit(3 if end.code == 130 else end.code)  # typer's code for Ctrl-C


def _interrupt(number: int, frame: FrameType | None) -> None:
    """End as Ctrl-C does, so that what was started is ended too."""
    raise KeyboardInterrupt
