"""Pictures of what was said: of the classes, of single rows, of the values of a regression."""

from __future__ import annotations

from typing import Any

import pandas as pd
from torch import Tensor

from workbench.datasets import Split
from workbench.errors import RequestError
from workbench.pictures import Picture

__all__ = ["confusion_figure", "mistakes_figure", "per_class_figure", "residuals_figure"]

_BLUE = "#0072b2"
# name, colour, marker and size: told apart by any eye, and without colour
_SCORES = (
    ("precision", _BLUE, "<", 30),
    ("recall", "#d55e00", ">", 30),
    ("f1", "#000000", "o", 90),
)


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


def per_class_figure(scores: pd.DataFrame) -> Picture:
    """Return precision, recall and F1 of each class, a line a class, the lowest F1 at the bottom.

    Args:
        scores: of `class_scores`.
    """
    ordered = scores.sort_values("f1", kind="stable")
    figure, n = Picture(5.6, 1.3 + 0.3 * len(ordered)), len(ordered)
    axes = figure.subplots()
    three = ordered[["precision", "recall", "f1"]]
    axes.hlines(range(n), three.min(axis=1), three.max(axis=1), color="#cccccc", zorder=1)
    for name, colour, marker, size in _SCORES:
        inside = "none" if marker == "o" else colour  # so that none hides another
        dots: dict[str, Any] = {"s": size, "facecolors": inside, "edgecolors": colour}
        axes.scatter(ordered[name], range(n), marker=marker, label=name, **dots)
    names = [f"{name} ({rows:,})" for name, rows in ordered["support"].items()]
    axes.set_yticks(range(n), names)
    axes.set(xlabel="share", ylabel="class (rows)", ylim=(-0.6, n - 0.4))
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=9)
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
    rows, known = -(-len(mistakes) // 5), "p_true" in mistakes
    figure = Picture(8.5, 2.15 * rows)
    for axes in (grid := figure.subplots(rows, 5, squeeze=False)).flat:
        axes.axis("off")
    for axes, (_, wrong) in zip(grid.flat, mistakes.iterrows(), strict=False):
        axes.imshow(split.inputs[int(wrong["row"])].squeeze(-1).numpy(), cmap="gray")
        sure, real = (
            (f" {wrong['p_predicted']:.0%}", f" {wrong['p_true']:.1%}") if known else ("", "")
        )
        axes.set_title(f"{wrong['predicted']}{sure}\nis {wrong['true']}{real}", fontsize=9)
    return figure


def residuals_figure(table: pd.DataFrame, outputs: int) -> Picture:
    """Return predicted by true values, and residuals by predicted ones; a line of both an output.

    Args:
        table: of `examples.regressed`.
        outputs: how many each row has.
    """
    figure = Picture(8, 3.6 * outputs)
    grid = figure.subplots(outputs, 2, squeeze=False)
    for i, (left, right) in enumerate(grid):
        end = f"_{i}" if outputs > 1 else ""
        true, said, residual = (table[f"{n}{end}"] for n in ("true", "predicted", "residual"))
        dots: dict[str, Any] = {"s": 12, "alpha": 0.5, "color": _BLUE, "linewidths": 0}
        ends = [min(true.min(), said.min()), max(true.max(), said.max())]
        left.plot(ends, ends, "--", color="#999999", linewidth=1)
        left.scatter(true, said, **dots)
        left.set(xlabel=f"true{end}", ylabel=f"predicted{end}")
        right.axhline(0, ls="--", color="#999999", linewidth=1)
        right.scatter(said, residual, **dots)
        right.set(xlabel=f"predicted{end}", ylabel="residual: true - predicted")
    return figure
