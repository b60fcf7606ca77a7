"""The parts of an evaluation's view as JSON: figures, classes, calibration, curves, residuals."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.errors import RequestError
from workbench.evaluation import Evaluation
from workbench.evaluation.metrics import r_squared
from workbench.types import JSON
from workbench.widgets.evaluation_rows import Pair, groups
from workbench.widgets.figures import rounded

__all__ = [
    "CLASSES",
    "Headline",
    "calibrated",
    "class_table",
    "compared",
    "confused",
    "curves",
    "decided",
    "outputs_table",
    "predictions",
    "ranked",
    "verdict",
]

_WHOLE, _BLOCK = 60, 30  # classes of a whole confusion matrix, and of a part of a larger one
_CONFUSED = 10  # pairs of classes that are told
_RANKED = 1_000_000  # rows times classes of which all areas are found in a moment
CLASSES = 100  # whose figures are told at once
_QUICK, _DEAR = 1000, 100_000  # rows that intervals are drawn from: at once, and at all
_POINTS = 400  # of a curve
_DOTS, _WORST = 1000, 100  # rows that are drawn, and how many of them are those furthest off
_OUTPUTS = 100  # of a regression that are told


class Headline:
    """The figures of an evaluation, and their intervals as they become known.

    Args:
        evaluation: whose `metrics` they are.
    """

    def __init__(self, evaluation: Evaluation) -> None:
        self._evaluation = evaluation
        self._values = evaluation.metrics
        self._intervals: dict[str, tuple[float, float]] = {}
        prices = {name: _price(evaluation, name) for name in self._values}
        dear = [name for name, price in prices.items() if price > _DEAR]
        self._asked = [name for name in self._values if name not in dear]
        self.quick = max(prices.values()) <= _QUICK  # all of them in a tenth of a second
        self.reason = (  # why some have no intervals
            f"intervals of {', '.join(dear)} would take long here: ask "
            f"evaluation.interval({dear[0]!r}) for one"
            if dear
            else ""
        )

    @property
    def missing(self) -> list[str]:
        """The figures whose intervals are to be found yet."""
        return [name for name in self._asked if name not in self._intervals]

    def find(self) -> bool:
        """Draw the rows of one interval, if one is missing; return whether one was."""
        for name in self.missing[:1]:
            try:
                self._intervals[name] = self._evaluation.interval(name)
            except RequestError as error:
                self.reason, self._asked = str(error), []
            return True
        return False

    def shown(self) -> list[list[Any]]:
        """Return each figure: name, value, low, high; None where that is no number, or not yet."""
        nothing = (float("nan"), float("nan"))
        return [
            [name, *map(rounded, (value, *self._intervals.get(name, nothing)))]
            for name, value in self._values.items()
        ]


def confused(evaluation: Evaluation) -> JSON:
    """Return the confusion matrix, and of more than two classes the pairs confused most often.

    Of many classes the matrix has those alone that are confused most: `block` says which they are,
    `totals` how many rows each of them has.
    """
    counts, k = evaluation.confusion, len(evaluation.classes)
    pairs = _confused_pairs(counts)
    block = torch.arange(k) if k <= _WHOLE else _block(pairs)
    told = torch.cat([pairs, counts[pairs[:, 0], pairs[:, 1]][:, None]], 1)[:_CONFUSED]
    return {
        "confusion": counts[block][:, block].tolist(),
        "block": block.tolist(),
        "totals": counts.sum(1)[block].tolist(),
        "pairs": told.tolist() if k > 2 else [],
    }


def class_table(evaluation: Evaluation, by: str, page: int, *, falling: bool) -> JSON:
    """Return precision, recall, F1 and rows of a page of the classes, in the order of a column.

    Args:
        evaluation: of a classification.
        by: `"class"`, in the order of the confusion matrix, or a column of `per_class`.
        page: of a hundred classes each, counted from 0.
        falling: whether the last, or the highest, comes first.
    """
    table = evaluation.per_class
    if by != "class":
        table = table.sort_values(by, ascending=not falling, kind="stable")
    elif falling:
        table = table.iloc[::-1]
    table = table.iloc[page * CLASSES :][:CLASSES]
    rows = [
        [name, *map(float, row)] for name, row in zip(table.index, table.to_numpy(), strict=True)
    ]
    return {"table": rows, "by": by, "falling": falling}


def calibrated(evaluation: Evaluation, bins: int) -> JSON:
    """Return how sure and how often right the rows of each bin of confidence were, and the errors.

    Raises:
        RequestError: there are no probabilities, or `bins` is no number from 1 up.
    """
    table = evaluation.calibration(bins)
    rows = [[rounded(float(v)) for v in row] for row in table.to_numpy()]
    error, brier = evaluation.calibration_error(bins), evaluation.brier
    return {"bins": rows, "error": rounded(error), "brier": rounded(brier)}


def ranked(evaluation: Evaluation, of: str) -> list[list[Any]]:
    """Return of each class the areas under both curves: name, ROC, average precision.

    Of two classes, and where all of many would take long, those of the class `of` alone.

    Raises:
        RequestError: there are no probabilities.
    """
    n = len(evaluation.classes)
    quick = 2 < n <= CLASSES and n * len(evaluation) <= _RANKED
    names = evaluation.classes if quick else (of,)
    areas = [(evaluation.roc_auc(name), evaluation.average_precision(name)) for name in names]
    return [[name, *map(rounded, found)] for name, found in zip(names, areas, strict=True)]


def curves(evaluation: Evaluation, of: str) -> JSON:
    """Return the ROC curve and precision by recall of a class against all others, thinned.

    Raises:
        RequestError: there are no probabilities, or no row is of the class, or every row is.
    """
    rates = evaluation.roc(of)[["false_positive_rate", "true_positive_rate"]]
    share = float((evaluation.targets == evaluation.classes.index(of)).double().mean())
    if share in (0, 1):
        which = "every row is" if share else "no row is"
        raise RequestError(f"{which} of the class {of!r}, so it has no curves: choose another")
    precision = evaluation.precision_recall(of)[["recall", "precision"]]
    return {
        "roc": _thinned(rates),
        "precision_recall": _thinned(precision),
        "share": rounded(share),
    }


def decided(evaluation: Evaluation) -> JSON:
    """Return of two classes what is decided at the threshold: scores of the second, and counts."""
    (right_no, alarms), (missed, right_yes) = evaluation.confusion.tolist()
    scores = evaluation.per_class.iloc[1]
    return {
        "threshold": 0.5 if evaluation.threshold is None else evaluation.threshold,
        "precision": rounded(float(scores["precision"])),
        "recall": rounded(float(scores["recall"])),
        "f1": rounded(float(scores["f1"])),
        "false_positive_rate": rounded(alarms / max(1, right_no + alarms)),
        "said": alarms + right_yes,
        "missed": missed,
    }


def predictions(evaluation: Evaluation, output: int) -> JSON:
    """Return row, true and predicted value of up to 1,000 rows, the furthest off among them."""
    true = evaluation.targets.double().reshape(evaluation.outputs.shape)[:, output]
    said = evaluation.outputs[:, output].double()
    finite = torch.isfinite(said)
    return {"dots": _dots(true, said, (true - said).abs()), "strange": int((~finite).sum())}


def outputs_table(evaluation: Evaluation) -> list[list[float | None]]:
    """Return mse, mae and R² of each of several outputs, of the first hundred."""
    true = evaluation.targets.double().reshape(evaluation.outputs.shape)
    left = evaluation.residuals
    return [
        [rounded(float(left[:, i].square().mean())), rounded(float(left[:, i].abs().mean())),
         rounded(r_squared(true[:, i], evaluation.outputs[:, i]))]
        for i in range(min(left.shape[1], _OUTPUTS))
    ]  # fmt: skip


def compared(pair: Pair) -> JSON:
    """Return how many rows each of two answered better, and of a regression both errors of some."""
    found = pair.comparison
    told: JSON = {"groups": [[name, int(rows.sum())] for name, rows in groups(pair).items()]}
    if pair.first.classes:
        return told
    first, second = found.first.sqrt(), found.second.sqrt()
    return told | {"dots": _dots(first, second, (first - second).abs())}


def verdict(pair: Pair) -> JSON:
    """Return the difference of two evaluations with its interval and p, also as a sentence.

    Raises:
        RequestError: there is one row alone, or an error is not finite.
    """
    found = pair.comparison
    strange = int((~torch.isfinite(found.first + found.second)).sum())
    if strange:
        raise RequestError(
            f"{strange:,} of {len(found):,} rows were answered with what is not finite, so there "
            "is no difference of the two: find out why"
        )
    low, high = found.interval
    figures = {"difference": found.difference, "low": low, "high": high, "p": found.p}
    return {"sentence": repr(found)} | {name: rounded(value) for name, value in figures.items()}


def _confused_pairs(counts: Tensor) -> Tensor:
    """Return the cells beside the diagonal that have rows, shaped (cells, 2), the most first."""
    cells = counts.nonzero()
    cells = cells[cells[:, 0] != cells[:, 1]]
    return cells[counts[cells[:, 0], cells[:, 1]].argsort(descending=True, stable=True)]


def _block(pairs: Tensor) -> Tensor:
    """Return which classes are in the first pairs, in order; where those are few, others too."""
    first = pairs[: _BLOCK**2]  # which fewer classes do not have
    most = dict.fromkeys([*first.flatten().tolist(), *range(_BLOCK)])
    return torch.tensor(sorted(list(most)[:_BLOCK]))


def _price(evaluation: Evaluation, figure: str) -> int:
    """Return how much work the interval of a figure is, in rows of a mean's."""
    rows, classes = len(evaluation), len(evaluation.classes)
    if figure == "r2":
        return rows * evaluation.outputs.shape[1]
    return max(rows, classes**2) if figure in ("precision", "recall", "f1") else rows


def _dots(x: Tensor, y: Tensor, apart: Tensor) -> list[list[Any]]:
    """Return row, x and y of the finite rows that are drawn: the furthest apart, and some."""
    rows = (torch.isfinite(x) & torch.isfinite(y)).nonzero()[:, 0]
    if len(rows) > _DOTS:
        worst = apart[rows].argsort(descending=True)[:_WORST]
        some = torch.linspace(0, len(rows) - 1, _DOTS - _WORST).long()
        rows = rows[torch.cat([worst, some]).unique()]
    pairs = zip(rows.tolist(), x[rows].tolist(), y[rows].tolist(), strict=True)
    return [[row, rounded(a), rounded(b)] for row, a, b in pairs]


def _thinned(curve: pd.DataFrame) -> list[list[float]]:
    """Return the points of a curve, of many some that are as far apart along it."""
    points = curve.to_numpy()
    if len(points) > _POINTS:
        way = np.append(0.0, np.abs(np.diff(points, axis=0)).sum(1).cumsum())
        marks = np.linspace(0, way[-1], _POINTS)
        points = points[np.unique(np.searchsorted(way, marks).clip(0, len(points) - 1))]
    return [[round(float(x), 5), round(float(y), 5)] for x, y in points]
