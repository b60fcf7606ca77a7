"""Budgets: steps from epochs or minutes, a trial that leaves no trace, phases that are replayed."""

from __future__ import annotations

import re
import time
from dataclasses import replace
from pathlib import Path
from threading import Timer
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from workbench.datasets import Dataset, dataset
from workbench.errors import RequestError
from workbench.home import read_json
from workbench.training import Callback, Training, fit
from workbench.training.clocks import Clock, Pace
from workbench.training.phases import Phase, all_ends, all_rates, cut_short, sized_anew
from workbench.training.schedules import rates, triangle
from workbench.training.settings import Settings, planned_steps


def points(*, validation: int = 8) -> Dataset:
    draw = torch.Generator().manual_seed(1)
    X = torch.randn(40, 4, generator=draw)
    return dataset("points", train=(X, (X[:, 0] > 0).long()), validation=validation)


class Sleeper(nn.Sequential):
    """A net whose forward pass takes a while, always with the same start."""

    def __init__(self, seconds: float) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            super().__init__(
                nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.Linear(8, 2)
            )
        self.seconds = seconds

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        answer: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        return answer


def same(a: nn.Module, b: nn.Module) -> bool:
    pairs = zip(a.state_dict().values(), b.state_dict().values(), strict=True)
    return all(torch.equal(x, y) for x, y in pairs)


@pytest.fixture(scope="module", autouse=True)
def _ready(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Train once, so that no measured time has torch's imports in it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(tmp_path_factory.mktemp("home")))
        fit(Sleeper(0), points(), steps=1)


@pytest.mark.parametrize("validation", [0, 8])
def test_minutes_become_the_steps_that_fit(validation: int) -> None:
    """A step cannot take less than it sleeps, so no more can fit; how many do is timing."""
    seconds, a_step = 1.5, 0.01
    data = points(validation=validation)
    training = fit(Sleeper(a_step), data, minutes=seconds / 60, batch_size=8)
    per_epoch = training.settings.steps_per_epoch
    a_score = a_step / per_epoch if validation else 0
    most = seconds / (a_step + a_score)
    assert 1 <= training.settings.steps < most
    steps, phases = training.settings.steps, training.settings.phases
    assert {phase.minutes for phase in phases} == {seconds / 60}
    assert (training.state, len(training.history)) == ("done", steps)
    assert training.history["lr"] == all_rates(phases, triangle, 0.001)


class Tiring(Sleeper):
    """A net that needs twenty times as long for every step after the first fifty."""

    calls = 0

    def forward(self, x: Tensor) -> Tensor:
        self.calls += self.training
        time.sleep(self.seconds * (19 if self.calls > 50 else 0))
        return super().forward(x)


def test_minutes_are_sized_anew_where_the_pace_changes(tmp_path: Path) -> None:
    """What it comes to is kept, and a training killed on the way comes to the same."""
    model, data = Tiring(0.002), points()
    first = fit(model, data, minutes=3 / 60, name="night", checkpoint_every=0.2)
    phases = first.settings.phases
    assert len(phases) > 1
    assert first.settings.steps < phases[0].planned
    starts = [phase.start for phase in phases]
    assert starts == sorted({0.0, *starts})
    assert {phase.minutes for phase in phases} == {3 / 60}
    assert first.history["lr"] == all_rates(phases, triangle, 0.001)

    for checkpoint in first.checkpoints[-2:]:
        checkpoint.path.unlink()  # as if it had been killed before
    assert (first.checkpoint or first).step < first.settings.steps  # type: ignore[union-attr]
    again = Tiring(0.0)
    went_on = fit(again, data, name="night", resume=True)
    assert (went_on.settings.phases, went_on.history) == (phases, first.history)
    assert same(model, again)


def test_a_clock_sizes_what_is_left_by_the_pace_of_the_last_stretch(tmp_path: Path) -> None:
    training = fit(Sleeper(0), points(), steps=1)
    phases = (Phase(100, 100, 1.0),)
    training.settings = replace(training.settings, phases=phases, steps_per_epoch=1000)
    clock = Clock(Pace(step=0.6, score=0.0, per_epoch=1000), 60)
    told = []
    for step, seconds in ((1, 0.6), (20, 29), (21, 31.0), (25, 37.0), (31, 46.2)):
        training.seconds = seconds
        told.append(clock.look(training, step))
    assert told == [False, False, True, False, False]  # the last one is as it was sized
    rest = Phase(19, 19, 1.0, start=0.21)
    assert training.settings.phases == (Phase(100, 21, 1.0), rest)
    kept = Settings.from_json(read_json(training.folder / "training.json")["settings"])
    assert kept == training.settings


@pytest.mark.parametrize(
    ("seconds", "after", "expected"),
    [(10.0, 0, 50), (1.05, 0, 0), (1.15, 0, 1), (1.15, 10, 1), (2.25, 9, 2), (2.05, 9, 1)],
)
def test_scores_are_counted_where_they_fall(seconds: float, after: int, expected: int) -> None:
    assert Pace(step=0.1, score=1.0, per_epoch=10).steps_in(seconds, after) == expected


def test_pauses_do_not_count() -> None:
    waits = []

    class Pauses(Callback):
        def on_step(self, training: Training, step: int) -> None:
            if step == 2:
                training.pause()
                waits.append(Timer(0.3, training.unpause))
                waits[0].start()

    started = time.perf_counter()
    training = fit(Sleeper(0), points(), steps=4, callbacks=[Pauses()])
    assert training.reins.waited > 0.1
    assert training.seconds <= time.perf_counter() - started - training.reins.waited


def loader() -> DataLoader[Any]:
    split = points(validation=0).train
    return DataLoader(TensorDataset(split.inputs, split.targets), batch_size=8, shuffle=True)


@pytest.mark.parametrize("given", ["dataset", "loader"])
@pytest.mark.parametrize("average", ["ema", "lookahead"])
def test_the_trial_leaves_no_trace(given: str, average: Any) -> None:
    data = points() if given == "dataset" else loader()
    timed, counted = Sleeper(0.002), Sleeper(0.0)
    how: Any = {"average": average, "batch_size": 8, "lr": 0.05, "clip": 1.0, "accumulate": 2}
    before = torch.get_rng_state()
    first = fit(timed, data, minutes=0.4 / 60, **how)
    assert torch.equal(torch.get_rng_state(), before)
    second = fit(counted, data, steps=first.settings.steps, **how)
    assert first.history == second.history
    assert same(timed, counted)


@pytest.mark.filterwarnings("ignore:the model or the loss draws from torch's global generator")
def test_the_trial_leaves_the_global_generator_where_it_was() -> None:
    class Noisy(Sleeper):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x + torch.randn_like(x) if self.training else x)

    first = fit(Noisy(0.002), points(), minutes=0.2 / 60)
    second = fit(Noisy(0.0), points(), steps=first.settings.steps)
    assert first.history == second.history


