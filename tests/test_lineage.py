"""Where a version comes from: every answer to that question, as it was when it was published."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path

import pytest
import torch
from kernels import Kernel

import workbench
from workbench.datasets import dataset
from workbench.home import home, write_json
from workbench.journal import read_lines
from workbench.models import build
from workbench.registry import publish
from workbench.training import fit

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
DATA = dataset("points", train=(X, torch.arange(12) % 3))


def git(*words: str) -> str:
    told = subprocess.run(["git", *words], check=True, capture_output=True, text=True)
    return told.stdout.strip()


def test_a_lineage_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    model = build("mlp", DATA)
    fit(model, DATA, steps=1)
    made = publish(model, "net")
    assert made.lineage == {
        "run": None,
        "cell": None,
        "parameters": None,
        "data": {"name": "points", "fingerprint": DATA.fingerprint},
        "code": None,
        "parent": None,
        "workbench": workbench.__version__,
        "torch": torch.__version__,
        "python": platform.python_version(),
    }
    assert publish(model, "net").lineage["parent"] == "net@1"


def test_a_version_names_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = tmp_path / "code"
    code.mkdir()
    monkeypatch.chdir(code)
    git("init", "-q")
    assert publish(build("mlp", DATA), "net").lineage["code"] is None  # there is no commit yet
    (code / "a.py").touch()
    git("add", "a.py")
    git("-c", "user.name=a", "-c", "user.email=a@b", "commit", "-q", "-m", "a")
    commit = git("rev-parse", "HEAD")
    for dirty in (False, True):
        told = publish(build("mlp", DATA), "net").lineage["code"]
        assert told == {"commit": commit, "dirty": dirty}
        (code / "b.py").touch()


def test_a_version_names_its_run_and_its_parameters(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "20260101-000000-demo-abcd"
    run.mkdir()
    monkeypatch.setenv("WORKBENCH_RUN", str(run))
    made = publish(build("mlp", DATA), "net")
    assert (made.lineage["run"], made.lineage["parameters"]) == (run.name, None)
    last = read_lines(run / "events.jsonl")[-1]
    assert (last["event"], last["ref"], last["folder"]) == ("publish", "net@1", str(made.folder))
    code = {"commit": "abcd", "dirty": False, "diff_sha256": None}
    said = {"id": "mine", "parameters": {"lr": 0.1}, "environment": {"git": code}}
    write_json(run / "run.json", said)
    told = publish(build("mlp", DATA), "net").lineage
    assert (told["run"], told["parameters"], told["code"]) == ("mine", {"lr": 0.1}, code)
    assert told["publish"] == made.lineage["publish"] + 1


def test_a_version_names_its_cell(tmp_path: Path) -> None:
    notebook = tmp_path / "study.ipynb"
    kernel = Kernel({"JPY_SESSION_NAME": str(notebook), "WORKBENCH_HOME": str(home())})
    try:
        kernel.run("import workbench as wb\nmodel = wb.build('linear', wb.load('line'))")
        kernel.run("told = [wb.publish(model, 'net').lineage['cell']]")
        kernel.run("import os\ndel os.environ['JPY_SESSION_NAME']")
        kernel.run("told.append(wb.publish(model, 'net').lineage['cell'])")
        assert kernel.value("told") == [
            {"notebook": str(notebook), "execution_count": 2},
            {"notebook": None, "execution_count": 4},
        ]
    finally:
        kernel.close()
