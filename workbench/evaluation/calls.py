"""Models that one tensor does not describe: several inputs or outputs, text, an exact dtype.

Such a model is called as it is, by the names of its `forward`'s parameters, without preprocessing;
its inputs and outputs are tensors or lists of texts, whose first axis is rows.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import ml_dtypes
import numpy as np
import torch
from torch import Tensor, nn

from workbench.attached import attached
from workbench.devices import device_of
from workbench.errors import RequestError, UnknownNameError
from workbench.modes import evaluating
from workbench.preprocessing import as_tensor
from workbench.types import DATATYPES, Signature, TensorSpec

__all__ = [
    "Array",
    "Rows",
    "array_for",
    "array_of",
    "call",
    "called_signature",
    "named_outputs",
    "named_rows",
    "passed",
    "rows_of",
]

Rows = Tensor | list[str]
Array = np.ndarray[Any, np.dtype[Any]]

_EXACT = (torch.float16, torch.bfloat16, torch.float64)  # dtypes that as_tensor would change
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def named_rows(model: nn.Module, example: Any) -> dict[str, Rows] | None:
    """Return rows by the names a service calls them, or None where they are one plain tensor.

    A single input is called `input`, whatever `forward` calls it.

    Args:
        model: whose `forward` takes them; one that has a preprocessing takes plain rows.
        example: a dictionary by the parameters of `forward`, a tuple in their order, or one input:
            a list of texts, or a tensor of the half or double precision that the model has.

    Raises:
        RequestError: the names are not `forward`'s, or the inputs differ in their rows.
    """
    if attached(model).preprocessing is not None:
        return None
    exact = isinstance(example, Tensor) and example.dtype in _EXACT
    if _is_text(example) or (exact and example.dtype == _dtype(model)):
        return {"input": _rows(model, example)}
    if isinstance(example, tuple):
        example = _by_position(model, example)
    if not isinstance(example, Mapping):
        return None
    given = {str(name): value for name, value in example.items()}
    _check_names(model, given)
    inputs = {name: _rows(model, value) for name, value in given.items()}
    _check_lengths(inputs)
    return {"input": next(iter(inputs.values()))} if len(inputs) == 1 else inputs


def call(model: nn.Module, inputs: Mapping[str, Rows]) -> dict[str, Rows]:
    """Return the outputs by name, tensors on the CPU: `output`, or the names that `forward` gives.

    Args:
        model: put into evaluation mode for the while.
        inputs: by name, as `named_rows` returns them; a single `input` is passed by position.

    Raises:
        RequestError: what `forward` returned is neither tensors nor texts with a row for each.
    """
    device, rows = device_of(model), len(next(iter(inputs.values())))
    ready = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in inputs.items()}
    with evaluating(model), torch.inference_mode():
        return named_outputs(model, passed(model, ready), rows)


def passed(model: nn.Module, inputs: Mapping[str, Rows], method: str = "__call__") -> Any:
    """Return what the model answers inputs by name with, just as it gives it.

    Args:
        model: in evaluation mode.
        inputs: by name, on the model's device; a single `input` is passed by position.
        method: that is asked.
    """
    asked: Callable[..., Any] = getattr(model, method)
    return asked(*inputs.values()) if list(inputs) == ["input"] else asked(**inputs)


def named_outputs(model: nn.Module, answer: Any, rows: int) -> dict[str, Rows]:
    """Return what a model answered, by name and on the CPU, sharing no memory with the model.

    Args:
        model: that answered.
        answer: a tensor or a list of texts, called `output`; or a tuple, a named tuple or a
            dictionary of such. A single one is called `output`, too.
        rows: that it was asked.

    Raises:
        RequestError: it is something else, or has not a row for each.
    """
    outputs = _by_name(answer)
    for name, value in outputs.items():
        known = (isinstance(value, Tensor) and value.ndim > 0) or _is_text(value)
        if not known or len(value) != rows:
            raise RequestError(
                f"forward of {type(model).__name__} returned {name!r} as {_said(value)}, expected "
                f"a tensor or a list of texts with {rows} rows: an answer has a row for each asked"
            )
    if not outputs:
        raise RequestError(f"forward of {type(model).__name__} returned nothing, expected tensors")
    return {k: v.cpu().clone() if isinstance(v, Tensor) else list(v) for k, v in outputs.items()}


def called_signature(model: nn.Module, inputs: Mapping[str, Rows]) -> Signature:
    """Return what goes in and comes out of a model that is called as it is; it is asked once.

    Raises:
        RequestError: an input or output has a dtype that no protocol knows.
    """
    outputs = call(model, inputs)
    return Signature(
        tuple(_spec(name, rows) for name, rows in inputs.items()),
        tuple(_spec(name, rows) for name, rows in outputs.items()),
    )


def rows_of(array: Array) -> Rows:
    """Return an array as a tensor of the same dtype, or one of bytes in UTF-8 as texts.

    Shares the array's memory where that may be written to, else copies it.

    Raises:
        RequestError: bytes are not UTF-8.
    """
    if array.dtype == object:
        return [_text(value) for value in array.reshape(-1).tolist()]
    if not (array.flags.writeable and array.flags.carray):
        array = array.copy()
    if array.dtype == ml_dtypes.bfloat16:
        return torch.from_numpy(array.view(np.uint16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def array_of(rows: Rows) -> Array:
    """Return a tensor on the CPU as an array that shares its memory, or texts as one of bytes."""
    if not isinstance(rows, Tensor):
        array = np.empty(len(rows), dtype=object)
        array[:] = [text.encode() for text in rows]
        return array
    if rows.dtype == torch.bfloat16:
        array = rows.contiguous().view(torch.uint16).numpy()
        return array.view(ml_dtypes.bfloat16)
    return rows.numpy()


def array_for(spec: TensorSpec, values: Any) -> Array:
    """Return values as people have them as the array of an input: (rows, ...) of its datatype.

    Args:
        spec: of the input.
        values: an array, tensor, nested list, or list of texts; one row may come without its axis.

    Raises:
        RequestError: they have another shape, are no numbers or texts, or do not fit the datatype.
    """
    array = _texts(spec, values) if spec.datatype == "BYTES" else _numbers(spec, values)
    if array.ndim == len(spec.shape) - 1:
        array = array[None]
    expected = spec.shape[1:]
    if array.shape[1:] != expected or array.ndim == 0:
        raise RequestError(
            f"input {spec.name!r} has the shape {array.shape}, expected rows of {expected}: pass "
            f"(rows, {', '.join(map(str, expected)) or '...'})"
        )
    return array


def _texts(spec: TensorSpec, values: Any) -> Array:
    found = [values] if isinstance(values, str | bytes) else list(values)
    for text in found:
        if not isinstance(text, str | bytes):
            raise RequestError(
                f"input {spec.name!r} takes texts, found {type(text).__name__}: pass a list of "
                "strings"
            )
    array = np.empty(len(found), dtype=object)
    array[:] = [text.encode() if isinstance(text, str) else text for text in found]
    return array


def _numbers(spec: TensorSpec, values: Any) -> Array:
    word = next(name for name, datatype in DATATYPES.items() if datatype == spec.datatype)
    dtype = np.dtype(ml_dtypes.bfloat16 if word == "bfloat16" else word)
    try:
        if isinstance(values, Tensor):
            array = array_of(values.detach().cpu().contiguous())
        else:
            array = np.asarray(values)
        if array.dtype.kind not in "biufV":
            raise TypeError(f"found {array.dtype}")
        with np.errstate(all="ignore"):
            cast = array.astype(dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise RequestError(f"input {spec.name!r} is not an array of numbers: {error}") from None
    narrows = dtype.kind in "biu" and array.dtype != dtype
    if narrows and not bool((cast.astype(array.dtype) == array).all()):
        raise RequestError(
            f"input {spec.name!r} does not fit {spec.datatype} without loss, found values from "
            f"{array.min():g} to {array.max():g}: pass {word}"
        )
    return cast


def _spec(name: str, rows: Rows) -> TensorSpec:
    if not isinstance(rows, Tensor):
        return TensorSpec(name, "BYTES", (-1,))
    word = str(rows.dtype)[6:]
    if word not in DATATYPES:
        raise RequestError(
            f"{name!r} is {word}, which no protocol of a service knows: expected one of "
            f"{', '.join(DATATYPES)}"
        )
    return TensorSpec(name, DATATYPES[word], (-1, *rows.shape[1:]))


def _by_position(model: nn.Module, example: tuple[Any, ...]) -> dict[str, Any]:
    found = inspect.signature(model.forward).parameters.values()
    known = [p.name for p in found if p.kind in _POSITIONAL]
    if len(example) > len(known):
        raise RequestError(
            f"example is a tuple of {len(example)}, an input each, and forward of "
            f"{type(model).__name__} takes {', '.join(known)}: pass rows as a list or an array"
        )
    return dict(zip(known, example, strict=False))


def _check_names(model: nn.Module, inputs: Mapping[str, Any]) -> None:
    """Raise RequestError where inputs are not what `forward` takes."""
    parameters = inspect.signature(model.forward).parameters.values()
    known = [p.name for p in parameters if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    takes_any = any(p.kind == p.VAR_KEYWORD for p in parameters)
    if list(inputs) == ["input"]:
        return  # by position
    for name in inputs:
        if name not in known and not takes_any:
            raise UnknownNameError(f"input of {type(model).__name__}", name, known)
    required = [p.name for p in parameters if p.default is p.empty and p.name in known]
    missing = [name for name in required if name not in inputs]
    if missing or not inputs:
        raise RequestError(
            f"example has the inputs {', '.join(inputs) or 'none'}, and forward of "
            f"{type(model).__name__} takes {', '.join(known)}: give all of them by name"
        )


def _check_lengths(inputs: Mapping[str, Rows]) -> None:
    for name, rows in inputs.items():
        if isinstance(rows, Tensor) and rows.ndim == 0:
            raise RequestError(f"the input {name!r} of example is one number, expected rows")
    lengths = {name: len(rows) for name, rows in inputs.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        raise RequestError(
            f"the inputs of example have {lengths} rows, expected one number above 0"
        )


def _rows(model: nn.Module, value: Any) -> Rows:
    """Return one input: tensors as they are, arrays of a precision only where the model has it."""
    if isinstance(value, Tensor):
        return value.detach().contiguous()
    if _is_text(value):
        return [str(text) for text in value]
    if isinstance(value, np.ndarray) and value.dtype.kind != "O":
        tensor = rows_of(np.ascontiguousarray(value)) if value.dtype.kind in "biufV" else None
        if isinstance(tensor, Tensor) and tensor.dtype == _dtype(model):
            return tensor
    return as_tensor(value)


def _by_name(answer: Any) -> dict[str, Any]:
    if isinstance(answer, Tensor):
        return {"output": answer}
    if isinstance(answer, Mapping):
        outputs = {str(name): value for name, value in answer.items()}
    elif isinstance(answer, (tuple, list)) and not _is_text(answer):
        names = getattr(answer, "_fields", [f"output_{i}" for i in range(len(answer))])
        outputs = dict(zip(names, answer, strict=True))
    else:
        outputs = {"output": answer}
    return {"output": next(iter(outputs.values()))} if len(outputs) == 1 else outputs


def _is_text(value: Any) -> bool:
    if isinstance(value, np.ndarray):
        return value.ndim == 1 and value.dtype.kind in "UO" and _is_text(value.tolist())
    return (
        isinstance(value, (list, tuple))
        and bool(value)
        and all(isinstance(text, str) for text in value)
    )


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    try:
        return bytes(value).decode()
    except UnicodeDecodeError:
        raise RequestError("a text is not UTF-8: send it encoded so") from None


def _dtype(model: nn.Module) -> torch.dtype | None:
    return next((p.dtype for p in model.parameters() if p.is_floating_point()), None)


def _said(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of the shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"
