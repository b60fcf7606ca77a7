"""A loop over a `DataLoader`: `default` is the tutorial's own, `lean` the fastest documented."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from contest import LR, MOMENTUM, Ask, Task, asking, compete, fast_loader, plain_loader


def default(task: Task) -> Callable[[], Ask]:
    """Return the tutorial's epoch: a running loss, printed every 2,000 batches."""
    net, loader = task.net(), plain_loader(task)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)

    def go() -> Ask:
        running = 0.0
        for i, (inputs, targets) in enumerate(loader):
            optimizer.zero_grad()
            loss = F.cross_entropy(net(inputs), targets)
            loss.backward()
            optimizer.step()
            running += loss.item()
            if i % 2000 == 1999:
                print(f"[1, {i + 1:5d}] loss: {running / 2000:.3f}")
                running = 0.0
        return asking(net)

    return go


def lean(task: Task) -> Callable[[], Ask]:
    """Return an epoch that reads each batch at once and looks at no loss."""
    net, loader = task.net(), fast_loader(task)
    optimizer = torch.optim.SGD(net.parameters(), lr=LR, momentum=MOMENTUM)

    def go() -> Ask:
        for inputs, targets in loader:
            optimizer.zero_grad()
            loss = F.cross_entropy(net(inputs), targets)
            loss.backward()
            optimizer.step()
        return asking(net)

    return go


if __name__ == "__main__":
    compete("DataLoader loop", torch.__version__, {"default": default, "lean": lean})
