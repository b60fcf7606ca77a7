"""Images as the page takes them: addresses that hold the picture itself."""

from __future__ import annotations

import base64
import io
import math

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

__all__ = ["SMALL", "address_of", "brightest", "shrunk"]

SMALL = 64  # pixels of the longer side of an image among others


def brightest(images: Tensor) -> int:
    """Return the value of `images` that is shown as white: 255, or less where all are dim.

    That is a power of two then, since a few of the images may not have the largest value.

    >>> brightest(torch.tensor([[0, 15]], dtype=torch.uint8))
    16
    """
    top = int(images.max()) if images.numel() else 255
    return 255 if top > 63 else 2 ** math.ceil(math.log2(max(1, top)))


def shrunk(image: Tensor, longest: int) -> Tensor:
    """Return an image whose sides are at most so long, each pixel the mean of those it stands for.

    Args:
        image: shaped (height, width) or (height, width, channels), of any type.
        longest: in pixels; an image that is smaller stays as it is.
    """
    height, width = image.shape[:2]
    if max(height, width) <= longest:
        return image
    scale = longest / max(height, width)
    size = max(1, round(height * scale)), max(1, round(width * scale))
    planes = image.reshape(height, width, -1).permute(2, 0, 1).float()
    return F.adaptive_avg_pool2d(planes, size).permute(1, 2, 0).reshape(*size, *image.shape[2:])


def address_of(image: Tensor, white: float) -> str:
    """Return a `data:` address of an image as PNG.

    Args:
        image: shaped (height, width) or (height, width, 1 or 3), of any type.
        white: the value that is shown as white; 0 is black.
    """
    scaled = (image.float() * (255 / white)).clamp(0, 255).round().to(torch.uint8)
    pixels = (scaled.squeeze(-1) if scaled.ndim == 3 else scaled).contiguous().numpy()
    content = io.BytesIO()
    Image.fromarray(pixels).save(content, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode()}"
