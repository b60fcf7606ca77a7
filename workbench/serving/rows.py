"""Rows as people have them, a picture, a row of a table, a text, to tensors; outputs to labels."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from workbench.errors import RequestError, UnknownNameError
from workbench.evaluation.calls import Rows, array_for, array_of, rows_of
from workbench.evaluation.inference import Prediction
from workbench.serving.answers import Refusal
from workbench.serving.photos import MAX_TOGETHER, pixels
from workbench.serving.served import Served
from workbench.serving.tensors import Array, read_json
from workbench.serving.v1 import open_b64
from workbench.types import JSON, TensorSpec

__all__ = ["from_values", "pictures", "plain", "read_rows", "say_rows"]

_FLAT = ("id", "parameters")  # what flat JSON may say beside its inputs
_CURL = "application/x-www-form-urlencoded"  # what curl -d says of whatever it sends


def read_rows(content_type: str, body: bytes, served: Served) -> tuple[dict[str, Array], JSON]:
    """Return the rows of a body by the names of the inputs, and what was done to them.

    Args:
        content_type: of the body: a picture, JSON or plain text.
        body: one PNG or JPEG file; one row or a list of rows as JSON; or one text.
        served: what is asked.

    Returns:
        The inputs, and notes: `resized_from` has the height and width that a picture had; of
        several pictures, one entry a row, null for those that were of the model's size.

    Raises:
        Refusal: 415, the model is not asked by that type.
        RequestError: the body is not what the model takes.
    """
    kind = content_type.partition(";")[0].strip().lower()
    if kind in ("image/png", "image/jpeg", "image/jpg") and served.takes_images:
        return _of_files([body], served)
    if kind == "text/plain" and _takes_text(served):
        return from_values([_utf8(body)], served), {}
    if kind in ("application/json", _CURL):
        return _of_json(open_b64(read_json(body, Any)), served)
    offered = ["image/png", "image/jpeg"] * served.takes_images + ["application/json"]
    offered += ["text/plain"] * _takes_text(served)
    raise Refusal(
        415,
        f"{served.name!r} is not asked by the Content-Type {kind!r:.60}: send "
        f"{', '.join(offered[:-1])}{' or ' if len(offered) > 1 else ''}{offered[-1]}",
    )


def from_values(values: Any, served: Served, *, name: str | None = None) -> dict[str, Array]:
    """Return rows as JSON has them by the names of the inputs.

    Args:
        values: a list of rows: nested lists, texts, objects by the names of features or inputs, or
            the bytes of a PNG or JPEG.
        served: what is asked.
        name: of the one input whose rows they are; None for all inputs.

    Raises:
        RequestError: they are not what the model takes; the message names the row.
    """
    if not isinstance(values, list | np.ndarray):
        raise RequestError(f"expected a list of rows, found {_word(values)}")
    specs = {spec.name: spec for spec in served.signature.inputs}
    if name is None and len(specs) > 1:
        return _by_inputs(values, specs)
    rows = values
    if name is None:
        (name,) = specs
        rows = [_unnamed(row) for row in values] if isinstance(values, list) else values
    if served.preprocessing is not None:
        return {name: _raw(rows, served)}
    return {name: _column(specs[name], rows)}


def pictures(files: Array, served: Served) -> Array:
    """Return pictures that came as files as the raw rows that the model takes.

    Args:
        files: shaped (rows,) or (rows, 1), of bytes.
        served: what is asked.

    Raises:
        RequestError: the model takes no pictures, or one of them cannot be read.
    """
    if not served.takes_images:
        raise RequestError(f"{served.name!r} takes no pictures: send numbers of its datatype")
    return _of_files(files.reshape(-1).tolist(), served)[0][served.signature.inputs[0].name]


def plain(body: bytes, served: Served) -> Any:
    """Return the one row of flat JSON: its inputs by name, without an id and parameters.

    Raises:
        RequestError: it is not a JSON object.
    """
    said = open_b64(read_json(body, Any))
    if not isinstance(said, dict):
        raise RequestError(f"the body is {_word(said)}, expected an object of one row")
    known = {spec.name for spec in served.signature.inputs} | set(served.features)
    return {key: value for key, value in said.items() if key not in _FLAT or key in known}


def say_rows(outputs: Mapping[str, Array], served: Served) -> list[JSON]:
    """Return what the outputs say of each row, equal to what `predict` says.

    Args:
        outputs: by name, as `answer` returns them.
        served: what answered.

    Returns:
        Of classes the `label`, the `probabilities` by class and the `output`; of one number its
        `value`; else the outputs by their names.
    """
    known = served.preprocessing
    if known is None:
        columns = {name: _said(rows_of(rows)) for name, rows in outputs.items()}
        return [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    output = rows_of(outputs[served.signature.outputs[0].name])
    assert not isinstance(output, list)
    if known.classes and output.ndim == 2:
        return _labelled(Prediction.of(output, known), known.classes)
    if output.numel() == len(output):
        return [{"value": value} for value in output.reshape(-1).tolist()]
    return [{"output": value} for value in output.tolist()]


def _labelled(said: Prediction, classes: tuple[str, ...]) -> list[JSON]:
    chances, labels = said.probabilities, said.labels
    assert chances is not None
    assert labels is not None
    if chances.shape[1] == 1:  # of the second of two classes
        chances = torch.cat([1 - chances, chances], 1)
    return [
        {"label": label, "probabilities": dict(zip(classes, row, strict=True)), "output": output}
        for label, row, output in zip(labels, chances.tolist(), said.output.tolist(), strict=True)
    ]


def _of_json(said: Any, served: Served) -> tuple[dict[str, Array], JSON]:
    """Return the rows of a JSON value, which is one row or a list of them."""
    if not isinstance(said, list):
        said = [said]
    if any(isinstance(value, dict | str | bytes) for value in said):
        rows = [_unnamed(value) for value in said]
        if served.takes_images and all(isinstance(row, bytes) for row in rows):
            return _of_files(rows, served)
        return from_values(rows, served), {}
    return served.arrays(said), {}


def _of_files(files: Sequence[bytes], served: Served) -> tuple[dict[str, Array], JSON]:
    assert served.preprocessing is not None
    rows, sizes = _opened(files, served.preprocessing.shape)
    array = np.stack(rows) if rows else np.empty((0, *served.preprocessing.shape), np.uint8)
    notes: JSON = {}
    if any(size is not None for size in sizes):
        notes["resized_from"] = sizes[0] if len(sizes) == 1 else sizes
    return {served.signature.inputs[0].name: array}, notes


def _opened(rows: Sequence[Any], shape: tuple[int, ...]) -> tuple[list[Any], list[Any]]:
    """Return rows with the files of pictures among them decoded, and the sizes that these had."""
    opened, sizes, left = list(rows), [], MAX_TOGETHER
    for number, row in enumerate(rows):
        if not isinstance(row, bytes):
            continue
        try:
            opened[number], size, left = pixels(row, shape, left)
        except RequestError as error:
            where = f"row {number}: " if len(rows) > 1 else ""
            raise RequestError(f"{where}{error}") from None
        sizes.append(None if size is None else list(size))
    return opened, sizes


def _by_inputs(rows: Any, specs: Mapping[str, TensorSpec]) -> dict[str, Array]:
    """Return rows that are objects by the names of several inputs."""
    names = list(specs)
    given = [_by_name(row, names, "input", number) for number, row in enumerate(rows)]
    columns = zip(*given, strict=True) if given else [()] * len(names)
    return {
        name: _column(specs[name], list(column))
        for name, column in zip(names, columns, strict=True)
    }


def _raw(rows: Any, served: Served) -> Array:
    """Return raw rows of a model with a preprocessing."""
    known = served.preprocessing
    assert known is not None
    if isinstance(rows, list) and served.takes_images and any(isinstance(r, bytes) for r in rows):
        made, _ = _opened(rows, known.shape)
    elif isinstance(rows, list) and any(isinstance(row, Mapping) for row in rows):
        made = [_features(row, served, number) for number, row in enumerate(rows)]
    else:
        made = rows
    raw = known.batch(made)
    if len(raw) != len(rows):
        raise RequestError(f"the rows are {len(rows)} values of one row: expected a list of rows")
    return array_of(raw)


def _features(row: Any, served: Served, number: int) -> list[Any]:
    """Return the numbers of a table's row in the order of the features."""
    if not isinstance(row, Mapping):
        return list(row) if isinstance(row, list) else [row]
    if not served.features:
        raise RequestError(
            f"row {number} is an object, and {served.name!r} has no names for what it takes: send "
            "a list of numbers"
        )
    values = _by_name(row, served.features, "feature", number)
    for name, value in zip(served.features, values, strict=True):
        if not isinstance(value, int | float):
            raise RequestError(
                f"row {number} has {_word(value)} as the feature {name!r}: expected a number"
            )
    return values


