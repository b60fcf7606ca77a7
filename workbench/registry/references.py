"""What rows of a version's data looked like, and its answers to them: what drift is from.

They are rows of the validation split where there is one: of rows that it was trained on a model is
surer than of any others. No row is kept, only how the figures of the rows are distributed: of a
table each feature, of an image its brightness, contrast and channels, of any other row its mean and
spread; of the answers the shares of the classes and how sure they are, or the values.
`reference.json` is

    {"format": 1, "rows": 2000, "rows_of": "validation",
     "inputs": {"age": {"edges": [...], "shares": [...]}, ...},
     "outputs": {"top_probability": {...}}, "classes": {"cat": 0.4, "dog": 0.6}}

A value lies in the bin whose number is how many edges are below it, so there is one bin more than
edges. The first edge is just below the least value of the reference and the last edge its greatest:
the outer bins have the share 0 and are for values never seen; between them lie the deciles. With
the shares p of the reference and q of later rows, the population stability index is the sum of
(q - p) ln(q / p) over bins that are not empty in both, where a share of 0 is first raised to half
a row's, and the statistic of Kolmogorov and Smirnov is the greatest |cumsum(q - p)|.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.evaluation import Prediction
from workbench.preprocessing import Preprocessing
from workbench.types import JSON

__all__ = ["Figures", "Histogram", "Reference", "input_figures", "output_figures"]

_FORMAT = 1
_DECILES = np.arange(1, 10) / 10
_MANY = 100  # values that a row of answers may have, to look at each of them
_PART = 256  # rows that are made into floats at once

Figures = dict[str, np.ndarray[Any, np.dtype[np.float64]]]


@dataclass(frozen=True)
class Histogram:
    """How one figure is distributed.

    Args:
        edges: of the bins, ascending.
        shares: of the rows, one for each bin, one more than edges.
    """

    edges: tuple[float, ...]
    shares: tuple[float, ...]

    @classmethod
    def of(cls, values: np.ndarray[Any, Any]) -> Histogram:
        """Return how finite values, shaped (rows,), are distributed over their own deciles."""
        inner = np.quantile(values, _DECILES, method="inverted_cdf")
        least = np.nextafter(values.min(), -math.inf)
        edges = tuple(np.unique([least, *inner, values.max()]).tolist())
        return cls(edges, cls(edges, ()).shares_of(values))

    def shares_of(self, values: np.ndarray[Any, Any]) -> tuple[float, ...]:
        """Return which shares of other values, shaped (rows,), lie in these bins."""
        counts = self.counts_of(values)
        return tuple(count / max(1, len(values)) for count in counts)

    def counts_of(self, values: np.ndarray[Any, Any]) -> list[int]:
        """Return how many of other values, shaped (rows,), lie in each bin.

        What is no number lies in the last one, that of values never seen.
        """
        bins = np.searchsorted(self.edges, values, side="left")
        found: list[int] = np.bincount(bins, minlength=len(self.edges) + 1).tolist()
        return found

    @classmethod
    def from_json(cls, data: JSON) -> Histogram:
        """Return the histogram that `Reference.to_json` wrote.

        Raises:
            ValueError: the numbers are those of no histogram.
        """
        edges, shares = (tuple(map(float, data[key])) for key in ("edges", "shares"))
        ascending = all(a < b for a, b in pairwise(edges))
        if not (edges and ascending and len(shares) == len(edges) + 1):
            raise ValueError(f"{len(edges)} edges and {len(shares)} shares make no histogram")
        return cls(edges, shares)


@dataclass(frozen=True)
class Reference:
    """The distributions of some rows' figures, and of the answers to them.

    Args:
        rows: how many rows were looked at.
        inputs: by figure, as `input_figures` names them.
        outputs: by figure, as `output_figures` names them.
        classes: the share of the rows that was put into each class; empty for a regression.
        rows_of: the split that they are of, `"validation"` or `"train"`.
    """

    rows: int
    inputs: Mapping[str, Histogram]
    outputs: Mapping[str, Histogram]
    classes: Mapping[str, float]
    rows_of: str = "train"  # as all of them were that do not say

    @classmethod
    def of(
        cls, raw: Tensor, output: Tensor, preprocessing: Preprocessing, rows_of: str = "train"
    ) -> Reference:
        """Return the reference of rows and the answers to them.

        Args:
            raw: rows, shaped (rows, ...).
            output: what the model answers to them, shaped (rows, ...).
            preprocessing: of the model.
            rows_of: the split that they are of.
        """
        return cls(
            len(raw),
            _histograms(input_figures(raw, preprocessing)),
            _histograms(output_figures(output, preprocessing)),
            _class_shares(output, preprocessing),
            rows_of,
        )

    def origin(self) -> JSON:
        """Return how many rows of which split it is of."""
        return {"rows": self.rows, "rows_of": self.rows_of}

    def to_json(self) -> JSON:
        """Return the reference as `reference.json` holds it."""
        parts = {"inputs": self.inputs, "outputs": self.outputs}
        return {
            "format": _FORMAT,
            **self.origin(),
            **{key: {n: vars(h) for n, h in part.items()} for key, part in parts.items()},
            "classes": dict(self.classes),
        }

    @classmethod
    def from_json(cls, data: JSON) -> Reference:
        """Return the reference that `to_json` wrote.

        Raises:
            KeyError, TypeError, ValueError: it did not write that.
        """
        if data["format"] != _FORMAT:
            raise ValueError(f"format {data['format']!r}, expected {_FORMAT}")
        inputs, outputs = (
            {name: Histogram.from_json(part) for name, part in data[key].items()}
            for key in ("inputs", "outputs")
        )
        classes = {name: float(share) for name, share in data["classes"].items()}
        rows_of = str(data.get("rows_of", "train"))
        return cls(int(data["rows"]), inputs, outputs, classes, rows_of)


def input_figures(raw: Tensor, preprocessing: Preprocessing) -> Figures:
    """Return what is watched of raw rows, by name, each shaped (rows,).

    Args:
        raw: shaped (rows, ...), as `preprocessing.batch` returns them.
        preprocessing: says what a row is.
    """
    if preprocessing.kind == "table":
        names = preprocessing.features or [f"feature_{i}" for i in range(raw.shape[1])]
        return dict(zip(names, _floats(raw).T, strict=True))
    if preprocessing.kind != "image":
        return _mean_and_std(raw, "mean", "std")
    figures = _mean_and_std(raw, "brightness", "contrast")
    channels = raw.unbind(-1) if raw.ndim == 4 and raw.shape[-1] > 1 else ()
    for i, channel in enumerate(channels):
        figures[f"channel_{i}"] = _mean_and_std(channel, "mean", "std")["mean"]
    return figures


def output_figures(output: Tensor, preprocessing: Preprocessing) -> Figures:
    """Return what is watched of a model's answers, by name, each shaped (rows,).

    Args:
        output: shaped (rows, ...): logits, or values.
        preprocessing: names the classes.
    """
    chances = _chances(output, preprocessing)
    if chances is not None:
        both = torch.cat([chances, 1 - chances], 1) if chances.shape[1] == 1 else chances
        return {"top_probability": _floats(both.max(1).values)}
    if output.ndim <= 2 and output[:1].numel() <= _MANY:
        columns = _floats(output.reshape(len(output), -1)).T
        return {f"output_{i}": column for i, column in enumerate(columns)}
    return _mean_and_std(output, "mean", "std")


def _class_shares(output: Tensor, preprocessing: Preprocessing) -> dict[str, float]:
    if _chances(output, preprocessing) is None:
        return {}
    labels = Prediction.of(output, preprocessing).labels or []
    return {name: labels.count(name) / len(labels) for name in preprocessing.classes}


def _chances(output: Tensor, preprocessing: Preprocessing) -> Tensor | None:
    """Return the probabilities, shaped (rows, classes or 1); None where a row has no one class."""
    return Prediction.of(output, preprocessing).probabilities if output.ndim == 2 else None


def _histograms(figures: Figures) -> dict[str, Histogram]:
    """Return the histograms; a figure that is no number on any row has none."""
    finite = {name: values[np.isfinite(values)] for name, values in figures.items()}
    return {name: Histogram.of(values) for name, values in finite.items() if len(values)}


def _mean_and_std(rows: Tensor, mean: str, std: str) -> Figures:
    parts = [part.reshape(len(part), -1).double() for part in rows.split(_PART)]
    stds, means = zip(*(torch.std_mean(part, 1, correction=0) for part in parts), strict=True)
    found = {mean: _floats(torch.cat(means))}
    return {**found, std: _floats(torch.cat(stds))} if parts[0].shape[1] > 1 else found


def _floats(values: Tensor) -> np.ndarray[Any, np.dtype[np.float64]]:
    array: np.ndarray[Any, np.dtype[np.float64]] = values.double().cpu().numpy()
    return array
