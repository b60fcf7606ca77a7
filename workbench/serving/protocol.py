"""The messages of the Open Inference Protocol (V2), as bytes in and bytes out.

Nothing here knows of HTTP but for one header: where tensors follow the JSON as raw bytes, its
length travels beside the body. Every malformed message raises RequestError and nothing else.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from workbench.errors import RequestError
from workbench.serving.answers import encode
from workbench.serving.tensors import (
    Array,
    Buffer,
    datatype_of,
    from_bytes,
    from_json,
    is_sayable,
    read_json,
    to_bytes,
    to_json,
)
from workbench.types import JSON, Signature, TensorSpec

__all__ = [
    "HEADER",
    "InferRequest",
    "Message",
    "Wanted",
    "check_names",
    "read_answer",
    "read_infer",
    "write_answer",
    "write_infer",
]

HEADER = "Inference-Header-Content-Length"

_ABSENT = (msgspec.Raw(), msgspec.Raw(b"null"))  # what data is that is not there
_NOT_OFFERED = ("priority", "sequence_id", "sequence_start", "sequence_end", "headers")

_Parameters = dict[str, str | int | float | bool | None]


class _Tensor(msgspec.Struct):
    """A tensor as a message states it; its data is left as the JSON it is."""

    name: str
    datatype: str
    shape: list[int]
    parameters: _Parameters | None = None
    data: msgspec.Raw = msgspec.Raw()


class _Output(msgspec.Struct):
    """An output that a request asks for."""

    name: str
    parameters: _Parameters | None = None


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: _Parameters | None = None
    outputs: list[_Output] | None = None


class _Answer(msgspec.Struct):
    outputs: list[_Tensor]
    model_name: str
    model_version: str | None = None


@dataclass(frozen=True)
class Message:
    """A body, and the length of the JSON it begins with; None where it is JSON as a whole."""

    body: bytes
    header_length: int | None = None


@dataclass(frozen=True)
class Wanted:
    """How a request wants an output.

    Args:
        binary: as raw bytes instead of JSON.
        classes: above 0, as the so many best classes of each row, `"value:index:label"` as BYTES.
    """

    binary: bool = False
    classes: int = 0


@dataclass(frozen=True)
class InferRequest:
    """What a V2 request asks.

    Args:
        inputs: by name. One that the model takes as a picture, UINT8 shaped (rows, height, width[,
            channels]), may be BYTES instead, shaped (rows,) or (rows, 1): a PNG or JPEG each.
        outputs: those wanted by name, in the order asked for.
        id: to be said again in the answer, or None.
        parameters: of the request, those that the protocol gives no meaning.
        timeout: seconds after which nobody waits for the answer, or None.
    """

    inputs: dict[str, Array]
    outputs: dict[str, Wanted]
    id: str | None = None
    parameters: JSON = field(default_factory=dict)
    timeout: float | None = None


def read_infer(body: bytes, header_length: str | None, signature: Signature) -> InferRequest:
    """Return what an infer request asks, checked against what the model takes.

    Args:
        body: JSON, then the raw bytes of tensors in the order of the inputs.
        header_length: the header beside the body as it came, or None. "0" says that the body is
            the raw bytes of the one input and nothing else.
        signature: of the model.

    Raises:
        RequestError: the message is malformed, or is not what the model takes.
    """
    length = _length(header_length, body)
    if length == 0:
        return _read_raw(body, signature)
    request = read_json(body if length is None else body[:length], _Request)
    specs = {spec.name: spec for spec in signature.inputs}
    check_names("input", [tensor.name for tensor in request.inputs], specs)
    if len(request.inputs) < len(specs):
        given = {tensor.name for tensor in request.inputs}
        missing = next(name for name in specs if name not in given)
        raise RequestError(f"input {missing!r} is missing: the model takes {', '.join(specs)}")
    for tensor in request.inputs:
        _check_spec(tensor, specs[tensor.name])
    inputs = _arrays(request.inputs, memoryview(body)[len(body) if length is None else length :])
    parameters, timeout = _meant(request.parameters or {})
    return InferRequest(inputs, _wanted(request, signature), request.id, parameters, timeout)


def write_infer(inputs: dict[str, Array]) -> Message:
    """Return a request with its inputs as raw bytes, asking for every output likewise."""
    raw: list[Buffer] = []
    tensors = [_binary(name, array, raw) for name, array in inputs.items()]
    head = encode({"inputs": tensors, "parameters": {"binary_data_output": True}})
    return Message(b"".join([head, *raw]), len(head))


def write_answer(
    request: InferRequest,
    model: str,
    version: str,
    outputs: dict[str, Array],
    *,
    classes: tuple[str, ...] = (),
    parameters: JSON | None = None,
) -> Message:
    """Return the answer to `request`, each output in the form it asked for.

    Args:
        request: what was asked.
        model: name of the model.
        version: of the model, in digits.
        outputs: by name, at least those asked for; each first axis is rows.
        classes: their names, where an output ranks them.
        parameters: to say beside the outputs.

    Raises:
        RequestError: an output is BYTES that are not UTF-8, and was asked for as JSON.
    """
    raw: list[Buffer] = []
    tensors = []
    for name, wanted in request.outputs.items():
        array = outputs[name]
        if wanted.classes:
            array = _best(array, wanted.classes, classes)
        tensors.append(_binary(name, array, raw) if wanted.binary else _plain(name, array))
    head: JSON = {"model_name": model, "model_version": version}
    if request.id is not None:
        head["id"] = request.id
    if parameters:
        head["parameters"] = parameters
    head["outputs"] = tensors
    said = encode(head)
    if not any(wanted.binary for wanted in request.outputs.values()):
        return Message(said)
    return Message(b"".join([said, *raw]), len(said))


def read_answer(body: bytes, header_length: str | None) -> dict[str, Array]:
    """Return the outputs of an infer answer by name.

    Raises:
        RequestError: the answer is malformed.
    """
    length = _length(header_length, body)
    end = len(body) if length is None else length
    return _arrays(read_json(body[:end], _Answer).outputs, memoryview(body)[end:])


def check_names(what: str, names: list[str], known: Mapping[str, Any]) -> None:
    """Check that every name is known, and none given twice.

    Args:
        what: they name, in the singular.
        names: as a message gives them.
        known: those that the model has.

    Raises:
        RequestError: one is not.
    """
    for i, name in enumerate(names):
        if name not in known:
            raise RequestError(f"unknown {what} {name!r:.80}: the model has {', '.join(known)}")
        if name in names[:i]:
            raise RequestError(f"{what} {name!r} is given twice")


def _length(said: str | None, body: bytes) -> int | None:
    """Return the length of the JSON that a body begins with, or None where it is JSON."""
    if said is None:
        return None
    digits = said.strip()
    # Nine digits are more than a body can have; more would cost time to read.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9) or int(digits) > len(body):
        raise RequestError(
            f"{HEADER} is {said[:40]!r}: expected an integer up to the length of the body, "
            f"which is {len(body)}"
        )
    return int(digits)


# Inputs.


def _read_raw(body: bytes, signature: Signature) -> InferRequest:
    """Return a request whose body is nothing but the rows of the model's one input.

    Of texts it is one, without its length before it.
    """
    if len(signature.inputs) != 1:
        raise RequestError(f"{HEADER}: 0 needs a model of one input, not {len(signature.inputs)}")
    (spec,) = signature.inputs
    if -1 in spec.shape[1:]:
        raise RequestError(
            f"{HEADER}: 0 needs an input whose rows have a fixed shape, not {list(spec.shape)}"
        )
    row = math.prod(spec.shape[1:])
    if spec.datatype == "BYTES":
        if row != 1:
            raise RequestError(f"{HEADER}: 0 needs an input of one text a row, not {row}")
        shape, body = [1, *spec.shape[1:]], len(body).to_bytes(4, "little") + body
    else:
        size = row * from_bytes(spec.name, spec.datatype, [0], memoryview(b"")).itemsize
        if size == 0 or len(body) % size or not body:
            raise RequestError(
                f"a raw body has {len(body)} bytes, expected rows of {size} bytes each"
            )
        shape = [len(body) // size, *spec.shape[1:]]
    array = from_bytes(spec.name, spec.datatype, shape, memoryview(body))
    return InferRequest({spec.name: array}, {s.name: Wanted(True) for s in signature.outputs})


def _check_spec(tensor: _Tensor, spec: TensorSpec) -> None:
    if _is_pictures(tensor, spec):
        return
    if tensor.datatype != spec.datatype:
        raise RequestError(
            f"input {tensor.name!r} has the datatype {tensor.datatype!r:.20}, "
            f"expected {spec.datatype!r}"
        )
    shape, expected = tensor.shape, spec.shape
    same = all(want in (-1, n) for n, want in zip(shape, expected, strict=False))
    if len(shape) != len(expected) or not same:
        raise RequestError(
            f"input {tensor.name!r} has the shape {str(shape)[:80]}, "
            f"expected {list(expected)} where -1 is any number of rows"
        )


def _is_pictures(tensor: _Tensor, spec: TensorSpec) -> bool:
    """Return whether a tensor is the files of pictures, which the model takes decoded."""
    if tensor.datatype != "BYTES" or spec.datatype != "UINT8" or len(spec.shape) not in (3, 4):
        return False
    if tensor.shape[1:] not in ([], [1]) or not tensor.shape:
        raise RequestError(
            f"input {tensor.name!r} has the shape {str(tensor.shape)[:80]}, expected [rows] or "
            "[rows, 1] where BYTES are the files of pictures"
        )
    return True


def _arrays(tensors: list[_Tensor], tail: memoryview) -> dict[str, Array]:
    """Return the tensors' arrays, cutting those that came as raw bytes off `tail` in order."""
    arrays, start = {}, 0
    for tensor in tensors:
        size = _binary_size(tensor)
        if size is None:
            array = from_json(tensor.name, tensor.datatype, tensor.shape, tensor.data)
        else:
            part = tail[start : start + size]
            if len(part) != size:
                raise RequestError(
                    f"tensor {tensor.name!r:.80} says {size} bytes follow, and {len(part)} do"
                )
            array = from_bytes(tensor.name, tensor.datatype, tensor.shape, part)
            start += size
        arrays[tensor.name] = array
    if start != len(tail):
        raise RequestError(f"the body has {len(tail) - start} bytes more than its tensors")
    return arrays


