"""Tensors on the wire: the datatypes of the Open Inference Protocol, as JSON and as raw bytes.

Texts (BYTES) are arrays of `bytes` objects; in JSON they are strings, so those that are not UTF-8
travel as raw bytes alone, and so do FP16 and BF16. NaN and infinities travel exactly as bytes,
though no model is asked with them. In JSON an answer has null for them and a request cannot say
them. Every malformed tensor raises RequestError and nothing else.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from itertools import chain
from typing import Any, TypeVar

import ml_dtypes
import msgspec
import numpy as np

from workbench.errors import RequestError

try:
    import simdjson
except ImportError:  # no wheel for this Python: all numbers are read the careful way then
    simdjson = None  # type: ignore[assignment]

__all__ = [
    "Array",
    "Buffer",
    "datatype_of",
    "from_bytes",
    "from_json",
    "is_sayable",
    "read_json",
    "to_bytes",
    "to_json",
]

Array = np.ndarray[Any, np.dtype[Any]]
Buffer = bytes | memoryview

_Read = TypeVar("_Read")

_DTYPES: dict[str, np.dtype[Any]] = {
    "BOOL": np.dtype("?"),
    "UINT8": np.dtype("u1"),
    "UINT16": np.dtype("<u2"),
    "UINT32": np.dtype("<u4"),
    "UINT64": np.dtype("<u8"),
    "INT8": np.dtype("i1"),
    "INT16": np.dtype("<i2"),
    "INT32": np.dtype("<i4"),
    "INT64": np.dtype("<i8"),
    "FP16": np.dtype("<f2"),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "FP32": np.dtype("<f4"),
    "FP64": np.dtype("<f8"),
    "BYTES": np.dtype(object),
}
_WORDS = {dtype: word for word, dtype in _DTYPES.items()}
_NOT_IN_JSON = ("FP16", "BF16")  # refused both ways, as by the protocol's other servers
# What a JSON value of a datatype may be, by the dtype's kind; whole numbers for all others.
_ALLOWED: dict[str, set[type]] = {"b": {bool}, "f": {int, float}, "O": {str}}
_WIDE = {"f": ("d", np.float64), "i": ("i", np.int64), "u": ("u", np.uint64)}  # as simdjson reads
_NUMERALS = b"0123456789+-.eE \t\r\n"  # what numbers are written with

_MAX_AXES = 32  # numpy's own limit is near, and no model has more
_MAX_ELEMENTS = 2**31  # far above what a body can hold, far below where products overflow
_MAX_VALUES = 2**22  # of JSON or BYTES: each is an object of its own, many times its own bytes
_KEPT = 2**20  # bytes of JSON; a parser keeps some ten times as many for the next of that size

_own = threading.local()  # the parser of each thread: it is safe in one alone


def from_bytes(name: str, datatype: str, shape: Sequence[int], data: memoryview) -> Array:
    """Return the array that `data` holds: little-endian, row-major, without padding.

    Args:
        name: of the tensor, for the message.
        datatype: in the protocol's words, for instance `"FP32"`.
        shape: as the request states it; checked here.
        data: the bytes; numbers are not copied, so the array is read-only and as aligned as they.

    Raises:
        RequestError: datatype or shape is none, or the bytes are too few or too many.
    """
    dtype, count = _dtype(name, datatype), _count(name, shape)
    if datatype == "BYTES":
        return _texts(name, count, bytes(data)).reshape(tuple(shape))
    if len(data) != count * dtype.itemsize:
        raise RequestError(
            f"tensor {name!r:.80} has {len(data)} bytes, expected {count * dtype.itemsize} "
            f"for {datatype} of shape {list(shape)}"
        )
    array = np.frombuffer(data, dtype=np.uint8 if datatype == "BOOL" else dtype)
    if datatype == "BOOL":
        if array.size and array.max() > 1:
            raise RequestError(
                f"tensor {name!r:.80} is BOOL and has a byte that is neither 0 nor 1"
            )
        array = array.view(np.bool_)
    return array.reshape(tuple(shape))


def to_bytes(array: Array) -> Buffer:
    """Return the bytes of an array: little-endian, row-major, without padding.

    Where they lie so already, it is a view of them.

    Raises:
        RequestError: an array of objects has one that is not `bytes`.
    """
    datatype = datatype_of(array)
    if datatype == "BYTES":
        texts = [_text(value) for value in array.reshape(-1)]
        return b"".join(chain.from_iterable((len(t).to_bytes(4, "little"), t) for t in texts))
    plain = array.astype(_DTYPES[datatype], order="C", copy=False)
    return plain.reshape(-1).view(np.uint8).data


def from_json(name: str, datatype: str, shape: Sequence[int], data: Any) -> Array:
    """Return the array that JSON lists hold, flat in row-major order or nested as the shape.

    Args:
        name: of the tensor, for the message.
        datatype: in the protocol's words.
        shape: as the request states it; checked here.
        data: what the JSON parser returned, or the JSON itself.

    Raises:
        RequestError: datatype or shape is none, the lists are not of that shape, a value is not
            of that datatype, or JSON cannot say it.
    """
    dtype, count = _dtype(name, datatype), _count(name, shape)
    if not is_sayable(datatype):
        raise RequestError(
            f"tensor {name!r:.80} is {datatype}, which JSON cannot say: use the binary data format"
        )
    if isinstance(data, msgspec.Raw):
        array = _quickly(dtype, shape, count, bytes(data))
        if array is not None:
            return array.reshape(tuple(shape))
        data = read_json(data, Any, f"the data of tensor {name!r:.80}")
    values = _flat(name, shape, count, data)
    strange = {kind.__name__ for kind in set(map(type, values)) - _ALLOWED.get(dtype.kind, {int})}
    if strange:
        words = {"NoneType": "null", "str": "a string", "dict": "an object"}
        found = ", ".join(sorted(words.get(kind, kind) for kind in strange))
        raise RequestError(f"tensor {name!r:.80} is {datatype}, and its data has {found}")
    return _cast(name, datatype, values).reshape(tuple(shape))


def to_json(array: Array) -> list[Any]:
    """Return the values flat in row-major order; the encoder writes null for what is not finite.

    Raises:
        RequestError: JSON cannot say them: FP16, BF16, or BYTES that are not UTF-8.
    """
    datatype = datatype_of(array)
    if not is_sayable(datatype):
        raise RequestError(f"JSON cannot say {datatype}: use the binary data format")
    values = array.reshape(-1).tolist()
    if datatype != "BYTES":
        return list(values)
    try:
        return [_text(value).decode() for value in values]
    except UnicodeDecodeError:
        raise RequestError(
            "JSON cannot say BYTES that are not UTF-8: use the binary data format"
        ) from None


def is_sayable(datatype: str) -> bool:
    """Return whether JSON can say values of a datatype; all others travel as raw bytes alone."""
    return datatype not in _NOT_IN_JSON


def datatype_of(array: Array) -> str:
    """Return the protocol's word for an array's dtype.

    Raises:
        RequestError: it has none here.
    """
    word = _WORDS.get(array.dtype) or _WORDS.get(array.dtype.newbyteorder("<"))
    if word is None:
        raise RequestError(f"arrays of {array.dtype} have no datatype here: {_known()}")
    return word


def read_json(body: Buffer | msgspec.Raw, kind: type[_Read], what: str = "the body") -> _Read:
    """Return what JSON holds, as the type that is expected of it.

    Args:
        body: the JSON.
        kind: a msgspec structure, or another type.
        what: it is, for the message.

    Raises:
        RequestError: it is not JSON, not of that type, nested too deep, or has more values than
            memory should be spent on.
    """
    said = bytes(body)
    # Each value but the first of a list or object has a comma before it.
    if len(said) > _MAX_VALUES and sum(map(said.count, b",[{")) > _MAX_VALUES:
        raise RequestError(
            f"{what} has more than {_MAX_VALUES} values: send fewer rows at once, or use the "
            "binary data format"
        )
    try:
        return msgspec.json.decode(said, type=kind)
    except RecursionError:
        raise RequestError(f"{what} is JSON nested too deep") from None
    except UnicodeDecodeError:
        raise RequestError(f"{what} is not UTF-8") from None
    except msgspec.ValidationError as error:
        raise RequestError(f"{what} is not what was expected: {error}") from None
    except msgspec.DecodeError as error:
        raise RequestError(f"{what} is not JSON: {error}") from None


def _dtype(name: str, datatype: str) -> np.dtype[Any]:
    if datatype not in _DTYPES:
        raise RequestError(f"tensor {name!r:.80} has the datatype {datatype!r:.20}: {_known()}")
    return _DTYPES[datatype]


def _known() -> str:
    return f"expected one of {', '.join(_DTYPES)}"


def _count(name: str, shape: Sequence[int]) -> int:
    """Return how many elements a shape has, having checked that it is one."""
    fits = len(shape) <= _MAX_AXES and all(n >= 0 for n in shape)
    # A zero makes no room for others: numpy refuses what would not fit without it.
    if not fits or math.prod(n or 1 for n in shape) > _MAX_ELEMENTS:
        said = str(list(shape))
        raise RequestError(
            f"tensor {name!r:.80} has the shape {said[:80]}: expected at most {_MAX_AXES} axes, "
            f"none negative, and at most {_MAX_ELEMENTS} elements"
        )
    return math.prod(shape)


# Texts.


def _texts(name: str, count: int, data: bytes) -> Array:
    """Return texts that each come after their length, four bytes of it."""
    if count > _MAX_VALUES:
        raise RequestError(
            f"tensor {name!r:.80} has {count} elements of BYTES: expected at most {_MAX_VALUES}"
        )
    # No more room than that many bytes can fill, whatever the shape says.
    array, start = np.empty(min(count, len(data) // 4), object), 0
    for i in range(count):
        end = start + 4 + int.from_bytes(data[start : start + 4], "little")
        if start + 4 > len(data) or end > len(data):
            raise RequestError(
                f"tensor {name!r:.80} has {len(data)} bytes, which end within element {i} "
                f"of {count}: expected four bytes of length and as many bytes for each"
            )
        array[i] = data[start + 4 : end]
        start = end
    if start != len(data):
        raise RequestError(
            f"tensor {name!r:.80} has {len(data)} bytes, {len(data) - start} more than its "
            f"{count} elements of BYTES"
        )
    return array


def _text(value: Any) -> bytes:
    if not isinstance(value, bytes):
        raise RequestError(f"an array of objects has a {type(value).__name__}, expected bytes")
    return value


# JSON.


def _quickly(dtype: np.dtype[Any], shape: Sequence[int], count: int, said: bytes) -> Array | None:
    """Return numbers without a Python object for each, or None: the careful way decides then.

    It takes nothing that the careful way refuses, and reads the same numbers.
    """
    wide = _WIDE.get(dtype.kind)
    if simdjson is None or wide is None or not 0 < count <= len(said):
        return None
    if not (said.find(b"[", 1) < 0 or said.translate(None, _NUMERALS) == _brackets(shape)):
        return None
    try:
        found: Any = _parser(len(said)).parse(said)
        values = np.frombuffer(found.as_buffer(of_type=wide[0]), wide[1])
    except (ValueError, TypeError, RuntimeError, AttributeError):
        return None
    with np.errstate(over="ignore"):
        array = values.astype(dtype, copy=False)
    fits = np.isfinite(array) if dtype.kind == "f" else array == values
    return array if len(array) == count and fits.all() else None


def _parser(size: int) -> Any:
    """Return a parser for so many bytes: the thread's own, a new one where it would keep much."""
    if size > _KEPT:
        return simdjson.Parser()
    if not hasattr(_own, "parser"):
        _own.parser = simdjson.Parser()
    return _own.parser


