"""`training.at`: the weights after any step, against trainings that were stopped there."""

from __future__ import annotations

import contextlib
import copy
import gc
import re
import threading
import weakref
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rewound import fitted, recorded, weights
from torch import Tensor, nn
from torch.nn.utils import parametrizations
from trainings import CASES, Each, convolving, flat, held_at, pictures, points, stop_at, trained
from waiting import once

from workbench import evaluate, fit, list_models, list_trainings, predict, publish, serve
from workbench.attached import attached
from workbench.datasets import dataset
from workbench.errors import RequestError
from workbench.home import write_json
from workbench.training import EMA, Training
from workbench.training.checkpoints import tensors_of
from workbench.training.gradients import gradient_flow

# --- the weights


@pytest.mark.parametrize(
    ("case", "steps"),
    [("images", (1, 15, 18, 33)), ("parts", (7, 35)), ("noisy", (8, 26)), ("built", (2,)),
     ("loader", (26,)), ("everywhere", (20,)), ("workers", (11,))],
)  # fmt: skip
@pytest.mark.usefixtures("own_data", "quick")
def test_they_are_those_of_having_stopped_there(case: str, steps: tuple[int, ...]) -> None:
    """With augmentation, dropout, averages, bf16, parts, loaders that draw; across epochs."""
    training, _model = fitted(case)
    for step in steps:
        _, stopped = fitted(case, stop_at(step))
        assert weights(training.at(step)) == weights(stopped)


def test_step_0_is_the_model_as_it_was_given() -> None:
    model = convolving()
    before = copy.deepcopy(model)
    training = fit(model, pictures(), steps=8, batch_size=8, average="ema")
    assert weights(training.at(0)) == weights(before)


@pytest.mark.usefixtures("often")
def test_it_goes_back_from_the_nearest_checkpoint(monkeypatch: pytest.MonkeyPatch) -> None:
    model = flat()
    kept: dict[int, Any] = {0: weights(model)}  # which may be the step before the first checkpoint
    keep = Each(lambda training, step: kept.update({step: weights(model)}))
    training = trained(model=model, steps=120, callbacks=[keep])
    steps = [one.step for one in training.checkpoints]
    assert 0 < steps[1] < steps[-2] < steps[-1] == 120
    for step in (0, steps[1] - 1, steps[1], steps[-2] + 1, 119):
        told: list[tuple[int, int]] = []
        assert training.past is not None
        found = training.past.at(training, step, told=partial(_note, told))
        assert weights(found) == kept[step]
        away = step - max(one for one in steps if one <= step)
        assert told == [(i, away) for i in range(1, away + 1)]


def _keep(kept: dict[int, Any], model: nn.Module, _: Training, step: int) -> None:
    kept[step] = weights(model)


def _note(told: list[tuple[int, int]], *done: int) -> None:
    told.append((done[0], done[1]))


def test_it_is_exact_across_an_interruption_an_extension_and_a_longer_plan() -> None:
    kept: dict[int, Any] = {}
    for stop, how in ((14, {}), (0, {}), (0, {"steps": 44})):
        model, data, usual = CASES["images"]()
        note = Each(partial(_keep, kept, model))
        options = {**usual, "average": "none", **how}
        training = fit(
            model, data, name="night", resume=True, callbacks=[note, stop_at(stop)], **options
        )
    training.extend(steps=9)
    assert len(training.history) == 53
    for step in (3, 14, 15, 33, 34, 44, 47, 53):
        assert weights(training.at(step)) == kept[step]


def test_of_an_average_it_is_what_a_checkpoint_loads() -> None:
    training, one = fitted("parts", average=EMA(0.9))
    raw, two = fitted("parts", average="none")
    training.checkpoint.load(other := flat())  # type: ignore[union-attr]
    assert weights(training.at(36)) == weights(other) == weights(one)
    assert weights(raw.at(36)) == weights(two)
    assert weights(training.at(12)) != weights(raw.at(12))
    assert weights(training.at(0)) == weights(raw.at(0))


@pytest.mark.usefixtures("live")
def test_while_it_runs_and_while_it_is_paused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.training.loop._LOOK_EVERY", 0.0)
    kept: dict[int, Any] = {}
    model, other = flat(), flat()

    seen = threading.Event()

    def keep(training: Training, step: int) -> None:
        kept[step] = weights(model)
        if step == 20:
            seen.wait(60)
        if step == 40:
            training.pause()

    training = trained(model=model, epochs=20, steps=None, callbacks=[Each(keep)])
    once(lambda: len(training.history) >= 14)
    assert training.state == "running"
    assert weights(training.at(13)) == kept[13]
    seen.set()
    once(lambda: training.state == "paused")
    assert weights(training.at(31)) == kept[31]
    training.unpause()
    training.wait()
    calm = trained(model=other, epochs=20, steps=None).wait()
    assert training.history == calm.history
    assert kept[120] == weights(other)


