"""What is minimized: torch's own losses, and what is refused before the first step."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.utils.class_weight import compute_class_weight
from torch import Tensor, nn

from workbench.datasets import Card, Dataset, Split, dataset
from workbench.errors import RequestError
from workbench.evaluation.losses import task_loss
from workbench.training import fit
from workbench.training.objectives import check_targets, class_weights_of

THREE, TWO = ("ant", "bee", "cat"), ("no", "yes")


def points(classes: int = 2, rows: int = 40) -> Dataset:
    draw = torch.Generator().manual_seed(1)
    X = torch.randn(rows, 4, generator=draw)
    return dataset("points", train=(X, torch.arange(rows) % classes))


def values(rows: int = 40, width: int = 1) -> Dataset:
    X = torch.randn(rows, 4, generator=torch.Generator().manual_seed(1))
    return dataset("values", train=(X, X[:, 0] if width == 1 else X[:, :width]))


def logits(rows: int = 30, outputs: int = 3) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(2)
    targets = torch.randint(max(outputs, 2), (rows,), generator=draw)
    return 2 * torch.randn(rows, outputs, generator=draw), targets


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("weights", [(), (0.5, 1.0, 4.0)])
def test_many_classes_are_torchs_cross_entropy(
    smoothing: float, weights: tuple[float, ...]
) -> None:
    outputs, targets = logits()
    found = task_loss(THREE, outputs=outputs, label_smoothing=smoothing, class_weights=weights)
    oracle = nn.CrossEntropyLoss(
        weight=torch.tensor(weights) if weights else None, label_smoothing=smoothing
    )
    torch.testing.assert_close(found(outputs, targets), oracle(outputs, targets))


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
def test_one_logit_is_two_of_which_the_first_is_0(smoothing: float) -> None:
    outputs, targets = logits(outputs=1)
    found = task_loss(TWO, outputs=outputs, label_smoothing=smoothing)
    both = torch.cat([torch.zeros_like(outputs), outputs], 1)
    oracle = F.cross_entropy(both, targets, label_smoothing=smoothing)
    torch.testing.assert_close(found(outputs, targets), oracle)


def test_weights_of_one_logit_are_those_of_two() -> None:
    outputs, targets = logits(outputs=1)
    weights = (0.3, 2.0)
    found = task_loss(TWO, outputs=outputs, class_weights=weights)
    both = torch.cat([torch.zeros_like(outputs), outputs], 1)
    oracle = F.cross_entropy(both, targets, weight=torch.tensor(weights))
    torch.testing.assert_close(found(outputs, targets), oracle)


def test_smoothed_weights_of_one_logit_weigh_rows() -> None:
    """Each row by its own class; torch weighs each class's share of a smoothed target instead."""
    outputs, targets = logits(outputs=1)
    weights = torch.tensor([0.3, 2.0])
    found = task_loss(TWO, outputs=outputs, label_smoothing=0.2, class_weights=weights.tolist())
    both = torch.cat([torch.zeros_like(outputs), outputs], 1)
    rows = F.cross_entropy(both, targets, reduction="none", label_smoothing=0.2)
    expected = (weights[targets] * rows).sum() / weights[targets].sum()
    torch.testing.assert_close(found(outputs, targets), expected)


def test_balanced_classes_weigh_alike() -> None:
    targets = torch.tensor([0] * 6 + [1] * 3 + [2])
    split = Split(torch.zeros(10, 1), targets, THREE)
    weights = class_weights_of("balanced", split)
    oracle = compute_class_weight("balanced", classes=np.arange(3), y=targets.numpy())
    assert weights == pytest.approx(oracle.tolist())


def test_weights_and_smoothing_reach_the_loss() -> None:
    data = dataset("d", train=(torch.eye(6), torch.tensor([0, 0, 0, 0, 1, 1])))
    model = nn.Linear(6, 2)
    with torch.no_grad():
        expected = F.cross_entropy(
            model((torch.eye(6) - 1 / 6) / torch.eye(6).std(0, correction=0)),
            data.train.targets, weight=torch.tensor([0.75, 1.5]), label_smoothing=0.1,
        )  # fmt: skip
    training = fit(model, data, steps=1, class_weights="balanced", label_smoothing=0.1)
    assert training.history["loss"][0] == pytest.approx(expected.item(), rel=1e-5)
    assert training.settings.class_weights == pytest.approx((0.75, 1.5))
    assert training.settings.label_smoothing == 0.1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"class_weights": "even"},
            "class_weights is 'even', expected 'balanced' or a list with a number for",
        ),
        (
            {"class_weights": 3},
            "class_weights is 3, expected 'balanced' or a list with a number for each",
        ),
        ({"class_weights": [1, 2, 3]}, "has 3 numbers, expected 2 of 0 or more, one for each of"),
        ({"class_weights": [1, -2]}, "class_weights has 2 numbers, expected 2 of 0 or more"),
        ({"class_weights": [0, 0]}, "class_weights has 2 numbers, expected 2 of 0 or more"),
        ({"class_weights": [1, "b"]}, "a class weight must be a number, got str 'b'"),
        ({"label_smoothing": 1}, "label_smoothing must be from 0 to less than 1, got 1"),
        ({"label_smoothing": "a"}, "label_smoothing must be a number, got str 'a'"),
        (
            {"loss": F.cross_entropy, "label_smoothing": 0.1},
            "label_smoothing and class_weights belong to the loss of the task, and loss= is your",
        ),
    ],
)
def test_weights_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        fit(nn.Linear(4, 2), points(), **options)


