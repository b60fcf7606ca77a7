"""What a few rows show of a model: what it takes and answers, and how it is called."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from workbench.attached import EXAMPLE_ROWS
from workbench.evaluation import infer, preprocessing_of
from workbench.evaluation.calls import Rows, call, called_signature, named_rows
from workbench.preprocessing import Preprocessing, check_finite
from workbench.types import DATATYPES, JSON, Signature, TensorSpec

__all__ = ["Shown", "shown_by", "signature_of"]


@dataclass(frozen=True)
class Shown:
    """What an example shows of a model.

    Args:
        rows: checked, by the names that a service calls them.
        preprocessing: of the model; None of one that is called by the names of its inputs.
        signature: what goes in and comes out.
    """

    rows: dict[str, Rows]
    preprocessing: Preprocessing | None
    signature: Signature

    def answers(self, model: nn.Module) -> dict[str, Rows]:
        """Return what the model, or its twin, answers to the rows."""
        if self.preprocessing is None:
            return call(model, self.rows)
        return {"output": infer(model, self.raw, self.preprocessing)}

    @property
    def raw(self) -> Tensor:
        """The rows of the one input."""
        (rows,) = self.rows.values()
        assert isinstance(rows, Tensor)
        return rows

    def few(self) -> JSON:
        """Return the first rows as plain lists, as `example.json` holds them."""
        few = {name: rows[:EXAMPLE_ROWS] for name, rows in self.rows.items()}
        plain = {k: v.tolist() if isinstance(v, Tensor) else v for k, v in few.items()}
        return {"inputs": plain} if self.preprocessing is None else {"rows": plain["input"]}


def shown_by(model: nn.Module, example: Any) -> Shown:
    """Return what an example shows of a model, which is asked once.

    Args:
        model: built, fitted or loaded, or neither.
        example: raw rows, as `publish` takes them.

    Raises:
        RequestError: they are not what the model takes.
    """
    named = named_rows(model, example)
    if named is not None:
        for name, rows in named.items():
            if isinstance(rows, Tensor):
                check_finite(f"the rows of {name!r}", rows)
        return Shown(named, None, called_signature(model, named))
    preprocessing = preprocessing_of(model, example)
    raw = preprocessing.batch(example)
    output = infer(model, raw[:2], preprocessing)
    row = TensorSpec("input", DATATYPES[preprocessing.dtype], (-1, *preprocessing.shape))
    answer = TensorSpec("output", "FP32", (-1, *output.shape[1:]))
    return Shown({"input": raw}, preprocessing, Signature((row,), (answer,)))


def signature_of(model: nn.Module, example: Any) -> Signature:
    """Return what the model takes and answers, which it is asked once to see.

    One input is called `input` and one output `output`; several have the names of `forward`.

    Args:
        model: built, fitted or loaded, or neither.
        example: raw rows, as `publish` takes them.
    """
    return shown_by(model, example).signature
