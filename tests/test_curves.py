"""ROC, precision against recall and top-k against scikit-learn, ties and absent classes too."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle
from torch import Tensor

from workbench.datasets import Split
from workbench.errors import RequestError, UnknownNameError
from workbench.evaluation import Evaluation
from workbench.pictures import Picture

NAMES = ("cat", "dog", "fox", "owl")

seeds = st.integers(0, 2**32 - 1)


def answered(logits: Tensor, targets: Tensor) -> Evaluation:
    """Return the evaluation of logits shaped (rows, classes), or (rows, 1) of two classes."""
    classes = NAMES[: max(2, logits.shape[1])]
    return Evaluation(Split(torch.zeros(len(targets), 1), targets, classes), logits)


def random(seed: int, rows: int, columns: int, steps: int = 2) -> Evaluation:
    """Return random answers; logits are rounded, so that many are tied."""
    generator = torch.Generator().manual_seed(seed)
    logits = (steps * torch.randn(rows, columns, generator=generator)).round() / steps
    targets = torch.randint(max(2, columns), (rows,), generator=generator)
    return answered(logits, targets)


def drawn(picture: Picture) -> list[str]:
    """Return what the legend of a picture says."""
    legend = picture.axes[0].get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


def quietly(figure: Callable[..., Any], *arguments: Any, **options: Any) -> Any:
    """Return what scikit-learn says, without its warning that it is not defined."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return figure(*arguments, **options)


@given(seeds, st.integers(1, 40), st.integers(1, 2))
@settings(max_examples=60, deadline=None)
def test_the_roc_curve_is_scikit_learns(seed: int, rows: int, columns: int) -> None:
    found = random(seed, rows, columns)
    y, p = found.targets.numpy(), found._chances("test")[:, 1]
    fpr, tpr, thresholds = quietly(oracle.roc_curve, y, p, drop_intermediate=False)
    curve = found.roc()
    np.testing.assert_allclose(curve["false_positive_rate"], fpr)
    np.testing.assert_allclose(curve["true_positive_rate"], tpr)
    np.testing.assert_array_equal(curve["threshold"], [*thresholds[1:], -np.inf])  # > for >=
    area = quietly(oracle.roc_auc_score, y, p) if len(set(y)) == 2 else np.nan
    assert found.roc_auc() == pytest.approx(area, nan_ok=True)


@given(seeds, st.integers(1, 40), st.integers(1, 2))
@settings(max_examples=60, deadline=None)
def test_precision_against_recall_is_scikit_learns(seed: int, rows: int, columns: int) -> None:
    found = random(seed, rows, columns)
    y, p = found.targets.numpy(), found._chances("test")[:, 1]
    precision, recall, thresholds = quietly(oracle.precision_recall_curve, y, p)
    curve = found.precision_recall()
    np.testing.assert_allclose(curve["precision"], precision[::-1])
    np.testing.assert_allclose(curve["recall"], recall[::-1])
    np.testing.assert_array_equal(curve["threshold"], [*thresholds[::-1], -np.inf])
    average = quietly(oracle.average_precision_score, y, p)
    assert found.average_precision() == pytest.approx(average)


@given(seeds, st.integers(1, 40), st.integers(3, 4))
@settings(max_examples=40, deadline=None)
def test_several_classes_are_averaged_as_by_scikit_learn(seed: int, rows: int, n: int) -> None:
    found = random(seed, rows, n)
    truth, p = np.eye(n, dtype=int)[found.targets.numpy()], found._chances("test")
    areas, averages = oracle.roc_auc_score, oracle.average_precision_score
    assert found.roc_auc() == pytest.approx(quietly(areas, truth, p), nan_ok=True)
    assert found.average_precision() == pytest.approx(quietly(averages, truth, p))
    fox = quietly(areas, truth[:, 2], p[:, 2])
    assert found.roc_auc("fox") == pytest.approx(fox, nan_ok=True)
    fox = quietly(averages, truth[:, 2], p[:, 2])
    assert found.average_precision("fox") == pytest.approx(fox)


@given(seeds, st.integers(2, 20), st.integers(1, 2))
@settings(max_examples=12, deadline=None)
def test_each_threshold_of_a_curve_gives_its_rates(seed: int, rows: int, columns: int) -> None:
    found = random(seed, rows, columns)
    for _, row in found.roc().iterrows():
        (right, alarms), (missed, hits) = found.at(row["threshold"]).confusion.tolist()
        if alarms + right:
            assert row["false_positive_rate"] == alarms / (alarms + right)
        if hits + missed:
            assert row["true_positive_rate"] == hits / (hits + missed)
    for _, row in found.precision_recall().iterrows():
        scores = found.at(row["threshold"]).per_class.T["dog"]
        if scores["support"]:
            assert row["recall"] == scores["recall"]
        assert row["precision"] in (scores["precision"], 1.0)


def test_the_area_is_the_chance_to_rank_a_pair_rightly() -> None:
    found = random(3, 60, 1)
    p, y = found._chances("test")[:, 1], found.targets.numpy()
    first, second = p[y == 1][:, None], p[y == 0][None, :]
    chance = (first > second).mean() + (first == second).mean() / 2
    assert found.roc_auc() == pytest.approx(chance)
    assert found.roc_auc("cat") == pytest.approx(chance)  # of two, either


