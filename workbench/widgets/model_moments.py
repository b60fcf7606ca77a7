"""A model as it was at one moment, and what a page is told of it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property

import torch
from torch import nn

from workbench.attached import attached
from workbench.datasets import Dataset
from workbench.errors import RequestError
from workbench.evaluation.insides import TILES, Tile, inside
from workbench.evaluation.layers import Layer
from workbench.evaluation.surveys import Survey, passed_by, survey
from workbench.serving.live import Mirror
from workbench.training.gradients import GradientFlow, gradient_flow
from workbench.types import JSON
from workbench.widgets.figures import plain
from workbench.widgets.images import address_of, brightest, shrunk

__all__ = ["LISTED", "Moment", "steps_of"]

LISTED = 200  # layers
_NAMED = 1000  # dead units
_LARGE = 224  # pixels of the longer side of a row that is an image


class Moment:
    """A model as it was at one moment, on a copy of its own, and what was found out of it so far.

    Args:
        model: that is copied; where that cannot be done it is seen itself, at rest.
        data: gives the rows.
    """

    def __init__(self, model: nn.Module, data: Dataset) -> None:
        self._data = data
        training = attached(model).training
        self.steps: int | None
        try:
            mirror = Mirror(model)
        except RequestError:
            self._copy, self.steps = model, steps_of(model)
        else:
            self._copy, self.steps = mirror.fresh(), mirror.told()["step"]
            attached(self._copy).__dict__.update(vars(attached(model)))
            attached(self._copy).preprocessing = passed_by(model, data)
        self.survey: Survey = survey(self._copy, data)
        found = self.survey
        self.said = f"Seen on {len(found.rows):,} rows of {found.split} of {data.name}"
        if training is not None and self.steps:
            self.said += f", after step {self.steps:,} of training {training.name!r}"
        self._insides: dict[tuple[str, int, int], JSON] = {}
        self._images: dict[int, str] = {}

    @cached_property
    def listed(self) -> list[JSON]:
        """The layers as a page lists them, with their share of the cost."""
        whole = max(1, self.survey.summary.multiply_adds)
        keys = ("name", "kind", "output", "parameters", "warning", "is_seen")
        return [
            {key: getattr(layer, key) for key in keys} | {"share": layer.multiply_adds / whole}
            for layer in self.survey.layers[:LISTED]
        ]

    @cached_property
    def white(self) -> int:
        """What is white in an image."""
        return brightest(self.survey.rows.inputs)

    @cached_property
    def flow(self) -> JSON:
        """The flow of the gradient as a page shows it."""
        try:
            found = gradient_flow(self._copy, self._data, step=self.steps)
        except RequestError as error:
            return {"words": [f"There is no gradient to show: {error}"], "flow": []}
        return _flow(found)

    def found(self, of: str) -> list[int]:
        """Return which rows are of a class, or all."""
        rows = self.survey.rows
        if not of:
            return list(range(len(rows)))
        found: list[int] = (rows.targets == rows.classes.index(of)).nonzero().flatten().tolist()
        return found

    def told(self, layer: Layer) -> JSON:
        """Return what is known of a layer, as a page shows it."""
        keys = ("name", "kind", "output", "words", "warning", "parameters")
        return {
            **{key: getattr(layer, key) for key in keys},
            "dead": list(layer.dead or ())[:_NAMED],
            "counts": list(layer.spread),
            "ends": [plain(layer.low), plain(layer.high)],
        }

    def inside(self, layer: Layer, row: int, first: int) -> JSON:
        """Return the weights of a layer and its outputs for a row, as a page shows them."""
        key = (layer.name, row, first)
        if key not in self._insides:
            raw, known = self.survey.rows.inputs[row], self.survey.preprocessing
            found = inside(self._copy, layer, raw, known, first=first)
            self._insides = {key: {  # the last one alone is kept
                "filters": [_sent(tile) for tile in found.filters],
                "filters_say": found.filters_say,
                "maps": [_sent(tile) for tile in found.maps],
                "bars": [plain(value) for value in found.bars],
                "maps_say": found.maps_say,
                "units": found.units,
                "first": first,
                "at_once": TILES,
            }}  # fmt: skip
        return self._insides[key]

    def image(self, row: int) -> str:
        """Return the address of a row that is an image, of up to 224 pixels."""
        if row not in self._images:
            image = shrunk(self.survey.rows.inputs[row], _LARGE)
            self._images = {row: address_of(image, self.white)}  # the last one alone is kept
        return self._images[row]

    def first_filters(self) -> tuple[str, list[Tile]]:
        """Return the filters of the first layer that has some, and its name."""
        raw, known = self.survey.rows.inputs[0], self.survey.preprocessing
        for layer in self.survey.layers:
            if layer.is_seen and layer.weight_norm is not None:
                return layer.name, inside(self._copy, layer, raw, known).filters
        return "", []


def steps_of(model: nn.Module) -> int | None:
    """Return how many steps the model's training has done, or None where it has none."""
    training = attached(model).training
    return None if training is None else len(training.history)


def _sent(tile: Tile) -> JSON:
    height, width = tile.pixels.shape[:2]
    src = address_of(torch.from_numpy(tile.pixels), 255)
    return {"name": tile.name, "src": src, "width": width, "height": height}


def _flow(found: GradientFlow) -> JSON:
    layers = found.by_layer()
    columns = ("gradient_norm", "weight_norm", "ratio")
    bars = {name: _on_log_scale(layers[name].tolist()) for name in ("gradient_norm", "ratio")}
    rows = [
        {"layer": row["layer"], **{name: plain(row[name]) for name in columns},
         "bars": [bars["gradient_norm"][0][i], bars["ratio"][0][i]]}
        for i, row in enumerate(layers.to_dict("records"))
    ]  # fmt: skip
    each = [
        [row["parameter"], row["size"], *(plain(row[name]) for name in columns), row["note"]]
        for row in found.parameters.to_dict("records")
    ]
    scales = [bars["gradient_norm"][1], bars["ratio"][1]]
    return {"words": found.words, "flow": rows[:LISTED], "scales": scales,
            "each": each[: 2 * LISTED]}  # fmt: skip


def _on_log_scale(values: Sequence[float]) -> tuple[list[float], list[float]]:
    """Return how far each value is between powers of ten around them all, and these two.

    >>> _on_log_scale([0.01, 0.1, 1.0, 0.0])
    ([0.0, 0.5, 1.0, 0.0], [0.01, 1.0])
    """
    logs = [math.log10(value) if 0 < value < math.inf else None for value in values]
    known = [log for log in logs if log is not None]
    low = math.floor(min(known, default=0))
    high = max(math.ceil(max(known, default=0)), low + 1)
    shares = [0.0 if log is None else (log - low) / (high - low) for log in logs]
    return shares, [10.0**low, 10.0**high]
