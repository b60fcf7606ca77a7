"""The loss that fits a task: what `fit` minimizes and `evaluate` reports unless told otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from workbench.errors import RequestError

__all__ = ["Loss", "check_outputs", "is_binary", "task_loss"]

Loss = Callable[[Tensor, Tensor], Tensor]


def is_binary(outputs: Tensor, classes: tuple[str, ...]) -> bool:
    """Return whether outputs shaped (rows, 1) are the logit of the second of two classes."""
    return len(classes) == 2 and outputs.shape[1:] == (1,)


def task_loss(
    classes: tuple[str, ...],
    *,
    outputs: Tensor,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] = (),
) -> Loss:
    """Return the mean loss over rows that fits the task.

    Cross-entropy of logits for classes; of one logit where two classes share it; mean squared
    error where there are none.

    Args:
        classes: the class names; empty for regression.
        outputs: any outputs of the model, shaped (rows, outputs).
        label_smoothing: share of each target that is spread evenly over the classes (Szegedy et
            al., 2015).
        class_weights: what a row of each class counts, the mean being over these weights; empty
            for all alike.
    """
    if not classes:
        return lambda y_hat, y: F.mse_loss(y_hat, y.reshape(y_hat.shape))
    weight = torch.tensor(class_weights, device=outputs.device) if class_weights else None
    if is_binary(outputs, classes):
        return lambda y_hat, y: _binary_loss(y_hat, y, label_smoothing, weight)
    return lambda y_hat, y: F.cross_entropy(
        y_hat, y, weight=weight, label_smoothing=label_smoothing
    )


def _binary_loss(y_hat: Tensor, y: Tensor, smoothing: float, weight: Tensor | None) -> Tensor:
    wanted = y * (1 - smoothing) + smoothing / 2
    if weight is None:
        return F.binary_cross_entropy_with_logits(y_hat.flatten(), wanted.to(y_hat.dtype))
    each = weight[y]
    losses = F.binary_cross_entropy_with_logits(y_hat.flatten(), wanted.to(y_hat.dtype), each)
    return losses * len(y) / each.sum()


def check_outputs(outputs: Tensor, targets: Tensor, classes: tuple[str, ...]) -> None:
    """Raise where a model's outputs cannot be the answers to the targets.

    Args:
        outputs: what `forward` returned, shaped (rows, outputs).
        targets: of the same rows.
        classes: the class names; empty for regression.

    Raises:
        RequestError: the shapes do not fit.
    """
    rows = len(targets)
    if classes:
        expected = f"({rows}, {len(classes)})" + (f" or ({rows}, 1)" if len(classes) == 2 else "")
        fits = outputs.shape == (rows, len(classes)) or (
            is_binary(outputs, classes) and len(outputs) == rows
        )
    else:
        width = targets[0].numel()
        expected, fits = f"({rows}, {width})", outputs.shape == (rows, width)
    if not fits:
        what = f"{len(classes)} classes" if classes else "the targets"
        way = "change the size of its last layer"
        if outputs.shape == (rows,):
            way = "keep the axis of outputs, for instance by unsqueeze(1)"
        raise RequestError(
            f"the model's outputs have the shape {tuple(outputs.shape)}, expected {expected} "
            f"for {what}: {way}"
        )
