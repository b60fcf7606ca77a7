"""A live model answers while it is trained, whole at each moment, and does not change how."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from trainings import convolving, pictures, points

import workbench as wb
from workbench.attached import attached, followers_of, lock_of
from workbench.datasets import Dataset, dataset
from workbench.determinism import apart
from workbench.errors import RequestError, ServiceError
from workbench.preprocessing import Preprocessing
from workbench.serving.live import Mirror, snapshot_of
from workbench.serving.served import Served, served_from
from workbench.training import Callback, Training, fit, list_trainings
from workbench.training.checkpoints import tensors_of

ROW = {"input": np.ones((1, 2), np.float32)}


class Pair(nn.Module):
    """Two large parameters that ought to be equal; it answers with how far they are apart."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = (nn.Parameter(torch.zeros(50_000)) for _ in range(2))

    def forward(self, x: Tensor) -> Tensor:
        return x.sum(1, keepdim=True) * 0 + (self.first - self.second).abs().max()


class Together(torch.optim.SGD):
    """Moves every parameter by one, with time between them in which somebody could look."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        for p in self.param_groups[0]["params"]:
            p.add_(1)
            time.sleep(0.001)


def pairs() -> Dataset:
    return dataset("pairs", train=(torch.rand(40, 2), torch.zeros(40)))


@contextmanager
def training(
    model: nn.Module, data: Dataset, *, name: str = "beside", **how: Any
) -> Iterator[threading.Thread]:
    """Fit in a thread of its own, as a kernel does."""

    def work() -> None:
        with apart():
            fit(model, data, name=name, batch_size=8, **how)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield thread
    except BaseException:
        list_trainings()[-1].stop()
        raise
    finally:
        thread.join()


@contextmanager
def asked(served: Served, inputs: dict[str, Any]) -> Iterator[list[dict[str, Any]]]:
    """Ask for the while without a pause, by a thread of its own."""
    answers: list[dict[str, Any]] = []
    over = threading.Event()

    def work() -> None:
        while not over.is_set():
            answers.append({**served.answer(inputs), **served.weights()})

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield answers
    finally:
        over.set()
        thread.join()


def until(what: Callable[[], bool]) -> None:
    for _ in range(1000):
        if what():
            return
        time.sleep(0.01)
    raise TimeoutError


def output(model: nn.Module | Served, rows: Any) -> Any:
    if isinstance(model, Served):
        return model.answer({"input": rows})["output"]
    return wb.predict(model, rows).output.numpy()


@pytest.mark.usefixtures("often")
def test_no_answer_is_of_half_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.serving.live._SHARE", 0)
    model = Pair()
    with training(model, pairs(), steps=80, optimizer=Together, lr=1.0) as thread:
        until(lambda: bool(list_trainings()))
        served = served_from(model, example=torch.ones(1, 2), mode="live")
        with asked(served, ROW) as answers:
            thread.join()
            time.sleep(0.05)
    assert max(float(answer["output"].max()) for answer in answers) == 0
    steps = [answer["step"] for answer in answers]
    assert steps == sorted(steps)
    assert len(set(steps)) > 10
    assert steps[-1] == 80


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 20), nn.BatchNorm1d(20), nn.Dropout(0.2), nn.Linear(20, 3))


@pytest.mark.usefixtures("often")
@pytest.mark.parametrize("average", ["none", "ema"])
@pytest.mark.parametrize(("build", "data"), [(mlp, points()), (convolving, pictures())])
def test_a_training_comes_to_the_same_bits_with_a_live_service(
    monkeypatch: pytest.MonkeyPatch, build: Callable[[], nn.Module], data: Dataset, average: Any
) -> None:
    monkeypatch.setattr("workbench.serving.live._SHARE", 0)
    how = {"epochs": 8, "average": average, "seed": 1}
    alone, watched = build(), build()
    watched.load_state_dict(alone.state_dict())
    for model in (alone, watched):
        attached(model).preprocessing = Preprocessing.fitted(data.train.inputs, data.train.classes)
    with training(alone, data, name="alone", **how):
        pass
    rows = {"input": data.train.inputs[:4].numpy()}
    with (
        asked(served_from(watched, mode="live"), rows) as answers,
        training(watched, data, name="watched", **how),
    ):
        pass
    first, second = (list_trainings()[name].history for name in ("alone", "watched"))
    assert len({answer["hash"] for answer in answers}) > 2
    assert (first.steps, first.epochs) == (second.steps, second.epochs)
    weights = tensors_of(watched)
    assert all(torch.equal(value, weights[name]) for name, value in tensors_of(alone).items())


class Holding(Callback):
    """Holds its training up within a step, and then between two."""

    def __init__(self) -> None:
        self.reached, self.over = threading.Event(), threading.Event()

    def on_step(self, training: Training, step: int) -> None:
        if step == 12:
            training.pause()
            self.reached.set()
            self.over.wait(10)


@pytest.mark.usefixtures("often")
def test_averages_are_answered_by_as_evaluate_sees_them_in_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workbench.serving.live._SHARE", 0)
    data, holding = points(), Holding()
    model, rows = wb.build("mlp", data), data.train.inputs[:4].numpy()
    served = served_from(model, mode="live")
    with training(model, data, epochs=20, average="ema", callbacks=[holding]):
        holding.reached.wait(10)
        running = output(served, rows)
        assert served.weights()["step"] == 12
        holding.over.set()
        seen = output(model, rows)  # waits until the model is lent
        np.testing.assert_array_equal(running, seen)
        np.testing.assert_array_equal(output(served, rows), seen)
        list_trainings()[0].unpause()
    np.testing.assert_array_equal(output(served, rows), output(model, rows))
    assert not np.array_equal(output(served, rows), running)


class Asking(Callback):
    """Asks a live service at each step, by the training's own thread."""

    def __init__(self, rows: Any) -> None:
        self.rows = rows
        self.answers: list[Any] = []

    def on_step(self, training: Training, step: int) -> None:
        if step == 1:
            self.served = served_from(self.model, mode="live")
        self.answers.append(output(self.served, self.rows))

    model: nn.Module


