"""`digits`, `breast_cancer` and `diabetes`: small real data that comes with scikit-learn.

Each has a test split that is cut off once, stratified by class, the same on every machine.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor

from workbench.datasets.splits import Card, Dataset, Split, content_hash, cut

__all__ = ["breast_cancer", "diabetes", "digits"]


def digits() -> Dataset:
    """Return 1,797 handwritten digits: uint8 images shaped (8, 8) with values 0 to 16."""
    from sklearn.datasets import load_digits

    found = load_digits()
    images = torch.from_numpy(found.images).to(torch.uint8)
    rows = Split(images, torch.from_numpy(found.target).long(), tuple("0123456789"))
    return _made(
        *("digits", rows, 360),
        about="1,797 handwritten digits of 8×8 pixels with values 0 to 16",
        source="the UCI test set of Optical Recognition of Handwritten Digits",
        licence="CC BY 4.0, as the UCI repository states",
    )


def breast_cancer() -> Dataset:
    """Return 569 breast masses: 30 float32 measures, malignant or benign."""
    from sklearn.datasets import load_breast_cancer

    found = load_breast_cancer()
    classes = _names(found.target_names)
    targets = torch.from_numpy(found.target).long()
    rows = Split(_floats(found.data), targets, classes, _names(found.feature_names))
    return _made(
        *("breast_cancer", rows, 114),
        about="569 breast masses with 30 measures of their cell nuclei, malignant or benign",
        source="the UCI set Breast Cancer Wisconsin (Diagnostic)",
        licence="CC BY 4.0, as the UCI repository states",
    )


def diabetes() -> Dataset:
    """Return 442 patients: 10 float32 measures in raw units, and their state a year later."""
    from sklearn.datasets import load_diabetes

    found = load_diabetes(scaled=False)
    features = _names(found.feature_names)
    rows = Split(_floats(found.data), _floats(found.target), features=features)
    return _made(
        *("diabetes", rows, 88),
        about="442 patients with 10 measures in raw units, and the disease a year later",
        source="Efron, Hastie, Johnstone and Tibshirani (2004), Least Angle Regression",
        licence="not stated by its authors",
    )


def _made(name: str, rows: Split, test: int, *, about: str, source: str, licence: str) -> Dataset:
    train, held = cut(rows, test)
    how = "stratified by class" if rows.classes else "at random"
    card = Card(
        description=f"{about}. {test} rows are cut off {how} as the test split, always the same.",
        source=f"{source}; comes with scikit-learn",
        licence=licence,
    )
    content = content_hash(rows.inputs, rows.targets)
    return Dataset(name, train, None, held, content, card)


def _names(given: Iterable[Any]) -> tuple[str, ...]:
    return tuple(map(str, given))


def _floats(values: Any) -> Tensor:
    return torch.from_numpy(values).float()
