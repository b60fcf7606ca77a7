"""How many steps: from epochs, from steps, or from minutes by timing a trial on a copy."""

from __future__ import annotations

import copy
import math
import time
import weakref
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from workbench.determinism import undisturbed
from workbench.errors import RequestError
from workbench.training.clocks import Clock, Pace
from workbench.training.jobs import Job
from workbench.training.loop import train
from workbench.training.optimizers import Maker, make_optimizer
from workbench.training.phases import Phase
from workbench.training.scores import validate
from workbench.training.settings import Settings, number, whole
from workbench.training.trainings import Training
from workbench.types import JSON

__all__ = [
    "extended",
    "measured_steps",
    "one_budget",
    "planned_steps",
    "whole_budget",
]

_EPOCHS = 10  # where nothing is said

_WARM_UP = 3  # steps that are not timed: the first ones allocate
_TRIAL = 0.04  # of the budget, at most
_LONG_ENOUGH = 2.0  # seconds of a trial; longer only to see a whole epoch
_SCORED_ROWS = 1_024  # of the validation split, to time it


def planned_steps(
    epochs: float | None, steps: int | None, steps_per_epoch: int, *, default: float
) -> int:
    """Return how many steps a budget in epochs or steps comes to.

    Args:
        epochs: passes over the training rows; may be a fraction.
        steps: updates, instead.
        steps_per_epoch: steps of one pass.
        default: epochs, where neither is given.

    Raises:
        RequestError: it is no number, or not more than 0.
    """
    if steps is not None:
        return whole("steps", steps)
    amount = number("epochs", default if epochs is None else epochs)
    if not 0 < amount < math.inf:
        raise RequestError(f"epochs must be more than 0, got {amount}")
    return max(1, round(amount * steps_per_epoch))


def one_budget(given: Mapping[str, Any]) -> JSON:
    """Return the budget that was given, of which there can be one: epochs, steps or minutes.

    Raises:
        RequestError: there are several, or the minutes are no number, or not more than 0.
    """
    found = {name: value for name, value in given.items() if value is not None}
    if len(found) > 1:
        listed = ", ".join(f"{name}={value}" for name, value in found.items())
        raise RequestError(f"give epochs, steps or minutes, and one of them only: got {listed}")
    if "minutes" in found and not 0 < number("minutes", found["minutes"]) < math.inf:
        raise RequestError(f"minutes must be more than 0, got {found['minutes']}")
    return found


def whole_budget(
    budget: Mapping[str, Any],
    then: Settings | None,
    measure: Callable[[float], int],
    steps_per_epoch: int,
) -> tuple[Phase, ...]:
    """Return the phases of a whole budget, of which a training that goes on has had some."""
    had = then.phases if then else ()
    if had and not budget:
        return had
    if "minutes" in budget:
        spent = sum(phase.minutes or 0.0 for phase in had if not phase.start)
        more = float(budget["minutes"]) - spent
        if had and (more < 0 or any(phase.minutes is None for phase in had)):
            raise RequestError(
                f"minutes={budget['minutes']:g} is not a larger budget than the training was begun "
                f"with, {_told(had)}: pass that, more, or none to finish it"
            )
        return had if had and more == 0 else (*had, _in_minutes(more, measure))
    total = planned_steps(
        budget.get("epochs"), budget.get("steps"), steps_per_epoch, default=_EPOCHS
    )
    more_steps = total - sum(phase.steps for phase in had)
    if more_steps < 0:
        raise RequestError(
            f"a budget of {total:,} steps is less than the training was begun with, {_told(had)}: "
            "pass that, more, or none to finish it"
        )
    return (*had, Phase(more_steps, more_steps)) if more_steps else had


def extended(
    budget: Mapping[str, Any],
    had: tuple[Phase, ...],
    measure: Callable[[float], int],
    steps_per_epoch: int,
) -> tuple[Phase, ...]:
    """Return the phases of a training that is extended by a budget."""
    if "minutes" in budget:
        return (*had, _in_minutes(float(budget["minutes"]), measure))
    steps = planned_steps(budget.get("epochs"), budget.get("steps"), steps_per_epoch, default=1)
    return (*had, Phase(steps, steps))


def _in_minutes(minutes: float, measure: Callable[[float], int]) -> Phase:
    steps = measure(minutes)
    return Phase(steps, steps, minutes)


def _told(phases: Sequence[Phase]) -> str:
    return " and ".join(
        f"minutes={p.minutes:g}" if p.minutes is not None else f"{p.steps:,} steps"
        for p in phases
        if not p.start
    )


def measured_steps(
    job: Job, settings: Settings, minutes: float, *, since: float, maker: Maker | None
) -> int:
    """Return how many steps fit into some minutes, by taking a few on a copy of the model.

    Validation after each epoch is counted in. The model, its optimizer and all random states are
    left as they were. The job gets a clock, which sizes what is left anew on the way.

    Args:
        job: about to be trained.
        settings: of the training.
        minutes: in all, from `since` on.
        since: when the time began, by `time.perf_counter`.
        maker: of an optimizer of the user's own.

    Raises:
        RequestError: not one step fits.
    """
    seconds = 60 * minutes
    began = time.perf_counter()
    a_step = _seconds_of_a_step(job, settings, _TRIAL * seconds, maker)
    if settings.compile:
        seconds -= time.perf_counter() - began  # as long as the model itself will take to compile
    pace = Pace(a_step, _seconds_of_a_score(job), settings.steps_per_epoch)
    left = seconds - (time.perf_counter() - since)
    steps = pace.steps_in(left)
    if steps < 1:
        raise RequestError(
            f"minutes={minutes:g} is over before the first step, which takes {a_step:.2g} s after "
            f"{seconds - left:.1f} s of preparation: give it more"
        )
    job.clock = Clock(pace, left)
    return steps


def _seconds_of_a_step(job: Job, settings: Settings, seconds: float, maker: Maker | None) -> float:
    """Time steps on a copy for some seconds; return what one takes."""
    taken = _trial(job, settings, _WARM_UP, maker)
    n = max(2 * _WARM_UP, int(seconds / (taken / _WARM_UP)))
    n = min(n, max(settings.steps_per_epoch, int(_LONG_ENOUGH / (taken / _WARM_UP))))
    return _trial(job, settings, n, maker) / n


def _trial(job: Job, settings: Settings, n: int, maker: Maker | None) -> float:
    """Take `n` steps on a copy at a rate of almost 0; return the seconds."""
    model = copy.deepcopy(job.model)
    trial = replace(settings, phases=(Phase(n, n),))
    twin = replace(
        job,
        model_ref=weakref.ref(model),
        optimizer=make_optimizer(model, trial, maker),
        rates=[1e-12 * settings.lr] * n,
        held=job.average.start(model) if job.average else {},
        validation=None,
        clock=None,
        callbacks=(),
        random=None,
        step=0,
        correct=0,
        seen=0,
    )
    with undisturbed():
        started = time.perf_counter()
        train(twin, Training(trial, Path()))
        return time.perf_counter() - started


def _seconds_of_a_score(job: Job) -> float:
    if job.validation is None:
        return 0.0
    rows = torch.arange(min(len(job.validation), _SCORED_ROWS))
    few = replace(job, validation=job.validation.rows(rows))
    validate(few)  # the first one allocates
    started = time.perf_counter()
    validate(few)
    return (time.perf_counter() - started) * len(job.validation) / len(rows)
