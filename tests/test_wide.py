"""The wide sets are the same everywhere, and what is said of them is so."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import Tensor

from workbench.datasets import Dataset, Split, load
from workbench.datasets.wide import NOISE, weights
from workbench.evaluation import evaluate
from workbench.models import build
from workbench.training import fit

BOTH = ("wide", "wide_nonlinear")


def rows(name: str) -> Split:
    """Return every row of a set."""
    data = load(name, validation=0)
    assert data.test is not None
    parts = data.train, data.test
    return Split(torch.cat([p.inputs for p in parts]), torch.cat([p.targets for p in parts]))


def truth(name: str, inputs: Tensor) -> Tensor:
    along = inputs.double() @ weights(name)
    return along if name == "wide" else 2 * along.abs()


def ridge(data: Dataset) -> float:
    """Return how much of the test split's variance scikit-learn's ridge explains."""
    assert data.test is not None
    model = Ridge(100.0).fit(data.train.inputs.numpy(), data.train.targets.numpy())
    return float(model.score(data.test.inputs.numpy(), data.test.targets.numpy()))


def net(data: Dataset) -> float:
    """Return how much of it a small net explains."""
    assert data.test is not None
    model = build("mlp", data, hidden=(100,), seed=0)
    fit(model, data, epochs=3, optimizer="adamw", lr=0.001, batch_size=64)
    return evaluate(model, data.test).r2


@pytest.mark.parametrize(
    ("name", "fingerprint"), [("wide", "2b4c44cf4e45"), ("wide_nonlinear", "b32071253bab")]
)
def test_they_are_the_same_bits_on_every_machine(name: str, fingerprint: str) -> None:
    data = load(name)
    assert data.fingerprint.startswith(fingerprint)
    assert data.validation is not None
    assert data.test is not None
    assert [len(p) for p in (data.train, data.validation, data.test)] == [4000, 1000, 2000]
    assert (data.train.inputs.dtype, data.train.targets.dtype) == (torch.float32, torch.float32)
    assert (data.train.inputs.shape[1:], data.train.targets.shape[1:]) == ((1000,), ())


@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_no_bit(threads: int) -> None:
    program = (
        f"import torch; torch.set_num_threads({threads})\n"
        "import workbench as wb; print(wb.load('wide').fingerprint)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert out.stdout.decode().strip() == load("wide").fingerprint


def test_every_product_is_exact() -> None:
    x, w = (rows("wide").inputs * 1024).double(), weights("wide") * 2**13
    assert torch.equal(x, x.round())
    assert torch.equal(w, w.round())
    assert (x.abs() @ w.abs()).max() < 2**53
    shuffled = torch.randperm(1000, generator=torch.Generator().manual_seed(0))
    assert torch.equal(x @ w, x[:, shuffled] @ w[shuffled])


def test_both_have_the_same_inputs_and_no_more_noise_than_is_said() -> None:
    first, second = (rows(name) for name in BOTH)
    assert torch.equal(first.inputs, second.inputs)
    for name, part in zip(BOTH, (first, second), strict=True):
        noise = part.targets.double() - truth(name, part.inputs)
        assert abs(noise.mean().item()) < 4 * NOISE / len(part) ** 0.5
        assert noise.std().item() == pytest.approx(NOISE, rel=0.03)
        correlation = np.corrcoef(noise.numpy(), part.inputs[:, :20].numpy().T)[0, 1:]
        assert abs(correlation).max() < 4 / len(part) ** 0.5


def test_inputs_and_signal_are_of_ordinary_size() -> None:
    inputs = rows("wide").inputs
    assert inputs.std().item() == pytest.approx((1 + 1 / 16) ** 0.5, rel=0.01)
    assert abs(inputs.mean().item()) < 0.01
    for name in BOTH:
        along = inputs.double() @ weights(name)
        assert along.std().item() == pytest.approx(1, rel=0.05)


@pytest.mark.parametrize("name", BOTH)
def test_the_card_says_the_floor(name: str) -> None:
    data = load(name)
    assert f"{NOISE**2:.2g} is the lowest MSE" in data.card.description
    assert "2,000 rows are the test split" in data.card.description


def test_the_linear_model_wins_one_and_the_net_the_other() -> None:
    linear, folded = (load(name) for name in BOTH)
    assert ridge(linear) > 0.87 > net(linear)
    assert ridge(folded) < 0
    assert net(folded) > 0.8


def test_an_unknown_name_has_no_weights() -> None:
    with pytest.raises(KeyError, match="narrow"):
        weights("narrow")
