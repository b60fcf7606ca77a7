"""What each layer of a model answers to a batch, and each activation function between layers."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves

from workbench.models.leaves import watched
from workbench.modes import evaluating

__all__ = ["Activation", "activations", "call_name"]

_FUNCTIONS = {
    *("celu", "elu", "gelu", "hardsigmoid", "hardswish", "hardtanh", "leaky_relu", "log_sigmoid"),
    *("mish", "relu", "relu6", "selu", "sigmoid", "silu", "softplus", "softsign", "tanh"),
}
_BY_CHANNEL = (_ConvNd, _NormBase, nn.GroupNorm)  # whose units are the axis after the rows
_BY_FEATURE = (nn.Linear, nn.Bilinear, nn.RNNBase, nn.Embedding, nn.LayerNorm, nn.RMSNorm)


@dataclass(frozen=True, eq=False)
class Activation:
    """What a layer, or a function between layers, answered to the rows of a batch.

    Args:
        name: as the model calls the layer, `relu after conv1` for a function; unique in a pass.
        kind: class of the layer, or name of the function.
        layer: the module; None for a function.
        given: the first tensor that went in, or None.
        values: shaped (rows, units, places), a unit being a channel or a feature; of a layer that
            mixes the rows, (places, units, 1).
        places: the shape that the places have: height and width, or steps, or none.
        by_row: whether the first axis is the rows.
    """

    name: str
    kind: str
    layer: nn.Module | None
    given: Tensor | None
    values: Tensor
    places: tuple[int, ...]
    by_row: bool

    @property
    def shape(self) -> tuple[int, ...]:
        """Units, then places: the shape of one row."""
        return (self.values.shape[1], *self.places)


def activations(model: nn.Module, x: Tensor, see: Callable[[Activation], None]) -> None:
    """Ask the model once, in evaluation mode, and show what each layer answers as it does.

    Layers are modules without modules inside. Activation functions of torch that `forward` calls
    itself (`F.relu`, `torch.tanh`, ...) are met too. Nothing of the model is changed.

    Args:
        model: any module; a training of it is waited for.
        x: what `forward` takes, on the model's device; its first axis is rows.
        see: called with each in turn; the values are good until it returns, since the model may
            go on in their place.
    """
    pass_ = _Pass(len(x), see)
    watching = watched(model, pass_.leave, before=pass_.enter)
    with evaluating(model), torch.inference_mode(), watching, pass_.functions():
        model(x)


def call_name(name: str, number: int) -> str:
    """Return how the call of a layer is told from others of it, the first being number 1.

    >>> call_name("encoder", 1), call_name("encoder", 2)
    ('encoder', 'encoder (call 2)')
    """
    return name if number == 1 else f"{name} (call {number})"


class _Pass:
    """One way through the model: where it is, and how often each layer was called.

    Args:
        n: how many rows go through.
        see: is shown the activations.
    """

    def __init__(self, n: int, see: Callable[[Activation], None]) -> None:
        self._n, self._see = n, see
        self._calls: Counter[str] = Counter()
        self._depth = 0  # of leaves, one of which may call another by hand
        self._last, self._axis = "", (0, -1)  # the layer before; axes and where its units were

    def enter(self) -> None:
        self._depth += 1

    def leave(self, name: str, module: nn.Module, given: tuple[Any, ...], answer: Any) -> None:
        self._depth -= 1
        self._calls[name] += 1
        self._last = call_name(name, self._calls[name])
        self._show(self._last, type(module).__name__.lstrip("_"), module, given, answer)

    def functions(self) -> AbstractContextManager[Any]:
        """Return what notices activation functions outside layers, for the while."""
        return _Functions(self._called)

    def _called(self, kind: str, given: tuple[Any, ...], answer: Any) -> None:
        if self._depth:
            return  # a layer's own
        name = f"{kind} after {self._last}" if self._last else kind
        self._calls[name] += 1
        self._show(call_name(name, self._calls[name]), kind, None, given, answer)

    def _show(
        self, name: str, kind: str, layer: nn.Module | None, given: tuple[Any, ...], answer: Any
    ) -> None:
        outputs = [leaf for leaf in tree_leaves(answer) if isinstance(leaf, Tensor)]
        if not outputs or outputs[0].is_nested or outputs[0].layout != torch.strided:
            return  # nothing that has units
        inputs = [leaf for leaf in tree_leaves(given) if isinstance(leaf, Tensor)]
        output = outputs[0].abs() if outputs[0].is_complex() else outputs[0]
        values, places, by_row = self._arranged(layer, output.float())
        self._see(
            Activation(name, kind, layer, inputs[0] if inputs else None, values, places, by_row)
        )

    def _arranged(
        self, layer: nn.Module | None, output: Tensor
    ) -> tuple[Tensor, tuple[int, ...], bool]:
        """Return an output as (rows, units, places), the shape of its places, whether by row."""
        rows = self._axis_of_rows(layer, output)
        if rows is None:
            axis = self._axis_of_units(layer, output)
            moved = output.reshape(1) if output.ndim == 0 else output.movedim(axis, -1)
            return moved.reshape(-1, moved.shape[-1], 1), (), False
        first = output.movedim(rows, 0)
        if first.ndim == 1:
            first = first.unsqueeze(1)
        ordered = first.movedim(self._axis_of_units(layer, first), 1)
        places = tuple(ordered.shape[2:])
        return ordered.reshape(*ordered.shape[:2], -1), places, True

    def _axis_of_rows(self, layer: nn.Module | None, output: Tensor) -> int | None:
        sequence_first = isinstance(layer, nn.RNNBase) and not layer.batch_first
        likely = (1, 0) if sequence_first else (0, 1)
        fitting = [a for a in likely if a < output.ndim and output.shape[a] == self._n]
        return fitting[0] if fitting else None

    def _axis_of_units(self, layer: nn.Module | None, output: Tensor) -> int:
        """Return which axis has the units; a layer that has none of its own keeps those before."""
        known = self._axis[1] if self._axis[0] == output.ndim else None
        if output.ndim < 3 or isinstance(layer, _BY_FEATURE):
            axis = -1
        elif isinstance(layer, _BY_CHANNEL):
            axis = 1
        else:
            axis = known or (1 if output.ndim > 3 else -1)
        self._axis = (output.ndim, axis)
        return axis


class _Functions(TorchFunctionMode):
    """Tells of activation functions as they are called."""

    def __init__(self, called: Callable[[str, tuple[Any, ...], Any], None]) -> None:
        super().__init__()
        self._called = called

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        answer = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "").strip("_")
        if name in _FUNCTIONS:
            self._called(name, args, answer)
        return answer