def test_a_regression_has_no_classes_to_weigh() -> None:
    with pytest.raises(RequestError, match="a regression has no classes to weigh: leave class_w"):
        fit(nn.Linear(4, 1), values(), class_weights="balanced")


def difference(outputs: Tensor, targets: Tensor) -> Tensor:
    return ((outputs - targets) ** 2).mean()


BROADCASTS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "difference": difference,
    "turned round": lambda outputs, targets: (targets - outputs).abs().mean(),
    "product": lambda outputs, targets: (-(2 * targets - 1) * outputs).sigmoid().mean(),
    "mse_loss": lambda outputs, targets: F.mse_loss(outputs, targets.float()),
    "L1Loss": lambda outputs, targets: nn.L1Loss()(outputs, targets.float()),
    "by name": lambda outputs, targets: F.huber_loss(input=outputs, target=targets.float()),
    "poisson": F.poisson_nll_loss,
    "smooth_l1_loss": lambda outputs, targets: F.smooth_l1_loss(outputs, targets.float()),
}


@pytest.mark.parametrize("loss", BROADCASTS.values(), ids=BROADCASTS)
def test_a_loss_that_broadcasts_is_refused(loss: Any) -> None:
    message = (
        r"the loss compares outputs shaped \(2, 1\) and targets shaped \(2,\) elementwise, which "
        r"would broadcast to \(2, 2\): reshape one of them in the loss, for instance "
        r"targets.reshape\(outputs.shape\)"
    )
    with pytest.raises(RequestError, match=message):
        fit(nn.Linear(4, 1), points(), loss=loss)


FITTING: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "reshaped": lambda outputs, targets: difference(outputs, targets.reshape(outputs.shape)),
    "flattened": lambda outputs, targets: difference(outputs.flatten(), targets),
    "hinge": lambda outputs, targets: F.relu(1 - (2.0 * targets - 1) * outputs[:, 0]).mean(),
    "binary": lambda outputs, targets: F.binary_cross_entropy_with_logits(
        outputs.squeeze(1), targets.float()
    ),
}


@pytest.mark.parametrize("loss", FITTING.values(), ids=FITTING)
def test_a_loss_that_compares_row_by_row_is_taken(loss: Any) -> None:
    assert fit(nn.Linear(4, 1), points(), steps=3, loss=loss).state == "done"


def test_a_loss_of_logits_and_indices_is_taken() -> None:
    def margins(outputs: Tensor, targets: Tensor) -> Tensor:
        right = outputs.gather(1, targets[:, None])
        return F.relu(1 + outputs - right).sum(1).mean()

    for loss in (F.cross_entropy, margins, nn.MultiMarginLoss()):
        assert fit(nn.Linear(4, 3), points(3), steps=3, loss=loss).state == "done"


