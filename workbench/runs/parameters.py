"""The parameters of a notebook: what its tagged cell declares, and values checked against it.

The cell is read with `ast`, never executed. Whatever is wrong with a value is said before a kernel
starts.
"""

from __future__ import annotations

import ast
import json
import math
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from difflib import get_close_matches
from itertools import zip_longest
from pathlib import Path, PurePath
from typing import Any

import yaml

from workbench.errors import RequestError, UnknownNameError
from workbench.runs.annotations import FAULTS, Kind, Limit, literal, notes_of, statements, typed
from workbench.runs.notebooks import has_tag, tagged
from workbench.types import JSON

__all__ = [
    "Parameter",
    "bind",
    "declared",
    "help_text",
    "inject",
    "is_plain",
    "parse_assignments",
    "read_file",
    "schema",
    "source_of",
    "value_of",
]

_INJECTED = "injected-parameters"
_SECRET = re.compile(r"(?i)(passw(or)?d|secret|token|api_?key|(access|private)_key|credentials?)$")
_PATH = re.compile(r"(\w+\.)*\bPath\b")  # as a notebook spells it
_IMPORTED_PATH = '__import__("pathlib").Path'  # where it does not
_WORDS = {"none": None, "inf": math.inf, "-inf": -math.inf, "nan": math.nan}
_LONGEST = 10_000  # bits of an integer in decimal; Python refuses to read very many digits
_SCALARS = (type(None), bool, int, float, str)


@dataclass(frozen=True)
class Parameter:
    """One name that the `parameters` cell assigns.

    Args:
        name: what it is called.
        default: its value, where that is a literal.
        literal: whether it is; that of `half = epochs / 2` is not.
        source: the default as it is written.
        type: the annotation as it is written, else the type of the default.
        kind: the values of that type.
        annotation: the annotation, or None.
        help: the comment at the end of its line, else those above, without the limit; or None.
        limit: the comparisons in that comment.
    """

    name: str
    default: Any
    literal: bool
    source: str
    type: str
    kind: Kind = field(repr=False, compare=False)
    annotation: str | None
    help: str | None
    limit: Limit

    @property
    def is_secret(self) -> bool:
        """Whether it takes a text that its name says is secret."""
        named = bool(_SECRET.search(self.name))
        return named and self.kind.takes("") and isinstance(self.kind.accept(""), str)

    def shown(self) -> Any:
        """Return the default as JSON can hold it: the value, else its source; no secret."""
        if self.is_secret:
            return "(secret)"
        return self.default if self.literal and is_plain(self.default) else self.source

    def check(self, value: Any) -> Any:
        """Return the value in this parameter's type.

        Raises:
            RequestError: it is of another type, outside a limit, or not plain data.
        """
        try:
            taken = self.kind.accept(value)
            literal(source_of(taken))  # as the notebook will
        except FAULTS:
            raise self._refusal(value, self._expected(value)) from None
        if not self.limit.holds(taken):
            raise self._refusal(value, self.limit.text)
        return taken

    def _check_default(self) -> None:
        """Check that the default is what its own line allows, and not what could be made that."""
        try:
            taken = self.check(self.default)
            if taken != self.default and repr(taken) != repr(self.default):
                raise self._refusal(self.default, self.type)
        except RequestError as error:
            raise RequestError(f"a default in the cell tagged 'parameters': {error}") from None

    def _expected(self, value: Any) -> str:
        if self.kind.takes(value):
            return "plain data: what Python's literals can spell"
        words = [choice for choice in self.kind.choices if isinstance(choice, str)]
        near = get_close_matches(value, words, n=1) if isinstance(value, str) else []
        is_inferred = self.literal and not self.annotation and not self.is_secret
        hint = f": did you mean {near[0]}?" if near else ""
        return self.type + (f" as its default {self.default!r:.80} is" if is_inferred else hint)

    def _refusal(self, value: Any, expected: str) -> RequestError:
        text = source_of(value) if type(value) is int else repr(value)  # of however many digits
        found = f"{type(value).__name__} {'(secret)' if self.is_secret else text:.80}"
        return RequestError(f"parameter {self.name!r} got {found}, expected {expected}")


def declared(notebook: Any) -> dict[str, Parameter] | None:
    """Return the parameters of the first cell tagged `parameters`, or None without such a cell.

    Raises:
        RequestError: the cell is not Python, or a default is not of its own type or limit.
    """
    place = tagged(notebook, "parameters")
    if place is None:
        return None
    body, source = statements(notebook.cells[place].source)
    read = [_parameter(node, source) for node in body]
    return {parameter.name: parameter for parameter in read if parameter}


