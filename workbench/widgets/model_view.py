"""`ModelView`: a model to look into: its layers, what is in each, and the flow of its gradient."""

from __future__ import annotations

import weakref
from collections.abc import Sequence

from torch import nn

from workbench.attached import attached
from workbench.datasets import Dataset
from workbench.datasets.overviews import column_names, is_image
from workbench.errors import RequestError, UnknownNameError
from workbench.evaluation.layers import Layer
from workbench.pictures import Picture
from workbench.progress import is_live
from workbench.training.planning import name_of
from workbench.types import JSON
from workbench.widgets.faces import Face, action, checked_place, css, javascript
from workbench.widgets.figures import plain
from workbench.widgets.model_moments import LISTED, Moment, steps_of
from workbench.widgets.model_still import model_still

__all__ = ["ModelView", "model"]

_VALUES = 30  # of a row that is no image
_TABS = ["layers", "gradient flow"]


def model(model: nn.Module, data: Dataset) -> ModelView | Picture:
    """Return a view to look into a model; a picture of it where no page lives.

    Args:
        model: any module; one that is being trained is seen as it is between two steps.
        data: gives the rows that it is seen at work on.

    Raises:
        RequestError: the model cannot take the rows.
    """
    view = ModelView(model, data)
    return view if is_live() else view.picture()


class ModelView(Face):
    """Shows a model's layers, the inside of one for a chosen row, and the flow of the gradient.

    All is seen on a copy of one moment, made anew by `look_again`: the model goes on learning.

    Args:
        model: to look into; held weakly.
        data: gives rows to see it at work on.
    """

    _esm = javascript("faces", "plots", "model")
    _css = css("model")

    def __init__(self, model: nn.Module, data: Dataset) -> None:
        super().__init__()
        self._model, self._data, self._name = weakref.ref(model), data, name_of(model)
        self._tab, self._layer, self._of, self._row, self._first = _TABS[0], "", "", 0, 0
        self._moment = Moment(model, data)
        self._layer = next((layer.name for layer in self._seen_layers), "")
        self.refresh()
        if self._is_going:
            self.follow()

    @action
    def open_tab(self, tab: str) -> None:
        """Show the `"layers"`, or the `"gradient flow"`."""
        if tab not in _TABS:
            raise UnknownNameError("part of the view", tab, _TABS)
        self._tab = tab

    @action
    def open_layer(self, layer: str) -> None:
        """Show what is in a layer."""
        self._layer = self._named(layer).name
        self._first = 0

    @action
    def choose(self, of: str) -> None:
        """Show what the model makes of rows of a class; of all for an empty name."""
        classes = self._moment.survey.rows.classes
        if of and of not in classes:
            raise UnknownNameError("class", of, classes)
        if not len(self._moment.found(of)):
            raise RequestError(f"none of the rows that are shown is of the class {of!r}")
        self._of, self._row = of, 0

    @action
    def turn(self, row: int) -> None:
        """Show what the model makes of another row, counted from 0 among those of the class."""
        self._row = checked_place("row", row, len(self._moment.found(self._of)))

    @action
    def show_units(self, first: int) -> None:
        """Show the filters and maps of the units from `first` on."""
        units = self._inside()["units"]
        if not 0 <= first < max(1, units):
            raise RequestError(f"unit {first} is not there: {self._layer} has {units}, from 0")
        self._first = first

    @action
    def look_again(self) -> None:
        """See the model as it is now."""
        held = self._model()
        if held is None:
            raise RequestError(
                f"the model {self._name!r} is gone: keep it in a variable, and run the cell again"
            )
        self._moment = Moment(held, self._data)
        if self._is_going:
            self.follow()

    def catch_up(self) -> bool:
        """Say that the training has gone on since; return whether it still goes on."""
        self.refresh()
        return self._is_going

    def draw(self) -> JSON:
        """Return what is to be seen now."""
        moment = self._moment
        about = {
            "title": f"Model {self._name}",
            "name": self._name,
            "totals": moment.survey.summary.totals,
            "seen": moment.said,
            "is_stale": self._is_stale,
            "tabs": _TABS,
            "tab": self._tab,
            "layers": moment.listed,
            "more_layers": max(0, len(moment.survey.layers) - LISTED),
        }
        return about | (self._opened() if self._tab == _TABS[0] else moment.flow)

    def picture(self) -> Picture:
        """Return the layers as bars of parameters and cost, beside the first filters."""
        return model_still(self._name, self._moment)

    def __repr__(self) -> str:
        found = self._moment.survey
        warned = [f"{layer.name}: {layer.warning}" for layer in found.layers if layer.warning]
        return "; ".join([f"Model {self._name}: {found.summary.totals}", *warned[:5]])

    @property
    def _seen_layers(self) -> list[Layer]:
        return [layer for layer in self._moment.survey.layers if layer.is_seen]

    @property
    def _is_going(self) -> bool:
        held = self._model()
        training = attached(held).training if held is not None else None
        return training is not None and training.is_going

    @property
    def _is_stale(self) -> bool:
        """Whether a training has moved the weights since they were looked at."""
        held = self._model()
        return held is not None and steps_of(held) != self._moment.steps

    def _named(self, name: str) -> Layer:
        for layer in self._seen_layers:
            if layer.name == name:
                return layer
        raise UnknownNameError("layer", name, [layer.name for layer in self._seen_layers])

    def _opened(self) -> JSON:
        """Return the layer that is open, and the row that it is seen at."""
        if not self._layer:
            return {"layer": None}
        return {"layer": self._moment.told(self._named(self._layer)), **self._inside(),
                **self._row_shown()}  # fmt: skip

    def _inside(self) -> JSON:
        row = self._moment.found(self._of)[self._row]
        return self._moment.inside(self._named(self._layer), row, self._first)

    def _row_shown(self) -> JSON:
        rows = self._moment.survey.rows
        found = self._moment.found(self._of)
        index = found[self._row]
        target = rows.targets[index]
        label = rows.classes[int(target)] if rows.classes else _few(target.reshape(-1).tolist())
        shown = {"row": self._row, "rows": len(found), "label": label, "of": self._of}
        return {**shown, "classes": list(rows.classes), "input": self._input(index)}

    def _input(self, index: int) -> JSON:
        rows = self._moment.survey.rows
        if is_image(rows):
            return {"src": self._moment.image(index)}
        values = rows.inputs[index].reshape(-1)[:_VALUES].double().tolist()
        names = column_names(rows.features, len(values))
        return {"values": [[name, plain(v)] for name, v in zip(names, values, strict=False)]}


def _few(values: Sequence[float]) -> str:
    return ", ".join(f"{value:.4g}" for value in values[:5])
