"""Batches: gathered in chunks as row by row, and a DataLoader whose order is of (seed, epoch)."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    IterableDataset,
    RandomSampler,
    TensorDataset,
)
from torch.utils.data import Dataset as TorchDataset

from workbench.attached import attached
from workbench.datasets import Split, dataset
from workbench.determinism import generator, seed_everything
from workbench.errors import RequestError
from workbench.evaluation import evaluate, predict
from workbench.models import build
from workbench.preprocessing import Preprocessing
from workbench.training import History, fit
from workbench.training import batches as batches_module
from workbench.training.augmentations import Draws, mirror, shift
from workbench.training.batches import LoaderBatches, TensorBatches

CPU = torch.device("cpu")
AS_IT_IS = Preprocessing("tensor", (4,), "float32")


def rows(n: int = 30) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(1)
    X = torch.randn(n, 4, generator=draw)
    return X, (X[:, 0] > 0).long() + (X[:, 1] > 0).long()


def net(outputs: int = 3) -> nn.Module:
    """Return a net, always with the same start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, outputs))


def loader(**options: Any) -> DataLoader[Any]:
    return DataLoader(TensorDataset(*rows()), **{"batch_size": 8, "shuffle": True, **options})


def same(a: Any, b: Any) -> bool:
    """Return whether two lists of batches are equal to the bit."""
    pairs = list(zip(a, b, strict=True))
    return all(torch.equal(x, y) for one, other in pairs for x, y in zip(one, other, strict=True))


# ---------------------------------------------------------------- tensors


def images(n: int = 37) -> Split:
    draw = torch.Generator().manual_seed(2)
    raw = torch.randint(0, 256, (n, 6, 5, 3), generator=draw, dtype=torch.uint8)
    return Split(raw, torch.arange(n) % 2, ("a", "b"))


def row_by_row(split: Split, size: int, epoch: int, augment: list[Any]) -> list[Any]:
    """Return the batches of an epoch as somebody would make them who is in no hurry."""
    ready = Preprocessing.fitted(split.inputs, split.classes)
    order = torch.randperm(len(split), generator=generator(5, "order", epoch))
    parts = list(order.split(size))
    if len(parts[-1]) == 1:
        parts[-2:] = [torch.cat(parts[-2:])]
    found = []
    for part in parts:
        made = []
        for row in part:
            one = split.inputs[row][None]
            for each in augment:
                one = each(one, Draws(5, epoch, len(split)).of(row[None]))
            made.append(ready(one))
        found.append((torch.cat(made), split.targets[part]))
    return found


@pytest.mark.parametrize("augment", [[], [mirror, shift]], ids=["plain", "augmented"])
@pytest.mark.parametrize(("size", "chunk"), [(6, 1), (6, 2_500), (9, 4 << 20), (100, 1)])
def test_chunks_are_what_single_rows_are(
    size: int, chunk: int, augment: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches_module, "_CHUNK", chunk)
    split = images()
    ready = Preprocessing.fitted(split.inputs, split.classes)
    ours = TensorBatches(split, size, seed=5, device=CPU, preprocessing=ready, augment=augment)
    for epoch in (0, 3):
        assert same(ours.epoch(epoch), row_by_row(split, size, epoch, augment))
        whole = list(ours.epoch(epoch))
        assert len(whole) == ours.steps_per_epoch
        for skip in range(ours.steps_per_epoch + 1):
            assert same(ours.epoch(epoch, skip=skip), whole[skip:])


def test_an_epochs_order_is_of_the_seed_and_its_number() -> None:
    split = images()
    ready = Preprocessing.fitted(split.inputs, split.classes)
    first, again, other = (
        TensorBatches(split, 6, seed=seed, device=CPU, preprocessing=ready) for seed in (1, 1, 2)
    )
    torch.rand(3)
    assert same(first.epoch(4), again.epoch(4))
    assert not same(first.epoch(4), first.epoch(5))
    assert not same(first.epoch(4), other.epoch(4))


def test_inputs_mapped_from_a_file_are_trained_on_as_those_in_memory(tmp_path: Path) -> None:
    X, y = rows()
    np.save(tmp_path / "X.npy", X.numpy())
    mapped = np.load(tmp_path / "X.npy", mmap_mode="r")
    histories = []
    for inputs in (mapped, X):
        model = net()
        training = fit(model, dataset("d", train=(inputs, y), validation=6), epochs=2, batch_size=8)
        histories.append(training.history)
    assert histories[0] == histories[1]
    assert np.array_equal(np.load(tmp_path / "X.npy"), X.numpy())  # nobody wrote into it


# ---------------------------------------------------------------- a DataLoader


class Noisy(TorchDataset[Any]):
    """Draws on all global generators for each row, as augmentation often does."""

    def __len__(self) -> int:
        return 20

    def __getitem__(self, i: int) -> tuple[Tensor, int]:
        return torch.rand(4) + i, i % 2


