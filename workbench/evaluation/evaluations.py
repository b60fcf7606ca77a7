"""`evaluate`: everything there is to know of a model on a split, from one pass over it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING

import pandas as pd
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.datasets import Dataset, Split
from workbench.errors import RequestError
from workbench.evaluation.inference import decide, infer, preprocessing_of, probabilities
from workbench.evaluation.losses import check_outputs, is_binary, task_loss
from workbench.evaluation.metrics import class_scores, confusion_matrix, r_squared
from workbench.types import Task

if TYPE_CHECKING:
    from workbench.pictures import Picture

__all__ = ["Evaluation", "evaluate"]


def evaluate(
    model: nn.Module, split: Split | None, *, batch_size: int = 512, mirror: bool = False
) -> Evaluation:
    """Return how well the model answers a split, from one pass over it.

    Args:
        model: any module whose outputs are logits or values, shaped (rows, outputs).
        split: `data.test`, `data.validation` or `data.train`.
        batch_size: how many rows go through the model at once.
        mirror: whether each image is asked together with its mirror image and the outputs are
            averaged: twice the work, for images whose left and right mean the same (test-time
            augmentation).

    Raises:
        RequestError: `split` is not a split, its rows or classes are not the model's, or `mirror`
            is asked of rows that are no images.
    """
    if not isinstance(split, Split):
        hint = "pass data.test" if isinstance(split, Dataset) else "pass one of a dataset's splits"
        hint = "this dataset has no such split" if split is None else hint
        raise RequestError(f"evaluate takes a Split, got {type(split).__name__}: {hint}")
    preprocessing = preprocessing_of(model, split.inputs)
    if preprocessing.classes and preprocessing.classes != split.classes:
        raise RequestError(
            f"the model was made for the classes {preprocessing.classes[:3]}..., the split has "
            f"{split.classes[:3]}...: evaluate it on data of its own classes"
        )
    raw = preprocessing.batch(split.inputs)
    outputs = infer(
        model, raw, preprocessing, batch_size=batch_size, mirror=mirror, label="evaluating"
    )
    check_outputs(outputs, split.targets, split.classes)
    return Evaluation(split=split, outputs=outputs)


@dataclass(frozen=True, eq=False)
class Evaluation:
    """How well a model answers a split; every figure is computed when it is asked for.

    Args:
        split: the rows it was asked.
        outputs: what it answered, shaped (rows, outputs).
    """

    split: Split = field(repr=False)
    outputs: Tensor = field(repr=False)

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
    def loss(self) -> float:
        """The mean loss over the rows: cross-entropy in nats, or mean squared error."""
        return float(task_loss(self.classes, outputs=self.outputs)(self.outputs, self.targets))

    @cached_property
    def probabilities(self) -> Tensor:
        """(rows, classes), or (rows, 1) of the second of two classes."""
        chances = probabilities(self.outputs, self._classes("probabilities"))
        assert chances is not None  # there are classes
        return chances

    @cached_property
    def predicted(self) -> Tensor:
        """The index of the likeliest class of each row, shaped (rows,)."""
        return decide(self.probabilities)

    @cached_property
    def accuracy(self) -> float:
        """The share of rows whose likeliest class is the true one."""
        self._classes("accuracy")
        return float((self.predicted == self.targets).double().mean())

    @cached_property
    def confusion(self) -> Tensor:
        """Counts shaped (classes, classes), indexed [true, predicted]."""
        return confusion_matrix(self.targets, self.predicted, len(self._classes("confusion")))

    @cached_property
    def per_class(self) -> pd.DataFrame:
        """Precision, recall, F1 and support, a row a class."""
        return class_scores(self.confusion, self._classes("per_class"))

    @property
    def precision(self) -> float:
        """The mean of the classes' precisions (macro average)."""
        return float(self.per_class["precision"].mean())

    @property
    def recall(self) -> float:
        """The mean of the classes' recalls (macro average)."""
        return float(self.per_class["recall"].mean())

    @property
    def f1(self) -> float:
        """The mean of the classes' F1 scores (macro average)."""
        return float(self.per_class["f1"].mean())

    @cached_property
    def mistakes(self) -> pd.DataFrame:
        """The rows that were answered wrongly, the most surely wrong first.

        Columns: row (in the split), true, predicted, p_true, p_predicted, loss.
        """
        classes = self._classes("mistakes")
        chances = self.probabilities
        if chances.shape[1] == 1:
            chances = torch.cat([1 - chances, chances], dim=1)
        wrong = (self.predicted != self.targets).nonzero().flatten()
        losses, order = self._row_losses()[wrong].sort(descending=True, stable=True)
        wrong = wrong[order]
        true, said = self.targets[wrong], self.predicted[wrong]
        return pd.DataFrame(
            {
                "row": wrong.numpy(),
                "true": [classes[i] for i in true.tolist()],
                "predicted": [classes[i] for i in said.tolist()],
                "p_true": chances[wrong, true].numpy(),
                "p_predicted": chances[wrong, said].numpy(),
                "loss": losses.numpy(),
            }
        )

    @cached_property
    def mse(self) -> float:
        """The mean squared error, in the target's unit squared."""
        return float(self._residuals("mse").square().mean())

    @cached_property
    def mae(self) -> float:
        """The mean absolute error, in the target's unit."""
        return float(self._residuals("mae").abs().mean())

    @cached_property
    def r2(self) -> float:
        """The share of the targets' variance that is explained; 0 for always saying the mean."""
        self._residuals("r2")
        return r_squared(self.targets, self.outputs)

    @property
    def metrics(self) -> dict[str, float]:
        """The headline figures by name."""
        scores = ["accuracy", "precision", "recall", "f1"] if self.classes else ["mse", "mae", "r2"]
        return {name: getattr(self, name) for name in ("loss", *scores)}

    def plot_confusion(self) -> Picture:
        """Return a picture of the confusion matrix, each row as shares of its true class."""
        from workbench.evaluation.plots import confusion_figure

        return confusion_figure(self.confusion, self._classes("plot_confusion"))

    def plot_mistakes(self, n: int = 10) -> Picture:
        """Return a picture of the `n` most surely wrong images, each with what it is and was said.

        Raises:
            RequestError: the split holds no images.
        """
        from workbench.evaluation.plots import mistakes_figure

        return mistakes_figure(self.split, self.mistakes.head(n))

    def __len__(self) -> int:
        return len(self.split)

    def __repr__(self) -> str:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"Evaluation of {len(self):,} rows: {figures}"

    def _row_losses(self) -> Tensor:
        if is_binary(self.outputs, self.classes):
            y = self.targets.float()
            return F.binary_cross_entropy_with_logits(self.outputs[:, 0], y, reduction="none")
        return F.cross_entropy(self.outputs, self.targets, reduction="none")

    def _classes(self, what: str) -> tuple[str, ...]:
        if not self.classes:
            raise RequestError(f"a regression has no {what}: ask for mse, mae or r2")
        return self.classes

    def _residuals(self, what: str) -> Tensor:
        if self.classes:
            raise RequestError(f"a classification has no {what}: ask for accuracy, precision or f1")
        return self.outputs.double() - self.targets.double().reshape(self.outputs.shape)
