"""What the training view tells the page, and what it leaves in a notebook, without a browser."""

from __future__ import annotations

import base64
import io
import json
import math
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from kernels import Kernel
from PIL import Image
from waiting import once

from workbench import dataset, fit, load
from workbench.models import build
from workbench.training import History, Training
from workbench.widgets import TrainingView, still
from workbench.widgets.curves import Curve, Rows
from workbench.widgets.pump import follow

LENGTHS = st.lists(st.integers(0, 60), min_size=1, max_size=8).map(sorted)


@given(LENGTHS, st.integers(1, 9))
def test_a_curve_comes_to_the_same_in_parts(lengths: list[int], most: int) -> None:
    """The page that follows what is told has what one look at the whole would show."""
    values = np.sin(np.arange(60.0)).tolist()
    curve, page = Curve(most), np.empty((0, 3))
    for n in lengths:
        first = curve.update(values, n)
        page = np.concatenate([page[:first], curve.table[first:]])
    assert len(page) <= most
    parts = [values[i : min(i + curve.bucket, n)] for i in range(0, n, curve.bucket)]
    expected = [[min(p), sum(p) / len(p), max(p)] for p in parts]
    assert np.allclose(page, np.array(expected).reshape(-1, 3), atol=1e-6)


@given(LENGTHS, st.integers(1, 9))
def test_rows_come_to_the_same_in_parts(lengths: list[int], most: int) -> None:
    history = [{"epoch": float(i)} for i in range(1, 61)]
    rows = Rows(most)
    page: list[Mapping[str, float]] = []
    for n in lengths:
        first = rows.update(history, n)
        page = [*page[:first], *rows.shown[first:]]
    assert page == rows.shown
    assert len(page) <= most + 1
    assert page[-1:] == history[max(0, n - 1) : n]


def test_a_curve_that_shrank_starts_anew() -> None:
    curve = Curve(4)
    curve.update([1.0] * 40, 40)
    assert curve.update([2.0, 3.0], 2) == 0
    assert (curve.bucket, curve.table[:, 1].tolist()) == (1, [2.0, 3.0])


def test_an_outlier_and_a_gap_stay_visible() -> None:
    values = [1.0] * 100_000
    values[70_001], values[3] = 50.0, math.nan
    curve = Curve()
    curve.update(values, len(values))
    assert len(curve.table) <= 1000
    assert np.nanmax(curve.table[:, 2]) == 50
    assert np.isnan(curve.table[0]).all()


def trained(**how: Any) -> Training:
    X = np.random.default_rng(0).normal(size=(60, 3)).astype(np.float32)
    data = dataset("points", train=(X, (X[:, 0] > 0).astype(np.int64)), validation=20)
    return fit(build("mlp", data, hidden=(4,)), data, batch_size=10, **how)


class Page:
    """What a page does with messages: it keeps the newest of every bucket."""

    def __init__(self, view: TrainingView, monkeypatch: pytest.MonkeyPatch) -> None:
        self.messages: list[Any] = []
        self.count = 0
        monkeypatch.setattr(view, "send", lambda m, b: self.messages.append((m, b)))
        self.view = view

    def ask(self, **content: Any) -> Any:
        self.count += 1
        self.view._answer(None, {"asker": "one", "number": self.count, **content}, [])
        json.dumps([message for message, _ in self.messages], allow_nan=False)
        return self.messages[-1] if self.messages else None


def test_the_page_is_told_everything_when_it_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    training = trained(epochs=3)
    page = Page(TrainingView([training]), monkeypatch)
    message, buffers = page.ask(ask="all")
    (told,) = message["trainings"]
    assert (message["seq"], told["state"], told["step"], told["steps"]) == (0, "done", 12, 12)
    assert (told["epoch"], told["can"], told["left"]) == (3.0, [], None)
    assert [curve["name"] for curve in told["curves"]] == ["loss", "lr"]
    means = np.frombuffer(buffers[0], np.float32).reshape(-1, 3)[:, 1]
    assert np.allclose(means, training.history["loss"])
    assert told["rows"] == {"from": 0, "rows": training.history.epochs}
    best = min(training.history.epochs, key=lambda row: row["validation_loss"])
    assert told["best"]["step"] == best["step"]


