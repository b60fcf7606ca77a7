"""What a sweep tries: alternatives and ranges of parameters, and the points that they make.

Points are a function of the space and a seed, so that a sweep can be made again.
"""

from __future__ import annotations

import csv
import json
import math
import random
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import yaml

from workbench.errors import RequestError
from workbench.runs.notebooks import read_notebook
from workbench.runs.parameters import Parameter, declared, parse_assignments
from workbench.types import JSON

__all__ = [
    "LogUniform",
    "Uniform",
    "asked_points",
    "make_points",
    "parse_alternatives",
    "read_points",
    "split",
]

_RANGE = re.compile(r"(log:)?([^,\s]+?)\.\.([^,\s]+)")
_BRACKETS = {"(": ")", "[": "]", "{": "}"}
_MANY = 100_000  # points; more is a slip


@dataclass(frozen=True)
class Uniform:
    """A range to draw from evenly; whole numbers where both ends are.

    Args:
        low: the least value.
        high: the largest one.

    Raises:
        RequestError: the ends are no finite numbers, or the wrong way round.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, least=-math.inf)

    def draw(self, numbers: random.Random) -> float:
        """Return one value."""
        if isinstance(self.low, int) and isinstance(self.high, int):
            return numbers.randint(self.low, self.high)
        return numbers.uniform(self.low, self.high)


@dataclass(frozen=True)
class LogUniform:
    """A range to draw from so that each power of ten is as likely as any other.

    Args:
        low: the least value, above 0.
        high: the largest one.

    Raises:
        RequestError: the ends are no finite numbers above 0, or the wrong way round.
    """

    low: float
    high: float

    def __post_init__(self) -> None:
        _check_range(self.low, self.high, least=0)

    def draw(self, numbers: random.Random) -> float:
        """Return one value."""
        drawn = math.exp(numbers.uniform(math.log(self.low), math.log(self.high)))
        value = min(max(drawn, self.low), self.high)
        whole = isinstance(self.low, int) and isinstance(self.high, int)
        return round(value) if whole else value


def make_points(
    space: Mapping[str, Any], *, samples: int | None = None, seeds: int | None = None
) -> list[JSON]:
    """Return the points of a space: every combination of its alternatives, in order.

    Args:
        space: a list of alternatives, a range, or a single value by the name of each parameter.
        samples: how many values to draw from the ranges for each combination.
        seeds: how many seeds, from 0, every point is run with; None leaves `seed` alone.

    Raises:
        RequestError: ranges without samples or the other way round, no point, or very many.

    >>> make_points({"lr": [0.1, 1.0], "n": 3})
    [{'lr': 0.1, 'n': 3}, {'lr': 1.0, 'n': 3}]
    """
    ranges = {n: v for n, v in space.items() if isinstance(v, (Uniform, LogUniform))}
    if ranges and samples is None:
        raise RequestError(
            f"{', '.join(ranges)} is a range, so say how many points to draw: samples=20"
        )
    if samples is not None and (not ranges or samples < 1):
        found = "no parameter is a range to draw from" if not ranges else "it must be 1 or more"
        raise RequestError(f"samples={samples}, but {found}")
    if seeds is not None and (seeds < 1 or "seed" in space):
        found = "seed has values already" if "seed" in space else "it must be 1 or more"
        raise RequestError(f"seeds={seeds}, but {found}")
    lists = {n: v if isinstance(v, list) else [v] for n, v in space.items() if n not in ranges}
    count = math.prod(map(len, lists.values())) * (samples or 1) * (seeds or 1)
    if not 0 < count <= _MANY:
        raise RequestError(f"the sweep has {count:,} points, expected 1 to {_MANY:,}")
    numbers = random.Random(f"sweep {sorted(ranges)}")
    combinations = [dict(zip(lists, values, strict=True)) for values in product(*lists.values())]
    drawn = [
        {**point, **{name: r.draw(numbers) for name, r in ranges.items()}}
        for point in combinations
        for _ in range(samples or 1)
    ]
    if seeds is None:
        return [_ordered(point, space) for point in drawn]
    return [{**_ordered(point, space), "seed": s} for point in drawn for s in range(seeds)]


def parse_alternatives(pairs: Iterable[str], known: Mapping[str, Parameter]) -> JSON:
    """Return what `-p name=...` of a sweep gives each parameter.

    Args:
        pairs: `"lr=0.01,0.1"` for alternatives, `"lr=0.01..0.1"` for a range, `"lr=log:1e-4..0.1"`
            for one of powers, `"widths=(1,2),(3,4)"` for alternatives that are tuples.
        known: the parameters of the notebook.

    Raises:
        RequestError: a text has no name or no equals sign, or a range is none.
    """
    space: JSON = {}
    for pair in pairs:
        name, equals, text = pair.partition("=")
        found = _RANGE.fullmatch(text.strip())
        if equals and found:
            low, high = (_number(pair, end) for end in found.groups()[1:])
            space[name.strip()] = (LogUniform if found[1] else Uniform)(low, high)
            continue
        parts = [f"{name}={part}" for part in split(text)] if equals else [pair]
        values = [parse_assignments([part], known) for part in parts]
        space[name.strip()] = [next(iter(value.values())) for value in values]
    return space


def asked_points(
    notebook: Path,
    pairs: Iterable[str],
    file: Path | None,
    *,
    samples: int | None,
    seeds: int | None,
) -> list[JSON]:
    """Return the points that a command line asks for.

    Args:
        notebook: whose parameters are set.
        pairs: as `parse_alternatives` takes them.
        file: of points, each of which is combined with what the pairs give; or None.
        samples: as `make_points` takes it.
        seeds: as `make_points` takes it.

    Raises:
        RequestError: the notebook, a text or the file cannot be used.
    """
    known = declared(read_notebook(notebook)) or {}
    space = parse_alternatives(pairs, known)
    listed = read_points(file) if file else [{}]
    if file is not None and file.suffix == ".csv":
        listed = [
            {name: parse_assignments([f"{name}={text}"], known)[name] for name, text in row.items()}
            for row in listed
        ]
    return [
        point
        for given in listed
        for point in make_points(
            {**{name: [value] for name, value in given.items()}, **space},  # a list is one value
            samples=samples,
            seeds=seeds,
        )
    ]


def read_points(path: Path) -> list[JSON]:
    """Return the points that a file lists: CSV with a header, or JSON or YAML with mappings.

    Raises:
        RequestError: the file is missing, cannot be read, or lists none.
    """
    try:
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".csv":
            rows: Any = [dict(row) for row in csv.DictReader(text.splitlines())]
        else:
            rows = json.loads(text) if path.suffix == ".json" else yaml.safe_load(text)
    except OSError as error:
        raise RequestError(f"no file of points {str(path)!r}: {error.strerror}") from None
    except (ValueError, yaml.YAMLError) as error:
        reason = str(error).splitlines()[0]
        raise RequestError(f"{path} is not CSV, JSON or YAML: {reason}") from None
    if not isinstance(rows, list) or not rows or not all(isinstance(r, dict) for r in rows):
        raise RequestError(
            f"{path} lists no points: expected a CSV file with a header, or a JSON or YAML list "
            "of mappings from names to values"
        )
    return rows


def split(text: str) -> list[str]:
    """Return the parts between the commas of a text that stand in no bracket and no quotes.

    >>> split("(1, 2),[3],'a,b',c")
    ['(1, 2)', '[3]', "'a,b'", 'c']
    """
    parts, closing, quote = [""], [], ""
    for letter in text:
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter in _BRACKETS:
            closing.append(_BRACKETS[letter])
        elif closing and letter == closing[-1]:
            closing.pop()
        if letter == "," and not closing and not quote:
            parts.append("")
        else:
            parts[-1] += letter
    return parts


def _ordered(point: JSON, space: Iterable[str]) -> JSON:
    return {name: point[name] for name in space}


def _number(pair: str, text: str) -> float:
    try:
        return int(text)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise RequestError(
            f"-p {pair!r} is not a range of numbers: write -p lr=0.01..0.1, or log:0.01..0.1"
        ) from None


def _check_range(low: Any, high: Any, *, least: float) -> None:
    good = all(isinstance(end, (int, float)) and math.isfinite(end) for end in (low, high))
    if not good or not least < low < high:
        above = " above 0" if least == 0 else ""
        raise RequestError(
            f"a range from {low!r} to {high!r}, expected two finite numbers{above}, the smaller "
            "one first"
        )
