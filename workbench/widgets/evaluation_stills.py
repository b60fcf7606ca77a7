"""The picture of an evaluation that a saved notebook keeps, of a size that no class adds to."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import RequestError
from workbench.evaluation import Evaluation
from workbench.evaluation.plots import residuals_figure
from workbench.pictures import Picture
from workbench.widgets.evaluation_rows import Pair

if TYPE_CHECKING:
    from matplotlib.axes import Axes

__all__ = ["evaluation_still"]

_NAMED = 20  # classes whose counts can be read
_OUTPUTS = 3  # of a regression
_SCORES = (("precision", "<", "C0"), ("recall", ">", "C1"), ("f1", "o", "black"))


def evaluation_still(pair: Pair) -> Picture:
    """Return the confusion matrix and each class's scores, or residuals; of two, the comparison."""
    if pair.second is not None:
        try:
            return pair.comparison.plot()
        except RequestError:
            pass  # one row has no interval: the first alone can be seen
    evaluation = pair.first
    if not evaluation.classes:
        return residuals_figure(evaluation.examples, min(_OUTPUTS, evaluation.outputs.shape[1]))
    n = min(_NAMED, len(evaluation.classes))
    figure = Picture(6 + 0.4 * n, 2 + 0.35 * n)
    left, right = figure.subplots(1, 2)
    _draw_confusion(left, evaluation)
    _draw_scores(right, evaluation)
    figure.suptitle(repr(evaluation), fontsize=9)
    return figure


def _draw_confusion(axes: Axes, evaluation: Evaluation) -> None:
    counts, names = evaluation.confusion, evaluation.classes
    shares = counts / counts.sum(1, keepdim=True).clamp_min(1)
    axes.imshow(shares.numpy(), cmap="Blues", vmin=0, vmax=1)
    axes.set(xlabel="predicted", ylabel="true")
    if len(names) > _NAMED:
        axes.set_title(f"{len(names)} classes, shares of each", fontsize=9)
        return
    for i, row in enumerate(counts.tolist()):
        for j, count in enumerate(row):
            colour = "white" if shares[i, j] > 0.5 else "black"
            axes.text(j, i, str(count), ha="center", va="center", color=colour, fontsize=7)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)


def _draw_scores(axes: Axes, evaluation: Evaluation) -> None:
    """Draw precision, recall and F1 of the classes whose F1 is lowest, the lowest at the bottom."""
    table = evaluation.per_class.sort_values("f1", kind="stable").head(_NAMED)
    for name, marker, colour in _SCORES:
        inside = "none" if marker == "o" else colour
        axes.scatter(
            table[name], range(len(table)), marker=marker, facecolors=inside, edgecolors=colour,
            label=name,
        )  # fmt: skip
    axes.set_yticks(range(len(table)), list(map(str, table.index)), fontsize=8)
    axes.set(xlabel="share", ylim=(-0.6, len(table) - 0.4))
    axes.grid(axis="x", alpha=0.3)
    axes.legend(frameon=False, ncols=3, loc="lower center", bbox_to_anchor=(0.5, 1), fontsize=8)