def _binary_size(tensor: _Tensor) -> int | None:
    """Return how many raw bytes a tensor says it has, or None where its data is JSON."""
    parameters = tensor.parameters or {}
    if "shared_memory_region" in parameters:
        raise RequestError(f"tensor {tensor.name!r:.80} is in shared memory, which is not offered")
    has_data = tensor.data not in _ABSENT
    if ("binary_data_size" in parameters) == has_data:
        raise RequestError(
            f"tensor {tensor.name!r:.80} needs either data or the parameter binary_data_size"
        )
    return (
        None if has_data else _whole(f"tensor {tensor.name!r:.80}", parameters, "binary_data_size")
    )


# What a request asks for.


def _meant(parameters: _Parameters) -> tuple[JSON, float | None]:
    """Return a request's parameters without those that the protocol knows, and its timeout."""
    timeout = _whole("the request", parameters, "timeout") / 1e6  # it comes in microseconds
    for name in parameters:
        if name.startswith("triton_"):
            raise RequestError(
                f"the request has the parameter {name!r:.80}: names that begin with triton_ are "
                "reserved for the server"
            )
        if name in _NOT_OFFERED and parameters[name]:
            raise RequestError(f"the request has {name}, which is not offered: leave it out")
    known = (*_NOT_OFFERED, "timeout", "binary_data_output")
    return {k: v for k, v in parameters.items() if k not in known}, timeout or None


