"""Tensors on the wire: the datatypes of the Open Inference Protocol, as JSON and as raw bytes.

NaN and infinities travel exactly as bytes, though no model is asked with them. In JSON an answer
has null for them and a request cannot say them. Every malformed tensor raises RequestError and
nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any

import numpy as np

from workbench.errors import RequestError

__all__ = ["Array", "datatype_of", "from_bytes", "from_json", "to_bytes", "to_json"]

Array = np.ndarray[Any, np.dtype[Any]]

_DTYPES = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
}
_ALLOWED: dict[str, set[type]] = {"b": {bool}, "f": {int, float}}  # by the dtype's kind
_MAX_AXES = 32  # numpy's own limit is near, and no model has more
_MAX_ELEMENTS = 2**31  # far above what a body can hold, far below where products overflow


def from_bytes(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> Array:
    """Return the array that `data` holds: little-endian, row-major, without padding.

    Args:
        name: of the tensor, for the message.
        datatype: in the protocol's words, for instance `"FP32"`.
        shape: as the request states it; checked here.
        data: the bytes; not copied.

    Raises:
        RequestError: datatype or shape is none, or the bytes are too few or too many.
    """
    dtype, count = _dtype(name, datatype), _count(name, shape)
    if len(data) != count * dtype.itemsize:
        raise RequestError(
            f"tensor {name!r} has {len(data)} bytes, expected {count * dtype.itemsize} "
            f"for {datatype} of shape {list(shape)}"
        )
    array = np.frombuffer(data, dtype=np.uint8 if datatype == "BOOL" else dtype)
    if datatype == "BOOL":
        if array.size and array.max() > 1:
            raise RequestError(f"tensor {name!r} is BOOL and has a byte that is neither 0 nor 1")
        array = array.view(np.bool_)
    return array.reshape(tuple(shape))


def to_bytes(array: Array) -> bytes:
    """Return the bytes of an array: little-endian, row-major, without padding."""
    return array.astype(_DTYPES[datatype_of(array)], copy=False).tobytes()


def from_json(name: str, datatype: str, shape: Sequence[int], data: Any) -> Array:
    """Return the array that JSON lists hold, flat in row-major order or nested as the shape.

    Args:
        name: of the tensor, for the message.
        datatype: in the protocol's words.
        shape: as the request states it; checked here.
        data: what the JSON parser returned.

    Raises:
        RequestError: datatype or shape is none, the lists are not of that shape, or a value is not
            of that datatype.
    """
    dtype, count = _dtype(name, datatype), _count(name, shape)
    values = _flat(name, shape, count, data)
    strange = {kind.__name__ for kind in set(map(type, values)) - _ALLOWED.get(dtype.kind, {int})}
    if strange:
        words = {"NoneType": "null", "str": "a string", "dict": "an object"}
        found = ", ".join(sorted(words.get(kind, kind) for kind in strange))
        raise RequestError(f"tensor {name!r} is {datatype}, and its data has {found}")
    return _cast(name, datatype, values).reshape(tuple(shape))


def to_json(array: Array) -> list[Any]:
    """Return the values flat in row-major order; the encoder writes null for what is not finite."""
    return list(array.reshape(-1).tolist())


def datatype_of(array: Array) -> str:
    """Return the protocol's word for an array's dtype.

    Raises:
        RequestError: it has none here.
    """
    for word, dtype in _DTYPES.items():
        if dtype == array.dtype.newbyteorder("<"):
            return word
    raise RequestError(f"arrays of {array.dtype} have no datatype here: {_known()}")


def _dtype(name: str, datatype: str) -> np.dtype[Any]:
    if datatype not in _DTYPES:
        raise RequestError(f"tensor {name!r} has the datatype {datatype!r}: {_known()}")
    return _DTYPES[datatype]


def _known() -> str:
    return f"expected one of {', '.join(_DTYPES)}"


def _count(name: str, shape: Sequence[int]) -> int:
    """Return how many elements a shape has, having checked that it is one."""
    count = math.prod(shape)
    if len(shape) > _MAX_AXES or any(n < 0 for n in shape) or count > _MAX_ELEMENTS:
        said = str(list(shape))
        raise RequestError(
            f"tensor {name!r} has the shape {said[:80]}: expected at most {_MAX_AXES} axes, "
            f"none negative, and at most {_MAX_ELEMENTS} elements"
        )
    return count


def _flat(name: str, shape: Sequence[int], count: int, data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise RequestError(f"tensor {name!r} has data that is not a list")
    values, nested = data, bool(data) and isinstance(data[0], list)
    if nested:
        fits = len(shape) > 0 and len(values) == shape[0]
        for size in shape[1:]:
            fits = fits and all(type(part) is list and len(part) == size for part in values)
            if not fits:
                break
            values = list(chain.from_iterable(values))
        if not fits:
            raise RequestError(f"tensor {name!r} has data not nested as its shape {list(shape)}")
    if len(values) != count:
        raise RequestError(
            f"tensor {name!r} has {len(values)} values, expected {count} for shape {list(shape)}"
        )
    return values


def _cast(name: str, datatype: str, values: list[Any]) -> Array:
    dtype = _DTYPES[datatype]
    try:
        if dtype.kind != "f":
            return np.array(values, dtype=dtype)
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=np.float64).astype(dtype)
        fits = bool(np.isfinite(array).all())
    except OverflowError:
        fits = False
    if not fits:
        raise RequestError(f"tensor {name!r} has a value that does not fit {datatype}")
    return array
