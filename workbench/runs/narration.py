"""How a run tells where it is, on stderr: a bar where somebody watches, else one line a cell."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any

from workbench.progress import in_notebook, is_headless, progress
from workbench.types import JSON

__all__ = ["Narrator"]


class Narrator:
    """Tells about the cells of one run, labelled with their headings.

    Args:
        cells: of the record, one a code cell, in order.
        title: of the whole.
    """

    def __init__(self, cells: list[JSON], title: str) -> None:
        self._cells = cells
        watched = sys.stderr.isatty() or in_notebook()
        self._lines = not watched and not is_headless()
        self._bar: Any = progress(len(cells), title, unit="cell") if watched else None

    def __call__(self, cell: JSON) -> None:
        """Tell about a cell that starts or ends."""
        label = cell["heading"] or "(no heading)"
        if self._bar is not None:
            self._bar.set_description(label, refresh=False)
            self._bar.update(cell["seconds"] is not None)
        elif self._lines and cell["seconds"] is not None:
            number, total = 1 + self._cells.index(cell), len(self._cells)
            ended = "" if cell["state"] == "done" else " and did not end well"
            place = f"[{number:{len(str(total))}}/{total}]"
            print(f"{place} {label}  {cell['seconds']:.1f} s{ended}", file=sys.stderr, flush=True)

    def __enter__(self) -> Narrator:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._bar is not None:
            self._bar.close()
