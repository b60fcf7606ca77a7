"""`training.branch`: another training from a step on; unchanged, it ends in the parent's bits."""

from __future__ import annotations

import gc
import math
import re
import threading
import warnings
import weakref
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rewound import fitted, recorded, weights
from safetensors.torch import save_file
from torch import nn
from trainings import (
    CASES,
    CLASSES,
    Each,
    differences,
    flat,
    held_at,
    left,
    points,
    stop_at,
    trained,
)
from waiting import once

from workbench import evaluate, list_trainings, publish
from workbench.attached import attached
from workbench.determinism import generator
from workbench.errors import DivergedError, RequestError
from workbench.home import home, read_json, write_json
from workbench.journal import read_lines
from workbench.training import EarlyStopping, Training, schedules
from workbench.training.checkpoints import best_checkpoint, read_checkpoint, tensors_of
from workbench.training.gradients import gradient_flow


def all_of(training: Training, model: nn.Module) -> dict[str, Any]:
    """Return everything a training has left, but how long it took."""
    folder = training.folder
    save_file({k: v.detach().contiguous() for k, v in tensors_of(model).items()}, folder / "model")
    write_json(folder / "history.json", [training.history.steps, training.history.epochs])
    return left(folder)


# --- unchanged


@pytest.mark.parametrize(
    ("case", "step"),
    [("images", 8), ("images", 24), ("parts", 0), ("parts", 17), ("noisy", 12), ("everywhere", 11)],
)
def test_unchanged_it_ends_in_the_parents_bits(case: str, step: int) -> None:
    """Weights, averages, the optimizer's state, history, best epoch, random states: everything."""
    training, model = fitted(case)
    before = weights(model)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that F.dropout draws
        branch = training.branch(step)
    assert (branch.state, branch.history) == ("done", training.history)
    ours, theirs = all_of(branch, branch.model), all_of(training, model)
    assert list(differences(ours, theirs)) == []
    assert weights(model) == before


def test_it_goes_on_from_a_training_that_was_held_and_extended() -> None:
    model = flat()
    training = trained(model=model, steps=20, average="lookahead", callbacks=[stop_at(9)])
    training.extend(steps=11)
    for step in (5, 9, 13):
        assert weights(training.branch(step, callbacks=[]).model) == weights(model)


def test_its_best_is_the_parents_until_it_has_a_better_one() -> None:
    model = flat()
    training = trained(model=model, epochs=8, steps=None, lr=0.01)
    rows = training.history.epochs
    for end in (2, 5):
        branch = training.branch(6 * end + 1, lr=1e-9, steps=6)
        best = min(branch.history.epochs, key=lambda row: row["validation_loss"])
        assert branch.history.epochs[:end] == rows[:end]
        branch.best.load(other := flat())  # type: ignore[union-attr]
        assert branch.best.step == best["step"]  # type: ignore[union-attr]
        loss = evaluate(other_of(branch, other), points().validation).loss
        assert float(loss) == pytest.approx(best["validation_loss"], rel=1e-5)


def other_of(training: Training, model: nn.Module) -> nn.Module:
    """Let a model know what that of a training knows."""
    attached(model).preprocessing = attached(training.model).preprocessing
    return model


def test_callbacks_stay_with_it() -> None:
    model = flat()
    stopping = EarlyStopping(2)
    training = trained(model=model, epochs=30, steps=None, lr=0.1, callbacks=[stopping])
    assert len(training.history) < 180
    branch = training.branch(7)
    assert (branch.state, branch.history) == (training.state, training.history)
    counted = Each()
    training.branch(7, callbacks=[counted], steps=9)
    assert counted.taken == 9


# --- changed


def by_hand(model: nn.Module, rates: list[float], first: int) -> nn.Module:
    """Take steps of plain gradient descent from a step on, as anybody would write them."""
    data, size = points().train, 8
    known = attached(model).preprocessing
    assert known is not None
    model.train()
    for step, rate in enumerate(rates, first):
        epoch, place = divmod(step, 6)
        order = torch.randperm(46, generator=generator(0, "order", epoch))
        rows = order[place * size : (place + 1) * size]
        model.zero_grad()
        F.cross_entropy(model(known(data.inputs[rows])), data.targets[rows]).backward()
        with torch.no_grad():
            for p in model.parameters():
                p.sub_(rate * p.grad)  # type: ignore[operator]
    return model


def plain() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, CLASSES))


