"""Runs beside each other: what was asked of them, what came out, and what may explain why."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from difflib import unified_diff
from itertools import zip_longest
from pathlib import Path
from string import ascii_uppercase
from typing import TYPE_CHECKING, Any

from workbench.errors import RequestError, TamperedError
from workbench.home import write_file
from workbench.runs.notebooks import has_tag, headings, read_notebook
from workbench.runs.pages import Html, fold, join, lasted, moment, page, picture, scroll, table, tag
from workbench.runs.records import Run
from workbench.runs.reports import said, standing
from workbench.types import JSON

if TYPE_CHECKING:
    import pandas

    from workbench.training import Training

__all__ = ["CellChange", "Comparison", "compare"]

_ABSENT = "–"
_DIGEST = re.compile(r"[0-9a-f]{40}|[0-9a-f]{64}")
_PLACE = re.compile(r"\d\d(?=-)")  # which begins the name of a training that was given none
_BEGINNING = re.compile(r"@@ -[01](,\d+)? \+[01](,\d+)? @@")  # of a diff, in the first lines
_NOTHING = "Nothing that is recorded differs, but for the metrics."
_WIDEST = 40  # characters of a value in the terminal


@dataclass(frozen=True)
class CellChange:
    """A cell that two notebooks do not have alike.

    Args:
        cell: its number among the code cells, from 1; None of prose. It is that of the second
            notebook, if the cell is there.
        heading: the last one above it, or None.
        before: its source in the first notebook, None where it is not there.
        after: its source in the second one, None where it is not there.
    """

    cell: int | None
    heading: str | None
    before: str | None
    after: str | None

    @property
    def place(self) -> str:
        """Where it is, in words.

        >>> CellChange(3, "Train", None, "fit()").place
        'cell 3 (Train), new'
        """
        where = f"cell {self.cell}" if self.cell else "prose"
        return where + (f" ({self.heading})" if self.heading else "") + self.kind

    @property
    def kind(self) -> str:
        """Whether it is in one of the two alone: ", new" or ", gone"."""
        return ", new" if self.before is None else ", gone" if self.after is None else ""


@dataclass(frozen=True, repr=False)
class Comparison:
    """Two runs or more beside each other; it shows itself in a terminal and in a notebook.

    Args:
        runs: the first is the one that the others are compared with.
        facts: what is recorded of them, by name, with a value for each run.
        changes: for each run but the first, the cells that it does not have like the first one.
    """

    runs: Sequence[Run]
    facts: Mapping[str, Sequence[Any]]
    changes: Sequence[Sequence[CellChange]]

    def table(self) -> pandas.DataFrame:
        """Return all that is recorded, a row a fact and a column a run."""
        import pandas

        names = pandas.Index(list(self.facts), name="what")
        runs = pandas.Index([run.id for run in self.runs], name="run")
        return pandas.DataFrame(list(self.facts.values()), names, runs, dtype=object)

    def save(self, path: str | Path) -> Path:
        """Write the comparison as one HTML file that needs no other, and return its path.

        Args:
            path: where to.
        """
        of = ", ".join(dict.fromkeys(run.source.stem for run in self.runs))
        title = f"{len(self.runs)} runs of {of}"
        parts = {
            "Metrics": self._metrics(),
            "What differs": self._differences(),
            "Curves": join(*self._curves()),
            "Notebooks": join(*self._notebooks()),
        }
        header = join(tag("p", "Comparison"), tag("h1", title), self._list())
        main = join(*(_section(name, part) for name, part in parts.items() if part))
        target = Path(path)
        write_file(target, page(title, header=header, main=main))
        return target

    def __repr__(self) -> str:
        names = [name for name, _ in self._named()]
        runs = [(name, run.id, run.state) for name, run in self._named()]
        differing = [(what, *map(_short, values)) for what, values in self._differing()]
        parts = [_aligned(runs)]
        parts += [_aligned([("what differs", *names), *differing])] if differing else [_NOTHING]
        metrics = list(self._judged())
        parts += [_aligned([self._head(), *metrics])] if metrics else []
        return "\n\n".join(parts)

    def _repr_html_(self) -> str:
        return join(self._list(), self._metrics(), self._differences())

    def _named(self) -> list[tuple[str, Run]]:
        return [(_letter(i), run) for i, run in enumerate(self.runs)]

    def _differing(self) -> Iterator[tuple[str, Sequence[Any]]]:
        """Yield the facts in which a run is not like the first one, metrics left out."""
        for what, values in self.facts.items():
            if not what.startswith("metrics.") and any(value != values[0] for value in values):
                yield what, values

    def _head(self) -> tuple[str, ...]:
        others = (_letter(i) for i in range(1, len(self.runs)))
        return ("metric", "allowed", "A", *(t for o in others for t in (o, f"{o} − A", "is")))

    def _judged(self) -> Iterator[tuple[str, ...]]:
        """Yield each metric, its tolerance, the first run's value, and how the others compare."""
        tolerances = self.runs[0].record.get("tolerances") or {}
        for name in dict.fromkeys(name for run in self.runs for name in run.metrics):
            first, *others = (run.metrics.get(name) for run in self.runs)
            allowed = tolerances.get(name)
            judged = (text for other in others for text in _judge(first, other, allowed or 0.0))
            within = "" if allowed is None else f"± {said(allowed)}"
            yield name, within, _ABSENT if first is None else said(first), *judged

    def _list(self) -> Html:
        rows = []
        for letter, run in self._named():
            began, took = moment(run.began) or _ABSENT, lasted(run.seconds) or _ABSENT
            rows.append((letter, tag("code", run.id), standing(run.state), began, took))
        return table(["run", "id", "state", "began", "took"], rows, "runs")

    def _metrics(self) -> Html | None:
        rows = list(self._judged())
        return table(self._head(), rows, "metrics") if rows else None

    def _differences(self) -> Html:
        rows = [(what, *map(_short, values)) for what, values in self._differing()]
        names = [name for name, _ in self._named()]
        return table(["what", *names], rows, "what differs") if rows else tag("p", _NOTHING)

    def _curves(self) -> Iterator[Html]:
        """Yield each training's curves, those of all runs in one picture, and their figures."""
        for trainings in _trainings(self._named()):
            name = " / ".join(dict.fromkeys(t.name for _, t in trainings))
            ends = "; ".join(f"{letter} {training!r}" for letter, training in trainings)
            shown = picture(_draw(trainings), "image/png", f"Losses of the training {name}. {ends}")
            drawn = scroll(shown, f"curves of {name}", "scroll curves")
            yield join(tag("h3", name), tag("div", drawn, _figures(name, trainings), class_="card"))

    def _notebooks(self) -> Iterator[Html]:
        """Yield how the source of each notebook differs from that of the first."""
        for (letter, _), changes in zip(self._named()[1:], self.changes, strict=True):
            n = len(changes)
            told = f"{n} cell{'s' * (n != 1)} differ{'s' * (n == 1)}" if n else "the same source"
            yield tag("h3", f"From A to {letter}: {told}")
            yield from (_changed(change) for change in changes)


