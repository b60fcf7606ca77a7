"""What is remembered of a model while it lives, beside it and never inside its state dict."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from torch import Tensor, nn

from workbench.types import JSON

if TYPE_CHECKING:
    from workbench.preprocessing import Preprocessing
    from workbench.training import Training

__all__ = ["EXAMPLE_ROWS", "Attached", "attached"]

EXAMPLE_ROWS = 4  # raw rows kept to show what a model takes


@dataclass
class Attached:
    """What `build`, `fit` and `load` leave beside a model for `publish`, `predict` and `serve`.

    Args:
        architecture: builder name and sizes, where `build` made the model.
        preprocessing: what turns raw inputs into what `forward` takes.
        example: a few raw rows, shaped (rows, ...).
        training: the last call to `fit`.
        version: the reference of the model version it was loaded from.
    """

    architecture: JSON | None = None
    preprocessing: Preprocessing | None = None
    example: Tensor | None = None
    training: Training | None = None
    version: str | None = None


_models: WeakKeyDictionary[nn.Module, Attached] = WeakKeyDictionary()


def attached(model: nn.Module) -> Attached:
    """Return what is remembered of `model`, empty at first; change it in place."""
    return _models.setdefault(model, Attached())
