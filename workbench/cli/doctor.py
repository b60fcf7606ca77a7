"""`workbench doctor`: what this machine is, how it will train, and what is broken here."""

from __future__ import annotations

import json
import os
import platform
import shutil
import tempfile
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from workbench.types import JSON

__all__ = ["register"]

_ROOM = 500e6  # bytes: CIFAR-10, its archive and its decoded arrays side by side


def register(app: typer.Typer) -> None:
    """Add the command to `app`."""
    app.command("doctor")(_doctor)


def _doctor(
    fresh: Annotated[bool, typer.Option("--fresh", help="Time the probe again.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Say what this machine is, how it will train, what is broken; exit 4 where something is."""
    found = _examined(fresh)
    if as_json:
        typer.echo(json.dumps(found, indent=2, ensure_ascii=False))
    else:
        _print(found)
    if found["problems"]:
        raise typer.Exit(4)


def _examined(fresh: bool) -> JSON:
    import psutil

    import workbench

    homes, problems = _homes()
    machine, broken = _machine(fresh, writable=homes["WORKBENCH_DATA"]["writable"])
    memory = psutil.virtual_memory()
    return {
        "workbench": workbench.__version__,
        "python": platform.python_version(),
        "system": platform.platform(),
        **machine,
        "memory": {"bytes": memory.total, "available": memory.available},
        "homes": homes,
        "datasets": _fetched(),
        "tools": {"compiler": _compiler(), "npm": shutil.which("npm")},
        "onnxruntime": _onnxruntime(),
        "problems": [*problems, *broken],
    }


def _homes() -> tuple[JSON, list[str]]:
    from workbench.home import data_home, home

    found, problems = {}, []
    for variable, path in (("WORKBENCH_HOME", home()), ("WORKBENCH_DATA", data_home())):
        there = next(folder for folder in (path, *path.parents) if os.path.lexists(folder))
        otherwise = f"or set {variable} to another folder."
        why = _unwritable(there)
        free = None if why else shutil.disk_usage(there).free
        found[variable] = {"path": str(path), "writable": why is None, "free": free}
        if why:
            problems.append(f"{variable} {path} is not writable ({why}): mend {there}, {otherwise}")
        elif free is not None and free < _ROOM:
            few = f"{free / 1e6:,.0f} MB free, expected {_ROOM / 1e6:,.0f}"
            problems.append(f"{variable} {path} has {few}: make room there, {otherwise}")
    return found, problems


def _unwritable(folder: Path) -> str | None:
    """Return why nothing can be written below `folder`, by trying; None where it can."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return None
    except OSError as error:
        return error.strerror or str(error)


def _machine(fresh: bool, *, writable: bool) -> tuple[JSON, list[str]]:
    """Return what torch knows and the probe says, or why there is no torch."""
    try:
        import torch

        from workbench.devices import hardware
        from workbench.probing import probe
    except (ImportError, OSError) as error:  # OSError: a library of torch that does not load
        broken = f"torch cannot be imported ({error}): install it again by `pip install torch`"
        return {"torch": None, "hardware": None, "probe": None}, [broken]
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        timed = asdict(probe(fresh=fresh))
    # An unwritable home is a problem already, and the probe says no more than that.
    told = [str(warning.message) for warning in said] if writable else []
    return {"torch": str(torch.__version__), "hardware": hardware(), "probe": timed}, told


def _fetched() -> list[JSON]:
    from workbench.datasets import list_datasets

    try:
        return [row for row in list_datasets() if row["cached"]]
    except PermissionError:  # of a folder that `_homes` has told of
        return []


def _compiler() -> str | None:
    try:
        from workbench.devices import cpp_compiler
    except (ImportError, OSError):  # as `_machine` has told of
        return None
    return cpp_compiler()


def _onnxruntime() -> str | None:
    """Return the version of ONNX Runtime, where all that a service needs for it is installed."""
    from importlib.metadata import PackageNotFoundError, version

    try:
        return [version(name) for name in ("onnx", "onnxscript", "onnxruntime")][-1]
    except PackageNotFoundError:
        return None


def _print(found: JSON) -> None:
    rows = _rows(found)
    width = max(map(len, rows))
    for name, value in rows.items():
        typer.echo(f"{name:<{width}}  {value}")
    if found["probe"]:
        typer.echo(f"\nHow it will train: {found['probe']['sentence']}")
        for configuration, seconds in sorted(found["probe"]["seconds"].items(), key=lambda x: x[1]):
            typer.echo(f"  {seconds * 1e3:8.1f} ms a step  {configuration}")
    typer.echo("" if found["problems"] else "\nno problem found")
    for problem in found["problems"]:
        typer.echo(f"problem: {problem}")


def _rows(found: JSON) -> dict[str, str]:
    hardware, memory, tools = found["hardware"], found["memory"], found["tools"]
    rows = {key: found[key] or "cannot be imported" for key in ("workbench", "python", "torch")}
    rows["system"] = found["system"]
    if hardware:
        rows["processor"] = f"{hardware['processor']} ({hardware['machine']})"
        rows["instruction set"] = hardware["instruction_set"]
        rows["cores"] = f"{hardware['cores']}, of which torch uses {hardware['threads']}"
        rows["GPUs"] = ", ".join(hardware["gpus"]) or "none that torch can use"
    rows["memory"] = f"{_gigabytes(memory['bytes'])}, {_gigabytes(memory['available'])} available"
    for variable, place in found["homes"].items():
        state = f"{_gigabytes(place['free'])} free" if place["writable"] else "not writable"
        rows[variable] = f"{place['path']} ({state})"
    cached = [f"{row['name']} ({row['bytes'] / 1e6:,.0f} MB)" for row in found["datasets"]]
    rows["datasets fetched"] = ", ".join(cached) or "none"
    rows["C++ compiler"] = tools["compiler"] or "none: torch.compile needs one on the CPU"
    rows["ONNX Runtime"] = found["onnxruntime"] or (
        "none: torch alone answers; pip install 'maas-workbench[export]'"
    )
    rows["npm"] = tools["npm"] or "none: datasets come from their official sites alone"
    return rows


def _gigabytes(count: float) -> str:
    return f"{count / 1e9:,.1f} GB"
