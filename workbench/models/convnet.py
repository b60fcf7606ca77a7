"""A small convolutional net that learns fast on a CPU.

After K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024): a first layer that
whitens 2×2 patches and is not trained, identity ("Dirac") starts, and BatchNorm without scale
whose bias learns faster.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.errors import RequestError
from workbench.models.images import image_shape
from workbench.types import JSON

__all__ = ["ConvNet"]

_WHITENING_IMAGES = 5_000  # enough for a 12×12 covariance
_WHITENING_EPS = 5e-4  # below it a direction is noise, and is not blown up


class ConvNet(nn.Module):
    """A whitening stem, three blocks of two 3×3 convolutions, global max pooling, a linear layer.

    Args:
        inputs: shape of one image as `forward` takes it: (channels, height, width), 16 or more
            a side.
        outputs: how many numbers an image is answered with.
        widths: channels of the three blocks.
        stride: of the stem: 2 halves the sides and quarters the work, 1 keeps the detail.
    """

    fit_defaults: ClassVar[JSON] = {
        "optimizer": "sgd",
        "lr": 0.3,
        "batch_size": 128,
        "weight_decay": 5e-4,
    }

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: int,
        widths: Sequence[int] = (32, 64, 128),
        stride: int = 2,
    ) -> None:
        super().__init__()
        channels, _, _ = image_shape(inputs)
        if not widths:
            raise RequestError("widths of convnet is empty, expected one or more: widths=(32, 64)")
        patches = 2 * channels * 4  # both signs of every direction of a 2×2 patch
        self.stem = nn.Conv2d(channels, patches, 2, stride=stride, bias=False)
        self.stem.weight.requires_grad = False
        depths = [patches, *widths]
        self.blocks = nn.Sequential(
            *(_Block(n_in, n_out) for n_in, n_out in zip(depths, widths, strict=False))
        )
        self.head = nn.Linear(widths[-1], outputs, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits shaped (rows, outputs) for images shaped (rows, channels, H, W)."""
        x = F.gelu(self.stem(x), approximate="tanh")
        x = self.blocks(x).amax((2, 3))
        y: Tensor = self.head(x) / 9  # keeps the first logits small
        return y

    @torch.no_grad()
    def prepare(self, images: Tensor) -> None:
        """Set the stem to whiten 2×2 patches of images shaped (rows, channels, H, W).

        Whitened, all directions of a patch vary equally, so gradient descent need not learn the
        colours and smoothness of photographs first.
        """
        few = images[:_WHITENING_IMAGES, :, : images.shape[2] // 2 * 2, : images.shape[3] // 2 * 2]
        tiles = few.unflatten(3, (-1, 2)).unflatten(2, (-1, 2))  # (rows, C, H/2, 2, W/2, 2)
        rows = tiles.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(0, 2).double()  # (tiles, C × 4)
        values, vectors = torch.linalg.eigh(rows.T @ rows / len(rows))
        vectors = vectors * vectors.sum(0).sign().where(vectors.sum(0) != 0, 1)  # one of two signs
        scaled = vectors / (values + _WHITENING_EPS).sqrt()
        filters = scaled.T.reshape(-1, *self.stem.weight.shape[1:])
        self.stem.weight.copy_(torch.cat([filters, -filters]))


class _Block(nn.Module):
    """Two 3×3 convolutions, pooled after the first, so that the second works on a quarter."""

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.conv1 = _dirac(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False))
        self.norm1 = _FastBiasNorm(n_out)
        self.conv2 = _dirac(nn.Conv2d(n_out, n_out, 3, padding=1, bias=False))
        self.norm2 = _FastBiasNorm(n_out)

    def forward(self, x: Tensor) -> Tensor:
        x = self.norm1(F.max_pool2d(self.conv1(x), 2))
        x = F.gelu(x, approximate="tanh")
        return F.gelu(self.norm2(self.conv2(x)), approximate="tanh")


class _FastBiasNorm(nn.BatchNorm2d):
    """BatchNorm without scale; its bias is stored divided by `boost`, so under SGD it learns
    `boost`² times as fast as the weights.
    """

    boost = 4.0
    pace = 0.4  # of the running statistics: with few steps they must keep up

    def __init__(self, n: int) -> None:
        super().__init__(n, affine=False)
        self.bias = nn.Parameter(torch.zeros(n))

    def forward(self, x: Tensor) -> Tensor:
        mean, var = self.running_mean, self.running_var
        bias = self.boost * self.bias
        return F.batch_norm(x, mean, var, None, bias, self.training, self.pace, self.eps)


def _dirac(conv: nn.Conv2d) -> nn.Conv2d:
    """Start the first filters as the identity, so that a deep net first passes its input on."""
    n_in = conv.in_channels
    nn.init.dirac_(conv.weight.data[:n_in])
    return conv