def test_a_training_may_serve_and_ask_its_own_model(monkeypatch: pytest.MonkeyPatch) -> None:
    data = points()
    model, asking = wb.build("mlp", data), Asking(data.train.inputs[:4].numpy())
    asking.model = model
    monkeypatch.setattr("workbench.serving.live._SHARE", 0)
    fit(model, data, steps=5, batch_size=8, callbacks=[asking], average="none")
    assert len({answer.tobytes() for answer in asking.answers}) == 5
    np.testing.assert_array_equal(asking.answers[-1], output(model, asking.rows))


@pytest.mark.parametrize(
    "change",
    [
        lambda m: m.load_state_dict({k: v + 1 for k, v in m.state_dict().items()}),
        lambda m: torch.nn.init.ones_(m.weight),
        lambda m: setattr(m, "weight", nn.Parameter(torch.ones(3, 2))),
        lambda m: m.double(),
    ],
)
def test_a_change_by_hand_is_answered_at_once(change: Callable[[nn.Module], Any]) -> None:
    model, rows = nn.Linear(2, 3), torch.rand(2, 2)
    served = served_from(model, example=rows, mode="live")
    before = output(served, rows.numpy())
    change(model)
    with torch.inference_mode():
        expected = model(rows.to(model.weight.dtype)).float().numpy()
    if model.weight.dtype == torch.float64:
        rows = rows.double()
    else:
        np.testing.assert_array_equal(output(served, rows.numpy()), expected)
        assert not np.array_equal(before, expected)


def test_a_change_that_autograd_does_not_see_is_answered_soon() -> None:
    model, rows = nn.Linear(2, 3), np.ones((1, 2), np.float32)
    served = served_from(model, example=rows, mode="live")
    model.weight.data.fill_(2)
    model.bias.data.fill_(1)
    until(lambda: bool((output(served, rows) == 5).all()))


