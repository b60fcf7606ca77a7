"""Two models on the same rows: what each alone gets right, and whether that may be chance."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.datasets import Split
from workbench.errors import RequestError
from workbench.evaluation.intervals import between, headline, resampled_means, row_scores
from workbench.evaluation.significance import mcnemar, paired_t

if TYPE_CHECKING:
    from workbench.evaluation.evaluations import Evaluation
    from workbench.pictures import Picture

__all__ = ["Comparison", "compare_evaluations"]

_SHOWN = 0.05  # a difference with a smaller p is said to be one


@dataclass(frozen=True, repr=False, eq=False)
class Comparison:
    """Whether one model is better than another, by the rows that both were asked.

    Args:
        figure: `"accuracy"`, or `"mse"` of a regression.
        first: what the figure is the mean of, shaped (rows,): 1 for right and 0 for wrong, or
            squared errors.
        second: likewise, of the same rows.
    """

    figure: str
    first: Tensor = field(repr=False)
    second: Tensor = field(repr=False)

    @property
    def both_right(self) -> int:
        """How many rows both got right."""
        return self._count(first=1, second=1)

    @property
    def only_first(self) -> int:
        """How many rows the first alone got right."""
        return self._count(first=1, second=0)

    @property
    def only_second(self) -> int:
        """How many rows the second alone got right."""
        return self._count(first=0, second=1)

    @property
    def both_wrong(self) -> int:
        """How many rows both got wrong."""
        return self._count(first=0, second=0)

    @cached_property
    def difference(self) -> float:
        """The figure of the first less that of the second: accuracy, or mean squared error."""
        return float(self.first.mean() - self.second.mean())

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Where the difference lies with 95 % confidence: the bootstrap over pairs, seed 0."""
        return between(resampled_means(self.first - self.second))

    @cached_property
    def p(self) -> float:
        """How likely so large a difference is where there is none.

        By McNemar's exact test; of a regression by the paired t-test on squared errors.
        """
        if self.figure == "accuracy":
            return mcnemar(self.only_first, self.only_second)
        return paired_t(self.first.tolist(), self.second.tolist())

    def plot(self) -> Picture:
        """Return a picture of what each alone gets right, or of both errors, and the difference."""
        from workbench.evaluation.panels import comparison_figure

        return comparison_figure(self)

    def __len__(self) -> int:
        return len(self.first)

    def __repr__(self) -> str:
        low, high = self.interval
        test = "McNemar's exact test"
        if self.figure != "accuracy":
            test = "paired t-test on squared errors"
        return (
            f"{self._said()}: {self.figure} {float(self.first.mean()):.4g} of the first, "
            f"{float(self.second.mean()):.4g} of the second on the same {len(self):,} rows, "
            f"difference {self.difference:+.4g} (95 % interval {low:+.4g} to {high:+.4g}), "
            f"p = {self.p:.2g} by {test}"
        )

    def _said(self) -> str:
        if self.p >= _SHOWN:
            return "no difference shown"
        better = self.difference > 0 if self.figure == "accuracy" else self.difference < 0
        return f"the {'first' if better else 'second'} is better"

    def _count(self, *, first: int, second: int) -> int:
        if self.figure != "accuracy":
            raise RequestError(
                "a regression has no rows that are right: ask for difference, interval or p"
            )
        return int(((self.first == first) & (self.second == second)).sum())


def compare_evaluations(first: Evaluation, second: Evaluation) -> Comparison:
    """Return how two models differ on the same rows, by accuracy or by mean squared error.

    Args:
        first: one model's evaluation.
        second: the other's, of the same split, or of one with the same rows.

    Raises:
        RequestError: they are of different rows, or there is one row alone.
    """
    _check_same(first.split, second.split)
    figure = headline(first)
    return Comparison(figure, row_scores(first, figure), row_scores(second, figure))


def _check_same(first: Split, second: Split) -> None:
    what = None
    if first is second:
        return
    if len(first) != len(second):
        what = f"{len(first):,} rows and {len(second):,}"
    elif first.classes != second.classes:
        what = f"the classes {first.classes[:3]}... and {second.classes[:3]}..."
    elif not torch.equal(first.targets, second.targets):
        what = "different targets"
    elif not torch.equal(first.inputs, second.inputs):
        what = "different inputs"
    if what:
        raise RequestError(
            f"the two evaluations have {what}, expected the same rows in the same order: evaluate "
            "both models on one split, or put one's answers on it by Evaluation.of(split, ...)"
        )
