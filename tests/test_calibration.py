"""Bins, errors and temperatures of probabilities, against scikit-learn, closed forms and grids."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import logsumexp
from sklearn import metrics as oracle
from sklearn.calibration import calibration_curve
from torch import Tensor

from workbench.datasets import Split
from workbench.errors import RequestError
from workbench.evaluation import Evaluation

NAMES = ("cat", "dog", "fox", "owl")

FIGURES: Mapping[str, Callable[[Evaluation], object]] = {
    "calibration": lambda found: found.calibration(),
    "calibration_error": lambda found: found.calibration_error(),
    "temperature": lambda found: found.temperature(),
    "brier": lambda found: found.brier,
}

seeds = st.integers(0, 2**32 - 1)


def answered(logits: Tensor, targets: Tensor) -> Evaluation:
    """Return the evaluation of logits shaped (rows, classes), or (rows, 1) of two classes."""
    classes = NAMES[: max(2, logits.shape[1])]
    return Evaluation(Split(torch.zeros(len(targets), 1), targets, classes), logits)


def random(seed: int, rows: int, columns: int, right: float = 1.0) -> Evaluation:
    """Return random answers, whose true class has a logit that is higher by `right`."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(max(2, columns), (rows,), generator=generator)
    truth = torch.eye(columns)[targets] if columns > 1 else 2 * targets[:, None] - 1
    return answered(3 * torch.randn(rows, columns, generator=generator) + right * truth, targets)


@given(seeds, st.integers(1, 60), st.integers(1, 3), st.integers(1, 15))
@settings(max_examples=40, deadline=None)
def test_bins_are_scikit_learns(seed: int, rows: int, columns: int, bins: int) -> None:
    found = random(seed, rows, columns)
    right, sure = found.examples["right"].astype(int), found.examples["p_predicted"]
    table = found.calibration(bins)
    assert len(table) == bins
    assert table["rows"].sum() == rows
    filled = table[table["rows"] > 0]
    accuracy, confidence = calibration_curve(right, sure, n_bins=bins, pos_label=1)
    np.testing.assert_allclose(filled["accuracy"], accuracy)
    np.testing.assert_allclose(filled["confidence"], confidence)
    assert table["confidence"].isna().tolist() == (table["rows"] == 0).tolist()
    error = (abs(accuracy - confidence) * filled["rows"]).sum() / rows
    assert found.calibration_error(bins) == pytest.approx(error)


def test_a_bin_holds_its_upper_edge() -> None:
    p = np.array([0.5, 0.6, 0.61, 1.0])
    split = Split(torch.zeros(4, 1), torch.tensor([0, 1, 0, 1]), NAMES[:2])
    table = Evaluation.of(split, probabilities=p).calibration(5)
    assert table["rows"].tolist() == [0, 0, 2, 1, 1]
    np.testing.assert_allclose(table["to"], [0.2, 0.4, 0.6, 0.8, 1.0])
    np.testing.assert_allclose(table["from"], [0.0, 0.2, 0.4, 0.6, 0.8])
    np.testing.assert_allclose(table["confidence"][2:], [0.55, 0.61, 1.0])
    np.testing.assert_allclose(table["accuracy"][2:], [1.0, 0.0, 1.0])
    error = Evaluation.of(split, probabilities=p).calibration_error(5)
    assert error == pytest.approx((2 * 0.45 + 0.61 + 0) / 4)


def test_answers_as_sure_as_they_are_right_have_no_error() -> None:
    p = torch.tensor([0.8] * 10)
    split = Split(torch.zeros(10, 1), torch.tensor([1] * 8 + [0] * 2), NAMES[:2])
    found = Evaluation.of(split, probabilities=p)
    assert found.calibration_error() == pytest.approx(0, abs=1e-7)
    assert found.scaled(0.5).calibration_error() > 0.1


def test_a_moved_threshold_is_judged_by_what_it_says() -> None:
    split = Split(torch.zeros(4, 1), torch.tensor([1, 0, 0, 0]), NAMES[:2])
    found = Evaluation.of(split, probabilities=[0.4, 0.4, 0.1, 0.4]).at(0.3)  # dog, dog, cat, dog
    table = found.calibration(4)
    assert table["rows"].tolist() == [0, 3, 0, 1]
    np.testing.assert_allclose(table["confidence"], [np.nan, 0.4, np.nan, 0.9])
    np.testing.assert_allclose(table["accuracy"], [np.nan, 1 / 3, np.nan, 1])


@given(seeds, st.integers(1, 40), st.integers(1, 4))
@settings(max_examples=40, deadline=None)
def test_the_brier_score_is_scikit_learns(seed: int, rows: int, columns: int) -> None:
    found = random(seed, rows, columns)
    y, p = found.targets.numpy(), found._chances("test")
    each = [oracle.brier_score_loss(y == k, p[:, k], pos_label=True) for k in range(p.shape[1])]
    assert found.brier == pytest.approx(each[1] if len(each) == 2 else sum(each))


