"""`Dataset` and `Split`: named data in training, validation and test parts, with a fingerprint."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from workbench import journal
from workbench.datasets.readers import Rows, read
from workbench.determinism import generator
from workbench.errors import RequestError, SourceError
from workbench.home import data_home
from workbench.preprocessing import IN_MEMORY, as_tensor, check_finite, is_mapped
from workbench.types import JSON, Task

if TYPE_CHECKING:
    from workbench.pictures import Picture
    from workbench.widgets import DatasetView

__all__ = ["Card", "Dataset", "Split", "content_hash", "cut", "dataset", "sample"]

_MANY_CLASSES = 50  # as many are believed whatever the number of rows
_CHUNK = 4 * 2**20  # bytes that are copied at once
_CUT_SEED = 0  # a validation cut is part of the data, so no user's seed moves it


@dataclass(frozen=True)
class Card:
    """What a person should know of a dataset before using it."""

    description: str
    source: str = "given in this session"
    licence: str = "not stated"


@dataclass(frozen=True, eq=False)
class Split:
    """One part of a dataset.

    Args:
        inputs: raw rows, shaped (rows, ...); images are uint8 (rows, height, width[, channels]).
        targets: int64 class indices shaped (rows,), or float32 shaped (rows,) or (rows, outputs).
        classes: names in the order of the indices; empty for regression.
        features: names of a table's columns in order; empty where they have none.
        mapped: whether the inputs lie in a file, so that many of them are copied into a file too.
    """

    inputs: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = field(default=(), repr=False)
    mapped: bool = field(default=False, repr=False)

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, indices: Tensor) -> Split:
        """Return the rows at `indices`, shaped (n,), in that order, as a split of their own."""
        large = self.mapped and len(indices) * self.inputs[0].nbytes > IN_MEMORY
        inputs = _gathered(self.inputs, indices) if large else self.inputs[indices]
        return Split(inputs, self.targets[indices], self.classes, self.features, large)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Named data with its parts, class names, fingerprint and card.

    Args:
        name: as in `load(name)`.
        train: the part that models learn from.
        validation: the part that choices are made on, or None.
        test: the part that is reported, or None.
        fingerprint: SHA-256 of the content and of how it was cut; equal data, equal fingerprint.
        card: what it is, where it comes from, its licence.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    fingerprint: str
    card: Card

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the order of the targets; empty for regression."""
        return self.train.classes

    @property
    def features(self) -> tuple[str, ...]:
        """The names of a table's columns in order; empty where they have none."""
        return self.train.features

    @property
    def task(self) -> Task:
        """`"classification"` where there are classes, else `"regression"`."""
        return "classification" if self.classes else "regression"

    def show(self) -> DatasetView | Picture:
        """Return a view to browse in: rows, classes, statistics, augmentation.

        Where no page lives, headless or in a script, it is a picture.
        """
        from workbench.widgets import dataset

        return dataset(self)

    def __repr__(self) -> str:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part)
        shape = "×".join(map(str, self.train.inputs.shape[1:]))
        kind = f"{len(self.classes)} classes" if self.classes else "regression"
        return f"Dataset {self.name!r}: {sizes}; rows of {shape}; {kind}; {self.fingerprint[:12]}"


def dataset(
    name: str,
    *,
    train: Any,
    test: Any = None,
    validation: Any = None,
    target: str | None = None,
    image_size: int | tuple[int, int] | None = None,
    classes: Sequence[str] | None = None,
    card: Card | None = None,
) -> Dataset:
    """Return a dataset of your own arrays, tables, image files or torch datasets.

    Each part is one of these, and the parts of one call may differ:

    - a pair: inputs shaped (rows, ...) and targets shaped (rows,) or (rows, outputs);
    - a DataFrame, or the path of a .csv or .csv.gz file: column `target`, and numbers beside it;
    - the path of a folder with a sub-folder of images for each class. They are turned upright by
      their EXIF tag; colours become uint8 (rows, height, width, 3), all grey (rows, height, width);
      more than 256 MiB of them are decoded once, into a file below `WORKBENCH_DATA`;
    - a torch `Dataset` of (input, target) with a length; its `.classes` are the names.

    Targets of integers, booleans, words or categories make a classification, floats a regression.
    Arrays are not copied: writing into them afterwards would change the data behind its
    fingerprint. A memory map of float32 or integers is never read into memory as a whole.

    Args:
        name: what to call it.
        train: the rows to learn from.
        test: the rows to report on, or None.
        validation: the rows to choose by, or how many training rows to cut off for it, or None.
        target: the column of a DataFrame or CSV file that is to be predicted.
        image_size: height and width in pixels that a folder's images are cropped to, in the middle,
            and resized; one number for both; None where they have one size.
        classes: names of the integers 0, 1, ...; by default those of train, or the words or
            integers that occur.
        card: what a person should know of it.

    Raises:
        RequestError: a part cannot be read, inputs and targets differ in length, shapes differ
            between parts, a value is missing or no number, or a class has no name, or that of
            another.
        SourceError: the decoded images of a folder, or a part that was cut off a memory map, cannot
            be kept on the disk.

    >>> dataset("xor", train=([[0., 0.], [0., 1.], [1., 0.], [1., 1.]], [0, 1, 1, 0]))
    Dataset 'xor': 4 train; rows of 2; 2 classes; 8f9e5da25d8b
    >>> import pandas as pd
    >>> flats = pd.DataFrame({"area": [50, 80], "rooms": [2, 3], "rent": [500.0, 850.0]})
    >>> dataset("flats", train=flats, target="rent").features
    ('area', 'rooms')
    """
    n_held = int(validation) if isinstance(validation, Integral) else 0
    held_rows = None if isinstance(validation, Integral) else validation
    rows = _read({"train": train, "test": test, "validation": held_rows}, target, image_size)
    known = rows["train"].classes if classes is None else tuple(classes)
    if known:
        rows = {key: _named(part, rows["train"].classes, known) for key, part in rows.items()}
    names = _class_names([part.targets for part in rows.values()], known)
    _check_names(names)
    features, indexed = rows["train"].features, known is not None
    parts = {key: _split(key, rows[key], names, features, indexed=indexed) for key in rows}
    for key, part in parts.items():
        if part.inputs.shape[1:] != parts["train"].inputs.shape[1:]:
            raise RequestError(
                f"{key} rows have the shape {tuple(part.inputs.shape[1:])}, "
                f"those of train {tuple(parts['train'].inputs.shape[1:])}: they must be equal"
            )
    kept, held = parts["train"], parts.get("validation")
    if n_held:
        kept, held = cut(kept, n_held)
    made = Dataset(
        name=name,
        train=kept,
        validation=held,
        test=parts.get("test"),
        fingerprint=_fingerprint(parts, {"validation": n_held or None}),
        card=card or Card(description=f"{name}, {rows['train'].origin}"),
    )
    journal.note("load", dataset=name, fingerprint=made.fingerprint)
    return made


