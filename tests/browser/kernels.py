"""Kernels of other versions than the environment's: the reach of a click depends on them."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

__all__ = ["VERSIONS", "kernel_folder"]

VERSIONS = ("6.31", "7.3", "7.4")
_CACHE = Path(__file__).parent / ".kernels"


def kernel_folder(version: str) -> Path:
    """Return a folder with that ipykernel and nothing else, filled once."""
    folder = _CACHE / version
    if not folder.exists():
        _CACHE.mkdir(exist_ok=True)
        (_CACHE / ".gitignore").write_text("*\n")
        with tempfile.TemporaryDirectory(dir=_CACHE) as made:
            install = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps"]
            target = Path(made, version)
            subprocess.run([*install, f"--target={target}", f"ipykernel=={version}.*"], check=True)
            if not folder.exists():  # another process of the tests may have been faster
                target.rename(folder)
    return folder
