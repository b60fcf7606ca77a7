"""`summary`: what a model is made of and what one row costs it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pandas as pd
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves
from torch.utils.flop_counter import FlopCounterMode

from workbench.attached import attached
from workbench.preprocessing import Preprocessing

if TYPE_CHECKING:
    from workbench.datasets import Dataset

__all__ = ["Summary", "summary"]

_COLUMNS = ["layer", "kind", "output", "parameters", "multiply_adds", "activations"]

_THOUSANDS = dict.fromkeys(("parameters", "multiply_adds", "activations"), "{:,}".format)


class Summary:
    """A model's layers with shapes, parameters and cost, and their sums.

    Args:
        layers: a row a layer: layer, kind, output (shape of one row), parameters, multiply_adds
            (for one row), activations (bytes for one row).
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
    def activations(self) -> int:
        """Bytes that one row's layer outputs take in a training step."""
        return int(self.layers["activations"].sum())

    def _totals(self) -> str:
        return (
            f"{self.parameters:,} parameters ({self.trainable:,} trainable), "
            f"{self.multiply_adds:,} multiply-adds and {self.activations / 1024:,.1f} KiB "
            "of activations a row"
        )

    def __repr__(self) -> str:
        return f"{self.layers.to_string(index=False)}\n{self._totals()}"

    def _repr_html_(self) -> str:
        table = self.layers.to_html(index=False, border=0, formatters=_THOUSANDS)
        return f"{table}<p>{self._totals()}</p>"


def summary(model: nn.Module, data: Dataset) -> Summary:
    """Return the model's layers, shapes, parameters, multiply-adds and activation memory.

    Args:
        model: any module; it is run once on two rows, in evaluation mode, and left as it was.
        data: gives the rows.
    """
    preprocessing = attached(model).preprocessing or Preprocessing.fitted(data.train.inputs)
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    x = preprocessing(data.train.inputs[:2]).to(device)
    rows: list[dict[str, Any]] = []
    leaves = {m: n for n, m in model.named_modules() if not any(m.children())}
    hooks = [
        module.register_forward_hook(
            lambda module, _, output: rows.append(_row(leaves[module], module, output))
        )
        for module in leaves
    ]
    flags = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in flags:  # an exported program refuses `eval()`
            module.training = False
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            model(x)
    finally:
        for hook in hooks:
            hook.remove()
        for module, flag in flags:
            module.training = flag
    _add_cost(rows, model, counter, n=len(x))
    return Summary(
        pd.DataFrame(rows, columns=_COLUMNS),
        parameters=sum(p.numel() for p in model.parameters()),
        trainable=sum(p.numel() for p in model.parameters() if p.requires_grad),
    )


def _row(name: str, module: nn.Module, answer: Any) -> dict[str, Any]:
    tensors = [leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)]
    output = tensors[0] if tensors else torch.empty(1, 0)  # an LSTM answers with its states too
    return {
        "layer": name or "(model)",
        "kind": type(module).__name__,
        "output": "×".join(map(str, output.shape[1:])),
        "parameters": sum(p.numel() for p in module.parameters(recurse=False)),
        "multiply_adds": 0,
        "activations": output[0].numel() * output.element_size(),
    }


def _add_cost(rows: list[dict[str, Any]], model: nn.Module, counter: Any, *, n: int) -> None:
    """Fill in each layer's multiply-adds: half of torch's count of floating-point operations."""
    flops = counter.get_flop_counts()
    top = type(model).__name__
    for row in rows:
        name = top if row["layer"] == "(model)" else f"{top}.{row['layer']}"
        row["multiply_adds"] = sum(flops.get(name, {}).values()) // (2 * n)
