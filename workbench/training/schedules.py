"""Learning rates: how large a share of the peak, as a function of how much of the budget is done.

Each is a plain function from progress, 0 at the first step and towards 1 at the last, to a share of
the peak rate; a function of your own is one too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

__all__ = [
    "SCHEDULES",
    "Schedule",
    "constant",
    "cosine",
    "one_cycle",
    "rates",
    "step_decay",
    "triangle",
]

Schedule = Callable[[float], float]


def constant(progress: float) -> float:
    """Return 1, whatever the progress."""
    return 1.0


def step_decay(progress: float) -> float:
    """Return 1, from half of the budget on 0.1, from three quarters on 0.01.

    As in "Deep Residual Learning" (He et al., 2015) for CIFAR-10.

    >>> [step_decay(p) for p in (0, 0.5, 0.75)]
    [1.0, 0.1, 0.01]
    """
    return 1.0 if progress < 0.5 else 0.1 if progress < 0.75 else 0.01


def cosine(progress: float) -> float:
    """Return half a cosine from 1 down to 0 (Loshchilov and Hutter, SGDR, 2016).

    >>> [round(cosine(p), 2) for p in (0, 0.25, 0.5, 1)]
    [1.0, 0.85, 0.5, 0.0]
    """
    return (1 + math.cos(math.pi * progress)) / 2


def one_cycle(progress: float) -> float:
    """Return half a cosine up from 1/25 to 1 in a quarter of the budget, then one down to 0.

    After L. Smith, "Super-Convergence" (2017), in the form that fastai made common.

    >>> [round(one_cycle(p), 2) for p in (0, 0.125, 0.25, 0.625, 1)]
    [0.04, 0.52, 1.0, 0.5, 0.0]
    """
    if progress < 0.25:
        return 1 / 25 + (1 - 1 / 25) * (1 - cosine(progress / 0.25))
    return cosine((progress - 0.25) / 0.75)


def triangle(progress: float) -> float:
    """Return a straight line up from 0.2 to 1 in 23 % of the budget, then one down to 0.

    From K. Jordan, "94% on CIFAR-10 in 3.29 Seconds on a Single GPU" (2024).

    >>> [round(triangle(p), 2) for p in (0, 0.115, 0.23, 0.615, 1)]
    [0.2, 0.6, 1.0, 0.5, 0.0]
    """
    return 0.2 + 0.8 * progress / 0.23 if progress < 0.23 else (1 - progress) / 0.77


SCHEDULES: Mapping[str, Schedule] = {
    f.__name__: f for f in (constant, cosine, one_cycle, step_decay, triangle)
}


def rates(schedule: Schedule, steps: int, start: float = 0.0) -> list[float]:
    """Return the share of the peak rate at each of `steps` steps, from the progress `start` on.

    >>> rates(step_decay, 4)
    [1.0, 1.0, 0.1, 0.01]
    >>> rates(step_decay, 4, 0.5)
    [0.1, 0.1, 0.01, 0.01]
    """
    return [float(schedule(start + (1 - start) * i / steps)) for i in range(steps)]
