"""`workbench doctor` as a shell sees it."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

import workbench
from workbench.cli import app
from workbench.devices import hardware
from workbench.home import home
from workbench.probing import probe

pytestmark = pytest.mark.usefixtures("own_data")


def doctor(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "workbench", "doctor", *arguments],
        capture_output=True, text=True, check=False, env={**os.environ, "COLUMNS": "300"},
    )  # fmt: skip


def test_it_says_what_this_machine_is_and_how_it_will_train() -> None:
    said = doctor()
    assert (said.returncode, said.stderr) == (0, "")
    rows = dict(line.split("  ", 1) for line in said.stdout.split("\n\n")[0].splitlines())
    told = {name: value.strip() for name, value in rows.items()}
    assert told["torch"] == str(torch.__version__)
    assert told["ONNX Runtime"] == version("onnxruntime")
    assert told["instruction set"] == hardware()["instruction_set"]
    assert told["WORKBENCH_HOME"].startswith(f"{home()} (")
    assert f"\nHow it will train: {probe().sentence}\n" in said.stdout  # the one just remembered
    assert said.stdout.count(" ms a step  ") == len(probe().seconds)
    assert said.stdout.endswith("\nno problem found\n")


@pytest.mark.usefixtures("quick")
def test_it_speaks_json() -> None:
    found = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)
    assert (found["workbench"], found["python"]) == (
        workbench.__version__,
        platform.python_version(),
    )
    assert found["hardware"] == hardware()
    assert found["probe"]["sentence"] == probe().sentence
    assert found["homes"]["WORKBENCH_HOME"]["writable"] is True
    assert set(found["tools"]) == {"compiler", "npm"}
    assert found["problems"] == []


@pytest.mark.usefixtures("quick")
def test_fresh_times_again() -> None:
    first = probe()
    CliRunner().invoke(app, ["doctor"])
    assert probe() == first
    CliRunner().invoke(app, ["doctor", "--fresh"])
    assert probe().seconds != first.seconds


def test_what_is_broken_ends_the_command_with_4(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "file" / "below"))
    said = doctor()
    assert (said.returncode, said.stderr) == (4, "")
    assert "How it will train: " in said.stdout
    assert "no problem found" not in said.stdout


@pytest.mark.parametrize("variable", ["WORKBENCH_HOME", "WORKBENCH_DATA"])
@pytest.mark.usefixtures("quick")
def test_a_home_that_is_a_file_is_a_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv(variable, str(tmp_path / "file" / "below"))
    (problem,) = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)["problems"]
    assert problem == (
        f"{variable} {tmp_path / 'file' / 'below'} is not writable (Not a directory): "
        f"mend {tmp_path / 'file'}, or set {variable} to another folder."
    )


@pytest.mark.usefixtures("quick")
def test_a_full_disk_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.cli.doctor._ROOM", 1e18)
    said = CliRunner().invoke(app, ["doctor"])
    assert said.exit_code == 4
    full = r"^problem: WORKBENCH_HOME .* has [\d,]+ MB free, expected 1,000,000,000,000: make room"
    assert re.search(full, said.stdout, flags=re.M)


def test_a_torch_that_does_not_load_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    said = CliRunner().invoke(app, ["doctor"])
    assert said.exit_code == 4
    assert re.search("^torch +cannot be imported$", said.stdout, flags=re.M)
    assert "problem: torch cannot be imported (import of torch halted" in said.stdout
    assert "install it again by `pip install torch`" in said.stdout


@pytest.mark.usefixtures("quick")
def test_what_was_fetched_is_listed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    assert "datasets fetched  none\n" in CliRunner().invoke(app, ["doctor"]).stdout
    file = tmp_path / "data" / "cifar10" / "cifar10.safetensors"
    file.parent.mkdir(parents=True)
    file.write_bytes(bytes(2_000_000))
    assert "datasets fetched  cifar10 (2 MB)\n" in CliRunner().invoke(app, ["doctor"]).stdout
