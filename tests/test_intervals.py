"""Intervals against a slow bootstrap by scikit-learn, and how often they hold the truth."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn import metrics as oracle

from workbench.datasets import Split
from workbench.determinism import generator
from workbench.errors import RequestError, UnknownNameError
from workbench.evaluation import Evaluation, intervals

NAMES = ("cat", "dog", "fox", "owl")
MACRO: dict[str, Any] = {"average": "macro", "labels": [0, 1, 2], "zero_division": 0}
SCORES: dict[str, Callable[..., float]] = {
    "accuracy": oracle.accuracy_score,
    "precision": lambda y, y_hat: oracle.precision_score(y, y_hat, **MACRO),
    "recall": lambda y, y_hat: oracle.recall_score(y, y_hat, **MACRO),
    "f1": lambda y, y_hat: oracle.f1_score(y, y_hat, **MACRO),
    "mse": oracle.mean_squared_error,
    "mae": oracle.mean_absolute_error,
    "r2": oracle.r2_score,
}


def classified(n: int = 30, seed: int = 0, classes: int = 3) -> Evaluation:
    """Return answers that are right in about half of the rows; a class may be absent."""
    draws = torch.Generator().manual_seed(seed)
    targets = torch.randint(classes, (n,), generator=draws)
    logits = torch.randn(n, classes, generator=draws)
    logits[torch.arange(n), targets] += 0.7
    return Evaluation(Split(torch.zeros(n, 1), targets, NAMES[:classes]), logits)


def regressed(n: int = 30, width: int = 1, seed: int = 0) -> Evaluation:
    """Return answers whose residuals are standard normal."""
    draws = torch.Generator().manual_seed(seed)
    outputs = torch.randn(n, width, generator=draws)
    targets = outputs + torch.randn(n, width, generator=draws)
    return Evaluation(
        Split(torch.zeros(n, 1), targets if width > 1 else targets[:, 0]),
        outputs,
    )


def slow(figure: str, y: Any, y_hat: Any, resamples: int, seed: int) -> list[float]:
    """Return the figure of the same rows drawn anew, one resample at a time."""
    n = len(y)
    draws = torch.randint(n, (resamples, n), generator=generator(seed, "bootstrap")).numpy()
    return [SCORES[figure](y[rows], y_hat[rows]) for rows in draws]


@pytest.mark.parametrize("n", [2, 30])
@pytest.mark.parametrize("figure", ["accuracy", "precision", "recall", "f1"])
def test_classes_are_drawn_anew_as_by_a_slow_bootstrap(figure: str, n: int) -> None:
    found = classified(n, seed=n)
    values = slow(figure, found.targets.numpy(), found.predicted.numpy(), 60, 3)
    np.testing.assert_allclose(intervals.resampled(found, figure, 60, 3).numpy(), values)
    ends = np.quantile(values, [0.05, 0.95])
    assert intervals.interval(found, figure, 0.9, 60, 3) == pytest.approx(tuple(ends))


@pytest.mark.parametrize("width", [1, 3])
@pytest.mark.parametrize("figure", ["mse", "mae", "r2"])
def test_values_are_drawn_anew_as_by_a_slow_bootstrap(figure: str, width: int) -> None:
    found = regressed(20, width)
    y, y_hat = found.targets.reshape(20, width).numpy(), found.outputs.numpy()
    values = slow(figure, y, y_hat, 60, 1)
    np.testing.assert_allclose(intervals.resampled(found, figure, 60, 1), values, rtol=1e-5)


@pytest.mark.parametrize("columns", [1, 3])
def test_the_loss_is_drawn_anew_row_by_row(columns: int) -> None:
    found = classified(25, classes=3) if columns == 3 else one_logit(25)
    logits = found.outputs.double()
    chances = (logits.softmax(1) if columns == 3 else logits.sigmoid()).numpy()
    y = found.targets.numpy()
    labels = list(range(len(found.classes)))
    values = []
    for rows in torch.randint(25, (40, 25), generator=generator(0, "bootstrap")).numpy():
        p = chances[rows] if columns == 3 else chances[rows, 0]
        values.append(oracle.log_loss(y[rows], p, labels=labels))
    np.testing.assert_allclose(intervals.resampled(found, "loss", 40), values, rtol=1e-4)
    values_of_mse = intervals.resampled(regressed(), "loss", 40)
    assert torch.equal(values_of_mse, intervals.resampled(regressed(), "mse", 40))


def one_logit(n: int) -> Evaluation:
    targets = torch.arange(n) % 2
    logit = torch.randn(n, 1, generator=torch.Generator().manual_seed(0))
    return Evaluation(Split(torch.zeros(n, 1), targets, NAMES[:2]), logit)


def test_rows_decided_or_given_otherwise_have_intervals_too() -> None:
    found = one_logit(40)
    strict = found.at(0.9)
    ends = intervals.interval(strict, "recall")
    assert ends[0] <= strict.recall <= ends[1]
    labels = Evaluation.of(found.split, labels=found.predicted.numpy())
    assert intervals.interval(labels, "f1") == intervals.interval(found, "f1")
    with pytest.raises(UnknownNameError, match=r"figure of an evaluation 'loss'.* accuracy, f1"):
        intervals.interval(labels, "loss")


def test_how_many_are_drawn_at_once_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    found = classified(30)
    whole = intervals.resampled(found, "f1", 50)
    monkeypatch.setattr(intervals, "_AT_ONCE", 200)
    assert torch.equal(intervals.resampled(found, "f1", 50), whole)
    monkeypatch.setattr(intervals, "_AT_ONCE", 7)
    assert torch.equal(intervals.resampled(found, "f1", 50), whole)


def test_the_seed_alone_decides_and_no_other_draw_is_moved() -> None:
    found = classified()
    states = random.getstate(), np.random.get_state(legacy=False), torch.get_rng_state()
    first = intervals.interval(found)
    torch.rand(3)
    torch.set_rng_state(states[2])
    assert intervals.interval(found) == first == found.interval("accuracy", seed=0)
    assert intervals.interval(found, seed=1) != first
    assert random.getstate() == states[0]
    assert str(np.random.get_state(legacy=False)) == str(states[1])
    assert torch.equal(torch.get_rng_state(), states[2])


def test_a_surer_interval_holds_the_less_sure() -> None:
    (low, high), (lower, higher) = (classified().interval(level=level) for level in (0.5, 0.99))
    assert lower < low < high < higher
    assert regressed().interval() == regressed().interval("mse")


@pytest.mark.parametrize("figure", ["accuracy", "mse"])
def test_intervals_hold_the_truth_about_as_often_as_they_say(figure: str) -> None:
    held = 0
    for trial in range(100):
        found = coin(0.8, 150, trial) if figure == "accuracy" else regressed(150, seed=trial)
        low, high = intervals.interval(found, figure, 0.9, 200, trial)
        held += low <= (0.8 if figure == "accuracy" else 1.0) <= high
    assert 0.82 <= held / 100 <= 0.97  # 0.9, give or take three standard errors


def coin(p: float, n: int, seed: int) -> Evaluation:
    """Return answers of which each is right with chance `p`."""
    right = torch.rand(n, generator=torch.Generator().manual_seed(seed)) < p
    logits = torch.stack([right, ~right], 1).float()
    return Evaluation(Split(torch.zeros(n, 1), torch.zeros(n).long(), NAMES[:2]), logits)


@pytest.mark.parametrize(("p", "accuracy"), [(1.0, 1.0), (0.0, 0.0)])
def test_rows_that_are_all_alike_have_no_width(p: float, accuracy: float) -> None:
    assert coin(p, 20, 0).interval() == (accuracy, accuracy)


def test_one_class_alone_has_intervals() -> None:
    found = coin(0.5, 40, 0)  # whose rows are all of the first of two classes
    low, high = found.interval("recall")
    assert 0 < low < found.recall < high < 0.5


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"level": 1.0}, r"level is 1.0, expected a number between 0 and 1: level=0.95"),
        ({"level": "0.9"}, r"level is '0.9', expected a number between 0 and 1"),
        ({"level": True}, r"level is True, expected"),
        ({"resamples": 0}, r"resamples is 0, expected a whole number from 1 up"),
        ({"resamples": 10.0}, r"resamples is 10.0, expected a whole number"),
        ({"seed": -1}, r"seed must be a whole number from 0"),
        ({"figure": "acuracy"}, r"figure of an evaluation 'acuracy': did you mean accuracy\?"),
        ({"figure": "r2"}, r"unknown figure of an evaluation 'r2'.*There are: accuracy, f1"),
    ],
)
def test_what_cannot_be_asked_is_said(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        classified().interval(**given)


def test_one_row_alone_has_no_interval() -> None:
    with pytest.raises(RequestError, match="1 row has no spread to draw from: evaluate two or"):
        coin(1.0, 1, 0).interval()


@pytest.mark.parametrize(
    ("n", "level", "rank"), [(9, 0.9, 9), (10, 0.5, 6), (99, 0.55, 55), (99, 0.9, 90), (1, 0.5, 1)]
)
def test_the_margin_is_a_certain_residual(n: int, level: float, rank: int) -> None:
    found = regressed(n)
    sizes = (found.targets - found.outputs[:, 0]).abs().sort().values
    assert found.margin(level) == pytest.approx(float(sizes[rank - 1]), rel=1e-6)


def test_a_margin_holds_for_all_outputs_at_once() -> None:
    found = regressed(200, width=3)
    half = found.margin(0.8)
    within = ((found.targets - found.outputs).abs() <= half).all(1).sum()
    assert within == math.ceil(201 * 0.8)


@pytest.mark.parametrize(("n", "level"), [(19, 0.9), (50, 0.8), (200, 0.95)])
def test_margins_hold_new_rows_as_often_as_promised(n: int, level: float) -> None:
    draws = torch.Generator().manual_seed(n)
    held = 0
    for _ in range(1000):
        sizes = torch.randn(n + 1, generator=draws).exp()  # of whatever distribution
        known = Evaluation(Split(torch.zeros(n, 1), sizes[:n]), torch.zeros(n, 1))
        held += bool(sizes[n] <= known.margin(level))
    exact = math.ceil((n + 1) * level) / (n + 1)
    assert level <= exact
    assert held / 1000 == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 1000))


def test_few_rows_promise_little_and_classes_nothing() -> None:
    with pytest.raises(RequestError, match=r"8 rows promise a margin up to the level 0.8889, aske"):
        regressed(8).margin(0.9)
    with pytest.raises(RequestError, match=r"a classification has no margin: ask for calibration"):
        classified().margin()
    with pytest.raises(RequestError, match=r"level is 0, expected a number between 0 and 1"):
        regressed().margin(0)


@pytest.mark.parametrize("n", [5, 300])
def test_the_picture_of_an_interval_can_be_drawn(n: int) -> None:
    picture = classified(n).plot_interval()
    assert "95 % within" in picture.axes[0].get_title()
    assert picture._repr_png_().startswith(b"\x89PNG")
