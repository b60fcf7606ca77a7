"""`fit`: the numbers of a loop by hand, the same ones twice, and nothing else touched."""

from __future__ import annotations

import copy
import json
import math
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from workbench.attached import attached
from workbench.datasets import Dataset, dataset, load
from workbench.determinism import generator
from workbench.devices import threads
from workbench.errors import DivergedError, RequestError, UnknownNameError
from workbench.evaluation import evaluate, predict
from workbench.journal import read_lines
from workbench.models import build
from workbench.preprocessing import Preprocessing
from workbench.registry import publish
from workbench.training import EarlyStopping, Settings, fit
from workbench.training.batches import TensorBatches
from workbench.training.schedules import rates, triangle


def clusters(rows: int = 70, *, validation: int = 20) -> Dataset:
    """Return points around three centres."""
    draw = torch.Generator().manual_seed(1)
    targets = torch.arange(rows) % 3
    centres = torch.tensor([[0.0, 0, 3, 1], [3, 0, 0, 1], [0, 3, 0, 1]])
    points = centres[targets] + torch.randn(rows, 4, generator=draw)
    return dataset("clusters", train=(points, targets), validation=validation)


def net(*, dropout: float = 0.0) -> nn.Sequential:
    """Return a net of a user's own, always with the same start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(dropout), nn.Linear(8, 3)
        )


def state(model: nn.Module) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def by_hand(model: nn.Module, data: Dataset, *, steps: int, size: int, **how: Any) -> list[float]:
    """Train with plain PyTorch in the same order and with the same rates; return the losses."""
    X, y = data.train.inputs, data.train.targets
    ready = Preprocessing.fitted(X)
    optimizer = how["optimizer"](model.parameters())
    losses: list[float] = []
    model.train()
    for epoch in range(steps):  # more than enough
        order = torch.randperm(len(X), generator=generator(how["seed"], "order", epoch))
        for i in range(0, len(X), size):
            if len(losses) == steps:
                return losses
            rows = order[i : i + size]
            optimizer.param_groups[0]["lr"] = how["lr"] * rates(triangle, steps)[len(losses)]
            loss = how["loss"](model(ready(X[rows])), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
    return losses


@pytest.mark.parametrize("name", ["sgd", "adamw"])
def test_the_loop_is_a_loop_by_hand_bit_for_bit(name: Any) -> None:
    ours, theirs, data = net(), net(), clusters()
    training = fit(ours, data, steps=12, batch_size=16, lr=0.1, optimizer=name, seed=5)
    makers = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, fused=True),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.1, weight_decay=0.0, fused=True),
    }
    loss = nn.functional.cross_entropy
    with threads(training.settings.threads):
        losses = by_hand(
            theirs, data, steps=12, size=16, lr=0.1, optimizer=makers[name], seed=5, loss=loss
        )
    assert training.history["loss"] == losses
    assert same(state(ours), state(theirs))


def test_the_same_seed_gives_the_same_bits() -> None:
    histories: list[Any] = []
    states: list[dict[str, Tensor]] = []
    for seed in (0, 0, 1):
        model = net(dropout=0.5)
        torch.rand(len(states) + 7)  # wherever the global generator stands
        training = fit(model, clusters(), epochs=3, seed=seed)
        histories.append((training.history.steps, training.history.epochs))
        states.append(state(model))
    assert histories[0] == histories[1] != histories[2]
    assert same(states[0], states[1])
    assert not same(states[0], states[2])


def test_the_global_generator_is_left_alone() -> None:
    before = torch.get_rng_state()
    fit(net(dropout=0.5), clusters(), epochs=1)
    assert torch.equal(torch.get_rng_state(), before)


def test_linear_regression_reaches_the_closed_form() -> None:
    draw = torch.Generator().manual_seed(0)
    X = torch.randn(64, 3, generator=draw)
    y = X @ torch.tensor([1.0, -2.0, 0.5]) + 4 + 0.1 * torch.randn(64, generator=draw)
    data = dataset("wide", train=(X, y))
    model = build("linear", data)
    fit(model, data, steps=400, batch_size=64)
    design = np.column_stack([X.double(), np.ones(64)])
    weights, *_ = np.linalg.lstsq(design, y.double().numpy(), rcond=None)
    np.testing.assert_allclose(predict(model, X).output[:, 0], design @ weights, atol=1e-4)
    assert evaluate(model, data.train).mse == pytest.approx(0.01, abs=0.004)


def test_a_net_learns_digits() -> None:
    data = load("digits")
    model = build("mlp", data)
    training = fit(model, data, epochs=8)
    assert data.test is not None
    assert evaluate(model, data.test).accuracy > 0.9
    assert training.history["loss"][-1] < training.history["loss"][0]


def test_validation_figures_are_those_of_evaluate() -> None:
    data, model = clusters(), net()
    row = fit(model, data, epochs=2).history.epochs[-1]
    assert data.validation is not None
    found = evaluate(model, data.validation)
    assert row["validation_loss"] == pytest.approx(found.loss)
    assert row["validation_accuracy"] == pytest.approx(found.accuracy)


def test_a_history_is_read_by_name_by_epoch_and_as_a_table() -> None:
    history = fit(net(), clusters(), epochs=2.5, batch_size=10).history
    assert len(history) == len(history["loss"]) == len(history["lr"]) == 12
    assert [row["step"] for row in history.epochs] == [5, 10, 12]
    assert history["epoch"] == [1, 2, 3]
    assert history.epochs[0]["loss"] == pytest.approx(np.mean(history["loss"][:5]))
    columns = ["epoch", "step", "loss", "accuracy", "validation_loss", "validation_accuracy"]
    assert list(history.table()) == columns
    assert len(history.table()) == 3
    assert history["validation_loss"] == history.table()["validation_loss"].tolist()
    assert history.plot()._repr_png_().startswith(b"\x89PNG")
    with pytest.raises(UnknownNameError, match="unknown figure of a training 'acuracy': did you m"):
        history["acuracy"]


def test_the_rates_rise_and_fall_over_the_budget() -> None:
    found = fit(net(), clusters(), steps=20, lr=0.5).history["lr"]
    assert found == [0.5 * share for share in rates(triangle, 20)]


@pytest.mark.parametrize(
    ("budget", "steps", "epochs"),
    [({"epochs": 2}, 14, 2), ({"epochs": 0.5}, 4, 4 / 7), ({"epochs": 0.001}, 1, 1 / 7),
     ({"steps": 3}, 3, 3 / 7), ({"steps": np.int64(9)}, 9, 9 / 7), ({}, 70, 10)],
)  # fmt: skip
def test_a_budget_is_of_epochs_or_steps(budget: dict[str, Any], steps: int, epochs: float) -> None:
    training = fit(net(), clusters(validation=0), batch_size=10, **budget)
    assert (training.settings.steps, len(training.history)) == (steps, steps)
    assert training.settings.epochs == pytest.approx(epochs)


def test_settings_say_everything() -> None:
    data = clusters()
    training = fit(net(), data, steps=2, weight_decay=0.1, seed=4)
    assert training.settings.to_json() == {
        "model": "Sequential", "data": "clusters", "fingerprint": data.fingerprint,
        "phases": ({"planned": 2, "steps": 2, "minutes": None, "start": 0.0,
                   "added": False},),
        "steps_per_epoch": 1, "steps": 2,
        "epochs": 2.0, "batch_size": 50, "optimizer": "adamw", "lr": 0.001, "lr_of": {},
        "momentum": 0.9, "weight_decay": 0.1, "schedule": "triangle", "loss": "cross_entropy",
        "label_smoothing": 0.0, "class_weights": (), "augment": (), "average": "", "clip": None,
        "accumulate": 1, "precision": "fp32", "channels_last": False, "compile": False, "seed": 4,
        "device": "cpu", "threads": 1,  # more would wait for each other on a net this small
    }  # fmt: skip
    assert Settings.from_json(json.loads(json.dumps(training.settings.to_json()))) == (
        training.settings
    )
    assert training.wait() is training
    start = r"Training done: Sequential on clusters, 2 of 2 steps in \d+\.\d s, loss .*, validation"
    assert re.match(start, repr(training))


def test_a_model_has_defaults_of_its_own() -> None:
    data = load("line")
    settings = fit(build("linear", data), data, steps=1).settings
    assert (settings.optimizer, settings.lr, settings.model) == ("sgd", 0.05, "linear")
    given = fit(build("linear", data), data, steps=1, lr=0.01, optimizer="adamw").settings
    assert (given.optimizer, given.lr) == ("adamw", 0.01)


def test_frozen_parameters_stay() -> None:
    model = net()
    model[0].requires_grad_(False)
    before = state(model)
    fit(model, clusters(), epochs=1)
    after = state(model)
    assert torch.equal(after["0.weight"], before["0.weight"])
    assert not torch.equal(after["4.weight"], before["4.weight"])


@pytest.mark.parametrize(("rows", "sizes"), [(33, [8, 8, 8, 9]), (36, [8, 8, 8, 8, 4]),
                                             (8, [8]), (9, [9]), (1, [1])])  # fmt: skip
def test_no_batch_is_of_one_row_alone(rows: int, sizes: list[int]) -> None:
    data = clusters(rows, validation=0)
    ready = Preprocessing("tensor", (4,), "float32")
    batches = TensorBatches(data.train, 8, seed=0, device=torch.device("cpu"), preprocessing=ready)
    epoch = list(batches.epoch(0))
    assert [len(inputs) for inputs, _ in epoch] == sizes
    assert batches.steps_per_epoch == len(sizes)
    seen = torch.cat([inputs for inputs, _ in epoch])
    assert sorted(seen.tolist()) == sorted(data.train.inputs.tolist())


def test_batchnorm_learns_from_a_last_lone_row() -> None:
    assert fit(net(), clusters(33, validation=0), epochs=1, batch_size=8).state == "done"


def test_a_loss_of_ones_own_is_minimized() -> None:
    def doubled(outputs: Tensor, targets: Tensor) -> Tensor:
        return 2 * nn.functional.cross_entropy(outputs, targets)

    plain, twice = (fit(net(), clusters(), steps=1, loss=f) for f in (None, doubled))
    assert twice.history["loss"][0] == pytest.approx(2 * plain.history["loss"][0])


def test_fit_leaves_what_publish_and_predict_need() -> None:
    data, model = clusters(), net()
    training = fit(model, data, steps=1)
    memory = attached(model)
    assert memory.training is training
    assert memory.preprocessing == Preprocessing.fitted(data.train.inputs, data.classes)
    assert memory.example is not None
    assert torch.equal(memory.example, data.train.inputs[:4])
    assert not any(module.training for module in model.modules())


@pytest.mark.parametrize(("rate", "steps"), [(1e20, 10), (3e38, 1)])
def test_a_divergence_names_its_step_and_restores_the_model(rate: float, steps: int) -> None:
    data = dataset("d", train=(torch.randn(32, 2), 1e3 * torch.randn(32)))
    model = build("mlp", data)
    first = fit(model, data, steps=2)
    before = state(model)
    message = rf"at step \d of {steps} with a learning rate of .*e.*, it began with .*e\+0\d: try a"
    with pytest.raises(
        DivergedError, match=message + " smaller lr, for.*as it was before this fit"
    ) as caught:
        fit(model, data, steps=steps, lr=rate, optimizer="sgd")
    assert re.match(r"the loss is (nan|inf|\d+\.?\d*e\+\d+) at step", str(caught.value))
    assert same(state(model), before)
    assert attached(model).training is first  # whence the weights still come


def test_a_loss_that_is_nan_from_the_start_is_not_the_rates_fault() -> None:
    data, model = clusters(), net()
    with torch.no_grad():
        next(model.parameters()).fill_(math.nan)
    with pytest.raises(DivergedError, match=r"step 1 of .* began with nan: look for NaN"):
        fit(model, data, batch_size=20)


def test_a_regression_by_a_loss_of_ones_own_is_not_broadcast() -> None:
    """(rows, 1) minus (rows,) would be (rows, rows), and learn nothing."""
    X = torch.randn(64, 3)
    data = dataset("d", train=(X, X[:, 0]))
    model = build("linear", data)
    fit(model, data, epochs=30, lr=0.05, loss=lambda y_hat, y: ((y_hat - y) ** 2).mean())
    assert evaluate(model, data.train).r2 > 0.9


def test_the_advice_after_a_divergence_is_the_models_own_rate() -> None:
    data = clusters()
    with pytest.raises(DivergedError, match=r"a smaller lr, for instance 0\.05 instead"):
        fit(build("linear", data), data, steps=9, lr=1e30)


def test_rows_that_a_model_cannot_take_are_refused() -> None:
    model = nn.Linear(7, 3)
    with pytest.raises(RequestError, match=r"Linear cannot take a batch shaped \(2, 4\): mat1"):
        fit(model, clusters())


def test_a_model_must_answer_with_a_tensor() -> None:
    class Dictionary(nn.Linear):
        def forward(self, x: Tensor) -> Any:
            return {"logits": super().forward(x)}

    with pytest.raises(RequestError, match="forward of Dictionary returned a dict, expected"):
        fit(Dictionary(4, 3), clusters())


@pytest.mark.parametrize("name", ["lr", "epochs", "momentum", "weight_decay"])
def test_a_word_is_no_number(name: str) -> None:
    with pytest.raises(RequestError, match=f"{name} must be a number, got str '1e-3'"):
        fit(net(), clusters(), **{name: "1e-3"})  # type: ignore[arg-type]


@pytest.mark.parametrize("seed", [-1, 2**32, 0.5])
def test_a_seed_fits_every_generator(seed: Any) -> None:
    with pytest.raises(RequestError, match="seed must be a whole number from 0 to"):
        fit(net(), clusters(), seed=seed)


def test_a_training_is_noted_in_the_run_even_when_it_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_RUN", str(tmp_path))
    X = torch.randn(20, 2)
    data = dataset("d", train=(X, X))
    fit(build("linear", data), data, steps=1)
    with pytest.raises(DivergedError):
        fit(build("linear", data), data, steps=9, lr=1e30)
    states = [line["state"] for line in read_lines(tmp_path / "events.jsonl")[1:]]
    assert states == ["done", "failed"]


def test_an_error_in_the_users_code_comes_through() -> None:
    class Broken(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise ZeroDivisionError("mine")
            return super().forward(x)

    model = Broken(4, 3)
    with pytest.raises(ZeroDivisionError, match="mine"):
        fit(model, clusters(), steps=1)
    memory = attached(model)
    assert memory.training is not None
    assert memory.training.state == "failed"


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs must be more than 0, got 0"),
        ({"epochs": math.nan}, "epochs must be more than 0, got nan"),
        ({"epochs": math.inf}, "epochs must be more than 0, got inf"),
        ({"steps": 0}, "steps must be a whole number from 1 up, got 0"),
        ({"steps": 0.5}, "steps must be a whole number from 1 up, got 0.5"),
        ({"steps": True}, "steps must be a whole number from 1 up, got True"),
        (
            {"epochs": 1, "steps": 1},
            "give epochs, steps or minutes, and one of them only: got epochs=1, steps=1",
        ),
        ({"batch_size": 0}, "batch_size must be a whole number from 1 up, got 0"),
        ({"batch_size": -3}, "batch_size must be a whole number from 1 up, got -3"),
        ({"lr": 0}, "lr must be more than 0, got 0"),
        ({"lr": math.inf}, "lr must be more than 0, got inf"),
        ({"lr": math.nan}, "lr must be more than 0, got nan"),
        ({"momentum": 1.0}, "momentum must be from 0 to less than 1, got 1.0"),
        ({"weight_decay": -1}, "weight_decay must be 0 or more, got -1"),
        ({"optimizer": "adam"}, "unknown optimizer 'adam': did you mean adamw"),
        ({"device": "banana"}, "device 'banana' cannot be used here"),
    ],
)
def test_an_argument_that_cannot_be_is_refused(options: dict[str, Any], message: str) -> None:
    model = net()
    before, flags = state(model), [m.training for m in model.modules()]
    with pytest.raises(RequestError, match=message):
        fit(model, clusters(), **options)
    assert same(state(model), before)
    assert [m.training for m in model.modules()] == flags
    assert attached(model).training is None


def test_a_model_that_does_not_fit_the_data_is_refused() -> None:
    with pytest.raises(RequestError, match=r"shape \(2, 5\), expected \(2, 3\) for 3 classes"):
        fit(nn.Linear(4, 5), clusters())
    model = build("mlp", clusters())
    with pytest.raises(RequestError, match=r"expected rows of \(4,\)"):
        fit(model, load("breast_cancer"))
    renamed = dataset("d", train=(torch.randn(4, 4), [0, 1, 0, 1]), classes=["a", "b"])
    with pytest.raises(
        RequestError, match=r"made for the classes .*'d' has .*build a model for th"
    ):
        fit(model, renamed)


def test_a_model_without_parameters_to_train_is_refused() -> None:
    frozen = net().requires_grad_(False)
    with pytest.raises(RequestError, match="Sequential has no parameter to train: all are frozen"):
        fit(frozen, clusters())


def test_arrays_are_no_dataset() -> None:
    with pytest.raises(RequestError, match="fit takes a Dataset, got tuple: make one with"):
        fit(net(), (torch.ones(2, 4), [0, 1]))  # type: ignore[arg-type]


def test_a_program_cannot_be_trained() -> None:
    model = net()
    fit(model, clusters(), steps=1)
    loaded = publish(model, "clusters").load()
    message = r"clusters@1 is kept as a program, .*not trained: fit a model made from its class"
    with pytest.raises(RequestError, match=message):
        fit(loaded, clusters())


@pytest.mark.parametrize("epochs", [1, 7, 40, 33.5])
def test_at_most_twenty_lines_are_printed(
    epochs: float, capsys: pytest.CaptureFixture[str]
) -> None:
    fit(net(), clusters(30, validation=5), epochs=epochs)
    out, err = capsys.readouterr()
    lines = err.splitlines()
    assert (out, len(lines) <= 20) == ("", True)
    assert lines[-1].startswith(f"epoch {math.ceil(epochs)}, loss ")
    assert "validation accuracy" in lines[-1]


def test_a_copy_of_a_model_trains_alike() -> None:
    data, model = clusters(), net()
    twin = copy.deepcopy(model)
    first, second = (fit(m, data, epochs=1) for m in (model, twin))
    assert first.history == second.history


def test_a_refused_fit_leaves_the_model_in_its_mode() -> None:
    model = net().eval()
    with pytest.raises(RequestError, match="lr must be more than 0"):
        fit(model, clusters(), lr=-1)
    assert not any(module.training for module in model.modules())


def test_a_recipe_is_checked() -> None:
    model = net()
    model.recipe = {"learning_rate": 0.1}  # type: ignore[assignment]
    message = r"unknown argument in the model's recipe 'learning_rate'"
    with pytest.raises(RequestError, match=message):
        fit(model, clusters())


def test_what_a_recipe_has_can_be_turned_off() -> None:
    model = net()
    model.recipe = {"average": "ema", "accumulate": 2}  # type: ignore[assignment]
    settings = fit(model, clusters(), steps=1).settings
    assert (settings.average, settings.accumulate) == ("EMA(decay=0.999)", 2)
    settings = fit(model, clusters(), steps=1, average="none", accumulate=1).settings
    assert (settings.average, settings.accumulate) == ("", 1)


def test_numbers_may_be_numpys() -> None:
    seeds: list[Any] = [3, np.int64(3)]
    whole, numpys = (fit(net(), clusters(), steps=2, seed=seed) for seed in seeds)
    assert whole.history == numpys.history
    weights = np.array([1.0, 2.0, 1.0])
    assert fit(net(), clusters(), steps=1, class_weights=weights).settings.class_weights == (
        1,
        2,
        1,
    )


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"callbacks": EarlyStopping(3)}, r"callbacks is <.*>?, expected a list of callbacks"),
        ({"callbacks": [EarlyStopping]}, r"callbacks is \[<class .*, expected a list of callbacks"),
        ({"loss": "mse"}, "loss is 'mse', expected a function of"),
        ({"class_weights": {0: 1, 1: 5, 2: 1}}, "expected 'balanced' or a list with a number"),
    ],
)
def test_what_is_of_another_kind_is_refused(how: Any, message: str) -> None:
    data = clusters()
    with pytest.raises(RequestError, match=message):
        fit(build("mlp", data, hidden=(4,)), data, epochs=1, **how)


def test_what_is_no_model_and_what_is_made_already_are_refused() -> None:
    data = clusters()
    model: Any = build("mlp", data, hidden=(4,))
    with pytest.raises(RequestError, match="fit takes a model first, got Dataset"):
        fit(data, model)  # type: ignore[arg-type]
    made: Any = torch.optim.Adam(model.parameters())
    with pytest.raises(RequestError, match=r"made already.*optimizer=torch\.optim\.Adam"):
        fit(model, data, optimizer=made)


def test_class_weights_may_be_a_tensor() -> None:
    data = clusters()
    training = fit(build("mlp", data), data, steps=1, class_weights=torch.tensor([1.0, 2, 3]))
    assert training.settings.class_weights == (1.0, 2.0, 3.0)


def test_a_loss_for_many_classes_is_told_of_the_one_logit() -> None:
    X = torch.randn(20, 3)
    data = dataset("two", train=(X, (X[:, 0] > 0).long()))
    with pytest.raises(RequestError, match="Of two classes there is one logit"):
        fit(build("mlp", data), data, loss=nn.functional.cross_entropy)
