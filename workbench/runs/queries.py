"""Runs picked and sorted by what their records say: `test_accuracy>=0.7`, `state=failed`."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from workbench.errors import RequestError, UnknownNameError
from workbench.runs.records import Run, RunList

__all__ = ["check_known", "field_of", "pick"]

_FORM = re.compile(r"\s*([^\W\d][^<>=!]*?)\s*(<=|>=|!=|==|=|<|>)\s*(.*\S)\s*")
_HOLDS: Mapping[str, Callable[[Any, Any], bool]] = {
    **{"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt},
    **{"=": operator.eq, "==": operator.eq, "!=": operator.ne},
}
_FIELDS: Mapping[str, Callable[[Run], Any]] = {
    "id": lambda run: run.id,
    "state": lambda run: run.state,
    "notebook": lambda run: run.source.stem,
    "started": lambda run: run.began,
    "seconds": lambda run: run.seconds,
    "seed": lambda run: run.parameters.get("seed"),
}


def pick(runs: RunList, where: Sequence[str], sort: str | None = None) -> RunList:
    """Return the runs for which every condition holds, sorted by a field where that is asked for.

    Args:
        runs: oldest first.
        where: conditions on `id`, `state`, `notebook`, `started`, `seconds`, a parameter or a
            metric, such as `"lr>0.01"` or `"words='a, b'"`; a run that has no such field is left
            out.
        sort: a field, from the least to the largest; with `-` before it the other way round.

    Raises:
        RequestError: a condition is not understood, or no run has the field to sort by.
    """
    for text in where:
        holds = _condition(text)
        runs = runs.filter(holds)
    if sort is None:
        return runs
    name = sort.removeprefix("-")
    if len(runs) and all(field_of(run, name) is None for run in runs):
        raise UnknownNameError("field of a run", name, _known(runs))
    ordered = sorted(runs, key=lambda run: _sortable(field_of(run, name)), reverse=name != sort)
    return RunList(ordered)


def check_known(runs: RunList, where: Sequence[str]) -> None:
    """Raise where a condition is not understood, or is one on a field that no run has.

    Raises:
        RequestError: so it is.
    """
    names, known = [_parted(text)[0] for text in where], _known(runs)
    for name in names:
        plain = name.partition(".")[2] if name.startswith(("metrics.", "parameters.")) else name
        if len(runs) and not {name, plain} & known:
            raise UnknownNameError("field of a run", name, known)


def field_of(run: Run, name: str) -> Any:
    """Return a field of a run, or None: one of its own, a metric, or a parameter, in that order."""
    if name in _FIELDS:
        return _FIELDS[name](run)
    kind, _, rest = name.partition(".")
    if kind == "metrics" and rest:
        return run.metrics.get(rest)
    if kind == "parameters" and rest:
        return run.parameters.get(rest)
    return run.metrics.get(name, run.parameters.get(name))


def _known(runs: RunList) -> set[str]:
    return {*_FIELDS, *(name for run in runs for name in (*run.metrics, *run.parameters))}


def _parted(text: str) -> tuple[str, str, str]:
    """Return the field, the sign and the value of a condition."""
    found = _FORM.fullmatch(text)
    if found is None:
        raise RequestError(
            f"condition {text!r:.80} is not understood: expected a field, one of "
            f"{', '.join(_HOLDS)}, and a value, as in 'state=failed' or 'test_accuracy>=0.7'"
        )
    return found[1], found[2], found[3]


def _condition(text: str) -> Callable[[Run], bool]:
    name, sign, wanted = _parted(text)
    value = _value(wanted)
    words = value if isinstance(value, str) else wanted  # which may stand in quotes

    def holds(run: Run) -> bool:
        given = field_of(run, name)
        if given is None:
            return value is None and sign in ("=", "==")
        try:
            return _HOLDS[sign](given, words if isinstance(given, str) else value)
        except TypeError:
            return False

    return holds


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _sortable(value: Any) -> tuple[int, float, str]:
    if value is None:
        return (0, 0.0, "")
    return (1, float(value), "") if isinstance(value, (int, float)) else (2, 0.0, str(value))
