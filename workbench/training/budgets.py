"""How many steps: from epochs, from steps, or from minutes by timing a trial on a copy."""

from __future__ import annotations

import copy
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
from workbench.training.settings import Settings, planned_steps
from workbench.training.trainings import Training

__all__ = [
    "EPOCHS",
    "extended",
    "measured_steps",
    "whole_budget",
]

EPOCHS = 10  # where nothing is said

_WARM_UP = 3  # steps that are not timed: the first ones allocate
_TRIAL = 0.04  # of the budget, at most
_LONG_ENOUGH = 2.0  # seconds of a trial; longer only to see a whole epoch
_SCORED_ROWS = 1_024  # of the validation split, to time it


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
    begun = [p for p in had if not p.added and not p.start]
    if "minutes" in budget:
        minutes = float(budget["minutes"])
        before = sum(p.minutes or 0.0 for p in begun)
        if had and (minutes < before or any(p.minutes is None for p in begun)):
            raise RequestError(
                f"minutes={minutes:g} is not a larger budget than the training was begun with, "
                f"{_told(begun)}: pass that, more, or none to finish it"
            )
        more = minutes - sum(p.minutes or 0.0 for p in had if not p.start)
        return (*had, _in_minutes(more, measure)) if minutes > before and more > 0 else had
    total = planned_steps(
        budget.get("epochs"), budget.get("steps"), steps_per_epoch, default=EPOCHS
    )
    before = sum(p.planned for p in begun)
    if total < before:
        raise RequestError(
            f"a budget of {total:,} steps is less than the training was begun with, "
            f"{_told(begun)}: pass that, more, or none to finish it"
        )
    more_steps = total - sum(p.steps for p in had)
    return (*had, Phase(more_steps, more_steps)) if total > before and more_steps > 0 else had


def extended(
    budget: Mapping[str, Any],
    had: tuple[Phase, ...],
    measure: Callable[[float], int],
    steps_per_epoch: int,
) -> tuple[Phase, ...]:
    """Return the phases of a training that is extended by a budget."""
    if "minutes" in budget:
        return (*had, replace(_in_minutes(float(budget["minutes"]), measure), added=True))
    steps = planned_steps(budget.get("epochs"), budget.get("steps"), steps_per_epoch, default=1)
    return (*had, Phase(steps, steps, added=True))


def _in_minutes(minutes: float, measure: Callable[[float], int]) -> Phase:
    steps = measure(minutes)
    return Phase(steps, steps, minutes)


def _told(phases: Sequence[Phase]) -> str:
    return " and ".join(
        f"minutes={p.minutes:g}" if p.minutes is not None else f"{p.planned:,} steps"
        for p in phases
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
        ends=[n] * n,
        held=job.average.start(model) if job.average else {},
        validation=None,
        clock=None,
        callbacks=(),
        random=None,
        step=0,
        correct=0,
        seen=0,
    )
    with undisturbed():  # also beside other threads: cells wait until the first step is done
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
