"""`Dataset` and `Split`: named data in training, validation and test parts, with a fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from workbench import journal
from workbench.determinism import generator
from workbench.errors import RequestError
from workbench.preprocessing import as_tensor
from workbench.types import JSON, Task

__all__ = ["Card", "Dataset", "Split", "content_hash", "cut", "dataset", "sample"]

_CUT_SEED = 0  # a validation cut is part of the data, so no user's seed moves it


@dataclass(frozen=True)
class Card:
    """What a person should know of a dataset before using it."""

    description: str
    source: str = "given in this session"
    licence: str = "not stated"


@dataclass(frozen=True)
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


@dataclass(frozen=True)
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
        classes: names in the order of the integers; by default the words, or the integers.
        card: what a person should know of it.

    Raises:
        RequestError: inputs and targets differ in length, shapes differ between parts, a value is
            not a number, or a class has no name.

    >>> dataset("xor", train=([[0., 0.], [0., 1.], [1., 0.], [1., 1.]], [0, 1, 1, 0]))
    Dataset 'xor': 4 train; rows of 2; 2 classes; 8f9e5da25d8b
    """
    pairs = {"train": train, "test": test}
    if isinstance(validation, tuple):
        pairs["validation"] = validation
    names = _class_names([pair[1] for pair in pairs.values() if pair], classes)
    parts = {key: _split(key, pair, names) for key, pair in pairs.items() if pair}
    for key, part in parts.items():
        if part.inputs.shape[1:] != parts["train"].inputs.shape[1:]:
            raise RequestError(
                f"{key} rows have the shape {tuple(part.inputs.shape[1:])}, "
                f"those of train {tuple(parts['train'].inputs.shape[1:])}: they must be equal"
            )
    kept, held = parts["train"], parts.get("validation")
    cut_off = validation if isinstance(validation, int) else 0
    if cut_off:
        kept, held = cut(kept, cut_off)
    made = Dataset(
        name=name,
        train=kept,
        validation=held,
        test=parts.get("test"),
        fingerprint=_fingerprint(parts, {"validation": cut_off or None}),
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
    import numpy as np

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
    if not found or kinds == ["str"]:
        return tuple(given) if given else tuple(found)
    lowest, highest = int(found[0]), int(found[-1])
    if lowest < 0 or (given and highest >= len(given)):
        raise RequestError(
            f"class indices run from {lowest} to {highest}, expected 0 to "
            f"{len(given) - 1 if given else 'the number of classes less one'}; "
            "pass floats for a regression"
        )
    return tuple(given) if given else tuple(map(str, range(highest + 1)))


def _split(key: str, pair: tuple[Any, Any], classes: tuple[str, ...]) -> Split:
    import numpy as np

    inputs = as_tensor(pair[0])
    raw = pair[1] if isinstance(pair[1], Tensor) else np.asarray(pair[1])
    if not isinstance(raw, Tensor) and raw.dtype.kind in "UO":
        index = {name: i for i, name in enumerate(classes)}
        unknown = sorted(set(raw.tolist()) - set(index))
        if unknown:
            raise RequestError(f"targets of {key} have no class: {unknown[:3]}; known: {classes}")
        raw = np.array([index[word] for word in raw.tolist()])
    targets = as_tensor(raw).long() if classes else as_tensor(raw)
    if len(inputs) != len(targets) or len(inputs) == 0:
        raise RequestError(
            f"{key} has {len(inputs)} inputs and {len(targets)} targets: "
            "they must be as many, and at least one"
        )
    return Split(inputs, targets, classes)
