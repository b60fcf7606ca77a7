"""`verify`: identical where it is, and where it is not, the first that differs and why."""

from __future__ import annotations

import json
import platform
from pathlib import Path

import pytest
from typer.testing import CliRunner
from writing import write_notebook

from workbench.cli import app
from workbench.errors import (
    RequestError,
    RunEnvironmentError,
    RunError,
    RunInterruptedError,
    TamperedError,
)
from workbench.home import home
from workbench.machines import processor
from workbench.registry import list_models
from workbench.runs import Run, execute, verify
from workbench.runs.envelopes import make_envelope
from workbench.runs.verification import kept_verdict
from workbench.widgets.run_details import details

TRAIN = """\
import os, torch
import workbench as wb
x = torch.linspace(-1, 1, 64)[:, None]
data = wb.dataset("points", train=(x, 3 * x + 1), validation=8)
model = wb.build("linear", data, seed=seed)
training = wb.fit(model, data, steps=30, batch_size=16)"""
DONE = 'wb.record("loss", wb.evaluate(model, data.train).loss)\nwb.publish(model, "points").ref'


def test_a_run_that_repeats_itself_is_identical(tmp_path: Path, warm: str | None) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "# Learn", TRAIN, DONE, parameters="seed = 0")
    first, second = (execute(notebook, {"seed": 3}, warm=warm) for _ in range(2))
    before = [made.ref for made in list_models()]
    found = verify(second)
    assert (found.verdict, found.changed, found.differences) == ("identical", [], [])
    assert (found.trainings, found.metrics, found.outputs) == (1, 1, 3)
    assert repr(found) == (
        f"Run {second.id}: identical (1 training bit for bit, 1 metric, the outputs of 3 cells)"
    )
    kept = json.loads((second.folder / "verification.json").read_text())
    assert (kept["verdict"], kept["differences"]) == ("identical", [])
    assert [made.ref for made in list_models()] == before == ["points@1", "points@2"]
    assert first.metrics == second.metrics
    assert not list(home().glob("runs/*/trainings/02*"))


CHANCE = "wb.record('chance', int.from_bytes(os.urandom(4), 'big'))"


@pytest.mark.usefixtures("forked")
def test_the_first_training_metric_and_output_that_differ_are_named(
    tmp_path: Path, warm: str | None
) -> None:
    """Where a figure comes from the system's own random numbers, no seed repeats it."""
    spoilt = TRAIN.replace("steps=30", "steps=30, callbacks=[Spoil()]")
    spoil = (
        "import workbench as wb, os, torch\nclass Spoil(wb.Callback):\n"
        "    def on_step(self, training, step):\n        if step == 11:\n"
        "            next(model.parameters()).data += torch.tensor(float(os.urandom(1)[0] + 1))"
    )
    show = "print('same')\nprint(int.from_bytes(os.urandom(4), 'big'))"
    cells = ["# Learn", spoil, spoilt, CHANCE, "# Show", show]
    run = execute(
        write_notebook(tmp_path / "a.ipynb", *cells, parameters="seed = 0"), {}, warm=warm
    )
    found = verify(run)
    assert [(d.what, d.name, d.cell) for d in found.differences] == [
        *[("training", "01-linear", 3), ("metric", "chance", 4), ("output", "Show", 5)]
    ]
    assert found.differences[0].text.startswith("the loss of step 12 was ")
    assert "stdout, line 2: " in found.differences[2].text
    assert "no recorded fact has changed" in repr(found)


@pytest.mark.usefixtures("forked")
def test_a_metric_within_its_tolerance_is_the_same(tmp_path: Path, warm: str | None) -> None:
    cell = "import os\nfrom workbench.journal import record\nx = os.urandom(1)[0] / 256"
    rest = "record('loose', x, tolerance=1.0)\nrecord('tight', x, tolerance=0)"
    run = execute(write_notebook(tmp_path / "a.ipynb", cell, rest), {}, warm=warm)
    found = verify(run)
    assert [(d.what, d.name) for d in found.differences] in ([("metric", "tight")], [])
    if found.differences:
        assert "more than its tolerance of 0 apart" in found.differences[0].text


