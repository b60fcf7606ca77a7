"""What `fit` refuses before anything starts: other kinds of arguments, models not to train."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn
from torch.optim import Optimizer

from workbench.attached import attached
from workbench.errors import RequestError
from workbench.modes import evaluating
from workbench.training.callbacks import Callback
from workbench.types import JSON

__all__ = ["check_free", "check_given", "check_trainable"]


def check_given(model: nn.Module, asked: JSON, callbacks: Sequence[Callback]) -> None:
    """Raise where an argument is of another kind than it could be, as beginners mistake them."""
    if not isinstance(model, nn.Module):
        raise RequestError(
            f"fit takes a model first, got {type(model).__name__}: fit(model, data, ...)"
        )
    if isinstance(callbacks, Callback) or not all(isinstance(c, Callback) for c in callbacks):
        raise RequestError(
            f"callbacks is {callbacks!r:.60}, expected a list of callbacks: "
            "callbacks=[wb.EarlyStopping(3)]"
        )
    if isinstance(asked["optimizer"], Optimizer):
        name = type(asked["optimizer"]).__name__
        raise RequestError(
            f"optimizer is a {name} that is made already, expected a name or a function of "
            f"parameter groups: optimizer=torch.optim.{name}"
        )
    if isinstance(asked["loss"], str):
        raise RequestError(
            f"loss is {asked['loss']!r}, expected a function of (outputs, targets): leave it out "
            "for the one that fits the task"
        )


def check_free(model: nn.Module) -> None:
    """Raise where another training is going on with the model."""
    other = attached(model).training
    if other is not None and other.is_going:
        raise RequestError(
            f"the model is being trained by {other.name!r}: stop() that training, or wait() for it"
        )


def check_trainable(model: nn.Module) -> None:
    """Raise where the model is one that can only be asked, and served."""
    try:
        with evaluating(model):  # gives every flag back, whatever is refused after this
            model.train()
    except NotImplementedError:  # what torch raises for an exported program
        name = attached(model).version or type(model).__name__
        raise RequestError(
            f"{name} is kept as a program, which can be asked and served, not trained: "
            "fit a model made from its class"
        ) from None
