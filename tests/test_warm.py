"""Kernels and runs that are forked: the same as cold ones, and nobody's longer than they should."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import nbformat
import psutil
import pytest
from writing import write_notebook

from workbench.errors import RunEnvironmentError
from workbench.runs import Run, execute
from workbench.runs.envelopes import make_envelope
from workbench.runs.executors import LocalExecutor
from workbench.runs.queueing import queue
from workbench.runs.warm import Forked, WarmParent, can_fork, warm_parent

pytestmark = pytest.mark.skipif(not can_fork(), reason="processes are forked on Linux alone")

LOOK = """\
import sys, os, random, threading, numpy, torch, matplotlib
print(sys.argv[1], [p for p in sys.path if 'pytest' not in p], __name__, os.getcwd())
print(random.random(), numpy.random.rand(3), torch.rand(3), hash('a'), torch.get_num_threads())
print(matplotlib.get_backend(), numpy.ones((300, 300)) @ numpy.ones((300, 300)))
print(sorted(n for n in os.environ if n not in ('JPY_PARENT_PID', 'MPLBACKEND', 'OLDPWD', '_')))
print(torch.get_default_dtype(), get_ipython().history_manager.hist_file)"""
TRAIN = """\
import workbench as wb, matplotlib.pyplot as plt
x = torch.linspace(-1, 1, 256)[:, None]
data = wb.dataset("points", train=(x, 3 * x + 1), validation=8)
model = wb.build("mlp", data, hidden=(64,), seed=0)
history = wb.fit(model, data, steps=50).history
plt.plot(history["loss"]); plt.show()
print([float(p.double().sum()) for p in model.parameters()], history["loss"])"""


def outputs(run: Run) -> list[Any]:
    cells = nbformat.read(run.notebook, as_version=4).cells
    return [
        [out.get("text") or out["data"] for out in cell.outputs if out.get("name") != "stderr"]
        for cell in cells
    ]


def test_a_warm_run_is_equal_to_a_cold_one(tmp_path: Path, warm: str) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", LOOK, TRAIN)
    hot, cold = execute(notebook, {}, warm=warm), execute(notebook, {})
    assert (hot.record["warm"], cold.record["warm"]) == (True, False)
    assert outputs(hot) == outputs(cold)


def test_forks_have_nothing_of_each_other(tmp_path: Path, warm: str) -> None:
    cell = "import torch, sys\nprint(getattr(torch, 'mark', 0), 'mark' in sys.modules)"
    mark = "torch.mark = 1; sys.modules['mark'] = torch"
    notebook = write_notebook(tmp_path / "a.ipynb", f"{cell}\n{mark}")
    assert [outputs(execute(notebook, {}, warm=warm)) for _ in range(2)] == [[["0 False\n"]]] * 2


def test_a_kernel_that_dies_is_told_by_its_code(tmp_path: Path, warm: str) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "import os; os._exit(7)")
    with pytest.raises(RunEnvironmentError, match="process ended with exit code 7"):
        execute(notebook, {}, warm=warm)


def fork(parent: WarmParent, folder: Path) -> Forked:
    request = {
        **{"kind": "run", "file": str(folder), "environment": dict(os.environ)},
        **{"folder": str(folder), "log": str(folder / "run.log")},
    }
    return Forked(parent.address, request)


def begun(folder: Path) -> None:
    for _ in range(600):
        if (folder / "metrics.jsonl").exists():
            return
        time.sleep(0.05)
    raise AssertionError((folder / "run.log").read_text())


SLOW = "from workbench.journal import record\nrecord('begun', 1)\nimport time; time.sleep(60)"


def test_a_forked_run_has_an_exit_code_and_ends_with_its_kernel(tmp_path: Path) -> None:
    good = queue(write_notebook(tmp_path / "a.ipynb", "print(1)"), {})
    bad = queue(write_notebook(tmp_path / "b.ipynb", "1 / 0"), {})
    slow = queue(write_notebook(tmp_path / "c.ipynb", SLOW), {})
    with WarmParent(make_envelope()) as parent:
        forks = [fork(parent, run.folder) for run in (good, bad, slow)]
        assert [forks[0].wait(60), forks[1].wait(60)] == [0, 1]
        assert "ZeroDivisionError" in (bad.folder / "run.log").read_text()
        begun(slow.folder)
        kernels = [
            p for p in psutil.Process(parent._process.pid).children() if p.pid != forks[2].pid
        ]
        assert len(kernels) == 1
        with pytest.raises(subprocess.TimeoutExpired):
            forks[2].wait(0.1)
        forks[2].kill()
        assert forks[2].wait(30) == -9
        assert psutil.wait_procs(kernels, timeout=10)[1] == []
    assert Run.read(slow.folder).state == "killed"
    assert [Run.read(run.folder).state for run in (good, bad)] == ["done", "failed"]


def test_a_parent_dies_with_whoever_started_it_and_takes_its_children(tmp_path: Path) -> None:
    slow = queue(write_notebook(tmp_path / "a.ipynb", SLOW), {})
    code = (
        "import sys; from pathlib import Path; sys.path.insert(0, sys.argv[2])\n"
        "from test_warm import *\nwith WarmParent(make_envelope()) as parent:\n"
        "    print(parent._process.pid, flush=True); fork(parent, Path(sys.argv[1])).wait()"
    )
    started = subprocess.Popen(
        [sys.executable, "-c", code, str(slow.folder), str(Path(__file__).parent)],
        stdout=subprocess.PIPE,
        text=True,
    )
    begun(slow.folder)
    assert started.stdout is not None
    parent = psutil.Process(int(started.stdout.readline()))
    family = [parent, *parent.children(recursive=True)]
    started.kill()
    started.communicate()
    assert len(family) == 3
    assert psutil.wait_procs(family, timeout=10)[1] == []
    assert Run.read(slow.folder).state == "killed"


def test_where_the_parent_is_gone_a_kernel_starts_cold(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "print(1)")
    found = execute(notebook, {}, warm=str(tmp_path / "nobody"))
    assert (found.state, found.record["warm"]) == ("done", False)


def starts_cold() -> None:
    with warm_parent(make_envelope()) as address:
        assert address is None


def test_a_parent_that_does_not_come_up_says_what_to_do(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "torch.py").write_text("raise SystemExit(1)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    parent = WarmParent(make_envelope())
    with pytest.raises(RunEnvironmentError, match=r"did not come up.*run them cold.*--cold"):
        parent.__enter__()
    with pytest.warns(UserWarning, match=r"^runs start cold, which takes longer: .*come up"):
        starts_cold()


def test_a_parent_that_cannot_be_started_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/no/such/python")
    with pytest.warns(UserWarning, match=r"^runs start cold.*could not be started \(.*No such"):
        starts_cold()


def test_where_nothing_can_be_forked_there_is_no_parent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.runs.warm.can_fork", lambda: False)
    starts_cold()


def test_where_the_parent_is_gone_a_run_of_a_sweep_starts_cold(tmp_path: Path) -> None:
    waits = queue(write_notebook(tmp_path / "a.ipynb", "print(1)"), {})
    executor = LocalExecutor(str(tmp_path / "nobody"))
    executor.submit(waits.folder, {})
    while not (ended := executor.poll()):
        time.sleep(0.05)
    assert (ended, Run.read(waits.folder).state) == ({waits.folder: 0}, "done")


FAIL_ONCE = """\
import os
fork, left = os.fork, [OSError(11, 'Resource temporarily unavailable')]
def failing():
    if left:
        raise left.pop()
    return fork()
