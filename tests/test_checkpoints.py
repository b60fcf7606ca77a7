"""Checkpoints: which are kept, that they are whole, and how a training goes on, or why not."""

from __future__ import annotations

import itertools
import json
import re
import signal
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from trainings import (
    CASES,
    Each,
    bits,
    fill_disk,
    flat,
    left,
    meddle,
    outcome,
    points,
    start,
    stop_at,
    trained,
)

from workbench.datasets import dataset
from workbench.errors import RequestError, TamperedError
from workbench.evaluation import evaluate
from workbench.home import home, read_json, write_json
from workbench.training import Callback, Training, fit
from workbench.training.checkpoints import (
    Checkpoint,
    Checkpoints,
    Snapshot,
    list_checkpoints,
    read_checkpoint,
    tensors_of,
)

pytestmark = pytest.mark.usefixtures("often")


# --- which are kept


def test_the_ladder_has_at_most_eight_rungs_between_first_and_last(tmp_path: Path) -> None:
    told: list[int] = []

    def tell(checkpoint: Checkpoint) -> None:
        told.append(checkpoint.step)
        assert len(list_checkpoints(tmp_path)) <= 10

    keeper = Checkpoints(tmp_path, 0, tell)
    for step in range(200):
        keeper.save(Snapshot({}, {"step": step}))
    keeper.close()
    assert told == list(range(200))
    kept = [one.step for one in list_checkpoints(tmp_path)]
    assert (kept[0], kept[-1], len(kept)) == (0, 199, 10)
    gaps = [after - before for before, after in itertools.pairwise(kept)]
    assert max(gaps) <= 50  # all along the way, not at its end alone


def test_first_last_and_best_are_kept() -> None:
    data = points()
    training = trained(data=data, steps=30, lr=0.05)
    steps = [one.step for one in training.checkpoints]
    assert (steps[0], steps[-1]) == (0, 30)
    row = min(training.history.epochs, key=lambda row: row["validation_loss"])
    assert training.best is not None
    assert (training.best.step, training.best.figures) == (row["step"], row)
    model = flat()
    fit(model, data, steps=1)  # so that it has its preprocessing
    training.best.load(model)
    assert data.validation is not None
    assert evaluate(model, data.validation).loss == pytest.approx(row["validation_loss"])


@pytest.mark.parametrize("average", [None, "ema", "lookahead"])
def test_a_checkpoint_loads_the_weights_that_the_training_ended_with(average: Any) -> None:
    model, other = flat(), flat()
    training = trained(model=model, average=average)
    assert training.checkpoint is not None
    training.checkpoint.load(other)
    for name, value in tensors_of(model).items():
        assert torch.equal(tensors_of(other)[name], value), name


def test_a_checkpoint_tells_its_step_and_figures() -> None:
    training = trained(steps=12)
    assert training.checkpoint is not None
    assert training.checkpoint.step == 12
    assert training.checkpoint.figures == training.history.epochs[-1]
    assert training.checkpoint.path.parent == training.folder / "checkpoints"


def test_on_checkpoint_is_told_of_what_is_on_disk() -> None:
    told: list[int] = []

    class Told(Callback):
        def on_checkpoint(self, training: Training, checkpoint: Checkpoint) -> None:
            read_checkpoint(checkpoint.path)
            told.append(checkpoint.step)

    trained(callbacks=[Told()])
    assert told[0] == 0
    assert told[-1] == 9


def test_the_time_between_checkpoints_is_kept() -> None:
    assert [one.step for one in trained(checkpoint_every=60).checkpoints] == [0, 9]


# --- whole files


def test_a_reader_sees_whole_files_only(tmp_path: Path) -> None:
    keeper = Checkpoints(tmp_path, 0, lambda checkpoint: None)
    over, seen = threading.Event(), 0

    def write() -> None:
        for step in range(120):
            keeper.save(Snapshot({"model.x": torch.full((20_000,), step)}, {"step": step}))
        over.set()

    writer = threading.Thread(target=write)
    writer.start()
    while not over.is_set():
        for one in list_checkpoints(tmp_path):
            try:
                state = read_checkpoint(one.path)
            except RequestError:  # thinned out since
                continue
            assert set(state.tensors["model.x"].tolist()) == {one.step}
            seen += 1
    writer.join()
    keeper.close()
    assert seen


