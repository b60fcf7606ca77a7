"""`diagnose` and `learning_curve`: does a model over-fit, and would more rows help it?"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from typing import TYPE_CHECKING

import pandas as pd
import torch
from torch import nn

from workbench.datasets import Dataset, Split
from workbench.datasets.splits import sample
from workbench.determinism import check_seed, generator
from workbench.errors import RequestError
from workbench.evaluation.evaluations import Evaluation, evaluate
from workbench.evaluation.intervals import between, headline, interval, resampled
from workbench.progress import progress

if TYPE_CHECKING:
    from workbench.pictures import Picture

__all__ = ["Diagnosis", "LearningCurve", "diagnose", "learning_curve"]

_MOST_ROWS = 10_000  # of train that are evaluated; a share's standard error is then 0.5 % at most


@dataclass(frozen=True, repr=False, eq=False)
class Diagnosis:
    """What a model makes of rows it learned from, beside rows it never saw.

    Args:
        train: its evaluation on rows it learned from, at most 10,000.
        validation: its evaluation on the validation rows.
    """

    train: Evaluation = field(repr=False)
    validation: Evaluation = field(repr=False)

    @property
    def figure(self) -> str:
        """What is compared: `"accuracy"`, or `"mse"` of a regression."""
        return headline(self.train)

    @cached_property
    def gap(self) -> float:
        """How much worse the figure is on validation: above 0 for a model that over-fits."""
        train, validation = (e.metrics[self.figure] for e in (self.train, self.validation))
        return train - validation if self.figure == "accuracy" else validation - train

    @cached_property
    def interval(self) -> tuple[float, float]:
        """Where the gap lies with 95 % confidence: the bootstrap over the rows of both."""
        train, validation = resampled(self.train, seed=0), resampled(self.validation, seed=1)
        return between(train - validation if self.figure == "accuracy" else validation - train)

    @cached_property
    def verdict(self) -> str:
        """Whether the model over-fits, in a sentence."""
        low, high = self.interval
        said = "over-fits" if low > 0 else "no gap shown"
        train, validation = (e.metrics[self.figure] for e in (self.train, self.validation))
        return (
            f"{said}: {self.figure} {train:.4g} on rows it learned from, {validation:.4g} on "
            f"validation, a gap of {self.gap:.4g} (95 % interval {low:.4g} to {high:.4g})"
        )

    def plot(self) -> Picture:
        """Return a picture of the figures on both parts, with their 95 % intervals."""
        from workbench.evaluation.panels import diagnosis_figure

        return diagnosis_figure(self.train, self.validation)

    def __repr__(self) -> str:
        return self.verdict


@dataclass(frozen=True, repr=False, eq=False)
class LearningCurve:
    """How a way to train does with ever more rows.

    Args:
        figure: `"accuracy"`, or `"mse"` of a regression.
        table: a row a size: rows, train (the figure on the rows learned from, at most 10,000),
            validation, and low and high of the validation figure's 95 % interval.
    """

    figure: str
    table: pd.DataFrame

    def plot(self) -> Picture:
        """Return a picture of both figures by the number of rows."""
        from workbench.evaluation.panels import learning_figure

        return learning_figure(self.table, self.figure)

    def __repr__(self) -> str:
        ends = self.table.iloc[[0, -1]]
        (a, b), (m, n) = ends["validation"], ends["rows"]
        return (
            f"validation {self.figure} from {a:.4g} with {m:,} rows to {b:.4g} with {n:,}, "
            f"{len(self.table)} sizes"
        )


def diagnose(model: nn.Module, data: Dataset) -> Diagnosis:
    """Return whether a model does better on rows it learned from than on the validation rows.

    The test split is left alone: who diagnoses by it chooses by it.

    Args:
        model: trained on `data.train`.
        data: with a validation split.

    Raises:
        RequestError: there is none, or the model does not fit the data.
    """
    held = _validation("diagnose", data)
    return Diagnosis(evaluate(model, _few(data.train)), evaluate(model, held))


def learning_curve(
    train: Callable[[Dataset], nn.Module],
    data: Dataset,
    *,
    sizes: Sequence[float] = (0.1, 0.3, 1.0),
    seed: int = 0,
) -> LearningCurve:
    """Return how a way to train does with ever more of the training rows.

    Each larger part holds the smaller ones, and each has the shares of the classes of the whole.

    Args:
        train: returns a model trained on the data set it is given, from the beginning each time.
        data: with a validation split, which is the same for each size.
        sizes: whole numbers of rows, or shares of `data.train` (1.0 is all of it), ever larger.
        seed: of which rows are taken first.

    Raises:
        RequestError: there is no validation split, a size cannot be, or `train` returns no model.
    """
    held = _validation("learning_curve", data)
    counts = _counts(sizes, len(data.train))
    check_seed(seed)
    rows = []
    with progress(len(counts), "learning curve", unit="size") as bar:
        for n in counts:
            part = _part(data, n, seed)
            model = train(part)
            if not isinstance(model, nn.Module):
                raise RequestError(
                    f"train returned {type(model).__name__}, expected a model (an nn.Module): end "
                    "it by returning the model"
                )
            rows.append((n, *_figures(evaluate(model, _few(part.train)), evaluate(model, held))))
            bar.update()
    table = pd.DataFrame(rows, columns=["rows", "train", "validation", "low", "high"])
    return LearningCurve("accuracy" if data.classes else "mse", table)


def _validation(what: str, data: Dataset) -> Split:
    if not isinstance(data, Dataset):
        raise RequestError(f"{what} takes a Dataset, got {type(data).__name__}: pass data")
    if data.validation is None:
        raise RequestError(
            f"{what} needs rows that {data.name!r} was not trained on, and it has no validation "
            "split: load it with validation=1000, or another number of rows"
        )
    return data.validation


def _few(split: Split) -> Split:
    return sample(split, min(len(split), _MOST_ROWS))


def _counts(sizes: Sequence[float], rows: int) -> list[int]:
    """Return how many rows the sizes are; a whole number is that many, a float a share."""
    counts = []
    for size in sizes:
        n = size if isinstance(size, int) else round(size * rows)
        if isinstance(size, bool) or not 1 <= n <= rows:
            raise RequestError(
                f"size {size!r} is {n} of {rows:,} training rows, expected 1 to {rows:,}, or a "
                "share up to 1.0"
            )
        counts.append(n)
    if not counts or any(b <= a for a, b in pairwise(counts)):
        raise RequestError(f"sizes are {counts} rows, expected ever larger ones: (0.1, 0.3, 1.0)")
    return counts


def _part(data: Dataset, n: int, seed: int) -> Dataset:
    """Return the data set with `n` of its training rows; those of a smaller `n` are among them."""
    if n == len(data.train):
        return data
    order = torch.randperm(len(data.train), generator=generator(seed, "learning curve"))
    drawn = sample(Split(order, data.train.targets[order], data.classes), n).inputs
    kept = data.train.rows(drawn.sort().values)
    told = json.dumps({"whole": data.fingerprint, "rows": n, "seed": seed})
    return replace(data, train=kept, fingerprint=hashlib.sha256(told.encode()).hexdigest())


def _figures(train: Evaluation, validation: Evaluation) -> tuple[float, float, float, float]:
    figure = headline(train)
    return train.metrics[figure], validation.metrics[figure], *interval(validation)
