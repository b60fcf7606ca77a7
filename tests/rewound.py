"""Trainings to go back in, and their weights to compare bit for bit."""

from __future__ import annotations

import warnings
from typing import Any

from torch import nn
from trainings import CASES, bits

from workbench import fit, list_trainings
from workbench.training import Callback, Training
from workbench.training.checkpoints import tensors_of
from workbench.training.recorded import RecordedTraining

__all__ = ["fitted", "recorded", "weights"]


def weights(model: nn.Module) -> dict[str, Any]:
    """Return all parameters and buffers by name, their bits."""
    return {name: bits(tensor.detach()) for name, tensor in tensors_of(model).items()}


def fitted(case: str, *callbacks: Callback, **how: Any) -> tuple[Training, nn.Module]:
    """Train one of the cases that a kill is survived by; keep the model, or it is let go of."""
    model, data, usual = CASES[case]()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that F.dropout draws, that a loader's data is unknown
        return fit(model, data, callbacks=callbacks, **{**usual, **how}), model


def recorded(name: str) -> RecordedTraining:
    """Return a training as its files tell, as after a restart of the kernel."""
    found = list_trainings()[name]
    assert isinstance(found, RecordedTraining)
    return found