@pytest.mark.parametrize(("data", "outputs"), [(points(3), 3), (values(), 1)])
def test_a_loss_must_return_one_number(data: Dataset, outputs: int) -> None:
    shape = r"\(2,\)" if outputs == 3 else r"\(2, 1\)"
    message = f"the loss returned {shape}, expected one number: take the mean"

    def each(y_hat: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(y_hat, y, reduction="none") if outputs == 3 else (y_hat - y) ** 2

    with pytest.raises(RequestError, match=message):
        fit(nn.Linear(4, outputs), data, loss=each)
    with pytest.raises(RequestError, match="the loss returned float, expected one number"):
        fit(nn.Linear(4, outputs), data, loss=lambda y_hat, y: 1.0)  # type: ignore[arg-type, return-value]


def test_a_loss_that_cannot_take_the_shapes_names_them() -> None:
    message = r"the loss cannot take outputs shaped \(2, 3\) and targets shaped \(2,\): Target size"
    with pytest.raises(RequestError, match=message):
        fit(nn.Linear(4, 3), points(3), loss=F.binary_cross_entropy_with_logits)


def test_targets_of_a_regression_take_the_shape_of_the_outputs() -> None:
    seen = []

    def squares(y_hat: Tensor, y: Tensor) -> Tensor:
        seen.append((y_hat.shape, y.shape))
        return F.mse_loss(y_hat, y)

    fit(nn.Linear(4, 1), values(), steps=2, loss=squares)
    assert all(ours == theirs for ours, theirs in seen)
    assert len(seen) == 3  # once before the two steps


@pytest.mark.parametrize(
    ("last", "outputs", "classes", "what"),
    [(nn.Softmax(1), 3, 3, "softmax"), (nn.Softmax(1), 2, 2, "softmax"),
     (nn.Sigmoid(), 1, 2, "sigmoid")],
)  # fmt: skip
def test_probabilities_in_front_of_cross_entropy_are_noticed(
    last: nn.Module, outputs: int, classes: int, what: str
) -> None:
    message = (
        f"Sequential answers with probabilities, expected logits: cross-entropy has the {what} "
        f"inside, and behind another one learns slowly or not at all. Leave the {what} out"
    )
    with pytest.raises(RequestError, match=message):
        fit(nn.Sequential(nn.Linear(4, outputs), last), points(classes))


def test_a_softmax_is_fine_where_the_loss_wants_it_or_nothing_is_classified() -> None:
    def likelihood(chances: Tensor, targets: Tensor) -> Tensor:
        return F.nll_loss(chances.log(), targets)

    ends = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))
    assert fit(ends, points(3), steps=1, loss=likelihood).state == "done"
    shares = nn.Sequential(nn.Linear(4, 3), nn.Softmax(1))
    assert fit(shares, values(width=3), steps=1).state == "done"
    logs = nn.Sequential(nn.Linear(4, 3), nn.LogSoftmax(1))
    assert fit(logs, points(3), steps=1).state == "done"


@pytest.mark.parametrize(
    ("model", "data", "shapes"),
    [
        (nn.Linear(4, 5), points(3), r"\(2, 5\), expected \(2, 3\) for 3 classes: change the size"),
        (nn.Linear(4, 3), points(2), r"\(2, 3\), expected \(2, 2\) or \(2, 1\) for 2 classes"),
        (nn.Linear(4, 2), values(), r"\(2, 2\), expected \(2, 1\) for the targets: change the"),
        (nn.Linear(4, 1), values(width=2), r"\(2, 1\), expected \(2, 2\) for the targets"),
        (
            nn.Sequential(nn.Linear(4, 1), nn.Flatten(0)),
            values(),
            r"\(2,\), expected \(2, 1\) for the targets: keep the axis .* by unsqueeze\(1\)",
        ),
    ],
)
def test_outputs_that_do_not_fit_name_their_shapes(
    model: nn.Module, data: Dataset, shapes: str
) -> None:
    with pytest.raises(RequestError, match=f"the model's outputs have the shape {shapes}"):
        fit(model, data)


def made_by_hand(**parts: Split) -> Dataset:
    """Return a dataset that nobody checked."""
    rows: Any = {"train": None, "validation": None, "test": None, **parts}
    return Dataset(name="mine", fingerprint="", card=Card("by hand"), **rows)


@pytest.mark.parametrize(("low", "high"), [(1, 3), (-1, 2), (0, 7)])
def test_labels_outside_the_classes_are_named(low: int, high: int) -> None:
    targets = torch.tensor([low, 1, 2, high])
    good = Split(torch.randn(4, 4), torch.tensor([0, 1, 2, 0]), THREE)
    bad = Split(torch.randn(4, 4), targets, THREE)
    message = (
        f"run from {low} to {high}, expected class indices from 0 to 2 for 3 classes: number them "
        "from 0"
    )
    with pytest.raises(RequestError, match=f"targets of train {message}"):
        fit(nn.Linear(4, 3), made_by_hand(train=bad))
    with pytest.raises(RequestError, match=f"targets of validation {message}"):
        fit(nn.Linear(4, 3), made_by_hand(train=good, validation=bad))


def test_an_empty_split_is_named() -> None:
    full, empty = (Split(torch.randn(n, 4), torch.randn(n)) for n in (3, 0))
    with pytest.raises(RequestError, match="validation has no rows: give it at least one, or leav"):
        fit(nn.Linear(4, 1), made_by_hand(train=full, validation=empty))
    with pytest.raises(RequestError, match="train has no rows: give it at least one"):
        check_targets("train", empty)
    with pytest.raises(RequestError, match="train has no rows: give it at least one"):
        fit(nn.Linear(4, 1), made_by_hand(train=empty))
