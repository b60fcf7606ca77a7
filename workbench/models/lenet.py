"""The two-convolution net of the classic CIFAR-10 tutorial, exactly: 62,006 parameters."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.models.images import image_shape

__all__ = ["LeNet"]


class LeNet(nn.Module):
    """Convolution 6@5, ReLU, pool, convolution 16@5, ReLU, pool, then 120, 84 and the outputs.

    After LeNet-5 (LeCun et al., 1998), with ReLU and max pooling.

    Args:
        inputs: shape of one image as `forward` takes it: (channels, height, width), 16 or more
            a side.
        outputs: how many numbers an image is answered with.
    """

    def __init__(self, inputs: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        channels, height, width = image_shape(inputs)
        self.conv1 = nn.Conv2d(channels, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(16 * _pooled(height) * _pooled(width), 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits shaped (rows, outputs) for images shaped (rows, channels, H, W)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        y: Tensor = self.fc3(x)
        return y


def _pooled(size: int) -> int:
    """Return what two unpadded 5×5 convolutions, each halved by a pool, leave of a side."""
    return ((size - 4) // 2 - 4) // 2