def _brackets(shape: Sequence[int]) -> bytes:
    """Return what numbers nested as a shape leave where nothing but the numbers is taken out.

    Lists of no element and of one leave the same: the elements are to be counted beside it.
    """
    said = b"," * (shape[-1] - 1) if shape else b""
    for size in reversed(shape[:-1]):
        said = b",".join([b"[" + said + b"]"] * size)
    return b"[" + said + b"]"


def _flat(name: str, shape: Sequence[int], count: int, data: Any) -> list[Any]:
    if not isinstance(data, list):
        raise RequestError(f"tensor {name!r:.80} has data that is not a list")
    values, nested = data, bool(data) and isinstance(data[0], list)
    if nested:
        fits = len(shape) > 0 and len(values) == shape[0]
        for size in shape[1:]:
            fits = fits and all(type(part) is list and len(part) == size for part in values)
            if not fits:
                break
            values = list(chain.from_iterable(values))
        if not fits:
            raise RequestError(
                f"tensor {name!r:.80} has data not nested as its shape {list(shape)}"
            )
    if len(values) != count:
        raise RequestError(
            f"tensor {name!r:.80} has {len(values)} values, expected {count} "
            f"for shape {list(shape)}"
        )
    return values


def _cast(name: str, datatype: str, values: list[Any]) -> Array:
    dtype = _DTYPES[datatype]
    if datatype == "BYTES":
        array = np.empty(len(values), object)
        array[:] = [text.encode() for text in values]
        return array
    try:
        if dtype.kind != "f":
            return np.array(values, dtype=dtype)
        with np.errstate(over="ignore"):
            array = np.array(values, dtype=np.float64).astype(dtype)
        fits = bool(np.isfinite(array).all())
    except OverflowError:
        fits = False
    if not fits:
        raise RequestError(f"tensor {name!r:.80} has a value that does not fit {datatype}")
    return array
