"""The types that several rooms of the house speak of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["DATATYPES", "JSON", "NAME_PATTERN", "Signature", "Task", "TensorSpec"]

JSON = dict[str, Any]
Task = Literal["classification", "regression"]

NAME_PATTERN = r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}"  # of a model or a service, in paths and URLs

DATATYPES: Mapping[str, str] = {  # of torch and NumPy, in the protocol's words
    "bool": "BOOL", "uint8": "UINT8", "uint16": "UINT16", "uint32": "UINT32", "uint64": "UINT64",
    "int8": "INT8", "int16": "INT16", "int32": "INT32", "int64": "INT64",
    "float16": "FP16", "bfloat16": "BF16", "float32": "FP32", "float64": "FP64",
}  # fmt: skip


@dataclass(frozen=True)
class TensorSpec:
    """One tensor that goes in or out of a model.

    Args:
        name: its served name, `input` or `output` where there is one.
        datatype: in the words of the Open Inference Protocol (`FP32`, `UINT8`).
        shape: with -1 for the axis of rows, which comes first.
    """

    name: str
    datatype: str
    shape: tuple[int, ...]


@dataclass(frozen=True)
class Signature:
    """What a model takes and what it answers."""

    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]

    def to_json(self) -> JSON:
        """Return the signature as plain lists and dictionaries."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: JSON) -> Signature:
        """Return the signature that `to_json` wrote."""

        def specs(rows: list[JSON]) -> tuple[TensorSpec, ...]:
            return tuple(TensorSpec(r["name"], r["datatype"], tuple(r["shape"])) for r in rows)

        return cls(inputs=specs(data["inputs"]), outputs=specs(data["outputs"]))
