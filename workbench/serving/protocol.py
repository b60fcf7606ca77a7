"""The messages of the Open Inference Protocol (V2) and of V1, as bytes in and bytes out.

Nothing here knows of HTTP but for one header: where tensors follow the JSON as raw bytes, its
length travels beside the body. Every malformed message raises RequestError and nothing else.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, TypeVar

import msgspec

from workbench.errors import RequestError
from workbench.serving.tensors import Array, datatype_of, from_bytes, from_json, to_bytes, to_json
from workbench.types import JSON, Signature, TensorSpec

__all__ = [
    "EXTENSIONS",
    "HEADER",
    "InferRequest",
    "Message",
    "encode",
    "read_answer",
    "read_infer",
    "read_instances",
    "write_answer",
    "write_infer",
    "write_predictions",
]

HEADER = "Inference-Header-Content-Length"
EXTENSIONS = ["binary_tensor_data"]

_Struct = TypeVar("_Struct")


class _Tensor(msgspec.Struct):
    """A tensor as a message states it, going in or coming out."""

    name: str
    datatype: str
    shape: list[int]
    parameters: JSON | None = None
    data: Any = None


class _Wanted(msgspec.Struct):
    """An output that a request asks for."""

    name: str
    parameters: JSON | None = None


class _Request(msgspec.Struct):
    inputs: list[_Tensor]
    id: str | None = None
    parameters: JSON | None = None
    outputs: list[_Wanted] | None = None


class _Answer(msgspec.Struct):
    outputs: list[_Tensor]
    model_name: str
    model_version: str | None = None


class _Instances(msgspec.Struct):
    instances: list[Any]


@dataclass(frozen=True)
class Message:
    """A body, and the length of the JSON it begins with; None where it is JSON as a whole."""

    body: bytes
    header_length: int | None = None


@dataclass(frozen=True)
class InferRequest:
    """What a V2 request asks.

    Args:
        inputs: by name.
        outputs: names of those wanted, in the order asked for, and whether as raw bytes.
        id: to be said again in the answer, or None.
    """

    inputs: dict[str, Array]
    outputs: dict[str, bool]
    id: str | None = None


def encode(data: Any) -> bytes:
    """Return `data` as JSON; numbers that are not finite become null."""
    return msgspec.json.encode(data)


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
    if header_length is not None and header_length.strip() == "0":
        return _read_raw(body, signature)
    head, tail = _split(body, header_length)
    request = _decode(head, _Request)
    specs = {spec.name: spec for spec in signature.inputs}
    _check_names("input", [tensor.name for tensor in request.inputs], list(specs))
    missing = [name for name in specs if name not in {t.name for t in request.inputs}]
    if missing:
        raise RequestError(f"input {missing[0]!r} is missing: the model takes {', '.join(specs)}")
    for tensor in request.inputs:
        _check_spec(tensor, specs[tensor.name])
    inputs = _arrays(request.inputs, tail)
    return InferRequest(inputs, _wanted(request, signature), request.id)


def write_infer(inputs: dict[str, Array]) -> Message:
    """Return a request with its inputs as raw bytes, asking for every output likewise."""
    raw: list[bytes] = []
    tensors = [_binary(name, array, raw) for name, array in inputs.items()]
    head = encode({"inputs": tensors, "parameters": {"binary_data_output": True}})
    return Message(b"".join([head, *raw]), len(head))


def write_answer(
    request: InferRequest, model: str, version: str, outputs: dict[str, Array]
) -> Message:
    """Return the answer to `request`, each output in the form it asked for.

    Args:
        request: what was asked.
        model: name of the model.
        version: of the model, in digits.
        outputs: by name, at least those asked for.
    """
    raw: list[bytes] = []
    tensors = [
        _binary(name, outputs[name], raw) if binary else _plain(name, outputs[name])
        for name, binary in request.outputs.items()
    ]
    told_id = {} if request.id is None else {"id": request.id}
    head = encode({"model_name": model, "model_version": version, **told_id, "outputs": tensors})
    as_bytes = any(request.outputs.values())
    return Message(b"".join([head, *raw]), len(head) if as_bytes else None)


def read_answer(body: bytes, header_length: str | None) -> dict[str, Array]:
    """Return the outputs of an infer answer by name.

    Raises:
        RequestError: the answer is malformed.
    """
    head, tail = _split(body, header_length)
    tensors = _decode(head, _Answer).outputs
    return _arrays(tensors, tail)


def read_instances(body: bytes) -> list[Any]:
    """Return the rows of a V1 request, `{"instances": [...]}`.

    Raises:
        RequestError: the message is malformed.
    """
    return _decode(body, _Instances).instances


def write_predictions(output: Array) -> bytes:
    """Return the V1 answer, `{"predictions": [...]}`: of each row the numbers of its output."""
    return encode({"predictions": output.tolist()})


def _read_raw(body: bytes, signature: Signature) -> InferRequest:
    """Return a request whose body is nothing but the rows of the model's one input."""
    if len(signature.inputs) != 1:
        raise RequestError(f"{HEADER}: 0 needs a model of one input, not {len(signature.inputs)}")
    (spec,) = signature.inputs
    size = from_json(spec.name, spec.datatype, [0], []).itemsize * math.prod(spec.shape[1:])
    if size <= 0 or len(body) % size or not body:
        raise RequestError(f"a raw body has {len(body)} bytes, expected rows of {size} bytes each")
    shape = [len(body) // size, *spec.shape[1:]]
    array = from_bytes(spec.name, spec.datatype, shape, memoryview(body))
    return InferRequest({spec.name: array}, {spec.name: True for spec in signature.outputs})


def _split(body: bytes, header_length: str | None) -> tuple[bytes, memoryview]:
    """Return the JSON at the beginning of a body, and the raw bytes after it."""
    if header_length is None:
        return body, memoryview(b"")
    digits = header_length.strip()
    # Nine digits are more than a body can have; more would cost time to read.
    if not (digits.isascii() and digits.isdigit() and len(digits) <= 9) or int(digits) > len(body):
        raise RequestError(
            f"{HEADER} is {header_length[:40]!r}: expected an integer up to the length "
            f"of the body, which is {len(body)}"
        )
    return body[: int(digits)], memoryview(body)[int(digits) :]


def _decode(body: bytes, kind: type[_Struct]) -> _Struct:
    try:
        return msgspec.json.decode(body, type=kind)
    except RecursionError:
        raise RequestError("the body is JSON nested too deep") from None
    except UnicodeDecodeError:
        raise RequestError("the body is not UTF-8") from None
    except msgspec.ValidationError as error:
        raise RequestError(f"the body is not what was expected: {error}") from None
    except msgspec.DecodeError as error:
        raise RequestError(f"the body is not JSON: {error}") from None


def _check_names(what: str, names: list[str], known: list[str]) -> None:
    for i, name in enumerate(names):
        if name not in known:
            raise RequestError(f"unknown {what} {name!r:.80}: the model has {', '.join(known)}")
        if name in names[:i]:
            raise RequestError(f"{what} {name!r} is given twice")


def _check_spec(tensor: _Tensor, spec: TensorSpec) -> None:
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
                    f"tensor {tensor.name!r} says {size} bytes follow, and {len(part)} do"
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
        raise RequestError(f"tensor {tensor.name!r} is in shared memory, which is not offered")
    if ("binary_data_size" in parameters) == (tensor.data is not None):
        raise RequestError(
            f"tensor {tensor.name!r} needs either data or the parameter binary_data_size"
        )
    if tensor.data is not None:
        return None
    size = parameters["binary_data_size"]
    if type(size) is not int or size < 0:
        raise RequestError(
            f"tensor {tensor.name!r} has binary_data_size {size!r:.40}: expected 0 or more"
        )
    return size


def _wanted(request: _Request, signature: Signature) -> dict[str, bool]:
    """Return the outputs to answer with and whether as raw bytes; an output's own word wins."""
    known = [spec.name for spec in signature.outputs]
    default = _flag("the request", request.parameters, "binary_data_output", False)
    if request.outputs is None:
        return dict.fromkeys(known, default)
    _check_names("output", [wanted.name for wanted in request.outputs], known)
    for wanted in request.outputs:
        for refused in ("classification", "shared_memory_region"):
            if refused in (wanted.parameters or {}):
                raise RequestError(f"output {wanted.name!r} asks for {refused}: not offered")
    return {
        wanted.name: _flag(f"output {wanted.name!r}", wanted.parameters, "binary_data", default)
        for wanted in request.outputs
    }


def _flag(where: str, parameters: JSON | None, name: str, default: bool) -> bool:
    value = (parameters or {}).get(name, default)
    if not isinstance(value, bool):
        raise RequestError(f"{where} has {name} {value!r:.40}: expected true or false")
    return value


def _binary(name: str, array: Array, raw: list[bytes]) -> JSON:
    """Return what the JSON says of a tensor whose bytes are added to `raw`."""
    raw.append(to_bytes(array))
    return {**_head(name, array), "parameters": {"binary_data_size": len(raw[-1])}}


def _plain(name: str, array: Array) -> JSON:
    return {**_head(name, array), "data": to_json(array)}


def _head(name: str, array: Array) -> JSON:
    return {"name": name, "datatype": datatype_of(array), "shape": list(array.shape)}
