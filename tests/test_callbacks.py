"""Callbacks: when each hook is called and with what, early stopping, pausing from a thread."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

from workbench.attached import attached
from workbench.datasets import Dataset, dataset
from workbench.errors import DivergedError, RequestError
from workbench.training import Callback, Checkpoint, EarlyStopping, Training, fit
from workbench.training.phases import Phase, sized_anew


def points(*, validation: int = 8) -> Dataset:
    draw = torch.Generator().manual_seed(1)
    X = torch.randn(40, 4, generator=draw)
    return dataset("points", train=(X, (X[:, 0] > 0).long()), validation=validation)


def net() -> nn.Module:
    """Return a net, always with the same start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Linear(4, 2)


class Diary(Callback):
    """Writes down what is called."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def on_start(self, training: Training) -> None:
        self.lines.append(f"start {training.state} {len(training.history)}")

    def on_step(self, training: Training, step: int) -> None:
        self.lines.append(f"step {step}")

    def on_epoch(self, training: Training, row: dict[str, float]) -> None:
        assert row is training.history.epochs[-1]
        assert len(training.history) == row["step"]
        self.lines.append(f"epoch {row['epoch']:.0f}")

    def on_checkpoint(self, training: Training, checkpoint: Checkpoint) -> None:
        assert checkpoint.path.exists()
        self.lines.append(f"checkpoint {checkpoint.step}")

    def on_end(self, training: Training) -> None:
        self.lines.append(f"end {training.state}")


def test_each_hook_has_its_moment() -> None:
    diary = Diary()
    training = fit(net(), points(), steps=5, batch_size=16, callbacks=[diary])
    written = [line for line in diary.lines if line.startswith("checkpoint")]  # when it may
    assert written == ["checkpoint 0", "checkpoint 5"]
    assert [line for line in diary.lines if line not in written] == [
        "start running 0", "step 1", "step 2", "epoch 1", "step 3", "step 4", "epoch 2",
        "step 5", "epoch 3", "end done",
    ]  # fmt: skip
    assert training.checkpoint is not None
    assert training.checkpoint.step == 5


def test_every_checkpoint_is_told_of() -> None:
    diary = Diary()
    fit(net(), points(), steps=4, batch_size=16, callbacks=[diary], checkpoint_every=1e-9)
    told = [line for line in diary.lines if line.startswith("checkpoint")]
    assert told[0] == "checkpoint 0"
    assert told[-1] == "checkpoint 4"
    assert told == sorted(told)


def test_only_hooks_that_are_overridden_are_called() -> None:
    training = fit(net(), points(), steps=2, callbacks=[Callback(), EarlyStopping()])
    assert training.state == "done"

    class Bare(EarlyStopping):  # inherits one hook, overrides another
        def on_end(self, training: Training) -> None:
            self.ended = True

    bare = Bare(patience=1)
    fit(net(), points(), steps=2, callbacks=[bare])
    assert bare.ended


def test_callbacks_are_called_in_their_order() -> None:
    said: list[str] = []

    class Says(Callback):
        def __init__(self, word: str) -> None:
            self.word = word

        def on_step(self, training: Training, step: int) -> None:
            said.append(self.word)

    fit(net(), points(), steps=2, callbacks=[Says("a"), Says("b")])
    assert said == ["a", "b", "a", "b"]


def test_callbacks_change_no_number() -> None:
    plain, watched = (
        fit(net(), points(), epochs=2),
        fit(net(), points(), epochs=2, callbacks=[Diary()]),
    )
    assert plain.history == watched.history


@pytest.mark.parametrize("hook", ["on_start", "on_step", "on_epoch", "on_checkpoint"])
def test_an_error_in_a_callback_comes_through(hook: str) -> None:
    def fail(self: Any, *_: Any) -> None:
        raise ZeroDivisionError("mine")

    failing = type("Failing", (Callback,), {hook: fail})()
    model, diary = net(), Diary()
    with pytest.raises(ZeroDivisionError, match="mine"):
        fit(model, points(), steps=3, callbacks=[diary, failing])
    training = attached(model).training
    assert training is not None
    assert training.state == "failed"
    assert diary.lines[-1] == "end failed"
    assert not model.training


def test_the_end_is_told_after_a_divergence() -> None:
    diary = Diary()
    with pytest.raises(DivergedError):
        fit(net(), points(), steps=9, lr=1e30, optimizer="sgd", callbacks=[diary])
    assert diary.lines[-1] == "end failed"


class StopAt(Callback):
    """Stops at a step, an epoch, or the start."""

    def __init__(self, *, start: bool = False, step: int = 0, epoch: int = 0) -> None:
        self.start, self.step, self.epoch = start, step, epoch

    def on_start(self, training: Training) -> None:
        if self.start:
            training.stop()

    def on_step(self, training: Training, step: int) -> None:
        if step == self.step:
            training.stop()

    def on_epoch(self, training: Training, row: dict[str, float]) -> None:
        if row["epoch"] == self.epoch:
            training.stop()


@pytest.mark.parametrize(
    ("when", "steps"), [({"start": True}, 0), ({"step": 3}, 3), ({"epoch": 2}, 4)]
)
def test_a_callback_stops_a_training(when: Any, steps: int) -> None:
    training = fit(net(), points(), epochs=4, batch_size=16, callbacks=[StopAt(**when)])
    assert (training.state, len(training.history)) == ("stopped", steps)
    assert training.checkpoint is not None
    assert training.checkpoint.step == steps
    rows = [row["step"] for row in training.history.epochs]
    assert rows == {0: [], 3: [2, 3], 4: [2, 4]}[steps]


def test_a_stop_at_the_last_step_is_an_end() -> None:
    assert fit(net(), points(), steps=3, callbacks=[StopAt(step=3)]).state == "done"


def test_a_stopped_training_is_extended_from_where_it_stood() -> None:
    model = net()
    training = fit(model, points(), steps=9, batch_size=16, callbacks=[StopAt(step=3)])
    training.extend(steps=4)
    assert (training.state, len(training.history)) == ("done", 7)
    assert [(p.planned, p.steps) for p in training.settings.phases] == [(9, 3), (4, 4)]
    assert [row["step"] for row in training.history.epochs] == [2, 4, 6, 7]


def stopping_epoch(values: list[float], patience: int, *, falls: bool) -> int:
    """Return the epoch after which to stop, by hand: counting since the best one."""
    best, waited = None, 0
    for epoch, value in enumerate(values, 1):
        if best is None or (value < best if falls else value > best):
            best, waited = value, 0
        else:
            waited += 1
        if waited >= patience:
            return epoch
    return len(values)


@pytest.mark.parametrize("patience", [1, 2, 3])
@pytest.mark.parametrize("figure", ["validation_loss", "accuracy", "validation_mae", "r2"])
@pytest.mark.parametrize(
    "values",
    [[5.0, 4, 3, 3, 3, 2, 1], [1.0, 2, 3, 4], [3.0, 1, 2, 1, 2, 0, 1, 1, 1], [1.0]],
)
def test_early_stopping_counts_as_by_hand(values: list[float], figure: str, patience: int) -> None:
    training = fit(net(), points(), steps=1)
    training.history.epochs.clear()
    stopper = EarlyStopping(patience, figure)
    for step, value in enumerate(values, 1):
        training.history.epochs.append({"step": step, figure: value})
        stopper.on_epoch(training, training.history.epochs[-1])
        if training.reins.stopping:
            break
    falls = figure in ("validation_loss", "validation_mae")
    assert len(training.history.epochs) == stopping_epoch(values, patience, falls=falls)


def test_early_stopping_looks_over_minutes_sized_anew() -> None:
    training = fit(net(), points(), steps=1)
    whole = Phase(9, 9, 1.0)
    training.settings = replace(training.settings, phases=sized_anew((whole,), 2, 7))
    training.history.epochs = [{"step": 2, "loss": 1.0}, {"step": 4, "loss": 2.0}]
    EarlyStopping(1, "loss").on_epoch(training, training.history.epochs[-1])
    assert training.reins.stopping


def test_early_stopping_stops_a_fit_and_keeps_the_best() -> None:
    """The rate is so large that the validation loss soon rises."""
    model, data = net(), points()
    training = fit(
        model, data, epochs=60, batch_size=8, lr=3.0, schedule="constant",
        callbacks=[EarlyStopping(patience=3)],
    )  # fmt: skip
    values = training.history["validation_loss"]
    assert training.state == "stopped"
    assert len(values) == stopping_epoch(values, 3, falls=True) < 60
    assert training.best is not None
    assert training.best.figures["validation_loss"] == min(values)
    assert training.best.figures["epoch"] == values.index(min(values)) + 1


def test_an_early_end_is_an_end_until_it_is_extended() -> None:
    how: dict[str, Any] = {"batch_size": 8, "lr": 3.0, "schedule": "constant", "name": "night"}
    first = fit(net(), points(), epochs=60, callbacks=[EarlyStopping(3)], **how)
    model = net()
    again = fit(model, points(), epochs=60, callbacks=[EarlyStopping(3)], resume=True, **how)
    assert (again.state, again.history) == ("stopped", first.history)
    before = len(again.history.epochs)
    again.extend(epochs=3)
    assert len(again.history.epochs) == before + 3  # it counts from where it was extended


@pytest.mark.parametrize("patience", [0, -1, 1.5, "3"])
def test_a_patience_that_cannot_be_is_refused(patience: Any) -> None:
    with pytest.raises(RequestError, match="patience must be a whole number from 1 up, got "):
        EarlyStopping(patience)


def test_early_stopping_names_the_figures_there_are() -> None:
    message = (
        "early stopping looks at 'validation_loss', this training has loss, accuracy: give the "
        "dataset a validation split, or name one of these"
    )
    with pytest.raises(RequestError, match=message):
        fit(net(), points(validation=0), epochs=2, callbacks=[EarlyStopping()])


class Holds(Callback):
    """Pauses the training at a moment, and says so to who waits."""

    def __init__(self, moment: str) -> None:
        self.moment, self.paused, self.training = moment, threading.Event(), None
        self.steps = 0

    def _hold(self, moment: str, training: Training) -> None:
        if moment == self.moment:
            self.moment, self.training = "", training  # type: ignore[assignment]
            training.pause()
            self.paused.set()

    def on_start(self, training: Training) -> None:
        self._hold("start", training)

    def on_step(self, training: Training, step: int) -> None:
        self.steps = step
        self._hold(f"step {step}", training)

    def on_epoch(self, training: Training, row: dict[str, float]) -> None:
        self._hold(f"epoch {row['epoch']:.0f}", training)


def in_a_thread(holds: Holds, found: list[Training]) -> threading.Thread:
    def work() -> None:
        found.append(fit(net(), points(), steps=6, batch_size=16, callbacks=[holds]))

    thread = threading.Thread(target=work)
    thread.start()
    assert holds.paused.wait(30)
    return thread


def wait_for(training: Training, state: str) -> None:
    until = time.monotonic() + 30
    while training.state != state:
        assert time.monotonic() < until, f"{training.state}, expected {state}"
        time.sleep(0.005)


@pytest.mark.parametrize(
    ("moment", "done"), [("start", 0), ("step 3", 3), ("step 4", 4), ("epoch 1", 2)]
)
def test_a_training_is_paused_and_unpaused_from_another_thread(moment: str, done: int) -> None:
    holds = Holds(moment)
    found: list[Training] = []
    thread = in_a_thread(holds, found)
    training: Any = holds.training
    wait_for(training, "paused")
    time.sleep(0.05)
    assert (holds.steps, training.state) == (done, "paused")
    training.unpause()
    thread.join(30)
    assert found[0].state == "done"
    assert found[0].history == fit(net(), points(), steps=6, batch_size=16).history


def test_a_paused_training_is_stopped() -> None:
    holds = Holds("step 3")
    found: list[Training] = []
    thread = in_a_thread(holds, found)
    training: Any = holds.training
    wait_for(training, "paused")
    training.stop()
    thread.join(30)
    assert (found[0].state, len(found[0].history)) == ("stopped", 3)
