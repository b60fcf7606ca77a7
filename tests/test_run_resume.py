"""Runs that did not come to their end go on, and come to the same numbers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from test_runs_command import begun, command
from writing import write_notebook

from workbench.errors import RequestError, RunError, RunInterruptedError
from workbench.registry import list_models
from workbench.runs import Run, execute, execution, list_runs, verify
from workbench.runs.execution import went_on, work
from workbench.runs.queueing import queue
from workbench.training.recorded import RecordedTraining

SETUP = """\
import os, signal, torch
import workbench as wb
x = torch.linspace(-1, 1, 64)[:, None]
data = wb.dataset("points", train=(x, 3 * x + 1), validation=8)
class Stop(wb.Callback):
    def on_step(self, training, step):
        if step == stop_at and not os.environ["WORKBENCH_RESUMED"] == "1":
            os.kill(os.getpid(), how)"""
FIRST = """\
first = wb.build("linear", data, seed=seed)
wb.fit(first, data, steps=20)
wb.publish(first, "first").ref"""
SECOND = """\
model = wb.build("mlp", data, hidden=(8,), seed=seed)
calls = [Stop(), wb.RecordEpochs("validation_loss")]
training = wb.fit(model, data, steps=60, batch_size=8, checkpoint_every=0, callbacks=calls)
wb.record("before", wb.evaluate(model, data.validation).loss)
training.extend(steps=20)"""
LAST = 'wb.record("loss", wb.evaluate(model, data.train).loss)\nwb.publish(model, "second").ref'


def story(folder: Path, **parameters: object) -> Path:
    lines = {"seed": 0, "stop_at": 0, "how": int(signal.SIGKILL), **parameters}
    text = "\n".join(f"{name} = {value!r}" for name, value in lines.items())
    return write_notebook(folder / "story.ipynb", SETUP, FIRST, SECOND, LAST, parameters=text)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, warm: str | None) -> Any:
    """What comes out where nothing happens: metrics, curve, and the states of the trainings."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(folder / "home"))
        done = execute(story(folder), {}, out=folder / "out", warm=warm)
    return outcome(done)


def outcome(run: Run) -> Any:
    folders = sorted((run.folder / "trainings").iterdir())
    histories = [RecordedTraining.read(folder).history for folder in folders]
    curve = [json.loads(line) for line in (run.folder / "metrics.jsonl").read_text().splitlines()]
    steps = {(line["name"], line.get("step")): line["value"] for line in curve}
    return run.metrics, sorted(steps.items(), key=str), [h.steps for h in histories]


@pytest.mark.parametrize("stop_at", [30, 70])
def test_a_killed_kernel_leaves_a_run_that_goes_on_to_the_same(
    tmp_path: Path, warm: str | None, whole: Any, stop_at: int
) -> None:
    with pytest.raises(RunError, match="killed by signal 9"):
        execute(story(tmp_path, stop_at=stop_at), {}, out=tmp_path / "out", warm=warm)
    assert [made.ref for made in list_models()] == ["first@1"]
    done = work(tmp_path / "out", warm=warm)
    assert outcome(done) == whole
    assert done.published == ["first@1", "second@1"]
    assert [made.ref for made in list_models()] == ["first@1", "second@1"]
    said = went_on(tmp_path / "out")
    assert "training 01-linear was finished\nfirst@1 was published already\n" in said
    assert "training 02-mlp went on from step " in said or "training 02-mlp was finished" in said
    (attempt,) = done.record["attempts"]
    assert attempt["state"] == "killed"
    kept = {path.name for path in (tmp_path / "out" / "attempts" / "1").iterdir()}
    assert {"notebook.ipynb", "metrics.jsonl", "events.jsonl"} <= kept


def test_a_training_that_is_interrupted_goes_on_from_its_last_step(
    tmp_path: Path, warm: str | None, whole: Any
) -> None:
    notebook = story(tmp_path, stop_at=33, how=int(signal.SIGINT))
    with pytest.raises(RunInterruptedError, match="interrupted in cell 4 of 5"):
        execute(notebook, {}, out=tmp_path / "out", warm=warm)
    assert outcome(work(tmp_path / "out", warm=warm)) == whole
    assert "training 02-mlp went on from step 33 of 60" in went_on(tmp_path / "out")


