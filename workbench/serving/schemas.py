"""JSON Schemas of what is sent to a model and what it answers, made of the model itself.

A schema cannot say that a shape and the data beside it belong together; all else is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.serving.served import Served
from workbench.types import JSON, TensorSpec

__all__ = [
    "COUNT",
    "FLAG",
    "NUMBER",
    "TEXT",
    "array_of",
    "config",
    "generate_request",
    "generated",
    "infer_request",
    "inferred",
    "metadata",
    "object_of",
    "prediction_request",
    "predictions",
    "rows_answer",
    "rows_request",
    "statistics",
]

TEXT: JSON = {"type": "string"}
NUMBER: JSON = {"type": "number"}
COUNT: JSON = {"type": "integer", "minimum": 0}
FLAG: JSON = {"type": "boolean"}

_BITS = {"UINT8": 8, "UINT16": 16, "UINT32": 32, "UINT64": 64}
_SIGNED = {"INT8": 7, "INT16": 15, "INT32": 31, "INT64": 63}
_LARGEST = {"FP32": 3.4028234663852886e38, "FP64": 1.7976931348623157e308}
_PICTURE = {
    "type": "object",
    "required": ["b64"],
    "properties": {"b64": {"type": "string", "format": "byte", "description": "a PNG or JPEG"}},
    "additionalProperties": False,
}
_PARAMETERS = {
    "type": "object",
    "additionalProperties": {"type": ["string", "number", "boolean"]},
}


def object_of(properties: Mapping[str, JSON], required: Sequence[str] | None = None) -> JSON:
    """Return the schema of an object; by default all its properties are required."""
    names = list(properties) if required is None else list(required)
    needed = {"required": names} if names else {}
    return {"type": "object", **needed, "properties": dict(properties)}


def array_of(items: JSON, *sizes: int) -> JSON:
    """Return the schema of nested arrays; -1 is any number of items, from 1 on.

    >>> array_of({"type": "number"}, -1)
    {'type': 'array', 'items': {'type': 'number'}, 'minItems': 1}
    """
    for size in reversed(sizes or (-1,)):
        limits = {"minItems": 1} if size < 0 else {"minItems": size, "maxItems": size}
        items = {"type": "array", "items": items, **limits}
    return items


def infer_request(served: Served) -> JSON:
    """Return the schema of a V2 request whose tensors are JSON."""
    inputs, n = [_tensor(spec) for spec in served.signature.inputs], len(served.signature.inputs)
    outputs = [spec.name for spec in served.signature.outputs]
    wanted = object_of({"name": {"enum": outputs}, "parameters": _PARAMETERS}, ["name"])
    names = [tensor["properties"]["name"] for tensor in inputs]
    listed: JSON = {"type": "array", "items": _any(inputs), "minItems": n, "maxItems": n}
    if n > 1:
        listed["allOf"] = [{"contains": {"properties": {"name": name}}} for name in names]
    properties = {
        "id": TEXT,
        "parameters": _PARAMETERS,
        "inputs": listed,
        "outputs": {"type": "array", "items": wanted, "description": "each at most once"},
    }
    return object_of(properties, ["inputs"])


def inferred(served: Served) -> JSON:
    """Return the schema of a V2 answer whose tensors are JSON."""
    datatypes = sorted({spec.datatype for spec in served.signature.outputs} | {"BYTES"})
    output = object_of(
        {
            "name": {"enum": [spec.name for spec in served.signature.outputs]},
            "datatype": {"enum": datatypes, "description": "BYTES where classes were asked for"},
            "shape": {"type": "array", "items": COUNT},
            "parameters": _PARAMETERS,
            "data": {"type": "array", "description": "flat; null for what is not finite"},
        },
        ["name", "datatype", "shape"],
    )
    properties = {
        "model_name": {"const": served.name},
        "model_version": {**TEXT, "pattern": "^[0-9]+$"},
        "id": TEXT,
        "parameters": _PARAMETERS,
        "outputs": {"type": "array", "items": output},
    }
    return object_of(properties, ["model_name", "model_version", "outputs"])


def rows_request(served: Served) -> JSON:
    """Return the schema of what people send as JSON: one row, or a list of rows."""
    return {"anyOf": [_row(served), array_of(_row(served))]}


def _row(served: Served) -> JSON:
    """Return the schema of one row as JSON: its values, or an object by features or inputs."""
    specs = served.signature.inputs
    if len(specs) > 1:
        return _closed({spec.name: _value(spec) for spec in specs})
    forms = [_value(specs[0])]
    if served.features:
        forms.append(_closed(_features(served)))
    if served.takes_images:
        forms.append(_PICTURE)
    return _any(forms)


def prediction_request(served: Served) -> JSON:
    """Return the schema of a V1 request, by rows or by columns."""
    specs = served.signature.inputs
    columns = _closed({spec.name: array_of(_value(spec)) for spec in specs})
    if len(specs) == 1:
        columns = _any([array_of(_value(specs[0])), columns])
    named, nothing = {"signature_name": {"const": "serving_default"}}, {"type": "null"}
    rows = {**named, "instances": array_of(_row(served)), "inputs": nothing}
    by_rows = object_of(rows, ["instances"])
    by_columns = object_of({**named, "instances": nothing, "inputs": columns}, ["inputs"])
    return {"oneOf": [by_rows, by_columns]}


def predictions(served: Served) -> JSON:
    """Return the schema of a V1 answer."""
    return {"oneOf": [object_of({"predictions": {"type": "array"}}), object_of({"outputs": {}})]}


def rows_answer(served: Served) -> JSON:
    """Return the schema of what is said of rows as people have them."""
    said: JSON = object_of({}, [])
    if served.classes and len(served.signature.outputs[0].shape) == 2:
        share = {"type": ["number", "null"], "minimum": 0, "maximum": 1}
        shares = {"type": "object", "additionalProperties": share}
        label = {"enum": list(served.classes)}
        said = object_of({"label": label, "probabilities": shares})
    size = array_of(COUNT, 2)
    properties = {
        "model": {**TEXT, "description": "which version answered"},
        "id": {**TEXT, "description": "by which feedback can come later"},
        "rows": {"type": "array", "items": said},
        "resized_from": {
            "anyOf": [size, array_of({"anyOf": [size, {"type": "null"}]})],
            "description": "height and width that a picture had; of several rows for each",
        },
    }
    return object_of(properties, ["model", "id", "rows"])


def generate_request(served: Served) -> JSON:
    """Return the schema of one row as flat JSON: its inputs, or features, by their names."""
    named = [{spec.name: _value(spec) for spec in served.signature.inputs}]
    if served.features:
        named.append(_features(served))
    beside: dict[str, JSON] = {"id": {}, "parameters": {}}  # which are not looked at
    return _any([_closed({**beside, **names}, list(names)) for names in named])


def generated(served: Served) -> JSON:
    """Return the schema of what is answered to one row: its outputs by their names."""
    outputs: dict[str, JSON] = {spec.name: {} for spec in served.signature.outputs}
    named = {"model_name": {"const": served.name}, "model_version": TEXT}
    return object_of({**named, **outputs})


def metadata() -> JSON:
    """Return the schema of what V2 says of a model."""
    shape = {"type": "array", "items": {"type": "integer", "minimum": -1}}
    tensor = object_of({"name": TEXT, "datatype": TEXT, "shape": shape})
    properties = {
        "name": TEXT,
        "versions": array_of(TEXT),
        "platform": TEXT,
        "inputs": array_of(tensor),
        "outputs": array_of(tensor),
        "classes": array_of(TEXT),
        "parameters": {"type": "object"},
    }
    return object_of(properties, ["name", "versions", "platform", "inputs", "outputs"])


def config() -> JSON:
    """Return the schema of a model's configuration."""
    dims = {"type": "array", "items": {"type": "integer", "minimum": -1}}
    tensor = object_of({"name": TEXT, "data_type": TEXT, "dims": dims})
    properties = {
        "name": TEXT,
        "platform": TEXT,
        "max_batch_size": COUNT,
        "input": array_of(tensor),
        "output": array_of(tensor),
    }
    return object_of(properties)