def compare(runs: Sequence[Run]) -> Comparison:
    """Put runs beside each other, the first as the one to compare with.

    Args:
        runs: two at least, each once; of one notebook or of several.

    Raises:
        RequestError: there are too few, one is there twice, or its notebook cannot be read.
    """
    if len(runs) < 2:
        found = f"only {runs[0].id}" if runs else "none"
        raise RequestError(f"a comparison takes two runs at least, got {found}: name another run")
    for place, run in enumerate(runs):
        if run in runs[:place]:
            raise RequestError(f"run {run.id} is there twice: compare it with another run")
    sources = [_cells(run) for run in runs]
    changes = [list(_changes(sources[0], cells)) for cells in sources[1:]]
    recorded = [_facts(run.record) for run in runs]
    names = dict.fromkeys(name for facts in recorded for name in facts)
    facts = {name: [found.get(name, _ABSENT) for found in recorded] for name in names}
    cells = ["; ".join(f"{c.cell}{c.kind}" for c in change if c.cell) for change in changes]
    if any(cells):
        facts["code.cells"] = [_ABSENT, *(cell or _ABSENT for cell in cells)]
    return Comparison(list(runs), facts, changes)


def _facts(record: JSON) -> JSON:
    """Return what is recorded of a run and may be compared, by dotted names."""
    around = dict(record.get("environment") or {})
    git, notebook = around.pop("git", None) or {}, record["notebook"]
    code = {
        "notebook": notebook["path"],
        "notebook_sha256": notebook.get("sha256"),
        "commit": git.get("commit"),
        "uncommitted": git.get("diff_sha256") or git.get("dirty"),
    }
    groups = {
        "parameters": record["parameters"],
        "data": {d["name"]: d["fingerprint"] for d in record["datasets"]},
        "code": {name: value for name, value in code.items() if value is not None},
        "envelope": {k: v for k, v in (record.get("envelope") or {}).items() if k != "note"},
        "environment": around,
        "metrics": record["metrics"],
    }
    return {"state": record["state"], **_flat(groups)}