@pytest.mark.usefixtures("forked")
def test_what_has_changed_since_is_told(tmp_path: Path, warm: str | None) -> None:
    (tmp_path / "mine.py").write_text("x = 1\n")
    cell = "from mine import x\nfrom workbench.journal import note, record\nrecord('x', x)"
    data = "note('load', dataset='d', fingerprint=str(x))"
    run = execute(write_notebook(tmp_path / "a.ipynb", f"{cell}\n{data}"), {}, warm=warm)
    (tmp_path / "mine.py").write_text("x = 2  # longer\n")
    found = verify(run)
    assert [(d.what, d.text) for d in found.differences] == [("metric", "was 1, now 2")]
    assert found.changed[0] == "data d 1, now 2"
    assert [line.split(" ")[:2] for line in found.changed[1:]] == [
        ["module", str(tmp_path / "mine.py")]
    ]
    said = CliRunner().invoke(app, ["verify", run.id])
    assert isinstance(said.exception, RunError)
    assert said.exception.exit_code == 1
    assert "changed since:\n  data d 1, now 2" in said.stdout


@pytest.mark.usefixtures("forked")
def test_a_run_that_fails_the_second_time_says_where(tmp_path: Path, warm: str | None) -> None:
    (tmp_path / "there.txt").write_text("1")
    run = execute(write_notebook(tmp_path / "a.ipynb", "open('there.txt').close()"), {}, warm=warm)
    (tmp_path / "there.txt").unlink()
    found = verify(run)
    assert (found.differences[0].what, found.differences[0].name) == ("run", "failed")
    assert "FileNotFoundError" in found.differences[0].text


@pytest.mark.usefixtures("forked")
def test_an_interruption_or_a_dead_kernel_disproves_nothing(
    tmp_path: Path, warm: str | None
) -> None:
    (tmp_path / "how.txt").write_text("pass")
    cell = "import os\nexec(open('how.txt').read())"
    run = execute(write_notebook(tmp_path / "a.ipynb", cell), {}, warm=warm)
    for how, error in (
        ("raise KeyboardInterrupt", RunInterruptedError),
        ("os._exit(1)", RunEnvironmentError),
    ):
        (tmp_path / "how.txt").write_text(how)
        with pytest.raises(error):
            verify(run)
    assert not (run.folder / "verification.json").exists()


@pytest.mark.usefixtures("forked")
def test_a_run_that_published_beside_another_is_identical(tmp_path: Path, warm: str | None) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", TRAIN, DONE, parameters="seed = 0")
    run = execute(notebook, {}, warm=warm)
    record = run.folder / "run.json"
    said = json.loads(record.read_text())
    started, said["started"] = said["started"], "2020"
    record.write_text(json.dumps(said))
    assert run.published == ["points@1"]
    second = execute(notebook, {}, warm=warm)
    record = second.folder / "run.json"
    record.write_text(record.read_text().replace(second.record["started"], started))
    assert verify(Run.read(second.folder)).verdict == "identical"


@pytest.mark.usefixtures("forked")
def test_only_what_is_done_and_untouched_can_be_verified(tmp_path: Path, warm: str | None) -> None:
    with pytest.raises(RunError):
        execute(write_notebook(tmp_path / "a.ipynb", "1 / 0"), {}, out=tmp_path / "bad", warm=warm)
    with pytest.raises(RequestError, match="is failed, and only a run that is done can be verifie"):
        verify(Run.read(tmp_path / "bad"))
    run = execute(write_notebook(tmp_path / "b.ipynb", "print(1)"), {}, warm=warm)
    run.notebook.write_text(run.notebook.read_text().replace("print(1)", "print(2)"))
    with pytest.raises(TamperedError, match=r"the run wrote .*: it was changed or damaged"):
        verify(run)


@pytest.mark.skipif(platform.machine() != "x86_64", reason="it is for x86 alone")
def test_on_how_many_processors_it_was_verified_is_said(
    tmp_path: Path, warm: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "print(1)")
    run = execute(notebook, {}, envelope=make_envelope("any-x86"), warm=warm)
    assert repr(verify(run)).endswith(f"\n  verified on one alone, {processor()}")
    monkeypatch.setattr("workbench.runs.environment.processor", lambda: "Another")
    assert f"\n  verified on two processors, {processor()} and Another\n" in repr(verify(run))
    assert json.loads((run.folder / "verification.json").read_text())["processor"] == "Another"


def test_a_verdict_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    run = execute(write_notebook(tmp_path / "a.ipynb", "# Count", "1 + 1"), {})
    path = run.folder / "verification.json"
    for text, said in (
        ("{", r"verification\.json cannot be read: .*: `workbench verify .*` writes it anew"),
        ('{"format": 1}', "cannot be read: KeyError"),
        ("[]", "cannot be read: TypeError"),
        ('{"format": 2}', r"has format 2, expected 1: use the workbench that wrote it"),
    ):
        path.write_text(text)
        with pytest.raises(TamperedError, match=said) as caught:
            kept_verdict(run)
        shown = details(run)
        assert shown["trouble"] == str(caught.value)
        assert shown["verification"] == {"verdict": "", "told": []}
