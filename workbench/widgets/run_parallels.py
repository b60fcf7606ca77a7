"""Runs as lines through parallel axes: one for each parameter and metric in which they differ."""

from __future__ import annotations

import json
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from workbench.errors import RequestError, UnknownNameError
from workbench.runs import Run
from workbench.runs.reports import said
from workbench.runs.spaces import split
from workbench.types import JSON

__all__ = ["Axis", "axes_of", "conditions_within", "parallels"]

_AXES, _WORDS = 12, 12
_LETTERS = 200  # of a word; a longer one is no place to find
_WIDE = 100  # times as much as the least: then the axis is of powers


@dataclass(frozen=True)
class Axis:
    """Where the values of a parameter or a metric stand, from 0 at the bottom to 1 at the top.

    Args:
        name: as a condition on runs has it.
        low: the least value of numbers.
        high: the largest one.
        is_log: whether it is of powers.
        words: what stands there in place of numbers, from the bottom up; none of numbers.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    is_log: bool = False
    words: tuple[str, ...] = ()

    @classmethod
    def of(cls, name: str, values: Sequence[Any]) -> Axis | None:
        """Return the axis on which these values differ; None where they do not, or too much."""
        there = [value for value in values if value is not None]
        if all(map(_is_number, there)):
            finite = [float(value) for value in there if math.isfinite(value)]
            low, high = min(finite, default=0.0), max(finite, default=0.0)
            if not 0 < high - low < math.inf:
                return None
            return cls(name, low, high, low > 0 and high / low >= _WIDE)
        words = sorted({said(value) for value in there})
        are_few = 1 < len(words) <= _WORDS and all(len(word) <= _LETTERS for word in words)
        return cls(name, words=tuple(words)) if are_few else None

    def place(self, value: Any) -> float | None:
        """Return where a value stands, or None where it has no place."""
        if value is None:
            return None
        if self.words:
            word = said(value)
            return self.words.index(word) / (len(self.words) - 1) if word in self.words else None
        if not _is_number(value) or not math.isfinite(value):
            return None
        low, high, at = (self._scaled(v) for v in (self.low, self.high, float(value)))
        return round((at - low) / (high - low), 4)

    def value(self, place: float) -> float:
        """Return the number that stands at a place."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        at = low + place * (high - low)
        return math.exp(at) if self.is_log else at

    def marks(self) -> list[tuple[float, str]]:
        """Return some places with what stands there."""
        if self.words:
            return [(self.place(word) or 0.0, word) for word in self.words]
        places = (0, 0.25, 0.5, 0.75, 1)
        return [(place, self.written(place, 3)) for place in places]

    def written(self, place: float, digits: int) -> str:
        """Return the number at a place, in so many digits of what differs along the axis."""
        largest, span = max(abs(self.low), abs(self.high)), self.high - self.low
        alike = 0 if self.is_log else max(0, math.ceil(math.log10(largest / span)))
        return f"{self.value(place):.{digits + alike}g}"

    def _scaled(self, value: float) -> float:
        return math.log(value) if self.is_log else value


def parallels(runs: Sequence[Run], colour: str) -> JSON:
    """Return the axes, and where the line of each run crosses them.

    Args:
        runs: each has a line.
        colour: the axis of numbers by which lines are coloured; another one, if there is none such.
    """
    axes = axes_of(runs)
    numbers = [axis.name for axis in axes if not axis.words]
    by = colour if colour in numbers else _telling(runs, numbers)
    lines = [
        {"run": run.id, "places": [axis.place(_value(run, axis.name)) for axis in axes]}
        for run in runs
    ]
    return {
        "axes": [{"name": axis.name, "marks": axis.marks()} for axis in axes],
        "lines": lines,
        "colour": by,
        "colours": numbers,
    }


def axes_of(runs: Sequence[Run]) -> list[Axis]:
    """Return the axes of runs, those of parameters first."""
    found = (Axis.of(name, [_value(run, name) for run in runs]) for name in _names(runs))
    axes = [axis for axis in found if axis]
    metrics = {name for run in runs for name in run.metrics}
    first = [axis for axis in axes if axis.name not in metrics][: _AXES // 2]
    last = [axis for axis in axes if axis.name in metrics]
    return [*first, *last][:_AXES]


def conditions_within(axes: Sequence[Axis], name: str, low: float, high: float) -> list[str]:
    """Return the conditions that hold of the runs which cross an axis between two places.

    Args:
        axes: there are.
        name: of the axis.
        low: the lower place, from 0 to 1.
        high: the upper one.

    Raises:
        RequestError: there is no such axis, or several words stand between them.
    """
    axis = {axis.name: axis for axis in axes}.get(name)
    if axis is None:
        raise UnknownNameError("axis", name, [axis.name for axis in axes])
    if not axis.words:  # at an end there is nothing to be left out
        above = [f"{name}>={axis.written(low, 4)}"] if low > 0 else []
        return above + ([f"{name}<={axis.written(high, 4)}"] if high < 1 else [])
    words = [word for word in axis.words if low <= (axis.place(word) or 0.0) <= high]
    if len(words) != 1:
        raise RequestError(
            f"{len(words)} values of {name} stand there: drag over one of {', '.join(axis.words)}"
        )
    return [f"{name}={_quoted(words[0])}"]


def _quoted(word: str) -> str:
    """Return a word as a condition has it: in quotes that hold none, unless it is clear without."""
    if split(f"{word},") == [word, ""] and re.fullmatch(r"[^\s\"'=](.*\S)?", word):
        return word
    inside = json.dumps(word, ensure_ascii=False)[1:-1].replace('\\"', r"\x22")
    return f'"{inside}"'


def _telling(runs: Sequence[Run], numbers: Sequence[str]) -> str:
    """Return by what to colour, unless somebody says: the metric that most runs have."""
    counts = Counter(name for run in runs for name in run.metrics)
    return max(reversed(numbers), key=lambda name: counts[name], default="")


def _names(runs: Sequence[Run]) -> Iterator[str]:
    """Yield the names that runs are told apart by, parameters first; a metric goes before one."""
    metrics = list(dict.fromkeys(name for run in runs for name in run.metrics))
    yield from (n for n in dict.fromkeys(n for r in runs for n in r.parameters) if n not in metrics)
    yield from metrics


def _value(run: Run, name: str) -> Any:
    return run.metrics.get(name, run.parameters.get(name))


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
