"""Linear regression, and with classes softmax (or logistic) regression: one matrix and a bias."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from workbench.types import JSON

__all__ = ["Linear"]


class Linear(nn.Module):
    """y = x Wᵀ + b, started at zero: the loss is convex, so the start does not matter.

    Args:
        inputs: shape of one row; flattened.
        outputs: how many numbers a row is answered with.
    """

    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.recipe: JSON = {"optimizer": "sgd", "lr": 0.05}
        self.linear = nn.Linear(math.prod(inputs), outputs)
        with torch.no_grad():
            self.linear.weight.zero_()
            self.linear.bias.zero_()

    def forward(self, x: Tensor) -> Tensor:
        """Return logits or values shaped (rows, outputs)."""
        y: Tensor = self.linear(x.flatten(1))
        return y
