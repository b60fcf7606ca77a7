"""What a notebook's parameters are, and which values they take."""

from __future__ import annotations

import json
import math
import pathlib
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from nbformat.v4 import new_code_cell, new_notebook

from workbench.errors import RequestError, UnknownNameError
from workbench.runs.parameters import (
    Parameter,
    bind,
    declared,
    help_text,
    inject,
    is_plain,
    parse_assignments,
    read_file,
    schema,
    source_of,
    value_of,
)

CELL = """\
%matplotlib inline
epochs = 2  # passes over the data; 0 < epochs
lr: float = 1e-3
widths = (16, 32)
name = "mine"  # with a # in it
# how the weights
# are moved
optimizer: Literal["adam", "sgd"] = "adam"
limit: 'int | None' = 100
shape: tuple[int, int] = (1, 2)
rates: dict[str, float] = dict(stem=0.1, head=-1.0)
net: MyNet = None  # what to train
validation = None
root: pathlib.Path = pathlib.Path("x")
out = Path("y") / name
half = epochs / 2
title: str | None = ("two "
    "words")
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


def injected(source: str, given: dict[str, Any]) -> tuple[str, dict[str, Any]]:
    """Return the source of the injected cell, and what it assigns."""
    made = notebook(source)
    inject(made, bind(declared(made), given))
    got: dict[str, Any] = {"pathlib": pathlib, "Path": Path}
    exec(made.cells[2].source, got)
    return made.cells[2].source, {name: got[name] for name in given}


def test_the_cell_is_read_without_being_run() -> None:
    found = known()
    assert list(found) == [
        *["epochs", "lr", "widths", "name", "optimizer", "limit", "shape", "rates", "net"],
        *["validation", "root", "out", "half", "title"],
    ]
    assert [p.type for p in found.values()] == [
        *["int", "float", "tuple", "str", 'Literal["adam", "sgd"]', "int | None"],
        *["tuple[int, int]", "dict[str, float]", "MyNet (any literal)", "Any", "pathlib.Path"],
        *["Path", "Any", "str | None"],
    ]
    assert found["widths"].default == (16, 32)
    assert found["title"].default == "two words"
    assert found["rates"].default == {"stem": 0.1, "head": -1.0}
    assert (found["out"].literal, found["out"].source) == (False, 'Path("y") / name')


def test_comments_are_help_and_limits() -> None:
    found = known()
    assert {name: p.help for name, p in found.items() if p.help} == {
        "epochs": "passes over the data",
        "name": "with a # in it",
        "optimizer": "how the weights are moved",
        "net": "what to train",
    }
    assert {name: p.limit.text for name, p in found.items() if p.limit.text} == {
        "epochs": "0 < epochs"
    }


def test_a_default_that_json_cannot_hold_is_shown_as_its_source() -> None:
    found = known('kinds = {"a"}\nclip = 1e999\nbig = -5\nroot = Path("x")\nhalf = big / 2')
    shown = {name: parameter.shown() for name, parameter in found.items()}
    assert shown == {
        **{"kinds": '{"a"}', "clip": "1e999", "big": -5, "root": 'Path("x")', "half": "big / 2"}
    }


def test_no_tagged_cell_is_told_apart_from_an_empty_one() -> None:
    assert declared(new_notebook(cells=[new_code_cell("a = 1")])) is None
    assert declared(notebook("")) == {}


def test_the_first_tagged_cell_counts() -> None:
    cells = [new_code_cell(f"{n} = 1", metadata={"tags": ["parameters"]}) for n in "ab"]
    made = new_notebook(cells=cells)
    assert list(declared(made) or {}) == ["a"]
    inject(made, {"a": 2})
    assert [cell.source[-5:] for cell in made.cells] == ["a = 1", "a = 2", "b = 1"]


def test_a_cell_that_is_not_python_is_refused() -> None:
    with pytest.raises(RequestError, match=r"cell tagged 'parameters' is not Python: .* line 2"):
        declared(notebook("a = 1\nb = = 2"))
    with pytest.raises(RequestError, match=r"cell tagged 'parameters' is not Python: .* line 4"):
        declared(notebook("a = 1\n\n%magic\nb = = 2"))


@pytest.mark.parametrize(
    ("line", "wrong"),
    [
        ("lr: float = 'x'", "'lr' got str 'x', expected float"),
        ("lr = 0.1  # 0.5 < lr", "'lr' got float 0.1, expected 0.5 < lr"),
        ("lr: int = None", "'lr' got NoneType None, expected int"),
        ("lr: Literal['a'] = 'b'", r"'lr' got str 'b', expected Literal\['a'\]"),
        ("lr: tuple[int, ...] = [1]", r"'lr' got list \[1\], expected tuple\[int, \.\.\.\]"),
        ("lr: Path = 'x'", "'lr' got str 'x', expected Path"),
        ("lr = (1, 2)  # 0 < lr", r"'lr' got tuple \(1, 2\), expected 0 < lr"),
        ("api_key = 'abc'  # api_key == 'x'", r"'api_key' got str \(secret\), expected api_key =="),
    ],
)
def test_a_default_that_its_own_line_does_not_allow_is_refused(line: str, wrong: str) -> None:
    message = f"a default in the cell tagged 'parameters': parameter {wrong}"
    with pytest.raises(RequestError, match=message):
        declared(notebook(line))


def test_what_the_kernel_will_warn_of_is_no_concern_of_the_reader() -> None:
    found = known(r"""pattern = "\d"  # pattern != "\w"; 1or 2""")
    assert found["pattern"].default == r"\d"
    assert parse_assignments([r"validation='\d'"], known()) == {"validation": r"\d"}


