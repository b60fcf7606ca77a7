"""Which rows each step sees: a function of (seed, epoch) alone, so nothing needs saving."""

from __future__ import annotations

import contextlib
import copy
import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from torch.utils.data import Dataset as TorchDataset

from workbench.datasets import Split
from workbench.determinism import OwnDraws, alone, generator, seed_everything
from workbench.errors import RequestError
from workbench.preprocessing import Preprocessing, as_tensor
from workbench.training.augmentations import Augment, Draws

__all__ = ["Batches", "LoaderBatches", "TensorBatches", "Watched", "as_tensors", "own_loader"]

_CHUNK = 4 << 20  # bytes that are gathered and preprocessed at once: small steps share the cost


class Batches(Protocol):
    """Where the loop gets its rows from."""

    batch_size: int
    steps_per_epoch: int
    draws_globally: bool

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Give what `forward` takes and the targets, batch by batch, after the first `skip`."""

    def let_go(self) -> None:
        """Give back what only a training that runs needs."""

    def rows_of(self, number: int, batch: int) -> Sequence[Any] | None:
        """Return which rows of the data a batch of an epoch has; None where nobody can tell."""

    def images_of(self, number: int, rows: Sequence[int]) -> Tensor | None:
        """Return rows as an epoch shows them, augmented, where they are raw images; else None."""


class TensorBatches:
    """The rows of a split in shuffled batches, gathered by index from tensors left as they are.

    Args:
        split: raw rows and targets, in memory or mapped from a file.
        batch_size: rows a step; the last batch of an epoch may be smaller, yet never one row
            alone, of which BatchNorm can learn nothing: that row joins the batch before.
        seed: decides the order of every epoch, and the augmentation of every row in it.
        device: where the rows are to be; moved there once if half of its memory holds them, and
            nothing augments them.
        preprocessing: what makes raw rows into what `forward` takes.
        augment: what varies raw rows before that.
    """

    draws_globally = False

    def __init__(
        self,
        split: Split,
        batch_size: int,
        *,
        seed: int,
        device: torch.device,
        preprocessing: Preprocessing,
        augment: Sequence[Augment] = (),
    ) -> None:
        self.batch_size = min(batch_size, len(split))
        lone = len(split) > 1 and len(split) % self.batch_size == 1
        self.steps_per_epoch = -(-(len(split) - lone) // self.batch_size)
        self._sizes = [self.batch_size] * (len(split) // self.batch_size)
        if lone:
            self._sizes[-1] += 1
        elif rest := len(split) % self.batch_size:
            self._sizes.append(rest)
        self._split = split
        self._inputs: Tensor | None = None
        self._seed, self._device = seed, device
        self._preprocessing, self._augment = preprocessing, augment
        a_batch = 4 * self.batch_size * max(split.inputs[0].numel(), 1)  # as float32
        self._at_once = max(1, _CHUNK // a_batch)

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield what `forward` takes and the targets of each batch of an epoch, counted from 0.

        Args:
            number: of the epoch.
            skip: how many batches to leave out at its start.
        """
        if self._inputs is None:
            resident = not self._augment and _fits(self._split.inputs, self._device)
            self._inputs = self._split.inputs.to(self._device if resident else "cpu")
        order = self._order(number)
        draws = Draws(self._seed, number, len(order))
        starts = [0, *itertools.accumulate(self._sizes)]
        # The chunks lie the same whatever is skipped, and with them each batch in memory: sums may
        # depend on how rows are aligned.
        for first in range(skip - skip % self._at_once, len(self._sizes), self._at_once):
            sizes = self._sizes[first : first + self._at_once]
            rows = order[starts[first] : starts[first + len(sizes)]]
            inputs, targets = self._gather(self._inputs, rows, draws)
            parts = zip(inputs.split(sizes), targets.split(sizes), strict=True)
            yield from itertools.islice(parts, max(0, skip - first), None)

    def let_go(self) -> None:
        """Free the rows on the device."""
        self._inputs = None

    def rows_of(self, number: int, batch: int) -> list[int]:
        """Return the indices of a batch's rows in the split."""
        rows: list[int] = self._order(number).split(self._sizes)[batch].tolist()
        return rows

    def images_of(self, number: int, rows: Sequence[int]) -> Tensor | None:
        """Return rows as an epoch shows them, augmented, where they are raw images; else None."""
        if self._preprocessing.kind != "image":
            return None
        draws = Draws(self._seed, number, len(self._split))
        return self._augmented(self._split.inputs, torch.tensor(rows), draws)

    def _order(self, number: int) -> Tensor:
        draw = generator(self._seed, "order", number)
        return torch.randperm(len(self._split), generator=draw)

    def _gather(self, inputs: Tensor, rows: Tensor, draws: Draws) -> tuple[Tensor, Tensor]:
        inputs = self._preprocessing(self._augmented(inputs, rows, draws).to(self._device))
        return inputs, self._split.targets.index_select(0, rows).to(self._device)

    def _augmented(self, inputs: Tensor, rows: Tensor, draws: Draws) -> Tensor:
        inputs = inputs.index_select(0, rows.to(inputs.device))
        for augment in self._augment:
            inputs = augment(inputs, draws.of(rows))
        return inputs


