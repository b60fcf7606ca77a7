"""Parts of the rows against pandas' own grouping, named by whatever people name rows with."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from workbench.datasets import Split
from workbench.errors import RequestError
from workbench.evaluation import Evaluation
from workbench.evaluation.intervals import between, resampled_means
from workbench.evaluation.significance import wilson
from workbench.evaluation.slicing import slices

CLASSES = ("no", "yes")


def answered(right: list[bool]) -> Evaluation:
    """Return answers of which these are right."""
    said = [0 if fine else 1 for fine in right]
    split = Split(torch.zeros(len(right), 1), torch.zeros(len(right)).long(), CLASSES)
    return Evaluation(split, torch.eye(2)[said])


def test_each_part_has_its_own_accuracy_and_interval() -> None:
    draw = np.random.default_rng(0)
    right, by = draw.random(200) < 0.7, draw.choice(["old", "young", "very old"], 200)
    table = slices(answered(right.tolist()), by)
    oracle = pd.Series(right).groupby(by).agg(["size", "mean", "sum"])
    assert table.index.tolist() == oracle.index.tolist() == ["old", "very old", "young"]
    assert table["rows"].tolist() == oracle["size"].tolist()
    np.testing.assert_allclose(table["accuracy"], oracle["mean"])
    ends = [
        wilson(int(hits), int(n)) for hits, n in zip(oracle["sum"], oracle["size"], strict=True)
    ]
    np.testing.assert_allclose(table[["low", "high"]], ends)


def test_each_part_of_a_regression_has_its_own_errors() -> None:
    draws = torch.Generator().manual_seed(0)
    outputs, targets = (torch.randn(60, 2, generator=draws) for _ in range(2))
    found = Evaluation(Split(torch.zeros(60, 1), targets), outputs)
    by = torch.arange(60) % 3
    table = slices(found, by)
    assert list(table) == ["rows", "mse", "mae", "low", "high"]
    for part in range(3):
        residuals = (outputs - targets)[by == part].double()
        row = table.loc[part]
        assert row["mse"] == pytest.approx(float(residuals.square().mean()))
        assert row["mae"] == pytest.approx(float(residuals.abs().mean()))
        ends = between(resampled_means(residuals.square().mean(1)))
        assert (row["low"], row["high"]) == pytest.approx(ends)


@pytest.mark.parametrize(
    ("by", "names"),
    [
        (["b", "a", "b", "b"], ["a", "b"]),
        ([3, 1, 3, 3], [1, 3]),
        (np.array([True, False, True, True]), [False, True]),
        (torch.tensor([3, 1, 3, 3]), [1, 3]),
        (pd.Series(["b", "a", "b", "b"], index=[9, 9, 0, 0]), ["a", "b"]),
        (pd.Categorical(["lo", "hi", "lo", "lo"], ["hi", "none", "lo"]), ["hi", "lo"]),
        (pd.Categorical(["hi", "lo", "hi", "hi"], ["lo", "mid", "hi"], ordered=True), ["lo", "hi"]),
        (pd.cut([7, 2, 8, 9], [0, 5, 10]), [pd.Interval(0, 5), pd.Interval(5, 10)]),
        (["b", 1, "b", "b"], [1, "b"]),
    ],
)
def test_rows_are_named_by_what_people_have(by: Any, names: list[Any]) -> None:
    table = slices(answered([True, False, False, True]), by)
    assert table.index.tolist() == names
    assert table["rows"].tolist() == [1, 3]
    assert table["accuracy"].tolist() == pytest.approx([0, 2 / 3])


@pytest.mark.parametrize("by", [["a", None, "a"], [1.0, math.nan, 1.0]])
def test_rows_without_a_name_are_a_part_too(by: list[Any]) -> None:
    table = slices(answered([True, False, True]), by)
    assert table["rows"].tolist() == [2, 1]
    assert pd.isna(table.index[1])
    assert table["accuracy"].tolist() == [1.0, 0.0]


def test_a_part_of_one_row_is_said_to_be_unsure() -> None:
    table = slices(answered([True]), ["all"])
    assert table["low"].item() < 0.3
    assert table["high"].item() == 1.0
    found = Evaluation(Split(torch.zeros(3, 1), torch.tensor([1.0, 2.0, 3.0])), torch.ones(3, 1))
    table = slices(found, ["a", "b", "b"])
    assert table["mse"].tolist() == [0.0, 2.5]
    assert table["low"].isna().tolist() == [True, False]


def test_the_parts_are_called_as_the_series_is() -> None:
    found = answered([True, False])
    assert slices(found, pd.Series([1, 2], name="age")).index.name == "age"
    assert found.slices([1, 2]).index.name == "slice"


@pytest.mark.parametrize(
    ("by", "what"),
    [
        (["a"], r"the shape \(1,\)"),
        ([["a"], ["b"]], r"the shape \(2, 1\)"),
        ("ab", "one text"),
        (None, r"the shape \(\)"),
        (pd.DataFrame({"a": [1, 2]}), r"the shape \(2, 1\)"),
    ],
)
def test_what_names_no_row_is_refused(by: Any, what: str) -> None:
    message = rf"by has {what}, expected \(2,\): pass a name for each row of the split"
    with pytest.raises(RequestError, match=message):
        slices(answered([True, False]), by)


def test_the_picture_of_parts_can_be_drawn() -> None:
    picture = answered([True, False, True]).plot_slices(["a", "b", "b"])
    axes = picture.axes[0]
    assert [text.get_text() for text in axes.get_yticklabels()] == ["a (1)", "b (2)"]
    assert axes.get_title() == "dashed: all 3 rows, 0.6667"
    values = Evaluation(Split(torch.zeros(3, 1), torch.tensor([1.0, 2.0, 3.0])), torch.ones(3, 1))
    picture = values.plot_slices(["a", "b", "b"])
    assert picture._repr_png_().startswith(b"\x89PNG")
