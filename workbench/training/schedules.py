"""The learning rate of every step, known before the first one."""

from __future__ import annotations

__all__ = ["triangle"]

_START, _PEAK_AT = 0.2, 0.23  # of the peak; of the budget (K. Jordan, airbench, 2024)


def triangle(steps: int) -> list[float]:
    """Return the share of the peak learning rate at each step: up for 23 %, then down towards 0.

    Sized to the budget, so that a short training ends as settled as a long one.

    Args:
        steps: how many there are, at least 1.

    >>> [round(share, 2) for share in triangle(10)]
    [0.2, 0.6, 1.0, 0.88, 0.75, 0.62, 0.5, 0.38, 0.25, 0.12]
    """
    peak = round(_PEAK_AT * steps)
    up = [_START + (1 - _START) * i / peak for i in range(peak)]
    return up + [1 - i / (steps - peak) for i in range(steps - peak)]
