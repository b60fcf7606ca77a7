"""What a notebook's parameters are, and which values they take."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_notebook

from workbench.errors import RequestError, UnknownNameError
from workbench.runs.parameters import (
    Parameter,
    bind,
    declared,
    inject,
    parse_assignments,
    read_file,
)

CELL = """\
%matplotlib inline
epochs = 2  # passes over the data
lr: float = 1e-3
widths = (16, 32)
name = "mine"  # with a # in it
limit: int | None = 100
validation = None
root = Path("x")
half = epochs / 2
a, b = 1, 2
if epochs:
    hidden = 1
"""


def notebook(source: str) -> Any:
    cell = new_code_cell(source, metadata={"tags": ["parameters"]})
    return new_notebook(cells=[new_code_cell("import os"), cell, new_code_cell("print(1)")])


def known(source: str = CELL) -> dict[str, Parameter]:
    found = declared(notebook(source))
    assert found is not None
    return found


def test_the_cell_is_read_without_being_run() -> None:
    found = known()
    assert list(found) == [
        *["epochs", "lr", "widths", "name", "limit", "validation", "root", "half"]
    ]
    assert found["epochs"] == Parameter("epochs", 2, True, "2", None, "passes over the data")
    assert found["lr"] == Parameter("lr", 0.001, True, "1e-3", "float", None)
    assert found["widths"].default == (16, 32)
    assert found["name"].help == "with a # in it"
    assert (found["root"].literal, found["root"].source) == (False, 'Path("x")')


def test_a_default_that_json_cannot_hold_is_shown_as_its_source() -> None:
    found = known('kinds = {"a"}\nclip = 1e999\nbig = -5\nroot = Path("x")')
    shown = {name: parameter.shown() for name, parameter in found.items()}
    assert shown == {"kinds": '{"a"}', "clip": "1e999", "big": -5, "root": 'Path("x")'}


def test_no_tagged_cell_is_told_apart_from_an_empty_one() -> None:
    assert declared(new_notebook(cells=[new_code_cell("a = 1")])) is None
    assert declared(notebook("")) == {}


def test_a_cell_that_is_not_python_is_refused() -> None:
    with pytest.raises(RequestError, match=r"cell tagged 'parameters' is not Python: .* line 2"):
        declared(notebook("a = 1\nb = = 2"))


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("lr=0.1", 0.1),
        ("lr=1e-3", 1e-3),
        ("epochs=3", 3),
        ("epochs=true", True),
        ("epochs=False", False),
        ("validation=null", None),
        ("validation=None", None),
        ("widths=(1, 2)", (1, 2)),
        ("widths=[1, 2]", [1, 2]),
        ("validation={'a': 1}", {"a": 1}),
        ("validation=some words", "some words"),
        ("validation=a=b", "a=b"),
        ("name=5", "5"),
        ("name='5'", "5"),
        ("name=null", "null"),
        ("title=None", None),
        ("title=null", None),
        ("title=none", None),
        ("title=5", "5"),
        ("validation=none", None),
        ("unheard=5", 5),
    ],
)
def test_assignments_are_literals_or_words(text: str, value: object) -> None:
    read = parse_assignments([text], known(f"{CELL}title: str | None = 'a'"))[
        text.partition("=")[0]
    ]
    assert (read, type(read)) == (value, type(value))


@pytest.mark.parametrize("text", ["lr", "=1", "a b=1", ""])
def test_what_is_not_an_assignment_is_refused(text: str) -> None:
    message = f"-p {text!r} is not an assignment: write -p name=value"
    with pytest.raises(RequestError, match=re.escape(message)):
        parse_assignments([text], {})


def test_a_misspelt_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match=r"parameter 'epcohs': did you mean epochs\?"):
        bind(known(), {"epcohs": 3})


def test_values_without_a_parameters_cell_are_refused() -> None:
    with pytest.raises(RequestError, match="no cell tagged 'parameters', so lr, a cannot be set"):
        bind(None, {"lr": 1, "a": 2})
    assert bind(None, {}) == {}


@pytest.mark.parametrize(
    ("name", "value", "found", "expected"),
    [
        ("epochs", "many", "str 'many'", "int as its default 2 is"),
        ("epochs", 1.5, "float 1.5", "int as its default 2 is"),
        ("epochs", True, "bool True", "int as its default 2 is"),
        ("epochs", None, "NoneType None", "int as its default 2 is"),
        ("lr", "0.1", "str '0.1'", "float as its default 0.001 is"),
        ("lr", True, "bool True", "float as its default 0.001 is"),
        ("name", 5, "int 5", "str as its default 'mine' is"),
        ("widths", 5, "int 5", r"tuple as its default \(16, 32\) is"),
        ("validation", {1, 2}, r"set \{1, 2\}", "plain data"),
        ("validation", float("nan"), "float nan", "plain data"),
        ("validation", {1: 2}, r"dict \{1: 2\}", "plain data"),
    ],
)
def test_a_value_of_another_type_is_refused(
    name: str, value: object, found: str, expected: str
) -> None:
    with pytest.raises(RequestError, match=f"parameter '{name}' got {found}, expected {expected}"):
        bind(known(), {name: value})


def test_a_value_takes_the_type_of_its_default() -> None:
    given = {"lr": 1, "widths": [8, 9], "limit": None, "epochs": np.int64(3), "root": "y"}
    got = bind(known(), given)
    assert got == {"lr": 1.0, "widths": (8, 9), "limit": None, "epochs": 3, "root": "y"}
    assert [type(value) for value in got.values()] == [float, tuple, type(None), int, str]


_SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
_PLAIN = st.recursive(
    _SCALARS.filter(lambda x: x not in (float("inf"), float("-inf"))),
    lambda inner: st.lists(inner) | st.lists(inner).map(tuple) | st.dictionaries(st.text(), inner),
    max_leaves=8,
)


@given(_PLAIN)
def test_an_injected_value_is_the_value_that_was_given(value: object) -> None:
    made = notebook("x = None")
    inject(made, bind(declared(made), {"x": value}))
    got: dict[str, object] = {}
    exec(made.cells[2].source, got)
    assert repr(got["x"]) == repr(value)


def test_a_later_injection_replaces_the_earlier() -> None:
    made = notebook("x = 1")
    inject(made, {"x": 2})
    inject(made, {"x": 3})
    assert [cell.source for cell in made.cells] == [
        *["import os", "x = 1", "# Parameters of this run\nx = 3", "print(1)"]
    ]
    inject(made, {})
    assert len(made.cells) == 3


def test_files_give_values(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("lr: 1e-3\nepochs: 2\nwidths: [1, 2]\nname: on the way\n")
    assert read_file(tmp_path / "a.yaml") == {
        **{"lr": 0.001, "epochs": 2, "widths": [1, 2], "name": "on the way"}
    }
    (tmp_path / "a.json").write_text('{"lr": 1e-3}')
    assert read_file(tmp_path / "a.json") == {"lr": 0.001}


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("a.yaml", "[1, 2]", "holds a list, expected a mapping of names to values"),
        ("a.yaml", "1: 2", "holds a dict, expected a mapping of names to values"),
        ("a.yaml", "a: [", "is not YAML or JSON"),
        ("a.yaml", "a: !!python/object/apply:os.system [ls]", "is not YAML or JSON"),
        ("a.json", "{", "is not YAML or JSON"),
    ],
)
def test_a_bad_file_is_refused(tmp_path: Path, name: str, text: str, message: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(RequestError, match=message):
        read_file(tmp_path / name)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no parameters file '.*b.yaml': No such file"):
        read_file(tmp_path / "b.yaml")
