"""The parameters of a notebook: what its tagged cell declares, and values checked against it.

The cell is read with `ast`, never executed. Whatever is wrong with a value is said before a kernel
starts.
"""

from __future__ import annotations

import ast
import io
import json
import math
import re
import tokenize
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from workbench.errors import RequestError, UnknownNameError
from workbench.runs.notebooks import has_tag, tagged
from workbench.types import JSON

__all__ = ["Parameter", "bind", "declared", "inject", "parse_assignments", "read_file"]

_INJECTED = "injected-parameters"
_WORDS = {"true": True, "false": False, "null": None, "none": None}
_SCALARS = (type(None), bool, int, float, str)


@dataclass(frozen=True)
class Parameter:
    """One name that the `parameters` cell assigns.

    Args:
        name: what it is called.
        default: its value, where that is a literal.
        literal: whether it is; the default of `root = Path("x")` is not, and takes any value.
        source: the default as it is written.
        annotation: the annotation as it is written, or None.
        help: the comment at the end of its line, or None.
    """

    name: str
    default: Any
    literal: bool
    source: str
    annotation: str | None = None
    help: str | None = None

    @property
    def nullable(self) -> bool:
        """Whether None is a value for it."""
        noted = self.annotation or ""
        return self.default is None or "None" in noted or "Optional" in noted

    def shown(self) -> Any:
        """Return the default as JSON can hold it: the value, else its source."""
        return self.default if self.literal and _is_plain(self.default) else self.source


def declared(notebook: Any) -> dict[str, Parameter] | None:
    """Return the parameters of the first cell tagged `parameters`, or None without such a cell.

    Raises:
        RequestError: the cell is not Python.
    """
    place = tagged(notebook, "parameters")
    if place is None:
        return None
    source = re.sub(r"^\s*[%!].*$", "", notebook.cells[place].source, flags=re.MULTILINE)
    try:
        body = ast.parse(source).body
    except SyntaxError as error:
        raise RequestError(
            f"the cell tagged 'parameters' is not Python: {error.msg} in its line {error.lineno}"
        ) from None
    comments = _comments(source)
    read = [_parameter(node, source, comments) for node in body]
    return {parameter.name: parameter for parameter in read if parameter}


def parse_assignments(pairs: Iterable[str], known: Mapping[str, Parameter]) -> JSON:
    """Return the values of `name=value` texts: Python literals, true, false, null, else strings.

    Args:
        pairs: as given to `-p`, for instance `"lr=0.1"`.
        known: the notebook's parameters; where a default is a string, a bare value stays one.

    Raises:
        RequestError: a text has no name or no equals sign.
    """
    values = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        if not equals or not name.strip().isidentifier():
            raise RequestError(f"-p {pair!r} is not an assignment: write -p name=value")
        name = name.strip()
        value = _literal(text)
        parameter = known.get(name)
        stays = parameter is not None and isinstance(parameter.default, str)
        if stays and value is None and parameter is not None and parameter.nullable:
            stays = False
        values[name] = text if stays and not isinstance(value, str) else value
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
    """Return the given values as the notebook will get them, each checked against its default.

    Args:
        known: what `declared` returned.
        given: values by name.

    Raises:
        UnknownNameError: the notebook has no such parameter.
        RequestError: a value is not of its default's type, is not plain data, or the notebook has
            no cell tagged `parameters`.
    """
    if given and known is None:
        raise RequestError(
            f"the notebook has no cell tagged 'parameters', so {', '.join(given)} cannot be set: "
            "tag the cell that assigns the defaults"
        )
    for name in given:
        if name not in (known or {}):
            raise UnknownNameError("parameter", name, known or {})
    return {name: _checked((known or {})[name], value) for name, value in given.items()}


def inject(notebook: Any, values: Mapping[str, Any]) -> None:
    """Put a cell that assigns `values` after the cell of the defaults, in place of an earlier one.

    Every value survives exactly, tuples included, since it is written as the literal it is.
    """
    from nbformat.v4 import new_code_cell

    notebook.cells = [cell for cell in notebook.cells if not has_tag(cell, _INJECTED)]
    if not values:
        return
    lines = ["# Parameters of this run", *(f"{name} = {v!r}" for name, v in values.items())]
    cell = new_code_cell("\n".join(lines), id=_INJECTED, metadata={"tags": [_INJECTED]})
    notebook.cells.insert((tagged(notebook, "parameters") or 0) + 1, cell)


class _Loader(yaml.SafeLoader):
    """YAML for which 1e-3 is a number, as everybody who writes it expects."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"^[-+]?\d+(\.\d*)?[eE][-+]?\d+$"), list("-+0123456789")
)


def _parameter(node: ast.stmt, source: str, comments: Mapping[int, str]) -> Parameter | None:
    if isinstance(node, ast.Assign) and len(node.targets) == 1:
        target, value, annotation = node.targets[0], node.value, None
    elif isinstance(node, ast.AnnAssign) and node.value is not None:
        target, value, annotation = node.target, node.value, ast.unparse(node.annotation)
    else:
        return None
    if not isinstance(target, ast.Name):
        return None
    text = ast.get_source_segment(source, value) or ast.unparse(value)
    comment = comments.get(node.end_lineno or node.lineno)
    try:
        default, literal = ast.literal_eval(value), True
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        default, literal = None, False
    return Parameter(target.id, default, literal, text, annotation, comment)


def _comments(source: str) -> dict[int, str]:
    """Return the text of each comment by its line, from 1."""
    tokens = tokenize.generate_tokens(io.StringIO(source).readline)
    return {t.start[0]: t.string.lstrip("# ") for t in tokens if t.type == tokenize.COMMENT}


def _literal(text: str) -> Any:
    if text.strip() in _WORDS:
        return _WORDS[text.strip()]
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, TypeError, SyntaxError, MemoryError, RecursionError):
        return text


def _checked(parameter: Parameter, value: Any) -> Any:
    """Return `value` in the type of the parameter's default."""
    name, default = parameter.name, parameter.default
    value = value.item() if type(value).__module__ == "numpy" and value.ndim == 0 else value
    if not _is_plain(value):
        raise RequestError(
            f"parameter {name!r} got {type(value).__name__} {value!r:.80}, expected plain data: "
            "finite numbers, strings, booleans, None, lists, tuples and dictionaries of them"
        )
    if default is None or (value is None and parameter.nullable) or type(value) is type(default):
        return value
    if isinstance(default, float) and type(value) is int:
        return float(value)
    if isinstance(default, (list, tuple)) and isinstance(value, (list, tuple)):
        return type(default)(value)
    raise RequestError(
        f"parameter {name!r} got {type(value).__name__} {value!r:.80}, expected "
        f"{type(default).__name__} as its default {default!r:.80} is"
    )


def _is_plain(value: Any) -> bool:
    """Return whether JSON can hold the value, a tuple as a list, and Python read its repr back."""
    if isinstance(value, (list, tuple)):
        return type(value) in (list, tuple) and all(map(_is_plain, value))
    if isinstance(value, dict):
        return all(isinstance(k, str) for k in value) and all(map(_is_plain, value.values()))
    return type(value) in _SCALARS and not (isinstance(value, float) and not math.isfinite(value))
