"""What is said of a model's layers, of what is in one, and of its gradients, without a browser."""

from __future__ import annotations

import math
import random
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from workbench import Callback, Dataset, build, dataset, fit, load
from workbench.errors import RequestError, UnknownNameError
from workbench.evaluation.activations import _FUNCTIONS, Activation, activations
from workbench.evaluation.insides import Inside, inside
from workbench.evaluation.layers import Layer
from workbench.evaluation.surveys import Survey, survey
from workbench.models.leaves import watched
from workbench.training.gradients import gradient_flow


def points(n: int = 300, width: int = 2, classes: int = 2) -> Dataset:
    X = torch.randn(n, width, generator=torch.Generator().manual_seed(0))
    return dataset("points", train=(X, torch.arange(n) % classes))


def photographs(n: int = 40, side: int = 32, channels: int = 3) -> Dataset:
    shape = (n, side, side, channels) if channels > 1 else (n, side, side)
    images = torch.randint(0, 256, shape, generator=torch.Generator().manual_seed(0))
    return dataset("photographs", train=(images.to(torch.uint8), torch.arange(n) % 10))


def layer_of(found: Survey, name: str) -> Layer:
    return next(layer for layer in found.layers if layer.name == name)


def opened(model: nn.Module, data: Dataset, name: str, row: int = 0, first: int = 0) -> Inside:
    found = survey(model, data)
    raw = found.rows.inputs[row]
    return inside(model, layer_of(found, name), raw, found.preprocessing, first=first)


def answers(model: nn.Module, found: Survey, layer: nn.Module) -> Tensor:
    """Return what a layer answers to all rows, by a plain hook."""
    kept: list[Tensor] = []
    hook = layer.register_forward_hook(lambda _, __, answer: kept.append(answer.clone()))
    with torch.no_grad():
        model.eval()(found.preprocessing(found.rows.inputs))
    hook.remove()
    return kept[0]


def set_to(layer: nn.Linear, biases: list[float]) -> nn.Linear:
    """Let a layer answer with its biases, whatever it is given."""
    with torch.no_grad():
        layer.weight.zero_()
        layer.bias.copy_(torch.tensor(biases))
    return layer


def test_units_that_are_known_to_be_dead_or_saturated_are_found() -> None:
    first = set_to(nn.Linear(2, 4), [-1.0, 1.0, -2.0, 0.5])
    second = set_to(nn.Linear(4, 3), [10.0, 0.5, -10.0])
    model = nn.Sequential(first, nn.ReLU(), nn.Dropout(), second, nn.Tanh(), nn.Linear(3, 2))
    found = survey(model, points())
    relu, dropout, tanh = (layer_of(found, name) for name in "124")
    assert (relu.dead, relu.zeros, relu.warning) == ((0, 2), 0.5, "2 of 4 units dead")
    assert (dropout.dead, dropout.zeros, dropout.warning) == (None, 0.5, "")
    assert (tanh.stuck, tanh.warning) == ((0, 2), "67 % of outputs saturated")
    assert tanh.saturated == pytest.approx(2 / 3)
    assert layer_of(found, "3").saturated is None  # whose outputs have no ends
    assert "Dead, which is 0 for every row and place: units 0, 2." in relu.words
    assert "always so: units 0, 2." in tanh.words[2]


@pytest.mark.parametrize("kind", [nn.Sigmoid, nn.Hardsigmoid])
def test_a_sigmoid_is_saturated_near_0_and_1(kind: type[nn.Module]) -> None:
    edge = math.log(0.0101 / 0.9899) if kind is nn.Sigmoid else 6 * (0.0101 - 0.5)
    biases = [edge, edge - 0.1, -edge, -edge + 0.1]
    model = nn.Sequential(set_to(nn.Linear(2, 4), biases), kind())
    told = layer_of(survey(model, points()), "1")
    assert (told.stuck, told.saturated) == ((1, 3), 0.5)


