"""Pictures of an evaluation."""

from __future__ import annotations

import pandas as pd
from torch import Tensor

from workbench.datasets import Split
from workbench.errors import RequestError
from workbench.pictures import Picture

__all__ = ["confusion_figure", "mistakes_figure"]


def confusion_figure(confusion: Tensor, classes: tuple[str, ...]) -> Picture:
    """Return a heat map of the confusion matrix with its counts.

    Args:
        confusion: counts shaped (classes, classes), row the true class.
        classes: the names on both axes.
    """
    n = len(classes)
    figure = Picture(1.6 + 0.55 * n, 1.2 + 0.5 * n)
    axes = figure.subplots()
    shares = confusion / confusion.sum(1, keepdim=True).clamp_min(1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    for i, row in enumerate(confusion.tolist()):
        for j, count in enumerate(row):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=8)
    axes.set_xticks(range(n), classes, rotation=45, ha="right")
    axes.set_yticks(range(n), classes)
    axes.set(xlabel="predicted", ylabel="true")
    return figure


def mistakes_figure(split: Split, mistakes: pd.DataFrame) -> Picture:
    """Return the images of some mistakes, five in a row, each titled with what was said of it.

    Args:
        split: what the mistakes were made on; uint8 images.
        mistakes: rows of `Evaluation.mistakes`.

    Raises:
        RequestError: the split holds no images, or there are no mistakes.
    """
    if split.inputs.ndim not in (3, 4) or not len(mistakes):
        found = "no mistakes" if not len(mistakes) else f"rows of {tuple(split.inputs.shape[1:])}"
        raise RequestError(f"there are no pictures to show: found {found}, expected wrong images")
    rows = -(-len(mistakes) // 5)
    figure = Picture(8.5, 2.15 * rows)
    for axes in (grid := figure.subplots(rows, 5, squeeze=False)).flat:
        axes.axis("off")
    for axes, (_, wrong) in zip(grid.flat, mistakes.iterrows(), strict=False):
        axes.imshow(split.inputs[int(wrong["row"])].squeeze(-1).numpy(), cmap="gray")
        said = f"{wrong['predicted']} {wrong['p_predicted']:.0%}"
        axes.set_title(f"{said}\nis {wrong['true']} {wrong['p_true']:.1%}", fontsize=9)
    return figure
