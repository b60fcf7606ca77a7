"""`EvaluationView`: an evaluation to look into, down to the rows behind each of its figures."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from workbench.errors import RequestError, UnknownNameError
from workbench.evaluation import Evaluation
from workbench.pictures import Picture
from workbench.progress import is_live
from workbench.types import JSON
from workbench.widgets.evaluation_parts import (
    CLASSES,
    Headline,
    calibrated,
    class_table,
    compared,
    confused,
    curves,
    decided,
    outputs_table,
    predictions,
    ranked,
    verdict,
)
from workbench.widgets.evaluation_rows import FINDERS, Pair, answers, details, groups, truth
from workbench.widgets.evaluation_stills import evaluation_still
from workbench.widgets.faces import Face, action, checked_place, css, javascript
from workbench.widgets.inputs import Inputs

__all__ = ["EvaluationView", "evaluation"]

_COLUMNS = ("class", "precision", "recall", "f1", "support")
_MOST_BINS = 50


def evaluation(evaluation: Evaluation, other: Evaluation | None = None) -> EvaluationView | Picture:
    """Return a view of an evaluation to look into; a picture of it where no page lives.

    Args:
        evaluation: of a model, or of answers from elsewhere.
        other: another one of the same rows, compared with the first row by row.

    Raises:
        RequestError: the other is none, or of other rows.
    """
    pair = _paired(evaluation, other)
    return EvaluationView(*pair.sides) if is_live() else evaluation_still(pair)


class EvaluationView(Face):
    """Shows figures with their intervals, and opens the rows that each of them is made of.

    Args:
        evaluation: that is looked into.
        other: of the same rows, to be compared with; None for none.
    """

    _esm = javascript(
        "faces", "plots", "rows",
        "evaluation_plots", "evaluation_rows", "evaluation_matrix", "evaluation",
    )  # fmt: skip
    _css = css("evaluation")

    def __init__(self, evaluation: Evaluation, other: Evaluation | None = None) -> None:
        super().__init__()
        self._given = _paired(evaluation, other)
        self._inputs = Inputs(evaluation.split)
        self._heads: list[Headline] = []
        self._tab = self._tabs()[0]
        self._meant: dict[str, tuple[str, tuple[Any, ...]]] = {}  # by tab, which rows are open
        self._page, self._row = 0, -1
        self._sorted, self._bins, self._output = ("class", False), 10, 0
        self._of = _first_that_occurs(evaluation)
        self._ranks: dict[str, list[Any]] = {}  # by class, the areas under its curves
        self._decide(self._given)
        if not evaluation.classes:
            self._meant["predictions"] = ("largest", (0,))
        else:
            self._meant["mistakes"] = ("mistakes", ())
        self.refresh()

    @property
    def evaluation(self) -> Evaluation:
        """What is looked into, as it is decided now: with the threshold that the page has set."""
        return self._pair.first

    @action
    def open_tab(self, tab: str) -> None:
        """Show another part, such as `"confusion"`."""
        if tab not in self._tabs():
            raise UnknownNameError("part of the view", tab, self._tabs())
        self._tab, self._page, self._row = tab, 0, -1

    @action
    def open_cell(self, true: str, predicted: str) -> None:
        """Show the rows of a class that were said to be of another, or of the same."""
        indices = tuple(self._class(name) for name in (true, predicted))
        self._open(("confusion", "curves"), "cell", indices)

    @action
    def open_bin(self, place: int) -> None:
        """Show the rows of a bin of confidence, counted from 0."""
        checked_place("bin", place, self._bins)
        self.evaluation.calibration(self._bins)  # raises where there are no probabilities
        self._open(("calibration",), "bin", (place, self._bins))

    @action
    def open_group(self, group: str) -> None:
        """Show the rows that both, one or none of the two evaluations answered well."""
        if self._pair.second is None:
            raise RequestError("there is one evaluation alone: compare by evaluation.show(other)")
        if group not in groups(self._pair):
            raise UnknownNameError("group of rows", group, groups(self._pair))
        self._open(("comparison",), "group", (group,))

    @action
    def shut_rows(self) -> None:
        """Show no rows in this part, or those that are always there."""
        always = ("mistakes", "predictions")
        if self._tab not in always:
            self._meant.pop(self._tab, None)
        self._page, self._row = 0, -1

    @action
    def turn(self, page: int) -> None:
        """Show a page of the rows that are open, or of the classes, counted from 0."""
        n = self._class_pages if self._tab == "classes" else self._pages(len(self._rows()))
        self._page = checked_place("page", page, n)

    @action
    def open_row(self, row: int) -> None:
        """Show one row of the split with all that was said of it; -1 for none."""
        self._row = row if row == -1 else checked_place("row", row, len(self.evaluation))

    @action
    def sort(self, by: str, falling: bool) -> None:
        """Put the classes in the order of a column."""
        if by not in _COLUMNS:
            raise UnknownNameError("column", by, _COLUMNS)
        self._sorted, self._page = (by, falling), 0

    @action
    def calibrate(self, bins: int) -> None:
        """Show the calibration in so many bins."""
        if not 1 <= bins <= _MOST_BINS:
            raise RequestError(f"bins must be a whole number from 1 to {_MOST_BINS}, got {bins}")
        self._bins = bins
        self._meant.pop("calibration", None)
        self._page = 0

    @action
    def choose_class(self, of: str) -> None:
        """Show the curves of a class against all others."""
        self._class(of)
        self._of = of

    @action
    def choose_output(self, output: int) -> None:
        """Show the values of one of several outputs, counted from 0."""
        width = 0 if self.evaluation.classes else self.evaluation.outputs.shape[1]
        self._output, self._page = checked_place("output", output, width), 0
        self._meant["predictions"] = ("largest", (output,))

    @action
    def decide(self, threshold: float | None) -> None:
        """Say the second of two classes where its probability is above; None as it was given."""
        pair = self._given
        if threshold is not None:
            pair = Pair(pair.first.at(threshold), pair.second)
        self._page = 0
        self._decide(pair)

    @action
    def estimate(self) -> None:
        """Find one interval more; the page asks until none is missing."""
        any(head.find() for head in self._heads)

    def draw(self) -> JSON:
        """Return what is to be seen now."""
        evaluation = self.evaluation
        heads = [head.shown() for head in self._heads]
        reasons = dict.fromkeys(head.reason for head in self._heads if head.reason)
        about = {
            "title": f"Evaluation of {len(evaluation):,} rows",
            "rows": len(evaluation),
            "classes": list(evaluation.classes),
            "figures": heads,
            "reasons": list(reasons),
            "missing": any(head.missing for head in self._heads),
            "threshold": evaluation.threshold,
            "moved": self._pair is not self._given,
            "tabs": self._tabs(),
            "tab": self._tab,
            "outputs": 0 if evaluation.classes else evaluation.outputs.shape[1],
            "output": self._output,
            **self._inputs.about(),
        }
        part: JSON = getattr(self, f"_{self._tab}")()
        return about | part | self._found() | self._alone()

    def picture(self) -> Picture:
        """Return the confusion matrix and each class's scores, residuals, or the comparison."""
        return evaluation_still(self._given)

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._given.sides))

    def _tabs(self) -> list[str]:
        parts = ["confusion", "mistakes", "classes", "calibration", "curves"]
        own = parts if self._given.first.classes else ["predictions"]
        return own if self._given.second is None else ["comparison", *own]

    def _class(self, name: str) -> int:
        names = self.evaluation.classes
        if name not in names:
            raise UnknownNameError("class", name, names)
        return names.index(name)

    def _decide(self, pair: Pair) -> None:
        """Look into a pair from now on; the intervals of many rows come when the page asks."""
        self._pair = pair
        self._heads = [Headline(evaluation) for evaluation in pair.sides]
        for head in self._heads if all(head.quick for head in self._heads) else []:
            while head.find():
                pass

    def _open(self, tabs: tuple[str, ...], finder: str, given: tuple[Any, ...]) -> None:
        tab = self._tab if self._tab in tabs else tabs[0]
        if tab not in self._tabs():
            raise UnknownNameError("part of the view", tab, self._tabs())
        self._tab, self._page, self._row = tab, 0, -1
        self._meant[tab] = (finder, given)

    def _rows(self) -> list[int]:
        """Return the rows that are open in this part, in their order."""
        finder, given = self._meant.get(self._tab, ("", ()))
        return FINDERS[finder](self._pair, *given).tolist() if finder else []

    def _pages(self, rows: int) -> int:
        return max(1, -(-rows // self._inputs.page))

    @property
    def _class_pages(self) -> int:
        return -(-len(self.evaluation.classes) // CLASSES)

    def _found(self) -> JSON:
        finder, given = self._meant.get(self._tab, ("", ()))
        if not finder:
            return {"open": None}
        rows, size = self._rows(), self._inputs.page
        self._page = min(self._page, self._pages(len(rows)) - 1)
        shown = [self._example(row) for row in rows[self._page * size :][:size]]
        opened = {"kind": finder, "of": list(given), "rows": shown, "found": len(rows)}
        return {"open": opened | {"page": self._page, "pages": self._pages(len(rows))}}

    def _example(self, row: int) -> JSON:
        true = truth(self.evaluation, row, self._output)
        said = answers(self._pair, row, self._output)
        return {"row": row, "true": true, "said": said, **self._inputs.small(row)}

    def _alone(self) -> JSON:
        if self._row < 0:
            return {"alone": None}
        seen = self._inputs.large(self._row) | details(self._pair, self._row)
        return {"alone": self._example(self._row) | seen}

    def _comparison(self) -> JSON:
        return compared(self._pair) | _unless(verdict, self._pair)

    def _confusion(self) -> JSON:
        return confused(self.evaluation)

    def _mistakes(self) -> JSON:
        return {}

    def _classes(self) -> JSON:
        by, falling = self._sorted
        found = class_table(self.evaluation, by, self._page, falling=falling)
        return {**found, "page": self._page, "pages": self._class_pages}

    def _calibration(self) -> JSON:
        return {"n_bins": self._bins, **_unless(calibrated, self.evaluation, self._bins)}

    def _curves(self) -> JSON:
        given, two = self._given.first, len(self._given.first.classes) == 2
        known = _unless(self._ranked)
        if "reason" in known:
            return known
        now = decided(self.evaluation) | confused(self.evaluation) if two else {}
        return {**known, "of": self._of, "now": now, **_unless(curves, given, self._of)}

    def _ranked(self) -> JSON:
        if self._of not in self._ranks:
            found = ranked(self._given.first, self._of)
            self._ranks = {name: [name, *areas] for name, *areas in found}
        return {"areas": list(self._ranks.values())}

    def _predictions(self) -> JSON:
        evaluation = self.evaluation
        return {**predictions(evaluation, self._output), "by_output": outputs_table(evaluation)}


def _paired(evaluation: Evaluation, other: Any) -> Pair:
    pair = Pair(evaluation, other)
    if other is not None:
        if not isinstance(other, Evaluation):
            raise RequestError(
                f"show takes an Evaluation to compare with, got {type(other).__name__}: pass what "
                "evaluate returned for the other model"
            )
        len(pair.comparison)  # raises where they are of different rows
    return pair


def _first_that_occurs(evaluation: Evaluation) -> str:
    """Return the class whose curves are shown first: the second of two, or one that has rows."""
    names = evaluation.classes
    if len(names) <= 2:
        return names[-1] if names else ""
    return names[int(evaluation.targets.min())]


def _unless(part: Callable[..., JSON], *given: Any) -> JSON:
    """Return a part, or why it cannot be."""
    try:
        return part(*given)
    except RequestError as error:
        return {"reason": str(error)}