def test_a_checkpoint_that_was_thinned_out_says_so() -> None:
    training = trained()
    one = training.checkpoint
    assert one is not None
    one.path.unlink()
    with pytest.raises(RequestError, match=r"9\.safetensors is not there any more: take another"):
        one.load(flat())


def test_what_a_killed_process_left_half_written_is_swept(tmp_path: Path) -> None:
    half = tmp_path / ".000000003.safetensors.a1b2c3d4"
    half.write_bytes(b"half")
    Checkpoints(tmp_path, 0, lambda checkpoint: None).close()
    assert not half.exists()


def test_a_checkpoint_of_another_model_names_the_first_difference() -> None:
    one = trained().checkpoint
    assert one is not None
    wide = nn.Sequential(nn.Linear(5, 13), nn.BatchNorm1d(13), nn.ReLU(), nn.Linear(13, 3))
    with pytest.raises(
        RequestError,
        match=r"is of another model: 0\.weight is float32 \(12, 5\) there and float32 \(13, 5\) in "
        "this Sequential: build the model as it was",
    ):
        one.load(wide)
    with pytest.raises(RequestError, match=r"2\.weight is missing there and float32 \(3, 12\) in"):
        one.load(nn.Sequential(nn.Linear(5, 12), nn.ReLU(), nn.Linear(12, 3)))


def test_nothing_is_loaded_from_a_checkpoint_that_does_not_fit() -> None:
    one = trained().checkpoint
    assert one is not None
    other = nn.Sequential(nn.Linear(5, 12), nn.BatchNorm1d(12), nn.ReLU(), nn.Linear(12, 3))
    before = {name: value.clone() for name, value in tensors_of(other).items()}
    with pytest.raises(RequestError, match=r"3\.weight is missing there and float32 \(3, 12\) in"):
        one.load(other)
    assert all(torch.equal(value, before[name]) for name, value in tensors_of(other).items())


@pytest.mark.parametrize("content", [b"", b"no safetensors", None])
def test_a_damaged_checkpoint_names_the_way_on(content: bytes | None) -> None:
    training = trained("night")
    one = training.checkpoint
    assert one is not None
    one.path.write_bytes(one.path.read_bytes()[:-7] if content is None else content)
    message = "9.safetensors cannot be read: .*: delete it to go on from the one before"
    with pytest.raises(TamperedError, match=message):
        one.load(flat())
    with pytest.raises(TamperedError, match=message):
        trained("night", resume=True, steps=12)
    one.path.unlink()
    assert trained("night", resume=True, steps=12).state == "done"


def test_a_checkpoint_without_our_header_is_refused(tmp_path: Path) -> None:
    save_file({"x": torch.ones(2)}, tmp_path / "000000001.safetensors")
    with pytest.raises(TamperedError, match=r"cannot be read: .*: delete it to go on from the"):
        list_checkpoints(tmp_path)


def test_a_newer_format_is_refused(tmp_path: Path) -> None:
    header = {"workbench": json.dumps({"format": 2, "step": 1})}
    save_file({"x": torch.ones(2)}, tmp_path / "000000001.safetensors", header)
    with pytest.raises(
        TamperedError, match=r"1\.safetensors has format 2, expected 1: use the workbench that wro"
    ):
        list_checkpoints(tmp_path)


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "cannot be read: .*: put it back, or train under another name"),
     ('{"format": 1}', "cannot be read: it has no state: put it back, or"),
     ('{"format": 2}', "has format 2, expected 1: use the workbench that wrote it")],
)  # fmt: skip
def test_a_record_that_cannot_be_read_is_refused(content: str, message: str) -> None:
    (trained("night").folder / "training.json").write_text(content)
    with pytest.raises(TamperedError, match=rf"training\.json {message}"):
        trained("night", resume=True)