def test_callbacks_do_not_see_the_trial() -> None:
    steps: list[int] = []

    class Counts(Callback):
        def on_step(self, training: Training, step: int) -> None:
            steps.append(step)

    training = fit(Sleeper(0.005), points(), minutes=0.4 / 60, callbacks=[Counts()])
    assert steps == list(range(1, training.settings.steps + 1))


def test_minutes_that_are_over_at_once_are_refused() -> None:
    model = Sleeper(0.01)
    before = Sleeper(0.01)
    message = (
        r"minutes=0.0001 is over before the first step, which takes 0\.0\d+ s after 0\.\d s of "
        "preparation: give it more"
    )
    with pytest.raises(RequestError, match=message):
        fit(model, points(), minutes=1e-4)
    assert same(model, before)


@pytest.mark.parametrize(
    ("minutes", "message"),
    [(0, "minutes must be more than 0, got 0"), (-1, "minutes must be more than 0, got -1"),
     (float("inf"), "minutes must be more than 0, got inf"),
     (float("nan"), "minutes must be more than 0, got nan"),
     ("1", "minutes must be a number, got str '1'")],
)  # fmt: skip
def test_minutes_that_cannot_be_are_refused(minutes: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        fit(Sleeper(0), points(), minutes=minutes)


def test_there_is_one_budget() -> None:
    message = "give epochs, steps or minutes, and one of them only: got epochs=1, minutes=2"
    with pytest.raises(RequestError, match=message):
        fit(Sleeper(0), points(), epochs=1, minutes=2)


@pytest.mark.parametrize(
    ("epochs", "steps", "expected"),
    [(2, None, 14), (0.5, None, 4), (0.01, None, 1), (None, 9, 9), (None, None, 21)],
)
def test_steps_of_a_budget(epochs: float | None, steps: int | None, expected: int) -> None:
    assert planned_steps(epochs, steps, 7, default=3) == expected


def test_phases_are_cut_where_a_training_stood() -> None:
    phases = (Phase(10, 10), Phase(6, 6, 0.5))
    assert cut_short(phases, 16) == phases
    assert cut_short(phases, 12) == (Phase(10, 10), Phase(6, 2, 0.5))
    assert cut_short(phases, 10) == (Phase(10, 10),)
    assert cut_short(phases, 4) == (Phase(10, 4),)
    assert cut_short(phases, 0) == ()


def test_each_phase_has_a_course_of_its_own() -> None:
    found = all_rates((Phase(10, 4), Phase(6, 6)), triangle, 0.5)
    shares = rates(triangle, 10)[:4] + rates(triangle, 6)
    assert found == [0.5 * share for share in shares]


def test_an_extension_is_a_phase_of_its_own() -> None:
    model = Sleeper(0)
    training = fit(model, points(), steps=5, batch_size=8, lr=0.5)
    assert training.extend(steps=3) is training
    training.extend(epochs=1)
    more = (Phase(3, 3, added=True), Phase(4, 4, added=True))
    assert training.settings.phases == (Phase(5, 5), *more)
    shares = rates(triangle, 5) + rates(triangle, 3) + rates(triangle, 4)
    assert training.history["lr"] == [0.5 * share for share in shares]
    assert [row["step"] for row in training.history.epochs] == [4, 8, 12]
    assert (training.state, training.settings.epochs) == ("done", 3.0)


def test_an_extension_by_minutes_is_measured_too() -> None:
    model = Sleeper(0.005)
    training = fit(model, points(), steps=2)
    training.extend(minutes=0.5 / 60)
    first, second = training.settings.phases
    assert (first, second.minutes) == (Phase(2, 2), 0.5 / 60)
    assert 1 <= second.steps < 0.5 / 0.005  # as many as it can sleep through
    assert training.settings.steps == len(training.history)


def test_extensions_that_cannot_be_are_refused() -> None:
    training = fit(model := Sleeper(0), points(), steps=1)
    with pytest.raises(RequestError, match="one of them only: got epochs=1, steps=1"):
        training.extend(epochs=1, steps=1)
    with pytest.raises(RequestError, match="steps must be a whole number from 1 up, got 0"):
        training.extend(steps=0)
    assert (training.state, len(training.history)) == ("done", 1)
    del model
    with pytest.raises(RequestError, match="there is no model to go on with: keep that"):
        training.extend(steps=1)


def test_a_measured_budget_is_replayed() -> None:
    budget = 0.3 / 60
    first = fit(Sleeper(0.005), points(), minutes=budget, name="night")
    kept = Settings.from_json(first.settings.to_json())
    assert kept.phases == first.settings.phases
    for again in ({}, {"minutes": budget}):
        model = Sleeper(0.005)
        went_on = fit(model, points(), name="night", resume=True, **again)  # type: ignore[arg-type]
        assert went_on.settings.phases == first.settings.phases
        assert went_on.history == first.history


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ({"minutes": 0.1 / 60}, "minutes=0.00166667 is not a larger budget than the training was"),
        (
            {"steps": 1},
            r"a budget of 1 steps is less than the training was begun with, minutes=0.005",
        ),
    ],
)
def test_a_smaller_budget_is_refused(budget: dict[str, Any], message: str) -> None:
    fit(Sleeper(0.005), points(), minutes=0.3 / 60, name="night")
    with pytest.raises(RequestError, match=message) as caught:
        fit(Sleeper(0.005), points(), name="night", resume=True, **budget)
    assert re.search("pass that, more, or none to finish it$", str(caught.value))