def parse_assignments(pairs: Iterable[str], known: Mapping[str, Parameter]) -> JSON:
    """Return the values of `name=value` texts, each read as its parameter's type would have it.

    A value is a Python literal, JSON, or a word; where its type asks for text, it stays text.

    Args:
        pairs: as given to `-p`, for instance `"lr=0.1"`.
        known: the notebook's parameters.

    Raises:
        RequestError: a text has no name or no equals sign.
    """
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        name = name.strip()
        if not equals or not name.isidentifier():
            raise RequestError(f"-p {pair!r} is not an assignment: write -p name=value")
        readings = list(_readings(text))
        fitting = [value for value in readings if name in known and known[name].kind.takes(value)]
        values[name] = [*fitting, *readings][0]
    return values


def read_file(path: Path) -> JSON:
    """Return the values that a YAML or JSON file gives: a mapping of names to values.

    Raises:
        RequestError: the file is missing, cannot be read, or holds no mapping.
    """
    try:
        text = path.read_text(encoding="utf-8")
        values = json.loads(text) if path.suffix == ".json" else yaml.load(text, _Loader)
    except OSError as error:
        raise RequestError(f"no parameters file {str(path)!r}: {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        raise RequestError(f"{path} is not YAML or JSON: {str(error).splitlines()[0]}") from None
    if not isinstance(values, dict) or not all(isinstance(name, str) for name in values):
        found = type(values).__name__
        raise RequestError(f"{path} holds a {found}, expected a mapping of names to values")
    return values


def bind(known: Mapping[str, Parameter] | None, given: Mapping[str, Any]) -> JSON:
    """Return the given values as the notebook will get them, each in its parameter's type.

    Args:
        known: what `declared` returned.
        given: values by name.

    Raises:
        UnknownNameError: the notebook has no such parameter.
        RequestError: a value is of another type, outside a limit, or not plain data; or the
            notebook has no cell tagged `parameters`.
    """
    if given and known is None:
        raise RequestError(
            f"the notebook has no cell tagged 'parameters', so {', '.join(given)} cannot be set: "
            "tag the cell that assigns the defaults"
        )
    for name in given:
        if name not in (known or {}):
            raise UnknownNameError("parameter", name, known or {})
    return {name: (known or {})[name].check(value) for name, value in given.items()}


def inject(notebook: Any, values: Mapping[str, Any]) -> None:
    """Put a cell that assigns `values` after the cell of the defaults, in place of an earlier one.

    Every value survives exactly, since it is written as the literal it is; but a secret comes from
    the variable `WORKBENCH_PARAMETER_<NAME>` of the kernel's environment, and is not written.
    """
    from nbformat.v4 import new_code_cell

    notebook.cells = [cell for cell in notebook.cells if not has_tag(cell, _INJECTED)]
    if not values:
        return
    known = declared(notebook) or {}
    lines = [f"{name} = {_assigned(name, value, known)}" for name, value in values.items()]
    source = "\n".join(["# Parameters of this run", *lines])
    cell = new_code_cell(source, id=_INJECTED, metadata={"tags": [_INJECTED]})
    notebook.cells.insert((tagged(notebook, "parameters") or 0) + 1, cell)


def source_of(value: Any, path: str = "Path") -> str:
    """Return the Python source of a value, of which `value_of` makes the same again.

    Args:
        value: literals and paths, nested as they may be.
        path: what makes a path there.

    Raises:
        ValueError: it is anything else.

    >>> print(source_of({"lr": (1e-3,), "clip": {float("inf")}}))
    {'lr': (0.001,), 'clip': {float("inf")}}
    """
    made = type(value)
    if isinstance(value, PurePath):
        return f"{path}({str(value)!r})"
    if made is dict:
        pairs = [f"{source_of(k, path)}: {source_of(v, path)}" for k, v in value.items()]
        return f"{{{', '.join(pairs)}}}"
    if made in (list, tuple, set, frozenset):
        items = [source_of(item, path) for item in value]
        inner = ", ".join(items if made in (list, tuple) else sorted(items))
        shapes: dict[type, str] = {
            **{list: f"[{inner}]", tuple: f"({inner}{',' * (len(items) == 1)})"},
            **{set: f"{{{inner}}}" if items else "set()", frozenset: f"frozenset([{inner}])"},
        }
        return shapes[made]
    if made is complex:
        return f"complex({source_of(value.real)}, {source_of(value.imag)})"
    if made not in (*_SCALARS, bytes):
        raise ValueError(f"no literal spells {made.__name__}")
    if made is float and not math.isfinite(value):
        return f'float("{value}")'
    return hex(value) if made is int and value.bit_length() > _LONGEST else repr(value)


def value_of(source: str) -> Any:
    """Return the value of a source that `source_of` wrote, without executing it.

    Raises:
        RequestError: it is more than literals and paths.
    """
    try:
        return literal(source)
    except FAULTS:
        raise RequestError(
            f"{source!r:.80} is not a value: expected Python literals, float('inf') or Path('x')"
        ) from None


def is_plain(value: Any) -> bool:
    """Return whether JSON can hold the value, a tuple as a list, and Python read its repr back."""
    if type(value) in (list, tuple):
        return all(map(is_plain, value))
    if type(value) is dict:
        return all(type(k) is str for k in value) and all(map(is_plain, [*value, *value.values()]))
    with suppress(ValueError, TypeError):  # not finite, half a character, of too many digits
        json.dumps(value, ensure_ascii=False, allow_nan=False).encode()
        return type(value) in _SCALARS
    return False


def schema(known: Mapping[str, Parameter] | None, title: str) -> JSON:
    """Return the JSON Schema (draft 2020-12) of the values that a notebook takes.

    Args:
        known: what `declared` returned.
        title: what it is called.
    """
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": title,
        "type": "object",
        "properties": {name: _property(parameter) for name, parameter in (known or {}).items()},
        "additionalProperties": False,
    }