SHUFFLERS = {
    "shuffled": loader,
    "own generator": lambda: loader(generator=torch.Generator().manual_seed(9)),
    "own sampler": lambda: loader(
        shuffle=False,
        sampler=RandomSampler(range(30), generator=torch.Generator().manual_seed(8)),
    ),
    "batch sampler": lambda: DataLoader(
        TensorDataset(*rows()), batch_sampler=BatchSampler(RandomSampler(range(30)), 8, False)
    ),
    "own batch sampler": lambda: DataLoader(
        TensorDataset(*rows()),
        batch_sampler=BatchSampler(
            RandomSampler(range(30), generator=torch.Generator().manual_seed(8)), 8, False
        ),
    ),
    "workers": lambda: loader(num_workers=2),
    "noise": lambda: DataLoader(Noisy(), batch_size=8, shuffle=True),
    "noisy workers": lambda: DataLoader(Noisy(), batch_size=8, shuffle=True, num_workers=2),
}


@pytest.mark.parametrize("make", SHUFFLERS.values(), ids=SHUFFLERS)
def test_a_loaders_order_is_of_the_seed_and_the_epoch(make: Any) -> None:
    first, again, other = (
        LoaderBatches(make(), seed=seed, device=CPU, preprocessing=AS_IT_IS, batch_size=4)
        for seed in (0, 0, 1)
    )
    list(first.epoch(0))  # whatever was drawn before
    torch.rand(3)
    epoch = list(first.epoch(2))
    assert len(epoch) == first.steps_per_epoch
    assert same(epoch, again.epoch(2))
    assert same(epoch[1:], first.epoch(2, skip=1))
    assert not same(epoch, first.epoch(3))
    assert not same(epoch, other.epoch(2))


@pytest.mark.parametrize("make", SHUFFLERS.values(), ids=SHUFFLERS)
def test_a_training_from_a_loader_is_the_same_twice(make: Any) -> None:
    histories: list[History] = []
    for _ in range(2):
        torch.rand(len(histories) + 2)  # wherever the global generator stands
        before = torch.get_rng_state()
        histories.append(fit(net(), make(), steps=5, seed=4).history)
        assert torch.equal(torch.get_rng_state(), before)
    assert histories[0] == histories[1]