def test_statistics_are_those_of_all_rows_at_once() -> None:
    data = photographs()
    model = build("lenet", data, seed=0)
    found = survey(model, data)
    for name in ("conv2", "fc1"):
        exact = answers(model, found, getattr(model, name)).double()
        for told, values in (
            (layer_of(found, name), exact),
            (layer_of(found, f"relu after {name}"), exact.relu()),
        ):
            assert told.mean == pytest.approx(float(values.mean()), rel=1e-5)
            assert told.std == pytest.approx(float(values.std(correction=0)), rel=1e-5)
            assert told.zeros == float((values == 0).double().mean())
            assert told.high == pytest.approx(float(values.max()), rel=1e-5)
            never = (
                (values == 0).flatten(2).all(2).all(0) if values.ndim > 2 else (values == 0).all(0)
            )
            assert told.dead == tuple(never.nonzero().flatten().tolist())


def test_layers_come_in_order_with_their_cost_and_functions_between() -> None:
    data = photographs()
    model = build("lenet", data)
    found = survey(model, data)
    table = found.table().set_index("name")
    assert list(table.index)[:4] == ["conv1", "relu after conv1", "conv2", "relu after conv2"]
    assert table.loc["conv1", "output"] == "6×28×28"
    told = found.summary.layers.set_index("layer")
    assert table["multiply_adds"].sum() == told["multiply_adds"].sum() == 651_720
    assert (table.loc[told.index, "parameters"] == told["parameters"]).all()
    norm = float(model.conv1.weight.detach().norm())  # type: ignore[union-attr, operator]
    assert table.loc["conv1", "weight_norm"] == pytest.approx(norm)
    assert layer_of(found, "relu after conv1").weight_norm is None


def test_a_layer_used_twice_is_met_twice_and_counted_once() -> None:
    shared = nn.Linear(2, 2)
    model = nn.Sequential(shared, nn.ReLU(), shared, nn.Linear(2, 2))
    found = survey(model, points())
    assert [layer.name for layer in found.layers] == ["0", "1", "0 (call 2)", "3"]
    assert [layer.parameters for layer in found.layers] == [6, 0, 0, 6]
    assert [layer.multiply_adds for layer in found.layers] == [4, 0, 4, 4]
    assert layer_of(found, "0").mean != layer_of(found, "0 (call 2)").mean


class Reader(nn.Module):
    """Reads sequences of words, the axis of rows first or second within."""

    def __init__(self, *, rows_first: bool) -> None:
        super().__init__()
        self.words, self.head = nn.Embedding(20, 6), nn.Linear(7, 2)
        self.lstm = nn.LSTM(6, 7, batch_first=rows_first)
        self.rows_first = rows_first

    def forward(self, x: Tensor) -> Tensor:
        e = self.words(x)
        states, _ = self.lstm(e if self.rows_first else e.transpose(0, 1))
        y: Tensor = self.head(torch.tanh(states[:, -1] if self.rows_first else states[-1]))
        return y


def texts(n: int = 40) -> Dataset:
    words = torch.randint(20, (n, 9), generator=torch.Generator().manual_seed(0))
    return dataset("texts", train=(words, torch.arange(n) % 2))


@pytest.mark.parametrize("rows_first", [True, False])
def test_sequences_have_units_and_steps(*, rows_first: bool) -> None:
    data, model = texts(), Reader(rows_first=rows_first)
    found = survey(model, data)
    shapes = {layer.name: layer.output for layer in found.layers}
    assert shapes == {"words": "6×9", "lstm": "7×9", "tanh after lstm": "7", "head": "2"}
    states = model.lstm(
        model.words(data.train.inputs[:1].T if not rows_first else data.train.inputs[:1])
    )[0]
    expected = states.detach().reshape(9, 7).T
    (tile,) = opened(model, data, "lstm", row=0).maps
    low, high = expected.min(), expected.max()
    assert np.abs(tile.pixels - ((expected - low) / (high - low) * 255).numpy()).max() <= 1


def test_as_many_steps_as_rows_are_not_mistaken_for_them() -> None:
    model, kept = Reader(rows_first=False), dict[str, Tensor]()
    x = torch.randint(20, (4, 4))
    activations(model, x, lambda seen: kept.update({seen.name: seen.values.clone()}))
    states = model.lstm(model.words(x).transpose(0, 1))[0].detach()  # (steps, rows, units)
    assert torch.allclose(kept["lstm"], states.permute(1, 2, 0), atol=1e-6)


