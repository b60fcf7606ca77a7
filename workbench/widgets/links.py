"""`served_root`: the folder that Jupyter serves, below which its pages can open a notebook."""

from __future__ import annotations

import os
from functools import cache
from pathlib import Path

from jupyter_core.paths import jupyter_runtime_dir

from workbench.home import read_json

__all__ = ["served_root"]


@cache
def served_root() -> str | None:
    """Return the folder that the server of this kernel serves, or None where no server started it.

    JupyterLab tells its pages what it is, Notebook 7 does not: both write it down for others.
    """
    server = os.environ.get("JPY_PARENT_PID")
    told = Path(jupyter_runtime_dir()) / f"jpserver-{server}.json"
    return str(read_json(told)["root_dir"]) if told.exists() else None
