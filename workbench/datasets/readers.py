"""Rows from what people have: pairs of arrays, frames, CSV files, image folders, torch datasets."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset as TorchDataset
from torch.utils.data import IterableDataset

from workbench.datasets.folders import pixels_of, read_folder
from workbench.errors import RequestError, UnknownNameError
from workbench.preprocessing import as_tensor
from workbench.progress import progress

if TYPE_CHECKING:
    from pandas import DataFrame

__all__ = ["Rows", "read"]


@dataclass(frozen=True, eq=False)
class Rows:
    """What was read for one part of a dataset, before it is checked.

    Args:
        inputs: whatever `as_tensor` takes.
        targets: words, integers or floats, a row each.
        features: names of a table's columns; empty where they have none.
        classes: names that integer targets are indices of, or None where none are known.
        kind: what it came from.
        origin: the same in words, for a card.
    """

    inputs: Any
    targets: Any
    features: tuple[str, ...] = ()
    classes: tuple[str, ...] | None = None
    kind: Literal["pair", "table", "folder", "torch"] = "pair"
    origin: str = "given as arrays"

    def ordered_as(self, features: tuple[str, ...], key: str) -> Rows:
        """Return the rows with a frame's columns in the order of `features`.

        Raises:
            RequestError: the frame of part `key` lacks one of them.
        """
        unnamed = self.features == tuple(map(str, range(len(self.features))))
        if not features or unnamed or self.features == features:
            return self
        missing = [name for name in features if name not in self.features]
        if missing:
            raise RequestError(
                f"{key} lacks the columns {', '.join(missing[:5])} of train: pass frames of the "
                "same columns"
            )
        places = [self.features.index(name) for name in features]
        return replace(self, inputs=self.inputs.iloc[:, places], features=features)


def read(key: str, given: Any, *, target: str | None, image_size: Any) -> Rows:
    """Return the rows of one part, whatever they were given as.

    Args:
        key: the part: `"train"`, `"validation"` or `"test"`.
        given: a pair (inputs, targets), a DataFrame, the path of a CSV file or of an image folder,
            or a torch Dataset.
        target: the column of a table that is to be predicted.
        image_size: (height, width) that a folder's images get, one number for both, or None.

    Raises:
        RequestError: it is none of these, or cannot be read.
        SourceError: the decoded images cannot be kept.
    """
    if isinstance(given, (tuple, list)) and len(given) == 2:
        return Rows(given[0], given[1], features=_names(given[0]))
    if isinstance(given, (str, Path)):
        return _from_path(key, Path(given).expanduser(), target, image_size)
    if hasattr(given, "columns") and hasattr(given, "iloc"):
        return _from_frame(f"the DataFrame of {key}", given, target)
    if isinstance(given, TorchDataset):
        return _from_torch(key, given)
    number = ", or a number of rows" if key == "validation" else ""
    raise RequestError(
        f"{key} is a {type(given).__name__}, expected {key}=(inputs, targets), a DataFrame, the "
        f"path of a CSV file or of an image folder, a torch Dataset{number}"
    )


def _from_path(key: str, path: Path, target: str | None, image_size: Any) -> Rows:
    if path.is_dir():
        images, indices, classes = read_folder(path, image_size)
        origin = f"read from the folder {path.name}"
        return Rows(images, indices, classes=classes, kind="folder", origin=origin)
    if not path.exists():
        raise RequestError(f"{key}: there is no {path} (seen from {Path.cwd()})")
    if path.name.lower().endswith((".csv", ".csv.gz")):
        return _from_csv(path, target)
    raise RequestError(
        f"{key}: {path} is neither a folder of images nor a .csv or .csv.gz: read it yourself and "
        f"pass {key}=(inputs, targets)"
    )


def _from_csv(path: Path, target: str | None) -> Rows:
    """Return the rows of a CSV file whose first line names the columns."""
    import pandas as pd

    try:
        frame = pd.read_csv(path, low_memory=False)  # a column has one type throughout
    except pd.errors.EmptyDataError:
        raise RequestError(f"{path} is empty, expected a line of column names and rows") from None
    except (OSError, EOFError, ValueError) as error:
        raise RequestError(f"{path} cannot be read as CSV: {str(error).strip()}") from None
    unnamed = any(str(name).startswith("Unnamed: ") for name in frame.columns)
    if unnamed or not frame.index.equals(pd.RangeIndex(len(frame))):  # rows longer than the names
        raise RequestError(
            f"{path} has a column without a name, maybe an index: pass "
            f"pandas.read_csv({str(path)!r}, index_col=0), or name the column"
        )
    rows = _from_frame(str(path), frame, target)
    return replace(rows, origin=f"read from {path.name}")


def _from_frame(what: str, frame: DataFrame, target: str | None) -> Rows:
    """Return column `target` of a frame as targets, the others as inputs."""
    names = ", ".join(map(str, frame.columns[:8]))
    if target is None:
        raise RequestError(f"{what} has the columns {names}: pass target=, the one to predict")
    if target not in frame.columns:
        raise UnknownNameError(f"column of {what}", target, map(str, frame.columns))
    twice = sorted({str(name) for name in frame.columns[frame.columns.duplicated()]})
    if twice:
        raise RequestError(f"{what} has two columns {', '.join(twice)}: give each its own name")
    if len(frame) == 0 or frame.shape[1] == 1:
        raise RequestError(
            f"{what} has {len(frame)} rows and {frame.shape[1] - 1} columns beside {target}: "
            "it takes at least one of each"
        )
    _check_missing(what, frame)
    inputs, targets = frame.drop(columns=target), _column(what, frame, target)
    origin = "given as a DataFrame"
    return Rows(inputs, targets, features=_names(inputs), kind="table", origin=origin)


def _names(inputs: Any) -> tuple[str, ...]:
    return tuple(map(str, getattr(inputs, "columns", ())))


def _column(what: str, frame: DataFrame, target: str) -> Any:
    """Return the targets of a frame as an array of words, integers, booleans or floats."""
    column = frame[target]
    if column.dtype == "category":  # classes, also where they are floats
        kind = column.cat.categories.dtype
        column = column.astype(str if kind.kind == "f" else kind)
    if column.dtype.kind == "f":
        return column.to_numpy(dtype=np.float32)
    if column.dtype.kind in "biu":
        return column.to_numpy(dtype=bool if column.dtype.kind == "b" else np.int64)
    if column.dtype.kind != "O":
        raise RequestError(
            f"column {target} of {what} is of {column.dtype}, expected words, integers or floats"
        )
    return column.to_numpy(dtype=object)


def _check_missing(what: str, frame: DataFrame) -> None:
    missing = frame.isna().to_numpy()
    rows = np.flatnonzero(missing.any(axis=1))
    if not len(rows):
        return
    where = [
        f"row {row} ({', '.join(map(str, frame.columns[missing[row]][:3]))})" for row in rows[:3]
    ]
    raise RequestError(
        f"{what} misses values in {len(rows)} of {len(frame)} rows: {', '.join(where)}"
        f"{', ...' if len(rows) > 3 else ''}. Drop those rows (frame.dropna()) or fill them in"
    )


def _from_torch(key: str, given: Any) -> Rows:
    """Return the items of a map-style torch dataset, stacked."""
    kind = type(given).__name__
    if isinstance(given, IterableDataset) or not hasattr(given, "__len__"):
        raise RequestError(
            f"{key} is the torch dataset {kind} without a length, which can only be streamed: "
            "pass a DataLoader of it to fit"
        )
    if len(given) == 0:
        raise RequestError(f"{key} is the torch dataset {kind} of 0 items, expected at least one")
    inputs, targets = _stacked(key, given)
    classes = None if targets.dtype.kind == "f" else _classes_of(given)
    if classes and targets.dtype.kind in "iu":
        lowest, highest = targets.min(), targets.max()
        if lowest < 0 or highest >= len(classes):
            raise RequestError(
                f"targets of {key} run from {lowest} to {highest}, expected 0 to "
                f"{len(classes) - 1} for the {len(classes)} names of {kind}.classes"
            )
    origin = f"read from the torch dataset {kind}"
    return Rows(inputs, targets, classes=classes, kind="torch", origin=origin)


def _classes_of(given: Any) -> tuple[str, ...] | None:
    """Return the class names of a dataset, or of the one that it is a subset of."""
    while not hasattr(given, "classes") and hasattr(given, "dataset"):
        given = given.dataset
    names: Sequence[Any] | None = getattr(given, "classes", None)
    return None if names is None else tuple(map(str, names))


def _stacked(key: str, given: Any) -> tuple[Tensor, Any]:
    """Return inputs and targets of all items; a random transform is drawn once."""
    inputs, targets = torch.empty(0), []
    with progress(len(given), f"reading {key}", unit="row") as bar:
        for row in range(len(given)):
            raw, target = _item(key, row, given[row])
            if row == 0:
                inputs = torch.empty((len(given), *raw.shape), dtype=raw.dtype)
            alike = (raw.shape, raw.dtype) == (inputs.shape[1:], inputs.dtype)
            _check_alike(alike, f"inputs of {key}", row, inputs[0], raw)
            inputs[row] = raw
            targets.append(np.asarray(target))
            first, last = targets[0], targets[row]
            alike = (first.shape, first.dtype.kind) == (last.shape, last.dtype.kind)
            _check_alike(alike, f"targets of {key}", row, first, last)
            bar.update()
    return inputs, np.stack(targets)


def _check_alike(alike: bool, what: str, row: int, first: Any, other: Any) -> None:
    if not alike:
        raise RequestError(
            f"{what} differ: that of item 0 has the shape {tuple(first.shape)} and the type "
            f"{first.dtype}, that of item {row} {tuple(other.shape)} and {other.dtype}: make them "
            "alike, for instance by the dataset's transform"
        )


def _item(key: str, row: int, item: Any) -> tuple[Tensor, Any]:
    """Return input and target of one item."""
    if not isinstance(item, (tuple, list)) or len(item) != 2:
        raise RequestError(
            f"item {row} of {key} is a {type(item).__name__}, expected (input, target)"
        )
    given, target = item
    if hasattr(given, "getbands"):
        try:
            given = pixels_of(given)
        except ValueError as error:
            raise RequestError(f"item {row} of {key} cannot be taken: {error}") from None
    raw = as_tensor(given)
    if isinstance(given, Tensor) and _has_channels_first(raw):
        return raw.permute(1, 2, 0), target
    return raw.float().reshape(1) if raw.ndim == 0 else raw, target


def _has_channels_first(raw: Tensor) -> bool:
    """Return whether pixels lie as torch has them, (channels, H, W), not as pictures do."""
    channels = (1, 3, 4)
    pixels = raw.dtype == torch.uint8 and raw.ndim == 3
    return pixels and raw.shape[0] in channels and raw.shape[2] not in channels
