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


PAGES = [
    ROOT / "README.md",
    ROOT / "notebooks" / "README.md",
    *sorted((ROOT / "docs").glob("*.md")),
]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: f"{page.parent.name}/{page.name}")
def test_every_command_and_option_is_there(page: Path) -> None:
    known = get_command(app).commands  # type: ignore[attr-defined]
    text = page.read_text(encoding="utf-8").replace("\\\n", " ")
    lines = re.findall(r"^(?:\$ |.*bin/)?workbench (\w+)(.*)", text, flags=re.M)
    assert lines or page.stem in ("testing-notebooks", "essays", "views")
    for name, rest in lines:
        assert name in known, name
        options = {option for param in known[name].params for option in param.opts}
        assert set(re.findall(r"(?<= )--?[a-z][a-z-]*", rest)) <= options | {"--help"}, rest
