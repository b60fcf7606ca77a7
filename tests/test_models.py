"""Models by name: their sizes, their starts, and what a summary says of them."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.attached import attached
from workbench.datasets import Dataset, dataset, load
from workbench.errors import RequestError, UnknownNameError
from workbench.models import BUILDERS, build, construct, summary
from workbench.models.convnet import SIZES


def photographs(classes: int = 10) -> Dataset:
    """Return random images of CIFAR-10's shape."""
    images = torch.randint(0, 256, (20, 32, 32, 3), dtype=torch.uint8)
    return dataset("photographs", train=(images, torch.arange(20) % classes))


def count(model: nn.Module) -> int:
    return sum(p.numel() for p in model.parameters())


def test_lenet_is_the_tutorials() -> None:
    assert count(build("lenet", photographs())) == 62_006


@pytest.mark.parametrize("name", BUILDERS)
@pytest.mark.parametrize(("classes", "outputs"), [(10, 10), (3, 3), (2, 1)])
def test_every_model_ends_in_logits(name: str, classes: int, outputs: int) -> None:
    data = photographs(classes)
    model = build(name, data)
    x = torch.randn(5, 3, 32, 32)
    assert model(x).shape == (5, outputs)


@pytest.mark.parametrize("name", ["linear", "mlp"])
def test_a_table_may_have_several_targets(name: str) -> None:
    data = dataset("d", train=(torch.randn(9, 4), torch.randn(9, 3)))
    assert build(name, data)(torch.randn(2, 4)).shape == (2, 3)
    one = dataset("d", train=(torch.randn(9, 4), torch.randn(9)))
    assert build(name, one)(torch.randn(2, 4)).shape == (2, 1)


def test_a_seed_decides_the_start_and_nothing_else() -> None:
    data = load("digits")
    before = torch.get_rng_state()
    first, again, other = (build("mlp", data, seed=seed) for seed in (0, 0, 1))
    assert torch.equal(torch.get_rng_state(), before)
    states = [torch.cat([p.flatten() for p in m.parameters()]) for m in (first, again, other)]
    assert torch.equal(states[0], states[1])
    assert not torch.equal(states[0], states[2])


def test_a_model_remembers_what_it_was_built_for() -> None:
    data = load("digits")
    memory = attached(build("mlp", data, hidden=(7,)))
    assert memory.architecture == {
        "builder": "mlp",
        "sizes": {"inputs": [1, 8, 8], "outputs": 10, "hidden": [7]},
    }
    assert memory.preprocessing is not None
    assert memory.preprocessing.classes == data.classes
    assert memory.example is not None
    assert torch.equal(memory.example, data.train.inputs[:4])


@pytest.mark.parametrize("name", BUILDERS)
def test_an_architecture_is_enough_to_construct_the_model(name: str) -> None:
    model = build(name, photographs())
    twin = construct(json.loads(json.dumps(attached(model).architecture)))
    twin.load_state_dict(model.state_dict())
    x = torch.randn(3, 3, 32, 32)
    assert torch.equal(twin.eval()(x), model.eval()(x))


def test_a_model_remembers_the_columns_of_a_table() -> None:
    table = pd.DataFrame({"width": [0.5, 1.5, 2.0], "height": [1.0, 2.5, 3.0]})
    data = dataset("d", train=(table, [0.0, 1.0, 2.0]))
    memory = attached(build("linear", data))
    assert memory.preprocessing is not None
    assert memory.preprocessing.features == ("width", "height")


def test_sizes_may_be_numpys_integers() -> None:
    model = build("mlp", load("digits"), hidden=[np.int64(7)])
    sizes = (attached(model).architecture or {})["sizes"]
    assert json.loads(json.dumps(sizes))["hidden"] == [7]


def test_a_linear_model_starts_at_zero() -> None:
    assert all(not p.any() for p in build("linear", photographs()).parameters())


