"""Two versions of a model of points, one that knows the answer and one that guesses half of it."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from workbench import build, dataset, evaluate, fit
from workbench.attached import attached
from workbench.datasets import Dataset
from workbench.registry import ModelVersion, publish

__all__ = ["POINTS", "better", "labels", "points", "publish_both", "worse"]

_draw = torch.Generator().manual_seed(5)
POINTS = torch.randn(2000, 2, generator=_draw)
_TRUE = (POINTS.sum(1) > 0).long()
_NAMES = ("below", "above")


@cache
def points() -> Dataset:
    """Return the points, three quarters of them to train on."""
    return dataset(
        "points",
        train=(POINTS[:1500], _TRUE[:1500]),
        test=(POINTS[1500:], _TRUE[1500:]),
        classes=_NAMES,
    )


def labels(rows: Tensor) -> list[str]:
    """Return what points are."""
    return [_NAMES[i] for i in (rows.sum(1) > 0).long().tolist()]


@cache
def better() -> nn.Module:
    """Return a model that is right."""
    return _model(torch.tensor([[8.0, 8.0]]))


@cache
def worse() -> nn.Module:
    """Return a model that looks at the first coordinate alone, and is right of three in four."""
    return _model(torch.tensor([[8.0, 0.0]]))


def publish_both(name: str = "points") -> tuple[ModelVersion, ModelVersion]:
    """Publish the worse as version 1 and the better as version 2."""
    made = [
        publish(model, name, evaluation=evaluate(model, points().test))
        for model in (worse(), better())
    ]
    return made[0], made[1]


def _model(weight: Tensor) -> nn.Module:
    model = build("linear", points(), seed=0)
    fit(model, points(), steps=1, batch_size=500)
    with torch.no_grad():
        model.get_parameter("linear.weight").copy_(weight)
        model.get_parameter("linear.bias").zero_()
    assert attached(model).sample is not None
    return model