def help_text(known: Mapping[str, Parameter] | None, title: str) -> str:
    """Return a table of the parameters, a row each, no wider than 100 columns.

    Args:
        known: what `declared` returned.
        title: the name of the notebook.
    """
    if not known:
        why = "it has no cell tagged" if known is None else "it assigns none in its cell tagged"
        return f"{title} takes no parameters: {why} 'parameters'"
    rows = [["name", "type", "default", "limit", "help"]]
    for name, parameter in known.items():
        default = "(secret)" if parameter.is_secret else " ".join(parameter.source.split())
        rows.append([name, parameter.type, default, parameter.limit.text, parameter.help or ""])
    return f"{title} takes these parameters, each set by -p name=value:\n\n{_table(rows)}"


class _Loader(yaml.SafeLoader):
    """YAML for which 1e-3 is a number, as everybody who writes it expects, and a date is text."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)
for _rules in _Loader.yaml_implicit_resolvers.values():
    _rules[:] = [rule for rule in _rules if rule[0] != "tag:yaml.org,2002:timestamp"]


def _parameter(node: ast.stmt, source: str) -> Parameter | None:
    """Return the parameter that a statement assigns, its default checked; None if it does not."""
    match node:
        case ast.Assign(targets=[ast.Name(id=name)], value=ast.expr() as value):
            annotation = None
        case ast.AnnAssign(target=ast.Name(id=name), value=ast.expr() as value):
            annotation = ast.get_source_segment(source, node.annotation)
        case _:
            return None
    written, kind = typed(annotation, value)
    if _SECRET.search(name) and not kind.schema:  # anything at all
        written, kind = typed("str | None", value)
    limit, note = notes_of(node, source, name)
    try:
        default, is_literal = literal(value), True
        source_of(default)  # which has no ellipsis
    except FAULTS:
        default, is_literal = None, False
    text = ast.get_source_segment(source, value) or ""
    made = Parameter(name, default, is_literal, text, written, kind, annotation, note, limit)
    if is_literal:
        made._check_default()
    return made


def _readings(text: str) -> Iterator[Any]:
    """Yield what a text can mean, the likeliest first, and at last the text."""
    for read in (literal, json.loads, _WORDS.__getitem__):
        with suppress(*FAULTS):
            yield read(text.strip())
    yield text


def _assigned(name: str, value: Any, known: Mapping[str, Parameter]) -> str:
    """Return what the injected cell assigns to `name`."""
    parameter = known.get(name)
    if parameter and parameter.is_secret and isinstance(value, str):
        return f'__import__("os").environ["WORKBENCH_PARAMETER_{name.upper()}"]'
    written = f"{parameter.source} {parameter.annotation}" if parameter else ""
    spelling = _PATH.search(written)
    return source_of(value, spelling[0] if spelling else _IMPORTED_PATH)


def _property(parameter: Parameter) -> JSON:
    """Return the JSON Schema of one parameter."""
    found = {**parameter.limit.schema(), **parameter.kind.schema}
    told = "; ".join(text for text in (parameter.help, parameter.limit.text) if text)
    found |= {"description": told} if told else {}
    default = parameter.default
    default = str(default) if isinstance(default, PurePath) else default
    if parameter.literal and is_plain(default) and not parameter.is_secret:
        found["default"] = json.loads(json.dumps(default))  # a tuple as a list
    return found | ({"writeOnly": True} if parameter.is_secret else {})


def _table(rows: list[list[str]]) -> str:
    """Return rows in aligned columns, their cells wrapped; a column of nothing is left out."""
    columns = [column for column in zip(*rows, strict=True) if any(column[1:])]
    widths = [max(map(len, column)) for column in columns]
    while sum(widths) + 2 * len(widths) > 100:
        widths[widths.index(max(widths))] -= 1
    lines = []
    for row in zip(*columns, strict=True):
        cells = [textwrap.wrap(cell, widths[place]) for place, cell in enumerate(row)]
        for parts in zip_longest(*cells, fillvalue=""):
            padded = (part.ljust(width) for part, width in zip(parts, widths, strict=True))
            lines.append(f"  {'  '.join(padded)}".rstrip())
    return "\n".join(lines)