def _wanted(request: _Request, signature: Signature) -> dict[str, Wanted]:
    """Return the outputs to answer with and how; an output's own word wins."""
    specs = {spec.name: spec for spec in signature.outputs}
    default = _flag("the request", request.parameters or {}, "binary_data_output", False)
    if request.outputs is None:
        asked = {name: Wanted(default) for name in specs}
    else:
        check_names("output", [output.name for output in request.outputs], specs)
        asked = {
            output.name: _how(output, specs[output.name], default) for output in request.outputs
        }
    for name, wanted in asked.items():
        if not (wanted.binary or wanted.classes or is_sayable(specs[name].datatype)):
            raise RequestError(
                f"output {name!r} is {specs[name].datatype}, which JSON cannot say: use the "
                "binary data format, binary_data true"
            )
    return asked


def _how(output: _Output, spec: TensorSpec, default: bool) -> Wanted:
    where, parameters = f"output {output.name!r}", output.parameters or {}
    if "shared_memory_region" in parameters:
        raise RequestError(f"{where} is to go to shared memory, which is not offered")
    classes = _whole(where, parameters, "classification")
    if classes and spec.datatype in ("BYTES", "BOOL"):
        raise RequestError(f"{where} is {spec.datatype}, which ranks no classes")
    return Wanted(_flag(where, parameters, "binary_data", default), classes)


def _flag(where: str, parameters: _Parameters, name: str, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"{where} has {name} {value!r:.40}: expected true or false")
    return value


def _whole(where: str, parameters: _Parameters, name: str) -> int:
    value = parameters.get(name, 0)
    if type(value) is not int or not 0 <= value < 2**63:
        raise RequestError(f"{where} has {name} {value!r:.40}: expected 0 or more, a whole number")
    return value


# Outputs.


def _best(array: Array, count: int, classes: tuple[str, ...]) -> Array:
    """Return each row's best classes, best first; equal ones in their order."""
    rows = array.reshape(len(array), math.prod(array.shape[1:]))
    best = np.argsort(-rows.astype(np.float64), axis=1, kind="stable")[:, :count]
    named = len(classes) == rows.shape[1]
    said = np.empty(best.shape, object)
    for row, column in np.ndindex(best.shape):
        i = int(best[row, column])
        label = f":{classes[i]}" if named else ""
        said[row, column] = f"{rows[row, i]!s}:{i}{label}".encode()
    return said


def _binary(name: str, array: Array, raw: list[Buffer]) -> JSON:
    """Return what the JSON says of a tensor whose bytes are added to `raw`."""
    raw.append(to_bytes(array))
    return {**_head(name, array), "parameters": {"binary_data_size": len(raw[-1])}}


def _plain(name: str, array: Array) -> JSON:
    return {**_head(name, array), "data": to_json(array)}


def _head(name: str, array: Array) -> JSON:
    return {"name": name, "datatype": datatype_of(array), "shape": list(array.shape)}
