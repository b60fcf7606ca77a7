"""What annotations, defaults and comments allow, against the types that Python itself makes."""

from __future__ import annotations

import ast
import math
import pathlib
import typing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from workbench.errors import RequestError
from workbench.runs.annotations import FAULTS, Kind, Limit, literal, notes_of, statements, typed

REFUSED = object()


def kind(annotation: str) -> Kind:
    written, found = typed(annotation, ast.Constant(None))
    assert "any literal" not in written
    return found


def accepted(annotation: str, value: object) -> object:
    found = kind(annotation)
    return found.accept(value) if found.takes(value) else REFUSED


# annotation, value, what becomes of it (as it is, if left out)
CASES: list[tuple[Any, ...]] = [
    ("int", 3),
    ("int", True, REFUSED),
    ("int", 3.5, REFUSED),
    ("int", "3", REFUSED),
    ("int", None, REFUSED),
    ("float", 0.5),
    ("float", 1, 1.0),
    ("float", True, REFUSED),
    ("float", "1", REFUSED),
    ("str", "x"),
    ("str", 5, REFUSED),
    ("bool", False),
    ("bool", 0, REFUSED),
    ("None", None),
    ("None", 0, REFUSED),
    ("Any", [1, None, "x"]),
    ("complex", 2, complex(2)),
    ("Optional[int]", None),
    ("Optional[int]", 3),
    ("Optional[int]", "x", REFUSED),
    ("int | None", None),
    ("'int | None'", 3),
    ("'None | str'", "x"),
    ("Optional['float']", 1, 1.0),
    ("typing.Optional[int]", None),
    ("Union[int, str]", "x"),
    ("typing.Union[int, str, None]", 1.5, REFUSED),
    ("float | int", 1),
    ("float | None", 1, 1.0),
    ("list[float] | list[int]", [1]),
    ("tuple[int, ...] | list[int]", [1]),
    ("Path | str", "x"),
    ("Literal['a', 'b']", "b"),
    ("Literal['a', 'b']", "c", REFUSED),
    ("Literal['a', 'b']", ["a"], REFUSED),
    ("typing.Literal[1, 2]", 2),
    ("t.Literal[1, 2]", True, REFUSED),
    ("Literal[True, None, -1, 'x']", -1),
    ("Literal[True, None, -1, 'x']", None),
    ("Literal[True, None, -1, 'x']", 1, REFUSED),
    ("int | Literal['auto']", "auto"),
    ("int | Literal['auto']", "out", REFUSED),
    ("list", [1, "x"]),
    ("list[int]", [1, 2]),
    ("list[int]", (1, 2), [1, 2]),
    ("list[int]", [1, 2.5], REFUSED),
    ("list[int]", 1, REFUSED),
    ("list[str]", "ab", REFUSED),
    ("List[float]", [1], [1.0]),
    ("tuple", [1, "x"], (1, "x")),
    ("tuple[int, ...]", [1, 2, 3], (1, 2, 3)),
    ("tuple[int, ...]", [], ()),
    ("tuple[int, int]", [1, 2], (1, 2)),
    ("tuple[int, int]", [1], REFUSED),
    ("tuple[int, int]", 1, REFUSED),
    ("tuple[int, str]", [1, 2], REFUSED),
    ("tuple[int]", [1], (1,)),
    ("tuple[()]", [], ()),
    ("tuple[()]", [1], REFUSED),
    ("Tuple[float, ...]", [[1]], REFUSED),
    ("list[tuple[int, float]]", [[1, 2], [3, 4]], [(1, 2.0), (3, 4.0)]),
    ("set[int]", [1, 2], {1, 2}),
    ("list[int]", {1}, REFUSED),
    ("dict", {"a": 1}),
    ("dict[str, float]", {"a": 1}, {"a": 1.0}),
    ("dict[str, float]", {"a": "x"}, REFUSED),
    ("dict[str, float]", [1], REFUSED),
    ("Dict[str, list[int]]", {"a": [1]}),
    ("Path", "x", Path("x")),
    ("pathlib.Path", Path("x")),
    ("Path | None", None),
    ("Path", 5, REFUSED),
]
PYTHON_ONLY: list[tuple[Any, ...]] = [  # what JSON cannot spell
    ("frozenset[int]", {1}, frozenset({1})),
    ("set", [[1]], REFUSED),
    ("bytes", b"x"),
    ("bytes", "x", REFUSED),
    ("dict[int, str]", {1: "x"}),
    ("dict[int, str]", {"1": "x"}, REFUSED),
    ("int", 3.0, REFUSED),
    ("float", 10**400, REFUSED),
    ("int | None", 10**5000),
    ("int", np.int64(3), 3),
    ("float", np.float32(0.5), 0.5),
    ("float", np.int8(1), 1.0),
    ("bool", np.True_, True),
    ("int", np.True_, REFUSED),
    ("Literal[1, 2]", np.int64(2), 2),
    ("list[float]", [np.float64(0.5), 1], [0.5, 1.0]),
    ("Any", {"a": (np.float64(0.5), [np.int64(1)])}, {"a": (0.5, [1])}),
    ("int", np.array([3]), REFUSED),
]