def test_defaults_that_are_wider_than_their_literal_are_right() -> None:
    lines = ["a: float = 1", "b: list[float] = [1, 2]", "c: complex = 0.5", "d = float('nan')"]
    assert [p.default for p in known("\n".join(lines)).values()][:3] == [1, [1, 2], 0.5]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("lr=0.1", 0.1),
        ("lr=1e-3", 1e-3),
        ("lr=inf", math.inf),
        ("lr=-inf", -math.inf),
        ("epochs=3", 3),
        ("epochs=true", True),
        ("epochs=False", False),
        ("validation=null", None),
        ("validation=None", None),
        ("validation=none", None),
        ("validation=true", True),
        ("widths=(1, 2)", (1, 2)),
        ("widths=1,2", (1, 2)),
        ("widths=[1, 2]", [1, 2]),
        ("validation={'a': 1}", {"a": 1}),
        ('validation={"a": [true, null]}', {"a": [True, None]}),
        ("validation=some words", "some words"),
        ("validation=a=b", "a=b"),
        ("validation=", ""),
        ("optimizer=sgd", "sgd"),
        ("optimizer='sgd'", "sgd"),
        ("name=5", "5"),
        ("name='5'", "5"),
        ("name=null", "null"),
        ("name=[1, 2]", "[1, 2]"),
        ("name= padded ", " padded "),
        ("title=None", None),
        ("title=null", None),
        ("title=none", None),
        ("title=5", "5"),
        ("root=y", "y"),
        ("root=5", "5"),
        ("root=Path('y')", Path("y")),
        ("limit= none ", None),
        ("lr= 0.5", 0.5),
        ("unheard=5", 5),
    ],
)
def test_assignments_are_read_as_their_types_would_have_them(text: str, value: object) -> None:
    read = parse_assignments([text], known())[text.partition("=")[0]]
    assert (read, type(read)) == (value, type(value))


def test_words_of_a_literal_stay_words() -> None:
    found = known("cut: Literal['none', 'true', '1'] = 'none'\nn: Literal[1, None, True] = 1")
    texts = ["none", "true", "1"]
    assert [parse_assignments([f"cut={t}"], found)["cut"] for t in texts] == texts
    read = [parse_assignments([f"n={t}"], found)["n"] for t in texts]
    assert read == [None, True, 1]
    assert [type(value) for value in read] == [type(None), bool, int]


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
        ("epochs", 0, "int 0", "0 < epochs"),
        ("lr", "0.1", "str '0.1'", "float"),
        ("lr", True, "bool True", "float"),
        ("name", 5, "int 5", "str as its default 'mine' is"),
        ("widths", 5, "int 5", "tuple as its default (16, 32) is"),
        ("shape", [1, 2, 3], "list [1, 2, 3]", "tuple[int, int]"),
        ("optimizer", "agd", "str 'agd'", 'Literal["adam", "sgd"]: did you mean sgd?'),
        ("optimizer", 5, "int 5", 'Literal["adam", "sgd"]'),
        ("limit", "x", "str 'x'", "int | None"),
        ("root", 5, "int 5", "pathlib.Path"),
        ("out", 5, "int 5", "Path"),
        ("validation", object, "type <class 'object'>", "plain data: what Python's literals can"),
        ("net", [object], "list [<class 'object'>]", "plain data: what Python's literals can"),
    ],
)
def test_a_value_of_another_type_is_refused(
    name: str, value: object, found: str, expected: str
) -> None:
    with pytest.raises(RequestError) as caught:
        bind(known(), {name: value})
    message = str(caught.value)
    assert message.startswith(f"parameter '{name}' got {found}")
    assert f", expected {expected}" in message


