"""`workbench models` and `workbench show`: what was published."""

from __future__ import annotations

import json
from typing import Annotated, Any

import typer

__all__ = ["register"]


def register(app: typer.Typer) -> None:
    """Add the commands of published models."""
    app.command("models")(_models)
    app.command("show")(_show)


def _models(as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False) -> None:
    """List every published model version."""
    from workbench import registry

    cards = [version.card for version in registry.list_models()]
    if as_json:
        typer.echo(json.dumps(cards, indent=2))
        return
    for card in cards:
        figures = "  ".join(f"{name} {value:.4g}" for name, value in card["metrics"].items())
        typer.echo(f"{card['name']}@{card['version']}  {card['created'][:16]}  {figures}")
    if not cards:
        typer.echo("no model was published yet: wb.publish(model, 'name')", err=True)


def _show(
    ref: Annotated[str, typer.Argument(metavar="NAME[@VERSION]")],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Show one model version: what it is, takes and answers, its figures and where it came from."""
    from workbench import registry

    version = registry.version(ref)
    if as_json:
        typer.echo(json.dumps(version.record, indent=2))
        return
    record = version.record
    specs = {key: record["signature"][key][0] for key in ("inputs", "outputs")}
    takes, answers = (f"{s['datatype']} {s['shape']}" for s in specs.values())
    rows = {
        "version": version.ref,
        "created": record["created"],
        "kept as": _kept_as(record["architecture"]),
        "architecture": json.dumps(record["architecture"]),
        "parameters": f"{record['parameters']:,}",
        "takes": takes,
        "answers": answers,
        "classes": ", ".join(record["preprocessing"]["classes"]) or "none: a regression",
        **{name: f"{value:.6g}" for name, value in version.metrics.items()},
        "run": version.lineage["run"] or "none: published outside a run",
        "data": json.dumps(version.lineage["data"]),
        "folder": str(version.folder),
    }
    width = max(map(len, rows))
    for name, value in rows.items():
        typer.echo(f"{name:<{width}}  {value}")


def _kept_as(architecture: dict[str, Any]) -> str:
    if "builder" in architecture:
        return f"builder {architecture['builder']}"
    if "class" in architecture:
        return f"class {architecture['class']}, importable where its module is"
    return "program: can be served anywhere, not trained"
