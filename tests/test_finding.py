"""`find_lr`: a good rate, and no trace of having looked for it."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch import nn

from workbench.attached import attached
from workbench.datasets import dataset, load
from workbench.errors import DivergedError, RequestError
from workbench.evaluation import evaluate
from workbench.models import build
from workbench.training import find_lr, fit


def test_the_rate_that_is_found_trains_well() -> None:
    data = load("digits", validation=200)
    model = build("mlp", data)
    found = find_lr(model, data)
    assert 1e-4 < found.lr < 1
    assert found.rates[0] == 1e-6
    assert len(found.rates) == len(found.losses) > 50
    fit(model, data, epochs=5, lr=found.lr)
    assert data.validation is not None
    assert evaluate(model, data.validation).accuracy > 0.9


def test_looking_leaves_no_trace() -> None:
    data = load("digits", validation=200)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = nn.Sequential(
            nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Dropout(0.5), nn.Linear(16, 10)
        ).eval()
    twin, random = copy.deepcopy(net), torch.get_rng_state()
    find_lr(net, data)
    assert torch.equal(torch.get_rng_state(), random)
    assert not any(module.training for module in net.modules())
    assert attached(net).training is None
    assert attached(net).preprocessing is None
    histories = [fit(model, data, epochs=1, seed=3).history for model in (net, twin)]
    assert histories[0] == histories[1]
    for name, value in net.state_dict().items():
        assert torch.equal(value, twin.state_dict()[name])


def test_rates_that_explode_end_the_picture() -> None:
    X = torch.randn(64, 3, generator=torch.Generator().manual_seed(0))
    data = dataset("d", train=(X, X.sum(1) * 10))
    found = find_lr(build("linear", data), data, optimizer="sgd")
    assert found.rates[-1] < 10
    assert all(math.isfinite(loss) for loss in found.losses)
    assert found.plot()._repr_png_().startswith(b"\x89PNG")
    assert repr(found) == f"LearningRates(lr={found.lr!r})"


def test_a_model_of_nan_has_no_rate() -> None:
    data = load("line")
    model = build("linear", data)
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(DivergedError, match=r"loss of linear is not a number at .* of 1e-06: look"):
        find_lr(model, data)


def test_arrays_are_no_dataset() -> None:
    with pytest.raises(RequestError, match="find_lr takes a Dataset, got tuple: make one with"):
        find_lr(nn.Linear(4, 2), (torch.ones(2, 4), [0, 1]))  # type: ignore[arg-type]


def test_a_recipe_that_averages_is_looked_at_without() -> None:
    data = load("digits")
    model = build("mlp", data)
    model.recipe = {"average": "lookahead"}  # type: ignore[assignment]
    assert find_lr(model, data, steps=20).lr > 0


def test_an_argument_that_it_has_not_is_refused() -> None:
    data = load("line")
    with pytest.raises(RequestError, match=r"'batchsize': did you mean batch_size"):
        find_lr(build("linear", data), data, batchsize=3)
    with pytest.raises(RequestError, match="unknown argument of find_lr 'schedule'"):
        find_lr(build("linear", data), data, schedule="cosine")
