"""The picture of a training that a saved notebook keeps, where no widget lives."""

from __future__ import annotations

from collections.abc import Sequence

from workbench.pictures import Picture
from workbench.training import Training

__all__ = ["still"]


def still(trainings: Sequence[Training]) -> Picture:
    """Return the losses of trainings by step, and where they have one, their accuracy or R²."""
    metric = _metric(trainings)
    figure = Picture(9 if metric else 6, 3.2)
    left, *rest = figure.subplots(1, 2 if metric else 1, squeeze=False)[0]
    alone = len(trainings) == 1  # then training and validation have a colour each
    tops = []
    for i, t in enumerate(trainings):
        colour, held = f"C{i}", "C1" if alone else f"C{i}"
        tops.append(t.history.draw_losses(left, colour, held, "" if alone else t.name))
        for right in rest:
            t.history.draw_dots(right, str(metric), colour, None)
            t.history.draw_dots(right, f"validation_{metric}", held, None)
            right.set(xlabel="step", ylabel=metric)
    left.set_ylim(0, max(tops))
    left.legend(frameon=False, loc="upper right")  # to look for the best place takes its time
    for axes in (left, *rest):
        axes.grid(alpha=0.2)
    figure.suptitle(", ".join(f"{t.name}: {t.state}" for t in trainings), fontsize=10)
    return figure


def _metric(trainings: Sequence[Training]) -> str | None:
    """Return the first figure of the validation beside its loss, else accuracy, else None."""
    names = [name for t in trainings for row in t.history.epochs[-1:] for name in row]
    found = [n for n in names if n.startswith("validation_") and n != "validation_loss"]
    if found:
        return found[0].removeprefix("validation_")
    return "accuracy" if "accuracy" in names else None
