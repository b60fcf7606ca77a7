"""The messages of the V1 protocol, as TensorFlow Serving and KServe speak it: rows or columns.

A request gives rows, `{"instances": [...]}`, or whole tensors, `{"inputs": ...}`, and is answered
alike. Bytes are `{"b64": "..."}`, wherever a value may be. Every malformed message raises
RequestError and nothing else.
"""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np

from workbench.errors import RequestError
from workbench.serving.answers import encode
from workbench.serving.protocol import check_names
from workbench.serving.tensors import Array, read_json
from workbench.types import Signature

__all__ = ["V1Request", "open_b64", "read_v1", "write_v1"]

_SIGNATURE = "serving_default"  # what TensorFlow calls the one that is meant where none is named
_MAX_DEPTH = 100  # lists and objects within each other; no tensor has as many axes
_NESTING = {list, dict}


class _Request(msgspec.Struct):
    instances: list[Any] | None = None
    inputs: Any = None
    signature_name: str | None = None


@dataclass(frozen=True)
class V1Request:
    """What a V1 request asks; one of the two is None.

    Args:
        rows: a value each: of several inputs an object by their names.
        columns: by the names of the inputs, the values of all rows each.
    """

    rows: list[Any] | None
    columns: dict[str, Any] | None


def read_v1(body: bytes, signature: Signature) -> V1Request:
    """Return what a V1 request asks, its `{"b64": ...}` objects as bytes.

    Args:
        body: JSON.
        signature: of the model: names columns, and the one input where they come without a name.

    Raises:
        RequestError: the message is malformed, or names what the model does not have.
    """
    request = read_json(body, _Request)
    if request.signature_name not in (None, _SIGNATURE):
        raise RequestError(
            f"unknown signature_name {request.signature_name!r:.80}: expected {_SIGNATURE!r}, "
            "or none"
        )
    if (request.instances is None) == (request.inputs is None):
        raise RequestError(
            "the body needs either instances, a list of rows, or inputs, the tensors by name"
        )
    if request.instances is not None:
        return V1Request(open_b64(request.instances), None)
    return V1Request(None, _columns(open_b64(request.inputs), signature))


def write_v1(outputs: dict[str, Array], *, columnar: bool) -> bytes:
    """Return the answer: a row each as `predictions`, or whole tensors as `outputs`.

    One output comes bare, several by their names. BYTES are strings, but `{"b64": ...}` where the
    output's name ends in `_bytes`, and where they are not UTF-8.

    Args:
        outputs: by name; each first axis is rows.
        columnar: whether the request was.
    """
    said = {name: _said(array, name.endswith("_bytes")) for name, array in outputs.items()}
    if len(said) == 1:
        (told,) = said.values()
    elif columnar:
        told = said
    else:
        told = [dict(zip(said, row, strict=True)) for row in zip(*said.values(), strict=True)]
    return encode({"outputs" if columnar else "predictions": told})


def open_b64(value: Any, depth: int = 0) -> Any:
    """Return what a JSON parser returned with each `{"b64": ...}` in it as the bytes it stands for.

    Args:
        value: of any type.
        depth: how deep it lies already.

    Raises:
        RequestError: one is not base64, or the value is nested too deep.
    """
    if type(value) not in _NESTING:
        return value
    if depth >= _MAX_DEPTH:
        raise RequestError(f"the body is nested too deep: expected at most {_MAX_DEPTH} levels")
    if isinstance(value, dict):
        if list(value) == ["b64"]:
            return _decoded(value["b64"])
        return {name: open_b64(inner, depth + 1) for name, inner in value.items()}
    if _NESTING.isdisjoint(map(type, value)):
        return value
    return [open_b64(inner, depth + 1) for inner in value]


def _decoded(text: Any) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise RequestError(f'{{"b64": {text!r:.40}}} is not base64') from None


def _columns(value: Any, signature: Signature) -> dict[str, Any]:
    """Return the columns by name: an object names them, anything else is the one input."""
    names = [spec.name for spec in signature.inputs]
    if not isinstance(value, dict):
        if len(names) > 1:
            raise RequestError(
                f"inputs has no names, and the model takes {', '.join(names)}: expected an object"
            )
        return {names[0]: value}
    check_names("input", list(value), dict.fromkeys(names))
    missing = [name for name in names if name not in value]
    if missing:
        raise RequestError(f"input {missing[0]!r} is missing: the model takes {', '.join(names)}")
    return value


def _said(array: Array, as_base64: bool) -> Any:
    """Return an array as nested lists."""
    if array.dtype.kind != "O":
        return array.tolist()
    texts = np.empty(array.size, object)
    texts[:] = [_text(value, as_base64) for value in array.reshape(-1)]
    return texts.reshape(array.shape).tolist()


def _text(value: bytes, as_base64: bool) -> Any:
    if not as_base64:
        try:
            return value.decode()
        except UnicodeDecodeError:
            pass
    return {"b64": base64.b64encode(value).decode()}
