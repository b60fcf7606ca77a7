"""Curves and rows of bounded length, however long a training is, and what is new in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

__all__ = ["Curve", "Rows"]

_BUCKETS = 1_000  # about one a pixel
_ROWS = 500


class Curve:
    """Smallest, mean and largest value of every bucket of steps.

    Buckets are one step wide at first, and twice as wide whenever there are too many: an outlier
    stays visible, and nobody has to send a million points.

    >>> curve = Curve(most=2)
    >>> curve.update([4.0, 2.0, 3.0])
    0
    >>> curve.bucket, curve.table.tolist()
    (2, [[2.0, 3.0, 4.0], [3.0, 3.0, 3.0]])
    """

    def __init__(self, most: int = _BUCKETS) -> None:
        self.bucket = 1
        self.table: NDArray[np.float32] = np.empty((0, 3), np.float32)
        self._most, self._n = most, 0

    def update(self, values: Sequence[float]) -> int:
        """Take up the values of all steps so far; return the first bucket that has changed."""
        n = len(values)
        if n < self._n:
            self.bucket, self._n = 1, 0
        first = self._n // self.bucket
        while n > self._most * self.bucket:
            self.bucket, first = 2 * self.bucket, 0
        new = np.asarray(values[first * self.bucket : n], float)
        whole = len(new) // self.bucket * self.bucket
        parts = [new[:whole].reshape(-1, self.bucket)]
        if whole < len(new):
            parts.append(new[None, whole:])
        rows = [np.stack([p.min(1), p.mean(1), p.max(1)], 1) for p in parts]
        self.table = np.concatenate([self.table[:first], *rows]).astype(np.float32)
        self._n = n
        return first


class Rows:
    """Rows of epochs: all of them, or every second, fourth, ... where there are many, and the last.

    >>> rows = Rows(most=3)
    >>> rows.update([{"epoch": i} for i in range(1, 6)])
    0
    >>> [row["epoch"] for row in rows.shown]
    [2, 4, 5]
    """

    def __init__(self, most: int = _ROWS) -> None:
        self.shown: list[Mapping[str, float]] = []
        self._most, self._stride, self._n = most, 1, 0

    def update(self, rows: Sequence[Mapping[str, float]]) -> int:
        """Take up the rows of all epochs so far; return the first that has changed."""
        n = len(rows)
        if n < self._n:
            self._stride, self._n = 1, 0
        first = self._n // self._stride
        while n > self._most * self._stride:
            self._stride, first = 2 * self._stride, 0
        self.shown = list(rows[self._stride - 1 : n : self._stride])
        if n % self._stride:
            self.shown.append(rows[n - 1])
        self._n = n
        return first
