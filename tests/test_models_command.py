"""`workbench models`, `show`, `promote`, `retire`, `export` and their like."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from workbench.cli import app
from workbench.datasets import dataset
from workbench.errors import RequestError
from workbench.evaluation import evaluate
from workbench.home import home
from workbench.models import build
from workbench.registry import history, publish, version
from workbench.training import fit

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
DATA = dataset("points", train=(X, torch.arange(12) % 3))


def told(*words: str) -> str:
    """Return what a command prints to stdout."""
    result = CliRunner().invoke(app, list(words), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.stdout


def warned(*words: str) -> str:
    return CliRunner().invoke(app, list(words), catch_exceptions=False).stderr


@pytest.fixture(autouse=True)
def two_versions() -> None:
    for _ in range(2):
        model = build("linear", DATA, seed=0)
        fit(model, DATA, steps=1)
        publish(model, "net", evaluation=evaluate(model, DATA.train))


def test_models_says_what_each_version_is() -> None:
    assert told("promote", "net@1", "champion", "--why", "better") == "net@champion is net@1\n"
    assert history("net")[-1]["why"] == "better"
    told("promote", "net@1", "best")
    assert told("retire", "net@2", "--why", "slow").startswith(
        "net@2 is retired; workbench restore"
    )
    (line,) = told("models").splitlines()
    assert line.startswith("net@1  20")
    assert line.endswith("  best, champion")
    assert warned("models") == "1 retired: workbench models --all\n"
    assert told("models", "--all").splitlines()[1].endswith("  retired")
    assert warned("models", "--all") == ""
    assert told("restore", "net@2") == "net@2 is in use\n"
    assert told("demote", "net@best") == "net@best is no alias any more\n"
    assert len(told("models").splitlines()) == 2


def test_models_as_json_is_cards_and_what_they_are() -> None:
    told("promote", "net@1", "champion")
    told("retire", "net@2")
    (one,) = json.loads(told("models", "--json"))
    assert one == {**version("net@1").card, "aliases": ["champion"], "retired": False}
    assert [row["retired"] for row in json.loads(told("models", "--json", "--all"))] == [
        False,
        True,
    ]


def test_a_damaged_log_hides_no_model() -> None:
    (home() / "models" / "net" / "log.jsonl").write_text("{}\n")
    assert len(told("models").splitlines()) == 2
    assert "warning: line 1 of " in warned("models")


def test_show_says_how_it_stands_and_how_that_came() -> None:
    told("promote", "net@1", "champion", "--why", "first")
    told("promote", "net@2", "champion")
    told("retire", "net@1", "--why", "old")
    lines = told("show", "net@1").splitlines()
    rows = dict(line.split("  ", 1) for line in lines if not line.startswith("log"))
    rows = {name: value.strip() for name, value in rows.items()}
    assert (rows["aliases"], rows["retired"]) == ("none", "yes: neither promoted nor served")
    assert rows["reference"] == "12 training rows, to measure drift against"
    log = [line.split("  ") for line in lines if line.startswith("log")]
    assert [words[2:3] + words[4:] for words in log] == [
        ["promote 1 champion", "first"],
        ["promote 2 champion instead of 1"],
        ["retire 1", "old"],
    ]
    data = json.loads(told("show", "net@champion", "--json"))
    assert (data["version"], data["aliases"], len(data["log"])) == (2, ["champion"], 1)


def test_rollback_says_what_an_alias_is_again() -> None:
    for number in (1, 2):
        told("promote", f"net@{number}", "champion")
    assert told("rollback", "net@champion", "--why", "it errs") == "net@champion is net@1 again\n"
    line = told("show", "net@champion").splitlines()[-1]
    assert line.split("  ")[2] == "rollback 1 champion instead of 2"
    assert line.endswith("  it errs")


def test_a_version_goes_out_and_comes_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = told("export", "net@2", str(tmp_path)).strip()
    assert file == str(tmp_path / "net@2.zip")
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "elsewhere"))
    assert told("import", file) == "net@2\n"
    assert "imported" in told("show", "net@2")
    with pytest.raises(RequestError, match="export writes one, as in"):
        told("import", str(tmp_path / "nothing.zip"))