def test_other_layers_are_answered_by() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 3))
    rows = torch.ones(1, 2)
    served = served_from(model, example=rows, mode="live")
    model[1] = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 3))
    np.testing.assert_array_equal(output(served, rows.numpy()), output(model, rows))


def test_a_live_service_outlives_its_model_and_is_forgotten_by_it() -> None:
    model = nn.Linear(2, 3)
    served = served_from(model, example=torch.ones(1, 2), mode="live")
    before, copies = output(served, ROW["input"]), weakref.ref(served.source)
    assert len(followers_of(model)) == 1
    kept = weakref.ref(model)
    del model
    gc.collect()
    assert kept() is None
    np.testing.assert_array_equal(output(served, ROW["input"]), before)
    del served
    gc.collect()
    assert copies() is None


def test_one_that_nobody_serves_any_more_costs_the_training_nothing() -> None:
    model = nn.Linear(2, 3)
    served = served_from(model, example=torch.ones(1, 2), mode="live")
    del served
    gc.collect()
    assert followers_of(model) == []


def test_a_stream_goes_on_by_the_weights_it_began_with() -> None:
    class Streaming(nn.Linear):
        def stream(self, x: Tensor) -> Iterator[Tensor]:
            yield self(x)
            yield self(x)

    model = Streaming(2, 3)
    served = served_from(model, example=torch.ones(1, 2), mode="live")
    steps = served.stream(ROW)
    first = next(steps)["output"]
    nn.init.zeros_(model.weight)
    assert not np.array_equal(output(served, ROW["input"]), first)
    np.testing.assert_array_equal(next(steps)["output"], first)


def test_a_model_fitted_to_other_inputs_asks_to_be_served_again() -> None:
    model = nn.Linear(2, 1)
    served = served_from(model, example=torch.ones(1, 2), mode="live")
    fit(model, dataset("rows", train=(torch.rand(8, 2) * 9, torch.rand(8))), steps=1)
    with pytest.raises(ServiceError, match="Linear was fitted to other inputs since it was served"):
        output(served, ROW["input"])


def test_a_model_that_cannot_be_copied_is_told_at_once() -> None:
    model = nn.Linear(2, 3)
    model.own = threading.Lock()  # type: ignore[assignment]
    for make in (Mirror, snapshot_of):
        with pytest.raises(RequestError, match="Linear cannot be copied, and a service needs"):
            make(model)
    assert lock_of(model).acquire(blocking=False)


def test_a_model_that_cannot_be_copied_any_more_fails_answers_and_no_training() -> None:
    model = nn.Sequential(nn.Linear(2, 3))
    served = served_from(model, example=torch.ones(1, 2), mode="live")
    model.append(nn.Linear(3, 3))
    model.own = threading.Lock()  # type: ignore[assignment]
    with pytest.raises(ServiceError, match="Sequential cannot be copied"):
        output(served, ROW["input"])
    assert isinstance(served.source, Mirror)
    served.source(model, {}, 3)
    del model.own
    assert output(served, ROW["input"]).shape == (1, 3)


def test_copies_take_a_fiftieth_of_the_time_at_most() -> None:
    model = nn.Linear(100, 100)
    mirror, spent, began = Mirror(model), 0.0, time.perf_counter()
    while time.perf_counter() - began < 0.2:
        before, due = time.thread_time(), mirror._due
        mirror(model, {}, 1)
        if mirror._due != due:  # it did something
            spent += time.thread_time() - before
    assert 0 < spent < 0.05 * (time.perf_counter() - began)


def test_a_version_of_the_weights_has_a_name() -> None:
    model = nn.Linear(2, 3)
    served = served_from(model, example=torch.ones(1, 2), mode="live")
    first = served.weights()
    assert first == served_from(model, example=torch.ones(1, 2)).weights()
    nn.init.zeros_(model.weight)
    served.answer(ROW)
    assert served.weights()["hash"] != first["hash"]
