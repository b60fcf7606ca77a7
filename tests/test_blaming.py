"""`training.blame`: the batch behind a step, against the same taken by hand."""

from __future__ import annotations

import contextlib
import math
import re
import statistics
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from rewound import fitted, recorded, weights
from torch import Tensor, nn
from torch.utils.data import DataLoader, IterableDataset
from trainings import CLASSES, flat, pictures, points, seeded, trained

from workbench import fit, load
from workbench.attached import attached
from workbench.determinism import generator
from workbench.errors import RequestError
from workbench.models import build
from workbench.training import Training
from workbench.training.augmentations import Draws, mirror, shift


def plain() -> nn.Module:
    """Return a net whose rows do not depend on each other."""
    return seeded(lambda: nn.Linear(5, 12), nn.ReLU, lambda: nn.Linear(12, CLASSES))


def batch(step: int, size: int = 8, n: int = 46) -> Tensor:
    """Return the rows of a step, in the order that they were taken."""
    epoch, place = divmod(step - 1, -(-n // size))
    order = torch.randperm(n, generator=generator(0, "order", epoch))
    return order[place * size : (place + 1) * size]


def gradient(training: Training, step: int) -> tuple[Tensor, float]:
    """Return the losses of the rows of a step, and its gradient's norm, by hand."""
    data, rows, model = points().train, batch(step), training.at(step - 1)
    known = attached(model).preprocessing
    assert known is not None
    losses = F.cross_entropy(model(known(data.inputs[rows])), data.targets[rows], reduction="none")
    losses.mean().backward()
    parts = [p.grad.flatten() for p in model.parameters() if p.grad is not None]
    return losses.detach(), float(torch.cat(parts).norm())


def test_the_rows_are_those_of_the_step_the_hardest_first() -> None:
    training = trained(model=(model := plain()), steps=20)
    for step in (1, 7, 12, 18, 20):
        found = training.blame(step)
        losses, norm = gradient(training, step)
        expected = dict(zip(batch(step).tolist(), losses.tolist(), strict=True))
        assert dict(zip(found.table["row"], found.table["loss"], strict=True)) == pytest.approx(
            expected, abs=1e-6
        )
        assert found.table["loss"].is_monotonic_decreasing
        assert found.loss == training.history["loss"][step - 1]
        assert found.loss == pytest.approx(found.table["loss"].mean(), abs=1e-6)
        assert found.norm == pytest.approx(norm, rel=1e-5)
    assert weights(model) == weights(training.at(20))


def test_they_are_named_as_in_an_evaluation() -> None:
    training = trained(model=(model := plain()), steps=20)
    table = training.blame(12).table
    names = ["row", "true", "predicted", "p_true", "p_predicted", "loss", "right"]
    assert (list(table), len(table), model.training) == (names, len(batch(12)), False)
    targets = [str(int(points().train.targets[row])) for row in table["row"]]
    assert list(table["true"]) == targets
    assert (-table["p_true"].map(math.log)).tolist() == pytest.approx(
        table["loss"].tolist(), abs=1e-5
    )


def test_the_norm_stands_beside_those_around_it_unclipped() -> None:
    training = trained(model=(model := plain()), steps=20, clip=1e-3)
    middle, end = training.blame(9), training.blame(20)
    norms = {step: gradient(training, step)[1] for step in range(4, 15)}
    assert middle.norms == pytest.approx(norms, rel=1e-5)
    others = [norm for step, norm in norms.items() if step != 9]
    assert middle.usual_norm == pytest.approx(statistics.median(others), rel=1e-5)
    assert (list(end.norms), model.training) == ([15, 16, 17, 18, 19, 20], False)


@pytest.mark.parametrize("case", ["images", "parts", "noisy", "loader", "everywhere"])
def test_it_is_what_the_step_saw(case: str) -> None:
    """With augmentation, dropout, norms over the batch, bf16, draws of the dataset: the same."""
    training, model = fitted(case, label_smoothing=0.0, class_weights=None, accumulate=1)
    for step in (5, 14):
        found = training.blame(step)
        assert found.table["loss"].mean() == pytest.approx(found.loss, rel=1e-5)
    assert not model.training


def test_images_are_shown_as_they_were_augmented() -> None:
    training, _model = fitted("images", augment=["mirror", "shift"])
    found, train = training.blame(14, 3), pictures().train
    rows = torch.tensor(found.hardest["row"].tolist())
    draws = Draws(0, 2, len(train)).of(rows)
    assert found.images is not None
    assert torch.equal(found.images, shift(mirror(train.inputs[rows], draws), draws))
    assert found.plot()._repr_png_().startswith(b"\x89PNG")


@pytest.mark.parametrize("workers", [0, 2])
def test_of_a_loader_the_rows_are_those_of_its_dataset(workers: int) -> None:
    data = points().train
    pairs = list(zip(data.inputs, data.targets, strict=True))
    loader: Any = DataLoader(
        pairs,  # type: ignore[arg-type]
        batch_size=8,
        shuffle=True,
        num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )
    training = fit(_model := plain(), loader, steps=13)
    found = training.blame(9)
    rows = torch.tensor(found.table["row"].tolist())
    outputs = training.at(8)(data.inputs[rows])
    losses = F.cross_entropy(outputs, data.targets[rows], reduction="none")
    assert found.table["loss"].tolist() == pytest.approx(losses.tolist(), abs=1e-5)
    assert (len(set(rows.tolist())), found.images) == (8, None)


class Streamed(IterableDataset[tuple[Tensor, Tensor]]):
    def __len__(self) -> int:
        return 40

    def __iter__(self) -> Any:
        yield from zip(points().train.inputs[:40], points().train.targets[:40], strict=True)


def test_what_is_streamed_is_numbered_by_its_place() -> None:
    training = fit(model := plain(), DataLoader(Streamed(), batch_size=8), steps=6)
    assert (sorted(training.blame(6).table["row"]), model.training) == ([*range(8)], False)


def test_of_a_regression() -> None:
    line = load("diabetes")
    training = fit(_model := build("linear", line), line, steps=9, batch_size=32)
    found = training.blame(7, 3)
    assert list(found.table) == ["row", "true", "predicted", "residual", "loss"]
    squares = (found.table["residual"] ** 2).tolist()
    assert found.table["loss"].tolist() == pytest.approx(squares, rel=1e-4)
    assert found.plot()._repr_png_().startswith(b"\x89PNG")
    assert re.search(r"\n  row \d+: is \d+, said [\d.]+: [\d.e+]+$", repr(found))


def test_of_two_classes_with_one_logit() -> None:
    sick = load("breast_cancer")
    training = fit(model := build("mlp", sick, hidden=(4,)), sick, steps=9, batch_size=16)
    table = training.blame(9).table
    assert table["loss"].tolist() == pytest.approx((-table["p_true"].map(math.log)).tolist())
    assert ((table["true"] == table["predicted"]) == table["right"]).all()
    assert not model.training


def test_what_it_says_in_a_few_lines() -> None:
    training = trained(model=(model := plain()), steps=20)
    head = r"step 9, epoch 2: loss [\d.]+ over 8 rows, the gradient's norm [\d.]+, [\d.]+ around it"
    row = r"\n  row \d+: is [012], said [012]: [\d.]+"
    assert re.fullmatch(f"{head}{row}{row}", repr(training.blame(9, 2)))
    alone = trained(model=model, steps=1)
    assert "around it" not in repr(alone.blame(1))


def test_of_a_record_it_needs_model_and_data() -> None:
    training = trained("night", model=(model := plain()), steps=20)
    found = recorded("night").blame(9, model=plain(), data=points())
    assert found.table.equals(training.blame(9).table)
    assert not model.training


@pytest.mark.usefixtures("live")
def test_a_step_that_a_training_failed_at_can_be_blamed() -> None:
    how: dict[str, Any] = {"lr": 1e30, "optimizer": "sgd", "model": (model := plain())}
    training = trained(steps=50, **how)
    with contextlib.suppress(ArithmeticError):
        training.wait()
    last = len(training.history)
    assert training.state == "failed"
    found = training.blame(last - 1)
    assert (found.step, len(found.table), model.training) == (last - 1, 8, False)


def contrastive(outputs: Tensor, targets: Tensor) -> Tensor:
    if len(outputs) < 2:
        raise ValueError("pairs are needed")
    return F.cross_entropy(outputs, targets)


def test_what_cannot_be_blamed() -> None:
    training = trained("night", model=(model := flat()), steps=9)
    with pytest.raises(RequestError, match="step must be a whole number from 1 up, got 0"):
        training.blame(0)
    with pytest.raises(RequestError, match=r"'night' has not come to step 10, it has taken 9$"):
        training.blame(10)
    with pytest.raises(RequestError, match="n must be a whole number from 1 up, got -1"):
        training.blame(3, -1)
    training = trained(model=model, loss=contrastive)
    said = "the loss cannot take a row alone, so none has a loss of its own: pairs are needed: bla"
    with pytest.raises(RequestError, match=said):
        training.blame(3)


@pytest.mark.parametrize("parts", [1, 3])
def test_where_classes_are_weighed_so_are_the_losses(parts: int) -> None:
    how: dict[str, Any] = {"class_weights": [1.0, 1.0, 50.0], "accumulate": parts}
    training = trained(model=(model := plain()), steps=20, **how)
    found = training.blame(9)
    alone = -found.table["p_true"].map(math.log)
    weights_of = found.table["true"].map({"0": 1.0, "1": 1.0, "2": 50.0})
    assert found.table["loss"].mean() == pytest.approx(found.loss, rel=1e-5)
    if parts == 1:
        expected = alone * weights_of / weights_of.mean()
        assert found.table["loss"].tolist() == pytest.approx(expected.tolist(), rel=1e-4)
    assert not model.training


def test_of_a_class_that_weighs_nothing_no_row_counts() -> None:
    training = trained(model=(model := plain()), steps=20, class_weights=[0.0, 1.0, 2.0])
    found = training.blame(9)
    assert found.table["loss"].mean() == pytest.approx(found.loss, rel=1e-5)
    assert (found.table["loss"][found.table["true"] == "0"] == 0).all()
    assert not model.training


def test_a_loader_may_have_a_timeout() -> None:
    data = points().train
    loader: Any = DataLoader(
        list(zip(data.inputs, data.targets, strict=True)),  # type: ignore[arg-type]
        batch_size=8,
        num_workers=1,
        multiprocessing_context="fork",
        timeout=60,
    )
    training = fit(model := plain(), loader, steps=6)
    assert sorted(training.blame(2).table["row"]) == [*range(8, 16)]
    assert not model.training