@pytest.mark.parametrize("case", CASES + PYTHON_ONLY)
def test_a_value_takes_the_annotated_type(case: tuple[Any, ...]) -> None:
    annotation, value, expected = (*case, case[1])[:3]
    got = accepted(annotation, value)
    assert (type(got), got) == (type(expected), expected)
    if isinstance(got, list | tuple | dict):
        assert str(got) == str(expected)  # as far in as it goes


@pytest.mark.parametrize("case", CASES)
def test_the_json_schema_of_a_kind_agrees(case: tuple[Any, ...]) -> None:
    annotation, value, expected = (*case, case[1])[:3]
    if isinstance(value, tuple | set | Path):
        return  # JSON has none
    validator = Draft202012Validator(kind(annotation).schema)
    Draft202012Validator.check_schema(kind(annotation).schema)
    assert validator.is_valid(value) is (expected is not REFUSED)


@pytest.mark.parametrize(
    "annotation",
    [*("MyNet", "torch.float", "list[MyNet]", "MyNet | None", "Callable[[int], str]", "dict[str]"),
     *("Literal[x]", "'not a type'", "list[int, int]", "tuple[...]", "Literal", "f(1)")],
)  # fmt: skip
def test_an_annotation_that_is_not_understood_takes_anything_and_says_so(annotation: str) -> None:
    written, found = typed(annotation, ast.Constant(None))
    assert written == f"{annotation} (any literal)"
    assert (found.accept([1, "x"]), found.schema) == ([1, "x"], {})


@pytest.mark.parametrize(
    ("default", "name"),
    [
        ("2", "int"), ("-3", "int"), ("1e-3", "float"), ("'a' 'b'", "str"), ("True", "bool"),
        ("(1, 2)", "tuple"), ("[1]", "list"), ("{1: 2}", "dict"), ("dict(a=1)", "dict"),
        ("set()", "set"), ("{1}", "set"), ("frozenset([1])", "frozenset"), ("b'x'", "bytes"),
        ("1j", "complex"), ("float('inf')", "float"), ("-float('inf')", "float"),
        ("Path('x')", "Path"), ("pathlib.Path('x') / name / 'y'", "Path"), ("Path.home()", "Path"),
        ("None", "Any"), ("epochs / 2", "Any"), ("2 / 3", "Any"), ("f(x)", "Any"), ("...", "Any"),
        ("Path('x').name", "Any"), ("Path('x').exists()", "Any"), ("f'{x}'", "Any"),
    ],
)  # fmt: skip
def test_without_an_annotation_the_type_is_that_of_the_default(default: str, name: str) -> None:
    assert typed(None, ast.parse(default, mode="eval").body)[0] == name


@pytest.mark.parametrize(
    "text",
    [*("x", "f(1)", "open('x')", "[x]", "{**{}}", "1 + 2", "dict(**x)", "float('x')", "{[]: 1}"),
     *("1 if 2 else 3", "(", "", "\0", "dict(1)", "[" * 5000, "float.fromhex('1')", "{*[1]}")],
)  # fmt: skip
def test_what_is_more_than_literals_has_no_value(text: str) -> None:
    with pytest.raises(FAULTS):
        literal(text)


@given(st.from_type(int) | st.floats(allow_nan=False) | st.text() | st.binary() | st.none())
def test_a_literal_is_read_as_python_reads_it(value: object) -> None:
    text = repr(value) if value not in (math.inf, -math.inf) else f"float('{value}')"
    assert literal(text) == literal(f"[{text}]")[0] == value == eval(text)


def noted(line: str) -> tuple[str, str | None]:
    """Return the limit and the help that the last statement's comment has."""
    node = ast.parse(line).body[-1]
    limit, rest = notes_of(node, line, ast.unparse(node).split()[0].rstrip(":"))
    return limit.text, rest


