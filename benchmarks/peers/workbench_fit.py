"""`wb.fit`, whole call on the clock: `images` are uint8, normalized each step; `floats` are not.

`lean` is headless: no progress bar.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial

import torch
from contest import BATCH_SIZE, LR, MOMENTUM, Ask, Task, compete
from torch import Tensor, nn

import workbench as wb


def prepared(task: Task, *, images: bool, lean: bool) -> Callable[[], Ask]:
    """Return one epoch of `wb.fit`.

    Args:
        task: what to train on.
        images: whether the rows are uint8 images, else the bare loop's float tensors.
        lean: whether nothing is shown.
    """
    rows = task.images if images else task.inputs
    data = wb.dataset("cifar10-head", train=(rows, task.targets))
    model = wb.build("lenet", data)
    model.load_state_dict(task.weights)

    def go() -> Ask:
        os.environ["WORKBENCH_HEADLESS"] = "1" if lean else "0"
        training = wb.fit(
            model,
            data,
            steps=task.steps,
            batch_size=BATCH_SIZE,
            lr=LR,
            momentum=MOMENTUM,
            optimizer="sgd",
        )
        _check(training)
        return _asking(model, images=images)

    return go


def _asking(model: nn.Module, *, images: bool) -> Ask:
    def ask(task: Task) -> Tensor:
        output = wb.predict(model, task.images if images else task.inputs).output
        return torch.as_tensor(output)

    return ask


def _check(training: wb.Training) -> None:
    """Stop where `fit` chose what the others were not given: other threads, another precision."""
    settings = training.settings
    precision = getattr(settings, "precision", "fp32")
    if settings.threads != 1 or precision != "fp32":
        raise SystemExit(f"expected 1 thread and fp32, fit took {settings.threads} and {precision}")


if __name__ == "__main__":
    compete(
        "wb.fit",
        wb.__version__,
        {
            "images": partial(prepared, images=True, lean=False),
            "images-lean": partial(prepared, images=True, lean=True),
            "floats": partial(prepared, images=False, lean=False),
            "floats-lean": partial(prepared, images=False, lean=True),
        },
    )
