"""Optimizers: rates and decay by part, freezing, clipping and accumulation, against plain torch."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from workbench.datasets import Dataset, dataset
from workbench.devices import threads
from workbench.errors import RequestError, UnknownNameError
from workbench.preprocessing import Preprocessing
from workbench.training import Settings, Training, fit
from workbench.training.batches import TensorBatches
from workbench.training.optimizers import frozen, make_optimizer, train_mode
from workbench.training.schedules import constant, rates, triangle

STEPS = 14


def points() -> Dataset:
    draw = torch.Generator().manual_seed(1)
    X = torch.randn(48, 5, generator=draw)
    return dataset("points", train=(X, (X[:, 0] + X[:, 1] > 0).long()))


class Net(nn.Module):
    """A net with parts that have names, always with the same start."""

    def __init__(self, *, norm: bool = True) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            first = nn.BatchNorm1d(5) if norm else nn.Identity()
            self.stem = nn.Sequential(first, nn.Linear(5, 8))
            self.head = nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = self.head(self.stem(x).relu())
        return answer


def batches(data: Dataset, size: int = 16) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield the batches that a training with seed 0 sees."""
    ready = Preprocessing.fitted(data.train.inputs, data.classes)
    source = TensorBatches(
        data.train, size, seed=0, device=torch.device("cpu"), preprocessing=ready
    )
    for epoch in range(STEPS):
        yield from source.epoch(epoch)


def by_hand(
    model: nn.Module, optimizer: torch.optim.Optimizer, *, clip: float = math.inf
) -> list[float]:
    """Train with plain PyTorch; each group's rate is its peak times the triangle."""
    peaks = [group["lr"] for group in optimizer.param_groups]
    losses = []
    model.train()
    for (inputs, targets), share in zip(batches(points()), rates(triangle, STEPS), strict=False):
        for group, peak in zip(optimizer.param_groups, peaks, strict=True):
            group["lr"] = peak * share
        loss = nn.functional.cross_entropy(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), clip)
        optimizer.step()
        losses.append(loss.item())
    return losses


def check_alike(ours: nn.Module, theirs: nn.Module, tolerance: float = 1e-6) -> None:
    for (name, a), b in zip(ours.named_parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=tolerance, atol=tolerance, msg=name)


def fitted(model: nn.Module, **options: Any) -> Training:
    return fit(model, points(), steps=STEPS, batch_size=16, **options)


def settings() -> Settings:
    return fit(Net(), points(), steps=1).settings


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adamw"])
def test_weights_decay_and_biases_and_norms_do_not(name: Any) -> None:
    ours, theirs = Net(), Net()
    training = fitted(ours, optimizer=name, lr=0.05, weight_decay=0.3)
    groups = [
        {"params": [theirs.stem[1].weight, theirs.head.weight], "weight_decay": 0.3},
        {"params": [*theirs.stem[0].parameters(), theirs.stem[1].bias, theirs.head.bias],
         "weight_decay": 0.0},
    ]  # fmt: skip
    optimizer: torch.optim.Optimizer = torch.optim.AdamW(groups, lr=0.05, betas=(0.9, 0.999))
    if name != "adamw":
        optimizer = torch.optim.SGD(groups, lr=0.05, momentum=0.9, nesterov=name == "nesterov")
    with threads(1):
        losses = by_hand(theirs, optimizer)
    assert training.history["loss"] == pytest.approx(losses, rel=1e-5)
    check_alike(ours, theirs, 1e-5)


def test_parts_have_rates_of_their_own_and_the_longest_name_wins() -> None:
    ours, theirs = Net(), Net()
    given = {"": 0.05, "stem": 0.01, "stem.1.bias": 0.2}
    training = fitted(ours, optimizer="sgd", lr=given, momentum=0.5)
    groups = [
        {"params": [*theirs.stem[0].parameters(), theirs.stem[1].weight], "lr": 0.01},
        {"params": [theirs.stem[1].bias], "lr": 0.2},
        {"params": theirs.head.parameters(), "lr": 0.05},
    ]
    with threads(1):
        by_hand(theirs, torch.optim.SGD(groups, momentum=0.5))
    check_alike(ours, theirs, 1e-5)
    assert (training.settings.lr, training.settings.lr_of) == (
        0.05, {"stem": 0.01, "stem.1.bias": 0.2},
    )  # fmt: skip
    assert training.history["lr"] == [0.05 * share for share in rates(triangle, STEPS)]


def test_a_part_is_meant_by_whole_names() -> None:
    found = make_optimizer(Net(), replace(settings(), lr=1.0, lr_of={"stem.0": 0.5}))
    shares = sorted((group["share"], len(group["params"])) for group in found.param_groups)
    assert shares == [(0.5, 2), (1.0, 4)]
    with pytest.raises(UnknownNameError), frozen(Net(), {"ste": 0.0}):
        pass


