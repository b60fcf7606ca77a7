"""How well scores rank the rows of a class above all others, with scikit-learn's conventions.

A row is said to be of the class where its score is above a threshold, as `Evaluation.at` decides.
"""

from __future__ import annotations

from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import RequestError, UnknownNameError

__all__ = [
    "area",
    "average_precision",
    "positives",
    "precision_recall_curve",
    "roc_curve",
    "top_k_share",
]

_Floats = np.ndarray[Any, np.dtype[np.float64]]
_Counts = np.ndarray[Any, np.dtype[np.int64]]
_Flags = np.ndarray[Any, np.dtype[np.bool_]]


def roc_curve(scores: _Floats, positive: _Flags) -> pd.DataFrame:
    """Return threshold, false_positive_rate and true_positive_rate, thresholds falling.

    The first row says that of no row, the last of every row (Fawcett, 2006: An introduction to ROC
    analysis). Rates are NaN where no row is negative, or none positive.

    Args:
        scores: of the rows, shaped (rows,).
        positive: whether each row is of the class.

    >>> roc_curve(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False]))
       threshold  false_positive_rate  true_positive_rate
    0        0.9                  0.0                 0.0
    1        0.4                  0.0                 0.5
    2        0.1                  0.5                 1.0
    3       -inf                  1.0                 1.0
    """
    thresholds, hits, alarms = _tallies(scores, positive)
    return pd.DataFrame(
        {
            "threshold": thresholds,
            "false_positive_rate": _share(alarms, alarms[-1], np.nan),
            "true_positive_rate": _share(hits, hits[-1], np.nan),
        }
    )


def area(curve: pd.DataFrame) -> float:
    """Return the area under a curve of `roc_curve`, by trapezoids; NaN where its rates are.

    It is the chance that a row of the class scores above another row, ties counting half.

    >>> area(roc_curve(np.array([0.9, 0.4, 0.4, 0.1]), np.array([True, True, False, False])))
    0.875
    """
    rates = curve["false_positive_rate"].to_numpy(), curve["true_positive_rate"].to_numpy()
    return float(np.trapezoid(rates[1], rates[0]))


def precision_recall_curve(scores: _Floats, positive: _Flags) -> pd.DataFrame:
    """Return threshold, precision and recall, thresholds falling.

    The first row says the class of no row; its precision is set to 1. Recall is 1 in all others
    where no row is of the class.

    Args:
        scores: of the rows, shaped (rows,).
        positive: whether each row is of the class.
    """
    thresholds, hits, alarms = _tallies(scores, positive)
    said = hits + alarms
    recall = _share(hits, hits[-1], 1.0)
    recall[0] = 0.0
    precision = np.append(1.0, hits[1:] / said[1:])
    return pd.DataFrame({"threshold": thresholds, "precision": precision, "recall": recall})


def average_precision(curve: pd.DataFrame) -> float:
    """Return the mean precision over a curve of `precision_recall_curve`, weighted by recall.

    That is Σ (Rₙ − Rₙ₋₁) Pₙ, without straight lines between the points, which would promise too
    much (Davis and Goadrich, 2006). It is 0 where no row is of the class.
    """
    gained = np.diff(curve["recall"].to_numpy())
    return float((gained * curve["precision"].to_numpy()[1:]).sum())


def positives(classes: tuple[str, ...], positive: str | None) -> tuple[str, ...]:
    """Return the class that is meant; where none is, the second of two, or each of several.

    Raises:
        UnknownNameError: there is no such class.
    """
    if positive is None:
        return classes[1:] if len(classes) == 2 else classes
    if positive not in classes:
        raise UnknownNameError("class", str(positive), classes)
    return (positive,)


def top_k_share(chances: _Floats, targets: _Counts, k: int) -> float:
    """Return the share of rows whose true class is among the `k` likeliest.

    Of classes that are as likely, the first counts as the likelier, as where one is decided for.

    Args:
        chances: shaped (rows, classes).
        targets: the indices of the true classes, shaped (rows,).
        k: from 1 to the number of classes.

    Raises:
        RequestError: `k` is something else.
    """
    n_classes = chances.shape[1]
    if isinstance(k, bool) or not isinstance(k, Integral) or not 1 <= k <= n_classes:
        raise RequestError(f"top_k got {k!r}, expected a whole number from 1 to {n_classes}")
    own = np.take_along_axis(chances, targets[:, None], axis=1)
    earlier = np.arange(n_classes) < targets[:, None]
    ahead = (chances > own) | ((chances == own) & earlier)
    return float((ahead.sum(1) < k).mean())


def _tallies(scores: _Floats, positive: _Flags) -> tuple[_Floats, _Counts, _Counts]:
    """Return thresholds, and how many rows of the class and how many others score above each."""
    order = np.argsort(-scores, kind="stable")
    ranked, flags = scores[order], positive[order]
    ends = np.append(np.flatnonzero(np.diff(ranked)), len(ranked) - 1)  # of each run of ties
    hits = np.append(0, flags.cumsum()[ends])
    said = np.append(0, ends + 1)
    return np.append(ranked[ends], -np.inf), hits, said - hits


def _share(counts: _Counts, total: int, undefined: float) -> _Floats:
    if total == 0:
        return np.full(len(counts), undefined)
    return counts / total