@pytest.mark.usefixtures("live")
def test_a_loader_may_be_gone_through_beside_its_training() -> None:
    calm, calm_model = fitted("everywhere")
    calm.wait()
    seen = threading.Event()
    training, model = fitted("everywhere", held_at(8, seen))
    once(lambda: len(training.history) >= 5)
    for step in (3, 5):
        assert weights(training.at(step)) == weights(calm.at(step))
    seen.set()
    training.wait()
    assert training.history == calm.history
    assert weights(model) == weights(calm_model)


def test_a_callback_may_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.training.loop._LOOK_EVERY", 0.0)
    found: list[Any] = []
    model = flat()

    def ask(training: Training, step: int) -> None:
        if step == 7:
            found.extend([weights(training.at(7)), weights(model)])

    calm, asked = trained(), trained(model=model, callbacks=[Each(ask)])
    assert found[0] == found[1]
    assert asked.history == calm.history


def test_a_frozen_part_comes_back_trainable() -> None:
    model, lr = flat(), {"0": 0.0, "": 0.01}
    model.get_parameter("4.bias").requires_grad_(False)
    training = trained(model=model, lr=lr)
    assert [p.requires_grad for p in training.at(5).parameters()] == [*[True] * 5, False]


def test_tied_and_parametrized_weights_stay_so() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                self.one, self.last = nn.Linear(5, 5), nn.Linear(5, 3)
                self.normed = parametrizations.weight_norm(nn.Linear(5, 5))
                self.other = nn.Linear(5, 5)
            self.other.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.normed(self.other(self.one(x).relu()).relu()))  # type: ignore[no-any-return]

    model, stopped = Tied(), Tied()
    training = trained(model=model)
    trained(model=stopped, callbacks=[stop_at(5)])
    found: Any = training.at(5)
    assert weights(found) == weights(stopped)
    assert found.other.weight is found.one.weight


# --- what it leaves, and what it gives


