"""Drawings by hand as images that a model knows: as large, as bright, and where those would be."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from workbench.errors import RequestError
from workbench.widgets.images import brightest

__all__ = ["Paper"]

_INK = 0.25  # of white: what is brighter than the background by that was drawn
_SHARE = 20 / 28  # of the side that a digit of MNIST fills, where no image tells


@dataclass(frozen=True)
class Paper:
    """What a model's images are drawn on.

    Args:
        shape: of an image, (height, width) or (height, width, channels).
        white: the value that is shown as white; 0 is black.
        share: of the image that the longer side of what is on it fills.
        is_dark: whether strokes are light on a dark background, or the other way round.
    """

    shape: tuple[int, ...]
    white: int = 255
    share: float = _SHARE
    is_dark: bool = True

    @classmethod
    def of(cls, images: Tensor, shape: tuple[int, ...]) -> Paper:
        """Return the paper that images are on.

        Args:
            images: raw uint8 rows, shaped (rows, *shape); none, and it is that of MNIST.
            shape: of one of them.
        """
        if not len(images):
            return cls(shape)
        white = brightest(images)
        planes = images.float().reshape(*images.shape[:3], -1).mean(3) / white
        edges = (planes[:, 0], planes[:, -1], planes[:, :, 0], planes[:, :, -1])
        is_dark = float(torch.cat(edges, 1).median()) < 0.5
        shares = [s for s in map(_share, planes if is_dark else 1 - planes) if s]
        return cls(shape, white, float(np.median(shares)) if shares else _SHARE, is_dark)

    @property
    def can_be_drawn_on(self) -> bool:
        """Whether an image is of one channel."""
        return len(self.shape) == 2 or self.shape[2] == 1

    def drawn(self, canvas: Tensor, *, fit: bool) -> Tensor:
        """Return a drawing as an image, uint8 of the shape.

        Args:
            canvas: uint8, shaped (height, width), 255 as white, light and dark as on this paper.
            fit: whether what is on it is scaled to its share of the image and its mass is put in
                the middle, as was done with the digits of MNIST; else the canvas is the image.

        Raises:
            RequestError: nothing is on it.
        """
        ink = canvas.float() / 255 if self.is_dark else 1 - canvas.float() / 255
        if float(ink.max()) < _INK:
            raise RequestError("nothing is drawn yet: draw with the mouse, a finger or a pen")
        size = self.shape[0], self.shape[1]
        plane = self._fitted(ink) if fit else _resized(ink, size)
        light = plane if self.is_dark else 1 - plane
        return (light * self.white).round().to(torch.uint8).reshape(self.shape)

    def dimmed(self, image: Tensor) -> Tensor:
        """Return a picture whose white is 255 as an image of this paper."""
        scaled = image.float() * (self.white / 255)
        return image if self.white == 255 else scaled.round().to(torch.uint8)

    def _fitted(self, ink: Tensor) -> Tensor:
        """Return (height, width) of what was drawn, scaled, its mass in the middle."""
        rows, columns = _extent(ink)
        part = ink[rows, columns]
        height, width = self.shape[:2]
        scale = min(self.share * height / part.shape[0], self.share * width / part.shape[1])
        small = _resized(part, (_least(part.shape[0], scale), _least(part.shape[1], scale)))
        plane = torch.zeros(height, width)
        top, left = (
            _start(small.sum(1 - axis), length)
            for axis, length in ((0, height), (1, width))
        )  # fmt: skip
        plane[top : top + small.shape[0], left : left + small.shape[1]] = small
        return plane


def _share(plane: Tensor) -> float:
    """Return which share of an image what is on it fills; 0 of an empty one."""
    if float(plane.max()) < _INK:
        return 0.0
    extents = zip(_extent(plane), plane.shape, strict=True)
    return max(float(part.stop - part.start) / length for part, length in extents)


def _extent(ink: Tensor) -> tuple[slice, slice]:
    """Return from where to where there is ink, by row and by column."""
    there = ink > _INK
    ends = [there.any(1 - axis).nonzero()[:, 0] for axis in (0, 1)]
    rows, columns = (slice(int(found[0]), int(found[-1]) + 1) for found in ends)
    return rows, columns


def _least(length: int, scale: float) -> int:
    return max(1, round(length * scale))


def _start(mass: Tensor, length: int) -> int:
    """Return where a part begins whose mass by place is in the middle, but wholly inside."""
    places = torch.arange(len(mass)) + 0.5
    middle = float((mass * places).sum() / mass.sum())
    return min(max(0, round(length / 2 - middle)), length - len(mass))


def _resized(ink: Tensor, size: tuple[int, int]) -> Tensor:
    """Return (height, width) of another size: the mean of what falls into each pixel."""
    image = Image.fromarray(ink.numpy())
    return torch.from_numpy(np.array(image.resize(size[::-1], Image.Resampling.BOX)))