def test_scores_that_are_all_equal_say_nothing() -> None:
    found = answered(torch.zeros(5, 2), torch.tensor([0, 1, 1, 0, 1]))
    assert found.roc_auc() == 0.5
    assert found.average_precision() == 0.6
    assert found.roc()["threshold"].tolist() == [0.5, -np.inf]


@pytest.mark.parametrize(("only", "average"), [(0, 0.0), (1, 1.0)])
def test_a_split_of_one_class_has_no_area(only: int, average: float) -> None:
    found = answered(torch.tensor([[0.0], [1.0], [2.0]]), torch.full((3,), only))
    assert np.isnan(found.roc_auc())
    rates = found.roc()[["false_positive_rate", "true_positive_rate"]]
    assert rates.isna().all().tolist() == [only == 1, only == 0]
    assert found.average_precision() == average


def test_sure_answers_are_ranked_although_single_precision_calls_all_of_them_1() -> None:
    found = answered(torch.tensor([[20.0], [30.0]]), torch.tensor([0, 1]))
    assert found.probabilities[0] == found.probabilities[1] == 1
    assert found.roc_auc() == 1.0


@given(seeds, st.integers(1, 30), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_top_k_is_scikit_learns(seed: int, rows: int, k: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, 4, generator=generator)
    found = answered(logits, torch.randint(4, (rows,), generator=generator))
    y, labels = found.targets.numpy(), range(4)
    share = quietly(oracle.top_k_accuracy_score, y, logits.numpy(), k=k, labels=labels)
    assert found.top_k(k) == pytest.approx(share)


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_the_likeliest_one_is_what_is_said(columns: int) -> None:
    found = random(5, 200, columns, steps=1)  # many ties
    assert found.top_k(1) == found.accuracy
    assert found.top_k(len(found.classes)) == 1.0


@pytest.mark.parametrize("k", [0, 4, 1.5, -1, True, "2", float("nan")])
def test_top_k_takes_a_number_of_classes(k: Any) -> None:
    found = answered(torch.zeros(2, 3), torch.tensor([0, 1]))
    with pytest.raises(RequestError, match=r"top_k got .*, expected a whole number from 1 to 3"):
        found.top_k(k)


@pytest.mark.parametrize("name", ["roc", "precision_recall"])
def test_a_curve_of_several_classes_is_of_one(name: str) -> None:
    found = answered(torch.eye(3), torch.arange(3))
    with pytest.raises(RequestError, match=rf"{name} of 3 classes is .*: pass {name}\('cat'\)"):
        getattr(found, name)()
    with pytest.raises(UnknownNameError, match="unknown class 'foxx': did you mean fox"):
        getattr(found, name)("foxx")


@pytest.mark.parametrize("name", ["roc", "roc_auc", "precision_recall", "average_precision"])
def test_what_is_not_finite_has_no_curve(name: str) -> None:
    logits = torch.tensor([[0.0], [float("nan")], [float("nan")]])
    found = answered(logits, torch.tensor([0, 1, 1]))
    match = r"2 of 3 rows were answered with what is not finite, first row 1, so there is no"
    with pytest.raises(RequestError, match=match):
        getattr(found, name)()


def test_chances_are_looked_through_once(monkeypatch: pytest.MonkeyPatch) -> None:
    looked, is_finite = list[Any](), np.isfinite

    def look(values: Any) -> Any:
        looked.append(np.shape(values))
        return is_finite(values)

    monkeypatch.setattr(np, "isfinite", look)
    found = random(0, 20, 4)
    for _ in range(2):
        found.roc_auc()
        found.average_precision()
    assert looked.count((20, 4)) == 1


@pytest.mark.parametrize("columns", [1, 2, 3])
@pytest.mark.parametrize("name", ["plot_roc", "plot_precision_recall", "plot_per_class"])
def test_curves_can_be_drawn(name: str, columns: int) -> None:
    picture = getattr(random(1, 40, columns), name)()
    assert picture._repr_png_().startswith(b"\x89PNG")
    labels = [label.partition(",")[0] for label in drawn(picture)]
    if name == "plot_per_class":
        assert labels == ["precision", "recall", "f1"]
    else:
        curves = {"dog"} if columns < 3 else {"cat", "dog", "fox"}
        assert curves <= set(labels) <= {*curves, "chance"}


def test_classes_without_rows_are_not_drawn() -> None:
    found = answered(torch.randn(30, 4), torch.arange(30) % 3)  # no owl
    for picture in (found.plot_roc(), found.plot_precision_recall()):
        assert not any("owl" in label or "nan" in label for label in drawn(picture))
    one = answered(torch.randn(30, 1), torch.zeros(30).long())
    assert one.plot_roc()._repr_png_().startswith(b"\x89PNG")
    assert one.plot_precision_recall()._repr_png_().startswith(b"\x89PNG")


def test_of_many_classes_the_three_lowest_are_named() -> None:
    logits, targets = torch.randn(80, 4), torch.arange(80) % 4
    found = answered(logits + torch.tensor([0.0, 2, 4, 8]) * torch.eye(4)[targets], targets)
    assert [label.partition(",")[0] for label in drawn(found.plot_roc())] == [
        *("chance", "cat", "dog", "fox"),
        "1 other classes",
    ]