def seen(folder: Path) -> dict[str, Any]:
    return {
        str(path.relative_to(folder)): (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


def test_it_leaves_no_trace(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_json(tmp_path / "run.json", {"id": "one"})
    monkeypatch.setenv("WORKBENCH_RUN", str(tmp_path))
    calls = Each()
    training, model = fitted("everywhere", calls)
    before, numbers, taken = seen(tmp_path), weights(model), calls.taken
    torch.manual_seed(4)
    expected = torch.rand(3)
    torch.manual_seed(4)
    assert weights(training.at(20)) != numbers
    assert torch.equal(torch.rand(3), expected)
    assert (seen(tmp_path), weights(model), calls.taken) == (before, numbers, taken)
    assert [one.name for one in list_trainings()] == [training.name]
    assert attached(model).training is training


def test_it_answers_is_published_and_served() -> None:
    data = pictures()
    training, model = fitted("images")
    _, stopped = fitted("images", stop_at(12))
    found = training.at(12)
    assert not found.training
    assert evaluate(found, data.validation).loss == evaluate(stopped, data.validation).loss
    rows = data.validation.inputs[:3]  # type: ignore[union-attr]
    assert torch.equal(predict(found, rows).output, predict(stopped, rows).output)
    version = publish(found, "early")
    assert (version.record["settings"]["steps"], len(list_models())) == (12, 1)
    with serve(found, name="early") as service:
        assert service.predict(rows).labels == predict(found, rows).labels
    fit(found, data, steps=1, batch_size=8)
    assert training.state == "done"
    assert weights(found) != weights(model)


def test_the_history_it_remembers_ends_there() -> None:
    model = flat()
    training = trained("night", model=model, steps=20)
    found = training.at(13)
    then = attached(found).training
    assert then is not None
    assert then.history["loss"] == training.history["loss"][:13]
    assert [row["step"] for row in then.history.epochs] == [6, 12]
    assert re.match("Training stopped: Sequential on points, 13 of 13 steps", repr(then))
    assert weights(then.at(3)) == weights(training.at(3))
    said = "the 8 rows of step 13 of training 'night'"
    assert gradient_flow(found, points()).batch == said


# --- after its process is gone


@pytest.mark.parametrize(
    ("case", "how"),
    [("images", {}), ("parts", {"average": EMA(0.9), "lr": {"": 0.05, "0": 0.01}}),
     ("everywhere", {}), ("parts", {"average": "none", "class_weights": None, "clip": None})],
)  # fmt: skip
def test_with_model_and_data_a_record_is_enough(case: str, how: Any) -> None:
    training, _model = fitted(case, name="night", **how)
    model, data, _ = CASES[case]()
    before = weights(model)
    found = recorded("night").at(17, model=model, data=data)
    assert weights(found) == weights(training.at(17))
    assert weights(model) == before


def test_a_training_that_was_killed_goes_back_to_what_its_files_tell() -> None:
    """There may be more steps in its files than its last checkpoint has."""
    kept = flat()
    training = trained(name="night", steps=20, model=kept)
    expected = weights(training.at(15))
    training.checkpoint.path.unlink()  # type: ignore[union-attr]
    assert weights(recorded("night").at(15, model=flat(), data=points())) == expected


# --- what it refuses


def test_a_step_that_is_none_or_not_done_yet() -> None:
    model = flat()
    training = trained("night", model=model)
    for step in (-1, 2.5, True, "last", None):
        with pytest.raises(RequestError, match="step must be a whole number from 0 to 9, got "):
            training.at(step)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match=r"'night' has not come to step 10, it has taken 9$"):
        training.at(10)
    training.state = "running"
    with pytest.raises(RequestError, match="it has taken 9: wait until it has"):
        training.at(10)


def test_a_training_without_its_model() -> None:
    training = trained("night")  # whose model nobody holds
    said = "training 'night' has no model to go back with in this process: pass model= and data="
    for one in (training, recorded("night")):
        with pytest.raises(RequestError, match=said):
            one.at(3)
    model = flat()
    expected = weights(trained(model=model).at(3))
    assert weights(training.at(3, model=flat(), data=points())) == expected
    with pytest.raises(RequestError, match="the model of training 'night' is not in this process"):
        training.model  # noqa: B018


def test_checkpoints_that_are_gone() -> None:
    model = flat()
    training = trained(model=model, checkpoint_every=30)
    training.checkpoints[0].path.unlink()
    with pytest.raises(RequestError, match=r"no checkpoint of step 3 or before in .*, so nothing"):
        training.at(3)


def test_after_a_divergence_there_is_all_before_it(live: None) -> None:
    model = flat()
    training = trained(model=model, steps=50, lr=1e30, optimizer="sgd", average="none")
    with contextlib.suppress(ArithmeticError):
        training.wait()
    last = len(training.history)
    assert training.state == "failed"
    assert all(tensor.isfinite().all() for tensor in tensors_of(training.at(0)).values())
    with pytest.raises(RequestError, match=f"cannot be taken back to step {last}, where its weigh"):
        training.at(last)


def test_what_is_no_function_of_seed_epoch_and_row() -> None:
    def shaken(training: Training, step: int) -> None:
        with torch.no_grad():
            model.get_parameter("0.weight").mul_(1.01)

    model = flat()
    training = trained("night", model=model, callbacks=[Each(shaken)], checkpoint_every=30)
    said = (
        r"step 2 of training 'night' does not come out as it did: its loss was .*, and is .* now: "
        r"it depends on more than seed, epoch and row.*Exact are the checkpoints, of steps 0, 9"
    )
    with pytest.raises(RequestError, match=said):
        training.at(5)
    assert weights(training.at(9)) == weights(model)
    training.environment["torch"] = "1.0"
    with pytest.raises(RequestError, match=r"now: torch was 1\.0, and is 2"):
        training.at(5)


def test_a_model_that_cannot_be_copied() -> None:
    model = flat()
    model.lock = threading.Lock()  # type: ignore[assignment]
    training = trained("night", model=model)
    with pytest.raises(RequestError, match="the model of training 'night' cannot be copied"):
        training.at(3)


def own(outputs: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(outputs, targets)


class Own(EMA):
    """An average of somebody's own."""


@pytest.mark.parametrize(
    "how",
    [{"loss": own}, {"schedule": lambda progress: 1.0}, {"optimizer": torch.optim.Adagrad},
     {"average": Own()}],
)  # fmt: skip
def test_a_record_has_functions_by_name_alone(how: dict[str, Any]) -> None:
    (what,) = how
    trained("night", **how)
    said = f"training 'night' was given {what}=.* a function of somebody's own, of which its record"
    with pytest.raises(RequestError, match=said):
        recorded("night").at(3, model=flat(), data=points())


def test_a_record_wants_the_model_and_the_data_that_it_had() -> None:
    trained("night", model=flat(), data=points())
    past = recorded("night")
    wrong = dataset("points", train=(torch.rand(46, 5), torch.arange(46) % 3))
    with pytest.raises(RequestError, match=r"'night' learned from 'points' \(.*pass the data that"):
        past.at(3, model=flat(), data=wrong)
    with pytest.raises(RequestError, match=r"is of another model: 0\.weight is float32"):
        past.at(3, model=nn.Sequential(nn.Linear(5, 3)), data=points())
    with pytest.raises(RequestError, match="model= takes a model, got str"):
        past.at(3, model="mlp", data=points())  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="going back takes a Dataset, got list"):
        past.at(3, model=flat(), data=[1, 2])


def test_a_long_way_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    """The one of every function that takes longer than two seconds."""
    bars: list[Any] = []

    def progress(total: int, label: str, **_: Any) -> Any:
        bars.append([label, total, 0])
        return contextlib.nullcontext(type("Bar", (), {"update": lambda self, n: _moved(bars)})())

    def _moved(bars: list[Any]) -> None:
        bars[-1][2] += 1

    model = flat()
    training = trained(model=model, steps=20, checkpoint_every=30)
    monkeypatch.setattr("workbench.training.rewinding.progress", progress)
    training.at(17)
    assert bars == [["going back", 17, 17]]


def test_a_training_that_does_not_know_what_it_was_given() -> None:
    training = trained("night")
    said = "training 'night' does not know what it was given: wb.list_trainings()['night'] goes ba"
    with pytest.raises(RequestError, match=re.escape(said)):
        Training(training.settings, training.folder).at(3)


# --- what it keeps alive


def test_a_model_keeps_its_last_training_and_data_alone() -> None:
    model, alive = flat(), []
    for _ in range(3):
        data = points()
        training = trained(model=model, data=data)
        alive.append((weakref.ref(training), weakref.ref(data.train.inputs)))
    del training, data
    gc.collect()
    found = [[one() is not None for one in pair] for pair in alive]
    assert found == [[False, False], [False, False], [True, True]]


def test_a_model_that_was_asked_for_is_let_go_of() -> None:
    model = flat()
    alive = weakref.ref(found := trained(model=model).at(5))
    remembered = attached(found).training
    del found
    gc.collect()
    assert alive() is None
    with pytest.raises(RequestError, match="has no model to go back with in this process"):
        remembered.at(3)  # type: ignore[union-attr]


class Counted:
    """Counts how often it is copied."""

    copies = 0

    def __deepcopy__(self, memo: Any) -> Counted:
        self.copies += 1
        return self


def test_a_model_is_copied_when_somebody_goes_back_and_not_before() -> None:
    model, table = flat(), Counted()
    model.table = table  # type: ignore[assignment]
    training = trained(model=model)
    assert table.copies == 0
    training.at(3)
    assert table.copies == 1


def test_what_a_pass_leaves_in_the_model_is_copied_too() -> None:
    class Leaving(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.seen = flat(), list[Tensor]()

        def forward(self, x: Tensor) -> Tensor:
            self.seen, self.last = [x, self.inner(x)], self.inner[0].weight * 2  # type: ignore[index]
            return self.seen[1]

    model, stopped = Leaving(), Leaving()
    training = trained(model=model)
    trained(model=stopped, callbacks=[stop_at(5)])
    model(torch.zeros(2, 5))  # evaluation leaves what has no graph
    assert not model.last.is_leaf
    assert weights(training.at(5)) == weights(stopped)


def test_a_copy_that_is_made_between_two_steps_draws_and_learns_as_others_do() -> None:
    found: list[nn.Sequential] = []

    def ask(training: Training, step: int) -> None:
        if step == 7:
            found.append(training.at(0))  # type: ignore[arg-type]

    model = flat()
    trained(model=model, lr={"0": 0.0, "": 0.01}, callbacks=[Each(ask)])
    assert all(p.requires_grad for p in found[0].parameters())
    assert "forward" not in vars(found[0][3])


class Net(nn.Sequential):
    """To be counted."""


def living() -> int:
    gc.collect()
    return sum(type(one) is Net for one in gc.get_objects())  # isinstance would ask each of them


@pytest.mark.parametrize("how", ["at", "blame", "branch"])
def test_an_error_keeps_no_copy_alive(how: str) -> None:
    model = Net(*flat())  # type: ignore[misc]

    def shake(*_: Any) -> None:
        model.get_parameter("0.weight").data.mul_(1.01)

    training = trained(model=model, callbacks=[Each(shake)], checkpoint_every=30)
    before = living()
    with pytest.raises(RequestError, match="does not come out as it did") as caught:
        getattr(training, how)(5)
    assert living() == before
    assert caught.value.__traceback__ is not None


def test_arguments_are_those_that_were_given_whatever_becomes_of_them() -> None:
    model, lr = flat(), {"0": 0.01, "": 0.1}
    weighed: Any = {"class_weights": iter([1.0, 2.0, 3.0]), "lr": lr}
    training = trained(model=model, steps=20, **weighed)
    weighed["class_weights"] = iter([3.0, 2.0, 1.0])
    branch = training.branch(9, **weighed)
    lr["0"] = 0.0
    for one in (training, branch):
        at_end = copy.deepcopy(one.at(20))
        one.checkpoints[-1].path.unlink()
        assert weights(one.at(20)) == weights(at_end)