def _read(given: dict[str, Any], target: str | None, image_size: Any) -> dict[str, Rows]:
    """Return the rows of the parts that were given, columns in the order of train's."""
    rows: dict[str, Rows] = {}
    for key, what in given.items():
        if what is not None or key == "train":
            part = read(key, what, target=target, image_size=image_size)
            rows[key] = part.ordered_as(rows["train"].features, key) if rows else part
    kinds = {part.kind for part in rows.values()}
    for option, value, kind, what in (
        ("target", target, "table", "DataFrame or CSV file"),
        ("image_size", image_size, "folder", "folder of images"),
    ):
        if value is not None and kind not in kinds:
            raise RequestError(f"{option} is {value!r}, but no part is a {what}: leave it out")
    return rows


def _named(rows: Rows, of_train: tuple[str, ...] | None, known: tuple[str, ...]) -> Rows:
    """Return rows whose targets are words where their integers do not count the known classes.

    Names that are not those of train are new names of its integers, which stay as they are.
    """
    named_anew = rows.classes == of_train and not {*(of_train or ())} <= {*known}
    if rows.classes in (None, known) or named_anew:
        return rows
    targets = np.asarray(rows.targets)
    if targets.dtype.kind not in "iu":
        return rows
    return replace(rows, targets=np.array(rows.classes, dtype=object)[targets])


def cut(split: Split, n: int) -> tuple[Split, Split | None]:
    """Return `split` without `n` rows, and those rows; stratified by class, always the same ones.

    Args:
        split: the rows to cut from; both parts keep their order.
        n: how many rows to cut off; 0 for none.

    Raises:
        RequestError: `n` is negative, or leaves nothing.
    """
    if not 0 <= n < len(split):
        raise RequestError(f"cannot cut {n} rows off {len(split)}: pass 0 to {len(split) - 1}")
    if n == 0:
        return split, None
    held = _stratified(split, n, "cut")
    return split.rows((~held).nonzero().flatten()), split.rows(held.nonzero().flatten())


def sample(split: Split, n: int) -> Split:
    """Return `n` rows of `split`, stratified by class; a smaller sample lies within a larger one.

    Args:
        split: the rows to draw from; they keep their order.
        n: how many rows to keep; all of them returns the split itself.

    Raises:
        RequestError: `n` is less than 1, or more than there are.
    """
    if not 1 <= n <= len(split):
        raise RequestError(f"cannot keep {n} rows of {len(split)}: pass 1 to {len(split)}")
    if n == len(split):
        return split
    return split.rows(_stratified(split, n, "sample").nonzero().flatten())


def _stratified(split: Split, n: int, purpose: str) -> Tensor:
    """Return a mask of `n` rows whose shares of the classes are those of the split.

    Rows get a rank within their class, in shuffled order; the n smallest ranks, as shares of their
    class, are the ones.
    """
    shuffled = torch.randperm(len(split), generator=generator(_CUT_SEED, purpose))
    if not split.classes:
        return _mask(shuffled[:n], len(split))
    labels = split.targets[shuffled]
    share = torch.empty(len(split), dtype=torch.float64)
    for label in range(len(split.classes)):
        members = (labels == label).nonzero().flatten()
        share[members] = (torch.arange(len(members), dtype=torch.float64) + 0.5) / len(members)
    return _mask(shuffled[share.argsort(stable=True)[:n]], len(split))


