"""What a run ran in, for the record: packages, commit, processor; and the kernel's variables."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import psutil

from workbench.home import data_home, home
from workbench.types import JSON

__all__ = ["environment", "kernel_variables"]

_PACKAGES = (
    "maas-workbench",
    "torch",
    "numpy",
    "pandas",
    "scikit-learn",
    "matplotlib",
    "safetensors",
    "Pillow",
    "papermill",
    "nbclient",
    "ipykernel",
    "ipython",
)


def kernel_variables(folder: Path) -> dict[str, str]:
    """Return the environment of a run's kernel: this process's, the run, and a fixed thread count.

    The count is the number of physical cores unless the user has set `OMP_NUM_THREADS`, whatever
    else the machine is doing, since numbers depend on it.

    Args:
        folder: of the run.
    """
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    defaults = {
        "OMP_NUM_THREADS": str(cores),
        "PYTHONHASHSEED": "0",  # or the order of a set would differ from run to run
    }
    fixed = {
        "WORKBENCH_RUN": str(folder),
        "WORKBENCH_HEADLESS": "1",
        "WORKBENCH_HOME": str(home()),  # given relative, it would be another one in the
        "WORKBENCH_DATA": str(data_home()),  # notebook's folder
    }
    return {**defaults, **os.environ, **fixed}


def environment(folder: Path, threads: str) -> JSON:
    """Return what can be known before a run starts.

    Args:
        folder: of the notebook.
        threads: the kernel's `OMP_NUM_THREADS`.
    """
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": {name: version for name in _PACKAGES if (version := _version(name))},
        "git": _git(folder),
        "threads": int(threads) if threads.isdecimal() else threads,
        "hardware": {"machine": platform.machine(), "cores": os.cpu_count()},
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(folder: Path) -> JSON | None:
    """Return the commit that `folder` is at and whether it is dirty; None outside of git."""
    commit = _git_says(folder, "rev-parse", "HEAD")
    if not commit:
        return None
    return {"commit": commit, "dirty": bool(_git_says(folder, "status", "--porcelain"))}


def _git_says(folder: Path, *command: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), *command],
            capture_output=True,
            text=True,
            timeout=10,  # seconds; a repository on a sleeping disk must not hold up a run
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