def test_afterwards_it_is_told_what_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    training = trained(epochs=2)
    view = TrainingView([training])
    page = Page(view, monkeypatch)
    page.ask(ask="all")
    view.look()
    view.look()
    assert len(page.messages) <= 2  # nothing is new, so nothing more is told
    training.history.steps["loss"].append(0.5)
    view.look()
    message, (buffer,) = page.messages[-1]
    (told,) = message["trainings"]
    assert [(c["name"], c["from"]) for c in told["curves"]] == [("loss", 8)]
    assert np.frombuffer(buffer, np.float32).tolist() == [0.5, 0.5, 0.5]


def test_while_a_cell_waits_the_view_says_what_ends_it(monkeypatch: pytest.MonkeyPatch) -> None:
    training = trained(epochs=1)
    training.state, training.awaited = "running", True
    page = Page(TrainingView([training]), monkeypatch)
    told, _ = page.ask(ask="all")
    assert "■ ends the training and keeps it" in told["trainings"][0]["note"]
    training.state = "done"
    told, _ = page.ask(ask="all")
    assert told["trainings"][0]["note"] == ""


def test_figures_that_are_none_are_null(monkeypatch: pytest.MonkeyPatch) -> None:
    training = trained(epochs=1)
    training.history = History(
        {"loss": [1.0, math.nan], "lr": [0.1, 0.1]}, [{"epoch": 1, "step": 2, "loss": math.nan}]
    )
    message, _ = Page(TrainingView([training]), monkeypatch).ask(ask="all")
    assert message["trainings"][0]["rows"]["rows"] == [{"epoch": 1, "step": 2, "loss": None}]
    assert message["trainings"][0]["best"] is None


def test_what_cannot_be_done_is_said_in_the_view(monkeypatch: pytest.MonkeyPatch) -> None:
    training = trained(epochs=1)  # its model is gone by now
    view = TrainingView([training])
    page = Page(view, monkeypatch)
    page.ask(ask="all")
    page.ask(ask="extend", training=0, epochs="1")
    view.look()
    note = page.messages[-1][0]["trainings"][0]["note"]
    assert note.startswith("there is no model to go on with: keep that of training ")
    for epochs, said in {"0": "0", "-5": "-5", "": "nothing", "many": "many"}.items():
        page.ask(ask="extend", training=0, epochs=epochs)
        view.look()
        note = page.messages[-1][0]["trainings"][0]["note"]
        assert note == f"extend by {said}: expected more than 0 epochs"


def test_what_is_asked_again_is_done_once(monkeypatch: pytest.MonkeyPatch) -> None:
    training, _model = digits(epochs=1)
    page = Page(TrainingView([training]), monkeypatch)
    for _ in range(2):  # the first answer got lost
        page.ask(ask="extend", training=0, epochs="1", number=1)
        training.wait()
    assert len(training.history.epochs) == 2
    told, _ = page.ask(ask="all")
    assert told["answered"] == {"one": 1}


# --- going back


def asked(page: Page, seconds: float = 30, **content: Any) -> Any:
    """Let the page ask for something that takes a while; return how it stands afterwards."""
    heard = len(page.messages)
    page.ask(**content)
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        page.view.look()  # as the pump does too, at any time
        for message, _ in page.messages[heard:]:
            told = message["trainings"][content["training"]]["rewind"]
            if not told["doing"] and "found" in told:
                return told
        time.sleep(0.01)
    raise TimeoutError


def digits(**how: Any) -> tuple[Training, Any]:
    """Train on small images; the model comes with it, since nothing else holds it."""
    data = load("digits", validation=200)
    model = build("mlp", data, hidden=(16,))
    return fit(model, data, batch_size=32, **how), model


