"""How far a figure would move on other rows: the bootstrap, and split conformal prediction."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from workbench.determinism import check_seed, generator
from workbench.errors import RequestError, UnknownNameError
from workbench.evaluation.metrics import class_rates, explained
from workbench.evaluation.significance import LEVEL

if TYPE_CHECKING:
    from workbench.evaluation.evaluations import Evaluation

__all__ = [
    "RESAMPLES",
    "between",
    "check_level",
    "headline",
    "interval",
    "margin",
    "resampled",
    "resampled_means",
    "row_scores",
]

RESAMPLES = 1000
_AT_ONCE = 2**22  # rows that are drawn at once: 32 MiB of indices

_Statistic = Callable[[Tensor], Tensor]  # rows' indices (resamples, rows) to figures (resamples,)


def interval(
    evaluation: Evaluation,
    figure: str | None = None,
    level: float = LEVEL,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> tuple[float, float]:
    """Return where a figure would lie on other rows of the same kind, with confidence `level`.

    The percentile bootstrap: rows are drawn anew with replacement, as many as there are, and the
    figure's middle `level` is returned (Efron and Tibshirani, "An Introduction to the Bootstrap",
    1993, chapter 13). It speaks of the choice of rows, not of another training's luck. Where all
    rows are right it has no width: 3 in as many rows may still be wrong.

    Args:
        evaluation: of two rows or more, which are taken to be independent.
        figure: one of `evaluation.metrics`; None for accuracy, or mse of a regression.
        level: above 0 and below 1.
        resamples: how often the rows are drawn anew.
        seed: of these draws, which disturb no others.

    Raises:
        RequestError: there is one row alone, no such figure, or a number cannot be.
    """
    return between(resampled(evaluation, figure, resamples, seed), level)


def between(values: Tensor, level: float = LEVEL) -> tuple[float, float]:
    """Return the middle `level` of values shaped (resamples,).

    Raises:
        RequestError: `level` is not above 0 and below 1.
    """
    check_level(level)
    ends = torch.tensor([(1 - level) / 2, (1 + level) / 2], dtype=torch.float64)
    low, high = values.double().quantile(ends).tolist()
    return low, high


def resampled(
    evaluation: Evaluation, figure: str | None = None, resamples: int = RESAMPLES, seed: int = 0
) -> Tensor:
    """Return a figure of rows drawn anew with replacement, shaped (resamples,), in float64.

    Args:
        evaluation: of two rows or more.
        figure: one of `evaluation.metrics`; None for accuracy, or mse of a regression.
        resamples: how often.
        seed: of the draws.

    Raises:
        RequestError: there is one row alone, no such figure, or a number cannot be.
    """
    return _bootstrap(_statistic(evaluation, figure), len(evaluation), resamples, seed)


def resampled_means(scores: Tensor, resamples: int = RESAMPLES, seed: int = 0) -> Tensor:
    """Return the mean of scores shaped (rows,), drawn anew with replacement: (resamples,)."""
    return _bootstrap(_mean_of(scores), len(scores), resamples, seed)


def headline(evaluation: Evaluation) -> str:
    """Return the figure that a task is judged by where nobody asked another."""
    return "accuracy" if evaluation.classes else "mse"


def row_scores(evaluation: Evaluation, figure: str) -> Tensor:
    """Return what a figure is the mean of, shaped (rows,), in float64.

    Args:
        evaluation: of any rows.
        figure: accuracy, loss, mse or mae.
    """
    if figure == "accuracy":
        return (evaluation.predicted == evaluation.targets).double()
    if figure == "loss" and evaluation.classes:
        return torch.tensor(evaluation.examples["loss"].to_numpy(), dtype=torch.float64)
    residuals = evaluation.residuals.flatten(1)
    return (residuals.abs() if figure == "mae" else residuals.square()).mean(1)


def margin(evaluation: Evaluation, level: float = 0.9) -> float:
    """Return how far from a new row's output its true value lies at most, with chance `level`.

    Split conformal prediction: the ⌈(n + 1) · level⌉-th smallest absolute residual of n rows that
    were neither trained on nor chosen by. Whatever the model, the interval output ± margin holds
    the value of a new row of the same kind with at least that chance, over rows and these n alike
    (Lei et al., "Distribution-free predictive inference for regression", 2018). Of several outputs
    a row's largest residual counts, so that all of them lie within at once.

    Args:
        evaluation: of a regression on its validation rows.
        level: above 0, and at most n / (n + 1).

    Raises:
        RequestError: it is a classification, or `level` is more than so few rows can promise.
    """
    check_level(level)
    if evaluation.classes:
        raise RequestError("a classification has no margin: ask for calibration or an interval")
    n = len(evaluation)
    rank = math.ceil(round((n + 1) * level, 9))  # 100 * 0.55 is 55.00000000000001
    if rank > n:
        raise RequestError(
            f"{n:,} rows promise a margin up to the level {n / (n + 1):.4g}, asked was {level:g}: "
            "evaluate more rows, or ask for less"
        )
    residuals = evaluation.residuals.flatten(1).abs()
    return float(residuals.amax(1).kthvalue(rank).values)


def check_level(level: float) -> None:
    """Raise where a confidence cannot be.

    Raises:
        RequestError: it is not above 0 and below 1.
    """
    if isinstance(level, bool) or not isinstance(level, int | float) or not 0 < level < 1:
        raise RequestError(f"level is {level!r:.40}, expected a number between 0 and 1: level=0.95")


def _bootstrap(statistic: _Statistic, n: int, resamples: int, seed: int) -> Tensor:
    check_seed(seed)
    if isinstance(resamples, bool) or not isinstance(resamples, int) or resamples < 1:
        raise RequestError(f"resamples is {resamples!r:.40}, expected a whole number from 1 up")
    if n < 2:
        raise RequestError(f"{n} row has no spread to draw from: evaluate two or more")
    draws, at_once = generator(seed, "bootstrap"), max(1, _AT_ONCE // n)
    sizes = [min(at_once, resamples - start) for start in range(0, resamples, at_once)]
    return torch.cat([statistic(torch.randint(n, (size, n), generator=draws)) for size in sizes])


def _statistic(evaluation: Evaluation, figure: str | None) -> _Statistic:
    figure = headline(evaluation) if figure is None else figure
    if figure not in evaluation.metrics:
        raise UnknownNameError("figure of an evaluation", str(figure), evaluation.metrics)
    if figure in ("precision", "recall", "f1"):
        return _rate_of(evaluation, figure)
    if figure == "r2":
        return _r_squared_of(evaluation)
    return _mean_of(row_scores(evaluation, figure))


def _mean_of(scores: Tensor) -> _Statistic:
    return lambda rows: scores.double()[rows].mean(1)


def _rate_of(evaluation: Evaluation, figure: str) -> _Statistic:
    """Return the macro mean of the classes' precisions, recalls or F1 scores."""
    k = len(evaluation.classes)
    cells = evaluation.targets * k + evaluation.predicted

    def rate(rows: Tensor) -> Tensor:
        apart = cells[rows] + k * k * torch.arange(len(rows))[:, None]
        counts = apart.flatten().bincount(minlength=len(rows) * k * k)
        return class_rates(counts.reshape(-1, k, k))[figure].mean(-1)

    return rate


def _r_squared_of(evaluation: Evaluation) -> _Statistic:
    squares = evaluation.residuals.square()
    targets = evaluation.targets.double().reshape(squares.shape)
    columns = list(zip(targets.T, squares.T, strict=True))

    def r2(rows: Tensor) -> Tensor:
        scores = []
        for values, off in columns:
            drawn = values[rows]
            total = (drawn - drawn.mean(1, keepdim=True)).square().sum(1)
            scores.append(explained(off[rows].sum(1), total))
        return torch.stack(scores).mean(0)

    return r2
