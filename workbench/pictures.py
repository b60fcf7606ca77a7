"""A matplotlib figure that shows itself in a notebook, whether or not pyplot was ever loaded."""

from __future__ import annotations

import io
from typing import Any

from matplotlib.figure import Figure

__all__ = ["Picture"]


class Picture(Figure):
    """A figure outside pyplot's global list: shown once, by the cell that returns it.

    Args:
        width: in inches.
        height: in inches.
    """

    def __init__(self, width: float, height: float, **options: Any) -> None:
        super().__init__(figsize=(width, height), layout="constrained", **options)

    def _repr_png_(self) -> bytes:
        content = io.BytesIO()
        self.savefig(content, format="png", dpi=80)
        return content.getvalue()
