"""The folder that Jupyter serves, as its server wrote it down."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from workbench.widgets.links import folder_of_copies, served_root


@pytest.fixture(autouse=True)
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path))
    served_root.cache_clear()
    return tmp_path


def test_the_server_that_started_a_kernel_says_what_it_serves(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for server, folder in {os.getppid(): "/of/another", 4711: "/home/ada/work"}.items():
        (runtime / f"jpserver-{server}.json").write_text(json.dumps({"root_dir": folder}))
    monkeypatch.setenv("JPY_PARENT_PID", "4711")
    assert served_root() == "/home/ada/work"


def test_a_kernel_that_no_server_started_is_served_by_none(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (runtime / "jpserver-4711.json").write_text(json.dumps({"root_dir": "/home/ada/work"}))
    monkeypatch.setenv("JPY_PARENT_PID", str(os.getpid()))
    assert served_root() is None
    served_root.cache_clear()
    monkeypatch.delenv("JPY_PARENT_PID")
    assert served_root() is None


def test_copies_go_where_the_server_can_open_them(
    runtime: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    served, elsewhere = runtime / "work", runtime / "tmp"
    for folder in (served / "deep", elsewhere):
        folder.mkdir(parents=True)
    (runtime / "jpserver-4711.json").write_text(json.dumps({"root_dir": str(served)}))
    monkeypatch.setenv("JPY_PARENT_PID", "4711")
    monkeypatch.chdir(served / "deep")
    assert folder_of_copies() == served / "deep" / "runs"
    monkeypatch.chdir(elsewhere)
    assert folder_of_copies() == served / "runs"