def test_a_function_keeps_the_units_of_the_layer_before() -> None:
    layers = (
        nn.Conv1d(3, 5, 3),
        nn.BatchNorm1d(5),
        nn.ReLU(),
        nn.MaxPool1d(2),
        nn.Linear(4, 6),
        nn.Tanh(),
    )
    data = dataset("waves", train=(torch.randn(20, 3, 10), torch.randn(20, 5, 6)))
    found = survey(nn.Sequential(*layers), data)
    shapes = [layer.output for layer in found.layers]
    assert shapes == ["5×8", "5×8", "5×8", "5×4", "6×5", "6×5"]


def test_a_transformer_is_seen_layer_by_layer() -> None:
    block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(nn.TransformerEncoder(block, 1), nn.Flatten(), nn.Linear(72, 2))
    data = dataset("sequences", train=(torch.randn(20, 9, 8), torch.arange(20) % 2))
    found = survey(model, data)
    linear = layer_of(found, "0.layers.0.linear1")
    assert (linear.output, linear.units) == ("16×9", 16)
    assert layer_of(found, "relu after 0.layers.0.linear1").zeros > 0.1


def test_layers_whose_outputs_cannot_be_seen_keep_their_cost() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(torch.randn(2, 2))

        def forward(self, x: Tensor) -> dict[str, str]:
            return {"nothing": "to see"}

    class Mixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.odd, self.layer = (
                nn.Parameter(torch.randn(2, 5)),
                Attention(),
                nn.Linear(5, 2),
            )

        def forward(self, x: Tensor) -> Tensor:
            self.odd(x)
            y: Tensor = self.layer(x @ self.w)
            return y

    model = Mixed()
    found = survey(model, points())
    assert [layer.name for layer in found.layers] == ["layer", "odd", "(no layer)"]
    assert [layer.parameters for layer in found.layers] == [12, 4, 10]
    assert [layer.is_seen for layer in found.layers] == [True, False, False]
    for name in ("odd", "(no layer)"):
        with pytest.raises(
            RequestError, match=r"^the outputs of '.*' cannot be seen: it answers w"
        ):
            opened(model, points(), name)


def test_a_model_may_be_one_layer_or_answer_with_one_axis() -> None:
    found = survey(nn.Linear(2, 2), points())
    assert [layer.name for layer in found.layers] == ["(model)"]

    class Squeezed(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x).squeeze()

    data = dataset("line", train=(torch.randn(33, 2), torch.randn(33)))  # whose last part is a row
    model = Squeezed(2, 1)
    assert opened(model, data, "(model)").bars == [
        pytest.approx(
            float(model(survey(model, data).preprocessing(data.train.inputs))[0].detach())
        )
    ]


def test_a_layer_that_mixes_rows_has_no_outputs_of_one() -> None:
    class Sum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.sum(0)

    class Mixing(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.sum, self.layer = Sum(), nn.Linear(3, 2)

        def forward(self, x: Tensor) -> Tensor:
            y: Tensor = self.layer(x + self.sum(x))
            return y

    found = opened(Mixing(), points(width=3), "sum")
    assert (found.maps, found.bars) == ([], [])
    assert found.maps_say == "This layer mixes the rows: it has no outputs of one row alone."


def state_of(model: nn.Module) -> tuple[Any, ...]:
    tensors = {name: value.clone() for name, value in model.state_dict().items()}
    return tensors, [m.training for m in model.modules()], [p.grad for p in model.parameters()]


@pytest.mark.parametrize("look", [survey, gradient_flow])
def test_looking_changes_nothing(look: Callable[..., Any]) -> None:
    data = points()
    model = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.Dropout(), nn.Linear(4, 2))
    model[1].eval()
    before, drawn = (
        state_of(model),
        (torch.get_rng_state(), random.getstate(), np.random.get_state()),
    )
    look(model, data)
    after = state_of(model)
    assert all(torch.equal(after[0][name], value) for name, value in before[0].items())
    assert after[1:] == before[1:]
    assert torch.equal(torch.get_rng_state(), drawn[0])
    assert random.getstate() == drawn[1]
    assert (np.random.get_state()[1] == drawn[2][1]).all()  # type: ignore[index]
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


