"""How a training ends, what its record says of it, and what it frees."""

from __future__ import annotations

import gc
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor, nn
from trainings import (
    Each,
    left,
    meddle,
    outcome,
    points,
    press_ctrl_c,
    press_ctrl_c_twice,
    start,
    stop_at,
    trained,
)

from workbench.errors import DivergedError
from workbench.home import home, read_json
from workbench.training import Training, fit
from workbench.training.checkpoints import list_checkpoints, read_checkpoint

pytestmark = pytest.mark.usefixtures("often")


def test_the_record_says_how_it_ended() -> None:
    assert state_of(trained("done")) == "done"
    assert state_of(trained("stopped", callbacks=[stop_at(4)])) == "stopped"

    def raises(training: Training, step: int) -> None:
        assert state_of(training) == "running"
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        trained("failed", callbacks=[Each(raises)])
    assert read_json(home() / "trainings" / "failed" / "training.json")["state"] == "failed"


def test_ctrl_c_finishes_the_step_and_keeps_it(tmp_path: Path) -> None:
    assert outcome(start("images", tmp_path, "whole")) == 0
    story = meddle(tmp_path, "night", 9, press_ctrl_c)
    assert (story["ended"], story["state"]) == ("by KeyboardInterrupt", "interrupted")
    assert (story["steps"], story["checkpoints"][-1]) == (9, 9)
    assert read_json(tmp_path / "trainings" / "night" / "training.json")["state"] == "interrupted"
    assert outcome(start("images", tmp_path, "night")) == 0
    assert left(tmp_path / "trainings" / "night") == left(tmp_path / "trainings" / "whole")


def test_ctrl_c_at_the_last_step_loses_no_row(tmp_path: Path) -> None:
    assert outcome(start("images", tmp_path, "whole")) == 0
    assert meddle(tmp_path, "night", 33, press_ctrl_c)["ended"] == "by KeyboardInterrupt"
    assert outcome(start("images", tmp_path, "night")) == 0
    assert left(tmp_path / "trainings" / "night") == left(tmp_path / "trainings" / "whole")


def test_a_second_ctrl_c_raises_at_once(tmp_path: Path) -> None:
    assert outcome(start("images", tmp_path, "whole")) == 0
    story = meddle(tmp_path, "night", 9, press_ctrl_c_twice)
    assert (story["ended"], story["state"]) == ("by KeyboardInterrupt", "interrupted")
    assert outcome(start("images", tmp_path, "night")) == 0
    assert left(tmp_path / "trainings" / "night") == left(tmp_path / "trainings" / "whole")


# --- after an error


class Watched(nn.Linear):
    """Keeps a weak reference to what it answered; at a step, does something else."""

    def __init__(self, fail: Callable[[], None]) -> None:
        super().__init__(5, 3)
        self.answers: list[weakref.ref[Tensor]] = []
        self._fail = fail

    def forward(self, x: Tensor) -> Tensor:
        answer = super().forward(x)
        if self.training:
            self.answers.append(weakref.ref(answer))
            if len(self.answers) == 5:
                self._fail()
        return answer


def divide_by_zero() -> None:
    raise ZeroDivisionError


@pytest.mark.parametrize(
    ("fail", "how", "error"),
    [(divide_by_zero, {}, ZeroDivisionError), (press_ctrl_c, {}, KeyboardInterrupt),
     (press_ctrl_c_twice, {}, KeyboardInterrupt),
     (lambda: None, {"lr": 1e30, "optimizer": "sgd"}, DivergedError)],
)  # fmt: skip
def test_no_tensor_stays_pinned_by_a_traceback(
    fail: Callable[[], None], how: dict[str, Any], error: type[BaseException]
) -> None:
    cell: dict[str, Any] = {"fit": fit, "model": Watched(fail), "data": points(), "how": how}
    answers = cell["model"].answers
    alive, rows = weakref.ref(cell["model"]), weakref.ref(cell["data"].train.inputs)
    with pytest.raises(error) as caught:
        exec("fit(model, data, batch_size=8, steps=9, **how)", cell)
    cell.clear()
    gc.collect()
    assert caught.value.__traceback__ is not None  # a kernel keeps the last one
    assert len(answers) >= 2
    assert [one for one in answers if one() is not None] == []
    assert (alive(), rows()) == (None, None)


def test_a_divergence_keeps_the_last_good_checkpoint() -> None:
    """The weights are no numbers after a step whose loss still was one."""
    harmful = threading.Event()

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        value = nn.functional.cross_entropy(outputs, targets)
        return value + (0 * outputs.sum()).sqrt() if harmful.is_set() else value  # its slope is NaN

    def harm(training: Training, step: int) -> None:
        time.sleep(0.02)  # so that a checkpoint is due after each step
        if step == 8:
            harmful.set()

    with pytest.raises(
        DivergedError,
        match=r"the loss is nan at step 9 of 30 with a learning rate of .*: try a smaller lr, for "
        r".* The last good checkpoint is of step [1-8], .*safetensors\. The model is as it was",
    ):
        trained("night", steps=30, loss=loss, callbacks=[Each(harm)])
    for one in list_checkpoints(home() / "trainings" / "night" / "checkpoints"):
        assert read_checkpoint(one.path).tensors["model.0.weight"].isfinite().all()


def state_of(training: Training) -> str:
    return str(read_json(training.folder / "training.json")["state"])
