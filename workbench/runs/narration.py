"""How runs tell where they are, on stderr: live where somebody watches, else a line at a time."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from types import TracebackType
from typing import TYPE_CHECKING, Any

from workbench.progress import in_notebook, is_headless, progress
from workbench.types import JSON

if TYPE_CHECKING:
    from rich.table import Table

    from workbench.runs.records import Run

__all__ = ["Narrator", "SweepNarrator"]

_SHOWN = 20  # runs of a live table: those that go on, and the last that have ended
_FIGURES = 4  # metrics of a run in it
_OVER = ("done", "failed", "killed", "timed out")  # an interrupted one may go on


class Narrator:
    """Tells about the cells of one run, labelled with their headings.

    Args:
        cells: of the record, one a code cell, in order.
        title: of the whole.
    """

    def __init__(self, cells: list[JSON], title: str) -> None:
        self._cells, self._title = cells, title
        watched = sys.stderr.isatty() or in_notebook()
        self._lines = not watched and not is_headless()
        self._bar: Any = progress(len(cells), title, unit="cell") if watched else None

    def __call__(self, cell: JSON) -> None:
        """Tell about a cell that starts or ends."""
        label = cell["heading"] or self._title
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


class SweepNarrator:
    """Tells about the runs of one sweep: a live table, a bar in a notebook, else a line a run.

    Args:
        title: of the whole.
        points: the values of each run, in order.
    """

    def __init__(self, title: str, points: Sequence[JSON]) -> None:
        self._title, self._points = title, points
        self._runs: dict[int, Run] = {}
        self._ended: set[int] = set()
        self._going: set[int] = set()
        self._live: Any = None
        self._bar: Any = None
        self._lines = False

    def __call__(self, number: int, run: Run, *, going: bool) -> None:
        """Tell about a run that starts, is looked at on its way, or ends."""
        over = not going and run.state in _OVER
        news = over and number not in self._ended
        self._runs.pop(number, None)
        self._runs[number] = run  # the newest last
        self._going = self._going | {number} if going else self._going - {number}
        if over:
            self._ended.add(number)
        if self._live is not None:
            self._live.update(self._table(), refresh=True)
        elif self._bar is not None:
            self._bar.update(news)
        elif self._lines and news:
            place = f"[{len(self._ended)}/{len(self._points)}]"
            print(f"{place} {_values(self._points[number])}  {run!r}", file=sys.stderr, flush=True)

    def _table(self) -> Table:
        from rich.table import Table

        title = f"{self._title}: {len(self._ended)} of {len(self._points)} ended"
        table = Table("run", *self._points[0], "state", "seconds", "metrics", title=title)
        for number, run in [*self._runs.items()][-_SHOWN:]:
            values = [_short(value) for value in self._points[number].values()]
            seconds = "" if run.seconds is None else f"{run.seconds:.1f}"
            figures = [f"{name} {value:.4g}" for name, value in run.metrics.items()]
            shown = ", ".join(figures[:_FIGURES])
            state = "running" if number in self._going else run.state
            table.add_row(str(number + 1), *values, state, seconds, shown)
        return table

    def __enter__(self) -> SweepNarrator:
        if sys.stderr.isatty() and not is_headless():
            from rich.console import Console
            from rich.live import Live

            self._live = Live(console=Console(stderr=True), auto_refresh=False)
            self._live.start()
            self._live.update(self._table(), refresh=True)
        elif in_notebook():
            self._bar = progress(len(self._points), "sweep", unit="run")
        else:
            self._lines = not is_headless()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if self._live is not None:
            self._live.stop()
        if self._bar is not None:
            self._bar.close()


def _short(value: Any) -> str:
    return f"{value:.6g}" if isinstance(value, float) else f"{value}"


def _values(point: JSON) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in point.items())