def test_the_page_is_told_where_it_can_go_back_to(monkeypatch: pytest.MonkeyPatch) -> None:
    training, model = digits(steps=40, lr=0.02)
    page = Page(TrainingView([training]), monkeypatch)
    (told,) = page.ask(ask="all")[0]["trainings"]
    assert told["rewind"] == {
        "first": 0, "kept": [0, 40], "lr": 0.02, "can": True, "doing": "", "done": 0, "of": 0,
        "problem": "", "called": "", "found": {},
    }  # fmt: skip
    del model
    (told,) = page.ask(ask="all")[0]["trainings"]
    assert told["rewind"]["can"] is False
    assert told["rewind"]["called"] == f"wb.list_trainings()[{training.name!r}]"


def test_the_page_is_told_what_the_weights_of_a_step_come_to(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training, _model = digits(epochs=2, average="ema")
    page = Page(TrainingView([training]), monkeypatch)
    row = training.history.epochs[0]
    found = asked(page, ask="weights", training=0, step=row["step"])["found"]
    held = {name: value for name, value in row.items() if name.startswith("validation_")}
    assert (found["kind"], found["figures"]) == ("weights", held)
    assert found["code"] == f"model = wb.list_trainings()[{training.name!r}].at({row['step']})"
    times = [message["trainings"][0]["rewind"].get("found") for message, _ in page.messages]
    assert times.count(found) == 1
    assert page.ask(ask="all")[0]["trainings"][0]["rewind"]["found"] == found


def test_the_page_is_shown_the_hardest_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    training, _model = digits(epochs=2)
    page = Page(TrainingView([training]), monkeypatch)
    found = asked(page, ask="blame", training=0, step=30)["found"]
    expected = training.blame(30, 10)
    assert (found["loss"], found["norm"]) == (expected.loss, expected.norm)
    assert [row["row"] for row in found["rows"]] == [str(r) for r in expected.hardest["row"]]
    content = base64.b64decode(found["rows"][0]["image"].removeprefix("data:image/png;base64,"))
    pixels = np.asarray(Image.open(io.BytesIO(content)), float) / 255
    assert expected.images is not None
    assert np.allclose(pixels, expected.images[0].numpy() / 16, atol=0.01)
    assert len(json.dumps(found)) < 10_000


def test_a_branch_joins_the_view_with_its_first_step(monkeypatch: pytest.MonkeyPatch) -> None:
    training, model = digits(epochs=2, name="night")
    page = Page(TrainingView([training]), monkeypatch)
    found = asked(page, ask="branch", training=0, step=30, lr=0.1)["found"]
    assert found["code"] == "branch = wb.list_trainings()['night-at-30']"
    first, second = page.ask(ask="all")[0]["trainings"]
    assert (first["name"], second["name"], second["state"]) == ("night", "night-at-30", "done")
    assert (second["rewind"]["first"], second["rewind"]["lr"]) == (30, 0.1)
    assert second["step"] == first["step"] == len(training.history)
    assert repr(page.view).count("\n") == 1
    assert model.training is False


def test_what_cannot_be_gone_back_to_is_said_there(monkeypatch: pytest.MonkeyPatch) -> None:
    training, _model = digits(steps=5)
    page = Page(TrainingView([training]), monkeypatch)
    told = asked(page, ask="branch", training=0, step=5)
    assert told["problem"].startswith("nothing is left to do after step 5, the last: give the")
    told = asked(page, ask="weights", training=0, step=2)
    assert (told["problem"], told["found"]["step"]) == ("", 2)
    told = asked(page, ask="branch", training=0, step=2, lr=-1)
    assert (told["problem"], told["found"]) == ("the learning rate is -1, expected more than 0", {})


def test_going_back_can_be_cancelled_and_one_thing_is_done_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    training, _model = digits(steps=2_000)
    view = TrainingView([training])
    page = Page(view, monkeypatch)
    page.ask(ask="all")
    for ask in ("weights", "blame"):
        page.ask(ask=ask, training=0, step=1_900)
    once(lambda: view.look() and page.messages[-1][0]["trainings"][0]["rewind"]["done"])
    told = page.messages[-1][0]["trainings"][0]["rewind"]
    assert (told["doing"], told["of"]) == ("weights", 1_900)
    told = asked(page, ask="cancel", training=0, step=1_900)
    assert (told["found"], told["problem"], told["doing"]) == ({}, "", "")
    assert view.look() is False  # the other thing was never begun


@pytest.mark.parametrize("n", [1, 2])
def test_a_picture_is_of_bounded_size(n: int) -> None:
    trainings = [trained(epochs=1) for _ in range(n)]
    for training in trainings:
        noise = np.random.default_rng(0).random(200_000).tolist()
        training.history.steps = {"loss": noise, "lr": noise}
    content = still(trainings)._repr_png_()
    assert Image.open(io.BytesIO(content)).size == (720, 256)
    assert len(content) < 60_000


def test_the_picture_of_a_regression_without_validation_is_its_loss_alone() -> None:
    line = load("line")
    training = fit(build("linear", line), line, epochs=2)
    assert [axes.get_ylabel() for axes in still([training]).axes] == ["loss"]


def test_a_view_that_fails_does_not_stop_the_others(caplog: pytest.LogCaptureFixture) -> None:
    looks: list[str] = []

    class One:
        def __init__(self, name: str, left: int) -> None:
            self.name, self.left = name, left

        def look(self) -> bool:
            looks.append(self.name)
            self.left -= 1
            if self.name == "bad" and self.left == 0:
                raise ZeroDivisionError
            return self.left > 0

    for view in (One("bad", 1), One("good", 4)):
        follow(view)
    for _ in range(100):
        time.sleep(0.05)
        if looks.count("good") == 4:
            break
    assert looks.count("good") == 4
    assert looks.count("bad") <= 2  # it rests
    assert "a view could not be brought up to date" in caplog.text


def test_a_view_that_failed_once_is_followed_on(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("workbench.widgets.pump._REST", (0.1, 0.1))
    looks: list[bool] = []

    class Shaky:
        def look(self) -> bool:
            looks.append(len(looks) == 1)
            if looks[-1]:
                raise OSError("the disk is not there")
            return len(looks) < 4

    follow(Shaky())
    once(lambda: len(looks) == 4)
    assert caplog.text.count("a view could not be brought up to date") == 1


@pytest.fixture(scope="module")
def kernel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Kernel]:
    place: Path = tmp_path_factory.mktemp("views")
    one = Kernel({"WORKBENCH_HEADLESS": None, "WORKBENCH_HOME": str(place)})
    one.run(
        "import workbench as wb\n"
        "data = wb.load('digits'); model = wb.build('mlp', data, hidden=(16,))"
    )
    yield one
    one.close()


def test_ten_thousand_steps_are_few_messages_and_a_small_notebook(kernel: Kernel) -> None:
    kernel.told()
    kernel.run("training = wb.fit(model, data, steps=10_000, batch_size=32)")
    kernel.run("training.wait()")
    told = kernel.told()
    messages = [m for m in told if m["msg_type"] == "comm_msg"]
    assert len(messages) <= 10 * kernel.value("training.seconds") + 10
    sizes = [sum(len(b) for b in m["buffers"]) for m in messages]
    assert max(sizes) <= 2 * 12 * 1000
    kept = [m["content"]["data"] for m in told if "display_id" in m["content"].get("transient", {})]
    assert len(base64.b64decode(kept[-1]["image/png"])) < 60_000
    assert "Training done: mlp on digits, 10,000 of 10,000 steps" in kept[-1]["text/plain"]
    assert len(json.dumps(kept[-1])) < 90_000


def test_show_replays_a_training_of_the_past(kernel: Kernel) -> None:
    kernel.run("training = wb.fit(model, data, epochs=2, name='past'); training.wait()")
    kernel.told()
    kernel.run("wb.list_trainings()['past'].show()")
    kept = [m["content"]["data"] for m in kernel.told() if m["msg_type"] == "display_data"]
    assert set(kept[0]) == {"application/vnd.jupyter.widget-view+json", "image/png", "text/plain"}
    assert kept[0]["text/plain"].startswith("past: Training done: mlp on digits")


def test_headless_show_is_a_picture() -> None:
    assert trained(epochs=1).show()._repr_png_()[:4] == b"\x89PNG"