def test_the_sizes_of_a_convnet_have_names() -> None:
    data = photographs()
    models = {size: build("convnet", data, size=size) for size in SIZES}
    assert count(models["small"]) == count(build("convnet", data)) < count(models["large"])
    work = [summary(model, data).multiply_adds for model in models.values()]
    assert work == sorted(work)
    assert count(build("convnet", data, widths=(8, 8, 8))) < count(models["small"])


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("covnet", {}, "unknown model 'covnet': did you mean convnet"),
        ("convnet", {"size": "larg"}, "unknown size of convnet 'larg': did you mean large"),
        ("mlp", {"size": "large"}, "mlp has no sizes, got size='large': leave it out"),
        (
            "mlp",
            {"hiden": (3,)},
            r"unknown argument of mlp 'hiden': did you mean hidden\? There are: hidden\.$",
        ),
        ("linear", {"hidden": (3,)}, "linear has no arguments of its own, got hidden=: leave it"),
        ("mlp", {"inputs": (3,)}, "unknown argument of mlp 'inputs'"),
        ("mlp", {"hidden": (-3,)}, r"hidden of mlp is \(-3,\), expected several whole numbers fr"),
        ("mlp", {"hidden": 64}, r"hidden of mlp is 64, expected .* hidden=\(64, 64\)"),
        ("mlp", {"hidden": (8.5,)}, r"hidden of mlp is \(8\.5,\), expected several whole"),
        ("convnet", {"widths": ()}, "widths of convnet is empty, expected one or more"),
        ("convnet", {"stride": True}, "stride of convnet is True, expected a whole number from 1"),
        ("mlp", {"seed": -1}, r"seed must be a whole number from 0 to 2\*\*32 - 1, got -1"),
        ("mlp", {"seed": 2**32}, "seed must be a whole number .* got 4294967296"),
        ("mlp", {"seed": 0.5}, r"seed must be a whole number .* got 0\.5"),
    ],
)
def test_what_cannot_be_built_is_refused(name: str, options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        build(name, photographs(), **options)


def test_an_unknown_builder_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown model builder 'mpl': did you mean mlp"):
        construct({"builder": "mpl", "sizes": {}})


def test_a_net_for_images_refuses_a_table() -> None:
    message = r"lenet takes images, got rows of \(10,\) from 'diabetes': use 'mlp' or 'linear'"
    with pytest.raises(RequestError, match=message):
        build("lenet", load("diabetes"))


@pytest.mark.parametrize("name", ["lenet", "convnet"])
def test_the_smallest_images_are_sixteen_a_side(name: str) -> None:
    images = torch.randint(0, 256, (4, 16, 16), dtype=torch.uint8)
    data = dataset("small", train=(images, [0, 1, 2, 0]))
    assert build(name, data)(torch.randn(2, 1, 16, 16)).shape == (2, 3)
    with pytest.raises(RequestError, match=r"^images of 8×8 are too small, expected 16 or more a"):
        build(name, load("digits"))


def test_a_summary_counts_what_can_be_counted_by_hand() -> None:
    model = build("lenet", photographs())
    told = summary(model, photographs())
    by_hand = {
        "conv1": (6 * 3 * 25 + 6, 28 * 28 * 6 * 3 * 25),
        "conv2": (16 * 6 * 25 + 16, 10 * 10 * 16 * 6 * 25),
        "fc1": (400 * 120 + 120, 400 * 120),
        "fc2": (120 * 84 + 84, 120 * 84),
        "fc3": (84 * 10 + 10, 84 * 10),
    }
    layers = told.layers.set_index("layer")
    found = layers[["parameters", "multiply_adds"]].itertuples()
    assert {name: (p, m) for name, p, m in found} == by_hand
    assert (told.parameters, told.trainable) == (62_006, 62_006)
    assert told.multiply_adds == sum(m for _, m in by_hand.values())
    assert layers.loc["conv1", "output"] == "6×28×28"
    assert told.activation_bytes == 4 * (6 * 28 * 28 + 16 * 10 * 10 + 120 + 84 + 10)


def test_a_summary_knows_what_is_frozen_and_shared() -> None:
    layer = nn.Linear(4, 4)
    model = nn.Sequential(layer, nn.ReLU(), layer, nn.Linear(4, 1))
    model[3].requires_grad_(False)
    told = summary(model, dataset("d", train=(torch.randn(5, 4), torch.randn(5))))
    assert (told.parameters, told.trainable) == (25, 20)
    assert told.layers["multiply_adds"].tolist() == [16, 0, 16, 4]  # a call a row
    assert told.multiply_adds == 36


def test_a_summary_counts_calls_of_different_sizes() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(x) + self.layer(x.repeat(1, 3).reshape(-1, 3, 4)).sum(1)
            return y

    told = summary(Twice(), dataset("d", train=(torch.randn(5, 4), torch.randn(5))))
    assert told.layers["multiply_adds"].tolist() == [4, 12]


def test_a_summary_counts_work_outside_layers() -> None:
    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.layer = nn.Parameter(torch.randn(4, 5)), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(x @ self.w)
            return y

    told = summary(Mixed(), dataset("d", train=(torch.randn(5, 4), torch.randn(5, 2))))
    found = told.layers[["layer", "parameters", "multiply_adds"]].to_numpy().tolist()
    assert found == [["layer", 12, 10], ["(no layer)", 20, 20]]
    assert told.multiply_adds == 30


def test_a_summary_shows_no_private_name() -> None:
    kinds = summary(build("convnet", photographs()), photographs()).layers["kind"]
    assert "FastBiasNorm" in set(kinds)
    assert not any(kind.startswith("_") for kind in kinds)


def test_a_summary_takes_layers_that_answer_with_more_than_a_tensor() -> None:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.lstm, self.head = nn.LSTM(4, 5, batch_first=True), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.head(self.lstm(x)[0][:, -1])
            return y

    told = summary(Recurrent(), dataset("d", train=(torch.randn(5, 7, 4), [0, 1, 0, 1, 2])))
    assert told.layers["output"].tolist() == ["7×5", "2"]


def test_a_summary_takes_a_model_whose_layers_are_never_called() -> None:
    class Functional(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Linear(4, 1)

        def forward(self, x: Tensor) -> Tensor:
            return F.linear(x, self.layer.weight)

    told = summary(Functional(), dataset("d", train=(torch.randn(5, 4), torch.randn(5))))
    assert (told.parameters, told.multiply_adds, told.activation_bytes) == (5, 4, 0)


def test_a_summary_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Linear(4, 1))
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    summary(model, dataset("d", train=(torch.randn(5, 4), torch.randn(5))))
    assert [m.training for m in model] == [True, False, True]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(m._forward_hooks for m in model.modules())


def test_a_summary_shows_its_sums() -> None:
    told = summary(build("lenet", photographs()), photographs())
    total = (
        "62,006 parameters (62,006 trainable), 651,720 multiply-adds and 25.5 KiB of activations"
    )
    assert total in repr(told)
    assert total in told._repr_html_()
    assert "<table" in told._repr_html_()