os.fork = failing
"""


def test_a_parent_that_could_not_fork_lives_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "sitecustomize.py").write_text(FAIL_ONCE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    notebook = write_notebook(tmp_path / "a.ipynb", "print(1)")
    with warm_parent(make_envelope()) as address:
        monkeypatch.delenv("PYTHONPATH")
        runs = [execute(notebook, {}, warm=address) for _ in range(2)]
    assert [(run.state, run.record["warm"]) for run in runs] == [("done", False), ("done", True)]


def test_a_matplotlibrc_counts_as_in_a_cold_run(tmp_path: Path, warm: str) -> None:
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 7\nbackend: svg\n")
    look = "import matplotlib.pyplot as plt\nprint(plt.rcParams['lines.linewidth'])"
    cell = f"{look}\nprint(plt.get_backend(), sorted(plt.rcParams.items()))\nplt.plot([1, 2])[0]"
    notebook = write_notebook(tmp_path / "a.ipynb", f"{cell}.get_linewidth()")
    hot, cold = (outputs(execute(notebook, {}, warm=how)) for how in (warm, None))
    assert hot == cold
    assert hot[0][0].startswith("7.0\n")


def test_a_wide_table_is_shown_as_in_a_cold_run(tmp_path: Path, warm: str) -> None:
    cell = "import pandas as pd\npd.DataFrame([range(40)])"
    notebook = write_notebook(tmp_path / "a.ipynb", cell)
    hot, cold = (outputs(execute(notebook, {}, warm=how)) for how in (warm, None))
    assert hot == cold
    assert "1 rows × 40 columns" in str(hot)


@pytest.mark.parametrize("safe", ["", pytest.param("1", marks=pytest.mark.full)])
def test_modules_are_looked_for_where_a_cold_run_does(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, safe: str
) -> None:
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["lib", str(tmp_path / "other")]))
    monkeypatch.setenv("PYTHONSAFEPATH", safe)
    notebook = write_notebook(tmp_path / "a.ipynb", "import sys, ours\nprint(sys.path, ours.x)")
    (tmp_path / "lib").mkdir()
    (tmp_path / "lib" / "ours.py").write_text("x = 5\n")
    with warm_parent(make_envelope()) as address:
        hot, cold = execute(notebook, {}, warm=address), execute(notebook, {})
    assert hot.record["warm"]
    assert outputs(hot) == outputs(cold)


WHOLE = {"kind": "run", "file": "/", "environment": {}, "folder": "/", "log": os.devnull}


@pytest.mark.parametrize(
    "request_",
    ["nonsense", "[1]", json.dumps({**WHOLE, "kind": "x"}), json.dumps({**WHOLE, "file": 3}),
     json.dumps({**WHOLE, "kind": "kernel"}), json.dumps({**WHOLE, "environment": None})],
)  # fmt: skip
def test_a_line_that_is_no_request_is_let_go(warm: str, request_: str) -> None:
    with socket.socket(socket.AF_UNIX) as line:
        line.connect(warm)
        line.sendall(f"{request_}\n".encode())
        assert line.recv(10) == b""


def test_whoever_says_nothing_holds_nobody_up(warm: str, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as silent, socket.socket(socket.AF_UNIX) as asks:
        silent.connect(warm)
        silent.sendall(b'{"kind"')
        asks.connect(warm)
        asks.settimeout(2)
        asks.sendall(b"nonsense\n")
        assert asks.recv(10) == b""
    assert execute(write_notebook(tmp_path / "a.ipynb", "1"), {}, warm=warm).record["warm"]
