"""Whether probabilities mean what they say: of rows said at 80 %, are 80 % right?"""

from __future__ import annotations

import math
from numbers import Integral
from typing import Any

import numpy as np
import pandas as pd

from workbench.errors import RequestError

__all__ = ["best_temperature", "brier_score", "calibration_bins", "expected_error"]

_Floats = np.ndarray[Any, np.dtype[np.float64]]
_Counts = np.ndarray[Any, np.dtype[np.int64]]
_Flags = np.ndarray[Any, np.dtype[np.bool_]]

_COLDEST, _HOTTEST = 0.05, 20.0  # a best temperature beyond these is none
_HALVINGS = 40  # of the logarithms between: to 12 digits


def calibration_bins(confidence: _Floats, right: _Flags, bins: int) -> pd.DataFrame:
    """Return how sure and how often right the rows of each bin of confidence were, a row a bin.

    The bins are as wide as each other and hold their upper edge. Columns: from, to, rows,
    confidence (its mean) and accuracy, both NaN in an empty bin.

    Args:
        confidence: the probability of what was said of each row, shaped (rows,).
        right: whether it was right.
        bins: how many.

    Raises:
        RequestError: `bins` is no whole number from 1 up.
    """
    if isinstance(bins, bool) or not isinstance(bins, Integral) or bins < 1:
        raise RequestError(f"bins must be a whole number from 1 up, got {bins!r}")
    edges = np.linspace(0, 1, int(bins) + 1)
    place = np.searchsorted(edges[1:-1], confidence)
    rows = np.bincount(place, minlength=int(bins))
    filled = np.where(rows > 0, rows, np.nan)
    return pd.DataFrame(
        {
            "from": edges[:-1],
            "to": edges[1:],
            "rows": rows,
            "confidence": np.bincount(place, confidence, minlength=int(bins)) / filled,
            "accuracy": np.bincount(place, right, minlength=int(bins)) / filled,
        }
    )


def expected_error(table: pd.DataFrame) -> float:
    """Return the mean gap between confidence and accuracy over bins, weighted by their rows.

    The expected calibration error: Σ rows / n · |accuracy − confidence| (Guo et al., 2017: On
    Calibration of Modern Neural Networks).

    Args:
        table: of `calibration_bins`.
    """
    gaps = (table["accuracy"] - table["confidence"]).abs().fillna(0.0)
    return float((gaps * table["rows"]).sum() / table["rows"].sum())


def brier_score(chances: _Floats, targets: _Counts) -> float:
    """Return the mean squared distance of the probabilities from the truth (Brier, 1950).

    As in scikit-learn, of two classes it is that of the second's probability alone, from 0 to 1;
    of several the sum over the classes, from 0 to 2.

    Args:
        chances: shaped (rows, classes).
        targets: the indices of the true classes, shaped (rows,).
    """
    truth = np.eye(chances.shape[1])[targets]
    distances = ((chances - truth) ** 2).sum(1)
    return float(distances.mean() / (2 if chances.shape[1] == 2 else 1))


def best_temperature(logits: _Floats, targets: _Counts) -> float:
    """Return the T that minimizes the mean cross-entropy of softmax(logits / T).

    The loss is convex in 1/T, so its slope there, the mean of E[z] - z_true, changes its sign once:
    it is halved in on. From 0.05, where the loss falls all the way (every row is right), to 20,
    where the logits are worse than none.

    Args:
        logits: shaped (rows, classes).
        targets: the indices of the true classes, shaped (rows,).
    """
    centred = logits - logits.max(1, keepdims=True)
    own = np.take_along_axis(centred, targets[:, None], axis=1)[:, 0].mean()
    low, high = math.log(_COLDEST), math.log(_HOTTEST)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        weights = np.exp(centred * math.exp(-middle))
        slope = ((weights * centred).sum(1) / weights.sum(1)).mean() - own
        low, high = (middle, high) if slope > 0 else (low, middle)
    return math.exp((low + high) / 2)