def test_the_rows_are_always_the_same_and_of_validation_if_there_is_one() -> None:
    data = load("digits")
    found, again = survey(build("mlp", data), data), survey(build("linear", data), data)
    assert (found.split, len(found.rows)) == ("validation" if data.validation else "train", 256)
    assert torch.equal(found.rows.inputs, again.rows.inputs)
    held = dataset("d", train=(torch.randn(9, 2), [0, 1, 0] * 3), validation=4)
    assert (survey(nn.Linear(2, 2), held).split, len(survey(nn.Linear(2, 2), held).rows)) == (
        "validation",
        4,
    )


def test_a_costly_model_is_asked_with_fewer_rows() -> None:
    model = nn.Sequential(nn.Linear(2, 10_000), nn.Linear(10_000, 10_000), nn.Linear(10_000, 2))
    assert len(survey(model, points()).rows) == 99  # of 100 million multiply-adds each


def test_what_cannot_be_surveyed_is_said() -> None:
    with pytest.raises(
        RequestError, match=r"at work on a Dataset, got list: make one with wb.data"
    ):
        survey(nn.Linear(2, 2), [1])  # type: ignore[arg-type]
    with pytest.raises(
        RequestError, match=r"^Linear cannot take rows shaped \(2,\): mat1 and mat2"
    ):
        survey(nn.Linear(3, 2), points())


def test_numbers_that_are_none_are_warned_of() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    with torch.no_grad():
        model[0].weight[0, 0] = math.nan  # type: ignore[operator]
    found = survey(model, points())
    assert {layer.warning for layer in found.layers} == {"NaN or infinite outputs"}
    assert found.layers[0].spread == ()
    assert len(opened(model, points(), "0").filters) == 1


def test_the_walk_tells_inputs_and_answers_of_each_leaf() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU())
    x, met = torch.randn(4, 2), []
    with watched(model, lambda *told: met.append(told)):
        y = model(x)
    assert [(name, layer) for name, layer, _, _ in met] == [("0", model[0]), ("1", model[1])]
    assert met[0][2][0] is x
    assert met[1][3] is y
    model(x)
    assert len(met) == 2


