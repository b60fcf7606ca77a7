"""Successive halving: at a few looks on the way, the worse half of a sweep's runs is stopped."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from workbench import journal
from workbench.errors import RequestError
from workbench.runs.records import Run

__all__ = ["Goal", "Halving", "goal_of", "value_at"]

Goal = Literal["min", "max"]

_LESS = ("loss", "mse", "mae", "rmse", "mape", "nll", "error", "perplexity", "brier")
_MORE = ("accuracy", "precision", "recall", "f1", "r2", "auc", "score", "reward", "return")


@dataclass(frozen=True)
class Halving:
    """Successive halving: at steps `first`, 2 × `first`, ... the worse half is stopped.

    It is the synchronous kind (Jamieson and Talwalkar, 2016), so that who is stopped depends on the
    figures alone, and not on which run was faster.

    Args:
        metric: that the notebook records with `step=`, for instance by `wb.RecordEpochs`.
        first: the step of the first look, in the notebook's own unit.
        goal: `"min"` or `"max"`, what of the metric is better; None where its name says so.

    Raises:
        RequestError: the step is not a whole number from 1 up, or the goal is not known.
    """

    metric: str
    first: int
    goal: Goal | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.first, int) or self.first < 1:
            raise RequestError(f"first look of halving is {self.first!r}, expected 1 or more")
        goal_of(self.metric, self.goal)

    @classmethod
    def parse(cls, text: str) -> Halving:
        """Return the halving that `METRIC:STEP`, or `METRIC:STEP:max`, says.

        Raises:
            RequestError: it says none.
        """
        rest, _, end = text.rpartition(":")
        goal: Goal | None = "min" if end == "min" else "max" if end == "max" else None
        metric, _, step = (rest if goal else text).rpartition(":")
        if not metric or not step.isdecimal():
            raise RequestError(
                f"halving {text!r:.60} is not understood: expected a metric and the step of the "
                "first look, as in 'validation_loss:1', or 'reward:10:max'"
            )
        return cls(metric, int(step), goal)

    def best(self, values: Mapping[str, float]) -> set[str]:
        """Return the better half of runs, rounded up; of equal ones, the first."""
        sign = 1 if goal_of(self.metric, self.goal) == "min" else -1
        ranked = sorted(values, key=lambda run: sign * values[run])
        return set(ranked[: math.ceil(len(ranked) / 2)])


def goal_of(metric: str, goal: Goal | None = None) -> Goal:
    """Return what of a metric is better: as it is given, else as its name ends.

    Raises:
        RequestError: it is neither `"min"` nor `"max"`, or the name does not say.

    >>> goal_of("validation_loss"), goal_of("test_accuracy")
    ('min', 'max')
    """
    if goal not in (None, "min", "max"):
        raise RequestError(f"goal is {goal!r}, expected 'min' or 'max': what is better")
    if goal is None and not metric.endswith((*_LESS, *_MORE)):
        raise RequestError(
            f"whether more or less of {metric!r} is better is not known from its name: say "
            "goal='min' or goal='max', on the command line METRIC:STEP:max"
        )
    return goal or ("min" if metric.endswith(_LESS) else "max")


def value_at(run: Run, metric: str, step: int) -> float | None:
    """Return a metric at the first step from `step` on that it was recorded at.

    Of a run that is done before that, the last one; else None.
    """
    lines = [
        line
        for line in journal.read_lines(run.folder / "metrics.jsonl")
        if line["name"] == metric and "step" in line
    ]
    values = [line["value"] for line in lines if line["step"] >= step]
    if values:
        return float(values[0])
    return float(lines[-1]["value"]) if lines and run.state == "done" else None
