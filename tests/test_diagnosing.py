"""Over-fitting that is there is seen, and more rows are the same rows and more."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from workbench.datasets import Dataset, Split, dataset, load
from workbench.errors import RequestError
from workbench.evaluation import (
    Diagnosis,
    Evaluation,
    diagnose,
    diagnosing,
    evaluate,
    learning_curve,
)
from workbench.models import build
from workbench.training import fit

CLASSES = ("no", "yes")


class Parrot(nn.Module):
    """Answers with the logits, or values, that its input bears."""

    def forward(self, x: Tensor) -> Tensor:
        return x


def answered(train: float, validation: float, n: int = 400) -> Dataset:
    """Return data of which `Parrot` gets these shares right."""
    parts: dict[str, Any] = {}
    for name, share in (("train", train), ("validation", validation)):
        right = torch.arange(n) < share * n
        logits = torch.stack([right, ~right], 1).float().double()  # doubles are not standardized
        parts[name] = Split(logits, torch.zeros(n).long(), CLASSES)
    made = dataset("parrot", train=([[0.0]], [0]), classes=CLASSES)
    return replace(made, **parts)


def test_a_model_that_knows_its_rows_by_heart_over_fits() -> None:
    found = diagnose(Parrot(), answered(1.0, 0.8))
    assert found.gap == pytest.approx(0.2)
    assert found.interval[0] == pytest.approx(0.16, abs=0.01)
    assert found.interval[1] == pytest.approx(0.24, abs=0.01)
    assert repr(found) == found.verdict
    start = "over-fits: accuracy 1 on rows it learned from, 0.8 on validation, a gap of 0.2 (95 %"
    assert found.verdict.startswith(start)


def test_intervals_hold_the_gap_about_as_often_as_they_say() -> None:
    draws = torch.Generator().manual_seed(0)
    held = 0
    for _ in range(100):
        train, validation = (
            Evaluation(
                Split(torch.zeros(n, 1), size * torch.randn(n, generator=draws)), torch.zeros(n, 1)
            )
            for size, n in ((1, 300), (2, 200))
        )
        low, high = Diagnosis(train, validation).interval
        held += low <= 3 <= high  # 2² less 1²
    assert 0.89 <= held / 100 <= 0.99


@pytest.mark.parametrize("shares", [(0.8, 0.8), (0.8, 0.82), (0.82, 0.8), (1.0, 1.0), (0.0, 0.0)])
def test_a_gap_that_may_be_chance_is_not_called_one(shares: tuple[float, float]) -> None:
    found = diagnose(Parrot(), answered(*shares))
    assert found.verdict.startswith("no gap shown: accuracy")
    assert found.interval[0] <= found.gap <= found.interval[1]


def test_the_rows_of_both_parts_are_drawn_apart() -> None:
    found = diagnose(Parrot(), answered(0.5, 0.5))
    width = found.interval[1] - found.interval[0]
    assert width == pytest.approx(2 * 1.96 * (2 * 0.25 / 400) ** 0.5, rel=0.1)


def regressed(train: float, validation: float) -> Dataset:
    """Return data on which an output of 0 is off by the normal distribution's quantiles, scaled."""
    quantiles = torch.special.ndtri(torch.linspace(0.001, 0.999, 300))
    parts: dict[str, Any] = {}
    for name, size in (("train", train), ("validation", validation)):
        parts[name] = Split(torch.zeros(300, 1, dtype=torch.float64), size * quantiles)
    return replace(dataset("zeros", train=([[0.0]], [0.0])), **parts)


def test_a_regression_over_fits_by_its_squared_error() -> None:
    found = diagnose(Parrot(), regressed(1.0, 2.0))
    assert found.gap == pytest.approx(found.validation.mse - found.train.mse)
    assert found.verdict.startswith("over-fits: mse ")
    assert 2 < found.interval[0] < 3 < found.interval[1] < 4  # 2² less 1²
    assert diagnose(Parrot(), regressed(1.0, 1.0)).verdict.startswith("no gap shown: mse ")
    assert found.plot()._repr_png_().startswith(b"\x89PNG")


def test_a_real_net_that_trains_long_on_few_rows_over_fits() -> None:
    data = load("digits", validation=300, train_limit=60)
    model = build("mlp", data, hidden=(64,))
    fit(model, data, steps=150)
    found = diagnose(model, data)
    assert found.train.accuracy > 0.95
    assert found.verdict.startswith(f"over-fits: accuracy {found.train.accuracy:.4g} on rows it")
    assert found.gap == found.train.accuracy - evaluate(model, data.validation).accuracy
    picture = found.plot()
    assert [a.get_ylabel() for a in picture.axes] == [
        "accuracy\nwith 95 % interval",
        "loss, nats\nwith 95 % interval",
    ]
    assert picture._repr_png_().startswith(b"\x89PNG")