def test_a_value_that_no_python_reads_back_is_refused() -> None:
    deep: list[Any] = []
    for _ in range(250):
        deep = [deep]
    endless: list[Any] = []
    endless.append(endless)
    for value in (deep, endless):
        with pytest.raises(RequestError, match=r"'validation' got list \[.*, expected "):
            bind(known(), {"validation": value})


def test_a_value_takes_its_parameters_type() -> None:
    given = {
        **{"lr": 1, "widths": [8, 9], "limit": None, "epochs": np.int64(3), "shape": [3, 4]},
        **{"rates": {"stem": np.float32(0.5), "head": 1}, "net": {"a": 1}, "half": "x"},
        **{"root": "a b", "out": "z"},
    }
    assert bind(known(), given) == {
        **{"lr": 1.0, "widths": (8, 9), "limit": None, "epochs": 3, "shape": (3, 4)},
        **{"rates": {"stem": 0.5, "head": 1.0}, "net": {"a": 1}, "half": "x"},
        **{"root": Path("a b"), "out": Path("z")},
    }
    got = bind(known(), given)
    kinds = [type(got[name]) for name in ("lr", "widths", "epochs", "out")]
    assert [*kinds, type(got["rates"]["stem"])] == [float, tuple, int, type(Path()), float]


def test_a_path_is_spelt_as_in_the_notebook() -> None:
    cell = """\
import pathlib as p
a = Path("x")
b: pathlib.Path | None = None
c: list[Path] = []
d = p.Path("x") / "y"
e = None
"""
    paths = {"a": "y", "b": Path("y"), "c": ["y"], "e": Path("y")}
    source, got = injected(cell, paths)
    assert source.splitlines()[1:] == [
        *["a = Path('y')", "b = pathlib.Path('y')", "c = [Path('y')]"],
        """e = __import__("pathlib").Path('y')""",
    ]
    assert got == {"a": Path("y"), "b": Path("y"), "c": [Path("y")], "e": Path("y")}


_KEYS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.binary(),
    lambda inner: st.lists(inner, max_size=3).map(tuple) | st.frozensets(inner, max_size=3),
    max_leaves=4,
)
_LITERALS = st.recursive(
    _KEYS
    | st.complex_numbers()
    | st.integers(10**400, 10**401)
    | st.text(st.characters(categories=["Cs", "Cc", "Zl", "So"]))
    | st.sets(_KEYS, max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(tuple)
        | st.dictionaries(_KEYS, inner, max_size=3)
    ),
    max_leaves=8,
)


def told(value: Any) -> Any:
    """Return a value with its types, all the way in, and NaN equal to itself."""
    made = type(value)
    if made in (list, tuple):
        return made, [told(item) for item in value]
    if made in (set, frozenset):
        return made, sorted(str(told(item)) for item in value)
    if made is dict:
        return made, [(told(key), told(item)) for key, item in value.items()]
    return made, repr(value)


@given(_LITERALS)
def test_an_injected_value_is_the_value_that_was_given(value: object) -> None:
    _, got = injected("x = None", {"x": value})
    assert told(got["x"]) == told(value)


@given(_LITERALS)
def test_a_source_is_read_back_to_the_value_and_evaluates_to_it(value: object) -> None:
    source = source_of(value)
    assert told(value_of(source)) == told(value) == told(eval(source))


@pytest.mark.parametrize(
    ("value", "source"),
    [
        ((), "()"), ((1,), "(1,)"), ([], "[]"), ({}, "{}"), (set(), "set()"),
        (set("dbeca"), "{'a', 'b', 'c', 'd', 'e'}"),
        (frozenset(), "frozenset([])"), (frozenset({1}), "frozenset([1])"), (-0.0, "-0.0"),
        (math.inf, 'float("inf")'), ([-math.inf], '[float("-inf")]'), (math.nan, 'float("nan")'),
        (1j, "complex(0.0, 1.0)"), ({1: (None, b"x")}, "{1: (None, b'x')}"), (True, "True"),
        (Path("a'b"), """Path("a'b")"""),
    ],
)  # fmt: skip
def test_sources_are_short_and_always_the_same(value: object, source: str) -> None:
    assert source_of(value) == source
    assert told(value_of(source)) == told(value)


