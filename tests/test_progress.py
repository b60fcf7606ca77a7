"""Progress where somebody watches: in a terminal, in a notebook, and nowhere else."""

from __future__ import annotations

import os
import pty
import subprocess
import sys
import termios
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

import workbench
from workbench.progress import in_notebook, is_headless, progress

ROOT = Path(workbench.__file__).parents[1]
STEPS = """
import time
from workbench.progress import progress
with progress(4, "reading", unit="row") as bar:
    for _ in range(4):
        time.sleep({})
        bar.update(1)
"""
SLOW, QUICK = STEPS.format(0.6), STEPS.format(0.1)


@pytest.mark.parametrize(("value", "headless"), [("1", True), ("0", False), (None, False)])
def test_headless_is_said_by_the_environment(
    value: str | None, headless: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORKBENCH_HEADLESS")
    if value is not None:
        monkeypatch.setenv("WORKBENCH_HEADLESS", value)
    assert is_headless() == headless


def test_headless_shows_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with progress(10, "reading") as bar:
        bar.update(10)
    assert capfd.readouterr() == ("", "")
    assert not in_notebook()


def test_a_pipe_shows_nothing(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("WORKBENCH_HEADLESS")
    with progress(10, "reading") as bar:
        bar.update(10)
    assert capfd.readouterr() == ("", "")


def test_a_terminal_shows_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_HEADLESS")
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 80))
    subprocess.run([sys.executable, "-c", SLOW], cwd=ROOT, stderr=theirs, check=True)
    os.close(theirs)
    shown = os.read(ours, 65536).decode()
    os.close(ours)
    assert "reading: 100%" in shown
    assert "4/4" in shown


def test_what_takes_less_than_two_seconds_shows_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_HEADLESS")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(QUICK)])
    client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": ROOT}})
    client.execute()
    assert notebook.cells[0].outputs == []


def test_a_notebook_keeps_one_line_updated_in_place(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORKBENCH_HEADLESS")
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(SLOW)])
    client = NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": ROOT}})
    client.execute()
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert output.data["text/plain"].startswith("reading: 100%")
    assert "4/4" in output.data["text/plain"]
