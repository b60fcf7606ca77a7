"""How sure a share or a difference is, from counts and scores alone.

Needs no torch, and of scipy only its special functions: scipy.stats takes most of a second to
import.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import NormalDist

__all__ = ["LEVEL", "mcnemar", "paired_t", "wilson"]

LEVEL = 0.95  # of an interval that nobody asked another of


def wilson(right: int, n: int, level: float = LEVEL) -> tuple[float, float]:
    """Return where a share lies with confidence `level`, of few rows and of shares of 0 and 1 too.

    Wilson, "Probable inference, the law of succession, and statistical inference" (1927).

    Args:
        right: how many were.
        n: of how many, one or more.
        level: above 0 and below 1.

    >>> low, high = wilson(10, 10)
    >>> round(low, 3), high
    (0.722, 1.0)
    """
    z = NormalDist().inv_cdf(0.5 + level / 2)
    share, z2 = right / n, z * z
    middle = (share + z2 / (2 * n)) / (1 + z2 / n)
    half = z / (1 + z2 / n) * math.sqrt(share * (1 - share) / n + z2 / (4 * n * n))
    return max(0.0, middle - half), min(1.0, middle + half)


def mcnemar(only_first: int, only_second: int) -> float:
    """Return how likely so unequal counts are where both are equally good: McNemar's exact test.

    Of the rows that one alone gets right, the first would have half: the two-sided binomial test.
    McNemar, "Note on the sampling error of the difference between correlated proportions" (1947).

    Args:
        only_first: rows that the first alone gets right.
        only_second: rows that the second alone gets right.

    >>> mcnemar(6, 0)
    0.03125
    """
    from scipy.special import bdtr

    rows = only_first + only_second
    return min(1.0, 2 * float(bdtr(min(only_first, only_second), rows, 0.5))) if rows else 1.0


def paired_t(first: Sequence[float], second: Sequence[float]) -> float:
    """Return how likely so large a mean difference is where there is none: the paired t-test.

    Student, "The probable error of a mean" (1908). Differences that are all 0, or fewer than two,
    show nothing: 1.

    Args:
        first: a score a row, each finite, however great.
        second: a score of each of the same rows.
    """
    from scipy.special import stdtr

    largest = max((abs(score) for score in (*first, *second)), default=0.0)
    if largest == 0:
        return 1.0
    differences = [a / largest - b / largest for a, b in zip(first, second, strict=True)]
    n = len(differences)
    mean = math.fsum(differences) / n
    if n < 2 or mean == 0:
        return 1.0
    variance = math.fsum((d - mean) ** 2 for d in differences) / (n - 1)
    if variance == 0:
        return 0.0
    return 2 * float(stdtr(n - 1, -abs(mean) / math.sqrt(variance / n)))