def test_an_integer_of_very_many_digits_is_written_and_named_in_hexadecimal() -> None:
    number = 10**5000  # Python reads and writes 4300 digits at most
    assert injected("x = 1", {"x": -number})[1] == {"x": -number}
    with pytest.raises(RequestError, match=r"'lr' got int 0x[0-9a-f]{78}, expected float$"):
        bind(known(), {"lr": number})


def test_what_is_no_literal_has_no_source() -> None:
    for value in (object(), ..., np.float64(1), [np.int64(1)], range(3)):
        with pytest.raises(ValueError, match="no literal spells"):
            source_of(value)
    with pytest.raises(RequestError, match=r"'open\(1\)' is not a value: expected Python literals"):
        value_of("open(1)")


@given(_LITERALS)
def test_what_is_plain_survives_json(value: object) -> None:
    if is_plain(value):
        again = json.loads(json.dumps(value, allow_nan=False, ensure_ascii=False).encode())
        assert told(again) == told(_listed(value))


def _listed(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_listed(item) for item in value]
    return {k: _listed(v) for k, v in value.items()} if isinstance(value, dict) else value


def test_what_json_cannot_hold_is_not_plain() -> None:
    plain = [1, (2, [None]), {"a": True}, "x", 10**3000]
    strange = [
        math.nan,
        {1: 2},
        {1},
        b"x",
        1j,
        "\ud800",
        {"\ud800": 1},
        [math.inf],
        10**5000,
        Path(),
    ]
    assert [is_plain(value) for value in [*plain, *strange]] == [True] * 5 + [False] * 10


def test_a_later_injection_replaces_the_earlier() -> None:
    made = notebook("x = 1")
    inject(made, {"x": 2})
    inject(made, {"x": 3})
    assert [cell.source for cell in made.cells] == [
        *["import os", "x = 1", "# Parameters of this run\nx = 3", "print(1)"]
    ]
    inject(made, {})
    assert len(made.cells) == 3


@pytest.mark.parametrize(
    ("line", "is_secret"),
    [
        ("password = 'x'", True), ("DB_PASSWD = 'x'", True), ("client_secret: str = ''", True),
        ("hf_token = None", True), ("hf_token: str | None = None", True), ("apikey = 'x'", True),
        ("API_KEY: Secret = None", True), ("credentials = 'x'", True), ("my_access_key = ''", True),
        ("max_token = 5", False), ("private_key = Path('x')", False), ("tokens = 'x'", False),
        ("stop_token: Literal['a', 'b'] = 'a'", False), ("secret_size = 'x'", False),
    ],
)  # fmt: skip
def test_a_secret_is_known_by_its_name_and_its_type(line: str, is_secret: bool) -> None:
    (parameter,) = known(line).values()
    assert parameter.is_secret is is_secret
    assert (parameter.shown() == "(secret)") is is_secret


def test_a_secret_is_written_nowhere(monkeypatch: pytest.MonkeyPatch) -> None:
    cell = "api_key: str | None = None\npassword = 'old'"
    monkeypatch.setenv("WORKBENCH_PARAMETER_API_KEY", "12345")
    source, got = injected(cell, parse_assignments(["api_key=12345"], known(cell)))
    assert source.splitlines()[1:] == [
        'api_key = __import__("os").environ["WORKBENCH_PARAMETER_API_KEY"]'
    ]
    assert got == {"api_key": "12345"}
    assert injected(cell, {"api_key": None})[1] == {"api_key": None}
    with pytest.raises(RequestError, match=r"'password' got int \(secret\), expected str$"):
        bind(known(cell), {"password": 98765})
    shown = help_text(known(cell), "a.ipynb") + json.dumps(schema(known(cell), "a"))
    assert "old" not in shown


def test_files_give_values(tmp_path: Path) -> None:
    text = "lr: 1e-3\nepochs: 2\nwidths: [1, 2]\nname: on the way\nhalf: 2024-01-01\nlimit: null\n"
    (tmp_path / "a.yaml").write_text(text)
    read = read_file(tmp_path / "a.yaml")
    assert read == {
        **{"lr": 0.001, "epochs": 2, "widths": [1, 2], "name": "on the way"},
        **{"half": "2024-01-01", "limit": None},
    }
    assert bind(known(), read)["widths"] == (1, 2)
    (tmp_path / "a.json").write_text('{"lr": 1e-3}')
    assert read_file(tmp_path / "a.json") == {"lr": 0.001}
    assert str(yaml.safe_load("2024-01-01").year) == "2024"  # of everybody else's YAML


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


