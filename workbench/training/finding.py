"""`find_lr`: the loss at ever higher learning rates, on a copy that leaves no trace."""

from __future__ import annotations

import contextlib
import copy
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from torch import nn
from torch.utils.data import DataLoader

from workbench.attached import attached
from workbench.datasets import Dataset
from workbench.determinism import check_seed
from workbench.errors import DivergedError, UnknownNameError
from workbench.modes import settled
from workbench.progress import progress
from workbench.training.callbacks import Callback
from workbench.training.loop import train
from workbench.training.phases import Phase
from workbench.training.planning import ARGUMENTS, make_plan, prepared, taken
from workbench.training.settings import whole
from workbench.training.trainings import Training

if TYPE_CHECKING:
    from workbench.pictures import Picture

__all__ = ["LearningRates", "find_lr"]

_LOWEST, _HIGHEST = 1e-6, 10.0
_TOO_HIGH = 4.0  # times the lowest smoothed loss
_SMOOTHING = 0.95
_TAKEN = sorted({*ARGUMENTS} - {"lr", "schedule", "average"})


@dataclass(frozen=True)
class LearningRates:
    """The losses that a model had at ever higher learning rates.

    Args:
        rates: of each step.
        losses: of each step, smoothed.
        lr: a good peak to try: a tenth of the rate at which the loss was lowest.
    """

    rates: list[float] = field(repr=False)
    losses: list[float] = field(repr=False)
    lr: float

    def plot(self) -> Picture:
        """Return a picture of the loss by rate, with the suggestion marked."""
        from workbench.pictures import Picture

        figure = Picture(7, 3.2)
        axes = figure.subplots()
        axes.semilogx(self.rates, self.losses)
        axes.axvline(self.lr, color="C1", linestyle="--", label=f"lr = {self.lr:.2g}")
        axes.set(xlabel="learning rate", ylabel="loss (smoothed)")
        axes.legend(frameon=False)
        return figure


def find_lr(
    model: nn.Module,
    data: Dataset | DataLoader[Any],
    *,
    steps: int = 100,
    seed: int = 0,
    **settings: Any,
) -> LearningRates:
    """Return the losses at ever higher learning rates, and a good one to try.

    After L. Smith, "Cyclical Learning Rates" (2015); the rule for the suggestion is the common one.
    It works on a copy: model, random numbers and everything remembered are left as they were, so
    that a training is the same with or without it.

    Args:
        model: as for `fit`.
        data: as for `fit`.
        steps: how many rates are tried, from 1e-6 to 10.
        seed: of the order of rows and of dropout.
        settings: others of `fit`, for instance `optimizer` and `batch_size`.

    Raises:
        RequestError: an argument cannot be, or the model does not fit the data.
        DivergedError: the loss is not a number from the first step on.
    """
    check_seed(seed)
    for name in settings:
        if name not in _TAKEN:
            raise UnknownNameError("argument of find_lr", name, _TAKEN)
    given, loader = taken("find_lr", data, model)
    with settled(model):
        twin = copy.deepcopy(model)
    attached(twin).__dict__.update(vars(attached(model)))
    factor = (_HIGHEST / _LOWEST) ** (1 / max(1, whole("steps", steps) - 1))
    rates = [_LOWEST * factor**i for i in range(steps)]
    with progress(steps, "trying learning rates", unit="step") as bar:
        plan = make_plan(
            twin,
            given,
            {**settings, "seed": int(seed), "schedule": "constant", "average": "none"},
            loader=loader,
            callbacks=[_Counted(bar.update)],
            then=None,
        )
        training = Training(replace(plan.settings, phases=(Phase(steps, steps),)), Path())
        plan.job.rates, plan.job.validation = rates, None
        with (
            prepared(twin, plan.settings),
            contextlib.suppress(DivergedError),  # which is what the highest rates are for
        ):
            train(plan.job, training)
        plan.job.let_go()
    losses = _smoothed(training.history["loss"])
    if not losses:
        raise DivergedError(
            f"the loss of {plan.settings.model} is not a number at a learning rate of {_LOWEST:g}: "
            "look for NaN in its weights"
        )
    lowest = losses.index(min(losses))
    end = next(
        (i for i in range(lowest, len(losses)) if losses[i] > _TOO_HIGH * losses[lowest]),
        len(losses),
    )
    return LearningRates(rates[:end], losses[:end], lr=rates[lowest] / 10)


def _smoothed(values: list[float]) -> list[float]:
    """Return the moving average of the numbers up to the first that is none, without its bias."""
    total, smooth = 0.0, []
    for i, value in enumerate(values, 1):
        total = _SMOOTHING * total + (1 - _SMOOTHING) * value
        if not abs(total) < float("inf"):
            break
        smooth.append(total / (1 - _SMOOTHING**i))
    return smooth


class _Counted(Callback):
    """Moves a bar on."""

    def __init__(self, update: Any) -> None:
        self._update = update

    def on_step(self, training: Training, step: int) -> None:
        self._update(1)
