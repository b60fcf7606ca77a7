"""Dropout from a generator of the training's own, and a watch on the global one.

With a generator seeded by (seed, step), nobody else's draws can change a training's numbers, and
there is no state that an interruption could lose.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from workbench.determinism import generator

__all__ = ["GlobalWatch", "StepDraws", "own_dropout", "own_forward"]


class StepDraws:
    """The random numbers of one step after another.

    Args:
        seed: of the training.
        device: where they are drawn.
    """

    def __init__(self, seed: int, device: torch.device) -> None:
        self.generator = torch.Generator(device)
        self._base = generator(seed, "dropout").initial_seed() >> 1  # leaves room to count up

    def step(self, number: int) -> None:
        """Begin the numbers of a step."""
        self.generator.manual_seed(self._base + number)


@contextlib.contextmanager
def own_dropout(model: nn.Module, seed: int, device: torch.device) -> Iterator[StepDraws | None]:
    """Let the model's dropout layers draw from a generator of their own for the while.

    Covered are `nn.Dropout`, `nn.Dropout1d`, `2d` and `3d`. Gives None for a model without any.

    Args:
        model: its layers' `forward` is replaced, and given back at the end.
        seed: of the training.
        device: that the model is on.
    """
    layers: list[Any] = [m for m in model.modules() if type(m) in _AXES]
    if not layers:
        yield None
        return
    draws = StepDraws(seed, device)
    for layer in layers:
        layer.forward = partial(_dropout, layer, draws.generator)
    try:
        yield draws
    finally:
        for layer in layers:
            del layer.forward


def own_forward(model: nn.Module) -> None:
    """Let the dropout layers of a copy that was made within `own_dropout` draw as others do."""
    for layer in model.modules():
        if type(layer) in _AXES:
            vars(layer).pop("forward", None)


_AXES = {nn.Dropout: None, nn.Dropout1d: 1, nn.Dropout2d: 2, nn.Dropout3d: 3}


def _dropout(layer: Any, draws: torch.Generator, x: Tensor) -> Tensor:
    """Return `x` with a share `p` zeroed and the rest scaled up, as `nn.Dropout` does.

    Whole channels where the layer is one of `nn.Dropout1d` to `3d`.
    """
    if not layer.training or layer.p == 0:
        return x
    axes = _AXES[type(layer)]
    shape = x.shape if axes is None else (*x.shape[:-axes], *[1] * axes)
    kept = torch.empty(shape, dtype=x.dtype, device=x.device)
    kept.bernoulli_(1 - layer.p, generator=draws)
    if layer.p < 1:
        kept.div_(1 - layer.p)
    return x * kept


class GlobalWatch:
    """Notices draws on torch's global generator while a training runs."""

    def __init__(self) -> None:
        self._state: Tensor | None = torch.get_rng_state()
        self._first = True

    def look(self) -> str:
        """Return what to say of draws since the look before, once; the first is after a step."""
        if self._state is None or torch.equal(self._state, torch.get_rng_state()):
            self._first = False
            return ""
        self._state = None
        if self._first:
            return (
                "the model or the loss draws from torch's global generator, which any other cell "
                "could move: use nn.Dropout rather than F.dropout, and a torch.Generator of your "
                "own for other noise"
            )
        return (
            "something drew from torch's global generator during this training, a callback or "
            "another cell; the training's own numbers do not depend on it"
        )
