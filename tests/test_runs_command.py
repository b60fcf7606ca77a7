"""`workbench run` and `workbench runs` as a shell sees them."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest
from typer.testing import CliRunner
from writing import write_notebook

from workbench.cli import app
from workbench.errors import RequestError, RunError
from workbench.home import home
from workbench.runs import Run, list_runs

RECORD = "from workbench.journal import record"
SLOW = f"{RECORD}\nimport time\nrecord('begun', 1)\nprint('begun', flush=True)\ntime.sleep(60)"


def command(*arguments: object, temporary: Path | None = None) -> subprocess.Popen[str]:
    folder = {"TMPDIR": str(temporary)} if temporary else {}
    return subprocess.Popen(
        [sys.executable, "-m", "workbench", *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "WORKBENCH_HEADLESS": "0", **folder},
    )


def begun(out: Path) -> None:
    """Wait until the slow cell runs."""
    for _ in range(600):
        if (out / "metrics.jsonl").exists():
            return
        time.sleep(0.05)
    raise AssertionError("the cell never began")


def test_the_last_line_of_stdout_is_the_folder(tmp_path: Path) -> None:
    cell = f"{RECORD}\nrecord('sum', epochs + lr + seed)"
    defaults = "epochs = 1\nlr = 0.5\nseed = 0"
    notebook = write_notebook(tmp_path / "a.ipynb", cell, parameters=defaults)
    (tmp_path / "p.yaml").write_text("epochs: 100\nlr: 1e-1")
    arguments = ["run", notebook, "-f", tmp_path / "p.yaml", "-p", "epochs=2", "--seed", 7]
    out, err = (process := command(*arguments, "--out", tmp_path / "out")).communicate()
    assert (process.returncode, out) == (0, f"{tmp_path / 'out'}\n"), err
    assert Run.read(tmp_path / "out").metrics == {"sum": 9.1}
    lines = err.splitlines()
    assert [line[:6] for line in lines[:3]] == ["[1/3] ", "[2/3] ", "[3/3] "]
    assert lines[3:] == ["sum  9.1"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_interrupts_and_keeps_what_there_is(tmp_path: Path, number: int) -> None:
    notebook, out = write_notebook(tmp_path / "a.ipynb", SLOW, "print(2)"), tmp_path / "out"
    process = command("run", notebook, "--out", out)
    begun(out)
    process.send_signal(number)
    said, err = process.communicate(timeout=30)
    assert (process.returncode, said) == (3, f"{out}\n"), err
    assert f"error: interrupted in cell 1 of 2. What was done is in {out}" in err
    stopped = Run.read(out)
    assert (stopped.state, stopped.metrics) == ("interrupted", {"begun": 1})
    assert [cell["state"] for cell in stopped.record["cells"]] == ["interrupted", "pending"]
    saved = json.loads(stopped.notebook.read_text())["cells"][0]["outputs"]
    assert (saved[0]["text"], saved[1]["ename"]) == (["begun\n"], "KeyboardInterrupt")


def test_a_second_signal_kills_a_cell_that_will_not_stop(tmp_path: Path) -> None:
    stubborn = f"{SLOW[:-14]}\nimport signal\nsignal.signal(signal.SIGINT, signal.SIG_IGN)"
    notebook = write_notebook(tmp_path / "a.ipynb", f"{stubborn}\ntime.sleep(60)")
    process = command("run", notebook, "--out", tmp_path / "out")
    begun(tmp_path / "out")
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    time.sleep(0.5)
    process.send_signal(signal.SIGINT)
    process.communicate(timeout=9)  # seconds; a cell has 10 after the first signal
    assert process.returncode == 3
    assert Run.read(tmp_path / "out").state == "interrupted"


def test_a_killed_run_reads_as_killed_and_leaves_no_kernel(tmp_path: Path) -> None:
    notebook, out = write_notebook(tmp_path / "a.ipynb", SLOW), tmp_path / "out"
    process = command("run", notebook, "--out", out, temporary=tmp_path)
    begun(out)
    kernels = psutil.Process(process.pid).children()
    assert Run.read(out).state == "running"
    process.kill()
    process.communicate()
    assert (Run.read(out).state, Run.read(out).metrics) == ("killed", {"begun": 1})
    _, alive = psutil.wait_procs(kernels, timeout=10)
    assert (len(kernels), alive) == (1, [])


def test_a_failed_run_prints_its_folder_too(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "import os; os._exit(1)")
    said = CliRunner().invoke(app, ["run", str(notebook)])
    assert isinstance(said.exception, RunError)
    assert said.exception.exit_code == 4
    assert said.stdout == f"{list_runs()['last'].folder}\n"


def test_a_misspelt_parameter_exits_with_2_before_anything_starts(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "print(1)", parameters="epochs = 1")
    out, err = (process := command("run", notebook, "-p", "epcohs=3")).communicate()
    assert (process.returncode, out) == (2, "")
    assert err == "error: unknown parameter 'epcohs': did you mean epochs? There are: epochs.\n"
    assert not home().exists()


def test_a_seed_needs_a_parameter_of_that_name(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "print(1)", parameters="epochs = 1")
    said = CliRunner().invoke(app, ["run", str(notebook), "--seed", "3"])
    assert str(said.exception) == "unknown parameter 'seed': There are: epochs."


def test_a_folder_runs_in_order_up_to_the_first_failure(tmp_path: Path) -> None:
    for name, cell in (("c", "3"), ("a", f"{RECORD}\nrecord('x', 1)"), ("b", "1 / 0")):
        write_notebook(tmp_path / "all" / f"{name}.ipynb", cell)
    said = CliRunner().invoke(app, ["run", str(tmp_path / "all"), "--out", str(tmp_path / "out")])
    assert isinstance(said.exception, RunError)
    assert said.stdout == f"{tmp_path / 'out' / 'a'}\n{tmp_path / 'out' / 'b'}\n"
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a", "b"]


def test_a_folder_is_checked_before_its_first_notebook_runs(tmp_path: Path) -> None:
    write_notebook(tmp_path / "a.ipynb", "1", parameters="lr = 1.0")
    write_notebook(tmp_path / "b.ipynb", "1", parameters="rate = 1.0")
    said = CliRunner().invoke(app, ["run", str(tmp_path), "-p", "lr=2"])
    assert "unknown parameter 'lr'" in str(said.exception)
    assert not home().exists()
    (tmp_path / "empty").mkdir()
    said = CliRunner().invoke(app, ["run", str(tmp_path / "empty")])
    assert isinstance(said.exception, RequestError)
    assert "holds no notebook: expected .ipynb files" in str(said.exception)


def test_all_folders_of_runs_are_checked_before_the_first_runs(tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_notebook(tmp_path / "all" / f"{name}.ipynb", "1")
    out = tmp_path / "out"
    (out / "b").mkdir(parents=True)
    (out / "b" / "mine").write_text("")
    said = CliRunner().invoke(app, ["run", str(tmp_path / "all"), "--out", str(out)])
    assert isinstance(said.exception, RequestError)
    assert re.search("out '.*b' holds mine, expected an absent or empty", str(said.exception))
    assert [path.name for path in out.iterdir()] == ["b"]


def test_runs_are_listed_as_text_and_as_json(tmp_path: Path) -> None:
    assert CliRunner().invoke(app, ["runs"]).stdout.startswith("no runs yet")
    assert json.loads(CliRunner().invoke(app, ["runs", "--json"]).stdout) == []
    notebook = write_notebook(tmp_path / "a.ipynb", f"{RECORD}\nrecord('x', 1)")
    CliRunner().invoke(app, ["run", str(notebook)])
    last = list_runs()["last"]
    assert CliRunner().invoke(app, ["runs"]).stdout == f"{last!r}\n"
    (record,) = json.loads(CliRunner().invoke(app, ["runs", "--json"]).stdout)
    assert (record["id"], record["folder"]) == (last.id, str(last.folder))
    assert record["metrics"] == {"x": 1}


def test_help_loads_neither_papermill_nor_torch() -> None:
    code = (
        "import sys, workbench.cli, workbench.runs\nprint({'papermill', 'torch'} & {*sys.modules})"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout == "set()\n"
