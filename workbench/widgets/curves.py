"""Curves and rows of bounded length, however long a training is, and what is new in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "Rows"]

_BUCKETS = 1_000  # about one a pixel
_ROWS = 500


class _Bounded:
    """Counts values, of which it shows one for every so many; for twice as many when too many."""

    def __init__(self, most: int) -> None:
        self.n = 0
        self._most, self._apart = most, 1

    def _grow(self, n: int) -> int:
        """Take note that there are `n` values; return the first that is shown otherwise now."""
        if n < self.n:
            self._apart, self.n = 1, 0
        first = self.n // self._apart
        while n > self._most * self._apart:
            self._apart, first = 2 * self._apart, 0
        self.n = n
        return first


class Curve(_Bounded):
    """Smallest, mean and largest value of every bucket of steps.

    Buckets are one step wide at first, and twice as wide whenever there are too many: an outlier
    stays visible, and nobody has to send a million points.

    >>> curve = Curve(most=2)
    >>> curve.update([4.0, 2.0, 3.0], 3)
    0
    >>> curve.bucket, curve.table.tolist()
    (2, [[2.0, 3.0, 4.0], [3.0, 3.0, 3.0]])
    """

    def __init__(self, most: int = _BUCKETS) -> None:
        super().__init__(most)
        self.table: NDArray[np.float32] = np.empty((0, 3), np.float32)

    @property
    def bucket(self) -> int:
        """Steps a bucket."""
        return self._apart

    def update(self, values: Sequence[float], n: int) -> int:
        """Take up the values of the first `n` steps; return the first bucket that has changed."""
        first = self._grow(n)
        new = np.asarray(values[first * self.bucket : n], float)
        whole = len(new) // self.bucket * self.bucket
        parts = [new[:whole].reshape(-1, self.bucket)]
        if whole < len(new):
            parts.append(new[None, whole:])
        rows = [np.stack([p.min(1), p.mean(1), p.max(1)], 1) for p in parts]
        self.table = np.concatenate([self.table[:first], *rows]).astype(np.float32)
        return first


class Rows(_Bounded):
    """Rows of epochs: all of them, or every second, fourth, ... where there are many, and the last.

    >>> rows = Rows(most=3)
    >>> rows.update([{"epoch": i} for i in range(1, 6)], 5)
    0
    >>> [row["epoch"] for row in rows.shown]
    [2, 4, 5]
    """

    def __init__(self, most: int = _ROWS) -> None:
        super().__init__(most)
        self.shown: list[Mapping[str, float]] = []

    def update(self, rows: Sequence[Mapping[str, float]], n: int) -> int:
        """Take up the rows of the first `n` epochs; return the first that has changed."""
        first = self._grow(n)
        self.shown = list(rows[self._apart - 1 : n : self._apart])
        if n % self._apart:
            self.shown.append(rows[n - 1])
        return first