def test_a_run_that_was_killed_itself_goes_on(tmp_path: Path, warm: str | None) -> None:
    cell = "from workbench.journal import record\nrecord('begun', 1)\nimport os, time"
    rest = "time.sleep(60 * (os.environ['WORKBENCH_RESUMED'] == '0'))\nrecord('end', 2)"
    notebook = write_notebook(tmp_path / "a.ipynb", f"{cell}\n{rest}")
    process = command("run", notebook, "--out", tmp_path / "out")
    begun(tmp_path / "out")
    process.kill()
    process.communicate()
    assert Run.read(tmp_path / "out").state == "killed"
    assert work(tmp_path / "out", warm=warm).metrics == {"begun": 1, "end": 2}


CURVE = """\
import os, torch
import workbench as wb
from workbench.journal import record
x = torch.linspace(-1, 1, 32)[:, None]
data = wb.dataset("points", train=(x, x), validation=8)
calls = [wb.RecordEpochs("loss")]
wb.fit(wb.build("linear", data), data, epochs=3, callbacks=calls, lr=lr)
new = os.environ["WORKBENCH_RESUMED"]
record("old" if new == "0" else "new", 1, step=1)
if new == "0": os._exit(1)"""


def test_curves_of_trainings_survive_a_kill_anywhere_and_others_are_told_anew(
    tmp_path: Path, warm: str | None
) -> None:
    waits = queue(write_notebook(tmp_path / "a.ipynb", CURVE, parameters="lr = 0.01"), {})
    with pytest.raises(RunError):
        work(waits.folder, warm=warm)
    assert execution._put_aside(waits.folder) == 1  # and here it was killed
    done = work(waits.folder, warm=warm)
    assert done.metrics.keys() == {"loss", "new"}
    lines = map(json.loads, (waits.folder / "metrics.jsonl").read_text().splitlines())
    assert [line["step"] for line in lines if line["name"] == "loss"] == [1, 2, 3]


def test_an_edited_training_starts_anew_and_the_record_tells_of_the_edited_notebook(
    tmp_path: Path, warm: str | None
) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", CURVE, parameters="lr = 0.01")
    waits = queue(notebook, {})
    with pytest.raises(RunError):
        work(waits.folder, warm=warm)
    write_notebook(notebook, CURVE, parameters="lr = 0.02\nseed = 3")
    done = work(waits.folder, warm=warm, edited=True)
    assert (done.parameters, done.record["seed"]) == ({"lr": 0.02, "seed": 3}, 3)
    assert RecordedTraining.read(done.folder / "trainings" / "01-linear").settings.lr == 0.02
    assert "training 01-linear" not in went_on(done.folder)


TWICE = """\
import os, torch
import workbench as wb
x = torch.linspace(-1, 1, 32)[:, None]
data = wb.dataset("points", train=(x, x), validation=8)
model = wb.build("linear", data)
wb.record("first", len(wb.fit(model, data, name="a", **{budgets[0]}).history))
wb.record("second", len(wb.fit(model, data, name="a", resume=True, **{budgets[1]}).history))
if not os.path.exists("died"): open("died", "w").close(); os._exit(1)"""


@pytest.mark.usefixtures("forked")
@pytest.mark.parametrize(
    "budgets", [({}, {"epochs": 12}), ({"minutes": 0.005}, {"minutes": 0.01}), ({"steps": 3}, {})]
)
def test_several_fits_of_one_name_are_each_taken_up_and_verified(
    tmp_path: Path, warm: str | None, budgets: Any
) -> None:
    cell = TWICE.replace("{budgets[0]}", repr(budgets[0])).replace("{budgets[1]}", repr(budgets[1]))
    notebook = write_notebook(tmp_path / "a.ipynb", cell)
    with pytest.raises(RunError):
        execute(notebook, {}, out=tmp_path / "out", warm=warm)
    before = Run.read(tmp_path / "out").metrics
    done = work(tmp_path / "out", warm=warm)
    assert done.metrics == before
    assert verify(done).verdict == "identical"


