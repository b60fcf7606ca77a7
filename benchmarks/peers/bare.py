"""The bare loop that all others are held against: nothing but what a step needs.

`again` is the same once more, so that the table shows how far two equal things seem apart.
`slices` reads the rows in their order; `fused` asks torch for its fused SGD.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
import torch.nn.functional as F
from contest import BATCH_SIZE, LR, MOMENTUM, Ask, Task, asking, compete
from torch import Tensor


def bare(task: Task, *, shuffled: bool = True, fused: bool = False) -> Callable[[], Ask]:
    """Return one epoch over tensors: gather, forward, backward, step."""
    net = task.net()
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM, fused=fused)

    def go() -> Ask:
        for inputs, targets in _batches(task, shuffled):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(inputs), targets)
            loss.backward()
            optimizer.step()
        return asking(net)

    return go


def _batches(task: Task, shuffled: bool) -> Iterable[tuple[Tensor, Tensor]]:
    if not shuffled:
        return zip(task.inputs.split(BATCH_SIZE), task.targets.split(BATCH_SIZE), strict=True)
    order = torch.randperm(len(task.targets)).split(BATCH_SIZE)
    inputs, targets = task.inputs, task.targets  # index_select: half of what inputs[rows] costs
    return ((inputs.index_select(0, rows), targets.index_select(0, rows)) for rows in order)


if __name__ == "__main__":
    compete(
        "bare loop",
        torch.__version__,
        {
            "shuffled": bare,
            "again": bare,
            "slices": lambda task: bare(task, shuffled=False),
            "fused": lambda task: bare(task, fused=True),
        },
    )
