"""The picture of a training that a saved notebook keeps, where no widget lives."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.pictures import Picture
from workbench.training import Training

__all__ = ["still"]


def still(trainings: Sequence[Training]) -> Picture:
    """Return the losses of trainings by step, and where they have one, their accuracy or R²."""
    figure = Picture(9, 3.2)
    left, right = figure.subplots(1, 2)
    alone = len(trainings) == 1  # then training and validation have a colour each
    tops, metric = [], _metric(trainings)
    for i, t in enumerate(trainings):
        colour, held = f"C{i}", "C1" if alone else f"C{i}"
        tops.append(t.history.draw_losses(left, colour, held, "" if alone else t.name))
        t.history.draw_dots(right, metric, colour, None)
        t.history.draw_dots(right, f"validation_{metric}", held, None)
    left.set_ylim(0, max(tops))
    left.legend(frameon=False)
    right.set(xlabel="step", ylabel=metric)
    for axes in (left, right):
        axes.grid(alpha=0.2)
    figure.suptitle(", ".join(f"{t.name}: {t.state}" for t in trainings), fontsize=10)
    return figure


def _metric(trainings: Sequence[Training]) -> str:
    """Return the first figure of the validation beside its loss; accuracy where there is none."""
    names = [name for t in trainings for row in t.history.epochs[-1:] for name in row]
    found = [n for n in names if n.startswith("validation_") and n != "validation_loss"]
    return (found or ["validation_accuracy"])[0].removeprefix("validation_")
