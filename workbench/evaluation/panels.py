"""Pictures of what was found beyond one evaluation: intervals, slices, comparisons, corruptions."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor

from workbench.evaluation.intervals import between, interval
from workbench.pictures import Picture

if TYPE_CHECKING:
    from workbench.evaluation.comparing import Comparison
    from workbench.evaluation.evaluations import Evaluation

__all__ = [
    "comparison_figure",
    "corruptions_figure",
    "diagnosis_figure",
    "interval_figure",
    "learning_figure",
    "robustness_figure",
    "slices_figure",
]

_UNITS = {
    "noise": "standard deviation,\ngrey levels of 255",
    "blur": "standard deviation, pixels",
    "shift": "distance, pixels",
}
_NAMES = {
    "mse": "mean squared error, target's unit²",
    "mae": "mean absolute error, target's unit",
    "r2": "R²: share of the variance explained",
}
_FEW = 60  # different values that are drawn one by one
_DOTS: dict[str, Any] = {"fmt": "o", "capsize": 4, "color": "C0"}


def interval_figure(values: Tensor, figure: str, found: float, level: float) -> Picture:
    """Return a histogram of a figure over rows drawn anew, with its interval.

    Args:
        values: of `resampled`, shaped (resamples,).
        figure: its name.
        found: the figure on the rows themselves.
        level: of the interval.
    """
    low, high = between(values, level)
    picture = Picture(6, 2.8)
    axes = picture.subplots()
    places, counts = (part.numpy() for part in values.unique(return_counts=True))
    if len(places) > _FEW:
        axes.hist(values.numpy(), bins=30, color="C0", alpha=0.5)
    else:  # shares of few rows, which bins would gather unevenly
        axes.vlines(places, 0, counts, color="C0", alpha=0.5, linewidth=3)
    axes.axvspan(low, high, color="C0", alpha=0.12)
    axes.axvline(found, color="black", linewidth=1)
    axes.set(xlabel=_name(figure), ylabel="resamples", ylim=(0, None))
    said = f"{found:.4g} on the rows themselves (line), {100 * level:.4g} % within "
    axes.set_title(f"{said}{low:.4g} to {high:.4g} (shaded)", fontsize=10)
    return picture


def slices_figure(table: pd.DataFrame) -> Picture:
    """Return the figure of each part of the rows, with its interval and how many rows it is.

    Args:
        table: of `slices`.
    """
    figure = table.columns[1]
    picture = Picture(6, 1.4 + 0.3 * len(table))
    axes = picture.subplots()
    places = np.arange(len(table))
    axes.errorbar(table[figure], places, xerr=_reach(table[figure], table), **_DOTS)
    whole = float(np.average(table[figure], weights=table["rows"]))
    axes.axvline(whole, color="grey", linestyle="--")
    axes.set_title(f"dashed: all {table['rows'].sum():,} rows, {whole:.4g}", fontsize=10)
    names = [f"{name} ({n:,})" for name, n in table["rows"].items()]
    axes.set_yticks(places, names)
    axes.set(xlabel=f"{_name(figure)}\nwith 95 % intervals", ylabel=f"{table.index.name} (rows)")
    axes.set(ylim=(len(table) - 0.5, -0.5))
    return picture


def comparison_figure(comparison: Comparison) -> Picture:
    """Return what each of two models alone gets right, or both errors, beside the difference."""
    picture = Picture(8, 3.2)
    left, right = picture.subplots(1, 2, width_ratios=(3, 2))
    if comparison.figure == "accuracy":
        _draw_counts(left, comparison)
    else:
        _draw_errors(left, comparison)
    low, high = comparison.interval
    reach = [[comparison.difference - low], [high - comparison.difference]]
    right.errorbar([comparison.difference], [0], xerr=np.abs(reach), **_DOTS)
    right.axvline(0, color="grey", linestyle="--")
    right.locator_params(axis="x", nbins=4)
    right.set(yticks=[], xlabel=f"{comparison.figure}: first less second\nwith 95 % interval")
    right.set_title(f"p = {comparison.p:.2g}", fontsize=10)
    return picture


def diagnosis_figure(train: Evaluation, validation: Evaluation) -> Picture:
    """Return two figures of a model on both parts, with their 95 % intervals."""
    picture = Picture(7, 3.3)
    figures = ("accuracy", "loss") if train.classes else ("mse", "mae")
    for axes, figure in zip(picture.subplots(1, 2), figures, strict=True):
        for place, part in enumerate((train, validation)):
            found, (low, high) = part.metrics[figure], interval(part, figure)
            reach = np.abs([[found - low], [high - found]])
            axes.errorbar([place], [found], yerr=reach, **(_DOTS | {"color": f"C{place}"}))
        label = "loss, nats" if figure == "loss" else _name(figure)
        names = [f"train\n{len(train):,} rows", f"validation\n{len(validation):,} rows"]
        axes.set_xticks([0, 1], names)
        axes.set(xlim=(-0.6, 1.6), ylabel=f"{label}\nwith 95 % interval")
    return picture


def learning_figure(table: pd.DataFrame, figure: str) -> Picture:
    """Return the figure on train and on validation by the number of rows learned from.

    Args:
        table: of a `LearningCurve`.
        figure: its name.
    """
    picture = Picture(6, 3.2)
    axes = picture.subplots()
    axes.plot(table["rows"], table["train"], "s--", color="C0", label="rows it learned from")
    axes.plot(
        table["rows"], table["validation"], "o-", color="C1", label="validation, with 95 % interval"
    )
    axes.fill_between(table["rows"], table["low"], table["high"], color="C1", alpha=0.2)
    axes.set_xscale("log")
    axes.set_xticks(table["rows"], [f"{n:,}" for n in table["rows"]])
    axes.minorticks_off()
    axes.set(xlabel="training rows (logarithmic)", ylabel=_name(figure))
    axes.legend(frameon=False)
    return picture


def robustness_figure(table: pd.DataFrame) -> Picture:
    """Return the accuracy by strength, an axes a kind, from the clean images on.

    Args:
        table: of a `Robustness`.
    """
    clean, kinds = table.iloc[:1], [kind for kind in _UNITS if kind in set(table["kind"])]
    picture = Picture(1 + 2.6 * max(1, len(kinds)), 2.8)
    grid = picture.subplots(1, max(1, len(kinds)), sharey=True, squeeze=False)[0]
    for axes, kind in zip(grid, kinds, strict=False):
        rows = pd.concat([clean, table[table["kind"] == kind]]).sort_values("strength")
        axes.errorbar(rows["strength"], rows["accuracy"], yerr=_reach(rows["accuracy"], rows),
                      **(_DOTS | {"fmt": "o-"}))  # fmt: skip
        axes.axhline(clean["accuracy"].item(), color="grey", linestyle="--", linewidth=1)
        axes.set_title(kind, fontsize=10)
        axes.set(ylim=(0, 1.02), xlabel=_UNITS[kind])
    grid[0].set(ylabel="accuracy, with 95 % intervals")
    return picture


def corruptions_figure(table: pd.DataFrame, images: list[Tensor]) -> Picture:
    """Return one image as each corruption leaves it, a row a kind, the clean one first.

    Args:
        table: of a `Robustness`.
        images: uint8, one for each row of the table.
    """
    kinds = [kind for kind in _UNITS if kind in set(table["kind"])] or ["clean"]
    rows = [[0, *np.flatnonzero(table["kind"] == kind)] for kind in kinds]
    width = max(map(len, rows))
    picture, brightest = Picture(1.6 * width, 1.75 * len(rows)), int(images[0].max())
    for axes in (grid := picture.subplots(len(rows), width, squeeze=False)).flat:
        axes.axis("off")
    for line, shown in zip(grid, rows, strict=True):
        for axes, i in zip(line, shown, strict=False):
            axes.imshow(images[i].squeeze(-1).numpy(), cmap="gray", vmin=0, vmax=brightest)
            kind, strength = table["kind"].iloc[i], table["strength"].iloc[i]
            axes.set_title(kind if kind == "clean" else f"{kind} {strength:g}", fontsize=9)
    return picture


def _draw_counts(axes: Any, comparison: Comparison) -> None:
    counts = {
        "both right": comparison.both_right,
        "only the first": comparison.only_first,
        "only the second": comparison.only_second,
        "both wrong": comparison.both_wrong,
    }
    colours = ["lightgrey", "C0", "C1", "lightgrey"]
    bars = axes.barh(list(counts), list(counts.values()), color=colours)
    axes.bar_label(bars, [f"{n:,}" for n in counts.values()], padding=3)
    axes.invert_yaxis()
    axes.margins(x=0.15)
    axes.set(xlabel="rows", ylabel="who is right")


def _draw_errors(axes: Any, comparison: Comparison) -> None:
    first, second = comparison.first.sqrt().numpy(), comparison.second.sqrt().numpy()
    axes.plot(first, second, ".", color="C0", alpha=0.5)
    end = float(max(first.max(), second.max()))
    axes.plot([0, end], [0, end], "--", color="grey", label="equal")
    axes.set(
        xlabel="error of the first, target's unit", ylabel="error of the second, target's unit"
    )
    axes.legend(frameon=False)


def _reach(found: pd.Series[Any], table: pd.DataFrame) -> Any:
    """Return how far below and above its value an interval goes, shaped (2, rows)."""
    return np.abs([found - table["low"], table["high"] - found])


def _name(figure: str) -> str:
    return _NAMES.get(figure, figure)
