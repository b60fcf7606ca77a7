"""Signatures, and requests for them as JSON, whole or with something changed."""

from __future__ import annotations

import json
from typing import Any

from workbench.types import Signature, TensorSpec

__all__ = ["HALF", "PICTURES", "SEVERAL", "SIGNATURE", "output", "request", "several"]

SIGNATURE = Signature(
    (TensorSpec("input", "FP32", (-1, 2)),), (TensorSpec("output", "FP32", (-1, 3)),)
)
PICTURES = Signature((TensorSpec("input", "UINT8", (-1, 2, 2, 3)),), SIGNATURE.outputs)
HALF = Signature(SIGNATURE.inputs, (TensorSpec("output", "FP16", (-1, 3)),))
SEVERAL = Signature(
    (TensorSpec("text", "BYTES", (-1,)), TensorSpec("mask", "BOOL", (-1, 2))),
    (
        TensorSpec("logits", "FP32", (-1, 3)),
        TensorSpec("label", "BYTES", (-1,)),
        TensorSpec("half", "BF16", (-1, 2)),
    ),
)


def request(**changes: Any) -> bytes:
    """Return a request for SIGNATURE; of its `tensor` what is `...` is left out."""
    tensor: dict[str, Any] = {"name": "input", "datatype": "FP32", "shape": [2, 2]}
    tensor |= {"data": [1, 2, 3, 4.5], **changes.pop("tensor", {})}
    said = {"inputs": [{k: v for k, v in tensor.items() if v is not ...}], **changes}
    return json.dumps(said).encode()


def several(**changes: Any) -> bytes:
    """Return a request for SEVERAL."""
    inputs = [
        {
            "name": "mask",
            "datatype": "BOOL",
            "shape": [2, 2],
            "data": [[True, False], [True, True]],
        },
        {"name": "text", "datatype": "BYTES", "shape": [2], "data": ["a", "è"]},
    ]
    return json.dumps({"inputs": inputs, **changes}).encode()


def output(name: str = "output", **parameters: Any) -> dict[str, Any]:
    """Return an output as a request asks for it."""
    return {"name": name, "parameters": parameters}