GOOD: list[tuple[str, Any]] = [
    ("epochs", 3), ("lr", 0.5), ("lr", 1), ("widths", []), ("widths", ["x", None]), ("name", "x"),
    ("optimizer", "sgd"), ("limit", None), ("limit", 3), ("shape", [1, 2]), ("rates", {"x": 1}),
    ("net", [1]), ("validation", {"a": None}), ("root", "x"), ("title", None), ("title", "x"),
]  # fmt: skip
BAD: list[tuple[str, Any]] = [
    ("epochs", "x"), ("epochs", 2.5), ("epochs", True), ("epochs", None), ("epochs", 0),
    ("lr", "0.5"), ("lr", False), ("widths", 5), ("widths", "ab"), ("name", 5), ("name", None),
    ("optimizer", "lion"), ("optimizer", None), ("limit", "x"), ("limit", [1]), ("shape", [1]),
    ("shape", [1, 2, 3]), ("shape", [1, "x"]), ("rates", {"x": "y"}), ("rates", [1]), ("root", 5),
    ("title", 5), ("epcohs", 3),
]  # fmt: skip


@pytest.mark.parametrize(("name", "value"), GOOD + BAD)
def test_the_json_schema_takes_what_bind_takes(name: str, value: object) -> None:
    found = schema(known(), "a.ipynb")
    Draft202012Validator.check_schema(found)
    is_good = (name, value) in GOOD and (name, value) not in BAD
    assert Draft202012Validator(found).is_valid({name: value}) is is_good
    if is_good:
        bind(known(), {name: value})
    else:
        with pytest.raises(RequestError):
            bind(known(), {name: value})


def test_the_json_schema_says_what_the_cell_says() -> None:
    found = schema(known("lr = 0.1  # the peak; 0 < lr <= 1\nw = (1, 2)\nhf_token = ''"), "a.ipynb")
    assert found == {
        **{"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "a.ipynb"},
        **{"type": "object", "additionalProperties": False},
        "properties": {
            "lr": {
                **{"type": "number", "exclusiveMinimum": 0, "maximum": 1, "default": 0.1},
                "description": "the peak; 0 < lr <= 1",
            },
            "w": {"type": "array", "items": {}, "default": [1, 2]},
            "hf_token": {"type": "string", "writeOnly": True},
        },
    }
    defaults = {
        n: p["default"] for n, p in schema(known(), "")["properties"].items() if "default" in p
    }
    assert defaults.keys() == known().keys() - {"out", "half"}
    assert Draft202012Validator(schema(known(), "")).is_valid(defaults)
    assert schema(None, "a")["properties"] == {}


def test_the_help_has_a_row_a_parameter() -> None:
    cell = "epochs = 2  # passes; 0 < epochs\nlr: float = 1e-3\nnet: MyNet = None\napi_key = 'x'"
    assert (
        help_text(known(cell), "a.ipynb")
        == """\
a.ipynb takes these parameters, each set by -p name=value:

  name     type                 default   limit       help
  epochs   int                  2         0 < epochs  passes
  lr       float                1e-3
  net      MyNet (any literal)  None
  api_key  str                  (secret)"""
    )


def test_long_help_is_wrapped_to_100_columns() -> None:
    words = " ".join(f"word{n}" for n in range(60))
    cell = (
        f"{CELL}kind: Literal{['a' * n for n in range(9, 20)]} = '{'a' * 9}'  # {words}\nx = 1  # x"
    )
    lines = help_text(known(cell), "a.ipynb").splitlines()[2:]
    assert max(map(len, lines)) <= 100
    assert re.sub(r"\s+", " ", " ".join(line[-30:] for line in lines)).count("word") >= 50
    assert [line.split()[0] for line in lines if line[2] != " "] == ["name", *known(cell)]


def test_a_notebook_without_parameters_says_so() -> None:
    assert help_text(None, "a.ipynb") == (
        "a.ipynb takes no parameters: it has no cell tagged 'parameters'"
    )
    assert help_text({}, "a.ipynb") == (
        "a.ipynb takes no parameters: it assigns none in its cell tagged 'parameters'"
    )
