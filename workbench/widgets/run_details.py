"""What there is to read of runs: columns for many of them, and everything of one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any

from workbench.errors import TamperedError
from workbench.registry.aliases import standing
from workbench.runs import Run
from workbench.runs.reports import said
from workbench.runs.verification import kept_verdict
from workbench.types import JSON
from workbench.widgets.run_faces import last_words

__all__ = ["column_names", "details", "usual_columns", "values_of"]

_LOOKED_AT = 500  # runs
_CHOICE, _COLUMNS = 20, 4  # of parameters, and as many of metrics
_LETTERS = 200  # of a text; its report has all of it


def column_names(runs: Sequence[Run]) -> list[str]:
    """Return the parameters and metrics that runs have most often, parameters first.

    Args:
        runs: the first 500 are looked at.
    """
    return list(dict.fromkeys(name for kind in _tables(runs) for name, _ in _often(kind)))


def usual_columns(runs: Sequence[Run]) -> list[str]:
    """Return the columns that a table of runs has: parameters that differ, and metrics.

    Args:
        runs: the first 500 are looked at.
    """
    given, recorded = _tables(runs)
    metrics = [name for name, _ in _often(recorded)][:_COLUMNS]
    values = {name: {said(t[name]) for t in given if name in t} for name, _ in _often(given)}
    differ = [name for name, found in values.items() if len(found) > 1]
    return [*[name for name in differ if name not in metrics][:_COLUMNS], *metrics]


def values_of(run: Run, names: Sequence[str]) -> list[Any]:
    """Return the values of a run in some columns: numbers, else short texts; None without one."""
    there = {**run.parameters, **run.metrics}
    return [_plain(there[name]) if name in there else None for name in names]


def details(run: Run) -> JSON:
    """Return what the page of one run shows of its record."""
    given = run.record.get("given") or []
    models = sorted({ref.partition("@")[0] for ref in run.published})
    return {
        "folder": str(run.folder),
        "source": str(run.source),
        "is_behind": run.is_behind,
        "parameters": [[name, _cut(said(v)), name in given] for name, v in run.parameters.items()],
        "metrics": [[name, value] for name, value in run.metrics.items()],
        "published": run.published,
        "aliases": {name: dict(standing(name).aliases) for name in models},
        **_verified(run),
    }


def _verified(run: Run) -> JSON:
    """Return what the last verification has found, and why there is nothing of it to show."""
    try:
        kept, damage = kept_verdict(run), ""
    except TamperedError as error:
        kept, damage = None, str(error)
    return {
        "verification": kept or {"verdict": "", "told": []},
        "trouble": _trouble(run) or damage,
    }


def _trouble(run: Run) -> str:
    """Return why the last verification in the background has proven nothing, if it has not."""
    log, kept = run.folder / "verify.log", run.folder / "verification.json"
    if not log.exists() or (kept.exists() and kept.stat().st_mtime > log.stat().st_mtime):
        return ""
    return last_words(log)


def _tables(runs: Sequence[Run]) -> tuple[list[JSON], list[JSON]]:
    looked_at = runs[:_LOOKED_AT]
    return [run.parameters for run in looked_at], [dict(run.metrics) for run in looked_at]


def _often(tables: Sequence[JSON]) -> Iterator[tuple[str, int]]:
    yield from Counter(name for table in tables for name in table).most_common(_CHOICE)


def _plain(value: Any) -> float | str:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value if is_number else _cut(said(value))


def _cut(text: str) -> str:
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 1]}…"