def test_a_version_is_published_again_where_it_would_say_otherwise(
    tmp_path: Path, warm: str | None
) -> None:
    cell = (
        "import os, torch\nimport workbench as wb\nx = torch.linspace(-1, 1, 32)[:, None]\n"
        "data = wb.dataset('points', train=(x, x), validation=8)\n"
        "model = wb.build('linear', data)\nwb.fit(model, data, steps=3)\n"
        "evaluation = wb.evaluate(model, data.train)\n"
        "wb.publish(model, 'm')\nif os.environ['WORKBENCH_RESUMED'] == '0': os._exit(1)"
    )
    notebook = write_notebook(tmp_path / "a.ipynb", cell)
    with pytest.raises(RunError):
        execute(notebook, {}, out=tmp_path / "out", warm=warm)
    write_notebook(notebook, cell.replace("(model, 'm')", "(model, 'm', evaluation=evaluation)"))
    done = work(tmp_path / "out", warm=warm, edited=True)
    assert (done.published, "loss" in done.versions[0].metrics) == (["m@2"], True)


def test_a_run_executes_its_own_copy_unless_the_edited_one_is_asked_for(
    tmp_path: Path, warm: str | None
) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "print(n)\n1 / 0", parameters="n = 1")
    with pytest.raises(RunError):
        execute(notebook, {"n": 5}, out=tmp_path / "out", warm=warm)
    before = Run.read(tmp_path / "out")
    write_notebook(notebook, "print(n, 'mended')", parameters="n = 1")
    assert (before.is_behind, before.state) == (True, "failed")
    with pytest.raises(RunError, match="ZeroDivisionError"):
        work(tmp_path / "out", warm=warm)
    done = work(tmp_path / "out", warm=warm, edited=True)
    cells = nbformat.read(done.notebook, as_version=4).cells
    assert cells[-1].outputs[0].text == "5 mended\n"
    assert (len(done.record["attempts"]), Run.read(done.folder).is_behind) == (2, False)


def test_a_run_that_waits_begins_and_one_that_is_done_has_nothing_left(
    tmp_path: Path, warm: str | None
) -> None:
    waits = queue(write_notebook(tmp_path / "a.ipynb", "print(1)"), {})
    assert (waits.state, list_runs()["last"].state) == ("queued", "queued")
    assert work(waits.folder, warm=warm).record["attempts"] == []
    with pytest.raises(RequestError, match=f"run {waits.id} is done: there is nothing to resume"):
        work(waits.folder)


def test_what_a_run_lacks_is_said_before_anything_starts(tmp_path: Path) -> None:
    waits = queue(write_notebook(tmp_path / "in" / "a.ipynb", "print(1)"), {})
    (tmp_path / "in" / "a.ipynb").unlink()
    (tmp_path / "in").rmdir()
    with pytest.raises(RequestError, match=r"works in .*in, which is gone: put the folder back"):
        work(waits.folder)
    secret = write_notebook(tmp_path / "b.ipynb", "1", parameters='my_token: str = ""')
    waits = queue(secret, {"my_token": "abcdefgh"})
    assert "WORKBENCH_PARAMETER_MY_TOKEN" not in os.environ
    with pytest.raises(RequestError, match=r"'my_token' is a secret.*WORKBENCH_PARAMETER_MY_TOKEN"):
        work(waits.folder)
    record = json.loads((waits.folder / "run.json").read_text())
    del record["envelope"]
    (waits.folder / "run.json").write_text(json.dumps(record))
    with pytest.raises(RequestError, match=r"made by an older workbench.*run .*b.ipynb anew"):
        work(waits.folder)


def test_two_processes_never_execute_one_run(tmp_path: Path) -> None:
    from workbench.runs.records import run_lock

    waits = queue(write_notebook(tmp_path / "a.ipynb", "print(1)"), {})
    with run_lock(waits.folder), pytest.raises(RequestError, match="is running, here or in anothe"):
        work(waits.folder)


@pytest.mark.full
def test_a_storm_of_kills(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "interruptions.py"
    subprocess.run([sys.executable, str(script), f"--out={tmp_path}"], check=True, timeout=3600)
    report = json.loads((tmp_path / "interruptions.json").read_text())
    assert sum(len(one["kills"]) for one in report["found"]) >= 60
    assert [one for one in report["found"] if one["differences"]] == []
