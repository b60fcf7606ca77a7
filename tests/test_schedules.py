"""Schedules: the rates of torch's own schedulers, as plain functions of progress."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import lr_scheduler

from workbench.datasets import Dataset, dataset
from workbench.errors import UnknownNameError
from workbench.training import fit
from workbench.training.schedules import (
    SCHEDULES,
    Schedule,
    constant,
    cosine,
    one_cycle,
    rates,
    step_decay,
    triangle,
)

STEPS = 40


def points() -> Dataset:
    return dataset("points", train=(torch.eye(8), torch.arange(8) % 2))


def of_torch(make: Callable[[Any], Any]) -> list[float]:
    """Return the rates that a scheduler of torch gives to each of the steps."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimizer)
    found = []
    for _ in range(STEPS):
        found.append(float(optimizer.param_groups[0]["lr"]))
        optimizer.step()
        scheduler.step()
    return found


@pytest.mark.parametrize(
    ("schedule", "make"),
    [
        (constant, lambda o: lr_scheduler.ConstantLR(o, factor=1.0)),
        (cosine, lambda o: lr_scheduler.CosineAnnealingLR(o, STEPS)),
        (step_decay, lambda o: lr_scheduler.MultiStepLR(o, [STEPS // 2, 3 * STEPS // 4])),
        (
            one_cycle,  # torch counts to total_steps - 1, and one step less on the way up
            lambda o: lr_scheduler.OneCycleLR(
                o,
                max_lr=1.0,
                total_steps=STEPS + 1,
                pct_start=(STEPS / 4 + 1) / (STEPS + 1),
                div_factor=25,
                final_div_factor=1e9,
                cycle_momentum=False,
            ),
        ),
    ],
)
def test_rates_are_those_of_torch(schedule: Schedule, make: Callable[[Any], Any]) -> None:
    np.testing.assert_allclose(rates(schedule, STEPS), of_torch(make), atol=1e-7)


def test_a_triangle_is_two_straight_lines() -> None:
    progress = np.arange(STEPS) / STEPS
    expected = np.interp(progress, [0, 0.23, 1], [0.2, 1, 0])
    np.testing.assert_allclose(rates(triangle, STEPS), expected)


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_stays_between_nothing_and_the_peak(name: str) -> None:
    shares = rates(SCHEDULES[name], 1_000)
    assert len(shares) == 1_000
    assert max(shares) == pytest.approx(1.0, abs=0.005)
    assert min(shares) >= 0
    if name != "constant":
        assert shares[-1] < 0.011  # a budget ends at about no rate


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_training_follows_the_schedule_that_is_named(name: Any) -> None:
    training = fit(nn.Linear(8, 2), points(), steps=9, lr=0.3, schedule=name)
    assert training.settings.schedule == name
    assert training.history["lr"] == [0.3 * share for share in rates(SCHEDULES[name], 9)]


def test_a_function_of_ones_own_is_a_schedule() -> None:
    def slope(progress: float) -> float:
        return 1 - progress / 2

    training = fit(nn.Linear(8, 2), points(), steps=4, lr=1.0, schedule=slope)
    assert training.history["lr"] == [1.0, 0.875, 0.75, 0.625]
    assert training.settings.schedule.endswith("slope")


def test_the_rate_is_what_the_optimizer_works_with() -> None:
    model = nn.Linear(8, 2)
    before = model.weight.detach().clone()
    fit(model, points(), steps=3, lr=0.1, schedule=lambda progress: 0.0)
    assert torch.equal(model.weight, before)


def test_an_unknown_schedule_gets_the_nearest_name() -> None:
    with pytest.raises(UnknownNameError, match="unknown schedule 'cosin': did you mean cosine"):
        fit(nn.Linear(8, 2), points(), steps=1, schedule="cosin")