@pytest.mark.parametrize(
    ("comment", "limit", "rest"),
    [
        ("peak learning rate; 0 < lr <= 1", "0 < lr <= 1", "peak learning rate"),
        ("0 < lr", "0 < lr", None),
        ("0<lr<=1", "0<lr<=1", None),
        ("lr > 0, the peak", "lr > 0", "the peak"),
        ("the peak (0 < lr <= 1)", "0 < lr <= 1", "the peak"),
        ("the peak (0 < lr <= 1) of Adam", "0 < lr <= 1", "the peak of Adam"),
        ("the peak 1e-5 <= lr", "1e-5 <= lr", "the peak"),
        ("the peak, must be 0 < lr <= 1.", "0 < lr <= 1", "the peak."),
        ("one of lr in (0.1, 0.2)", "lr in (0.1, 0.2)", "one of"),
        ("lr not in [1, 2]; the peak", "lr not in [1, 2]", "the peak"),
        ("lr != 0; lr > -1; the peak", "lr != 0 and lr > -1", "the peak"),
        ("0 < lr and lr <= 1", "0 < lr and lr <= 1", None),
        ("the peak - 0 < lr", "0 < lr", "the peak"),
        ("lr == 'a, b'", "lr == 'a, b'", None),
        ("off if lr < 0", "", "off if lr < 0"),
        ("off when lr > 0 and lr < 1", "", "off when lr > 0 and lr < 1"),
        ("lr < 0 means none", "", "lr < 0 means none"),
        ("rate < lr", "", "rate < lr"),
        ("0 < rate < lr", "", "0 < rate < lr"),
        ("0 < cfg.lr", "", "0 < cfg.lr"),
        ("not lr < 1", "", "not lr < 1"),
        ("lr < lr", "", "lr < lr"),
        ("the lr of 5", "", "the lr of 5"),
        ("", "", None),
    ],
)
def test_a_comparison_in_the_comment_is_a_limit(comment: str, limit: str, rest: str | None) -> None:
    assert noted(f"lr = 0.1  # {comment}") == (limit, rest)


def test_the_comment_is_at_the_end_or_right_above() -> None:
    assert noted("x = 1\n# far\n\n# one\n#: two; 0 < a\na: int = 1") == ("0 < a", "one two")
    assert noted("# above\na = 1  # end") == ("", "end")
    assert noted("b = 1  # of b\na = 1") == ("", None)
    assert noted("a = (  # inner\n  '# no',\n)  # end") == ("", "end")
    assert noted("a = '''\n# no\n'''") == ("", None)


@pytest.mark.parametrize(
    ("text", "inside", "outside"),
    [
        ("0 < x <= 1", [0.5, 1, None, "auto"], [0, -1, 2, math.nan, [0.5]]),
        ("1 >= x", [1, 0], [1.5]),
        ("x in (1, 'a')", [1, "a", None], [2, "b", [1]]),
        ("x not in (1, 2)", [3], [1]),
        ("x == 3", [3, None], [4]),
        ("0 != x", [3], [0]),
    ],
)
def test_a_limit_holds_as_python_says_and_as_its_schema_does(
    text: str, inside: list[Any], outside: list[Any]
) -> None:
    line = f"x = 1  # {text}"
    limit, _ = notes_of(ast.parse(line).body[0], line, "x")
    assert {limit.holds(value) for value in inside} == {True}
    assert {limit.holds(value) for value in outside} == {False}
    numbers = [x for x in inside + outside if type(x) in (int, float) and not math.isnan(x)]
    held = [limit.holds(x) for x in numbers]
    assert held == [eval(text, {"x": x}) for x in numbers]
    validator = Draft202012Validator(limit.schema())
    assert held == [validator.is_valid(x) for x in numbers]
    assert validator.is_valid(None)  # where the type allows it


def test_a_bound_that_json_has_no_number_for_is_left_out_of_the_schema() -> None:
    line = "x = 1  # x < 1e999"
    assert notes_of(ast.parse(line).body[0], line, "x")[0].schema() == {}
    assert (Limit().holds(5), Limit().schema()) == (True, {})


def test_magics_are_left_out_only_where_they_are_none_of_the_text() -> None:
    cell = "%matplotlib inline\na = 1\n\n!ls\n  %time\nfiles = !ls"
    body, source = statements(cell)
    assert ([ast.unparse(node) for node in body], source.count("\n")) == (["a = 1"], 5)
    text = "a = '''\n%d\n'''"
    assert statements(text)[1] == text
    with pytest.raises(RequestError, match=r"'parameters' is not Python: invalid syntax in its li"):
        statements("%magic\na = = 1")


def test_the_names_of_the_modules_mean_their_types() -> None:
    for module, name in ((typing, "Literal"), (typing, "Optional"), (pathlib, "Path")):
        assert hasattr(module, name)
    assert accepted("typing_extensions.Literal['a']", "a") == "a"
    assert accepted("builtins.int", 1) == 1
