"""The multi-layer perceptron: linear layers with ReLU between them."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from torch import Tensor, nn

__all__ = ["MLP"]


class MLP(nn.Module):
    """Rows flattened, then linear layers with ReLU between them.

    Args:
        inputs: shape of one row.
        outputs: how many numbers a row is answered with.
        hidden: the widths of the hidden layers.
    """

    def __init__(
        self, inputs: tuple[int, ...], outputs: int, hidden: Sequence[int] = (64, 64)
    ) -> None:
        super().__init__()
        widths = [math.prod(inputs), *hidden, outputs]
        self.layers = nn.Sequential()
        for i, (n_in, n_out) in enumerate(itertools.pairwise(widths)):
            if i:
                self.layers.append(nn.ReLU())
            self.layers.append(nn.Linear(n_in, n_out))

    def forward(self, x: Tensor) -> Tensor:
        """Return logits or values shaped (rows, outputs)."""
        y: Tensor = self.layers(x.flatten(1))
        return y
