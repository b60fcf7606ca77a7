"""skorch: `default` as its documentation begins, `lean` with all of its page on performance.

That page: `verbose=0`, `callbacks="disable"`, a `Dataset` made beforehand; that one is the fastest.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import skorch  # type: ignore[import-not-found]
import torch
from contest import BATCH_SIZE, LR, MOMENTUM, Ask, Rows, Task, asking, collated, compete
from torch import nn

_SAME: dict[str, Any] = {
    "criterion": nn.CrossEntropyLoss,
    "optimizer": torch.optim.SGD,
    "optimizer__momentum": MOMENTUM,
    "lr": LR,
    "max_epochs": 1,
    "train_split": None,  # no validation
}


def default(task: Task) -> Callable[[], Ask]:
    """Return one epoch of a classifier with its own callbacks and printed table."""
    module = task.net()
    net = skorch.NeuralNetClassifier(
        module, batch_size=BATCH_SIZE, iterator_train__shuffle=True, **_SAME
    )

    def go() -> Ask:
        net.fit(task.inputs, task.targets)
        return asking(net.module_)

    return go


def lean(task: Task) -> Callable[[], Ask]:
    """Return one epoch without callbacks, printing, or anything between the rows and the net."""
    module, rows = task.net(), Rows(task.inputs, task.targets)
    net = skorch.NeuralNet(
        module,
        batch_size=BATCH_SIZE,
        iterator_train__shuffle=True,
        iterator_train__collate_fn=collated,
        callbacks="disable",
        verbose=0,
        **_SAME,
    )

    def go() -> Ask:
        net.fit(rows, None)
        return asking(net.module_)

    return go


if __name__ == "__main__":
    compete("skorch", skorch.__version__, {"default": default, "lean": lean})
