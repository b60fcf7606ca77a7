"""`workbench lab`: what it refuses, what it writes, how it answers and how it ends."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import nbformat
import psutil
import pytest
from labs import opened_lab
from typer.testing import CliRunner

from workbench.cli import app
from workbench.errors import RequestError, RunEnvironmentError
from workbench.lab import EXTENSIONS, START, opening, write_start


def refused(*words: str) -> str:
    """Return the error that a command ends with, before anything was started."""
    result = CliRunner().invoke(app, ["lab", *words])
    assert isinstance(result.exception, RequestError | RunEnvironmentError)
    return str(result.exception)


def test_it_refuses_what_is_no_folder(tmp_path: Path) -> None:
    assert "gone' is nothing: pass a folder, in which notebooks are" in refused(
        str(tmp_path / "gone")
    )
    (tmp_path / "a.ipynb").touch()
    assert "a.ipynb' is a file: pass a folder" in refused(str(tmp_path / "a.ipynb"))
    said = refused(str(tmp_path), "--port", "8889")
    assert "lab takes one folder, not" in said
    assert "follows an equals sign: --port=8889" in said
    said = refused("--port", "8890")
    assert "no folder is called '8890'; a value of JupyterLab's options follows an equals" in said
    assert said.endswith(": --port=8890")


def test_it_refuses_a_folder_that_cannot_be_written_to(tmp_path: Path) -> None:
    (tmp_path / START).symlink_to(tmp_path / "nowhere" / START)
    said = refused(str(tmp_path))
    assert f"{tmp_path / START} cannot be written (No such file" in said
    assert "pass a folder of your own" in said


def test_it_says_so_without_jupyterlab(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(opening, "find_spec", lambda name: None)
    assert "JupyterLab is not installed in this environment" in refused(str(tmp_path))
    assert not (tmp_path / START).exists()


def test_a_start_notebook_is_written_once(tmp_path: Path) -> None:
    path = write_start(tmp_path)
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    assert [cell.source for cell in notebook.cells] == [
        "import workbench as wb\n\nwb.widgets.home()"
    ]
    path.write_text("mine")
    assert write_start(tmp_path).read_text() == "mine"


def test_the_extension_is_what_jupyterlab_reads() -> None:
    (described,) = EXTENSIONS.glob("*/package.json")
    package = json.loads(described.read_text())
    assert package["name"] == described.parent.name
    assert (described.parent / package["jupyterlab"]["_build"]["load"]).is_file()


def test_it_answers_with_a_token_and_ends_with_ctrl_c(tmp_path: Path) -> None:
    (tmp_path / "a folder").mkdir()
    with opened_lab(tmp_path / "a folder", tmp_path) as lab:
        with httpx.Client(base_url=lab.url, trust_env=False, timeout=60) as client:
            assert client.get("api/contents").status_code == 403
            client.headers["Authorization"] = f"token {lab.token}"
            assert [f["name"] for f in client.get("api/contents").json()["content"]] == [START]
            page = client.get(f"lab/tree/{START}").text
            kernel = client.post("api/kernels", json={"name": "python3"}).json()["id"]
            assert "workbench-home" in page
            entry = client.get("lab/extensions/workbench-home/static/remoteEntry.js")
            assert entry.text.startswith("/**\n * JupyterLab's tile")
            assert client.get(f"api/kernels/{kernel}").status_code == 200
        children = psutil.Process(lab.process.pid).children(recursive=True)
        assert children
        assert lab.interrupt() == 0
        _, alive = psutil.wait_procs(children, timeout=20)
        assert alive == []
