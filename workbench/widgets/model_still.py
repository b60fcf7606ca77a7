"""The picture of a model that a saved notebook keeps, where no widget lives."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

from workbench.evaluation.insides import Tile
from workbench.pictures import Picture
from workbench.widgets.model_moments import Moment

__all__ = ["model_still"]

_LAYERS, _FILTERS = 30, 16


def model_still(name: str, moment: Moment) -> Picture:
    """Return the layers that hold or cost something as bars, beside the first filters."""
    layers = [layer for layer in moment.survey.layers if layer.parameters or layer.multiply_adds]
    layers = layers[:_LAYERS] or list(moment.survey.layers[:1])
    titled, tiles = moment.first_filters()
    figure = Picture(9, max(2.2, 1.2 + 0.28 * len(layers)))
    whole, *rest = figure.subfigures(1, 2 if tiles else 1, width_ratios=(3, 1)[: 1 + bool(tiles)],
                                     squeeze=False)[0]  # fmt: skip
    places = range(len(layers))
    for axes, key in zip(whole.subplots(1, 2, sharey=True), ("parameters", "multiply_adds"),
                         strict=True):  # fmt: skip
        bars = axes.barh(places, [getattr(layer, key) for layer in layers], color="C0")
        axes.bar_label(
            bars, [f"{getattr(layer, key):,}" for layer in layers], padding=2, fontsize=7
        )
        axes.margins(x=0.35)
        axes.spines[["top", "right", "bottom"]].set_visible(False)
        axes.set_xticks([])
        axes.set_title(key.replace("_", "-"), fontsize=9)
    axes = whole.axes[0]
    axes.set_yticks(places, [f"{layer.name} ({layer.kind})" for layer in layers], fontsize=8)
    axes.invert_yaxis()
    for part in rest:
        _draw_filters(part, titled, tiles)
    figure.suptitle(f"{name}: {moment.survey.summary.totals}", fontsize=9)
    return figure


def _draw_filters(part: Any, titled: str, tiles: Sequence[Tile]) -> None:
    shown = tiles[:_FILTERS]
    across = math.ceil(math.sqrt(len(shown)))
    grid = part.subplots(math.ceil(len(shown) / across), across, squeeze=False)
    for axes in grid.flat:
        axes.axis("off")
    for axes, tile in zip(grid.flat, shown, strict=False):
        axes.imshow(tile.pixels, cmap="gray", vmin=0, vmax=255, aspect=_aspect(tile))
    part.suptitle(f"weights of {titled}", fontsize=9)


def _aspect(tile: Tile) -> Literal["equal", "auto"]:
    height, width = tile.pixels.shape[:2]
    return "equal" if max(height, width) < 4 * min(height, width) else "auto"
