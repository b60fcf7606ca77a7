"""Averages of the weights along the way: often better than the last, for a per cent of the time.

An average is made for a model when a training starts, is told of each step, and holds tensors by
the names of the model's parameters and buffers.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

__all__ = ["AVERAGES", "EMA", "Average", "Lookahead", "floating"]


def floating(model: nn.Module) -> dict[str, Tensor]:
    """Return the model's trainable parameters and its floating buffers, by name."""
    learned = {name: p for name, p in model.named_parameters() if p.requires_grad}
    return learned | {name: b for name, b in model.named_buffers() if b.is_floating_point()}


@dataclass(frozen=True)
class Average(ABC):
    """What all averages have: the model ends with `held`, and trains on with its own weights."""

    def start(self, model: nn.Module) -> dict[str, Tensor]:
        """Return the average before the first step: the weights themselves."""
        return {name: value.detach().clone() for name, value in floating(model).items()}

    @abstractmethod
    def update(self, held: dict[str, Tensor], live: list[Tensor], step: int, steps: int) -> None:
        """Take the weights after step `step` of `steps`, counted from 1, into `held`."""


@dataclass(frozen=True)
class EMA(Average):
    """An exponential moving average (Polyak and Juditsky, 1992), warmed up over the first steps.

    Args:
        decay: what is kept of the average at each step; less at first, (1 + step) / (10 + step).
    """

    decay: float = 0.999

    def update(self, held: dict[str, Tensor], live: list[Tensor], step: int, steps: int) -> None:
        """Move the average a little towards the weights."""
        decay = min(self.decay, (1 + step) / (10 + step))
        torch._foreach_lerp_(list(held.values()), live, 1 - decay)


@dataclass(frozen=True)
class Lookahead(Average):
    """Slow weights that follow the fast ones, which every few steps start again from them.

    After Zhang et al., "Lookahead Optimizer" (2019), with airbench's ramp (K. Jordan, 2024): the
    slow weights follow at once early on, and hold to `decay` ** `every` of themselves at the end.

    Args:
        every: steps between two meetings.
        decay: what the slow weights keep of themselves, per step, at the end of the budget.
    """

    every: int = 5
    decay: float = 0.95

    def update(self, held: dict[str, Tensor], live: list[Tensor], step: int, steps: int) -> None:
        """Every few steps move the slow weights towards the fast, and the fast onto them."""
        if step % self.every and step != steps:
            return
        kept = self.decay**self.every * (step / steps) ** 3 if step != steps else 1.0
        slow = list(held.values())
        torch._foreach_lerp_(slow, live, 1 - kept)
        torch._foreach_copy_(live, slow)


AVERAGES: Mapping[str, Average | None] = {"ema": EMA(), "lookahead": Lookahead(), "none": None}
