"""The types that several rooms of the house speak of."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

__all__ = ["JSON", "Signature", "Task", "TensorSpec"]

JSON = dict[str, Any]
Task = Literal["classification", "regression"]


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
