"""Notebooks as small as a test needs them."""

from __future__ import annotations

from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

__all__ = ["write_notebook"]


def write_notebook(path: Path, *cells: str, parameters: str | None = None) -> Path:
    """Write code cells, and markdown where a text begins with `#` and a space, in this order."""
    made = [new_markdown_cell(c) if c.startswith("# ") else new_code_cell(c) for c in cells]
    if parameters is not None:
        made.insert(0, new_code_cell(parameters, metadata={"tags": ["parameters"]}))
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=made), path)
    return path
