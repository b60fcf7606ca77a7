"""What is said of a model by example: a row that it takes, as people and the protocols write it."""

from __future__ import annotations

from typing import Any, Literal
from urllib.parse import quote

import numpy as np

from workbench.errors import TamperedError
from workbench.registry.aliases import standing
from workbench.serving.served import Served
from workbench.serving.tensors import Array
from workbench.types import JSON

__all__ = [
    "FormKind",
    "aliases_of",
    "columns_of",
    "features_of",
    "infer_example",
    "kind_of",
    "model_path",
    "row_of",
]

FormKind = Literal["image", "table", "text", "json"]

_FIELDS = 64  # features that people fill in one by one; more are a row of JSON
_COLOURS = (1, 3, 4)  # channels of pictures that a file can have
_LARGE = 4096  # numbers that an example can have and still be read
_NO_JSON = ("FP16", "BF16")  # which travel as bytes alone


def kind_of(served: Served) -> FormKind:
    """Return how people give a model its inputs."""
    shape = served.signature.inputs[0].shape
    if served.takes_images and (len(shape) == 3 or shape[3] in _COLOURS):
        return "image"
    if len(served.signature.inputs) > 1:
        return "json"
    (spec,) = served.signature.inputs
    if spec.datatype == "BYTES" and len(spec.shape) == 1:
        return "text"
    is_row = spec.datatype in ("FP32", "FP64") and len(spec.shape) == 2
    return "table" if is_row and 0 < spec.shape[1] <= _FIELDS else "json"


def aliases_of(served: Served) -> tuple[str, ...]:
    """Return the aliases that are on a model's version now; a live model has none."""
    name, at, number = served.model.partition("@")
    try:
        return standing(name).of(int(number)) if at else ()
    except TamperedError:
        return ()  # whoever asks by an alias hears of it


def model_path(served: Served) -> str:
    """Return where a model is, from the root of its server: `models/NAME`."""
    return f"models/{quote(served.name)}"


def features_of(served: Served) -> tuple[str, ...]:
    """Return the names of a table's features, `x1` and so on where they have none."""
    if served.features:
        return tuple(served.features)
    return tuple(f"x{number}" for number in range(1, served.signature.inputs[0].shape[1] + 1))


def columns_of(served: Served) -> dict[str, Any] | None:
    """Return one row by the names of the inputs, as JSON; None where it is too large to be read."""
    if sum(array[:1].size for array in served.example.values()) > _LARGE:
        return None
    return {name: _plain(array) for name, array in served.example.items()}


def row_of(served: Served) -> Any:
    """Return one row as people write it: by its features where those have names.

    Rows of several inputs are by their names. It is None where it is too large to be read.
    """
    row = columns_of(served)
    if row is None or len(row) > 1:
        return row
    (values,) = row.values()
    return dict(zip(served.features, values, strict=True)) if served.features else values


def infer_example(served: Served) -> JSON | None:
    """Return a V2 request for one row; None where JSON cannot say it, or it is too large."""
    row, specs = columns_of(served), served.signature.inputs
    if row is None or any(spec.datatype in _NO_JSON for spec in specs):
        return None
    return {
        "inputs": [
            {
                "name": spec.name,
                "datatype": spec.datatype,
                "shape": [1, *served.example[spec.name].shape[1:]],
                "data": [row[spec.name]],
            }
            for spec in specs
        ]
    }


def _plain(array: Array) -> Any:
    """Return the first row of an array as JSON; numbers as short as they can be."""
    row = array[0]
    if isinstance(row, bytes):
        return row.decode("utf-8", "replace")
    if array.dtype.kind not in "fV":  # V: bfloat16
        return row.tolist() if hasattr(row, "tolist") else row
    single = row.astype(np.float64 if array.dtype == np.float64 else np.float32)
    # Written and read again, each is the shortest decimal that is this very number.
    return single.astype(str).astype(np.float64).tolist()
