"""`Dataset` and `Split`: named data in training, validation and test parts, with a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from numbers import Integral
from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench import journal
from workbench.determinism import generator
from workbench.errors import RequestError
from workbench.preprocessing import as_tensor, check_finite
from workbench.types import JSON, Task

__all__ = ["Card", "Dataset", "Split", "content_hash", "cut", "dataset", "sample"]

_MANY_CLASSES = 50  # as many are believed whatever the number of rows
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
    """

    inputs: Tensor = field(repr=False)
    targets: Tensor = field(repr=False)
    classes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.inputs)

    def rows(self, indices: Tensor) -> Split:
        """Return the rows at `indices`, shaped (n,), in that order, as a split of their own."""
        return Split(self.inputs[indices], self.targets[indices], self.classes)


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
        features: names of a table's columns in order; empty where they have none.
    """

    name: str
    train: Split
    validation: Split | None
    test: Split | None
    fingerprint: str
    card: Card
    features: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the order of the targets; empty for regression."""
        return self.train.classes

    @property
    def task(self) -> Task:
        """`"classification"` where there are classes, else `"regression"`."""
        return "classification" if self.classes else "regression"

    def __repr__(self) -> str:
        parts = {"train": self.train, "validation": self.validation, "test": self.test}
        sizes = ", ".join(f"{len(part):,} {name}" for name, part in parts.items() if part)
        shape = "×".join(map(str, self.train.inputs.shape[1:]))
        kind = f"{len(self.classes)} classes" if self.classes else "regression"
        return f"Dataset {self.name!r}: {sizes}; rows of {shape}; {kind}; {self.fingerprint[:12]}"


def dataset(
    name: str,
    *,
    train: tuple[Any, Any],
    test: tuple[Any, Any] | None = None,
    validation: tuple[Any, Any] | int | None = None,
    classes: Sequence[str] | None = None,
    card: Card | None = None,
) -> Dataset:
    """Return a dataset of your own arrays, tensors or DataFrames.

    Targets of integers, booleans or words make a classification, floats a regression. Arrays are
    not copied: writing into them afterwards would change the data behind its fingerprint.

    Args:
        name: what to call it.
        train: inputs shaped (rows, ...) and targets shaped (rows,) or (rows, outputs).
        test: likewise, or None.
        validation: likewise, or how many training rows to cut off for it, or None for none.
        classes: names of the integers 0, 1, ...; by default the words or integers that occur.
        card: what a person should know of it.

    Raises:
        RequestError: inputs and targets differ in length, shapes differ between parts, a value is
            not a number, or a class has no name.

    >>> dataset("xor", train=([[0., 0.], [0., 1.], [1., 0.], [1., 1.]], [0, 1, 1, 0]))
    Dataset 'xor': 4 train; rows of 2; 2 classes; 8f9e5da25d8b
    """
    pairs: dict[str, Any] = {"train": train, "test": test}
    n_held = int(validation) if isinstance(validation, Integral) else 0
    if not isinstance(validation, Integral):
        pairs["validation"] = validation
    for key, pair in pairs.items():
        if pair is not None and not (isinstance(pair, (tuple, list)) and len(pair) == 2):
            number = ", or a number of rows" if key == "validation" else ""
            raise RequestError(
                f"{key} is a {type(pair).__name__}, expected {key}=(inputs, targets){number}"
            )
    names = _class_names([pair[1] for pair in pairs.values() if pair is not None], classes)
    parts = {
        key: _split(key, pair, names, indexed=classes is not None)
        for key, pair in pairs.items()
        if pair is not None
    }
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
        card=card or Card(description=f"{name}, given as arrays"),
        features=tuple(map(str, getattr(train[0], "columns", ()))),
    )
    journal.note("load", dataset=name, fingerprint=made.fingerprint)
    return made


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
    values = {value for a in arrays for value in a.ravel().tolist()}
    kinds = sorted({type(value).__name__ for value in values})
    if kinds != ["str"] and not {*kinds} <= {"int", "bool"}:
        raise RequestError(
            f"targets are of {' and '.join(kinds)}: pass all words, all integers or all floats"
        )
    found = sorted(values)
    if len(found) > max(_MANY_CLASSES, sum(a.size for a in arrays) / 2):
        raise RequestError(
            f"targets have {len(found)} different values, too many for classes: "
            "pass floats for a regression"
        )
    if not given or kinds == ["str"]:
        return tuple(given or map(str, found))
    if found and not 0 <= found[0] <= found[-1] < len(given):
        raise RequestError(
            f"class indices run from {found[0]} to {found[-1]}, expected 0 to {len(given) - 1} "
            f"for the {len(given)} classes that were named"
        )
    return tuple(given)


def _split(key: str, pair: tuple[Any, Any], classes: tuple[str, ...], *, indexed: bool) -> Split:
    """Return a checked part; `indexed` says that its targets are indices of the classes already."""
    inputs, targets = as_tensor(pair[0]), _targets(key, pair[1], classes, indexed=indexed)
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise RequestError(
            f"{key} has {len(inputs)} inputs and {len(targets)} targets: "
            "they must be as many, and at least one"
        )
    check_finite(f"inputs of {key}", inputs)
    check_finite(f"targets of {key}", targets)
    return Split(inputs, targets, classes)


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
