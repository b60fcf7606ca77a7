"""How a run can end, and what its record and its exit code then say."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import resource
from pathlib import Path
from typing import Any

import nbformat
import pytest
from writing import write_notebook

from workbench.errors import RequestError, RunEnvironmentError, RunError, RunInterruptedError
from workbench.runs import Run, execute, list_runs
from workbench.runs.envelopes import make_envelope
from workbench.runs.execution import work
from workbench.runs.queueing import Limits, queue, secret_variable


def test_a_time_limit_ends_a_run_in_the_cell_that_took_too_long(
    tmp_path: Path, warm: str | None
) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "print(1)", "import time; time.sleep(60)", "2")
    with pytest.raises(RunEnvironmentError, match=r"cell 2 of 3: TimeLimit: .* time_limit of 3 s"):
        execute(notebook, {}, out=tmp_path / "out", limits=Limits(seconds=3), warm=warm)
    late = Run.read(tmp_path / "out")
    assert (late.state, late.record["limits"]["seconds"]) == ("timed out", 3)
    assert [cell["state"] for cell in late.record["cells"]] == ["done", "timed out", "pending"]
    assert late.record["cells"][1]["error"].startswith("KeyboardInterrupt")
    assert 0 < late.record["cells"][1]["seconds"] < 10  # the first cell may have taken most


def test_a_memory_limit_ends_a_run_before_the_machine_suffers(
    tmp_path: Path, warm: str | None
) -> None:
    greedy = "import time\nheld = []\nwhile True:\n    held.append(bytearray(20_000_000))\n"
    notebook = write_notebook(tmp_path / "a.ipynb", f"{greedy}    time.sleep(0.01)")
    with pytest.raises(RunEnvironmentError, match=r"MemoryLimit: .* memory_limit of 0.8 GB: give"):
        execute(notebook, {}, out=tmp_path / "out", limits=Limits(memory_gb=0.8), warm=warm)
    dead = Run.read(tmp_path / "out")
    assert (dead.state, dead.record["cells"][0]["state"]) == ("killed", "killed")


@pytest.mark.parametrize("limits", [{"seconds": 0}, {"memory_gb": -1}, {"seconds": "long"}])
def test_limits_that_are_none_are_refused(limits: dict[str, Any]) -> None:
    with pytest.raises(RequestError, match=r"_limit is .*, expected a number above 0, or None"):
        Limits(**limits)


def test_a_cell_that_somebody_interrupts_is_interrupted(tmp_path: Path, warm: str | None) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "raise KeyboardInterrupt", "2")
    with pytest.raises(RunInterruptedError, match="interrupted in cell 1 of 2"):
        execute(notebook, {}, out=tmp_path / "out", warm=warm)
    found = Run.read(tmp_path / "out")
    assert (found.state, found.record["cells"][0]["state"]) == ("interrupted", "interrupted")


def test_a_cell_that_may_raise_is_done_and_says_what_it_raised(
    tmp_path: Path, warm: str | None
) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "1 / 0", "x = 1")
    document = nbformat.read(notebook, as_version=4)
    document.cells[0].metadata["tags"] = ["raises-exception"]
    nbformat.write(document, notebook)
    cells = execute(notebook, {}, warm=warm).record["cells"]
    assert [cell["state"] for cell in cells] == ["done", "done"]
    assert [cell["error"] for cell in cells] == ["ZeroDivisionError: division by zero", None]
    assert cells[0]["started"] < cells[1]["started"]


def test_a_flood_is_cut_and_the_notebook_stays_small(tmp_path: Path, warm: str | None) -> None:
    cells = ["for i in range(300):\n    print('x' * 10_000)", "print('after')"]
    found = execute(write_notebook(tmp_path / "a.ipynb", *cells), {}, warm=warm)
    flood, after = (cell.outputs for cell in nbformat.read(found.notebook, as_version=4).cells)
    assert len(flood[0].text) <= 1_000_000
    assert "beyond 1,000,000 characters" in flood[1].text
    assert after[0].text == "after\n"
    assert found.notebook.stat().st_size < 1_100_000


def test_the_state_of_widgets_is_kept_only_where_that_is_asked_for(
    tmp_path: Path, warm: str | None
) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "import ipywidgets\nipywidgets.IntSlider(3)")
    kept = [execute(notebook, {}, widgets=asked, warm=warm) for asked in (False, True)]
    metadata = [nbformat.read(run.notebook, as_version=4).metadata for run in kept]
    assert ["widgets" in found for found in metadata] == [False, True]


@pytest.mark.parametrize("secret", ["very-private", 'ab\\cd"ef', "qzqz"])
def test_secrets_are_kept_out_of_everything_a_run_leaves(
    tmp_path: Path, warm: str | None, monkeypatch: pytest.MonkeyPatch, secret: str
) -> None:
    monkeypatch.setenv("SOME_TOKEN", "hush-hush-1234")
    show = "import ipywidgets, os\nprint(api_key, [api_key])\nipywidgets.Text(api_key)"
    cells = [show, "raise ValueError(api_key + os.environ['SOME_TOKEN'])"]
    notebook = write_notebook(tmp_path / "a.ipynb", *cells, parameters='api_key = ""')
    with pytest.raises(RunError) as caught:
        execute(notebook, {"api_key": secret}, out=tmp_path / "out", widgets=True, warm=warm)
    files = [path for path in (tmp_path / "out").rglob("*") if path.is_file()]
    text = "".join(path.read_text(errors="replace") for path in files) + str(caught.value)
    for form in (secret, repr(secret)[1:-1], json.dumps(secret)[1:-1], "hush-hush-1234"):
        assert form not in text
    assert text.count("(secret)") >= 4
    assert Run.read(tmp_path / "out").parameters == {"api_key": "(secret)"}
    assert secret_variable("api_key") not in os.environ


def test_a_notebook_of_format_3_and_duplicate_ids_run(tmp_path: Path, warm: str | None) -> None:
    old = {"nbformat": 3, "nbformat_minor": 0, "metadata": {"name": ""}, "worksheets": []}
    code = {"cell_type": "code", "input": "print(1)", "language": "python", "outputs": []}
    old["worksheets"] = [{"cells": [{**code, "collapsed": False, "metadata": {}}]}]
    (tmp_path / "old.ipynb").write_text(nbformat.writes(nbformat.from_dict(old), version=3))
    notebook = write_notebook(tmp_path / "a.ipynb", "print(1)", "print(2)")
    document = nbformat.read(notebook, as_version=4)
    document.cells[1]["id"] = document.cells[0]["id"]
    notebook.write_text(nbformat.v4.nbjson.writes(document))
    for path, n in ((tmp_path / "old.ipynb", 1), (notebook, 2)):
        found = execute(path, {}, warm=warm)
        made = nbformat.read(found.notebook, as_version=4)
        nbformat.validate(made)
        assert len({cell.id for cell in made.cells}) == n
        assert [cell.outputs[0].text for cell in made.cells] == ["1\n", "2\n"][:n]


def test_a_full_disk_is_told_and_the_run_can_be_resumed(tmp_path: Path, warm: str | None) -> None:
    """A disk that is full for the notebook is one on which no file may grow beyond a size."""
    notebook = write_notebook(tmp_path / "a.ipynb", "print('x' * 200_000)", "print(2)")
    waits = queue(notebook, {}, out=tmp_path / "out")
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))
    try:
        with pytest.raises(RunEnvironmentError, match=r"left could not be written.*File too large"):
            work(waits.folder, warm=warm)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY,) * 2)
    assert Run.read(tmp_path / "out").state == "killed"
    nbformat.read(tmp_path / "out" / "notebook.ipynb", as_version=4)
    assert work(waits.folder, warm=warm).state == "done"


def test_a_hundred_runs_wait_their_turn(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "print(n)", parameters="n = 0")
    waiting = [queue(notebook, {"n": n}) for n in range(100)]
    assert {run.state for run in list_runs()} == {"queued"}
    assert {run.id for run in list_runs()} == {run.id for run in waiting}
    assert [run.parameters["n"] for run in waiting] == list(range(100))


@pytest.mark.parametrize("fails", [False, True])
def test_what_a_notebook_has_registered_for_its_end_is_done(
    tmp_path: Path, warm: str | None, fails: bool
) -> None:
    cell = "import atexit, threading\natexit.register(lambda: open('end', 'w').write('bye'))"
    thread = "threading.Thread(target=threading.Event().wait).start()  # would never end"
    notebook = write_notebook(tmp_path / "a.ipynb", f"{cell}\n{thread}", f"1 / {int(not fails)}")
    waits = queue(notebook, {})
    with contextlib.suppress(RunError):
        work(waits.folder, warm=warm)
    assert Run.read(waits.folder).state == ("failed" if fails else "done")
    assert (tmp_path / "end").read_text() == "bye"


@pytest.mark.skipif(platform.machine() != "x86_64", reason="it is for x86 alone")
def test_any_x86_is_what_the_libraries_see(tmp_path: Path) -> None:
    cell = "import torch, numpy\nprint(torch.get_num_threads())\ntorch.rand(9) @ torch.rand(9)"
    envelope = make_envelope("any-x86")
    run = execute(write_notebook(tmp_path / "a.ipynb", cell), {}, envelope=envelope)
    hardware = run.record["environment"]["hardware"]
    assert (hardware["instruction_set"], hardware["threads"]) == ("AVX2", 1)
    assert run.record["envelope"]["level"] == "any-x86"
    assert "not verified across processors" in run.record["envelope"]["note"]
