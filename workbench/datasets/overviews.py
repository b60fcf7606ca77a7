"""What a person wants to see of a dataset: rows found, how many of each class, what is usual."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.datasets.splits import Dataset, Split
from workbench.errors import RequestError, UnknownNameError

__all__ = ["balance", "column_names", "find_rows", "is_image", "mean_images", "parts", "statistics"]

_NUMBER = r"[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?"
_CONDITION = re.compile(rf"(.+?)\s*(<=|>=|!=|==|=|<|>)\s*({_NUMBER})")
_COMPARE: Mapping[str, Callable[[Any, float], Any]] = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne,
    "==": operator.eq, "=": operator.eq, "<": operator.lt, ">": operator.gt,
}  # fmt: skip
_CHUNK = 2**24  # values that are turned into floats at once


def parts(data: Dataset) -> dict[str, Split]:
    """Return the splits that a dataset has, by name."""
    named = {"train": data.train, "validation": data.validation, "test": data.test}
    return {name: split for name, split in named.items() if split is not None}


def is_image(split: Split) -> bool:
    """Return whether a page can show the rows: uint8, shaped (rows, height, width[, 1 or 3])."""
    shape = split.inputs.shape[1:]
    seen = len(shape) == 2 or (len(shape) == 3 and shape[2] in (1, 3))
    return seen and split.inputs.dtype == torch.uint8


def column_names(features: Sequence[str], n: int) -> list[str]:
    """Return what the `n` columns of a table are called: `x1` and so on where they have no names.

    >>> column_names((), 2)
    ['x1', 'x2']
    """
    return list(features) or [f"x{number}" for number in range(1, n + 1)]


def find_rows(
    split: Split, *, of: str = "", search: str = "", columns: Sequence[str] = ()
) -> Tensor:
    """Return the indices of the rows that are sought, in their order.

    Args:
        split: where to look.
        of: a class, or empty for all.
        search: empty for all; a row's number; a part of a class's name; or a condition on a column
            of a table, or on the target of a regression: `"mean area > 800"`, `"target <= 10"`.
        columns: what the columns are called.

    Raises:
        UnknownNameError: there is no such class or column.
        RequestError: nothing that can be sought is said.
    """
    wanted = torch.ones(len(split), dtype=torch.bool)
    if of:
        if of not in split.classes:
            raise UnknownNameError("class", of, split.classes)
        wanted &= split.targets == split.classes.index(of)
    text = search.strip()
    if text.isdecimal():
        rows = torch.arange(len(split), dtype=torch.float64)
        wanted &= rows == float(text)  # of which no text is too long
    elif found := _CONDITION.fullmatch(text):
        wanted &= _COMPARE[found[2]](_column(split, found[1], columns), float(found[3]))
    elif text:
        wanted &= _named(split, text)
    return wanted.nonzero()[:, 0]


def balance(data: Dataset) -> pd.DataFrame:
    """Return how many rows of each class each split has: a row a class, a column a split."""
    counts = {
        name: np.bincount(split.targets.numpy(), minlength=len(data.classes))
        for name, split in parts(data).items()
    }
    return pd.DataFrame(counts, index=pd.Index(data.classes, name="class"))


def statistics(split: Split, columns: Sequence[str]) -> pd.DataFrame:
    """Return mean, sd, min, median and max of the first columns of a table, a row a column.

    Args:
        split: of the table.
        columns: what these first columns are called.
    """
    rows = split.inputs.reshape(len(split), -1)[:, : len(columns)].double().numpy()
    return pd.DataFrame(
        {
            "mean": rows.mean(0),
            "sd": rows.std(0),
            "min": rows.min(0),
            "median": np.median(rows, axis=0),
            "max": rows.max(0),
        },
        index=pd.Index(list(columns), name="column"),
    )


def mean_images(split: Split, classes: int) -> dict[str, Tensor]:
    """Return the mean image of each of the first classes that has rows, float32 as an image.

    Args:
        split: of images.
        classes: how many of them at most; where there are none, all rows count as one.
    """
    names = split.classes[:classes] or ("all",)
    sums = torch.zeros(len(names), *split.inputs.shape[1:])
    targets = split.targets if split.classes else torch.zeros(len(split), dtype=torch.long)
    wanted = (targets < len(names)).nonzero()[:, 0]
    for rows in wanted.split(max(1, _CHUNK // split.inputs[0].numel())):
        sums.index_add_(0, targets[rows], split.inputs[rows].float())
    counts = torch.bincount(targets[wanted], minlength=len(sums))
    return {name: sums[i] / counts[i] for i, name in enumerate(names) if counts[i]}


def _column(split: Split, name: str, columns: Sequence[str]) -> Tensor:
    name = name.strip()
    if name == "target" and not split.classes and split.targets.ndim == 1:
        return split.targets
    known = [] if is_image(split) else list(columns)
    if name not in known:
        raise UnknownNameError("column", name, [*known, *([] if split.classes else ["target"])])
    return split.inputs.reshape(len(split), -1)[:, known.index(name)]


def _named(split: Split, text: str) -> Tensor:
    found = [i for i, name in enumerate(split.classes) if text.lower() in name.lower()]
    if not found:
        raise RequestError(
            f"nothing is called {text!r}: search for a row's number, a part of a class's name, or "
            "a condition such as 'x1 > 1.5'"
        )
    return torch.isin(split.targets, torch.tensor(found))