@given(seeds, st.integers(5, 60), st.integers(1, 4))
@settings(max_examples=30, deadline=None)
def test_the_temperature_has_the_lowest_loss_of_a_fine_grid(
    seed: int, rows: int, columns: int
) -> None:
    found = random(seed, rows, columns, right=2.0)
    best, z = found.temperature(), np.log(found._chances("test")).clip(-700)
    scaled = z / np.geomspace(0.05, 20, 2000)[:, None, None]
    own = scaled[:, np.arange(rows), found.targets.numpy()]
    assert 0.05 <= best <= 20
    assert found.scaled(best).loss <= (logsumexp(scaled, axis=2) - own).mean(1).min() + 1e-9
    assert found.scaled(best).loss <= found.loss + 1e-6
    assert torch.equal(found.scaled(best).predicted, found.predicted)
    if 0.06 < best < 19:
        assert found.scaled(best).temperature() == pytest.approx(1, rel=1e-6)


@pytest.mark.parametrize("columns", [1, 2])
@pytest.mark.parametrize("share", [0.6, 0.9])
def test_the_temperature_of_one_confidence_is_known(columns: int, share: float) -> None:
    # all logits are ±4: the best is where sigmoid(4 / T) is the share that is right
    targets = torch.arange(100) % 2
    right = torch.arange(100) < 100 * share
    sign = (2.0 * targets - 1) * torch.where(right, 1.0, -1.0)
    logits = 4 * sign[:, None] if columns == 1 else torch.stack([-2 * sign, 2 * sign], 1)
    expected = 4 / np.log(share / (1 - share))
    assert answered(logits, targets).temperature() == pytest.approx(expected)


def test_a_known_temperature_is_found_again() -> None:
    generator = torch.Generator().manual_seed(0)
    true = 2 * torch.randn(20_000, 4, generator=generator)
    targets = torch.multinomial(true.softmax(1), 1, generator=generator)[:, 0]
    hot = answered(true * 3, targets)
    assert hot.temperature() == pytest.approx(3, rel=0.03)
    cooled = hot.scaled(hot.temperature())
    assert cooled.calibration_error() < 0.02 < hot.calibration_error()


def test_without_a_best_temperature_it_is_the_bound() -> None:
    logits, targets = torch.randn(20, 3), torch.arange(20) % 3
    right = answered(5 * torch.eye(3)[targets] + logits.clamp(-1, 1), targets)
    assert right.accuracy == 1
    assert right.temperature() == pytest.approx(0.05)
    wrong = answered(-5 * torch.eye(3)[targets] + logits.clamp(-1, 1), targets)
    assert wrong.temperature() == pytest.approx(20)
    same = answered(torch.zeros(20, 3), targets)  # every temperature is as good
    assert 0.05 <= same.temperature() <= 20
    assert answered(1e30 * torch.randn(20, 3), targets).temperature() == pytest.approx(20)


def test_probabilities_of_0_and_1_have_figures_too() -> None:
    split = Split(torch.zeros(4, 1), torch.tensor([0, 1, 1, 0]), NAMES[:2])
    for p in (np.array([0.0, 1.0, 0.0, 0.5]), torch.tensor([[1, 0], [0, 1], [1, 0], [0.5, 0.5]])):
        found = Evaluation.of(split, probabilities=p)
        y, second = split.targets.numpy(), [0.0, 1.0, 0.0, 0.5]
        assert found.loss == pytest.approx(oracle.log_loss(y, second))
        assert found.brier == pytest.approx(oracle.brier_score_loss(y, second))
        assert found.roc_auc() == pytest.approx(oracle.roc_auc_score(y, second))
        warm = found.scaled(found.temperature())
        assert np.isfinite(warm.loss)
        assert warm.loss < found.loss
        assert torch.equal(warm.predicted, found.predicted)


@pytest.mark.parametrize("temperature", [0, -1, float("inf"), float("nan")])
def test_a_temperature_is_above_0(temperature: float) -> None:
    found = random(0, 4, 2)
    with pytest.raises(RequestError, match=r"temperature must be above 0 and finite, got"):
        found.scaled(temperature)


@pytest.mark.parametrize("bins", [0, -3, 2.5, True, "10"])
def test_there_is_a_bin_at_least(bins: Any) -> None:
    with pytest.raises(RequestError, match="bins must be a whole number from 1 up, got"):
        random(0, 4, 2).calibration(bins)


@pytest.mark.parametrize("name", FIGURES)
def test_what_is_not_finite_is_not_calibrated(name: str) -> None:
    found = answered(torch.tensor([[float("nan"), 1.0]]), torch.tensor([0]))
    with pytest.raises(RequestError, match=r"1 of 1 rows .* not finite, first row 0"):
        FIGURES[name](found)


@pytest.mark.parametrize("columns", [1, 4])
def test_calibration_can_be_drawn(columns: int) -> None:
    picture = random(2, 50, columns).plot_calibration(5)
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert [axes.get_ylabel() for axes in picture.axes] == ["accuracy", "rows"]
    assert len(picture.axes[1].patches) == 5
