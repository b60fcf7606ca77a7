"""A batch norm that keeps up with a short training."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

__all__ = ["FastBiasNorm"]


class FastBiasNorm(nn.BatchNorm2d):
    """BatchNorm without a scale, whose bias learns faster than the weights.

    The bias that is added is `boost` × the parameter. Its gradient is then `boost` times as large,
    and so is what a step on it changes: under SGD, with momentum or without, the bias learns
    `boost`² times as fast, with one learning rate for all. `boost=8` is the factor 64 of K. Jordan,
    "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), made for batches of about 1,000.

    Args:
        n: channels.
        boost: how many times the parameter is added.
        pace: of the running statistics, the share of each batch in them (torch calls it momentum):
            with few steps they must keep up.
    """

    def __init__(self, n: int, *, boost: float = 4.0, pace: float = 0.4) -> None:
        super().__init__(n, affine=False, momentum=pace)
        self.boost = boost
        self.bias = nn.Parameter(torch.zeros(n))

    def forward(self, x: Tensor) -> Tensor:
        """Return images shaped (rows, channels, H, W), normalized by channel and shifted."""
        mean, var, pace = self.running_mean, self.running_var, self.momentum
        assert pace is not None  # given to __init__
        bias = self.boost * self.bias
        return F.batch_norm(x, mean, var, None, bias, self.training, pace, self.eps)
