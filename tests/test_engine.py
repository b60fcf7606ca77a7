"""What a run's notebook keeps of what its cells say, and how its kernel is measured and left."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from writing import write_notebook

from workbench.errors import RunError
from workbench.runs import Run, execute
from workbench.runs.floods import _collapsed
from workbench.runs.queueing import Limits

LOUD = """\
from IPython.display import HTML, clear_output, display
print('x' * 2000)
for i in range(5):
    display(HTML(str(i) * 1000), display_id=str(i)).update(HTML('abcde'[i] * 1000))
print('no more')
{}"""
PROGRESS = """\
import sys
for i in range(12_000):
    sys.stderr.write(f"\\r{i:5}|{'#' * 90}")
    if i % 20 == 0:
        sys.stderr.flush()
sys.stderr.flush()
print('after')
sys.stderr.write('\\n')
7"""
CLEARED = """\
import ipywidgets
from IPython.display import HTML, clear_output, display
def say():
    for wait in (False, True) * 3:
        print('x' * 900)
        display(HTML('y' * 2500))
        clear_output(wait=wait)
    print('end')
with ipywidgets.Output():
    say()
say()"""


@pytest.fixture
def strict(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a cell say little."""
    monkeypatch.setattr("workbench.runs.floods._MOST_TEXT", 1000)
    monkeypatch.setattr("workbench.runs.engine.MOST_SHOWN", 3000)
    monkeypatch.setattr("workbench.runs.floods._MOST_RAISED", 2000)


def said(folder: Path) -> list[list[str]]:
    """Return what each cell of a run says, each output by its first characters."""

    def text(out: Any) -> str:
        if out.output_type == "error":
            return str(out.ename)
        data = out.get("data", {})
        return str(out.get("text") or data.get("text/html") or data["text/plain"])

    cells = nbformat.read(Run.read(folder).notebook, as_version=4).cells
    return [[text(out)[:40].strip() for out in cell.outputs] for cell in cells]


@pytest.mark.usefixtures("strict")
def test_a_cell_that_says_too_much_keeps_its_end(tmp_path: Path, warm: str | None) -> None:
    cells = LOUD.format("'result'"), LOUD.format("raise ValueError('z' * 9000)")
    with pytest.raises(RunError):
        execute(write_notebook(tmp_path / "a.ipynb", *cells), {}, out=tmp_path / "out", warm=warm)
    result, error = said(tmp_path / "out")
    text = ["x" * 40, "[what the cell printed beyond 1,000,000"]
    shown = ["a" * 40, "b" * 40, "[what the cell showed beyond 20,000,000", "e" * 40]
    assert result == [*text, *shown, "'result'"]
    assert error == [*text, *shown, "ValueError"]
    last = nbformat.read(tmp_path / "out" / "notebook.ipynb", as_version=4).cells[1].outputs[-1]
    assert (len(last.evalue), last.traceback[1].strip()[:15]) == (2000, "[the middle of ")


def test_a_progress_bar_counts_as_what_is_seen_of_it(tmp_path: Path, warm: str | None) -> None:
    found = execute(write_notebook(tmp_path / "a.ipynb", PROGRESS), {}, warm=warm)
    told = set(said(found.folder)[0]) - {""}  # the line's end: alone, or with what it ends
    assert told == {f"11999|{'#' * 34}", "after", "7"}


@pytest.mark.usefixtures("strict")
def test_what_is_cleared_may_be_said_again(tmp_path: Path, warm: str | None) -> None:
    found = execute(write_notebook(tmp_path / "a.ipynb", CLEARED), {}, warm=warm)
    assert said(found.folder) == [["end"]]


@pytest.mark.parametrize(
    ("text", "seen"),
    [("a\rb", "b"), ("a\r\nb", "a\r\nb"), ("1\r2\r", "2\r"), ("x\n1\r2\ny\rz", "x\n2\nz")],
)  # fmt: skip
def test_a_line_is_what_was_written_last(text: str, seen: str) -> None:
    assert _collapsed(text) == seen


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone tells how pages are shared")
def test_memory_that_processes_share_counts_once(tmp_path: Path, warm: str | None) -> None:
    fork = "    if os.fork() == 0:\n        time.sleep(1.5)\n        os._exit(0)"
    cell = f"import os, time\nbig = b'x' * 400_000_000\nfor _ in range(4):\n{fork}\ntime.sleep(1)"
    notebook = write_notebook(tmp_path / "a.ipynb", cell)
    assert execute(notebook, {}, limits=Limits(memory_gb=1.4), warm=warm).state == "done"


def test_threads_come_to_their_end_before_what_is_registered(
    tmp_path: Path, warm: str | None
) -> None:
    end = "import time, threading\ndef end():\n    time.sleep(0.7); open('end', 'w').close()"
    last = "import atexit, os\natexit.register(lambda: os.rename('end', 'ended'))"
    notebook = write_notebook(
        tmp_path / "a.ipynb", f"{end}\nthreading.Thread(target=end).start()", last
    )
    execute(notebook, {}, warm=warm)
    assert (tmp_path / "ended").exists()


@pytest.mark.parametrize(
    ("begun", "seconds"),
    [
        ("import concurrent.futures as c; c.ThreadPoolExecutor(1).submit(int).result()", 60),
        ("import threading; threading.Thread(target=threading.Event().wait).start()", 0.2),
    ],
)
def test_no_thread_holds_a_process_up(begun: str, seconds: float) -> None:
    left = "import atexit; atexit.register(print, 'bye')\nfrom workbench.beginnings import leave"
    code = f"{begun}\n{left}\nleave({seconds}, 7)"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (7, "bye\n", "")


def test_a_reply_that_comes_while_a_widget_is_told_of_is_heard(
    tmp_path: Path, warm: str | None
) -> None:
    """nbclient alone waits for ever, mostly on a busy machine."""
    cell = (
        "import ipywidgets\nout = ipywidgets.Output()\nfor i in range(40):\n    with out: print(i)"
    )
    notebook = write_notebook(tmp_path / "a.ipynb", *[cell] * 3)
    assert execute(notebook, {}, limits=Limits(seconds=60), warm=warm).state == "done"
