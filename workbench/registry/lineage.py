"""Where a version comes from: the run or the cell, the data, the code, what it was made with."""

from __future__ import annotations

import getpass
import os
import platform
import subprocess
import sys

import torch
from torch import nn

import workbench
from workbench import journal
from workbench.attached import attached
from workbench.home import read_json
from workbench.progress import in_notebook
from workbench.types import JSON

__all__ = ["lineage_of", "user"]

_PATIENCE = 10  # seconds; a repository on a sleeping disk must not hold up a notebook


def lineage_of(model: nn.Module, place: int) -> JSON:
    """Return where a model comes from.

    Args:
        model: as it is published.
        place: its number among what this process publishes; kept of a run.
    """
    memory, run = attached(model), journal.run_id()
    settings = memory.training.settings if memory.training else None
    known = _run_record() if run else {}
    return {
        "run": run,
        **({"publish": place} if run else {}),
        "cell": None if run else _cell(),
        "parameters": known.get("parameters"),
        "data": {"name": settings.data, "fingerprint": settings.fingerprint} if settings else None,
        "code": known["environment"].get("git") if "environment" in known else _code(),
        "parent": memory.version,
        "workbench": workbench.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }


def user() -> str:
    """Return who this is, as `user@host`."""
    try:
        name = getpass.getuser()
    except (KeyError, OSError, ImportError):  # in a container, a user may have no name
        name = str(os.getuid()) if hasattr(os, "getuid") else "unknown"
    return f"{name}@{platform.node() or 'unknown'}"


def _run_record() -> JSON:
    """Return what the current run says of itself, secrets being struck out; or nothing."""
    folder = journal.current_run()
    try:
        found: JSON = read_json(folder / "run.json") if folder else {}
    except (OSError, ValueError):  # a folder that somebody else has set up
        return {}
    return found


def _cell() -> JSON | None:
    """Return the cell that is executed, and its notebook's path where the kernel was told it."""
    if not in_notebook():
        return None
    shell = sys.modules["IPython"].get_ipython()
    path = os.environ.get("JPY_SESSION_NAME") or shell.user_ns.get("__vsc_ipynb_file__") or ""
    notebook = str(path) if str(path).endswith(".ipynb") else None
    history = (
        shell.history_manager
    )  # its counter runs ahead of the cell in some versions of IPython
    return {"notebook": notebook, "execution_count": len(history.input_hist_raw) - 1}


def _code() -> JSON | None:
    """Return the commit that this folder is at, and whether something differs; None outside git."""
    command = ["git", "--no-optional-locks", "status", "--porcelain=v2", "--branch"]
    try:
        done = subprocess.run(
            command, capture_output=True, text=True, errors="replace", timeout=_PATIENCE, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    said = [line for line in done.stdout.splitlines() if line.startswith("# ")]
    commit = next((line.split()[2] for line in said if line.startswith("# branch.oid")), "")
    dirty = len(done.stdout.splitlines()) > len(said)
    return {"commit": commit, "dirty": dirty} if commit.isalnum() else None
