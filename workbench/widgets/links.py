"""What Jupyter's pages can open: the folder that its server serves, and copies of others in it."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from jupyter_core.paths import jupyter_runtime_dir

from workbench.home import read_json

__all__ = ["folder_of_copies", "served_root"]


@cache
def served_root() -> str | None:
    """Return the folder that the server of this kernel serves, or None where no server started it.

    JupyterLab tells its pages what it is, Notebook 7 does not: both write it down for others.
    """
    server = os.environ.get("JPY_PARENT_PID")
    told = Path(jupyter_runtime_dir()) / f"jpserver-{server}.json"
    return str(read_json(told)["root_dir"]) if told.exists() else None


def folder_of_copies() -> Path:
    """Return where copies of runs' notebooks go: beside the kernel's own, if that is served."""
    root, here = served_root(), Path.cwd()
    return (here if root is None or here.is_relative_to(root) else Path(root)) / "runs"
