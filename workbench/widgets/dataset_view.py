"""`DatasetView`: a dataset to look at: its rows, what there is of each class, what is usual."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from workbench.datasets import Dataset, Split
from workbench.datasets.overviews import (
    balance,
    column_names,
    find_rows,
    mean_images,
    parts,
    statistics,
)
from workbench.errors import UnknownNameError
from workbench.pictures import Picture
from workbench.progress import is_live
from workbench.training.augmentations import AUGMENTATIONS, Draws
from workbench.types import JSON
from workbench.widgets.faces import Face, action, checked_place, css, javascript
from workbench.widgets.images import SMALL, address_of, shrunk
from workbench.widgets.inputs import Inputs

__all__ = ["DatasetView", "dataset"]

_IMAGES, _ROWS = 60, 20  # a page
_TOLD = 100  # columns, or classes of images, whose statistics are told
_VALUES = 2**22  # of pixels whose distribution is told
_BINS = 30
_VARIED, _EPOCHS = 6, 5  # images, and how often each is varied
_STILL = 24


def dataset(data: Dataset) -> DatasetView | Picture:
    """Return a view of a dataset to browse in; a picture of it where no page lives."""
    view = DatasetView(data)
    return view if is_live() else view.picture()


class DatasetView(Face):
    """Shows rows page by page, found by class, split and search; balance, statistics, augmentation.

    Args:
        data: to be looked at.
    """

    _esm = javascript("faces", "plots", "rows", "dataset")
    _css = css("dataset")

    def __init__(self, data: Dataset) -> None:
        super().__init__()
        self._data = data
        self._split_name, self._tab, self._of, self._search = "train", "rows", "", ""
        self._page, self._column = 0, ""
        self._row: int | None = None  # that is looked at alone
        self._augment: tuple[str, ...] = ("mirror",)
        self._found = torch.arange(len(data.train))
        self._inputs = {"train": Inputs(data.train)}
        self._are_images, self._white = self._looks.are_images, self._looks.white
        width = data.train.inputs[0].numel()
        self._columns = [] if self._are_images else column_names(data.features, width)
        self._means: dict[str, JSON] = {}
        self.refresh()

    @action
    def open_tab(self, tab: str) -> None:
        """Show `"rows"`, `"balance"`, `"statistics"` or, of images, `"augmentation"`."""
        if tab not in self._tabs():
            raise UnknownNameError("part of the view", tab, self._tabs())
        self._tab = tab

    @action
    def choose(self, split: str, of: str = "", search: str = "") -> None:
        """Show the rows of a split, all or those of one class, and of these what is sought."""
        if split not in parts(self._data):
            raise UnknownNameError("split", split, parts(self._data))
        rows = find_rows(parts(self._data)[split], of=of, search=search, columns=self._columns)
        self._split_name, self._of, self._search = split, of, search
        self._found, self._page, self._row = rows, 0, None

    @action
    def open_row(self, row: int) -> None:
        """Show a row of the split alone, in full; none for -1."""
        self._row = None if row == -1 else checked_place("row", row, len(self._split))

    @action
    def turn(self, page: int) -> None:
        """Show a page of the rows that were found, counted from 0."""
        self._page = checked_place("page", page, self._pages())

    @action
    def examine(self, column: str) -> None:
        """Show how the values of a column are distributed."""
        if column not in self._columns:
            raise UnknownNameError("column", column, self._columns)
        self._column = column

    @action
    def vary(self, augment: list[str]) -> None:
        """Show what augmentations, one after the other, make of the images."""
        for name in augment:
            if name not in AUGMENTATIONS:
                raise UnknownNameError("augmentation", name, AUGMENTATIONS)
        self._augment = tuple(augment)

    def draw(self) -> JSON:
        """Return what is to be seen now."""
        data = self._data
        about = {
            "title": f"Dataset {data.name}",
            "name": data.name,
            "card": [data.card.description, data.card.source, data.card.licence],
            "fingerprint": data.fingerprint[:12],
            "shape": "×".join(map(str, data.train.inputs.shape[1:])),
            "splits": [[name, len(split)] for name, split in parts(data).items()],
            "classes": list(data.classes),
            **self._looks.about(),
            "tabs": self._tabs(),
            "tab": self._tab,
            "split": self._split_name,
            "of": self._of,
            "search": self._search,
        }
        part: JSON = getattr(self, f"_{self._tab}")()
        return about | part

    def picture(self) -> Picture:
        """Return some images of the training split, or how its targets are distributed."""
        if self._are_images:
            return _some_images(self._data.train, self._white)
        return _targets(self._data)

    def __repr__(self) -> str:
        return repr(self._data)

    @property
    def _split(self) -> Split:
        return parts(self._data)[self._split_name]

    @property
    def _looks(self) -> Inputs:
        """How the rows of the split look, found out once."""
        if self._split_name not in self._inputs:
            self._inputs[self._split_name] = Inputs(self._split)
        return self._inputs[self._split_name]

    def _tabs(self) -> list[str]:
        tabs = ["rows", "balance", "statistics"]
        return [*tabs, "augmentation"] if self._are_images else tabs

    def _pages(self) -> int:
        size = _IMAGES if self._are_images else _ROWS
        return max(1, -(-len(self._found) // size))

    def _rows(self) -> JSON:
        size = _IMAGES if self._are_images else _ROWS
        indices = self._found[self._page * size : (self._page + 1) * size].tolist()
        looks, split = self._looks, self._split
        rows = [{"row": i, "label": _said(split, i), **looks.small(i)} for i in indices]
        page = {"page": self._page, "pages": self._pages(), "found": len(self._found)}
        i = self._row
        alone = None if i is None else {"row": i, "label": _said(split, i), **looks.large(i)}
        return {**page, "rows": rows, "alone": alone}

    def _small(self, image: Tensor) -> str:
        return address_of(shrunk(image, SMALL), self._white)

    def _balance(self) -> JSON:
        if self._data.classes:
            counts = balance(self._data)
            return {"counts": {name: counts[name].tolist() for name in counts}}
        values = {name: split.targets.reshape(-1) for name, split in parts(self._data).items()}
        edges = _edges(torch.cat(list(values.values())))
        return {"edges": edges, "counts": {n: _counts(v, edges) for n, v in values.items()}}

    def _statistics(self) -> JSON:
        if self._split_name not in self._means:
            made = self._of_images() if self._are_images else self._of_columns()
            self._means[self._split_name] = made
        found = self._means[self._split_name]
        if self._are_images:
            return found
        name = self._column or self._columns[0]
        rows = self._split.inputs.reshape(len(self._split), -1)
        values = rows[:, self._columns.index(name)]
        edges = _edges(values)
        groups = {c: values[self._split.targets == i] for i, c in enumerate(self._data.classes)}
        few = groups if 0 < len(groups) <= 4 else {"all": values}
        counts = {of: _counts(v, edges) for of, v in few.items()}
        return {**found, "column": name, "edges": edges, "counts": counts}

    def _of_images(self) -> JSON:
        split = self._split
        means = {name: self._small(mean) for name, mean in mean_images(split, _TOLD).items()}
        most = max(1, min(len(split), _VALUES // split.inputs[0].numel()))
        some = split.inputs[torch.linspace(0, len(split) - 1, most).long()]
        values = some.reshape(-1).float()
        edges = _edges(values)
        said = [len(split), float(values.mean()), float(values.std()), float(values.max())]
        return {"means": means, "edges": edges, "counts": {"pixels": _counts(values, edges)},
                "values": said, "told": _TOLD}  # fmt: skip

    def _of_columns(self) -> JSON:
        found = statistics(self._split, self._columns[:_TOLD])
        table = [[name, *map(float, row)] for name, row in zip(found.index, found.to_numpy(),
                                                               strict=True)]  # fmt: skip
        more = len(self._columns) - len(table)
        return {"table": table, "names": self._columns[:_TOLD], "more_columns": more}

    def _augmentation(self) -> JSON:
        rows = self._found[:_VARIED]
        images, made = self._split.inputs[rows], []
        for epoch in range(_EPOCHS):
            draws, varied = Draws(0, epoch, len(self._split)).of(rows), images
            for name in self._augment:
                varied = AUGMENTATIONS[name](varied, draws)
            made.append([self._small(image) for image in varied])
        originals = [self._small(image) for image in images]
        labels = [_said(self._split, i) for i in rows.tolist()]
        known = list(AUGMENTATIONS)
        return {"originals": originals, "labels": labels, "epochs": made, "known": known,
                "augment": list(self._augment)}  # fmt: skip


def _said(split: Split, index: int) -> str:
    """Return what a row is: its class, or its values."""
    target = split.targets[index]
    if split.classes:
        return split.classes[int(target)]
    return ", ".join(f"{value:.4g}" for value in target.reshape(-1).tolist())


def _edges(values: Tensor) -> list[float]:
    edges: list[float] = np.histogram_bin_edges(values.double().numpy(), _BINS).tolist()
    return edges


def _counts(values: Tensor, edges: list[float]) -> list[int]:
    counts: list[int] = np.histogram(values.double().numpy(), edges)[0].tolist()
    return counts


def _some_images(split: Split, white: int) -> Picture:
    """Return the first images of a split, each with its class."""
    n = min(_STILL, len(split))
    columns = min(8, n)
    figure = Picture(1.1 * columns, 1.25 * -(-n // columns))
    for axes in (grid := figure.subplots(-(-n // columns), columns, squeeze=False)).flat:
        axes.axis("off")
    for i, axes in enumerate(grid.flat[:n]):
        image = split.inputs[i]
        pixels = image.squeeze(-1) if image.ndim == 3 else image
        axes.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=white)
        axes.set_title(_said(split, i), fontsize=8)
    return figure


def _targets(data: Dataset) -> Picture:
    """Return how many rows there are of each class, or how the targets are distributed."""
    figure = Picture(6, 2.8)
    axes: Any = figure.subplots()
    if data.classes:
        balance(data).plot.barh(stacked=True, ax=axes, color=["C0", "C1", "C2"], width=0.7)
        axes.set(xlabel="rows", ylabel="")
    else:
        axes.hist(data.train.targets.reshape(-1).numpy(), bins=_BINS, color="C0")
        axes.set(xlabel="target", ylabel="training rows")
    axes.set_title(repr(data), fontsize=8)
    return figure
