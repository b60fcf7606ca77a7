"""Scores from targets and predictions, with scikit-learn's conventions: 0 where nothing divides."""

from __future__ import annotations

import pandas as pd
import torch
from torch import Tensor

__all__ = ["class_rates", "class_scores", "confusion_matrix", "explained", "r_squared"]


def confusion_matrix(targets: Tensor, predicted: Tensor, n_classes: int) -> Tensor:
    """Return counts shaped (classes, classes): row the true class, column the predicted one.

    >>> confusion_matrix(torch.tensor([0, 0, 1]), torch.tensor([0, 1, 1]), 2).tolist()
    [[1, 1], [0, 1]]
    """
    pairs = targets * n_classes + predicted
    return torch.bincount(pairs, minlength=n_classes**2).reshape(n_classes, n_classes)


def class_scores(confusion: Tensor, classes: tuple[str, ...]) -> pd.DataFrame:
    """Return precision, recall, F1 and number of rows (support) of each class.

    Precision is the share of the rows said to be of the class that are; recall the share of the
    class's rows that were said to be; F1 their harmonic mean.

    Args:
        confusion: counts shaped (classes, classes), row the true class.
        classes: the names, which become the index.
    """
    scores = {**class_rates(confusion), "support": confusion.sum(1)}
    return pd.DataFrame({k: v.numpy() for k, v in scores.items()}, index=list(classes))


def class_rates(confusion: Tensor) -> dict[str, Tensor]:
    """Return precision, recall and F1 by name, each shaped (..., classes), in float64.

    Args:
        confusion: counts shaped (..., classes, classes), the true class before the predicted one.
    """
    hits = confusion.diagonal(dim1=-2, dim2=-1).double()
    precision = _ratio(hits, confusion.sum(-2).double())
    recall = _ratio(hits, confusion.sum(-1).double())
    f1 = _ratio(2 * precision * recall, precision + recall)
    return {"precision": precision, "recall": recall, "f1": f1}


def r_squared(targets: Tensor, outputs: Tensor) -> float:
    """Return the share of the targets' variance that the outputs explain; 0 for their mean.

    As in scikit-learn, targets without variance give 1 when met exactly, else 0.
    """
    targets, outputs = targets.double(), outputs.double().reshape(targets.shape)
    residual = (targets - outputs).square().sum(0)
    total = (targets - targets.mean(0)).square().sum(0)
    return float(explained(residual, total).mean())


def explained(residual: Tensor, total: Tensor) -> Tensor:
    """Return the share of sums of squares that is not left over, as `r_squared` takes it.

    Args:
        residual: what is left over, of any shape.
        total: about the mean, shaped likewise.
    """
    exact = (residual == 0).double()
    return torch.where(total > 0, 1 - residual / total.clamp_min(1e-300), exact)


def _ratio(a: Tensor, b: Tensor) -> Tensor:
    return torch.where(b > 0, a / b.clamp_min(1e-300), 0.0)
