"""`workbench models`, `show`, `promote`, `retire`, `export` and their like: what was published."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from workbench.registry import ModelVersion
    from workbench.types import JSON

__all__ = ["register"]

As_JSON = Annotated[bool, typer.Option("--json", help="Print JSON.")]
Ref = Annotated[str, typer.Argument(metavar="NAME[@VERSION|@ALIAS]", help="A published model.")]
Exact = Annotated[str, typer.Argument(metavar="NAME@VERSION", help="A published version.")]
Why = Annotated[str, typer.Option("--why", metavar="TEXT", help="The reason, for the log.")]


def register(app: typer.Typer) -> None:
    """Add the commands of published models."""
    app.command("models")(_models)
    app.command("show")(_show)
    app.command("promote")(_promote)
    app.command("demote")(_demote)
    app.command("rollback")(_rollback)
    app.command("retire")(_retire)
    app.command("restore")(_restore)
    app.command("export")(_export)
    app.command("import")(_import)


def _models(
    everything: Annotated[bool, typer.Option("--all", help="Also what was retired.")] = False,
    as_json: As_JSON = False,
) -> None:
    """List every published model version, its figures and what it is now."""
    from workbench import registry

    told = [(version, _standing(version)) for version in registry.list_models()]
    shown = [(version, now) for version, now in told if everything or not now["retired"]]
    if as_json:
        typer.echo(json.dumps([{**version.card, **now} for version, now in shown], indent=2))
        return
    for version, now in shown:
        figures = [f"{name} {value:.4g}" for name, value in version.metrics.items()]
        words = [*now["aliases"], *(["retired"] if now["retired"] else [])]
        moment = version.record["created"][:16]
        typer.echo("  ".join((version.ref, moment, *figures, ", ".join(words))).rstrip())
    if not told:
        typer.echo("no model was published yet: wb.publish(model, 'name')", err=True)
    elif len(shown) < len(told):
        typer.echo(f"{len(told) - len(shown)} retired: workbench models --all", err=True)


def _standing(version: ModelVersion) -> JSON:
    """Return what a version is now; where its model's log is damaged, say so and nothing else."""
    from workbench.errors import TamperedError

    try:
        return {"aliases": list(version.aliases), "retired": version.retired}
    except TamperedError as error:
        typer.echo(f"warning: {error}", err=True)
        return {"aliases": [], "retired": False}


def _show(ref: Ref, as_json: As_JSON = False) -> None:
    """Show one model version: what it is, takes and answers, its figures and where it came from."""
    from workbench import registry

    version = registry.version(ref)
    log = [
        line
        for line in registry.history(version.name)
        if version.version in (line["version"], line.get("before"))
    ]
    if as_json:
        now = {"aliases": list(version.aliases), "retired": version.retired, "log": log}
        typer.echo(json.dumps({**version.record, **now}, indent=2))
        return
    rows = {**_told(version), **_origin(version.lineage), "folder": str(version.folder)}
    width = max(map(len, rows))
    for name, value in rows.items():
        typer.echo(f"{name:<{width}}  {value}")
    for line in log:
        typer.echo(_said(line))


def _promote(
    ref: Ref,
    alias: Annotated[str, typer.Argument(help="A word such as champion.")],
    why: Why = "",
) -> None:
    """Let an alias be on a version from now on, as in `workbench promote digits@3 champion`."""
    from workbench import registry

    version = registry.promote(ref, alias, why=why)
    typer.echo(f"{version.name}@{alias} is {version.ref}")


def _demote(
    ref: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="An alias of a model.")],
    why: Why = "",
) -> None:
    """Take an alias away, so that it means no version any more."""
    from workbench import registry

    registry.demote(ref, why=why)
    typer.echo(f"{ref} is no alias any more")


def _rollback(
    ref: Annotated[str, typer.Argument(metavar="NAME@ALIAS", help="An alias of a model.")],
    why: Why = "",
) -> None:
    """Let an alias be on the version again that it was on before."""
    from workbench import registry

    typer.echo(f"{ref} is {registry.rollback(ref, why=why).ref} again")