def test_another_rate_keeps_its_course() -> None:
    how: dict[str, Any] = {"optimizer": "sgd", "momentum": 0.0, "lr": 0.02}
    training = trained(model=(model := plain()), steps=20, **how)
    branch = training.branch(9, lr=0.1)
    shares = schedules.rates(schedules.triangle, 20)
    rates = [0.02 * share for share in shares[:9]] + [0.1 * share for share in shares[9:]]
    assert branch.history["lr"] == rates
    assert branch.history["loss"][:10] == training.history["loss"][:10]
    assert branch.history["loss"][10] != training.history["loss"][10]
    for ours, theirs in zip(
        by_hand(training.at(9), rates[9:], 9).parameters(), branch.model.parameters(), strict=True
    ):
        assert torch.allclose(ours, theirs, atol=1e-6)
    assert weights(model) != weights(branch.model)


@pytest.mark.parametrize(
    ("changes", "expected"),
    [({"schedule": "cosine"}, schedules.rates(schedules.cosine, 11)),
     ({"steps": 4}, schedules.rates(schedules.triangle, 4)),
     ({"epochs": 2, "schedule": "constant"}, [1.0] * 12)],
)  # fmt: skip
def test_a_schedule_or_a_budget_begins_a_course_of_its_own(changes: Any, expected: Any) -> None:
    model = flat()
    training = trained(model=model, steps=20, lr=0.01)
    branch = training.branch(9, **changes)
    assert branch.history["lr"] == training.history["lr"][:9] + [0.01 * e for e in expected]
    assert branch.settings.steps == len(branch.history) == 9 + len(expected)


def test_the_optimizers_state_is_the_parents_unless_it_changes() -> None:
    model = flat()
    training = trained(model=model, steps=20, optimizer="adamw", weight_decay=0.1)
    same, decayed = training.branch(9, steps=1), training.branch(9, steps=1, weight_decay=0.5)
    fresh, twice = (training.branch(9, steps=1, optimizer=name) for name in ("adamw", "nesterov"))

    def steps_taken(one: Training) -> set[float]:
        state = read_checkpoint(one.checkpoint.path).part("optimizer")  # type: ignore[union-attr]
        return {float(value) for name, value in state.items() if name.endswith(".step")}

    assert [steps_taken(one) for one in (same, decayed, fresh)] == [{10.0}, {10.0}, {1.0}]
    assert weights(same.model) != weights(decayed.model) != weights(fresh.model)
    assert len(twice.history) == 10


def test_much_can_be_changed() -> None:
    model = flat()
    training = trained(model=model, steps=20, average="ema")
    branch = training.branch(
        9, lr={"0": 0.0, "": 0.01}, label_smoothing=0.1, class_weights="balanced", clip=0.5,
        accumulate=2, precision="bf16", seed=7, momentum=0.8,
    )  # fmt: skip
    settings = branch.settings
    assert (settings.lr_of, settings.seed, settings.precision) == ({"0": 0.0}, 7, "bf16")
    assert branch.state == "done"
    frozen, before = weights(branch.model), weights(training.at(9))
    assert frozen["4.weight"] != before["4.weight"]


def test_a_frozen_part_stays_where_it_was() -> None:
    model = flat()
    training = trained(model=model, steps=20)
    branch = training.branch(9, lr={"0": 0.0, "": 0.01})
    assert weights(branch.model)["0.weight"] == weights(training.at(9))["0.weight"]
    thawed = branch.branch(12, lr=0.01)
    assert weights(thawed.model)["0.weight"] != weights(branch.model)["0.weight"]


def test_a_branch_that_diverges_leaves_the_parent_alone() -> None:
    model = flat()
    training = trained("night", model=model, steps=20, optimizer="sgd")
    before = weights(model)
    with pytest.raises(DivergedError, match="The model is as it was at step 9"):
        training.branch(9, lr=1e30, name="wild")
    assert (training.state, weights(model)) == ("done", before)
    wild = list_trainings()["wild"]
    assert (wild.state, wild.checkpoints[0].step) == ("failed", 9)


# --- as a training among others


def test_it_is_listed_by_the_parents_name_and_its_record_says_whence() -> None:
    model = flat()
    training = trained("night", model=model, steps=20)
    names = [training.branch(9, steps=1).name for _ in range(3)]
    assert names == ["night-at-9", "night-at-9-2", "night-at-9-3"]
    record = read_json(home() / "trainings/night-at-9/training.json")
    assert record["branched_from"] == {"name": "night", "step": 9}
    assert "branched from night at step 9, 10 of 10 steps" in repr(recorded("night-at-9"))
    assert training.branch(5, name="mine").name == "mine"
    said = "there is a training 'mine' already, done: give the branch another name"
    with pytest.raises(RequestError, match=said):
        training.branch(5, name="mine")
    long = trained("n" * 100, model=model, steps=3)
    assert re.fullmatch("n{84,}-at-1", long.branch(1).name)


