"""Which rows each step sees: a function of (seed, epoch) alone, so nothing needs saving."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from workbench.datasets import Split
from workbench.determinism import generator

__all__ = ["Batches"]


class Batches:
    """The rows of a split in shuffled batches, gathered by index from tensors left as they are.

    Args:
        split: raw rows and targets.
        batch_size: rows a step; the last batch of an epoch may be smaller, yet never one row
            alone, of which BatchNorm can learn nothing: that row joins the batch before.
        seed: decides the order of every epoch.
        device: where the rows are to be; they are moved there once.
    """

    def __init__(self, split: Split, batch_size: int, *, seed: int, device: torch.device) -> None:
        self.batch_size = min(batch_size, len(split))
        lone = len(split) > 1 and len(split) % self.batch_size == 1
        self.steps_per_epoch = -(-(len(split) - lone) // self.batch_size)
        self._sizes = [self.batch_size] * (len(split) // self.batch_size)
        if lone:
            self._sizes[-1] += 1
        elif rest := len(split) % self.batch_size:
            self._sizes.append(rest)
        self._inputs = split.inputs.to(device)
        self._targets = split.targets.to(device)
        self._seed = seed

    def epoch(self, number: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield raw inputs and targets of each batch of epoch `number`, counted from 0."""
        order = torch.randperm(len(self._inputs), generator=generator(self._seed, "order", number))
        for rows in order.to(self._inputs.device).split(self._sizes):
            yield self._inputs[rows], self._targets[rows]
