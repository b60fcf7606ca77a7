"""`RunsView`: the runs of this home to look through, to compare, and to go on with."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import traitlets

from workbench.errors import RequestError, UnknownNameError
from workbench.pictures import Picture
from workbench.progress import is_live
from workbench.registry import promote
from workbench.runs import Run, RunList
from workbench.runs.background import start, stop
from workbench.runs.queries import check_known, field_of, pick
from workbench.runs.reports import report
from workbench.runs.spaces import split
from workbench.types import JSON
from workbench.widgets.faces import action, checked_place, css, javascript
from workbench.widgets.links import served_root
from workbench.widgets.run_curves import CurveShelf
from workbench.widgets.run_details import column_names, details, usual_columns, values_of
from workbench.widgets.run_faces import RunFace
from workbench.widgets.run_parallels import axes_of, conditions_within, parallels

__all__ = ["RunsView", "runs"]

_PAGE = 20
_DRAWN = 200  # runs; the lines of more are not told apart
_STILL, _NOTEBOOKS = 12, 200
_LARGEST = 5_000_000  # bytes of a report that is shown in place
_TABS = ("parallels", "curves", "run")
_FIELDS = ("id", "state", "notebook", "started", "seconds")


def runs() -> RunsView | Picture:
    """Return a table of the runs of this home that follows them; a picture where no page lives."""
    view = RunsView()
    return view if is_live() else view.picture()


class RunsView(RunFace):
    """Shows runs page by page, found and sorted by what their records say; some beside each other.

    What takes its time, which is to verify a run or to go on with one, happens in the background.
    """

    _esm = javascript(
        *("faces", "links", "charts", "plots", "rows"),
        *("run_lines", "run_parallels", "run_curves", "run_details", "runs"),
    )
    _css = css("charts", "run_lines", "runs")

    report_page = traitlets.Unicode("").tag(
        sync=True
    )  # a page, apart from what is told each second

    def __init__(self) -> None:
        self._where = self._notebook = self._state = ""
        self._by, self._down = "started", True
        self._page, self._tab = 0, "parallels"
        self._picked: list[str] = []
        self._opened = self._colour = self._note = self._refused = ""
        self._columns: list[str] | None = None
        self._shelf = CurveShelf()
        self._found_of: tuple[Any, ...] = ()
        self._notebooks: list[str] = []
        super().__init__()
        self.refresh()

    @action
    def find(self, where: str, notebook: str = "", state: str = "") -> None:
        """Show the runs for which all conditions hold.

        Args:
            where: as `workbench runs --where` takes them, with commas between them.
            notebook: the one that they are of; empty for any.
            state: how they stand; empty for any.
        """
        try:
            check_known(self._runs, _conditions(where))
        except RequestError as error:  # which stays beside the field, until that is another one
            self._refused = str(error)
            return
        self._refused = ""
        self._where, self._notebook, self._state, self._page = where, notebook, state, 0

    @action
    def narrow(self, axis: str, low: float, high: float) -> None:
        """Show those of the runs found that cross an axis between two places, from 0 to 1.

        Where some are selected, those of them that do so stay selected.
        """
        more = conditions_within(axes_of(self._drawn()), axis, low, high)
        left = pick(RunList([self.run_of(run) for run in self._picked]), more)
        sides = tuple(text[: len(axis) + 2] for text in more)  # that were narrowed before, perhaps
        others = [text for text in _conditions(self._where) if not text.startswith(sides)]
        self.find(", ".join([*others, *more]), self._notebook, self._state)
        self._picked = [run.id for run in left]

    @action
    def order(self, by: str, down: bool) -> None:
        """Sort by a field, a parameter or a metric, from the largest down or from the least up."""
        pick(self._found(), [], by)
        self._by, self._down, self._page = by, down, 0

    @action
    def turn(self, page: int) -> None:
        """Show a page of the runs that were found, counted from 0."""
        self._page = checked_place("page", page, self._pages())

    @action
    def select(self, runs: Sequence[str]) -> None:
        """Compare these runs with each other, in this order; none for all that were found."""
        for run in runs:
            self.run_of(run)
        self._picked = list(dict.fromkeys(runs))

    @action
    def tick(self, runs: Sequence[str], on: bool) -> None:
        """Add runs to those that are compared, or take them from these."""
        kept = [run for run in self._picked if run not in runs]
        self.select([*self._picked, *runs] if on else kept)

    @action
    def show_columns(self, columns: Sequence[str]) -> None:
        """Show these parameters and metrics as columns."""
        known = column_names(self._found())
        for name in columns:
            if name not in known:
                raise UnknownNameError("column", name, known)
        self._columns = list(columns)

    @action
    def open_tab(self, tab: str) -> None:
        """Show `"parallels"`, `"curves"` or one `"run"`."""
        if tab not in _TABS:
            raise UnknownNameError("part of the view", tab, _TABS)
        self._tab = tab

    @action
    def open_run(self, run: str) -> None:
        """Show a run, with what can be asked of it."""
        self._opened, self._tab = self.run_of(run).id, "run"
        self._note = self.report_page = ""

    @action
    def colour(self, by: str) -> None:
        """Colour the lines by a parameter or a metric."""
        names = parallels(self._drawn(), "")["colours"]
        if by not in names:
            raise UnknownNameError("axis of numbers", by, names)
        self._colour = by

    @action
    def verify(self, run: str) -> None:
        """Run a run again in the background, to prove its numbers."""
        start("verify", self.run_of(run).folder)
        self.take_stock()

    @action
    def stop_verification(self, run: str) -> None:
        """End the verification of a run, which proves nothing then."""
        task = self.task_of(self.run_of(run).folder, "verify")
        if task is None:
            raise RequestError(f"run {run} is not being verified here: there is nothing to stop")
        stop(task)
        self.take_stock()

    @action
    def show_report(self, run: str) -> None:
        """Write the report of a run, and show it here."""
        path = report(self.run_of(run))
        size = path.stat().st_size
        if size > _LARGEST:
            raise RequestError(
                f"the report has {size / 1e6:.0f} MB, too many to be shown here: open {path}"
            )
        self.report_page = path.read_text("utf-8")

    @action
    def close_report(self) -> None:
        """Show the report no more."""
        self.report_page = ""

    @action
    def promote(self, ref: str, alias: str, why: str = "") -> None:
        """Let an alias be on a version that a run has published, as `workbench promote` does."""
        made = promote(ref, alias.strip(), why=why)
        self._note = f"{made.name}@{alias.strip()} is {made.ref}"

    def draw(self) -> JSON:
        """Return what is to be seen now."""
        found = self._found()
        self._page = min(self._page, self._pages() - 1)
        known = column_names(found)
        columns = self._columns if self._columns is not None else usual_columns(found)
        page = found[self._page * _PAGE : (self._page + 1) * _PAGE]
        self._picked = [run for run in self._picked if run in self._by_id]
        picked = set(self._picked)
        about = {
            "title": "Runs",
            **{"total": len(self._runs), "found": len(found)},
            **{"page": self._page, "pages": self._pages()},
            **{"where": self._where, "notebook": self._notebook, "state": self._state},
            **{"refused": self._refused, "by": self._by, "down": self._down},
            "notebooks": self._notebooks,
            "columns": columns,
            "known": known,
            "rows": [self._row(run, columns) for run in page],
            "picked": [run.id for run in page if run.id in picked],
            "selected": len(picked),
            "tab": self._tab,
            "opened": self._opened,
            "served": served_root(),
        }
        part: JSON = getattr(self, f"_{self._tab}")()
        return {**about, "part": part}

    def take_stock(self) -> bool:
        """Take note of how all runs stand."""
        before, is_new = self._by_id.keys(), super().take_stock()
        if self._by_id.keys() != before:
            self._notebooks = sorted({run.source.stem for run in self._runs})[:_NOTEBOOKS]
        return is_new

    def picture(self) -> Picture:
        """Return the newest runs as a table."""
        lines = repr(self).splitlines()
        figure = Picture(0.085 * max(map(len, lines)) + 0.3, 0.19 * len(lines) + 0.3)
        figure.text(0.01, 0.98, "\n".join(lines), family="monospace", fontsize=9, va="top")
        return figure

    def __repr__(self) -> str:
        newest = self._runs[-_STILL:]
        more = len(self._runs) - len(newest)
        return repr(newest) + (f"\nand {more:,} older runs" if more else "")

    def _found(self) -> RunList:
        """Return the runs that are asked for, in their order."""
        asked = self._where, self._notebook, self._state, self._by, self._down
        if self._found_of[:2] != (self._runs, asked):
            conditions = _conditions(self._where)
            conditions += [f"notebook={self._notebook}"] * bool(self._notebook)
            conditions += [f"state={self._state}"] * bool(self._state)
            found = pick(self._runs, conditions)
            with suppress(UnknownNameError):  # none of them has the field to sort by any more
                found = pick(found, [], f"{'-' * self._down}{self._by}")
            found = RunList(sorted(found, key=lambda run: field_of(run, self._by) is None))
            self._found_of = self._runs, asked, found
        runs: RunList = self._found_of[2]
        return runs

    def _pages(self) -> int:
        return max(1, -(-len(self._found()) // _PAGE))

    def _drawn(self) -> Sequence[Run]:
        """Return the first of the runs that are compared: those selected, else those found."""
        if len(self._picked) > 1:
            return [self.run_of(run) for run in self._picked[:_DRAWN]]
        return self._found()[:_DRAWN]

    def _whose(self, drawn: int) -> str:
        """Return which runs are drawn, in words."""
        selected = len(self._picked) > 1
        n = len(self._picked) if selected else len(self._found())
        kind = ("selected run" if selected else "run") + "s" * (n != 1) + " found" * (not selected)
        return f"{n:,} {kind}" if drawn == n else f"the first {drawn:,} of {n:,} {kind}"

    def _row(self, run: Run, columns: Sequence[str]) -> JSON:
        line = self.line_of(run)
        return {
            **{key: line[key] for key in ("id", "state", "place", "ending", "seconds")},
            "notebook": run.source.stem,
            "started": run.began[:16].replace("T", " "),
            "values": values_of(run, columns),
        }

    def _parallels(self) -> JSON:
        drawn = self._drawn()
        return parallels(drawn, self._colour) | {"whose": self._whose(len(drawn))}

    def _curves(self) -> JSON:
        page = self._found()[self._page * _PAGE : (self._page + 1) * _PAGE]
        chosen = [self._by_id[run] for run in self._picked[:_DRAWN]] or list(page)
        selected = len(self._picked)
        return {"trainings": self._shelf.of(chosen), "of": len(page), "selected": selected}

    def _run(self) -> JSON:
        """Return the run that is opened, or nothing where none is."""
        if self._opened not in self._by_id:
            return {}
        run = self._by_id[self._opened]
        task = self.task_of(run.folder, "verify")
        going = {"going": task is not None, "place": self.place_of(task)}
        return details(run) | {"line": self.line_of(run), "note": self._note, "again": going}


def _conditions(where: str) -> list[str]:
    return [part.strip() for part in split(where) if part.strip()]
