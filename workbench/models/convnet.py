"""A small convolutional net that learns fast on a CPU.

After K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024): a first layer that
whitens 2×2 patches and is not trained, identity ("Dirac") starts, pooling before the norm, and
BatchNorm without scale whose bias learns faster.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch.nn.functional as F
from torch import Tensor, nn

from workbench.errors import RequestError
from workbench.models.images import image_shape
from workbench.models.norms import FastBiasNorm
from workbench.models.starts import dirac, whiten
from workbench.types import JSON

__all__ = ["SIZES", "ConvNet", "recipe_of"]

SIZES: Mapping[str, JSON] = {
    "small": {"widths": [32, 64, 128], "stride": 2},  # 6 million multiply-adds an image of 32×32
    "medium": {"widths": [32, 64, 128], "stride": 1},  # 20 million
    "large": {"widths": [64, 256, 256], "stride": 1},  # 118 million
}

_QUICK: JSON = {
    "optimizer": "nesterov",
    "lr": 0.3,
    "momentum": 0.9,
    "weight_decay": 5e-4,
    "batch_size": 128,
    "precision": "auto",
}

# K. Jordan's airbench94 (2024), for a mean loss. It sums the loss over its 1,024 rows, with a rate
# of 11.5 / (1024 × (1 + 1 / (1 - 0.85))) = 0.001465 a row, and decays by the same rate × 0.0153 /
# 11.5 × rows. The gradient of a mean over B rows is that of the sum / B, so lr = 0.001465 × B; and
# torch decays by lr × weight_decay a step, so weight_decay = 0.0153 / 11.5, whatever B is.
_THOROUGH: JSON = {
    "optimizer": "nesterov",
    "lr": 0.73,
    "momentum": 0.85,
    "weight_decay": 1.33e-3,
    "batch_size": 500,
    "label_smoothing": 0.2,
    "augment": ["mirror", "shift"],
    "average": "lookahead",
    "precision": "auto",
}

_WIDE = 256  # channels; at full detail too, a net is worth a training of ten epochs


class ConvNet(nn.Module):
    """A whitening stem, three blocks of two 3×3 convolutions, global max pooling, a linear layer.

    Args:
        inputs: shape of one image as `forward` takes it: (channels, height, width), 16 or more
            a side.
        outputs: how many numbers an image is answered with.
        widths: channels of the blocks; each halves the sides.
        stride: of the stem: 2 halves the sides and quarters the work, 1 keeps the detail.
    """

    def __init__(
        self,
        inputs: tuple[int, ...],
        outputs: int,
        widths: Sequence[int] = (32, 64, 128),
        stride: int = 2,
    ) -> None:
        super().__init__()
        channels, height, width = image_shape(inputs)
        _check_widths(widths, (min(height, width) - 2) // stride + 1)
        patches = 2 * channels * 4  # both signs of every direction of a 2×2 patch
        self.stem = nn.Conv2d(channels, patches, 2, stride=stride, bias=False)
        self.stem.weight.requires_grad = False
        depths = [patches, *widths]
        boost = 8.0 if _is_thorough(widths, stride) else 4.0  # for batches of 500, or of 128
        self.blocks = nn.Sequential(
            *(_Block(n_in, n_out, boost) for n_in, n_out in zip(depths, widths, strict=False))
        )
        self.head = nn.Linear(widths[-1], outputs, bias=False)
        self.recipe = recipe_of(widths, stride)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits shaped (rows, outputs) for images shaped (rows, channels, H, W)."""
        x = F.gelu(self.stem(x))
        x = F.adaptive_max_pool2d(self.blocks(x), 1).flatten(1)
        y: Tensor = self.head(x) / 9  # keeps the first logits small
        return y

    def prepare(self, images: Tensor) -> None:
        """Set the stem to whiten 2×2 patches of images shaped (rows, channels, H, W)."""
        whiten(self.stem, images)


def recipe_of(widths: Sequence[int], stride: int) -> JSON:
    """Return the arguments of `fit` that suit a convnet: quick, or for the large ones thorough.

    Args:
        widths: channels of the blocks.
        stride: of the stem.
    """
    return dict(_THOROUGH if _is_thorough(widths, stride) else _QUICK)


def _is_thorough(widths: Sequence[int], stride: int) -> bool:
    return stride == 1 and max(widths) >= _WIDE


class _Block(nn.Module):
    """Two 3×3 convolutions, pooled after the first, so that the second works on a quarter.

    Pooled before the norm, too, so that norm and activation touch a quarter of the numbers.
    """

    def __init__(self, n_in: int, n_out: int, boost: float) -> None:
        super().__init__()
        self.conv1 = dirac(nn.Conv2d(n_in, n_out, 3, padding=1, bias=False))
        self.norm1 = FastBiasNorm(n_out, boost=boost)
        self.conv2 = dirac(nn.Conv2d(n_out, n_out, 3, padding=1, bias=False))
        self.norm2 = FastBiasNorm(n_out, boost=boost)

    def forward(self, x: Tensor) -> Tensor:
        x = F.gelu(self.norm1(F.max_pool2d(self.conv1(x), 2)))  # exact: faster here than by tanh
        return F.gelu(self.norm2(self.conv2(x)))


def _check_widths(widths: Sequence[int], side: int) -> None:
    """Raise where there is no block, or one would be left with no pixel to pool.

    Args:
        widths: channels of the blocks.
        side: pixels that the stem leaves of the shorter side.
    """
    if not widths:
        raise RequestError("widths of convnet is empty, expected one or more: widths=(32, 64)")
    most = max(side, 1).bit_length() - 1
    if len(widths) > most:
        raise RequestError(
            f"widths of convnet has {len(widths)} blocks, each of which halves the sides, "
            f"expected at most {most} where the stem leaves {side} pixels: "
            f"take fewer, or a smaller stride"
        )