def test_of_very_many_rows_the_same_ten_thousand_are_asked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(diagnosing, "_MOST_ROWS", 100)
    found = diagnose(Parrot(), answered(0.8, 0.8))
    assert len(found.train) == 100
    assert len(found.validation) == 400
    assert found.train.metrics == diagnose(Parrot(), answered(0.8, 0.8)).train.metrics


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (
            load("digits"),
            r"diagnose needs rows that 'digits' was not trained on, and it has no val",
        ),
        (load("digits").train, r"diagnose takes a Dataset, got Split: pass data"),
    ],
)
def test_without_validation_there_is_no_diagnosis(data: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        diagnose(Parrot(), data)


def recorded(data: Dataset, **options: Any) -> tuple[list[Dataset], diagnosing.LearningCurve]:
    """Return the data sets that were to be learned from, and the curve."""
    seen: list[Dataset] = []

    def train(part: Dataset) -> nn.Module:
        seen.append(part)
        return build("linear", part)

    return seen, learning_curve(train, data, **options)


def keys(part: Dataset) -> set[bytes]:
    return {row.numpy().tobytes() for row in part.train.inputs}


def test_each_larger_part_holds_the_smaller_ones_and_the_shares_of_the_classes() -> None:
    data = load("digits", validation=300)
    seen, curve = recorded(data, sizes=(0.05, 200, 0.5, 1.0))
    assert curve.table["rows"].tolist() == [57, 200, 568, 1137]
    assert [len(part.train) for part in seen] == [57, 200, 568, 1137]
    assert keys(seen[0]) < keys(seen[1]) < keys(seen[2]) < keys(seen[3])
    assert seen[3] is data
    shares = [part.train.targets.bincount() / len(part.train) for part in seen]
    assert all(float((share - shares[-1]).abs().max()) < 0.02 for share in shares)
    assert all(part.validation is data.validation for part in seen)
    assert len({part.fingerprint for part in seen}) == 4


def test_the_seed_chooses_the_rows_and_nothing_else() -> None:
    data = load("digits", validation=300)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    (first,), _ = recorded(data, sizes=(100,))
    (again,), _ = recorded(data, sizes=(100,))
    (other,), _ = recorded(data, sizes=(100,), seed=1)
    assert torch.equal(first.train.inputs, again.train.inputs)
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert keys(first) != keys(other)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_figures_are_those_of_evaluate() -> None:
    data = load("digits", validation=300)
    models, parts = [], []

    def train(part: Dataset) -> nn.Module:
        parts.append(part)
        models.append(build("linear", part))
        fit(models[-1], part, epochs=2)
        return models[-1]

    curve = learning_curve(train, data, sizes=(0.1, 1.0))
    held = [evaluate(model, data.validation) for model in models]
    assert curve.table["validation"].tolist() == [found.accuracy for found in held]
    learned = [evaluate(m, part.train).accuracy for m, part in zip(models, parts, strict=True)]
    assert curve.table["train"].tolist() == learned
    ends = curve.table[["low", "high"]].to_numpy().tolist()
    assert ends == [list(found.interval()) for found in held]
    assert repr(curve) == (
        f"validation accuracy from {held[0].accuracy:.4g} with 114 rows to "
        f"{held[1].accuracy:.4g} with 1,137, 2 sizes"
    )


def test_the_curve_of_a_regression_is_of_its_squared_error() -> None:
    _, curve = recorded(load("diabetes", validation=80), sizes=(0.5, 1.0))
    assert curve.figure == "mse"
    axes = curve.plot().axes[0]
    assert axes.get_ylabel() == "mean squared error, target's unit²"
    assert [text.get_text() for text in axes.get_xticklabels()] == ["137", "274"]
    assert curve.plot()._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"sizes": (0.1, 2.0)},
            r"size 2.0 is 2274 of 1,137 training rows, expected 1 to 1,137, or",
        ),
        ({"sizes": (0,)}, r"size 0 is 0 of 1,137 training rows"),
        ({"sizes": (0.0001,)}, r"size 0.0001 is 0 of 1,137 training rows"),
        ({"sizes": (True,)}, r"size True is"),
        ({"sizes": (0.5, 0.1)}, r"sizes are \[568, 114\] rows, expected ever larger ones: \(0.1"),
        ({"sizes": (0.5, 568)}, r"sizes are \[568, 568\] rows, expected ever larger"),
        ({"sizes": ()}, r"sizes are \[\] rows, expected ever larger"),
        ({"seed": 0.5}, r"seed must be a whole number"),
    ],
)
def test_sizes_that_cannot_be_are_refused_before_anything_trains(
    options: Any, message: str
) -> None:
    data = load("digits", validation=300)
    with pytest.raises(RequestError, match=message):
        learning_curve(lambda part: pytest.fail("it trained"), data, **options)


def test_a_way_to_train_returns_the_model() -> None:
    data = load("digits", validation=300)
    with pytest.raises(RequestError, match=r"train returned NoneType, expected a model \(an nn.Mo"):
        learning_curve(lambda part: None, data)  # type: ignore[arg-type, return-value]
    with pytest.raises(RequestError, match="learning_curve needs rows that 'digits' was not train"):
        learning_curve(lambda part: Parrot(), load("digits"))