def _by_name(row: Any, names: Sequence[str], kind: str, number: int) -> list[Any]:
    """Return the values of an object in the order of the names, each of which it must have."""
    if not isinstance(row, Mapping):
        raise RequestError(
            f"row {number} is {_word(row)}, expected an object of {', '.join(names[:8])}"
        )
    known = set(names)
    for name in row:
        if name not in known:
            raise UnknownNameError(kind, str(name)[:80], names)
    missing = [name for name in names if name not in row]
    if missing:
        more = f" and {len(missing) - 5} more" if len(missing) > 5 else ""
        raise RequestError(f"row {number} lacks the {kind} {', '.join(missing[:5])}{more}")
    return [row[name] for name in names]


def _column(spec: TensorSpec, rows: Any) -> Array:
    """Return the rows of one input."""
    array = array_for(spec, rows)
    if len(array) != len(rows):
        raise RequestError(
            f"input {spec.name!r} has {len(rows)} values of one row: expected a list of rows"
        )
    return array


def _unnamed(row: Any) -> Any:
    """Return the row of `{"input": row}`; anything else as it is."""
    return row["input"] if isinstance(row, Mapping) and list(row) == ["input"] else row


def _said(rows: Rows) -> list[Any]:
    return rows if isinstance(rows, list) else rows.tolist()


def _takes_text(served: Served) -> bool:
    return [(s.datatype, s.shape) for s in served.signature.inputs] == [("BYTES", (-1,))]


def _utf8(body: bytes) -> str:
    try:
        return body.decode()
    except UnicodeDecodeError:
        raise RequestError("the text is not UTF-8: send it encoded so") from None


def _word(value: Any) -> str:
    """Return what a value is, in JSON's words."""
    words = {
        dict: "an object", list: "a list", str: "a string", bool: "true or false",
        int: "a number", float: "a number", bytes: "bytes", type(None): "null",
    }  # fmt: skip
    return words.get(type(value), f"a {type(value).__name__}")
