"""`workbench data`: what datasets there are, and fetching one ahead of its use."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from workbench.types import JSON

__all__ = ["app"]

app = typer.Typer(help="List the datasets, or fetch one ahead of its use.")


@app.callback(invoke_without_command=True)
def listing(
    context: typer.Context,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON instead of a table.")] = False,
) -> None:
    """List the datasets: rows, shape, whether cached, size on disk."""
    if context.invoked_subcommand is not None:
        return
    from workbench.datasets import list_datasets

    found = list_datasets()
    if as_json:
        typer.echo(json.dumps(found, indent=2))
        return
    heads = ("NAME", "TRAIN", "VALIDATION", "TEST", "SHAPE", "CACHED", "SIZE")
    rows = [heads, *(_cells(row) for row in found)]
    widths = [max(len(row[i]) for row in rows) for i in range(len(heads))]
    for row in rows:
        line = "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        typer.echo(line.rstrip())


@app.command()
def fetch(name: Annotated[str, typer.Argument(help="As `workbench data` lists it.")]) -> None:
    """Fetch a dataset, or verify the cached copy; print its fingerprint and where it lies."""
    from workbench import datasets

    data = datasets.fetch(name)
    (row,) = (row for row in datasets.list_datasets() if row["name"] == name)
    typer.echo(f"{data!r}\nfingerprint {data.fingerprint}")
    typer.echo(f"path        {row['path'] or 'none: there is nothing to fetch'}")


def _cells(row: JSON) -> tuple[str, ...]:
    cached = {True: "yes", False: "no", None: "-"}[row["cached"]]
    size = f"{row['bytes'] / 1e6:,.0f} MB" if row["bytes"] else "-"
    counts = (f"{row[key]:,}" for key in ("train", "validation", "test"))
    return (row["name"], *counts, "×".join(map(str, row["shape"])), cached, size)
