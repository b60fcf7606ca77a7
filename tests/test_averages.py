"""Averages of the weights: those of torch's own `AveragedModel`, and of a loop by hand."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from workbench.datasets import Dataset, dataset
from workbench.devices import threads
from workbench.errors import UnknownNameError
from workbench.evaluation import evaluate
from workbench.preprocessing import Preprocessing
from workbench.training import EMA, Callback, Lookahead, Training, fit
from workbench.training.averages import Average, floating
from workbench.training.batches import TensorBatches
from workbench.training.schedules import constant

DECAY = 0.6  # low enough that the warm-up ends within a test


def points(*, validation: int = 12) -> Dataset:
    draw = torch.Generator().manual_seed(1)
    X = torch.randn(60, 5, generator=draw)
    return dataset("points", train=(X, (X[:, 0] > 0).long()), validation=validation)


def net() -> nn.Sequential:
    """Return a net with buffers, always with the same start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(5, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 2))


def first(model: nn.Module) -> Tensor:
    """Return the weights of the first layer."""
    return next(model.parameters())


class ByTorch(Callback):
    """Averages along with a training, by torch's own class."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.validated: list[float] = []

    def on_start(self, training: Training) -> None:
        self.average = AveragedModel(self.model, avg_fn=warmed_up, use_buffers=True)
        self.average.update_parameters(self.model)  # the first one is a copy

    def on_step(self, training: Training, step: int) -> None:
        self.average.update_parameters(self.model)

    def on_epoch(self, training: Training, row: dict[str, float]) -> None:
        split = points().validation
        self.validated.append(evaluate(self.average.module, tables(split)).loss)


def warmed_up(average: Tensor, value: Tensor, n: Any) -> Tensor:
    """Return the next average, of `n` values before."""
    decay = min(DECAY, (1 + int(n)) / (10 + int(n)))
    if not value.is_floating_point():
        return value
    return decay * average + (1 - decay) * value


def tables(split: Any) -> Any:
    """Return a split as the model saw it, standardized."""
    ready = Preprocessing.fitted(points().train.inputs)
    return replace(split, inputs=ready(split.inputs))


def test_an_ema_is_that_of_torch_with_its_buffers_and_is_validated() -> None:
    model = net()
    watch = ByTorch(model)
    training = fit(
        model, points(), epochs=3, batch_size=8, lr=0.1, average=EMA(DECAY), callbacks=[watch]
    )
    expected = watch.average.module.state_dict()
    for name, value in model.state_dict().items():
        torch.testing.assert_close(value, expected[name], rtol=1e-5, atol=1e-6)
    assert training.history["validation_loss"] == pytest.approx(watch.validated, rel=1e-5)
    assert training.settings.average == "EMA(decay=0.6)"


def test_a_training_goes_on_with_its_own_weights() -> None:
    plain, averaged = net(), net()
    alone, beside = (
        fit(model, points(), epochs=3, batch_size=8, average=average)
        for model, average in ((plain, None), (averaged, EMA()))
    )
    assert alone.history["loss"] == beside.history["loss"]
    assert alone.history["accuracy"] == beside.history["accuracy"]
    assert not torch.equal(first(plain), first(averaged))


def test_an_ema_begins_with_the_weights_and_follows_them_at_once() -> None:
    model, average = net(), EMA(0.999)
    held = average.start(model)
    assert all(torch.equal(held[name], value) for name, value in floating(model).items())
    with torch.no_grad():
        first(model).add_(1)
    live = [value.detach() for value in floating(model).values()]
    average.update(held, live, 1, 1_000)
    kept = 2 / 11  # (1 + step) / (10 + step)
    moved = first(model) - held["0.weight"]
    torch.testing.assert_close(moved, torch.full_like(moved, kept), rtol=0, atol=1e-6)


def lookahead_by_hand(model: nn.Sequential, data: Dataset, steps: int, every: int) -> list[float]:
    """Train with plain PyTorch, the weights put back onto slow ones every few steps."""
    ready = Preprocessing.fitted(data.train.inputs, data.classes)
    batches = TensorBatches(data.train, 8, seed=0, device=torch.device("cpu"), preprocessing=ready)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    slow, losses = copy.deepcopy(model.state_dict()), []
    model.train()
    for step in range(1, steps + 1):
        epoch, i = divmod(step - 1, batches.steps_per_epoch)
        inputs, targets = list(batches.epoch(epoch))[i]
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
        if step % every == 0 or step == steps:
            kept = 1.0 if step == steps else 0.95**every * (step / steps) ** 3
            for name, value in model.state_dict().items():
                if value.is_floating_point():
                    slow[name] = kept * slow[name] + (1 - kept) * value
                    value.copy_(slow[name])
    return losses


@pytest.mark.parametrize(("steps", "every"), [(17, 5), (12, 3), (3, 5)])
def test_lookahead_is_a_loop_by_hand(steps: int, every: int) -> None:
    ours, theirs, data = net(), net(), points(validation=0)
    training = fit(
        ours, data, steps=steps, batch_size=8, lr=0.1, optimizer="sgd", schedule=constant,
        average=Lookahead(every),
    )  # fmt: skip
    with threads(training.settings.threads):
        losses = lookahead_by_hand(theirs, data, steps, every)
    assert training.history["loss"] == pytest.approx(losses, rel=1e-5)
    for name, value in ours.state_dict().items():
        torch.testing.assert_close(value, theirs.state_dict()[name], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("average", [EMA(DECAY), Lookahead()])
def test_what_is_frozen_is_left_alone(average: Average) -> None:
    model = net()
    first(model).requires_grad_(False)
    before = first(model).clone()
    fit(model, points(), epochs=2, batch_size=8, average=average)
    assert torch.equal(first(model), before)
    assert "0.weight" not in average.start(model)
    assert "1.running_mean" in average.start(model)


def test_the_best_weights_are_averages_too() -> None:
    model, fresh, data = net(), net(), points()
    training = fit(model, data, epochs=1, batch_size=8, average="ema")
    assert training.best is not None
    assert training.checkpoint is not None
    for checkpoint in (training.best, training.checkpoint):
        checkpoint.load(fresh)
        assert all(
            torch.equal(a, b)
            for a, b in zip(fresh.state_dict().values(), model.state_dict().values(), strict=True)
        )


def test_an_unknown_average_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="unknown average 'emma': did you mean ema"):
        fit(net(), points(), average="emma")  # type: ignore[arg-type]