def test_a_loader_in_order_trains_as_tensors_by_hand() -> None:
    ours, theirs = net(), net()
    training = fit(
        ours, loader(shuffle=False), steps=4, lr=0.1, optimizer="sgd", schedule="constant"
    )
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9)
    losses = []
    for inputs, targets in loader(shuffle=False):  # as they are, not standardized
        loss = nn.functional.cross_entropy(theirs(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert training.history["loss"] == pytest.approx(losses, rel=1e-5)
    assert training.settings.batch_size == 8
    assert training.settings.steps_per_epoch == 4


class Named(TensorDataset):
    """Has names for its classes, as torchvision's do."""

    classes = ("none", "one", "both")


def test_classes_are_those_of_the_loaders_dataset() -> None:
    model = net()
    fit(model, DataLoader(Named(*rows()), batch_size=10), epochs=40, lr=0.05)
    data = dataset("points", train=rows(), classes=Named.classes)
    found = evaluate(model, data.train)
    assert found.accuracy > 0.9
    assert found.classes == Named.classes
    labels = predict(model, rows()[0]).labels
    assert labels is not None
    assert set(labels) == set(Named.classes)


def test_classes_without_names_are_counted_by_the_outputs() -> None:
    model = net()
    training = fit(model, loader(), steps=1)
    known = attached(model).preprocessing
    assert known is not None
    assert (known.classes, known.kind) == (("0", "1", "2"), "tensor")
    assert (training.settings.data, training.settings.fingerprint) == ("TensorDataset", "")
    evaluation = evaluate(model, dataset("points", train=rows()).train)
    assert len(evaluation.outputs) == 30


def test_a_loader_of_floats_is_a_regression() -> None:
    X, _ = rows(64)
    model = net(1)
    data: Any = DataLoader(TensorDataset(X, X[:, 0] - X[:, 1]), batch_size=16, shuffle=True)
    training = fit(model, data, epochs=60, lr=0.02)
    assert training.settings.loss == "mse"
    assert list(training.history.epochs[-1]) == ["epoch", "step", "loss"]
    whole = dataset("d", train=(X, X[:, 0] - X[:, 1]))
    assert evaluate(model, whole.train).r2 > 0.95


def test_a_model_keeps_the_preprocessing_that_it_has() -> None:
    X, y = rows()
    data = dataset("points", train=(100 * X + 50, y))
    model = build("mlp", data)
    fit(model, data, steps=1)
    known = attached(model).preprocessing
    raw: Any = DataLoader(TensorDataset(100 * X + 50, y), batch_size=8)
    fit(model, raw, epochs=30)
    assert attached(model).preprocessing == known
    assert evaluate(model, data.train).accuracy > 0.8


def test_a_loaders_numbers_may_be_of_other_types() -> None:
    X, y = rows()
    plain, wide = (
        fit(net(), DataLoader(TensorDataset(inputs, targets), batch_size=8), steps=4)
        for inputs, targets in ((X, y), (X.double(), y.to(torch.uint8)))
    )
    assert plain.history == wide.history


class Endless(IterableDataset[Any]):
    """Does not know its length."""

    def __iter__(self) -> Iterator[Any]:
        yield from zip(*rows(), strict=True)


class Words(TorchDataset[Any]):
    """Gives words."""

    def __len__(self) -> int:
        return 4

    def __getitem__(self, i: int) -> Any:
        return "a word", i


REFUSED: dict[str, tuple[DataLoader[Any], str]] = {
    "endless": (
        DataLoader(Endless(), batch_size=4),
        "the DataLoader does not know its length, which the budget is counted in: give its",
    ),
    "empty": (
        DataLoader(TensorDataset(torch.zeros(0, 4), torch.zeros(0).long()), batch_size=4),
        r"the DataLoader gives no batch, expected pairs \(inputs, targets\)",
    ),
    "all dropped": (
        DataLoader(TensorDataset(*rows(3)), batch_size=4, drop_last=True),
        r"the DataLoader gives no batch, expected pairs \(inputs, targets\)",
    ),
    "inputs alone": (
        DataLoader(TensorDataset(rows()[0]), batch_size=4),
        r"the DataLoader gives a list, expected pairs \(inputs, targets\)",
    ),
    "dictionaries": (
        DataLoader([{"x": 1.0}] * 4, batch_size=2),  # type: ignore[arg-type]
        r"the DataLoader gives a dict, expected pairs \(inputs, targets\)",
    ),
    "words": (
        DataLoader(Words(), batch_size=2),
        r"the DataLoader gives a list, expected pairs \(inputs, targets\)",
    ),
}


@pytest.mark.parametrize(("data", "message"), REFUSED.values(), ids=REFUSED)
def test_a_loader_that_cannot_be_trained_on_is_refused(data: DataLoader[Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        fit(net(), data)


def test_a_loader_that_gives_less_than_it_says_is_refused() -> None:
    X, y = rows(20)
    batches = [(X[i : i + 4], y[i : i + 4]) for i in range(0, 12, 4)]

    class Short(IterableDataset[Any]):
        def __iter__(self) -> Iterator[Any]:
            return iter(batches)

        def __len__(self) -> int:
            return 5

    short = DataLoader(Short(), batch_size=None)
    with pytest.raises(RequestError, match="gave 3 batches, its length says 5: make __len__"):
        fit(net(), short, epochs=1)


def test_what_a_dataset_draws_is_of_the_seed() -> None:
    class Everywhere(TensorDataset):
        def __getitem__(self, index: int) -> Any:
            X, y = self.tensors[0][index], self.tensors[1][index]
            return X + random.random() + float(np.random.random()) + torch.rand(1), y

    losses = []
    for start in (1, 2):
        seed_everything(start)
        training = fit(net(), DataLoader(Everywhere(*rows()), batch_size=8), epochs=2)
        losses.append(training.history["loss"])
    assert losses[0] == losses[1]


def test_a_loader_of_another_shape_is_refused_by_it() -> None:
    with pytest.raises(RequestError, match=r"Linear cannot take a batch shaped \(\d+, 5\): mat1"):
        fit(nn.Linear(7, 3), DataLoader(TensorDataset(torch.ones(8, 5), torch.ones(8).long())))


def test_a_loader_is_given_back_as_it_was() -> None:
    own = torch.Generator().manual_seed(3)
    given = loader(generator=own, shuffle=True)
    fit(net(), given, epochs=1)
    assert given.generator is own
    assert given.sampler.generator is own  # type: ignore[attr-defined]


def test_no_batch_is_refused_by_name() -> None:
    empty: Any = DataLoader(TensorDataset(*rows(3)), batch_size=4, drop_last=True)
    with pytest.raises(RequestError, match="the DataLoader has no batch: give it rows, or drop_l"):
        LoaderBatches(empty, seed=0, device=CPU, preprocessing=AS_IT_IS, batch_size=4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"augment": "mirror"}, r"works on raw images \(uint8\), not on a DataLoader's batches"),
        (
            {"class_weights": "balanced"},
            "class_weights='balanced' counts all rows, of which a DataLoader shows one batch: give",
        ),
    ],
)
def test_what_needs_all_rows_cannot_be_had_of_a_loader(options: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        fit(net(), loader(), **options)


def test_weights_by_number_can_be_had_of_a_loader() -> None:
    training = fit(net(), loader(), steps=2, class_weights=[1, 2, 3])
    assert training.settings.class_weights == (1.0, 2.0, 3.0)
