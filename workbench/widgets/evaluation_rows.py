"""Which rows of an evaluation are meant, in which order, and what was said of each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from workbench.evaluation import Comparison, Evaluation
from workbench.types import JSON
from workbench.widgets.figures import rounded

__all__ = ["FINDERS", "Pair", "answers", "details", "groups", "truth"]

_Indices = np.ndarray[Any, np.dtype[np.int64]]
_Flags = np.ndarray[Any, np.dtype[np.bool_]]
_LIKELIEST = 10  # classes of which the probability is told
_OUTPUTS = 100  # of a row that are told


@dataclass(frozen=True, eq=False)
class Pair:
    """An evaluation, and where there is one, another of the same rows to be compared with.

    Args:
        first: that is looked into.
        second: the other, or None.
    """

    first: Evaluation
    second: Evaluation | None = None

    @cached_property
    def comparison(self) -> Comparison:
        """How both differ; there must be two."""
        assert self.second is not None
        return self.first.against(self.second)

    @property
    def sides(self) -> list[Evaluation]:
        """Return the evaluations that there are."""
        return [self.first] if self.second is None else [self.first, self.second]


def groups(pair: Pair) -> dict[str, _Flags]:
    """Return by name which rows the two answered alike, and which one of them better.

    Of classes by who is right; of a regression by whose squared error is smaller. Rows with an
    error that is no number are in none.
    """
    first, second = pair.comparison.first.numpy(), pair.comparison.second.numpy()
    if not pair.first.classes:
        return {
            "first_closer": first < second,
            "equally_close": first == second,
            "second_closer": first > second,
        }
    one, two = first == 1, second == 1
    return {
        "both_right": one & two,
        "only_first": one & ~two,
        "only_second": ~one & two,
        "both_wrong": ~one & ~two,
    }


def _cell(pair: Pair, true: int, predicted: int) -> _Indices:
    evaluation = pair.first
    wanted = (evaluation.targets == true) & (evaluation.predicted == predicted)
    return _surest(evaluation.examples[wanted.numpy()])


def _mistakes(pair: Pair) -> _Indices:
    return pair.first.mistakes["row"].to_numpy()


def _bin(pair: Pair, number: int, bins: int) -> _Indices:
    table = pair.first.examples
    inner = np.linspace(0, 1, bins + 1)[1:-1]
    return _surest(table[np.searchsorted(inner, table["p_predicted"]) == number])


def _group(pair: Pair, name: str) -> _Indices:
    wanted = groups(pair)[name]
    if pair.first.classes:
        return _surest(pair.first.examples[wanted])
    apart = pair.comparison.first.sqrt() - pair.comparison.second.sqrt()
    order = np.argsort(-apart.abs().nan_to_num(nan=-1.0).numpy(), kind="stable")
    return order[wanted[order]]


def _largest(pair: Pair, output: int) -> _Indices:
    sizes = pair.first.residuals[:, output].abs().nan_to_num(nan=np.inf).numpy()
    return np.argsort(-sizes, kind="stable")


# by name, what finds the rows that are meant, from a pair and what else it needs
FINDERS: Mapping[str, Callable[..., _Indices]] = {
    "cell": _cell,
    "mistakes": _mistakes,
    "bin": _bin,
    "group": _group,
    "largest": _largest,
}


def answers(pair: Pair, row: int, output: int) -> list[JSON]:
    """Return what each side said of a row: a class and how likely, or a value and what is left.

    Args:
        pair: one side or two.
        row: its index in the split.
        output: of a regression, which one.
    """
    return [_answer(evaluation, row, output) for evaluation in pair.sides]


def truth(evaluation: Evaluation, row: int, output: int) -> str | float | None:
    """Return what a row is: its class, or the value of one output."""
    if evaluation.classes:
        return evaluation.classes[int(evaluation.targets[row])]
    return rounded(float(evaluation.targets[row].reshape(-1)[output]))


def details(pair: Pair, row: int) -> JSON:
    """Return all that was said of one row.

    Of classes `chances`: the likeliest, and the true one, each with its probability by each side
    (None of a side that gave labels alone); of a regression `outputs`: true, then by each side the
    value and the residual.
    """
    if pair.first.classes:
        return {"chances": _chances(pair, row)}
    true = pair.first.targets[row].reshape(-1).tolist()[:_OUTPUTS]
    sides = [(e.outputs[row].tolist(), e.residuals[row].tolist()) for e in pair.sides]
    rows = [
        [rounded(value), *(rounded(figures[i]) for side in sides for figures in side)]
        for i, value in enumerate(true)
    ]
    return {"outputs": rows, "more_outputs": pair.first.outputs.shape[1] - len(true)}


def _chances(pair: Pair, row: int) -> list[list[Any]]:
    classes = pair.first.classes
    found = [_chances_of(evaluation, row) for evaluation in pair.sides]
    known = [chances for chances in found if chances is not None]
    if not known:
        return []
    highest = np.nan_to_num(np.max(known, axis=0), nan=-1.0)
    first = np.argsort(-highest, kind="stable")[:_LIKELIEST].tolist()
    true = int(pair.first.targets[row])
    named = first if true in first else [*first, true]
    return [
        [classes[i], *(None if c is None else rounded(float(c[i])) for c in found)] for i in named
    ]


def _chances_of(evaluation: Evaluation, row: int) -> Any:
    """Return the probability of every class, shaped (classes,), or None where none is known."""
    if evaluation.form == "labels":
        return None
    chances = evaluation.probabilities[row].double().numpy()
    return np.array([1 - chances[0], chances[0]]) if len(chances) == 1 else chances


def _answer(evaluation: Evaluation, row: int, output: int) -> JSON:
    if not evaluation.classes:
        said, left = evaluation.outputs[row, output], evaluation.residuals[row, output]
        return {"said": rounded(float(said)), "residual": rounded(float(left))}
    found = evaluation.examples.iloc[row]
    answer: JSON = {"said": found["predicted"], "right": bool(found["right"])}
    if "p_true" in found:
        p = {name: rounded(float(found[name])) for name in ("p_true", "p_predicted")}
        return answer | p
    return answer


def _surest(table: pd.DataFrame) -> _Indices:
    if "p_predicted" in table:
        table = table.sort_values("p_predicted", ascending=False, kind="stable")
    return table["row"].to_numpy()