def test_its_history_begins_with_the_parents() -> None:
    model = flat()
    training = trained("night", model=model, steps=20)
    branch = training.branch(9, lr=0.1)
    for history in (branch.history, recorded("night-at-9").history):
        assert history["loss"][:9] == training.history["loss"][:9]
        assert history.epochs[0] == training.history.epochs[0]
        assert len(history) == 20
    picture = training.show(branch)._repr_png_()
    assert picture.startswith(b"\x89PNG")


def test_it_is_resumed_extended_and_gone_back_in() -> None:
    model = flat()
    training = trained("night", model=model, steps=40, average="ema")
    changes: dict[str, Any] = {"lr": 0.05, "schedule": "cosine"}
    whole = training.branch(9, **changes)
    held = training.branch(9, name="held", callbacks=[stop_at(21)], **changes)
    assert (held.state, len(held.history)) == ("stopped", 21)
    other = flat()
    again = trained("held", model=other, steps=None, resume=True, average="ema", **changes)
    assert again.branched_from == held.branched_from
    assert (again.history, weights(other)) == (whole.history, weights(whole.model))
    for one in (whole, again):
        one.extend(steps=6)
    assert weights(other) == weights(whole.model)
    assert weights(again.at(30)) == weights(whole.at(30))
    said = "'held' begins at step 9, where it was branched from 'night': ask that one for step 8"
    with pytest.raises(RequestError, match=said):
        again.at(8)


def test_a_branch_of_a_branch() -> None:
    model = flat()
    training = trained("night", model=model, steps=20)
    first = training.branch(9, lr=0.05)
    second = first.branch(14)
    assert second.name == "night-at-9-at-14"
    assert (second.history, weights(second.model)) == (first.history, weights(first.model))


def test_of_a_record_it_branches_with_model_and_data() -> None:
    training, _model = fitted("parts", name="night")
    expected = weights(training.branch(11, lr=0.01).model)
    model, data, _ = CASES["parts"]()
    branch = recorded("night").branch(11, lr=0.01, name="again", model=model, data=data)
    assert weights(branch.model) == expected


def test_its_model_lives_as_long_as_it_does_and_can_be_published() -> None:
    model = flat()
    training = trained("night", model=model, steps=20)
    branch = training.branch(9)
    version = publish(branch.model, "branched")
    assert version.record["settings"]["steps"] == 20
    remembered = attached(branch.model).training
    assert (remembered.name, remembered.state) == (branch.name, "done")  # type: ignore[union-attr]
    alive = weakref.ref(branch.model)
    branch.extend(steps=3)
    assert len(attached(branch.model).training.history) == 23  # type: ignore[union-attr]
    del branch, remembered
    gc.collect()
    assert alive() is None


@pytest.mark.usefixtures("live")
def test_it_goes_on_in_a_thread_beside_its_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    shown: list[Any] = []
    monkeypatch.setattr("workbench.training.pasts.is_live", lambda: True)
    monkeypatch.setattr("IPython.display.display", shown.append)
    calm_model = flat()
    calm = trained(model=calm_model, epochs=20, steps=None).wait()
    model = flat()
    seen = threading.Event()
    patient = held_at(20, seen)
    training = trained("night", model=model, epochs=20, steps=None, callbacks=[patient])
    once(lambda: len(training.history) >= 10)
    branch = training.branch(8, callbacks=[patient])
    assert (training.state, branch.state) == ("running", "running")
    seen.set()
    for one in (training, branch):
        one.wait()
        assert one.history == calm.history
    assert weights(branch.model) == weights(model) == weights(calm_model)
    assert len(shown) == 1


# --- in a run


def test_a_run_notes_it_and_an_attempt_anew_makes_it_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_json(tmp_path / "run.json", {"id": "one"})
    monkeypatch.setenv("WORKBENCH_RUN", str(tmp_path))
    model = flat()
    branch = trained("night", model=model, steps=20).branch(9, lr=0.1)
    note = read_lines(tmp_path / "events.jsonl")[-1]
    assert (note["name"], note["begun_at"], note["state"]) == ("night-at-9", 0, "done")
    assert note["branched_from"] == {"name": "night", "step": 9}
    before = weights(branch.model)
    monkeypatch.setenv("WORKBENCH_RESUMED", "1")
    monkeypatch.setattr("workbench.training.attempts._begun", set())
    training = trained("night", model=model, steps=20)
    again = training.branch(9, lr=0.1)
    assert (again.name, weights(again.model)) == ("night-at-9", before)
    assert training.branch(9, lr=0.1).name == "night-at-9-2"


