"""How a model does on parts of a split: by age, by source, by whatever has a name for each row."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.errors import RequestError
from workbench.evaluation.intervals import between, resampled_means, row_scores
from workbench.evaluation.significance import wilson

if TYPE_CHECKING:
    from workbench.evaluation.evaluations import Evaluation

__all__ = ["slices"]


def slices(evaluation: Evaluation, by: Any) -> pd.DataFrame:
    """Return how well each part of the rows was answered, a row a part, in the order of its name.

    Columns: rows; accuracy, or mse and mae; low and high of the first figure's 95 % interval: of a
    share by Wilson, which holds for few rows too, of mse by the bootstrap, NaN of one row alone.
    With many parts one is low by chance: of 20 that are alike, an interval misses the truth of one.

    Args:
        evaluation: of the whole.
        by: a name, number or category for each row of the split, in its order: an array, a Series
            (its index is ignored), a tensor or a list. Rows without one (None, NaN) are a part too.

    Raises:
        RequestError: there is not one for each row.
    """
    named = _names(by, len(evaluation))
    parts = named.groupby(named, dropna=False, observed=True).indices
    judge = _shares if evaluation.classes else _errors
    table = judge(evaluation, [torch.tensor(rows) for rows in parts.values()])
    names: list[Any] = list(parts)
    table.index = pd.Index(names, name=named.name or "slice")
    return table


def _names(by: Any, rows: int) -> pd.Series[Any]:
    values = by.numpy(force=True) if isinstance(by, Tensor) else by
    found = "one text" if isinstance(by, str) else f"the shape {np.shape(values)}"
    if np.shape(values) != (rows,):
        raise RequestError(
            f"by has {found}, expected ({rows},): pass a name for each row of the split"
        )
    return pd.Series(values)


def _shares(evaluation: Evaluation, parts: list[Tensor]) -> pd.DataFrame:
    right = row_scores(evaluation, "accuracy")
    counts = [(len(rows), int(right[rows].sum())) for rows in parts]
    found = [(n, hits / n, *wilson(hits, n)) for n, hits in counts]
    return pd.DataFrame(found, columns=["rows", "accuracy", "low", "high"])


def _errors(evaluation: Evaluation, parts: list[Tensor]) -> pd.DataFrame:
    squares, sizes = row_scores(evaluation, "mse"), row_scores(evaluation, "mae")
    found = []
    for rows in parts:
        own = squares[rows]
        ends = between(resampled_means(own)) if len(own) > 1 else (math.nan, math.nan)
        found.append((len(own), float(own.mean()), float(sizes[rows].mean()), *ends))
    return pd.DataFrame(found, columns=["rows", "mse", "mae", "low", "high"])