# --- where it is kept


def test_a_full_disk_loses_nothing_that_was_saved(tmp_path: Path) -> None:
    assert outcome(start("images", tmp_path, "whole")) == 0
    story = meddle(tmp_path, "full", 10, fill_disk)
    assert (story["ended"], story["state"], story["steps"]) == ("quietly", "done", 33)
    last = story["checkpoints"][-1]
    assert last <= 10
    message = "a checkpoint could not be written to .*: File too large; that of step {} is the last"
    assert re.match(message.format(last), story["said"][0])
    assert outcome(start("images", tmp_path, "full")) == 0  # from there on, where there is room
    expected = left(tmp_path / "trainings" / "whole")
    assert left(tmp_path / "trainings" / "full") == expected
    assert bits(torch.tensor(story["weights"]["0.bias"])) == expected["model 0.bias"]


def test_the_best_is_written_when_there_is_room_again(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    told: list[Checkpoint] = []
    state = Snapshot({"model.w": torch.ones(1)}, {"step": 1, "epochs": []})
    checkpoints = Checkpoints(folder, 0.0, told.append)
    folder.touch()  # a file where the folder is to be
    checkpoints.save(state, best=state)
    with pytest.warns(UserWarning, match="a checkpoint could not be written"):
        checkpoints.close()
    folder.unlink()
    again = Checkpoints(folder, 0.0, told.append)
    again._owed = checkpoints._owed
    again.save(state)
    again.close()
    assert (folder / "best.safetensors").exists()
    assert [one.step for one in told] == [1]


def test_a_home_that_cannot_be_written_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "file"))
    with pytest.raises(
        RequestError, match=r"kept in .*file.trainings, which cannot be written: Not a directory: s"
    ):
        trained()


def test_an_error_of_the_users_own_is_not_taken_for_one_of_the_home() -> None:
    class Forbidden(nn.Linear):
        def forward(self, x: Tensor) -> Tensor:
            if self.training:
                raise PermissionError(13, "mine")
            return super().forward(x)

    with pytest.raises(PermissionError, match="mine"):
        trained(model=Forbidden(5, 3))


def test_a_training_is_kept_in_its_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    outside = trained("night")
    assert outside.folder == home() / "trainings" / "night"
    monkeypatch.setenv("WORKBENCH_RUN", str(tmp_path / "run"))
    (tmp_path / "run").mkdir()
    inside = trained("night")  # the same name is another training there
    assert inside.folder == tmp_path / "run" / "trainings" / "night"


@pytest.mark.parametrize("name", ["", "a/b", "..", ".x", "n" * 101, "a b", 3])
def test_a_name_that_cannot_be_is_refused(name: Any) -> None:
    with pytest.raises(RequestError, match=r"name of a training is .*, expected at most 100 lett"):
        trained(name)


def test_two_processes_cannot_train_under_one_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def resumed() -> Training:
        model, data, how = CASES["parts"]()
        return fit(model, data, name="night", resume=True, checkpoint_every=0, **how)

    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    process = start("parts", tmp_path, "night", pace=0.05)
    wait_for_checkpoint(tmp_path, "night")
    with pytest.raises(RequestError, match="'night' is running, here or in another process: wait"):
        resumed()
    process.kill()
    assert outcome(process) == -signal.SIGKILL
    assert resumed().state == "done"


def test_nor_can_one_process_twice() -> None:
    def again(training: Training, step: int) -> None:
        warnings.simplefilter("ignore")  # within a training, torch has its number of threads
        with pytest.raises(RequestError, match="'night' is running, here or in another process"):
            trained("night", resume=True)

    trained("night", steps=1, callbacks=[Each(again)])


# --- going on, or not


def test_a_killed_training_is_called_so(tmp_path: Path) -> None:
    trained("night")
    record = home() / "trainings" / "night" / "training.json"
    write_json(record, {**read_json(record), "state": "running"})
    with pytest.raises(RequestError, match="training 'night' already, killed: pass resume=True"):
        trained("night")


