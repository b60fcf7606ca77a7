"""`workbench lab`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

__all__ = ["register"]

_ANY = {"ignore_unknown_options": True}  # they are JupyterLab's


def register(app: typer.Typer) -> None:
    """Add the command that opens JupyterLab to `app`."""
    app.command("lab", context_settings=_ANY)(_lab)


def _lab(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="FOLDER|--OPTION=VALUE",
            help="Where notebooks are, by default here; and options of `jupyter lab`.",
        ),
    ] = None,
) -> None:
    """Open JupyterLab on a start notebook: the folder's notebooks, runs, models and services.

    It answers until Ctrl-C, which asks first; a second one ends it at once.
    """
    from workbench.errors import RequestError
    from workbench.lab import open_lab

    options = [word for word in words or () if word.startswith("-")]
    folders = [word for word in words or () if not word.startswith("-")]
    rule = "a value of JupyterLab's options follows an equals sign: "
    if len(folders) > 1:
        found = " and ".join(map(repr, folders))
        raise RequestError(f"lab takes one folder, not {found}; {rule}--port=8889")
    folder = Path(folders[0]) if folders else Path()
    before = (words or [])[: (words or []).index(folders[0])] if folders else []
    if before and not folder.exists():
        raise RequestError(f"no folder is called {folders[0]!r}; {rule}{before[-1]}={folders[0]}")
    open_lab(folder, options)
