"""`survey`: what a model's layers are, what they cost, and how alive they are on fixed rows."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field

import pandas as pd
from torch import nn

from workbench.attached import attached
from workbench.datasets import Dataset, Split
from workbench.datasets.splits import sample
from workbench.devices import device_of
from workbench.errors import RequestError
from workbench.evaluation.activations import Activation, activations, call_name
from workbench.evaluation.layers import Layer, Tally
from workbench.models.summaries import Summary, summary
from workbench.modes import settled
from workbench.preprocessing import Preprocessing

__all__ = ["Survey", "passed_by", "survey"]

_ROWS, _FEWEST = 256, 32
_WORK = 10**10  # multiply-adds in all, beyond which fewer rows are asked
_AT_ONCE = 32  # rows: the activations of large nets are large


@dataclass(frozen=True, eq=False)
class Survey:
    """A model's layers, as they answered to some fixed rows.

    Args:
        layers: in the order in which they are called.
        summary: shapes, parameters and cost of one row.
        rows: that were asked.
        split: what they are of, `"validation"` or `"train"`.
        preprocessing: what made the rows into what the model takes.
    """

    layers: tuple[Layer, ...] = field(repr=False)
    summary: Summary = field(repr=False)
    rows: Split = field(repr=False)
    split: str
    preprocessing: Preprocessing = field(repr=False)

    def table(self) -> pd.DataFrame:
        """Return a row a layer; `dead` and `stuck` as how many units are so."""
        rows = [
            {**vars(layer), "dead": _count(layer.dead), "stuck": len(layer.stuck)}
            for layer in self.layers
        ]
        columns = [name for name in Layer.__dataclass_fields__ if name != "spread"]
        table = pd.DataFrame(rows, columns=columns)
        return table.assign(warning=[layer.warning for layer in self.layers])


def survey(model: nn.Module, data: Dataset) -> Survey:
    """Return the model's layers with shapes, cost, statistics, dead and saturated units.

    It is asked with 256 rows, fewer where that were much work, and always the same ones: of the
    validation split where there is one. Nothing of the model is changed; a training of it is waited
    for.

    Args:
        model: any module; one never fitted takes its rows as `fit` would give them.
        data: gives the rows.

    Raises:
        RequestError: `data` is no dataset, or the model cannot take its rows.
    """
    _check(data)
    tallies: dict[str, Tally] = {}

    def see(seen: Activation) -> None:
        tallies.setdefault(seen.name, Tally(seen, len(rows))).add(seen.values)

    with settled(model), _said_of(model, data):
        told = summary(model, data)
        split, rows = _fixed_rows(data, _WORK // max(1, told.multiply_adds))
        preprocessing, device = passed_by(model, data), device_of(model)
        for part in preprocessing.batch(rows.inputs).split(_AT_ONCE):
            activations(model, preprocessing(part.to(device)), see)
        return Survey(tuple(_joined(told, tallies)), told, rows, split, preprocessing)


def passed_by(model: nn.Module, data: Dataset) -> Preprocessing:
    """Return what makes the data's raw rows into what the model takes: its own, or the fitting."""
    known = attached(model).preprocessing
    return known or Preprocessing.fitted(data.train.inputs, data.classes, data.features)


def _check(data: Dataset) -> None:
    if not isinstance(data, Dataset):
        raise RequestError(
            f"the layers of a model are seen at work on a Dataset, got {type(data).__name__}: make "
            "one with wb.dataset('mine', train=(X, y))"
        )


@contextlib.contextmanager
def _said_of(model: nn.Module, data: Dataset) -> Iterator[None]:
    """Say which rows the model cannot take."""
    try:
        yield
    except (RuntimeError, TypeError) as error:
        rows = tuple(passed_by(model, data)(data.train.inputs[:2]).shape[1:])
        raise RequestError(
            f"{type(model).__name__} cannot take rows shaped {rows}: {str(error).splitlines()[0]}"
        ) from error


def _fixed_rows(data: Dataset, affordable: int) -> tuple[str, Split]:
    name, split = ("train", data.train)
    if data.validation is not None and len(data.validation):
        name, split = ("validation", data.validation)
    return name, sample(split, min(max(_FEWEST, min(_ROWS, affordable)), len(split)))


def _joined(told: Summary, tallies: dict[str, Tally]) -> list[Layer]:
    """Return the layers in the order of their calls, with the cost that the summary knows."""
    known, calls = {}, dict.fromkeys(told.layers["layer"], 0)
    for row in told.layers.to_dict("records"):
        calls[row["layer"]] += 1
        number = calls[row["layer"]]
        own = row["parameters"] if number == 1 else 0
        known[call_name(row["layer"], number)] = row["kind"], own, row["multiply_adds"]
    seen = [tally.layer(*known.pop(name, ("", 0, 0))[1:]) for name, tally in tallies.items()]
    return seen + [
        Layer(name, kind, parameters=own, multiply_adds=cost)
        for name, (kind, own, cost) in known.items()
    ]


def _count(units: tuple[int, ...] | None) -> int | None:
    return None if units is None else len(units)