def statistics() -> JSON:
    """Return the schema of a model version's statistics."""
    spent = object_of({"count": COUNT, "ns": COUNT})
    stages = ("compute_input", "compute_infer", "compute_output")
    kinds = ("success", "fail", "queue", *stages, "cache_hit", "cache_miss")
    batch = object_of({"batch_size": COUNT, **dict.fromkeys(stages, spent)})
    properties = {
        "name": TEXT,
        "version": TEXT,
        "last_inference": {**COUNT, "description": "milliseconds since 1970"},
        "inference_count": COUNT,
        "execution_count": COUNT,
        "inference_stats": object_of(dict.fromkeys(kinds, spent)),
        "batch_stats": {"type": "array", "items": batch},
    }
    return object_of(properties)


def _tensor(spec: TensorSpec) -> JSON:
    """Return the schema of an input as a V2 request states it in JSON."""
    sizes = [{"type": "integer", "minimum": 1}, *({"const": n} for n in spec.shape[1:])]
    if any(n < 0 for n in spec.shape[1:]):
        sizes = [{"type": "integer", "minimum": 1} if n < 0 else {"const": n} for n in spec.shape]
    shape = {"type": "array", "prefixItems": sizes, "minItems": len(sizes), "maxItems": len(sizes)}
    leaf = _leaf(spec.datatype)
    flat, nested = array_of(leaf), array_of(leaf, *spec.shape)
    return object_of(
        {
            "name": {"const": spec.name},
            "datatype": {"const": spec.datatype},
            "shape": shape,
            "parameters": _PARAMETERS,
            "data": flat if len(sizes) == 1 else _any([flat, nested]),
        },
        ["name", "datatype", "shape", "data"],
    )


def _features(served: Served) -> JSON:
    return dict.fromkeys(served.features, _lenient(served.signature.inputs[0].datatype))


def _value(spec: TensorSpec) -> JSON:
    """Return the schema of one row of a tensor, as people write it."""
    leaf = _lenient(spec.datatype)
    return array_of(leaf, *spec.shape[1:]) if spec.shape[1:] else leaf


def _lenient(datatype: str) -> JSON:
    """Return the schema of one value in a row, where true and false are numbers too."""
    leaf = _leaf(datatype)
    return leaf if leaf in (TEXT, FLAG) else {**leaf, "type": [leaf["type"], "boolean"]}


def _leaf(datatype: str) -> JSON:
    """Return the schema of one value of a datatype."""
    if datatype in _BITS:
        return {"type": "integer", "minimum": 0, "maximum": 2 ** _BITS[datatype] - 1}
    if datatype in _SIGNED:
        bits = _SIGNED[datatype]
        return {"type": "integer", "minimum": -(2**bits), "maximum": 2**bits - 1}
    if datatype in _LARGEST:
        return {**NUMBER, "minimum": -_LARGEST[datatype], "maximum": _LARGEST[datatype]}
    return {"BOOL": FLAG, "BYTES": TEXT}.get(datatype, NUMBER)


def _closed(properties: Mapping[str, JSON], required: Sequence[str] | None = None) -> JSON:
    """Return the schema of an object that has no other properties."""
    return {**object_of(properties, required), "additionalProperties": False}


def _any(schemas: Sequence[JSON]) -> JSON:
    return schemas[0] if len(schemas) == 1 else {"anyOf": list(schemas)}
