"""A notebook as it is read: checked, its code cells known by number and heading.

The file is only read; what a run changes is a copy in memory.
"""

from __future__ import annotations

import re
import warnings
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from workbench.errors import RequestError

__all__ = ["code_cells", "has_tag", "headings", "read_notebook", "tagged"]

_HEADING = re.compile(r"^#{1,6}\s+(.+?)\s*#*$", re.MULTILINE)
_FENCED = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)


def read_notebook(path: Path) -> Any:
    """Return the notebook at `path` in the current format, every cell with an id.

    Raises:
        RequestError: it is missing, is not JSON, not a notebook, or not one of Python.
    """
    import nbformat  # takes a second, and lists of runs have no use for it

    if not path.is_file():
        raise RequestError(f"no notebook {str(path)!r}: {_nearest(path)}")
    try:
        text = path.read_text(encoding="utf-8")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of ids that are missing or double, and are mended
            notebook = nbformat.v4.upgrade(nbformat.reads(text, as_version=4))
            nbformat.validate(notebook)
    except Exception as error:  # nbformat has no root error, and names none of them in its promise
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(
            f"{path} is not a notebook: {reason}. Pass an .ipynb file that Jupyter opens."
        ) from None
    language = notebook.metadata.get("kernelspec", {}).get("language", "python")
    if language != "python":
        raise RequestError(f"{path} is a notebook of {language!r}; runs are of Python notebooks")
    return notebook


def code_cells(notebook: Any) -> list[int]:
    """Return the places of the code cells among the notebook's cells, from 0."""
    return [i for i, cell in enumerate(notebook.cells) if cell.cell_type == "code"]


def headings(notebook: Any) -> list[str | None]:
    """Return for every cell the last markdown heading at or above it, None before the first."""
    found: list[str | None] = []
    current = None
    for cell in notebook.cells:
        if cell.cell_type == "markdown":
            current = ([current, *_HEADING.findall(_FENCED.sub("", cell.source))])[-1]
        found.append(current)
    return found


def has_tag(cell: Any, tag: str) -> bool:
    """Return whether the cell carries the tag."""
    return tag in cell.metadata.get("tags", [])


def tagged(notebook: Any, tag: str) -> int | None:
    """Return the place of the first code cell with the tag, or None."""
    places = (i for i in code_cells(notebook) if has_tag(notebook.cells[i], tag))
    return next(places, None)


def _nearest(path: Path) -> str:
    """Return what to do about a file that is not there."""
    if path.is_dir():
        return "that is a folder; pass a notebook in it"
    if not path.parent.is_dir():
        return f"there is no folder {str(path.parent)!r}"
    names = sorted(file.name for file in path.parent.glob("*.ipynb"))
    near = get_close_matches(path.name, names, n=1)
    return f"did you mean {path.parent / near[0]}?" if near else "pass the path of an .ipynb file"