def test_functions_inside_layers_and_in_place_are_not_met_twice() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.act = nn.Linear(2, 3), nn.SiLU(inplace=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.act(self.a(x.tanh())).relu_().sigmoid().tanh()  # type: ignore[no-any-return]

    model, x, met = Net(), torch.randn(5, 2), list[tuple[str, Tensor]]()

    def see(seen: Activation) -> None:
        met.append((seen.name, seen.values[..., 0].clone()))

    activations(model, x, see)
    after = ["relu after act", "sigmoid after act", "tanh after act"]
    assert [name for name, _ in met] == ["tanh", "a", "act", *after]
    linear = F.linear(x.tanh(), model.a.weight, model.a.bias)
    assert torch.allclose(met[1][1], linear)
    assert torch.allclose(met[2][1], F.silu(linear))


@pytest.mark.parametrize("name", sorted(_FUNCTIONS))
def test_every_activation_function_is_met(name: str) -> None:
    function = getattr(F, {"log_sigmoid": "logsigmoid"}.get(name, name))

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(2, 3)

        def forward(self, x: Tensor) -> Tensor:
            return function(self.a(x))  # type: ignore[no-any-return]

    met: list[str] = []
    activations(Net(), torch.randn(5, 2), lambda seen: met.append(seen.name))
    assert met == ["a", f"{name} after a"]


# ---- Inside --------------------------------------------------------------------------------------


def test_filters_of_colours_are_their_weights_as_colours() -> None:
    data = photographs()
    model = build("lenet", data, seed=0)
    found = opened(model, data, "conv1")
    weight = model.conv1.weight.detach()  # type: ignore[union-attr, operator]
    top = float(weight.abs().max())
    expected = ((weight[2].permute(1, 2, 0) + top) / (2 * top) * 255).round()
    assert found.filters[2].name == "filter 2"
    assert (found.filters[2].pixels == expected.numpy()).all()
    assert (
        found.filters_say
        == f"6 filters, 5×5 each, in colours; middle grey is 0, its ends are ±{top:.3g}."
    )


def test_filters_on_many_channels_lie_side_by_side() -> None:
    data = photographs()
    model = build("lenet", data, seed=0)
    found = opened(model, data, "conv2")
    weight = model.conv2.weight.detach()  # type: ignore[union-attr, operator]
    top = float(weight.abs().max())
    tile = found.filters[3].pixels  # six of 5×5, three across, two down
    assert tile.shape == (11, 17, 3)
    expected = ((weight[3, 4] + top) / (2 * top) * 255).round()
    assert (tile[6:11, 6:11] == expected.numpy()[..., None]).all()
    assert (tile[5] == [0, 114, 178]).all()  # blue, which no weight is
    assert found.filters_say.startswith(
        "16 filters, 5×5 each on 6 channels, side by side; grey is 0"
    )


def test_a_dense_layer_that_is_given_the_image_is_shown_as_images() -> None:
    data = load("digits")
    model = build("mlp", data, hidden=(64,), seed=0)
    found = opened(model, data, "layers.0")
    weight = model.layers[0].weight.detach()  # type: ignore[union-attr, index]
    top = float(weight.abs().max())
    expected = ((weight[5].reshape(8, 8) + top) / (2 * top) * 255).round()
    assert (found.filters[5].pixels == expected.numpy()).all()
    assert found.filters_say.startswith("Filters 0 to 31 of 64, 8×8 each; grey is 0")
    again = opened(model, data, "layers.0", first=32)
    assert [tile.name for tile in again.filters][::31] == ["filter 32", "filter 63"]
    second = opened(model, data, "layers.2")  # is given 64 numbers too, and no image
    assert [(t.name, t.pixels.shape) for t in second.filters] == [("weight", (10, 64))]


@pytest.mark.parametrize(
    ("layer", "given", "tiles", "said"),
    [
        (nn.Conv1d(3, 4, 5), (3, 9), [("filter 0", (3, 5))] * 4, "4 filters, 3×5 each; grey is 0"),
        (
            nn.ConvTranspose2d(2, 3, 4),
            (2, 9, 9),
            [("filter 0", (4, 9, 3))] * 3,
            "3 filters, 4×4 each on 2 channels, side by side",
        ),
        (
            nn.Conv3d(1, 2, 3),
            (1, 5, 5, 5),
            [("filter 0", (7, 7, 3))] * 2,
            "2 filters, 3×3 each on 3 channels, side by side",
        ),
        (nn.LayerNorm(4), (4,), [("weight", (1, 4)), ("bias", (1, 4))], "weight 4, bias 4; grey"),
        (nn.ReLU(), (4,), [], "ReLU has no weights."),
        (nn.Linear(300, 2), (300,), [("weight", (2, 256))], "weight 2×300 (the first 2×256); g"),
        (
            nn.LSTM(2, 3, batch_first=True),
            (5, 2),
            [("weight_ih_l0", (12, 2)), ("weight_hh_l0", (12, 3))],
            "weight_ih_l0 12×2, weight_hh_l0 12×3; grey is 0",
        ),
    ],
)
def test_weights_of_any_kind_are_pictures(
    layer: nn.Module, given: tuple[int, ...], tiles: list[Any], said: str
) -> None:
    data = dataset("any", train=(torch.randn(9, *given), [0, 1, 2] * 3))
    found = opened(nn.Sequential(layer), data, "0")
    shapes = [tile.pixels.shape for tile in found.filters]
    assert shapes == [shape for _, shape in tiles]
    assert [tile.name for tile in found.filters][:1] == [name for name, _ in tiles][:1]
    assert found.filters_say.startswith(said)


def test_maps_are_what_a_hook_sees() -> None:
    data = photographs()
    model = build("lenet", data, seed=0)
    found = survey(model, data)
    outputs = answers(model, found, model.conv1)[7].relu()  # type: ignore[arg-type]
    told = opened(model, data, "relu after conv1", row=7)
    expected = (outputs / outputs.max() * 255).round().numpy()
    assert [tile.name for tile in told.maps] == [f"channel {i}" for i in range(6)]
    assert all(np.abs(t.pixels - e).max() <= 1 for t, e in zip(told.maps, expected, strict=True))
    assert told.maps_say.startswith("6 channels of 28×28; black is 0, white ")
    bars = opened(model, data, "fc2", row=7).bars
    assert bars == pytest.approx(answers(model, found, model.fc2)[7].tolist(), abs=1e-5)  # type: ignore[arg-type]


def test_what_is_changed_in_place_is_seen_as_it_was() -> None:
    model, data = nn.Sequential(nn.Linear(2, 20), nn.ReLU(inplace=True)), points()
    linear = opened(nn.Sequential(model[0]), data, "0").bars
    assert min(linear) < 0
    assert opened(model, data, "0").bars == pytest.approx(linear)
    assert opened(model, data, "1").bars == pytest.approx([max(0, value) for value in linear])


def test_a_convolution_by_hand() -> None:
    images = torch.zeros(4, 16, 16, dtype=torch.uint8)
    images[:, 5:9, 6:12] = 255
    data = dataset("box", train=(images, [0, 1, 0, 1]))
    conv = nn.Conv2d(1, 1, 3, bias=False)
    with torch.no_grad():
        conv.weight.copy_(torch.tensor([[[[0.0, 0, 0], [-1, 0, 1], [0, 0, 0]]]]))
    (tile,) = opened(nn.Sequential(conv), data, "0").maps
    expected = np.full((14, 14), 128)  # left edges of the box bright, right ones dark
    expected[4:8, 4:6], expected[4:8, 10:12] = 255, 0
    assert (tile.pixels == expected).all()
    (kernel,) = opened(nn.Sequential(conv), data, "0").filters
    assert kernel.pixels[1].tolist() == [0, 128, 255]


def test_large_maps_are_averaged_down_and_many_shown_in_parts() -> None:
    data = photographs(n=4, side=100)
    model = nn.Sequential(nn.Conv2d(3, 40, 5))
    told = opened(model, data, "0", first=32)
    assert [tile.pixels.shape for tile in told.maps] == [(48, 48)] * 8
    assert told.maps_say.startswith("Channels 32 to 39 of 40 of 96×96; black is ")
    assert (told.units, told.first, len(told.filters)) == (40, 32, 8)


def test_outputs_spread_as_numpy_counts_them() -> None:
    data = photographs()
    model = build("lenet", data, seed=0)
    found = survey(model, data)
    for name, all_of_them in (("fc1", True), ("conv1", False)):
        told = layer_of(found, name)
        outputs = answers(model, found, getattr(model, name)).double().numpy()
        expected, _ = np.histogram(outputs, bins=40, range=(told.low, told.high))
        n = outputs.size if all_of_them else 2**15
        assert n <= sum(told.spread) <= n + 8
        difference = np.abs(np.array(told.spread) / sum(told.spread) - expected / outputs.size)
        assert difference.sum() <= (1e-3 if all_of_them else 0.05)


def test_an_unknown_layer_is_named() -> None:
    model, data = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), points()
    found = survey(model, data)
    with pytest.raises(
        UnknownNameError, match=r"^unknown layer of Sequential '1': .*There are: 0\."
    ):
        inside(model[:1], found.layers[1], found.rows.inputs[0], found.preprocessing)