# --- what it refuses


def test_what_decides_the_order_of_rows_stays() -> None:
    model = flat()
    training = trained(model=model, steps=20)
    said = r"unknown change of a branch 'batch_size': .*There are: accumulate, augment"
    with pytest.raises(RequestError, match=said):
        training.branch(9, batch_size=4)
    with pytest.raises(RequestError, match="seed must be a whole number from 0"):
        training.branch(9, seed=-1)
    with pytest.raises(RequestError, match="give epochs, steps or minutes, and one of them only"):
        training.branch(9, epochs=1, steps=2)
    with pytest.raises(RequestError, match="lr must be more than 0"):
        training.branch(9, lr=-1)
    assert len(list_trainings()) == 1


def test_after_the_last_step_there_is_nothing_left_to_do() -> None:
    model = flat()
    training = trained(model=model, steps=20)
    said = re.escape("nothing is left to do after step 20, the last: give the branch epochs= or")
    with pytest.raises(RequestError, match=said):
        training.branch(20)
    assert len(training.branch(20, steps=3).history) == 23


# --- its best epoch, and what its model remembers


def climbing(model: nn.Module) -> Training:
    """Return a training whose third epoch is its best after three, and not after all."""
    training = trained(model=model, epochs=8, steps=None, lr=0.01)
    losses = [row["validation_loss"] for row in training.history.epochs]
    assert min(losses[:3]) > min(losses)
    return training


def best_of(branch: Training) -> tuple[int, dict[str, Any]]:
    kept = read_checkpoint(branch.best.path)  # type: ignore[union-attr]
    return kept.step, {
        name: tensor.numpy().tobytes() for name, tensor in kept.part("model").items()
    }


def expected_best(training: Training, step: int) -> tuple[int, dict[str, Any]]:
    rows = [row for row in training.history.epochs if row["step"] <= step]
    sought = int(min(rows, key=lambda row: row["validation_loss"])["step"])
    tensors = tensors_of(training.at(sought))
    return sought, {name: tensor.detach().numpy().tobytes() for name, tensor in tensors.items()}


@pytest.mark.parametrize("step", [18, 21])
def test_the_way_back_is_taken_once(step: int) -> None:
    training = climbing(model := flat())
    told: list[tuple[int, int]] = []
    assert training.past is not None

    def tell(done: int, of: int) -> None:
        told.append((done, of))

    changes = {"steps": 1, "lr": 10.0}  # which is worse than all before
    branch = training.past.branch(training, step, None, None, None, changes, told=tell)
    start = max(one.step for one in training.checkpoints if one.step <= step)
    assert told == [(i, step - start) for i in range(1, step - start + 1)]
    assert best_of(branch) == expected_best(training, step)
    assert not model.training


def test_a_best_epoch_that_the_parent_has_left_behind_is_taken_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between a look at the header of its file and the reading, a parent that runs writes it."""
    training = climbing(model := flat())
    then = expected_best(training, 20)
    said = replace(training.best, step=then[0])  # type: ignore[type-var]
    monkeypatch.setattr(
        Training,
        "best",
        property(lambda t: said if t is training else best_checkpoint(t.folder / "checkpoints")),
    )
    assert best_of(training.branch(20, steps=1, lr=10.0)) == then
    assert not model.training


def poisoned(step: int, seen: list[nn.Module]) -> Each:
    """Return a callback that breaks a model after a step."""

    def poison(training: Training, taken: int) -> None:
        if taken == step:
            seen.append(training.model)
            training.model.get_parameter("0.weight").data.fill_(math.nan)

    return Each(poison)


def test_after_a_divergence_its_model_remembers_what_its_weights_come_from() -> None:
    training, seen = trained(model=(model := flat()), steps=20), list[nn.Module]()
    with pytest.raises(DivergedError, match="The model is as it was at step 9"):
        training.branch(9, callbacks=[poisoned(15, seen)])
    assert attached(seen[0]).training is None
    branch = training.branch(9, callbacks=[poisoned(23, seen)])
    with pytest.raises(DivergedError, match="The model is as it was at step 20"):
        branch.extend(steps=6)
    told = attached(branch.model).training
    assert told is not None
    assert (told.state, len(told.history)) == ("done", 20)
    assert not model.training


def test_the_gradient_of_its_model_is_that_of_its_last_step() -> None:
    training = trained("night", model=(model := flat()), steps=20)
    branch = training.branch(9, lr=0.02)
    found = gradient_flow(branch.model, points())
    assert found.batch == "the 8 rows of step 20 of training 'night-at-9'"
    assert gradient_flow(model, points()).loss != found.loss