def _gathered(inputs: Tensor, indices: Tensor) -> Tensor:
    """Return the rows at `indices` in a temporary file, mapped; it is gone when they are.

    Raises:
        SourceError: the rows cannot be kept there.
    """
    try:
        data_home().mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=data_home()) as file:
            for part in indices.split(max(1, _CHUNK // inputs[0].nbytes)):
                file.write(inputs[part].flatten().view(torch.uint8).numpy().data)
            file.flush()
            array = np.memmap(file, np.uint8, "r+")
    except OSError as error:
        raise SourceError(
            f"{len(indices):,} rows of a memory map cannot be kept in {data_home()}: {error}. Make "
            "room or give write permission there, or set WORKBENCH_DATA to another folder."
        ) from error
    return torch.from_numpy(array).view(inputs.dtype).view(len(indices), *inputs.shape[1:])


def _mask(indices: Tensor, rows: int) -> Tensor:
    mask = torch.zeros(rows, dtype=torch.bool)
    mask[indices] = True
    return mask


def content_hash(*tensors: Tensor) -> str:
    """Return the SHA-256 of the tensors' dtypes, shapes and bytes, in order."""
    digest = hashlib.sha256()
    for tensor in tensors:
        digest.update(f"{tensor.dtype} {tuple(tensor.shape)};".encode())
        digest.update(tensor.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _fingerprint(parts: dict[str, Split], how: JSON) -> str:
    told: JSON = {
        "parts": {k: content_hash(p.inputs, p.targets) for k, p in sorted(parts.items())},
        "classes": parts["train"].classes,
        "cut": how,
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _class_names(targets: list[Any], given: Sequence[str] | None) -> tuple[str, ...]:
    """Return the names of the classes, or none where the targets are floats."""
    arrays = [np.asarray(t) for t in targets]
    if any(a.dtype.kind == "f" for a in arrays):
        if given:
            raise RequestError("classes were named, but targets are floats: pass integers or words")
        return ()
    values = {value for a in arrays for value in _values(a)}
    kinds = sorted({type(value).__name__ for value in values})
    one_kind = kinds == ["str"] or {*kinds} <= {"int", "bool"}
    if not one_kind and not (given and {*kinds} <= {"int", "bool", "str"}):
        raise RequestError(
            f"targets are of {' and '.join(kinds)}: pass all words, all integers or all floats"
        )
    if given:
        _check_indices([value for value in values if not isinstance(value, str)], len(given))
        return tuple(given)
    found = sorted(values)
    if len(found) > max(_MANY_CLASSES, sum(a.size for a in arrays) / 2):
        raise RequestError(
            f"targets have {len(found)} different values, too many for classes: "
            "pass floats for a regression"
        )
    return tuple(map(str, found))


def _check_names(classes: tuple[str, ...]) -> None:
    for name, n in Counter(classes).most_common(1):
        if n > 1:
            raise RequestError(
                f"{n} classes are called {name!r}: give each a name of its own by classes=[...]"
            )


def _values(targets: Any) -> list[Any]:
    """Return the different values of an array, without a list of millions of numbers."""
    few = targets if targets.dtype.kind == "O" else np.unique(targets)
    listed: list[Any] = few.ravel().tolist()
    return listed


def _check_indices(found: list[int], n: int) -> None:
    if found and not 0 <= min(found) <= max(found) < n:
        raise RequestError(
            f"class indices run from {min(found)} to {max(found)}, expected 0 to {n - 1} "
            f"for the {n} classes that were named"
        )


def _split(
    key: str, rows: Rows, classes: tuple[str, ...], features: tuple[str, ...], *, indexed: bool
) -> Split:
    """Return a checked part; `indexed` says that its targets are indices of the classes already."""
    inputs, targets = as_tensor(rows.inputs), _targets(key, rows.targets, classes, indexed=indexed)
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise RequestError(
            f"{key} has {len(inputs)} inputs and {len(targets)} targets: "
            "they must be as many, and at least one"
        )
    check_finite(f"inputs of {key}", inputs)
    check_finite(f"targets of {key}", targets)
    return Split(inputs, targets, classes, features, is_mapped(rows.inputs))


def _targets(key: str, given: Any, classes: tuple[str, ...], *, indexed: bool) -> Tensor:
    if not classes:
        return as_tensor(given)
    names = np.asarray(given)
    if names.ndim == 2 and names.shape[1] == 1:
        names = names[:, 0]
    if names.ndim != 1:
        raise RequestError(
            f"targets of {key} have the shape {names.shape}, expected (rows,) for classes: "
            "pass one class a row"
        )
    if indexed and names.dtype.kind not in "UO":
        return as_tensor(names).long()
    index = {name: i for i, name in enumerate(classes)}
    words = [str(name) for name in names.tolist()]
    unknown = sorted(set(words) - set(index))
    if unknown:
        raise RequestError(f"targets of {key} have no class: {unknown[:3]}; known: {classes}")
    return torch.tensor([index[word] for word in words], dtype=torch.int64)
