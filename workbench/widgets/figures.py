"""Figures as JSON has them, which knows no number that is none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import SupportsFloat

__all__ = ["plain", "plain_row", "rounded"]


def plain(value: SupportsFloat | None) -> float | None:
    """Return a figure, or None in place of one that is not finite, or missing.

    >>> plain(0.5), plain(float("nan")), plain(None)
    (0.5, None, None)
    """
    number = math.nan if value is None else float(value)
    return number if math.isfinite(number) else None


def plain_row(figures: Mapping[str, SupportsFloat | None]) -> dict[str, float | None]:
    """Return figures by name, None in place of those that are not finite."""
    return {name: plain(value) for name, value in figures.items()}


def rounded(value: float) -> float | None:
    """Return a figure in six digits, or None in place of one that is not finite.

    >>> rounded(2 / 3), rounded(float("nan"))
    (0.666667, None)
    """
    return plain(float(f"{value:.6g}"))
