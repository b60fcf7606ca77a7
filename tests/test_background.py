"""Work in the background: real processes that take turns, are stopped, and outlive who asked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from jobsites import long_notebook, tiny_notebook
from waiting import once
from writing import write_notebook

from workbench.errors import RequestError
from workbench.home import home
from workbench.runs import Run, find_run
from workbench.runs.background import AT_ONCE, execute_later, start, stop, tasks
from workbench.runs.spaces import make_points
from workbench.runs.sweeps import Sweep, plan

SECRET = "import os\nprint(len(api_token), 'JPY_SESSION_NAME' in os.environ)"

pytestmark = pytest.mark.usefixtures("ended")


def state(run: Run) -> str:
    return Run.read(run.folder).state


def test_a_run_is_executed_while_this_process_goes_on(tmp_path: Path) -> None:
    run = execute_later(tiny_notebook(tmp_path), {"epochs": 3})
    assert (run.state, [task.kind for task in tasks()]) == ("queued", ["run"])
    assert (home() / "latest").resolve() == run.folder.resolve()
    once(lambda: not tasks())
    done = find_run(run.id)
    assert (done.state, done.parameters["epochs"], done.published) == ("done", 3, ["tiny@1"])
    assert list((home() / "tasks").iterdir()) == []


def test_a_wrong_value_starts_nothing(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="parameter 'epochs' got int 10, expected 1 <= epochs"):
        execute_later(tiny_notebook(tmp_path), {"epochs": 10})
    assert (tasks(), (home() / "runs").exists()) == ([], False)


def test_so_many_go_at_once_and_the_others_in_their_order(tmp_path: Path) -> None:
    notebook = long_notebook(tmp_path)
    runs = [execute_later(notebook, {"n": n}) for n in range(AT_ONCE + 2)]
    once(lambda: [state(run) for run in runs[:AT_ONCE]] == ["running"] * AT_ONCE)
    assert [task.folder for task in tasks()] == [run.folder for run in runs]
    assert [task.waits for task in tasks()] == [False] * AT_ONCE + [True] * 2
    stop(tasks()[AT_ONCE])  # which waits
    once(lambda: state(runs[AT_ONCE]) == "interrupted")
    (tmp_path / "go.txt").touch()
    once(lambda: not tasks())
    assert [state(run) for run in runs] == [*["done"] * AT_ONCE, "interrupted", "done"]
    told = Run.read(runs[AT_ONCE].folder).record["error"]["value"]
    assert told == "cancelled while it waited"


def test_a_run_is_stopped_and_gone_on_with(tmp_path: Path) -> None:
    run = execute_later(long_notebook(tmp_path), {})
    once((tmp_path / "begun.txt").exists)
    stop(tasks()[0])
    once(lambda: state(run) == "interrupted")
    once(lambda: not tasks())
    (tmp_path / "go.txt").touch()
    start("run", run.folder)
    with pytest.raises(RequestError, match=f"run of {run.id} is going on already: wait until"):
        start("run", run.folder)
    once(lambda: state(run) == "done")


def test_what_was_begun_outlives_a_killed_process(tmp_path: Path) -> None:
    notebook = long_notebook(tmp_path)
    code = (
        "import sys; from workbench.runs.background import execute_later as later; "
        f"print(later({str(notebook)!r}, {{}}).folder, flush=True); sys.stdin.read()"
    )
    asks = [sys.executable, "-c", code]
    with subprocess.Popen(asks, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        folder = Path(process.stdout.readline().decode().strip())
        os.kill(process.pid, signal.SIGKILL)
    once((tmp_path / "begun.txt").exists)
    assert [task.folder for task in tasks()] == [folder]
    (tmp_path / "go.txt").touch()
    once(lambda: Run.read(folder).state == "done")


def test_a_ticket_whose_process_is_gone_counts_no_more(tmp_path: Path) -> None:
    notebook = long_notebook(tmp_path)
    run = execute_later(notebook, {})
    once(lambda: state(run) == "running")
    os.killpg(tasks()[0].pid, signal.SIGKILL)
    once(lambda: not tasks())
    assert (state(run), list((home() / "tasks").iterdir())) == ("killed", [])


def test_a_secret_reaches_the_run_and_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JPY_SESSION_NAME", "asks.ipynb")  # whose cells are not the run's
    notebook = write_notebook(tmp_path / "s.ipynb", SECRET, parameters="api_token: str = ''")
    run = execute_later(notebook, {"api_token": "tell-nobody"})
    once(lambda: state(run) == "done")
    assert "11 False" in run.notebook.read_text()
    written = [path for path in home().rglob("*") if path.is_file()]
    assert not [path for path in written if b"tell-nobody" in path.read_bytes()]


def test_a_sweep_and_a_verification_go_in_the_background_too(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "n.ipynb", "print(n)", parameters="n: int = 1")
    made = plan(notebook, make_points({"n": [1, 2]}))
    start("sweep", made.folder)
    once(lambda: not tasks(), 120)
    assert [run.state for run in Sweep.read(made.folder).runs] == ["done", "done"]
    run = made.runs[0]
    start("verify", run.folder)
    assert tasks()[0].log == run.folder / "verify.log"
    once(lambda: not tasks(), 120)
    assert f"Run {run.id}: identical" in (run.folder / "verify.log").read_text()


def test_what_cannot_be_done_is_said_in_the_log(tmp_path: Path) -> None:
    run = execute_later(long_notebook(tmp_path), {})
    stop(tasks()[0])
    once(lambda: not tasks())
    start("verify", run.folder)
    once(lambda: not tasks())
    said = (run.folder / "verify.log").read_text()
    assert said.startswith(f"error: run {run.id} is interrupted, and only a run that is done can")
