"""Augmentation: images varied anew each epoch, as a function of (seed, epoch, index) alone.

An augmentation is a function of raw images shaped (rows, height, width[, channels]) and of the
`Draws` for those rows; having no state, it needs none saved, and any row can be drawn again.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor

from workbench.determinism import generator

__all__ = ["AUGMENTATIONS", "Augment", "Draws", "cutout", "mirror", "shift"]


class Draws:
    """Random numbers of some rows: the same for the same seed, epoch and row, in any batch.

    Args:
        seed: of the training.
        epoch: counted from 0.
        n_rows: how many rows the whole split has.
    """

    def __init__(self, seed: int, epoch: int, n_rows: int) -> None:
        self.epoch = epoch
        self._seed, self._n_rows = seed, n_rows
        self._rows = torch.arange(n_rows)
        self._drawn: dict[str, Tensor] = {}

    def of(self, rows: Tensor) -> Draws:
        """Return the same numbers for some rows only, given by index and shaped (rows,)."""
        some = Draws.__new__(Draws)
        some.__dict__.update(self.__dict__)
        some._rows = rows
        return some

    def uniform(self, purpose: str, *, each_epoch: bool = True) -> Tensor:
        """Return a number in [0, 1) for each row, shaped (rows,).

        Args:
            purpose: what it is for; other purposes get other numbers.
            each_epoch: whether a row gets a new one each epoch.
        """
        if purpose not in self._drawn:
            when = (self.epoch,) if each_epoch else ()
            draw = generator(self._seed, "augment", purpose, *when)
            self._drawn[purpose] = torch.rand(self._n_rows, generator=draw)
        return self._drawn[purpose][self._rows]


Augment = Callable[[Tensor, Draws], Tensor]


def mirror(images: Tensor, draws: Draws) -> Tensor:
    """Return the images, half of them mirrored left to right; in the next epoch the other half.

    Alternating sees every image both ways in any two epochs (K. Jordan, airbench, 2024).
    """
    flipped = (draws.uniform("mirror", each_epoch=False) < 0.5) ^ bool(draws.epoch % 2)
    out = images.clone()
    out[flipped] = images[flipped].flip(2)
    return out


def shift(images: Tensor, draws: Draws, *, by: int = 2) -> Tensor:
    """Return the images, each moved by up to `by` pixels both ways, its border mirrored inwards.

    Args:
        images: shaped (rows, height, width[, channels]).
        draws: of the same rows.
        by: the farthest, in pixels.
    """
    n, height, width = images.shape[:3]
    rows = _moved(height, draws.uniform("shift down"), by)
    columns = _moved(width, draws.uniform("shift right"), by)
    return images[torch.arange(n)[:, None, None], rows[:, :, None], columns[:, None, :]]


def cutout(images: Tensor, draws: Draws, *, size: int = 8) -> Tensor:
    """Return the images, each with one square of `size` pixels a side blackened.

    After DeVries and Taylor, "Improved Regularization of CNNs with Cutout" (2017).
    """
    _, height, width = images.shape[:3]
    inside = _within(height, draws.uniform("cutout down"), size)[:, :, None]
    inside = inside & _within(width, draws.uniform("cutout right"), size)[:, None, :]
    return images.masked_fill(inside.reshape(*inside.shape, *[1] * (images.ndim - 3)), 0)


AUGMENTATIONS: Mapping[str, Augment] = {"cutout": cutout, "mirror": mirror, "shift": shift}


def _moved(length: int, u: Tensor, by: int) -> Tensor:
    """Return which pixel each place of a moved axis shows, shaped (rows, length)."""
    offset = (u * (2 * by + 1)).long() - by
    places = torch.arange(length) + offset[:, None]
    return (length - 1) - ((length - 1) - places.abs()).abs()  # mirrored at both ends


def _within(length: int, u: Tensor, size: int) -> Tensor:
    """Return a mask of a stretch of `size` around a random centre, shaped (rows, length)."""
    centre = (u * length).long()[:, None]
    places = torch.arange(length)
    return (places >= centre - size // 2) & (places < centre - size // 2 + size)
