"""One progress line for everything that takes longer than two seconds.

In a terminal it is a bar on stderr; in a notebook one output that is updated in place, at most four
times a second, and stays as text when the notebook is saved; headless there is none.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from typing import Any

from tqdm import tqdm

__all__ = ["in_notebook", "is_headless", "is_live", "progress"]

_INTERVAL = 0.25  # seconds between two updates
_PATIENCE = 2.0  # seconds that need no bar


def is_headless() -> bool:
    """Return whether nobody watches: `WORKBENCH_HEADLESS=1`, as `workbench run` sets it."""
    return os.environ.get("WORKBENCH_HEADLESS") == "1"


def in_notebook() -> bool:
    """Return whether this process is a Jupyter kernel."""
    ipython = sys.modules.get("IPython")
    shell = ipython.get_ipython() if ipython else None
    return shell is not None and hasattr(shell, "kernel")


def is_live() -> bool:
    """Return whether somebody watches in a notebook."""
    return in_notebook() and not is_headless()


def progress(total: int, label: str, *, unit: str = "it") -> tqdm[Any]:
    """Return a bar to `update(n)` and `close()`, or to use in a `with`.

    Args:
        total: how many units there are to do.
        label: what is going on, in a word or three.
        unit: what one unit is; `"B"` is shown as kB and MB.
    """
    options: dict[str, Any] = {
        "total": total,
        "desc": label,
        "unit": unit,
        "unit_scale": unit == "B",
        "mininterval": _INTERVAL,
        "delay": _PATIENCE,
        "dynamic_ncols": True,
    }
    if is_live():
        return _NotebookBar(gui=True, **options)
    return tqdm(disable=is_headless() or not sys.stderr.isatty(), file=sys.stderr, **options)


class _NotebookBar(tqdm):  # type: ignore[type-arg]  # tqdm is generic only in its stubs
    """A bar whose line is one display, updated in place, so that the saved notebook keeps it."""

    _update: Callable[[Any], None] | None = None

    def display(self, msg: str | None = None, pos: int | None = None) -> None:
        from IPython.display import display

        line = _Line(msg or str(self))
        if self._update is None:
            handle = display(line, display_id=True)
            self._update = handle.update
        else:
            self._update(line)

    def close(self) -> None:
        if not self.disable and self._update is not None:
            self.display()
        self.disable = True


class _Line:
    """A line of plain text, shown without quotes."""

    def __init__(self, text: str) -> None:
        self._text = text

    def __repr__(self) -> str:
        return self._text
