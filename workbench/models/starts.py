"""How a convolutional net begins: whitened inputs, and layers that first pass on what they get.

Each works on a layer of any net, before it is trained.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from workbench.errors import RequestError

__all__ = ["dirac", "whiten"]

_IMAGES = 5_000  # enough for the covariance of small patches
_EPS = 5e-4  # below it a direction is noise, and is not blown up


@torch.no_grad()
def whiten(conv: nn.Conv2d, images: Tensor, *, eps: float = _EPS) -> nn.Conv2d:
    """Set a convolution to whiten the patches of images, freeze it, and return it.

    Whitened, all directions of a patch vary equally, so gradient descent need not learn the
    colours and smoothness of photographs first. The filters are the eigenvectors e of the patches'
    second moments, divided by √(eigenvalue + eps), and where there is room the same with the other
    sign, so that a ReLU after it loses nothing. After T. Page, "How to Train Your ResNet 8"
    (2019), and K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024), whose eps is
    the default.

    Args:
        conv: without a bias, of as many filters as a patch has numbers (channels × height × width
            of the kernel), or twice as many.
        images: shaped (rows, channels, H, W), as `forward` takes them; the first 5,000 are used.
        eps: added to each variance, in the images' unit squared.

    Raises:
        RequestError: the convolution has another number of filters, a bias, groups or a dilation.
    """
    height, width = conv.kernel_size
    patches = _patches(images[:_IMAGES], height, width).double()
    filters = _directions(patches, eps).reshape(-1, *conv.weight.shape[1:])
    if conv.out_channels == 2 * len(filters):
        filters = torch.cat([filters, -filters])
    _check_whitenable(conv, len(filters))
    conv.weight.copy_(filters)
    conv.weight.requires_grad = False
    return conv


@torch.no_grad()
def dirac(conv: nn.Conv2d) -> nn.Conv2d:
    """Start a convolution's first filters as the identity, and return it.

    Padded to keep the size, it first passes its input on, and the filters beyond the number of
    input channels start as they were: a deep net without shortcuts learns from the first step on.
    After S. Zagoruyko and N. Komodakis, "DiracNets" (2017), as K. Jordan uses it (2024).

    Args:
        conv: of any kernel; of fewer filters than input channels, all are set.
    """
    nn.init.dirac_(conv.weight[: conv.in_channels])
    return conv


def _patches(images: Tensor, height: int, width: int) -> Tensor:
    """Return the images' tiles, shaped (tiles, channels × height × width)."""
    whole = images[..., : images.shape[2] // height * height, : images.shape[3] // width * width]
    tiles = whole.unflatten(3, (-1, width)).unflatten(2, (-1, height))  # (rows, C, ·, h, ·, w)
    patches: Tensor = tiles.permute(0, 2, 4, 1, 3, 5).flatten(3).flatten(0, 2)
    return patches


def _directions(patches: Tensor, eps: float) -> Tensor:
    """Return whitening filters, one a row, the least varying first."""
    values, vectors = torch.linalg.eigh(patches.T @ patches / len(patches))
    vectors = vectors * vectors.sum(0).sign().where(vectors.sum(0) != 0, 1)  # one of two signs
    filters: Tensor = vectors / (values + eps).sqrt()
    return filters.T


def _check_whitenable(conv: nn.Conv2d, n: int) -> None:
    plain = conv.bias is None and conv.groups == 1 and conv.dilation == (1, 1)
    if not plain or conv.out_channels != n:
        raise RequestError(
            f"whiten cannot set {conv}: expected bias=False, no groups, no dilation, and "
            f"{n} filters, one a number of a patch, or {2 * n} for both signs"
        )
