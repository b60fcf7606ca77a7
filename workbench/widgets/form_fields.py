"""The fields of a form: which control fits a parameter, and what its texts mean.

A text is what one would write after `-p name=` on the command line, and is read by the same
functions, so it is taken or refused with the same words.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import PurePath
from typing import Any

from workbench.errors import RequestError
from workbench.runs.parameters import Parameter, bind, parse_assignments, source_of
from workbench.runs.spaces import parse_alternatives
from workbench.types import JSON

__all__ = ["alternatives_of", "control_of", "default_text", "text_of", "value_of"]

_WIDE = 100  # times as much as the least: then a slider moves by powers
_STEPS = 100  # of a slider, at least


def value_of(parameter: Parameter, text: str) -> Any:
    """Return the value that a text gives a parameter.

    Raises:
        RequestError: it is none, in the words of `workbench run -p`.
    """
    known = {parameter.name: parameter}
    return bind(known, parse_assignments([f"{parameter.name}={text}"], known))[parameter.name]


def alternatives_of(parameter: Parameter, text: str) -> Any:
    """Return what a text gives a parameter in a sweep: a list of values, or a range.

    Raises:
        RequestError: it is none, in the words of `workbench sweep -p`.
    """
    known = {parameter.name: parameter}
    found = parse_alternatives([f"{parameter.name}={text}"], known)[parameter.name]
    return [parameter.check(value) for value in found] if isinstance(found, list) else found


def default_text(parameter: Parameter, *, sweeps: bool) -> str:
    """Return the text of the default; empty where that is a secret, or no literal."""
    if parameter.is_secret or not parameter.literal:
        return ""
    return text_of(parameter, parameter.default, sweeps=sweeps)


def text_of(parameter: Parameter, value: Any, *, sweeps: bool = False) -> str:
    """Return a text that gives a parameter this value: bare words first, else a literal.

    Args:
        parameter: it is of.
        value: as `value_of` returns it.
        sweeps: whether the text is that of a sweep, which reads commas otherwise.
    """
    for text in _texts(parameter, value):
        with suppress(RequestError):
            read = alternatives_of if sweeps else value_of
            found = read(parameter, text)
            if repr(found) == repr([value] if sweeps else value):
                return text
    return source_of(value)


def control_of(parameter: Parameter, *, sweeps: bool) -> JSON:
    """Return the control that fits a parameter, as the page is told.

    That is a `check` or a `choice`, in a sweep `several` of these; a `slider`, a `number`, a
    `secret`, or a `text`.

    Args:
        parameter: to be set.
        sweeps: whether it may be given several values.
    """
    if parameter.is_secret:
        return {"kind": "secret"}
    values = _closed_values(parameter)
    if values:
        options = [[text_of(parameter, v, sweeps=sweeps), str(v)] for v in values]
        is_check = not sweeps and parameter.kind.schema.get("type") == "boolean"
        return {"kind": "several" if sweeps else "check" if is_check else "choice",
                "options": options}  # fmt: skip
    if sweeps or not _is_number(parameter):
        return {"kind": "text", "example": _example(parameter, sweeps=sweeps)}
    is_whole = parameter.kind.schema["type"] == "integer"
    number = {"kind": "number", "step": 1 if is_whole else "any"}
    return _slider(parameter, is_whole=is_whole) or number


def _texts(parameter: Parameter, value: Any) -> Iterator[str]:
    """Yield what may be the text of a value, the plainest first."""
    if isinstance(value, (str, PurePath)):
        yield str(value)
    if parameter.literal and not isinstance(value, (int, float)) and value == parameter.default:
        yield " ".join(parameter.source.split())
    yield source_of(value)


def _closed_values(parameter: Parameter) -> Sequence[Any]:
    """Return all the values that a parameter can have, where those are few and known."""
    schema, values = parameter.kind.schema, list(parameter.kind.choices)
    if schema.get("type") == "boolean":
        values = [False, True]
    elif not _is_closed(schema):
        lists = [other for step, other in parameter.limit.steps if step is ast.In]
        values = list(lists[0]) if lists and not isinstance(lists[0], str) else []
    if values and parameter.kind.takes(None):
        values.append(None)
    return [value for value in values if _is_taken(parameter, value)]


def _is_closed(schema: JSON) -> bool:
    """Return whether a schema lists all its values, None aside."""
    parts = [part for part in schema.get("anyOf", []) if part.get("type") != "null"]
    return "enum" in schema or (bool(parts) and all(map(_is_closed, parts)))


def _is_taken(parameter: Parameter, value: Any) -> bool:
    try:
        return repr(parameter.check(value)) == repr(value)
    except RequestError:
        return False


def _is_number(parameter: Parameter) -> bool:
    """Return whether it is one number, which a field for numbers can hold."""
    if parameter.kind.schema.get("type") not in ("integer", "number") or not parameter.literal:
        return False
    return isinstance(parameter.default, (int, float)) and math.isfinite(parameter.default)


def _example(parameter: Parameter, *, sweeps: bool) -> str:
    """Return what an empty field shows: a default that is no literal, or what a sweep can take."""
    if not parameter.literal:
        return parameter.source
    if not sweeps or not _is_number(parameter):
        return ""
    return "1,2 or 1..9" if isinstance(parameter.default, int) else "0.01,0.1 or 0.01..0.1"


def _slider(parameter: Parameter, *, is_whole: bool) -> JSON | None:
    """Return a slider between both limits, or None where one is missing."""
    limits = parameter.limit.schema()
    low = limits.get("minimum", limits.get("exclusiveMinimum"))
    high = limits.get("maximum", limits.get("exclusiveMaximum"))
    if low is None or high is None or not low < high:
        return None
    step = 1 if is_whole else 10.0 ** math.floor(math.log10((high - low) / _STEPS))
    digits = max(0, -math.floor(math.log10(step)))
    ends = {
        "low": round(low + step * ("minimum" not in limits), digits),
        "high": round(high - step * ("maximum" not in limits), digits),
    }
    default = parameter.default
    is_log = not is_whole and low >= 0 and 0 < default <= high / _WIDE
    if is_log:  # where steps of one size would miss it
        ends["low"] = low or 10.0 ** math.floor(math.log10(default / 10))
    return {"kind": "slider", **ends, "step": round(step, digits), "log": is_log}