def _retire(ref: Exact, why: Why = "") -> None:
    """Take a version out of use: not the newest any more, nor promoted, nor served; it stays."""
    from workbench import registry

    version = registry.retire(ref, why=why)
    typer.echo(f"{version.ref} is retired; workbench restore {version.ref} undoes it")


def _restore(ref: Exact, why: Why = "") -> None:
    """Take a retired version into use again."""
    from workbench import registry

    typer.echo(f"{registry.restore(ref, why=why).ref} is in use")


def _export(
    ref: Ref,
    file: Annotated[
        Path | None, typer.Argument(help="The file, or a folder for it; by default NAME@3.zip.")
    ] = None,
) -> None:
    """Write a version into one file, for `workbench import` elsewhere; print where it is."""
    from workbench import registry

    typer.echo(registry.export_version(ref, file))


def _import(
    file: Annotated[Path, typer.Argument(help="A file that workbench export wrote.")],
) -> None:
    """Take a version out of a file, after all of it was checked; print what it is called here."""
    from workbench import registry

    typer.echo(registry.import_version(file).ref)


def _told(version: ModelVersion) -> dict[str, str]:
    """Return what a version is, takes and answers, line by line."""
    record, reference = version.record, version.record["reference"]
    preprocessing, signature = version.preprocessing, record["signature"]
    classes = ", ".join(preprocessing.classes) if preprocessing else ""
    none = "none: a regression" if preprocessing else "none: called by the names of its inputs"
    split = "validation" if reference and reference.get("rows_of") == "validation" else "training"
    rows = f"{reference['rows']:,} {split} rows, to measure drift against" if reference else ""
    return {
        "version": version.ref,
        "aliases": ", ".join(version.aliases) or "none",
        **({"retired": "yes: neither promoted nor served"} if version.retired else {}),
        "created": record["created"],
        "kept as": _kept_as(record["architecture"]),
        "architecture": json.dumps(record["architecture"]),
        "parameters": f"{record['parameters']:,}",
        "takes": _specs(signature["inputs"]),
        "answers": _specs(signature["outputs"]),
        "classes": classes or none,
        **{name: f"{value:.6g}" for name, value in version.metrics.items()},
        "reference": rows or "none: it was not trained here",
    }


def _origin(lineage: JSON) -> dict[str, str]:
    """Return where a version comes from, line by line; older versions say less."""
    code, origin, cell = (lineage.get(key) or {} for key in ("code", "origin", "cell"))
    where = f"cell {cell['execution_count']} of {cell['notebook'] or 'a notebook'}" if cell else ""
    commit = code.get("commit", "")[:12] + (", with changes" if code.get("dirty") else "")
    optional = {
        "cell": where,
        "run's parameters": json.dumps(lineage.get("parameters")) if lineage["run"] else "",
        "code": f"commit {commit}" if code else "",
        "parent": lineage.get("parent") or "",
        "imported": f"{origin['ref']}, by {origin['by']}" if origin else "",
    }
    return {
        "run": lineage["run"] or "none: published outside a run",
        "data": json.dumps(lineage["data"]),
        **{name: value for name, value in optional.items() if value},
    }


def _said(line: JSON) -> str:
    """Return a line of a model's log as one reads it."""
    before = line.get("before")
    alias = f" {line['alias']}" if "alias" in line else ""
    instead = f" instead of {before}" if before not in (None, line["version"]) else ""
    event = "rollback" if line.get("rollback") else line["event"]
    what = f"{event} {line['version']}{alias}{instead}"
    return "  ".join(("log", line["when"][:16], what, line["who"], line["why"])).rstrip()


def _specs(specs: list[dict[str, Any]]) -> str:
    if len(specs) == 1:
        return f"{specs[0]['datatype']} {specs[0]['shape']}"
    return ", ".join(f"{spec['name']} {spec['datatype']} {spec['shape']}" for spec in specs)


def _kept_as(architecture: dict[str, Any]) -> str:
    if "builder" in architecture:
        return f"builder {architecture['builder']}"
    if "class" in architecture:
        return f"class {architecture['class']}, importable where its module is"
    return "program: can be served anywhere, not trained"