# ---- Gradients -----------------------------------------------------------------------------------


def test_the_gradient_of_a_line_is_that_of_the_formula() -> None:
    X = torch.linspace(0, 3, 10)[:, None]
    data = dataset("line", train=(X, 2 * X[:, 0] + 1))
    model = nn.Linear(1, 1)
    found = gradient_flow(model, data)
    z = (X - X.mean()) / X.std(correction=0)  # as a table is standardized
    off = (model.weight * z + model.bias).detach() - (2 * X + 1)
    expected = {"weight": 2 * (off * z).mean().abs(), "bias": 2 * off.mean().abs()}
    table = found.parameters.set_index("parameter")
    for name, norm in expected.items():
        assert table.loc[name, "gradient_norm"] == pytest.approx(float(norm), rel=1e-4)
        ratio = float(norm / getattr(model, name).detach().norm())
        assert table.loc[name, "ratio"] == pytest.approx(ratio, rel=1e-4)
    assert found.loss == pytest.approx(float(off.square().mean()), rel=1e-4)
    assert found.batch == "10 fixed rows of train, with the loss that fits the task"
    assert all(p.grad is None for p in model.parameters())


class Kept(Callback):
    """Keeps the gradients of the last step."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.norms = model, dict[str, float]()

    def on_step(self, training: Any, step: int) -> None:
        self.norms = {
            name: float(p.grad.norm())
            for name, p in self.model.named_parameters()
            if p.grad is not None
        }


def test_of_a_training_it_is_the_gradient_of_its_last_step() -> None:
    data = photographs(n=70, side=16)
    model = nn.Sequential(
        nn.Conv2d(3, 6, 3, bias=False),
        nn.BatchNorm2d(6),
        nn.Dropout(0.4),
        nn.Flatten(),
        nn.Linear(6 * 14 * 14, 10),
    )
    kept = Kept(model)
    how: Any = {"optimizer": "sgd", "lr": 1e-30, "momentum": 0, "augment": ("mirror", "shift")}
    training = fit(
        model, data, steps=8, batch_size=16, label_smoothing=0.1, callbacks=[kept], seed=3, **how
    )
    before = state_of(model)[0]
    found = gradient_flow(model, data)
    told = dict(zip(found.parameters["parameter"], found.parameters["gradient_norm"], strict=True))
    assert told == pytest.approx(kept.norms, rel=1e-4)
    assert found.loss == pytest.approx(training.history["loss"][-1], rel=1e-5)
    assert found.batch == f"the 16 rows of step 8 of training {training.name!r}"
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_of_a_loader_it_is_the_gradient_of_fixed_rows() -> None:
    X, y = torch.randn(30, 2), torch.arange(30) % 2
    model = nn.Linear(2, 2)
    training = fit(
        model, DataLoader(TensorDataset(X, y), batch_size=5), epochs=1, loss=nn.CrossEntropyLoss()
    )
    found = gradient_flow(model, dataset("same", train=(X, y)))
    assert found.batch == f"30 fixed rows of train, with the loss of training {training.name!r}"
    gradient = torch.autograd.grad(F.cross_entropy(model(X), y), model.weight)[0]
    assert found.parameters["gradient_norm"][0] == pytest.approx(float(gradient.norm()), rel=1e-4)


def test_dropout_without_a_training_is_the_same_each_time() -> None:
    class Noisy(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(F.dropout(x, 0.5, self.training))

    model, data = Noisy(2, 2), points()
    first, again = gradient_flow(model, data), gradient_flow(model, data)
    assert first.parameters.equals(again.parameters)


def test_what_has_no_gradient_is_named_and_layers_are_summed() -> None:
    class Spared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.second = nn.Linear(2, 4), nn.Linear(4, 2)
            self.spare = nn.Linear(1, 1, bias=False)
            self.first.bias.requires_grad_(False)

        def forward(self, x: Tensor) -> Tensor:
            return self.second(self.first(x).tanh())  # type: ignore[no-any-return]

    model = Spared()
    found = gradient_flow(model, points())
    assert found.parameters["note"].tolist() == ["", "frozen", "", "", "unused"]
    layers = found.by_layer().set_index("layer")
    assert list(layers.index) == ["first", "second"]
    norms = found.parameters.set_index("parameter")["gradient_norm"]
    total = math.hypot(norms["second.weight"], norms["second.bias"])
    assert layers.loc["second", "gradient_norm"] == pytest.approx(total)
    assert found.words[2:] == [
        "Frozen, so without one: first.bias.",
        "Unused, so without one: spare.weight.",
    ]
    assert found.words[1].startswith("It is smallest in ")


def test_a_part_frozen_by_its_rate_has_none() -> None:
    data = points()
    model = nn.Sequential(nn.Linear(2, 4), nn.Linear(4, 2))
    fit(model, data, steps=3, lr={"0": 0})
    assert gradient_flow(model, data).parameters["note"].tolist() == ["frozen", "frozen", "", ""]


def test_a_gradient_that_is_no_number_is_named() -> None:
    model = nn.Sequential(nn.Linear(2, 2), nn.Linear(2, 2))
    with torch.no_grad():
        model[1].weight[0, 0] = math.inf  # type: ignore[operator]
    assert gradient_flow(model, points()).words[1] == "Not a number: 0, 1."


def test_models_without_a_gradient_say_why() -> None:
    with pytest.raises(RequestError, match="answers with probabilities, expected logits"):
        gradient_flow(nn.Sequential(nn.Linear(2, 2), nn.Softmax(1)), points())
    model = nn.Linear(2, 2)
    vars(model)["lock"] = threading.Lock()
    with pytest.raises(
        RequestError, match=r"^Linear cannot be copied, and gradients are taken on a"
    ):
        gradient_flow(model, points())
