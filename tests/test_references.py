"""What is kept of rows of the data: how their figures are distributed, and no row."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from workbench.attached import attached, sample_of
from workbench.datasets import Dataset, dataset, load
from workbench.errors import DivergedError
from workbench.evaluation import predict
from workbench.models import build
from workbench.preprocessing import Preprocessing
from workbench.registry import Histogram, Reference, publish, version
from workbench.registry.references import input_figures, output_figures
from workbench.training import fit

DRAW = torch.Generator().manual_seed(3)
IMAGES = torch.randint(0, 256, (30, 6, 6, 3), dtype=torch.uint8, generator=DRAW)


def reference_of(model: nn.Module, data: Dataset, **how: Any) -> Reference:
    fit(model, data, steps=2, **how)
    made = publish(model, "net")
    found = version(made.ref).reference
    assert found is not None
    assert found == made.reference
    assert made.card["reference"] == {"rows": found.rows, "rows_of": found.rows_of}
    return found


def table(rows: int = 500) -> Dataset:
    """Return rows of a normal, a skewed and a binary feature, and one that is constant."""
    draw = torch.Generator().manual_seed(1)
    a, b = torch.randn(rows, generator=draw), torch.rand(rows, generator=draw) ** 4
    c = (torch.rand(rows, generator=draw) > 0.3).float()
    frame = pd.DataFrame({"a": a, "b": b, "c": c, "d": 5.0, "y": (a > 0).long()})
    return dataset("mixed", train=frame, target="y")


def test_each_feature_of_a_table_is_cut_at_its_deciles() -> None:
    data = table()
    found = reference_of(build("linear", data), data)
    assert (found.rows, list(found.inputs)) == (500, ["a", "b", "c", "d"])
    for i, name in enumerate("ab"):
        values, histogram = data.train.inputs[:, i].double().numpy(), found.inputs[name]
        cuts = np.quantile(values, np.arange(1, 10) / 10, method="inverted_cdf")
        np.testing.assert_array_equal(histogram.edges[1:-1], cuts)
        assert histogram.shares == (0.0, *[0.1] * 10, 0.0)
        assert (histogram.edges[0] < values.min(), histogram.edges[-1]) == (True, values.max())
    ones = float(data.train.inputs[:, 2].mean())
    np.testing.assert_allclose(found.inputs["c"].shares, [0, 1 - ones, ones, 0], atol=1e-7)
    assert found.inputs["d"].shares == (0.0, 1.0, 0.0)


@pytest.mark.parametrize("values", [np.arange(7.0), np.zeros(3), np.array([1.0]), np.r_[1, 1, 9.5]])
def test_shares_are_those_of_a_plain_count(values: np.ndarray[Any, Any]) -> None:
    found = Histogram.of(values)
    bounds = [-np.inf, *found.edges, np.inf]
    for other in (values, values + 3, -values * 2):
        counted = [np.mean((low < other) & (other <= high)) for low, high in pairwise(bounds)]
        np.testing.assert_allclose(found.shares_of(other), counted)
    assert found.shares_of(values) == found.shares
    assert (found.shares[0], found.shares[-1]) == (0, 0)
    assert found.shares_of(values + 1e9)[-1] == 1


def test_an_image_is_known_by_brightness_contrast_and_channels() -> None:
    data = dataset("images", train=(IMAGES, torch.arange(30) % 3))
    model = build("mlp", data)
    found = reference_of(model, data)
    pixels = IMAGES.double().numpy().reshape(30, -1, 3)
    expected = {
        "brightness": pixels.mean((1, 2)),
        "contrast": pixels.std((1, 2)),
        **{f"channel_{i}": pixels[:, :, i].mean(1) for i in range(3)},
    }
    given = input_figures(IMAGES, model_preprocessing(model))
    assert list(found.inputs) == list(given) == list(expected)
    for name, values in expected.items():
        np.testing.assert_allclose(given[name], values, rtol=1e-12)
        np.testing.assert_allclose(found.inputs[name].edges, Histogram.of(values).edges, rtol=1e-9)


def model_preprocessing(model: nn.Module) -> Preprocessing:
    found = attached(model).preprocessing
    assert found is not None
    return found


def test_grey_images_have_no_channels() -> None:
    plain = Preprocessing("image", (6, 6), "uint8", (0.0,), (1.0,))
    assert list(input_figures(IMAGES[..., 0], plain)) == ["brightness", "contrast"]


def test_other_rows_are_known_by_mean_and_spread() -> None:
    rows = torch.randint(0, 9, (8, 5), generator=DRAW)
    found = input_figures(rows, Preprocessing("tensor", (5,), "int64"))
    np.testing.assert_allclose(found["mean"], rows.double().mean(1))
    np.testing.assert_allclose(found["std"], rows.double().numpy().std(1))
    assert list(input_figures(rows[:, 0], Preprocessing("tensor", (), "int64"))) == ["mean"]


def test_predictions_are_known_by_class_and_certainty() -> None:
    data = dataset("images", train=(IMAGES, torch.arange(30) % 3), classes=["a", "b", "c"])
    model = build("mlp", data)
    found, said = reference_of(model, data), predict(model, IMAGES)
    assert said.labels is not None
    assert said.probabilities is not None
    assert found.classes == {name: said.labels.count(name) / 30 for name in "abc"}
    tops = said.probabilities.max(1).values.double().numpy()
    assert found.outputs == {"top_probability": Histogram.of(tops)}


def test_one_logit_of_two_classes_is_as_sure_either_way() -> None:
    output = torch.tensor([[2.0], [-2.0], [0.5]])
    two = Preprocessing("tensor", (1,), "float32", classes=("no", "yes"))
    found = Reference.of(torch.zeros(3, 1), output, two)
    np.testing.assert_allclose(output_figures(output, two)["top_probability"][:2], 0.880797, 1e-6)
    assert found.classes == {"no": 1 / 3, "yes": 2 / 3}


def test_a_regression_is_known_by_its_values() -> None:
    data = load("diabetes")
    model = build("linear", data)
    found = reference_of(model, data)
    values = predict(model, data.train.inputs).output[:, 0].double().numpy()
    assert (found.outputs, found.classes) == ({"output_0": Histogram.of(values)}, {})


@pytest.mark.parametrize(("shape", "names"), [((4,), ["output_0"]), ((4, 3, 2), ["mean", "std"])])
def test_answers_of_another_shape_have_figures_too(
    shape: tuple[int, ...], names: list[str]
) -> None:
    plain = Preprocessing("tensor", (1,), "float32", classes=("a", "b") if len(shape) > 2 else ())
    output = torch.randn(shape)
    assert list(output_figures(output, plain)) == names
    assert Reference.of(torch.zeros(4, 1), output, plain).classes == {}


def test_answers_that_are_no_numbers_are_left_out() -> None:
    output = torch.tensor([[1.0, float("nan")], [2.0, float("nan")], [float("inf"), float("nan")]])
    found = Reference.of(torch.zeros(3, 1), output, Preprocessing("tensor", (1,), "float32"))
    assert found.outputs == {"output_0": Histogram.of(np.array([1.0, 2.0]))}


def test_a_reference_comes_back_from_json() -> None:
    found = reference_of(build("linear", table()), table())
    text = json.dumps(found.to_json(), allow_nan=False)
    assert Reference.from_json(json.loads(text)) == found
    for strange in ({"edges": [], "shares": [1.0]}, {"edges": [1, 1], "shares": [0, 1, 0]}):
        with pytest.raises(ValueError, match="shares make no histogram"):
            Histogram.from_json(strange)
    with pytest.raises(ValueError, match="format 2, expected 1"):
        Reference.from_json({**found.to_json(), "format": 2})


def test_rows_that_were_not_trained_on_come_first() -> None:
    data = table()
    assert reference_of(build("linear", data), data).rows_of == "train"
    held = dataset("held", train=(data.train.inputs, data.train.targets), validation=100)
    assert held.validation is not None
    model = build("linear", held)
    found = reference_of(model, held)
    assert (found.rows, found.rows_of) == (100, "validation")
    first = held.validation.inputs[:, 0].double().numpy()
    assert found.inputs["feature_0"] == Histogram.of(first)
    said = predict(model, held.validation.inputs).labels
    assert said is not None
    assert found.classes == {name: said.count(name) / 100 for name in held.classes}


def test_a_reference_that_does_not_say_is_of_training_rows() -> None:
    found = reference_of(build("linear", table()), table())
    older = {key: value for key, value in found.to_json().items() if key != "rows_of"}
    assert Reference.from_json(older) == found
    assert found.rows_of == "train"


def test_no_row_is_stored() -> None:
    data = table(3000)
    found = reference_of(build("linear", data), data)
    assert (found.rows, len(json.dumps(found.to_json())) < 5_000) == (2000, True)


def test_a_model_that_was_not_trained_here_has_none() -> None:
    made = publish(build("linear", table()), "net")
    assert (made.reference, made.card["reference"]) == (None, None)
    again = publish(version("net@1").load(), "net")
    assert again.reference is None


def test_a_loader_shows_its_first_batch() -> None:
    rows = TensorDataset(torch.randn(40, 4), torch.arange(40) % 3)
    model = nn.Linear(4, 3)
    fit(model, DataLoader(rows, batch_size=16), steps=2)
    found = publish(model, "net").reference
    assert found is not None
    assert (found.rows, list(found.inputs)) == (16, ["mean", "std"])


def test_a_training_that_diverged_leaves_the_sample_of_the_one_before() -> None:
    data, model = table(), build("linear", table())
    fit(model, data, steps=2)
    before = attached(model).sample
    assert attached(model).sample_split == "train"
    rows = (data.train.inputs[:50], data.train.targets[:50])
    other = dataset("other", train=rows, validation=rows)
    with pytest.raises(DivergedError):
        fit(model, other, steps=5, lr=1e30, optimizer="sgd", loss=lambda out, y: (out**4).sum())
    assert (attached(model).sample is before, attached(model).sample_split) == (True, "train")


@pytest.mark.parametrize("rows", [1, 1999, 2000, 2001, 50_000])
def test_a_sample_is_small_even_and_the_same_each_time(rows: int) -> None:
    places = torch.arange(rows)[:, None]
    found = sample_of(places)
    assert torch.equal(found, sample_of(places))
    assert len(found) == min(rows, 2000)
    bounds = torch.arange(len(found) + 1) * rows // len(found)
    assert ((found[:, 0] >= bounds[:-1]) & (found[:, 0] < bounds[1:])).all()
    assert len(found.unique()) == len(found)


def test_a_sample_meets_what_recurs_as_often_as_it_occurs() -> None:
    hours = torch.arange(48_000)[:, None] % 24  # every 24th row is of one hour
    shares = torch.bincount(sample_of(hours)[:, 0], minlength=24) / 2000
    assert (shares - 1 / 24).abs().max() < 0.02


def test_a_sample_of_large_rows_has_few_of_them() -> None:
    rows = torch.zeros(1, 2**20, dtype=torch.uint8).expand(500, -1)
    assert sample_of(rows).shape == (64, 2**20)
