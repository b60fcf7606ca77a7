"""What was answered to the rows of a split, by a model or anything else, and what was decided."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any, Literal, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.datasets import Dataset, Split
from workbench.errors import RequestError
from workbench.evaluation.given import given_labels, given_probabilities, given_values
from workbench.evaluation.inference import decide, probabilities
from workbench.preprocessing import check_several
from workbench.types import Task

__all__ = ["Answers", "checked_split"]

_EPS = 2.0**-52  # in logarithms a probability of 0 counts as this one, as in scikit-learn

_Floats = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Answers:
    """What was answered to the rows of a split: outputs of a model, probabilities or labels.

    Args:
        split: the rows that were asked.
        outputs: what was answered: logits or values, shaped (rows, outputs).
        form: what `outputs` are: `"outputs"` of a model, or what `of` was given: `"probabilities"`
            likewise shaped, or `"labels"`, shaped (rows,).
        threshold: of two classes, the second is said where its probability is above; None for the
            likeliest.
    """

    split: Split = field(repr=False)
    outputs: Tensor = field(repr=False)
    form: Literal["outputs", "probabilities", "labels"] = "outputs"
    threshold: float | None = None

    @classmethod
    def of(
        cls,
        split: Split | None,
        *,
        probabilities: Any = None,
        labels: Any = None,
        values: Any = None,
    ) -> Self:
        """Return how well answers from elsewhere fit a split: another library's, or a rule's.

        Args:
            split: that was answered, row by row.
            probabilities: shaped (rows, classes), or (rows,) of the second of two classes.
            labels: names or indices of classes, shaped (rows,); they have no loss and no curves.
            values: of a regression, shaped (rows,) or (rows, outputs).

        Raises:
            RequestError: not exactly one of the three is given, or it cannot answer the split.
        """
        split = checked_split("Evaluation.of", split)
        given = {"probabilities": probabilities, "labels": labels, "values": values}
        known = [name for name, value in given.items() if value is not None]
        if len(known) != 1:
            raise RequestError(
                f"Evaluation.of got {' and '.join(known) or 'no answers'}, expected exactly one of "
                "probabilities=, labels= and values="
            )
        if probabilities is not None:
            return cls(split, given_probabilities(probabilities, split), "probabilities")
        if labels is not None:
            return cls(split, given_labels(labels, split), "labels")
        return cls(split, given_values(values, split))

    def at(self, threshold: float) -> Self:
        """Return the same answers, decided otherwise: the second class where P > `threshold`.

        Args:
            threshold: 0.5 decides for the likelier class; lower ones for the second more often.

        Raises:
            RequestError: there are not two classes, or their probabilities are not known.
        """
        self._chances("threshold")
        if len(self.classes) != 2:
            raise RequestError(
                f"a threshold decides between two classes, found {len(self.classes)}: of several "
                "the likeliest is said"
            )
        if not isinstance(threshold, int | float | np.number) or math.isnan(threshold):
            raise RequestError(f"threshold must be a number, got {threshold!r}: pass 0.5, say")
        return replace(self, threshold=float(threshold))

    def scaled(self, temperature: float) -> Self:
        """Return what the logits divided by `temperature` answer; above 1 they are less sure.

        The likeliest class of a row stays the likeliest.

        Args:
            temperature: above 0, for instance what `temperature()` of the validation split gave.

        Raises:
            RequestError: it is not above 0, or only labels are known.
        """
        self._check_graded("temperature")
        if not 0 < temperature < math.inf:
            raise RequestError(f"temperature must be above 0 and finite, got {temperature!r}")
        return replace(self, outputs=self._logits / temperature, form="outputs")

    @property
    def task(self) -> Task:
        """`"classification"` where there are classes, else `"regression"`."""
        return "classification" if self.split.classes else "regression"

    @property
    def classes(self) -> tuple[str, ...]:
        """The class names in the order of the confusion matrix."""
        return self.split.classes

    @property
    def targets(self) -> Tensor:
        """The true answers, shaped (rows,) or (rows, outputs)."""
        return self.split.targets

    @cached_property
    def probabilities(self) -> Tensor:
        """(rows, classes), or (rows, 1) of the second of two classes."""
        self._check_graded("probabilities")
        if self.form == "probabilities":
            return self.outputs
        chances = probabilities(self.outputs, self.classes)
        assert chances is not None  # there are classes
        return chances

    @cached_property
    def predicted(self) -> Tensor:
        """The index of the class that is said of each row, shaped (rows,): the likeliest."""
        self._check_classes("predicted")
        if self.form == "labels":
            return self.outputs
        if self.threshold is None:
            return decide(self.probabilities)
        return (self._every_chance[:, 1] > self.threshold).long()

    def __len__(self) -> int:
        return len(self.split)

    @property
    def _logits(self) -> Tensor:
        """The outputs, or what logits of the probabilities would be, in double precision."""
        if self.form == "outputs":
            return self.outputs.double()
        clipped = self.outputs.clamp(_EPS, 1 - _EPS)
        return clipped.logit() if self.outputs.shape[1] == 1 else clipped.log()

    @property
    def _every_logit(self) -> Tensor:
        """(rows, classes): where one logit stands for two classes, that of the first is 0."""
        logits = self._logits
        return F.pad(logits, (1, 0)) if logits.shape[1] == 1 else logits

    @cached_property
    def _every_chance(self) -> Tensor:
        """(rows, classes) in double precision, in which fewer scores are tied at 1."""
        if self.form == "outputs":
            return self._every_logit.softmax(1)
        second = self.outputs
        return torch.cat([1 - second, second], dim=1) if second.shape[1] == 1 else second

    @cached_property
    def _strange(self) -> np.ndarray[Any, np.dtype[np.int64]]:
        """Which rows have a chance that is not finite."""
        return np.flatnonzero(~np.isfinite(self._every_chance.numpy()).all(1))

    def _row_losses(self) -> Tensor:
        """Return the cross-entropy of each row in nats, in double precision."""
        return F.cross_entropy(self._every_logit, self.targets, reduction="none")

    def _chances(self, what: str) -> _Floats:
        """Return the probability of every class, all known and finite, for `what`."""
        self._check_graded(what)
        if len(self._strange):
            raise RequestError(
                f"{len(self._strange):,} of {len(self):,} rows were answered with what is not "
                f"finite, first row {self._strange[0]}, so there is no {what}: find out why"
            )
        chances: _Floats = self._every_chance.numpy()
        return chances

    def _check_graded(self, what: str) -> None:
        self._check_classes(what)
        if self.form == "labels":
            raise RequestError(
                f"labels alone have no {what}: give Evaluation.of(split, probabilities=...)"
            )

    def _check_classes(self, what: str) -> None:
        if not self.classes:
            raise RequestError(f"a regression has no {what}: ask for mse, mae or r2")


def checked_split(what: str, split: Any) -> Split:
    """Return a split that `what` can take.

    Raises:
        RequestError: it is none, or has one class alone.
    """
    if isinstance(split, Split):
        check_several(what, split.classes)
        return split
    hint = "pass data.test" if isinstance(split, Dataset) else "pass one of a dataset's splits"
    hint = "this dataset has no such split" if split is None else hint
    raise RequestError(f"{what} takes a Split, got {type(split).__name__}: {hint}")
