"""What schemathesis is told about a service: pictures, and that a tensor's shape is of its data.

It is loaded by the program, not by pytest.
"""

from __future__ import annotations

import base64
import io
import math
from typing import Any

import schemathesis
from hypothesis import strategies as st
from PIL import Image
from schemathesis import Case, HookContext

_LENGTH = "Inference-Header-Content-Length"
_INFER = "/infer"


@st.composite
def _pictures(draw: st.DrawFn, kind: str) -> bytes:
    """Return a whole file."""
    width, height = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    mode, size = draw(st.sampled_from([("L", 1), ("RGB", 3), ("RGBA", 4)][: 3 - (kind == "JPEG")]))
    pixels = draw(st.binary(min_size=width * height * size, max_size=width * height * size))
    file = io.BytesIO()
    Image.frombytes(mode, (width, height), pixels).save(file, kind)
    return file.getvalue()


schemathesis.openapi.media_type("image/png", _pictures("PNG"))
schemathesis.openapi.media_type("image/jpeg", _pictures("JPEG"))
schemathesis.openapi.format(
    "byte", _pictures("PNG").map(lambda picture: base64.b64encode(picture).decode())
)


@schemathesis.hook
def filter_case(context: HookContext, case: Case[Any]) -> bool:
    """Leave raw tensors to tests that know where they begin."""
    is_infer = context.operation is not None and context.operation.path.endswith(_INFER)
    is_raw = case.media_type != "application/json" or _LENGTH in (case.headers or {})
    return not (is_infer and is_raw)


@schemathesis.hook
def map_case(context: HookContext, case: Case[Any]) -> Case[Any]:
    """Let what no schema can say be true of requests that are to be answered."""
    if not (context.operation and case.meta and case.meta.generation.mode.is_positive):
        return case
    path = context.operation.path
    body: Any = case.body
    if path.endswith(_INFER):
        _mend(body)
    elif path.endswith(":predict") and isinstance(body.get("inputs"), dict):
        rows = min(map(len, body["inputs"].values()))
        body["inputs"] = {name: column[:rows] for name, column in body["inputs"].items()}
    return case


def _mend(body: Any) -> None:
    """Cut the data of each tensor to whole rows, and say so in its shape."""
    if "outputs" in body:
        body["outputs"] = list({wanted["name"]: wanted for wanted in body["outputs"]}.values())
    for tensor in body["inputs"]:
        size = math.prod(tensor["shape"][1:])
        values = _flat(tensor["data"])
        if "INT" in tensor["datatype"]:  # 1.0 is an integer for a schema
            values = [int(value) for value in values]
        tensor["data"] = (values * size)[: max(len(values) // size, 1) * size]
    rows = min(len(t["data"]) // math.prod(t["shape"][1:]) for t in body["inputs"])
    for tensor in body["inputs"]:
        tensor["shape"][0] = rows
        tensor["data"] = tensor["data"][: math.prod(tensor["shape"])]


def _flat(values: Any) -> list[Any]:
    return [v for part in values for v in _flat(part)] if isinstance(values, list) else [values]
