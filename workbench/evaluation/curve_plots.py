"""Pictures of an evaluation's curves: what is traded for what, and what a probability is worth."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal

import pandas as pd

from workbench.pictures import Picture

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from workbench.evaluation.evaluations import Evaluation

__all__ = ["calibration_figure", "precision_recall_figure", "roc_figure"]

# Okabe and Ito's blue, vermilion and green: told apart by any eye
_COLOURS = ("#0072b2", "#d55e00", "#009e73")
_GREY = "#999999"

_Style = Literal["default", "steps-pre"]


def roc_figure(evaluation: Evaluation, positives: tuple[str, ...]) -> Picture:
    """Return the ROC curve of each class; of more than three, the three lowest stand out.

    Args:
        evaluation: of a classification.
        positives: the classes, each against all others.
    """
    figure, axes = _square()
    axes.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=1, label="chance, 0.500")
    curves = {name: evaluation.roc(name) for name in _occurring(evaluation, positives)}
    areas = {name: evaluation.roc_auc(name) for name in curves}
    _draw(axes, curves, areas, ("false_positive_rate", "true_positive_rate"), "default")
    axes.set(xlabel="false positive rate", ylabel="true positive rate")
    axes.legend(title="area under it", frameon=False, loc="lower right", fontsize=9)
    return figure


def precision_recall_figure(evaluation: Evaluation, positives: tuple[str, ...]) -> Picture:
    """Return precision by recall of each class; of more than three, the three lowest stand out.

    Args:
        evaluation: of a classification.
        positives: the classes, each against all others; of one alone chance is drawn too.
    """
    figure, axes = _square()
    names = _occurring(evaluation, positives)
    curves = {name: evaluation.precision_recall(name) for name in names}
    averages = {name: evaluation.average_precision(name) for name in names}
    if len(positives) == 1:
        share = float((evaluation.examples["true"] == positives[0]).mean())
        axes.axhline(share, ls="--", color=_GREY, linewidth=1, label=f"chance, {share:.3f}")
    _draw(axes, curves, averages, ("recall", "precision"), "steps-pre")  # as they are averaged
    axes.set(xlabel="recall", ylabel="precision")
    axes.legend(title="average precision", frameon=False, loc="lower left", fontsize=9)
    return figure


def calibration_figure(table: pd.DataFrame, error: float) -> Picture:
    """Return accuracy by confidence in bins, beside what it should be, and the rows of each bin.

    Args:
        table: of `calibration_bins`.
        error: the expected calibration error.
    """
    figure = Picture(4.4, 5)
    top, bottom = figure.subplots(2, 1, height_ratios=(3, 1), sharex=True)
    filled = table[table["rows"] > 0]
    top.plot([0, 1], [0, 1], "--", color=_GREY, linewidth=1, label="as sure as right")
    top.bar(
        table["from"], table["accuracy"].fillna(0), table["to"] - table["from"], align="edge",
        color=_COLOURS[0], alpha=0.35, edgecolor="white",
    )  # fmt: skip
    top.plot(filled["confidence"], filled["accuracy"], "o-", color=_COLOURS[0], label="found")
    top.set(ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.02))
    top.set_title(f"expected calibration error {error:.3f}", fontsize=10)
    top.legend(frameon=False, loc="upper left", fontsize=9)
    bottom.bar(
        table["from"], table["rows"], table["to"] - table["from"], align="edge",
        color=_GREY, edgecolor="white",
    )  # fmt: skip
    bottom.set(xlabel="confidence: probability of what was said", ylabel="rows")
    return figure


def _square() -> tuple[Picture, Axes]:
    figure = Picture(4.6, 4.4)
    axes = figure.subplots()
    axes.set(xlim=(-0.02, 1.02), ylim=(-0.02, 1.02), aspect="equal")
    return figure, axes


def _occurring(evaluation: Evaluation, positives: tuple[str, ...]) -> list[str]:
    """Return the classes that some row is of, unless there are none: others have no curve."""
    found = set(evaluation.examples["true"])
    return [name for name in positives if name in found] or list(positives)


def _draw(
    axes: Axes,
    curves: Mapping[str, pd.DataFrame],
    figures: Mapping[str, float],
    columns: tuple[str, str],
    style: _Style,
) -> None:
    """Draw the curves, those of the three lowest figures in colour and named, the others grey."""
    lowest = sorted(figures, key=lambda name: figures[name])[: len(_COLOURS)]
    colours = dict(zip(lowest, _COLOURS, strict=False))
    for name in [*(name for name in curves if name not in lowest), *lowest]:
        x, y = (curves[name][column] for column in columns)
        colour, label = colours.get(name, _GREY), f"{name}, {figures[name]:.3f}"
        width, label = (1.8, label) if name in lowest else (0.7, "_")
        axes.plot(x, y, color=colour, linewidth=width, label=label, drawstyle=style)
    if others := len(curves) - len(lowest):
        axes.plot([], [], color=_GREY, linewidth=0.7, label=f"{others} other classes")
