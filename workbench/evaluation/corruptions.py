"""`robustness`: what noise, blur and shift do to a model that was trained on clean images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn

from workbench.datasets import Split
from workbench.determinism import check_seed, generator
from workbench.errors import RequestError
from workbench.evaluation.answers import checked_split
from workbench.evaluation.evaluations import Evaluation, evaluate
from workbench.evaluation.inference import infer, preprocessing_of
from workbench.evaluation.significance import wilson
from workbench.progress import progress

if TYPE_CHECKING:
    from workbench.pictures import Picture

__all__ = ["Robustness", "blurred", "noisy", "robustness", "shifted"]

_AT_ONCE = 1000  # images; a constant, since what is drawn depends on it
_DIRECTIONS = ((0, 1), (0, -1), (1, 0), (-1, 0))  # of a shift: right, left, down, up


@dataclass(frozen=True, repr=False, eq=False)
class Robustness:
    """How well a model answers images that are ever worse.

    Args:
        table: a row a corruption: kind (`"clean"`, `"noise"`, `"blur"`, `"shift"`), strength,
            accuracy, and low and high of its 95 % interval, by Wilson.
        images: the first image of the split as each row of the table has it.
    """

    table: pd.DataFrame
    images: list[Tensor] = field(repr=False)

    def plot(self) -> Picture:
        """Return a picture of the accuracy by strength, an axes for each kind."""
        from workbench.evaluation.panels import robustness_figure

        return robustness_figure(self.table)

    @property
    def examples(self) -> Picture:
        """A picture of one image as each corruption leaves it."""
        from workbench.evaluation.panels import corruptions_figure

        return corruptions_figure(self.table, self.images)

    def __repr__(self) -> str:
        said = [f"accuracy {self.table['accuracy'].iloc[0]:.4g} on clean images"]
        for kind, rows in self.table.iloc[1:].groupby("kind", sort=False):
            worst = rows.sort_values("accuracy", kind="stable").iloc[0]
            said.append(f"{worst['accuracy']:.4g} at {kind} {worst['strength']:g}")
        return ", ".join(said)


def robustness(
    model: nn.Module,
    split: Split,
    *,
    noise: Sequence[float] = (8, 16, 32),
    blur: Sequence[float] = (0.5, 1, 2),
    shift: Sequence[int] = (1, 2, 4),
    seed: int = 0,
) -> Robustness:
    """Return how well a model answers a split whose images are noisy, blurred or shifted.

    After Hendrycks and Dietterich, "Benchmarking neural network robustness to common corruptions
    and perturbations" (2019), with strengths in units of the image. One of 0 changes nothing.

    Args:
        model: trained on images of this shape.
        split: of uint8 images, shaped (rows, height, width[, channels]), with classes.
        noise: standard deviations of Gaussian noise, in grey levels of 255.
        blur: standard deviations of a Gaussian blur, in pixels.
        shift: whole pixels, each image in a direction drawn from four.
        seed: of noise and directions; each strength has the same ones.

    Raises:
        RequestError: these are no images with classes, or a strength cannot be.
    """
    split = checked_split("robustness", split)
    _check(split, {"noise": noise, "blur": blur, "shift": shift})
    check_seed(seed)
    kinds: dict[str, tuple[Sequence[Any], Callable[[Tensor, Any], Tensor]]] = {
        "noise": (noise, lambda images, strength: noisy(images, strength, seed)),
        "blur": (blur, blurred),
        "shift": (shift, lambda images, strength: shifted(images, strength, seed)),
    }
    rows, images = [_row("clean", 0, evaluate(model, split))], [split.inputs[0]]
    asked = [(kind, s, made) for kind, (strengths, made) in kinds.items() for s in strengths]
    with progress(len(asked), "corrupting", unit="strength") as bar:
        for kind, strength, made in asked:
            worse = made(split.inputs, strength)
            rows.append(_row(kind, strength, _answered(model, split, worse)))
            images.append(worse[0])
            bar.update()
    columns = ["kind", "strength", "accuracy", "low", "high"]
    return Robustness(pd.DataFrame(rows, columns=columns), images)


def noisy(images: Tensor, deviation: float, seed: int = 0) -> Tensor:
    """Return images with Gaussian noise, rounded to whole grey levels and kept within 0 and 255.

    Args:
        images: uint8, shaped (rows, height, width[, channels]).
        deviation: of the noise, in grey levels of 255.
        seed: of the noise; another deviation scales the same noise.
    """
    draws = generator(seed, "noise")
    parts = []
    for part in images.split(_AT_ONCE):
        noise = torch.randn(part.shape, generator=draws)
        parts.append((part + deviation * noise).round().clamp(0, 255).byte())
    return torch.cat(parts)


def blurred(images: Tensor, deviation: float) -> Tensor:
    """Return images blurred by a Gaussian, beyond whose edges the edge's pixels go on.

    Args:
        images: uint8, shaped (rows, height, width[, channels]).
        deviation: of the Gaussian, in pixels; it is cut off at three of them.
    """
    down, across = (_blur(size, deviation) for size in images.shape[1:3])
    parts = []
    for part in images.split(_AT_ONCE):
        pixels = part.double().reshape(*part.shape[:3], -1)
        mixed = torch.einsum("ij,njkc,lk->nilc", down, pixels, across)
        parts.append(mixed.round().clamp(0, 255).byte().reshape(part.shape))
    return torch.cat(parts)


def shifted(images: Tensor, pixels: int, seed: int = 0) -> Tensor:
    """Return images moved by whole pixels; where they were, the edge's pixels go on.

    Args:
        images: uint8, shaped (rows, height, width[, channels]).
        pixels: how far, right, left, down or up, drawn for each image.
        seed: of the directions, which are the same for each distance.
    """
    ways = torch.randint(len(_DIRECTIONS), (len(images),), generator=generator(seed, "shift"))
    moved = images.clone()
    for way, (down, across) in enumerate(_DIRECTIONS):
        mine = (ways == way).nonzero().flatten()
        rows, columns = (
            (torch.arange(size) - step * pixels).clamp(0, size - 1)
            for size, step in zip(images.shape[1:3], (down, across), strict=True)
        )
        moved[mine] = images[mine][:, rows][:, :, columns]
    return moved


def _blur(size: int, deviation: float) -> Tensor:
    """Return the matrix (size, size) that blurs a line of pixels."""
    if deviation == 0:
        return torch.eye(size, dtype=torch.float64)
    reach = math.ceil(3 * deviation)
    offsets = torch.arange(-reach, reach + 1)
    weights = torch.exp(-0.5 * (offsets.double() / deviation) ** 2)
    sources = (torch.arange(size)[:, None] + offsets).clamp(0, size - 1)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, sources, (weights / weights.sum()).expand(size, -1))


def _check(split: Split, strengths: dict[str, Sequence[float]]) -> None:
    shape = tuple(split.inputs.shape[1:])
    if split.inputs.dtype != torch.uint8 or len(shape) not in (2, 3) or not split.classes:
        raise RequestError(
            f"robustness takes uint8 images with classes, got rows of {shape} of "
            f"{str(split.inputs.dtype)[6:]} with {len(split.classes)} classes"
        )
    number, top, wanted = Real, math.inf, "0 or more"
    for kind, values in strengths.items():
        if kind == "shift":
            number, top = Integral, min(shape[:2])
            wanted = f"whole pixels below {top}"
        for value in values:
            if not (isinstance(value, number) and 0 <= value < top):
                raise RequestError(f"{kind} has the strength {value!r}, expected {wanted}")


def _answered(model: nn.Module, split: Split, images: Tensor) -> Evaluation:
    preprocessing = preprocessing_of(model, images)
    outputs = infer(model, preprocessing.batch(images), preprocessing)
    return Evaluation(Split(images, split.targets, split.classes), outputs)


def _row(kind: str, strength: float, found: Evaluation) -> tuple[Any, ...]:
    right, n = round(found.accuracy * len(found)), len(found)
    return kind, strength, found.accuracy, *wilson(right, n)