@pytest.mark.parametrize("rate", [{"stem": 0}, {"stem.0": 0.0, "stem.1": 0}])
def test_a_rate_of_0_freezes_a_part_and_its_norms_statistics(rate: dict[str, float]) -> None:
    model = Net()
    before = copy.deepcopy(model.stem.state_dict())
    training = fitted(model, lr=rate, weight_decay=0.5, optimizer="adamw")
    after = model.stem.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert not torch.equal(model.head.weight, Net().head.weight)
    assert all(p.requires_grad for p in model.parameters())
    assert training.settings.lr == 0.001


def test_a_norm_learns_statistics_unless_it_is_frozen_whole() -> None:
    whole, half, bare = nn.BatchNorm1d(3), nn.BatchNorm1d(3), nn.BatchNorm1d(3, affine=False)
    whole.requires_grad_(False)
    half.bias.requires_grad_(False)
    model = nn.Sequential(whole, half, bare).eval()
    train_mode(model)
    assert [m.training for m in (model, whole, half, bare)] == [True, False, True, True]


def test_a_rate_of_0_leaves_what_was_frozen_before_frozen() -> None:
    model = Net()
    model.head.bias.requires_grad_(False)
    fitted(model, lr={"head": 0})
    assert not model.head.bias.requires_grad
    assert model.head.weight.requires_grad


def test_an_unknown_part_gets_the_nearest_name() -> None:
    model = Net()
    message = "unknown part of the model 'haed': did you mean head. There are: head, stem.0, stem.1"
    with pytest.raises(UnknownNameError, match=message):
        fitted(model, lr={"haed": 0.1})
    assert all(p.requires_grad for p in model.parameters())


@pytest.mark.parametrize(
    ("lr", "message"),
    [
        ({"": 0, "head": 0.1}, "lr must be more than 0, got 0"),
        ({"head": -1}, "lr of 'head' must be 0 or more, got -1"),
        ({"head": "fast"}, "lr of 'head' must be a number, got str 'fast'"),
        ({"stem": 0, "head": 0}, "Net has no parameter to train: all are frozen"),
    ],
)
def test_rates_that_cannot_be_are_refused(lr: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        fitted(Net(), lr=lr)


def test_an_optimizer_of_ones_own_follows_the_schedule() -> None:
    ours, theirs = Net(), Net()
    training = fitted(ours, lr=0.02, optimizer=torch.optim.RMSprop, weight_decay=0.0)
    with threads(1):
        losses = by_hand(theirs, torch.optim.RMSprop(theirs.parameters(), lr=0.02))
    assert training.history["loss"] == pytest.approx(losses, rel=1e-5)
    assert training.settings.optimizer == "RMSprop"
    check_alike(ours, theirs, 1e-5)


@pytest.mark.parametrize("name", ["sgd", "nesterov", "adamw"])
def test_fused_is_unfused(name: Any) -> None:
    ours, theirs = Net(), Net()
    how = replace(settings(), optimizer=name, lr=0.05, weight_decay=0.1)
    optimizer = make_optimizer(theirs, how)
    assert [group["fused"] for group in optimizer.param_groups] == [True, True]
    for group in optimizer.param_groups:
        group["fused"] = False
    training = fitted(ours, optimizer=name, lr=0.05, weight_decay=0.1)
    with threads(1):
        losses = by_hand(theirs, optimizer)
    assert training.history["loss"] == pytest.approx(losses, rel=1e-6, abs=1e-6)
    check_alike(ours, theirs)


@pytest.mark.parametrize("clip", [0.1, 1e9])
def test_gradients_are_clipped_to_a_norm(clip: float) -> None:
    ours, theirs = Net(), Net()
    training = fitted(ours, optimizer="sgd", lr=0.5, clip=clip)
    with threads(1):
        by_hand(theirs, torch.optim.SGD(theirs.parameters(), lr=0.5, momentum=0.9), clip=clip)
    check_alike(ours, theirs, 1e-5)
    assert training.settings.clip == clip


def test_a_clip_of_nothing_is_refused() -> None:
    with pytest.raises(RequestError, match="clip must be more than 0, got 0"):
        fitted(Net(), clip=0)
    with pytest.raises(RequestError, match="accumulate must be a whole number from 1 up, got 0"):
        fitted(Net(), accumulate=0)


@pytest.mark.parametrize("parts", [4, 32])
def test_no_part_of_a_step_is_of_one_row_alone(parts: int) -> None:
    training = fit(Net(), points(), epochs=1, batch_size=35, accumulate=parts)  # 35 rows and 13
    assert (training.state, len(training.history)) == ("done", 2)


@pytest.mark.parametrize("parts", [2, 3, 5, 16, 100])
@pytest.mark.parametrize("clip", [None, 0.1])
def test_parts_of_a_step_add_up_to_one_batch(parts: int, clip: float | None) -> None:
    whole, summed = Net(norm=False), Net(norm=False)
    how: Any = {"optimizer": "sgd", "lr": 0.2, "schedule": constant, "clip": clip}
    one, several = fitted(whole, **how), fitted(summed, **how, accumulate=parts)
    assert several.history["loss"] == pytest.approx(one.history["loss"], rel=1e-6, abs=1e-6)
    assert several.history["accuracy"] == one.history["accuracy"]
    check_alike(whole, summed)
