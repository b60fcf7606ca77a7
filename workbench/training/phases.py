"""`Phase`: a stretch of a training under one course of the learning rate; many make a budget."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from workbench.training.schedules import Schedule, rates

__all__ = ["Phase", "all_ends", "all_rates", "cut_short", "sized_anew"]


@dataclass(frozen=True)
class Phase:
    """A stretch of a training under one course of the learning rate.

    Args:
        planned: steps that its schedule is sized to.
        steps: steps that are taken of it; fewer where it was stopped, or sized anew.
        minutes: what `planned` was made from, where it was asked for in minutes.
        start: the progress that its schedule begins at; more than 0 where a phase of minutes was
            sized anew on the way, and this is the rest of it.
        added: whether `extend` gave it, beyond the budget of `fit`.
    """

    planned: int
    steps: int
    minutes: float | None = None
    start: float = 0.0
    added: bool = False


def all_rates(phases: Sequence[Phase], schedule: Schedule, lr: float) -> list[float]:
    """Return the learning rate of every step, each phase under a course of its own."""
    courses = ((rates(schedule, p.planned, p.start), p.steps) for p in phases)
    return [lr * share for course, taken in courses for share in course[:taken]]


def all_ends(phases: Sequence[Phase]) -> list[int]:
    """Return for every step the one that its phase was sized to end on, as it was known then.

    >>> all_ends((Phase(planned=4, steps=2), Phase(planned=1, steps=1, start=0.5)))
    [4, 4, 3]
    """
    ends: list[int] = []
    for phase in phases:
        ends += [len(ends) + phase.planned] * phase.steps
    return ends


def cut_short(phases: Sequence[Phase], step: int) -> tuple[Phase, ...]:
    """Return the phases as far as they were taken when `step` steps were done.

    >>> for phase in cut_short((Phase(10, 10), Phase(6, 6)), 12):
    ...     print(phase.planned, phase.steps)
    10 10
    6 2
    """
    taken, left = [], step
    for phase in phases:
        n = min(phase.steps, left)
        left -= n
        if n:
            taken.append(replace(phase, steps=n))
    return tuple(taken)


def sized_anew(phases: Sequence[Phase], step: int, left: int) -> tuple[Phase, ...]:
    """Return the phases with `left` steps after `step`, the rate going on from where it is.

    Args:
        phases: of which `step` is in the last.
        step: how many steps are done in all.
        left: how many are to come.

    >>> phases = sized_anew((Phase(10, 10, minutes=1),), 5, 8)
    >>> [(phase.planned, phase.steps, phase.start) for phase in phases]
    [(10, 5, 0.0), (8, 8, 0.5)]
    """
    done = cut_short(phases, step)
    last = done[-1]
    progress = last.start + (1 - last.start) * last.steps / last.planned
    return (*done, replace(last, planned=left, steps=left, start=progress))