def test_an_existing_name_must_be_resumed() -> None:
    trained("night")
    with pytest.raises(
        RequestError, match="there is a training 'night' already, done: pass resume=True to go on"
    ):
        trained("night")


def test_a_name_that_is_new_may_be_resumed() -> None:
    assert trained("night", resume=True).state == "done"


@pytest.mark.parametrize(
    ("other", "message"),
    [({"lr": 0.1}, r"begun with lr=0\.001, now it would be 0\.1: pass what it had, or take anot"),
     ({"optimizer": "sgd"}, "begun with optimizer='adamw', now it would be 'sgd'"),
     ({"average": "ema"}, r"begun with average='', now it would be 'EMA\(decay=0\.999\)'"),
     ({"seed": 1}, "begun with seed=0, now it would be 1"),
     ({"batch_size": 9}, "begun with batch_size=8, now it would be 9|steps_per_epoch"),
     ({"model": nn.Sequential(nn.Linear(5, 3))}, r"of another model: 0\.weight is float32 \(12,")],
)  # fmt: skip
def test_other_settings_are_named(other: dict[str, Any], message: str) -> None:
    trained("night")
    with pytest.raises(RequestError, match=message):
        trained("night", resume=True, **other)
    assert trained("night", resume=True).state == "done"  # nothing was harmed


def test_a_schedule_of_another_course_is_refused() -> None:
    def course(progress: float) -> float:
        return 1 - progress

    trained("night", schedule=course, callbacks=[stop_at(5)])

    def course(progress: float) -> float:  # type: ignore[no-redef]  # of the same name
        return 1 - progress / 2

    with pytest.raises(
        RequestError, match=r"by another schedule: the rate of step 2 was .* and would be .*: pass"
    ):
        trained("night", resume=True, schedule=course)


def test_a_smaller_budget_is_refused_and_a_larger_one_extends() -> None:
    trained("night", steps=9)
    with pytest.raises(
        RequestError, match="a budget of 5 steps is less than the training was begun with, 9 steps"
    ):
        trained("night", resume=True, steps=5)
    count = Each()
    training = trained("night", resume=True, steps=14, callbacks=[count])
    assert (count.taken, len(training.history), training.state) == (5, 14, "done")
    assert [phase.steps for phase in training.settings.phases] == [9, 5]


def test_what_is_finished_returns_at_once() -> None:
    first, model, count = flat(), flat(), Each()
    training = trained("night", model=first)
    again = trained("night", model=model, resume=True, callbacks=[count])
    assert count.taken == 0
    assert again.state == "done"
    assert (again.history, again.settings) == (training.history, training.settings)
    for name, value in tensors_of(first).items():
        assert torch.equal(tensors_of(model)[name], value), name


@pytest.mark.parametrize(
    ("key", "before"),
    [("torch", "1.13.1"), ("threads", 64), ("instruction_set", "AVX2"), ("processor", "Z80")],
)
def test_a_changed_environment_is_said(key: str, before: Any) -> None:
    training = trained("night", callbacks=[stop_at(4)])
    record = read_json(training.folder / "training.json")
    now = record["environment"][key]
    record["environment"][key] = before
    write_json(training.folder / "training.json", record)
    told = re.escape(f": {key} {before}, now {now}. Its numbers from here on may not be those")
    with pytest.warns(UserWarning, match=f"'night' goes on where something has changed .*{told}"):
        trained("night", resume=True)


def test_changed_data_is_said() -> None:
    trained("night", callbacks=[stop_at(4)])
    data = points()
    X, y = data.train.inputs, data.train.targets
    other = dataset("points", train=(X + 1, y))
    before, now = data.fingerprint[:12], other.fingerprint[:12]
    with pytest.warns(UserWarning, match=f"goes on where .*: data {before}, now {now}. Its numb"):
        trained("night", resume=True, data=other)


def wait_for_checkpoint(folder: Path, name: str) -> None:
    end = time.monotonic() + 30
    while not list_checkpoints(folder / "trainings" / name / "checkpoints"):
        assert time.monotonic() < end
        time.sleep(0.01)
