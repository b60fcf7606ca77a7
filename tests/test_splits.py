"""Datasets of one's own: what targets mean, what a fingerprint tells, what is refused."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from workbench.datasets.splits import Split, content_hash, cut, dataset
from workbench.errors import RequestError
from workbench.evaluation import Evaluation, evaluate
from workbench.journal import read_lines
from workbench.models import build

X = [[0.0, 1.0], [1.0, 0.0], [1.0, 1.0]]


def test_words_become_classes_in_order() -> None:
    data = dataset("pets", train=(X, ["dog", "cat", "dog"]), test=(X[:1], ["cat"]))
    assert (data.classes, data.task) == (("cat", "dog"), "classification")
    assert data.train.targets.tolist() == [1, 0, 1]
    assert data.test is not None
    assert data.test.targets.tolist() == [0]


@pytest.mark.parametrize(
    ("targets", "classes"),
    [([0, 2, 1], ("0", "1", "2")), ([True, False, True], ("False", "True")),
     ([1, 3, 1], ("1", "3")), ([1, -1, 1], ("-1", "1")), ([[0], [1], [0]], ("0", "1")),
     (torch.tensor([0, 1, 1]), ("0", "1")), (pd.Series(["b", "a", "b"]), ("a", "b")),
     (np.array([0, 1, 0], dtype=np.uint8), ("0", "1"))],
)  # fmt: skip
def test_integers_booleans_and_words_classify(targets: Any, classes: tuple[str, ...]) -> None:
    data = dataset("d", train=(X, targets))
    assert data.classes == classes
    assert data.train.targets.dtype == torch.int64


def test_floats_are_a_regression() -> None:
    data = dataset("d", train=(X, [0.0, 1.0, 2.0]))
    assert (data.classes, data.task, data.train.targets.dtype) == ((), "regression", torch.float32)
    two = dataset("d", train=(X, np.zeros((3, 2))))
    assert two.train.targets.shape == (3, 2)


def test_classes_may_be_named() -> None:
    data = dataset("d", train=(X, [0, 1, 0]), classes=["no", "yes", "maybe"])
    assert data.classes == ("no", "yes", "maybe")
    words = dataset("d", train=(X, ["no", "yes", "no"]), classes=["yes", "no"])
    assert words.train.targets.tolist() == [1, 0, 1]


def test_a_validation_part_is_given_or_cut_off() -> None:
    assert dataset("d", train=(X, [0, 1, 0])).validation is None
    given = dataset("d", train=(X, [0, 1, 0]), validation=(torch.tensor(X[:1]), [1]))
    held = dataset("d", train=(X, [0, 1, 0]), validation=1)
    assert given.validation is not None
    assert held.validation is not None
    assert (len(given.train), len(given.validation)) == (3, 1)
    assert (len(held.train), len(held.validation)) == (2, 1)


def test_equal_data_has_an_equal_fingerprint() -> None:
    made = dataset("d", train=(X, [0, 1, 0]))
    assert made.fingerprint == dataset("other", train=(X, [0, 1, 0])).fingerprint
    others = [
        dataset("d", train=(X, [0, 1, 1])),
        dataset("d", train=(X[::-1], [0, 1, 0])),
        dataset("d", train=(X, [0, 1, 0]), classes=["a", "b"]),
        dataset("d", train=(X, [0, 1, 0]), validation=1),
        dataset("d", train=(X, [0, 1, 0]), test=(X, [0, 1, 0])),
    ]
    assert len({made.fingerprint, *(data.fingerprint for data in others)}) == 6


def test_a_content_hash_is_of_dtype_shape_and_bytes() -> None:
    by_hand = hashlib.sha256(b"torch.uint8 (2, 1);" + bytes([1, 2])).hexdigest()
    assert content_hash(torch.tensor([[1], [2]], dtype=torch.uint8)) == by_hand
    strided = torch.arange(6.0).reshape(2, 3).T
    assert content_hash(strided) == content_hash(strided.contiguous())
    assert content_hash(torch.empty(0)) != content_hash(torch.empty(0, 1))


def test_a_regression_is_cut_too() -> None:
    split = Split(torch.arange(10.0).unsqueeze(1), torch.arange(10.0))
    kept, held = cut(split, 4)
    assert held is not None
    assert sorted([*kept.targets.tolist(), *held.targets.tolist()]) == list(range(10))
    assert kept.targets.tolist() == sorted(kept.targets.tolist())
    assert cut(split, 0) == (split, None)


def test_a_dataset_is_shown_in_a_line() -> None:
    data = dataset("d", train=(X, [0, 1, 0]), test=(X, [0, 1, 0]))
    start = "Dataset 'd': 3 train, 3 test; rows of 2; 2 classes; "
    assert repr(data) == start + data.fingerprint[:12]
    assert data.card.description == "d, given as arrays"


def test_a_dataset_is_noted_in_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_RUN", str(tmp_path))
    data = dataset("d", train=(X, [0, 1, 0]))
    (line,) = read_lines(tmp_path / "events.jsonl")
    assert (line["event"], line["dataset"], line["fingerprint"]) == ("load", "d", data.fingerprint)


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ({"train": (X, [0, 1])}, "train has 3 inputs and 2 targets: they must be as many"),
        ({"train": ([], [])}, r"train has 0 inputs and 0 targets: .* at least one"),
        ({"train": (np.zeros((0, 2)), np.zeros(0, int))}, "train has 0 inputs and 0 targets"),
        ({"train": (X, [None] * 3)}, "targets are of NoneType: pass all words, all integers or"),
        (
            {"train": (X, [0, 1, 0]), "test": (X[:1], ["cat"])},
            "targets are of int and str: pass all words, all integers or all floats",
        ),
        ({"train": (X, [0, -1, 0]), "classes": ["a"]}, r"class indices run from -1 to 0, expected"),
        (
            {"train": (np.zeros((99, 2)), np.arange(99))},
            "targets have 99 different values, too many for classes: pass floats for a regression",
        ),
        ({"train": X}, r"train is a list, expected train=\(inputs, targets\)"),
        ({"train": (X, [0, 1, 0]), "validation": 0.2}, "validation is a float, .* or a number of"),
        (
            {"train": (X, [[0, 1], [1, 0], [0, 0]])},
            r"targets of train have the shape \(3, 2\), exp",
        ),
        ({"train": ([[0.0], [math.nan]], [0, 1])}, "inputs of train hold NaN .* 1 of 2 rows"),
        ({"train": ([[0.0], [1.0]], [0.5, math.inf])}, "targets of train hold NaN or infinite"),
        ({"train": (X, [0, 2, 0]), "classes": ["a", "b"]}, "run from 0 to 2, expected 0 to 1"),
        ({"train": (X, ["a", "b", "c"]), "classes": ["a", "b"]}, r"have no class: \['c'\]; known"),
        ({"train": (X, [0.5] * 3), "classes": ["a"]}, "classes were named, but targets are floats"),
        (
            {"train": (X, [0, 1, 0]), "test": ([[1.0]], [0])},
            r"test rows have the shape \(1,\), those of train \(2,\): they must be equal",
        ),
        ({"train": (["a", "b"], [0, 1])}, "inputs are not an array of numbers"),
        ({"train": (X, [0, 1, 0]), "validation": 3}, "cannot cut 3 rows off 3: pass 0 to 2"),
        (
            {"train": (X, [0, 1, 0]), "classes": ["cat", "dog", "cat"]},
            r"2 classes are called 'cat': give each a name of its own by classes=\[\.\.\.\]",
        ),
    ],
)
def test_data_that_cannot_be_is_refused(parts: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        dataset("d", **parts)


def test_rows_of_one_class_are_fine_where_there_are_others() -> None:
    data = dataset("d", train=(X, [0, 1, 0]), test=(X, [1, 1, 1]))
    assert data.test is not None
    found = Evaluation.of(data.test, labels=[1, 1, 0])
    assert (found.accuracy, found.confusion.tolist()) == (2 / 3, [[0, 0], [1, 2]])
    assert dataset("d", train=(X, [0, 0, 0]), classes=["no", "yes"]).classes == ("no", "yes")


def test_one_class_alone_can_be_looked_at_but_not_told_apart() -> None:
    data = dataset("d", train=(X, ["cat"] * 3))
    expected = (
        r"needs two classes or more, found one alone, 'cat': name the others too by dataset\("
    )
    for ask in (
        lambda: build("linear", data),
        lambda: evaluate(nn.Linear(2, 1), data.train),
        lambda: Evaluation.of(data.train, labels=["cat"] * 3),
    ):
        with pytest.raises(RequestError, match=expected):
            ask()


def test_every_part_has_the_names_of_the_columns() -> None:
    frame = pd.DataFrame(X, columns=["width", "height"])
    data = dataset("d", train=(frame, [0, 1, 0]), test=(X, [0, 1, 0]), validation=1)
    assert data.validation is not None
    assert data.test is not None
    parts = (data, data.train, data.validation, data.test, data.test.rows(torch.tensor([2, 0])))
    assert {part.features for part in parts} == {("width", "height")}
    unnamed = dataset("d", train=(X, [0, 1, 0]), test=(X, [0, 1, 0]), validation=1)
    assert (unnamed.features, unnamed.fingerprint) == ((), data.fingerprint)


@pytest.mark.parametrize("held", [2, np.int64(2)])
def test_any_whole_number_of_rows_is_held_out(held: Any) -> None:
    data = dataset("d", train=(np.zeros((6, 2)), [0, 1, 2] * 2), validation=held)
    assert data.validation is not None
    assert (len(data.train), len(data.validation)) == (4, 2)


def test_targets_in_a_column_are_cut_in_equal_shares() -> None:
    targets = np.array([0] * 20 + [1] * 20)[:, None]
    data = dataset("d", train=(np.zeros((40, 2)), targets), validation=10)
    assert data.validation is not None
    assert data.validation.targets.bincount().tolist() == [5, 5]


def test_datasets_can_be_compared() -> None:
    data = dataset("d", train=(X, [0, 1, 0]))
    assert data == data  # noqa: PLR0124  # by identity: tensors have no one truth
    assert data != dataset("d", train=(X, [0, 1, 0]))
