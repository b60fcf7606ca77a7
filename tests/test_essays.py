"""The page of common mistakes: its code does what it says, its sections are in the notebooks."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import nbformat
import pytest
from lessons import NOTEBOOKS

from workbench.runs.notebooks import headings

PAGE = (Path(__file__).parent.parent / "docs" / "essays.md").read_text(encoding="utf-8")
SECTIONS = re.findall(r"^## (\d) (.*?)(?=^## |\Z)", PAGE, flags=re.M | re.S)
each = pytest.mark.parametrize(("number", "text"), SECTIONS, ids=[number for number, _ in SECTIONS])


def test_every_lesson_has_a_section() -> None:
    assert [int(number) for number, _ in SECTIONS] == [1, 2, 3, 4, 5]


@each
def test_the_wrong_and_the_corrected_code_do_what_is_said(number: str, text: str) -> None:
    blocks = re.findall(r"```python\n(.*?)```", text, flags=re.S)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        assert "assert" in block
        exec(compile(block, f"essays.md, section {number}", "exec"), names)


@each
def test_what_is_shown_is_in_the_notebook(number: str, text: str) -> None:
    rows = re.findall(r"^\|.*\| \"(.*)\" \|$", text, flags=re.M)
    (path,) = [path for path in NOTEBOOKS if path.stem.startswith(f"0{number}")]
    known = set(headings(nbformat.read(path, 4)))
    assert rows
    assert f"(../notebooks/{path.name})" in text
    assert set(rows) <= known
