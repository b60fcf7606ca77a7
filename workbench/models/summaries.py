"""`summary`: what a model is made of and what one row costs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from workbench.attached import attached
from workbench.devices import device_of
from workbench.models.leaves import watched
from workbench.modes import evaluating
from workbench.preprocessing import Preprocessing

if TYPE_CHECKING:
    from workbench.datasets import Dataset

__all__ = ["Summary", "summary"]

_COLUMNS = ["layer", "kind", "output", "parameters", "multiply_adds", "activation_bytes"]

_THOUSANDS = dict.fromkeys(("parameters", "multiply_adds", "activation_bytes"), "{:,}".format)


class Summary:
    """A model's layers with shapes, parameters and cost, and their sums.

    Args:
        layers: a row a call of a layer: layer, kind, output (shape of one row), parameters,
            multiply_adds and activation_bytes (both for one row); where the model works or holds
            parameters outside its layers too, a last row for that.
        parameters: how many numbers the model holds, each counted once.
        trainable: how many of them are learned.
    """

    def __init__(self, layers: pd.DataFrame, *, parameters: int, trainable: int) -> None:
        self.layers = layers
        self.parameters = parameters
        self.trainable = trainable

    @property
    def multiply_adds(self) -> int:
        """Multiply-adds of one row through the model."""
        return int(self.layers["multiply_adds"].sum())

    @property
    def activation_bytes(self) -> int:
        """Bytes that one row's layer outputs take in a training step."""
        return int(self.layers["activation_bytes"].sum())

    @property
    def totals(self) -> str:
        """The sums, in words."""
        return (
            f"{self.parameters:,} parameters ({self.trainable:,} trainable), "
            f"{self.multiply_adds:,} multiply-adds and {self.activation_bytes / 1024:,.1f} KiB "
            "of activations a row"
        )

    def __repr__(self) -> str:
        return f"{self.layers.to_string(index=False)}\n{self.totals}"

    def _repr_html_(self) -> str:
        table = self.layers.to_html(index=False, border=0, formatters=_THOUSANDS)
        return f"{table}<p>{self.totals}</p>"


def summary(model: nn.Module, data: Dataset) -> Summary:
    """Return the model's layers, shapes, parameters, multiply-adds and activation bytes.

    Args:
        model: any module; it is run once on two rows, in evaluation mode, and left as it was.
        data: gives the rows.
    """
    preprocessing = attached(model).preprocessing or Preprocessing.fitted(data.train.inputs)
    device = device_of(model)
    x = preprocessing(data.train.inputs[:2]).to(device)
    calls = _calls(model, x)
    return Summary(
        pd.DataFrame(calls, columns=_COLUMNS),
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def _calls(model: nn.Module, x: Tensor) -> list[dict[str, Any]]:
    """Run the model once; return a row for each call of a layer, and one for what is no layer."""
    rows: list[dict[str, Any]] = []
    counter, before = FlopCounterMode(display=False), [0]

    def enter() -> None:
        before[0] = counter.get_total_flops()

    def leave(name: str, module: nn.Module, _: Any, answer: Any) -> None:
        cost = counter.get_total_flops() - before[0]
        rows.append(_row(name, module, answer, cost // (2 * len(x))))

    with evaluating(model), watched(model, leave, before=enter), counter, torch.no_grad():
        model(x)
    total = counter.get_total_flops() // (2 * len(x))
    return rows + _outside(model, total - sum(row["multiply_adds"] for row in rows))


def _row(name: str, module: nn.Module, answer: Any, cost: int) -> dict[str, Any]:
    tensors = [leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)]
    output = tensors[0] if tensors else torch.empty(1, 0)  # an LSTM answers with its states too
    return {
        "layer": name,
        "kind": type(module).__name__.lstrip("_"),
        "output": "×".join(map(str, output.shape[1:])),
        "parameters": _own(module),
        "multiply_adds": cost,
        "activation_bytes": output[0].numel() * output.element_size(),
    }


def _outside(model: nn.Module, cost: int) -> list[dict[str, Any]]:
    """Return a row for what modules with layers inside do and hold themselves, if they do."""
    parameters = sum(_own(module) for module in model.modules() if any(module.children()))
    if not (cost or parameters):
        return []
    return [dict(zip(_COLUMNS, ("(no layer)", "", "", parameters, cost, 0), strict=True))]


def _own(module: nn.Module) -> int:
    return sum(p.numel() for p in module.parameters(recurse=False))
