"""The picture of a training that a saved notebook keeps, where no widget lives."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes

from workbench.pictures import Picture
from workbench.training import Training
from workbench.widgets.curves import Curve, Rows

__all__ = ["still"]

_POINTS = 400  # of a curve; a picture has no more columns for it


def still(trainings: Sequence[Training]) -> Picture:
    """Return the losses of trainings by step, and where they have one, their accuracy or R²."""
    figure = Picture(9, 3.2)
    left, right = figure.subplots(1, 2)
    for i, training in enumerate(trainings):
        _draw_loss(left, training, f"C{i}")
        _draw_metric(right, training, f"C{i}")
    for axes in (left, right):
        axes.set_xlabel("step")
        axes.grid(alpha=0.2)
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False)
    left.set_ylim(0, _top(left))
    figure.suptitle(", ".join(f"{t.name}: {t.state}" for t in trainings), fontsize=10)
    return figure


def _draw_loss(axes: Axes, training: Training, colour: str) -> None:
    """Draw the raw losses as a band, their moving mean over it, and the validation's as dots."""
    curve = Curve(_POINTS)
    curve.update(training.history["loss"])
    low, mean, high = curve.table.astype(float).T
    ends = np.minimum(curve.bucket * np.arange(1, len(mean) + 1), len(training.history))
    axes.fill_between(ends, low, high, color=colour, alpha=0.15, linewidth=0)
    smooth = pd.Series(mean).ewm(span=max(len(mean) / 25, 1)).mean()
    axes.plot(ends, smooth, color=colour, label=f"{training.name}, training")
    _dots(axes, training, "validation_loss", colour)
    axes.set_ylabel("loss")


def _top(axes: Axes) -> float:
    """Return what shows every line whole; a band's spikes may leave the picture."""
    values = [np.asarray(line.get_ydata(), float) for line in axes.lines]
    finite = [float(v) for v in np.concatenate([*values, [0.0]]) if math.isfinite(v)]
    return 1.05 * max(finite) or 1.0


def _draw_metric(axes: Axes, training: Training, colour: str) -> None:
    """Draw the first metric of the validation, and of the training where that has it too."""
    names = [name for row in training.history.epochs[-1:] for name in row]
    validated = [n for n in names if n.startswith("validation_") and n != "validation_loss"]
    name = (validated or ["validation_accuracy"])[0].removeprefix("validation_")
    course = _figures(training, name)
    axes.plot(list(course), list(course.values()), color=colour)
    _dots(axes, training, f"validation_{name}", colour)
    axes.set_ylabel(name)


def _dots(axes: Axes, training: Training, name: str, colour: str) -> None:
    course = _figures(training, name)
    if course:
        label = f"{training.name}, validation"
        axes.plot(list(course), list(course.values()), "o:", color=colour, ms=4, label=label)


def _figures(training: Training, name: str) -> dict[float, float]:
    """Return a figure of the epochs by the steps they ended on."""
    rows = Rows(_POINTS)
    rows.update(training.history.epochs)
    return {row["step"]: row[name] for row in rows.shown if name in row}