def _flat(groups: JSON, above: str = "") -> JSON:
    flat: JSON = {}
    for name, value in groups.items():
        whole = above + name
        is_group = isinstance(value, dict) and not above.startswith("parameters.")
        flat |= _flat(value, f"{whole}.") if is_group else {whole: value}
    return flat


def _judge(first: float | None, other: float | None, allowed: float) -> tuple[str, str, str]:
    """Return a metric, its difference to the first run's, and whether that is within tolerance."""
    if first is None or other is None:
        return _ABSENT if other is None else said(other), "", ""
    verdict = "within" if abs(other - first) <= allowed else "beyond"
    return said(other), f"{other - first:+.4g}", "equal" if other == first else verdict


def _short(value: Any) -> str:
    text = said(value)
    return text[:12] if _DIGEST.fullmatch(text) else text


def _letter(place: int) -> str:
    return ascii_uppercase[place % 26] * (1 + place // 26)


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    """Return rows as lines of text, their columns one below the other."""
    cut = [[t if len(t) <= _WIDEST else f"{t[: _WIDEST - 1]}…" for t in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cut, strict=True)]
    padded = ("  ".join(f"{t:{w}}" for t, w in zip(row, widths, strict=True)) for row in cut)
    return "\n".join(line.rstrip() for line in padded)


def _section(name: str, part: Html) -> Html:
    anchor = name.lower().replace(" ", "-")
    return tag("section", tag("h2", name, id=anchor), part, aria_labelledby=anchor)


@dataclass(frozen=True)
class _Cell:
    number: int | None  # among the code cells
    heading: str | None
    source: str


def _cells(run: Run) -> list[_Cell]:
    """Return the cells that were executed, without that of the run's own parameters."""
    if not run.notebook.exists():
        return []
    document, number, cells = read_notebook(run.notebook), 0, []
    for cell, heading in zip(document.cells, headings(document), strict=True):
        is_code = cell.cell_type == "code"
        number += is_code
        if not has_tag(cell, "injected-parameters"):
            cells.append(_Cell(number if is_code else None, heading, cell.source))
    return cells


def _changes(before: Sequence[_Cell], after: Sequence[_Cell]) -> Iterator[CellChange]:
    """Yield the cells that differ, as nbdime pairs them; of a cell, only its source counts."""
    old, new = _bare(before), _bare(after)
    if old == new:
        return
    from nbdime import diff_notebooks  # takes a second

    i = j = 0  # how far in each
    for entry in (entry for patch in diff_notebooks(old, new) for entry in patch.diff):
        i, j = entry.key, j + entry.key - i
        gone = entry.length if entry.op == "removerange" else int(entry.op == "patch")
        come = len(entry.valuelist) if entry.op == "addrange" else int(entry.op == "patch")
        for then, now in zip_longest(before[i : i + gone], after[j : j + come]):
            cell = now or then
            was, became = then.source if then else None, now.source if now else None
            yield CellChange(cell.number, cell.heading, was, became)
        i, j = i + gone, j + come


def _bare(cells: Sequence[_Cell]) -> Any:
    """Return a notebook of these cells with nothing in it but their sources."""
    from nbformat import v4

    made = [
        v4.new_code_cell(cell.source) if cell.number else v4.new_markdown_cell(cell.source)
        for cell in cells
    ]
    for cell in made:
        del cell["id"]
    return v4.new_notebook(cells=made, nbformat_minor=4)


def _changed(change: CellChange) -> Html:
    """Return the lines of a cell that differ, with some around them."""
    then, now = (change.before or "").splitlines(), (change.after or "").splitlines()
    looks = {"+": "ins", "-": "del"}
    shown = [
        tag(looks.get(line[0], "span"), "⋯" if line.startswith("@@") else line)
        for line in list(unified_diff(then, now, lineterm=""))[2:]
        if not _BEGINNING.match(line)
    ]
    title = tag("h4", change.place)
    return tag("div", title, scroll(tag("pre", *shown), change.place), class_="change")


def _trainings(runs: Iterable[tuple[str, Run]]) -> list[list[tuple[str, Training]]]:
    """Return the trainings of runs, those together that have the same name or place."""
    from workbench.training.recorded import RecordedTraining

    found: dict[str, list[tuple[str, Training]]] = {}
    for letter, run in runs:
        for folder in sorted((run.folder / "trainings").glob("*")):
            try:
                training = RecordedTraining.read(folder)
            except (RequestError, TamperedError):
                continue
            if len(training.history) > 1:
                place = _PLACE.match(folder.name)
                key = place[0] if place else folder.name
                found.setdefault(key, []).append((letter, training))
    return list(found.values())


def _draw(trainings: Sequence[tuple[str, Training]]) -> bytes:
    """Return the losses by step and the validation's figure by epoch, a colour a run, as PNG."""
    from workbench.pictures import Picture

    figure = Picture(9, 3.2)
    metric = _metric(training for _, training in trainings)
    left, *right = figure.subplots(1, 2 if metric else 1, squeeze=False)[0]
    tops = []
    for letter, training in trainings:
        colour = f"C{ascii_uppercase.index(letter[0])}"
        tops.append(training.history.draw_losses(left, colour, colour, letter))
        for axes in right:
            training.history.draw_dots(axes, metric, colour, letter)
    left.set_ylim(0, max(tops))
    for axes, name in zip([left, *right], ["loss", metric.replace("_", " ")], strict=False):
        axes.set(xlabel="step", ylabel=name)
        axes.grid(alpha=0.2)
        axes.legend(frameon=False)
    content = io.BytesIO()
    figure.savefig(content, format="png", dpi=144)
    return content.getvalue()


def _metric(trainings: Iterable[Training]) -> str:
    """Return the first figure of the validation beside its loss, or nothing."""
    names = (name for t in trainings for row in t.history.epochs[-1:] for name in row)
    return next((n for n in names if n.startswith("validation_") and n != "validation_loss"), "")


def _figures(name: str, trainings: Sequence[tuple[str, Training]]) -> Html | None:
    """Return the figures of every epoch, a row an epoch and run, to be unfolded."""
    keys = list(dict.fromkeys(k for _, t in trainings for row in t.history.epochs for k in row))
    rows = [
        (letter, *(said(row[key]) if key in row else "" for key in keys))
        for letter, training in trainings
        for row in training.history.epochs
    ]
    made = table(["run", *keys], rows, f"figures of {name}")
    return fold("the same as a table", made, kind="code") if rows else None
