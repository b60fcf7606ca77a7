"""The README promises only what is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from typer.main import get_command

from workbench.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_example_runs(capsys: pytest.CaptureFixture[str]) -> None:
    example = re.search(r"```python\n(.*?)```", README, flags=re.S)
    assert example is not None
    exec(compile(example[1], "README.md", "exec"), {})  # the README's own words
    accuracy, ref, url, *labels = capsys.readouterr().out.split()
    assert float(accuracy) > 0.9
    assert ref == "digits-mlp@1"
    assert url.startswith("http://127.0.0.1:")
    assert len(labels) == 3


@pytest.mark.full
def test_the_training_example_reaches_84_percent(capsys: pytest.CaptureFixture[str]) -> None:
    example = re.findall(r"```python\n(.*?)```", README, flags=re.S)[1]
    exec(compile(example, "README.md", "exec"), {})
    assert float(capsys.readouterr().out.split()[-1]) >= 0.84


def test_every_command_is_there() -> None:
    known = get_command(app).commands  # type: ignore[attr-defined]
    named = set(re.findall(r"^workbench (\w+)", README, flags=re.M))
    assert named
    assert named <= set(known)


def test_every_link_leads_somewhere() -> None:
    links = re.findall(r"\]\(([^)#]+)\)", README)
    assert links
    assert [link for link in links if not (ROOT / link).exists()] == []


def test_every_make_target_is_there() -> None:
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), flags=re.M)
    named = set(re.findall(r"^make (\w+)", README, flags=re.M)) | {"lab"}
    assert named <= set(targets)