class LoaderBatches:
    """The batches of a DataLoader of the user's own, its order made a function of (seed, epoch).

    Args:
        loader: gives pairs of inputs and targets.
        seed: of the loader's sampler and workers, and of what its dataset draws.
        device: where the rows are to be.
        preprocessing: what makes its inputs into what `forward` takes.
        batch_size: rows of its first batch.

    Raises:
        RequestError: the loader is empty, or does not know its length.
    """

    draws_globally = True  # as the sampler, the workers and many a dataset do

    def __init__(
        self,
        loader: DataLoader[Any],
        *,
        seed: int,
        device: torch.device,
        preprocessing: Preprocessing,
        batch_size: int,
    ) -> None:
        try:
            self.steps_per_epoch = len(loader)
        except TypeError:
            raise RequestError(
                "the DataLoader does not know its length, which the budget is counted in: "
                "give its dataset a __len__"
            ) from None
        if self.steps_per_epoch == 0:
            raise RequestError("the DataLoader has no batch: give it rows, or drop_last=False")
        self.batch_size = batch_size
        self._loader, self._seed, self._device = loader, seed, device
        self._preprocessing = preprocessing
        batch_sampler: Any = loader.batch_sampler
        inner = getattr(batch_sampler, "sampler", None)
        drawing = [loader, loader.sampler, batch_sampler, inner]
        self._lent = [(one, one.generator) for one in drawing if hasattr(one, "generator")]

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Return the batches of an epoch; those to skip are loaded, and left out, at once.

        Raises:
            RequestError: the loader gives fewer batches than it said.
        """
        batches, draws = self._begun(number)
        with draws:
            for done in range(skip):
                if next(batches, None) is None:
                    raise self._too_few(done)
        return self._ready(batches, skip, draws)

    def rows_of(self, number: int, batch: int) -> Sequence[Any] | None:
        """Return what a batch's rows are called in the loader's dataset; None where it streams."""
        if self._loader.batch_sampler is None or isinstance(self._loader.dataset, IterableDataset):
            return None
        names = own_loader(self._loader)
        names.__dict__.update(dataset=_Names(), collate_fn=list, num_workers=0, timeout=0)
        nobody = LoaderBatches(
            names,
            seed=self._seed,
            device=self._device,
            preprocessing=self._preprocessing,
            batch_size=self.batch_size,
        )
        batches, draws = nobody._begun(number)
        with draws:
            found: Sequence[Any] = next(itertools.islice(batches, batch, None))
        return found

    def images_of(self, number: int, rows: Sequence[int]) -> None:
        """Return None: what a loader gives is no raw image."""

    def _begun(self, number: int) -> tuple[Iterator[Any], AbstractContextManager[Any]]:
        """Return the batches of an epoch as the loader gives them, and what to draw them within."""
        draw = generator(self._seed, "order", number)
        seed = draw.initial_seed() % 2**32
        draws = contextlib.nullcontext() if alone() else OwnDraws(seed)
        if alone():
            seed_everything(seed)  # for what the dataset itself draws
        with draws:
            for one, _ in self._lent:
                one.generator = draw
            self._loader._iterator = None  # workers that persist would keep random states
            return iter(self._loader), draws

    def let_go(self) -> None:
        """Give the loader its own generators back."""
        for one, own in self._lent:
            one.generator = own

    def _ready(
        self, batches: Iterator[Any], done: int, draws: AbstractContextManager[Any]
    ) -> Iterator[tuple[Tensor, Tensor]]:
        for step in range(done, self.steps_per_epoch):
            with draws:
                batch = next(batches, None)
            if batch is None:
                raise self._too_few(step)
            inputs, targets = as_tensors(batch)
            yield self._preprocessing(inputs.to(self._device)), targets.to(self._device)

    def _too_few(self, found: int) -> RequestError:
        return RequestError(
            f"the DataLoader gave {found} batches, its length says {self.steps_per_epoch}: make "
            "__len__ of its dataset say how many rows there are"
        )


class Watched:
    """Batches that somebody looks at before the loop has them.

    Args:
        inner: gives them.
        look: is called right before each step, with its number from 1, its inputs and its targets.
    """

    def __init__(self, inner: Batches, look: Callable[[int, Tensor, Tensor], None]) -> None:
        self._inner, self._look = inner, look
        self.batch_size, self.steps_per_epoch = inner.batch_size, inner.steps_per_epoch
        self.draws_globally = inner.draws_globally
        self.rows_of, self.images_of = inner.rows_of, inner.images_of
        self.let_go = inner.let_go

    def epoch(self, number: int, *, skip: int = 0) -> Iterator[tuple[Tensor, Tensor]]:
        """Give the batches of an epoch after the first `skip`, each when it was looked at."""
        for place, (inputs, targets) in enumerate(self._inner.epoch(number, skip=skip), skip):
            self._look(number * self.steps_per_epoch + place + 1, inputs, targets)
            yield inputs, targets


def own_loader(loader: DataLoader[Any]) -> DataLoader[Any]:
    """Return a loader of the same batches that has samplers and an iterator of its own.

    So two can go through one dataset at a time, each in an order of its own.
    """
    own, sampler = copy.copy(loader), copy.copy(loader.sampler)
    batch_sampler: Any = copy.copy(loader.batch_sampler)
    if getattr(batch_sampler, "sampler", None) is loader.sampler:
        batch_sampler.sampler = sampler
    # not by setattr, which a loader refuses once it is made
    own.__dict__.update(sampler=sampler, batch_sampler=batch_sampler, _iterator=None)
    return own


class _Names(TorchDataset[Any]):
    """Gives for each row what it is called."""

    def __getitem__(self, name: Any) -> Any:
        return name


def as_tensors(batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
    """Return a pair as the losses want it: float32 instead of float64, class indices of int64."""
    inputs, targets = batch
    return as_tensor(inputs), as_tensor(targets) if targets.is_floating_point() else targets.long()


def _fits(inputs: Tensor, device: torch.device) -> bool:
    if device.type != "cuda":
        return True
    free, _ = torch.cuda.mem_get_info(device)
    return inputs.nbytes < free / 2
