"""What was said, held against the labels that came later."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from workbench.errors import RequestError
from workbench.registry.verdicts import Kind, Scores, interval, spread
from workbench.types import JSON

__all__ = ["checked", "figures_of", "paired", "scored", "sided"]

_Said = Sequence[Any]  # texts, or numbers with None for one that was not finite


def checked(
    said: _Said | None, rows: int, labels: Sequence[Any]
) -> Sequence[str] | Sequence[float]:
    """Return labels as they are kept: texts, or floats.

    Args:
        said: of each row, as far as it was kept.
        rows: of the request.
        labels: that came later.

    Raises:
        RequestError: they cannot be the labels of these rows.
    """
    if said is None:
        raise RequestError(
            "this answer has neither labels nor single values, so no label can be held against it"
        )
    if len(labels) != rows:
        raise RequestError(
            f"{len(labels):,} labels for an answer of {rows:,} rows, expected one for each row, in "
            "order"
        )
    kind = _kind(said)
    strange = [one for one in labels if not _fits(one, kind)]
    if strange:
        expected = f"a text like {said[0]!r:.80}" if kind == "accuracy" else "a finite number"
        raise RequestError(f"the label {strange[0]!r:.80} is not {expected}, as the answer was")
    return list(labels) if kind == "accuracy" else [float(label) for label in labels]


def scored(
    said: _Said, labels: Sequence[Any]
) -> tuple[int, int | None, float | None, float | None]:
    """Return how many rows count, how many were right, how far off they were, and that squared.

    Of texts the first two are given, of values all but the second.
    """
    points = [x for x in _points(said, labels) if math.isfinite(x)]
    if _kind(said) == "accuracy":
        return len(points), int(sum(points)), None, None
    return len(points), None, math.fsum(points), math.fsum(x * x for x in points)


def figures_of(parts: Sequence[JSON]) -> JSON:
    """Return accuracy or mean absolute error of rows of the ledger's feedback, summed."""
    known = sum(part["known"] for part in parts)
    if known == 0:
        return {"labels": 0}
    if parts[0]["hits"] is not None:
        hits = sum(part["hits"] for part in parts)
        return {"labels": known, "accuracy": hits / known, "interval": interval(hits, known)}
    off, squared = (math.fsum(part[key] for part in parts) for key in ("off", "squared"))
    return {"labels": known, "error": off / known, "interval": spread(off, squared, known)}


def paired(rows: Iterable[Any], most: int) -> Scores:
    """Return the scores of two versions that were asked the same.

    Args:
        rows: of the ledger, with `said`, `shadow_said` and `labels`, in the order of the labels;
            read until there are enough.
        most: labels that count.
    """
    champion: list[float] = []
    challenger: list[float] = []
    kind = None
    for row in rows:
        said, shadow, labels = (_read(row[key]) for key in ("said", "shadow_said", "labels"))
        if said and shadow and kind in (None, _kind(said)) and _kind(said) == _kind(shadow):
            kind = _kind(said)
            both = min(len(said), len(shadow), len(labels))
            champion += _points(said[:both], labels)
            challenger += _points(shadow[:both], labels)
        if len(champion) >= most:
            break
    return Scores(kind or "accuracy", "shadow", tuple(champion[:most]), tuple(challenger[:most]))


def sided(champion: Iterable[Any], challenger: Iterable[Any], most: int) -> Scores:
    """Return the scores of two versions that were asked different things.

    Args:
        champion: rows of the ledger, with `said` and `labels`, in the order of the labels; read
            until there are enough.
        challenger: the same of the other.
        most: labels of each that count.
    """
    kind = None
    sides: list[list[float]] = [[], []]
    for rows, points in zip((champion, challenger), sides, strict=True):
        for row in rows:
            said, labels = _read(row["said"]), _read(row["labels"])
            if said and kind in (None, _kind(said)):
                kind = _kind(said)
                points.extend(_points(said, labels))
            if len(points) >= most:
                break
    return Scores(kind or "accuracy", "split", tuple(sides[0][:most]), tuple(sides[1][:most]))


def _points(said: _Said, labels: Sequence[Any]) -> list[float]:
    """Return of each row 1 or 0, whether it was right; of values how far off they were."""
    if _kind(said) == "accuracy":
        return [float(one == label) for one, label in zip(said, labels, strict=False)]
    return [
        math.inf if one is None else abs(float(one) - label)
        for one, label in zip(said, labels, strict=False)
    ]


def _kind(said: _Said) -> Kind:
    """Return what can be said of answers by labels; a value that is no number was kept as None."""
    return "accuracy" if any(isinstance(one, str) for one in said) else "error"


def _fits(label: Any, kind: Kind) -> bool:
    if kind == "accuracy":
        return isinstance(label, str)
    is_number = isinstance(label, int | float) and not isinstance(label, bool)
    return is_number and abs(label) <= sys.float_info.max


def _read(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
