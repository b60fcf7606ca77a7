"""Two models on the same rows: counts by hand, p by scipy, intervals by a slow bootstrap."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats
from torch import Tensor

from workbench.datasets import Split
from workbench.determinism import generator
from workbench.errors import RequestError
from workbench.evaluation import Comparison, Evaluation

CLASSES = ("no", "yes")


def pair(both: int, first: int, second: int, neither: int) -> tuple[Evaluation, Evaluation]:
    """Return two models' answers of which so many are right."""
    n = both + first + second + neither
    split = Split(torch.zeros(n, 1), torch.zeros(n).long(), CLASSES)
    rights = (
        [True] * (both + first) + [False] * (second + neither),
        [True] * both + [False] * first + [True] * second + [False] * neither,
    )
    said = [torch.eye(2)[[0 if fine else 1 for fine in right]] for right in rights]
    return Evaluation(split, said[0]), Evaluation(split, said[1])


def values(n: int = 50, worse: float = 0.5) -> tuple[Evaluation, Evaluation]:
    draws = torch.Generator().manual_seed(n)
    targets = torch.randn(n, 2, generator=draws)
    split = Split(torch.zeros(n, 1), targets)
    outputs = [targets + s * torch.randn(n, 2, generator=draws) for s in (1, 1 + worse)]
    return Evaluation(split, outputs[0]), Evaluation(split, outputs[1])


def slow(first: Tensor, second: Tensor) -> list[float]:
    """Return the ends of the bootstrap over pairs, one resample at a time."""
    n = len(first)
    draws = torch.randint(n, (1000, n), generator=generator(0, "bootstrap")).tolist()
    a, b = first.tolist(), second.tolist()
    found = [sum(a[i] for i in rows) / n - sum(b[i] for i in rows) / n for rows in draws]
    low, high = np.quantile(found, [0.025, 0.975])
    return [float(low), float(high)]


@pytest.mark.parametrize("counts", [(60, 20, 5, 15), (5, 0, 6, 1), (9, 1, 0, 0), (0, 3, 3, 0)])
def test_two_classifiers_differ_by_the_rows_one_alone_gets_right(counts: Any) -> None:
    first, second = pair(*counts)
    found = first.against(second)
    assert (found.both_right, found.only_first, found.only_second, found.both_wrong) == counts
    assert found.difference == pytest.approx(first.accuracy - second.accuracy)
    p = stats.binomtest(counts[1], counts[1] + counts[2]).pvalue
    assert found.p == pytest.approx(p)
    assert found.interval == pytest.approx(slow(found.first, found.second))


@pytest.mark.parametrize("n", [2, 50])
def test_two_regressions_differ_by_their_squared_errors(n: int) -> None:
    first, second = values(n)
    found = first.against(second)
    squares = [(e.outputs - e.targets).double().square().mean(1) for e in (first, second)]
    assert found.figure == "mse"
    assert found.difference == pytest.approx(first.mse - second.mse)
    assert found.p == pytest.approx(stats.ttest_rel(*(s.numpy() for s in squares)).pvalue)
    assert found.interval == pytest.approx(slow(*squares))


def test_the_other_way_round_it_is_the_opposite() -> None:
    for first, second in (pair(60, 20, 5, 15), values()):
        one, other = first.against(second), second.against(first)
        assert one.difference == -other.difference
        assert one.p == pytest.approx(other.p)
        assert one.interval == pytest.approx([-end for end in reversed(other.interval)])


@pytest.mark.parametrize("counts", [(5, 0, 0, 0), (0, 0, 0, 5), (3, 0, 0, 2)])
def test_models_that_agree_in_all_rows_show_no_difference(counts: Any) -> None:
    first, second = pair(*counts)
    found = first.against(second)
    assert (found.difference, found.p, found.interval) == (0.0, 1.0, (0.0, 0.0))
    assert repr(found).startswith("no difference shown: accuracy")
    assert values()[0].against(values()[0]).p == 1.0


def test_a_comparison_says_itself_in_a_sentence() -> None:
    first, second = pair(60, 20, 5, 15)
    assert repr(first.against(second)) == (
        "the first is better: accuracy 0.8 of the first, 0.65 of the second on the same 100 rows, "
        "difference +0.15 (95 % interval +0.05 to +0.24), p = 0.0041 by McNemar's exact test"
    )
    assert repr(second.against(first)).startswith("the second is better: accuracy 0.65 of the fir")
    better, worse = values()
    assert repr(better.against(worse)).startswith("the first is better: mse")
    assert repr(worse.against(better)).startswith("the second is better: mse")
    assert repr(worse.against(better)).endswith("by paired t-test on squared errors")
    assert len(first.against(second)) == 100


def test_a_threshold_and_labels_from_elsewhere_are_compared_too() -> None:
    found = pair(60, 20, 5, 15)[0]
    assert found.against(found.at(0.9)).only_second == 20  # which says "no" of every row
    labels = Evaluation.of(found.split, labels=found.predicted.numpy())
    assert found.against(labels).p == 1.0


def test_an_equal_split_is_the_same_rows() -> None:
    first, second = pair(6, 2, 1, 1)
    twin = Split(first.split.inputs.clone(), first.targets.clone(), CLASSES)
    assert first.against(Evaluation(twin, second.outputs)).only_first == 2


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"inputs": torch.zeros(9, 1), "targets": torch.zeros(9).long()}, "10 rows and 9"),
        ({"classes": ("no", "maybe")}, r"the classes \('no', 'yes'\)... and \('no', 'maybe'\)"),
        ({"targets": torch.ones(10).long()}, "different targets"),
        ({"inputs": torch.ones(10, 1)}, "different inputs"),
        ({"inputs": torch.zeros(10, 2)}, "different inputs"),
    ],
)
def test_other_rows_are_not_compared(changed: Any, what: str) -> None:
    first = pair(6, 2, 1, 1)[0]
    split = first.split
    known = {"inputs": split.inputs, "targets": split.targets, "classes": split.classes}
    other = Split(**(known | changed))
    message = rf"the two evaluations have {what}.*, expected the same rows .* on one split"
    with pytest.raises(RequestError, match=message):
        first.against(Evaluation(other, torch.eye(2)[other.targets]))


def test_a_regression_has_no_rows_that_are_right() -> None:
    first, second = values()
    with pytest.raises(RequestError, match="a regression has no rows that are right: ask for diff"):
        _ = first.against(second).only_first


def test_chance_alone_seldom_shows_a_difference() -> None:
    rights = torch.rand(2000, 2, 100, generator=torch.Generator().manual_seed(0)) < 0.7
    found = [Comparison("accuracy", first, second) for first, second in rights.double()]
    shown = sum(comparison.p < 0.05 for comparison in found)
    assert 0.02 < shown / 2000 <= 0.05  # below, since counts are whole
    ends = [comparison.interval for comparison in found[:150]]
    assert 0.89 <= sum(low <= 0 <= high for low, high in ends) / 150 <= 0.99


def test_pictures_of_comparisons_can_be_drawn() -> None:
    for first, second in (pair(60, 20, 5, 15), values(), pair(1, 0, 1, 0)):
        picture = first.against(second).plot()
        assert picture.axes[1].get_title().startswith("p = ")
        assert picture._repr_png_().startswith(b"\x89PNG")
