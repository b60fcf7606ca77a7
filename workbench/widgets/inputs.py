"""`Inputs`: raw rows as the page takes them, alone or small: images, or the values of columns."""

from __future__ import annotations

from workbench.datasets import Split
from workbench.datasets.overviews import column_names, is_image
from workbench.types import JSON
from workbench.widgets.figures import rounded
from workbench.widgets.images import SMALL, address_of, brightest, shrunk

__all__ = ["Inputs"]

_LARGE = 224  # pixels of the longer side of an image alone
_COLUMNS, _FEATURES = 30, 100  # of a row that are shown among others, and alone


class Inputs:
    """How the rows of a split look.

    Args:
        split: images of one or three channels are shown as such; of all else each row's values.
    """

    def __init__(self, split: Split) -> None:
        self._inputs = split.inputs
        shape = split.inputs.shape[1:]
        self.are_images = is_image(split)
        self.white = brightest(split.inputs) if self.are_images else 1
        width = split.inputs[0].numel()
        names = [] if self.are_images else column_names(split.features, width)
        self._names = names[:_FEATURES]
        self._more = len(names) - len(self._names)
        self.page = 20 if not self.are_images else 24 if max(shape[:2]) <= SMALL // 2 else 12

    def about(self) -> JSON:
        """Return what holds for all rows: their kind, and what the columns are called."""
        names = self._names[:_COLUMNS]
        more = self._more + len(self._names) - len(names)
        pixels = self.are_images and max(self._inputs.shape[1:3]) <= SMALL
        kind = "image" if self.are_images else "table"
        return {"kind": kind, "columns": names, "more_columns": more, "pixels": pixels}

    def small(self, index: int) -> JSON:
        """Return a row among others: a small image, or its first values."""
        if self.are_images:
            return {"src": address_of(shrunk(self._inputs[index], SMALL), self.white)}
        return {"values": self._values(index)[:_COLUMNS]}

    def large(self, index: int) -> JSON:
        """Return a row alone: an image of up to 224 pixels, or as many values with their names."""
        if self.are_images:
            return {"src": address_of(shrunk(self._inputs[index], _LARGE), self.white)}
        features = [list(pair) for pair in zip(self._names, self._values(index), strict=True)]
        return {"features": features, "more": self._more}

    def _values(self, index: int) -> list[float | None]:
        values = self._inputs[index].reshape(-1)[: len(self._names)].double()
        return [rounded(value) for value in values.tolist()]
