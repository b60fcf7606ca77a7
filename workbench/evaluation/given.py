"""What another model answered, checked: probabilities, labels or values of the rows of a split."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.datasets import Split
from workbench.errors import RequestError, UnknownNameError

__all__ = ["given_labels", "given_probabilities", "given_values"]

_Array = np.ndarray[Any, np.dtype[Any]]

_SLACK = 1e-3  # by how much a sum of probabilities may miss 1: half precision does


def given_probabilities(values: Any, split: Split) -> Tensor:
    """Return probabilities as a tensor (rows, classes), or (rows, 1) of the second of two classes.

    Args:
        values: shaped (rows, classes), or (rows,) or (rows, 1) of the second of two classes.
        split: of the rows.

    Raises:
        RequestError: they have another shape, lie outside 0 to 1, or do not sum to 1.
    """
    n_classes = len(split.classes)
    if not split.classes:
        raise RequestError("a regression has no probabilities: give values=")
    array = _numbers("probabilities", values)
    array = array[:, None] if array.ndim == 1 else array
    allowed = [(len(split), n_classes), *([(len(split), 1)] if n_classes == 2 else [])]
    if array.shape not in allowed:
        expected = " or ".join(map(str, allowed))
        raise RequestError(
            f"probabilities have the shape {np.shape(values)}, expected {expected}: a row for each "
            "of the split, and a column for each class"
        )
    if array.min() < 0 or array.max() > 1:
        raise RequestError(
            f"probabilities go from {array.min():g} to {array.max():g}, expected 0 to 1: give "
            "what predict_proba returned, or the softmax of logits"
        )
    sums = array.sum(1)
    if array.shape[1] > 1 and abs(sums - 1).max() > _SLACK:
        row = int(abs(sums - 1).argmax())
        raise RequestError(
            f"the probabilities of row {row} sum to {sums[row]:g}, expected 1: divide by the sum"
        )
    return torch.from_numpy(array)


def given_labels(values: Any, split: Split) -> Tensor:
    """Return labels as class indices, shaped (rows,).

    Args:
        values: names or indices of classes, or of two classes whether it is the second.
        split: of the rows.

    Raises:
        RequestError: there is not one for each row, or one is no class of the split.
    """
    if not split.classes:
        raise RequestError("a regression has no labels: give values=")
    array = _plain(values)
    if array.shape != (len(split),):
        raise RequestError(
            f"labels have the shape {array.shape}, expected ({len(split)},): one for each row"
        )
    if array.dtype.kind in "OUS":
        return torch.tensor([_index(split.classes, str(name)) for name in array.tolist()])
    top = len(split.classes) - 1
    if array.dtype.kind not in "biuf" or not np.isin(array, np.arange(top + 1)).all():
        strange = array[~np.isin(array, np.arange(top + 1))][:1].tolist()
        raise RequestError(
            f"labels hold {strange[0]!r}, expected class names or indices from 0 to {top}"
        )
    return torch.from_numpy(array.astype(np.int64))


def given_values(values: Any, split: Split) -> Tensor:
    """Return the values of a regression as a tensor (rows, outputs).

    Args:
        values: shaped (rows,) of a single output, or (rows, outputs).
        split: of the rows.

    Raises:
        RequestError: they have another shape, or one is not finite.
    """
    if split.classes:
        raise RequestError("a classification has no values: give probabilities= or labels=")
    array = _numbers("values", values)
    width = split.targets[0].numel()
    if array.shape != (len(split), width) and not (width == 1 and array.shape == (len(split),)):
        one = f"({len(split)},) or " if width == 1 else ""
        raise RequestError(
            f"values have the shape {array.shape}, expected {one}({len(split)}, {width})"
        )
    return torch.from_numpy(array.reshape(len(split), width))


def _index(classes: tuple[str, ...], name: str) -> int:
    if name not in classes:
        raise UnknownNameError("class", name, classes)
    return classes.index(name)


def _numbers(what: str, values: Any) -> _Array:
    """Return values as a float64 array of their own, all finite."""
    try:
        array = np.array(_plain(values), dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise RequestError(f"{what} are not an array of numbers: {error}") from None
    if not np.isfinite(array).all():
        row = int(np.argwhere(~np.isfinite(array))[0][0])
        raise RequestError(f"{what} are not finite, first in row {row}: expected numbers")
    return array


def _plain(values: Any) -> _Array:
    return values.detach().cpu().numpy() if isinstance(values, Tensor) else np.asarray(values)