def test_the_same_budget_finishes_what_was_extended_on_the_way() -> None:
    """As it is when a notebook is run again after its kernel has died."""
    how: Any = {"batch_size": 8, "name": "night", "resume": True}
    model = Sleeper(0)
    fit(model, points(), epochs=2, **how).extend(steps=3)
    for budget in ({"epochs": 2}, {"epochs": None}):
        again = fit(Sleeper(0), points(), **how | budget)
        assert again.settings.phases == (Phase(8, 8), Phase(3, 3, added=True))
        assert len(again.history) == 11
    more = fit(Sleeper(0), points(), epochs=4, **how)
    assert more.settings.phases[2:] == (Phase(5, 5),)


def test_a_clock_that_looks_twice_at_a_step_waits_for_the_next() -> None:
    training = fit(Sleeper(0), points(), steps=1)
    training.settings = replace(training.settings, phases=(Phase(100, 100, 1.0),))
    clock = Clock(Pace(step=0.6, score=0.0, per_epoch=1000), 60)
    for training.seconds in (1.0, 50.0):
        assert not clock.look(training, 1)


def test_averages_are_told_the_end_that_was_known_at_each_step() -> None:
    first = Phase(planned=10, steps=4, minutes=1.0)
    phases = (first, *sized_anew((replace(first, steps=10),), 4, 3)[1:], Phase(2, 2, added=True))
    assert all_ends(phases) == [10] * 4 + [7] * 3 + [9] * 2
