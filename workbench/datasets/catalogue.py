"""`load`: datasets by name, cut the same way every time, each with its fingerprint.

The table of names is plain data, so that listing them needs no torch.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from workbench import journal
from workbench.datasets.store import stored_file
from workbench.errors import RequestError, UnknownNameError
from workbench.types import JSON

if TYPE_CHECKING:
    from workbench.datasets.splits import Dataset

__all__ = ["fetch", "list_datasets", "load"]


@dataclass(frozen=True)
class _Entry:
    """What is known of a dataset before it is read.

    Args:
        module: of this folder, with a function of the dataset's name.
        train: rows to train on, before a validation cut.
        test: rows to test on; 0 for no test split.
        shape: of one row.
        validation: rows that are cut from train by default.
        fetched: whether it comes over the network, and is cached.
    """

    module: str
    train: int
    test: int
    shape: tuple[int, ...]
    validation: int = 0
    fetched: bool = False


_ENTRIES = {
    "breast_cancer": _Entry("bundled", 455, 114, (30,)),
    "cifar10": _Entry("cifar10", 50_000, 10_000, (32, 32, 3), validation=5_000, fetched=True),
    "diabetes": _Entry("bundled", 354, 88, (10,)),
    "digits": _Entry("bundled", 1_437, 360, (8, 8)),
    "fashion_mnist": _Entry(
        "fashion_mnist", 60_000, 10_000, (28, 28), validation=5_000, fetched=True
    ),
    "line": _Entry("line", 5, 0, (1,)),
    "wide": _Entry("wide", 5_000, 2_000, (1_000,), validation=1_000),
    "wide_nonlinear": _Entry("wide", 5_000, 2_000, (1_000,), validation=1_000),
}


def load(name: str, *, validation: int | None = None, train_limit: int | None = None) -> Dataset:
    """Return a dataset by its name, fetched first where it is not cached.

    Args:
        name: one of `list_datasets()`.
        validation: rows to cut from train, stratified by class, always the same ones; 0 for none,
            None for the dataset's own default (5,000 of those fetched, 1,000 of the wide, else 0).
        train_limit: rows of train to keep after that cut, stratified; None for all.

    Raises:
        UnknownNameError: there is no dataset of that name.
        RequestError: `validation` or `train_limit` is more than there is; nothing is fetched then.
        SourceError: it is not cached and no source answered.

    >>> load("line")
    Dataset 'line': 5 train; rows of 1; regression; 3d5c3f486881
    """
    return _load(name, validation, train_limit, verify=False)


def fetch(name: str) -> Dataset:
    """Return a dataset as `load` does, with every byte of a cached copy compared to its SHA-256.

    Args:
        name: one of `list_datasets()`.

    Raises:
        UnknownNameError: there is no dataset of that name.
        SourceError: it is not cached, or damaged, and no source answered.
    """
    return _load(name, None, None, verify=True)


def list_datasets() -> list[JSON]:
    """Return what there is to load: name, rows, shape, and what lies on disk.

    `cached`, `bytes` and `path` are None for a dataset that there is nothing to fetch of.
    """
    return [_described(name, entry) for name, entry in _ENTRIES.items()]


def _described(name: str, entry: _Entry) -> JSON:
    file = stored_file(name) if entry.fetched else None
    cached = file.exists() if file else None
    return {
        "name": name,
        "train": entry.train - entry.validation,
        "validation": entry.validation,
        "test": entry.test,
        "shape": list(entry.shape),
        "cached": cached,
        "bytes": file.stat().st_size if file and cached else None,
        "path": str(file) if file else None,
    }


def _load(name: str, validation: int | None, train_limit: int | None, *, verify: bool) -> Dataset:
    if name not in _ENTRIES:
        raise UnknownNameError("dataset", name, _ENTRIES)
    entry = _ENTRIES[name]
    held = entry.validation if validation is None else validation
    _check(f"validation of {name!r}", held, 0, entry.train - 1)
    rest = entry.train - held
    kept = rest if train_limit is None else train_limit
    _check(f"train_limit of {name!r}", kept, 1, rest)

    from workbench.datasets.splits import cut, sample

    options = {"verify": verify} if entry.fetched else {}
    whole: Dataset = getattr(importlib.import_module(f"workbench.datasets.{entry.module}"), name)(
        **options
    )
    train, part = cut(whole.train, held)
    made = replace(
        whole,
        train=sample(train, kept),
        validation=part,
        fingerprint=_fingerprint(whole.fingerprint, held, kept if kept < rest else None),
    )
    journal.note("load", dataset=name, fingerprint=made.fingerprint)
    return made


def _check(what: str, value: Any, lowest: int, highest: int) -> None:
    whole = isinstance(value, int) and not isinstance(value, bool)
    if not whole or not lowest <= value <= highest:
        raise RequestError(
            f"{what} is {value!r}, expected a number of rows from {lowest} to {highest:,}"
        )


def _fingerprint(content: str, validation: int, train_limit: int | None) -> str:
    told = {"content": content, "validation": validation, "train_limit": train_limit}
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()
