"""Every figure against scikit-learn, and answers that depend on nothing but the row."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle
from torch import Tensor, nn

from workbench.datasets import Split, dataset, load
from workbench.errors import RequestError
from workbench.evaluation import Evaluation, evaluate, predict
from workbench.models import build
from workbench.training import fit

NAMES = ("cat", "dog", "fox", "owl")


def said(outputs: Tensor, targets: Tensor, classes: tuple[str, ...] = ()) -> Evaluation:
    """Return the evaluation of a model that answered `outputs`."""
    return evaluate(nn.Identity(), Split(outputs, targets, classes))


@given(st.integers(0, 2**32 - 1), st.integers(2, 4), st.integers(1, 40))
@settings(max_examples=40, deadline=None)
def test_classification_is_scored_as_by_scikit_learn(seed: int, n: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(rows, n, generator=generator)
    targets = torch.randint(n, (rows,), generator=generator)  # some classes absent by chance
    found = said(logits, targets, NAMES[:n])
    y, y_hat, labels = targets.numpy(), logits.numpy().argmax(1), list(range(n))
    assert found.accuracy == pytest.approx(oracle.accuracy_score(y, y_hat))
    assert found.confusion.tolist() == oracle.confusion_matrix(y, y_hat, labels=labels).tolist()
    scores = oracle.precision_recall_fscore_support(y, y_hat, labels=labels, zero_division=0)
    np.testing.assert_allclose(found.per_class.to_numpy().T, scores)
    macro = [scores[i].mean() for i in range(3)]
    assert [found.precision, found.recall, found.f1] == pytest.approx(macro)
    chances = logits.double().softmax(1).numpy()
    assert found.loss == pytest.approx(oracle.log_loss(y, chances, labels=labels), abs=1e-5)


def test_a_class_that_never_occurs_scores_zero() -> None:
    found = said(torch.eye(3)[[0, 0, 1]], torch.tensor([0, 0, 1]), NAMES[:3])
    assert found.per_class.T["fox"].tolist() == [0, 0, 0, 0]
    assert found.per_class.index.tolist() == list(NAMES[:3])
    assert found.accuracy == 1.0
    assert found.recall == pytest.approx(2 / 3)


@given(st.integers(0, 2**32 - 1), st.integers(1, 40))
@settings(max_examples=25, deadline=None)
def test_one_logit_is_that_of_the_second_class(seed: int, rows: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    logit = 3 * torch.randn(rows, 1, generator=generator)
    targets = torch.randint(2, (rows,), generator=generator)
    found = said(logit, targets, NAMES[:2])
    y, y_hat = targets.numpy(), (logit[:, 0] > 0).long().numpy()
    p = logit[:, 0].double().sigmoid().numpy()
    assert found.accuracy == pytest.approx(oracle.accuracy_score(y, y_hat))
    assert found.confusion.tolist() == oracle.confusion_matrix(y, y_hat, labels=[0, 1]).tolist()
    assert found.loss == pytest.approx(oracle.log_loss(y, p, labels=[0, 1]), abs=1e-5)
    two = said(torch.cat([torch.zeros_like(logit), logit], 1), targets, NAMES[:2])
    assert two.metrics == pytest.approx(found.metrics, abs=1e-5)


@given(st.integers(0, 2**32 - 1), st.integers(2, 40), st.integers(1, 3))
@settings(max_examples=25, deadline=None)
def test_regression_is_scored_as_by_scikit_learn(seed: int, rows: int, width: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    outputs = torch.randn(rows, width, generator=generator)
    targets = outputs + torch.randn(rows, width, generator=generator)
    found = said(outputs, targets if width > 1 else targets[:, 0])
    pair = targets.numpy(), outputs.numpy()
    assert found.mse == pytest.approx(oracle.mean_squared_error(*pair), rel=1e-5)
    assert found.mae == pytest.approx(oracle.mean_absolute_error(*pair), rel=1e-5)
    assert found.r2 == pytest.approx(oracle.r2_score(*pair), rel=1e-4, abs=1e-5)
    assert found.loss == pytest.approx(found.mse, rel=1e-5)


@pytest.mark.parametrize("outputs", [[[2.0], [2.0]], [[2.0], [3.0]]])
def test_targets_that_are_all_equal_follow_scikit_learn(outputs: list[list[float]]) -> None:
    found = said(torch.tensor(outputs), torch.tensor([2.0, 2.0]))
    assert found.r2 == oracle.r2_score([2.0, 2.0], np.ravel(outputs))


@pytest.mark.parametrize("columns", [1, 2])
def test_mistakes_are_the_wrong_rows_worst_first(columns: int) -> None:
    logits, targets = 3 * torch.randn(60, columns), torch.randint(2, (60,))
    found = said(logits, targets, NAMES[:2])
    table = found.mistakes
    assert set(table["row"]) == set((found.predicted != targets).nonzero().flatten().tolist())
    assert table["loss"].is_monotonic_decreasing
    assert table["p_true"].is_monotonic_increasing
    np.testing.assert_allclose(table["loss"], -np.log(table["p_true"]), rtol=1e-4)
    np.testing.assert_allclose(table["p_true"] + table["p_predicted"], 1, rtol=1e-5)
    assert table["true"].tolist() == [NAMES[i] for i in targets[table["row"].tolist()].tolist()]
    assert (table["true"] != table["predicted"]).all()


@pytest.mark.parametrize("columns", [1, 2, 4])
def test_examples_are_the_rows_in_their_order(columns: int) -> None:
    logits, targets = 3 * torch.randn(60, columns), torch.randint(max(2, columns), (60,))
    found = said(logits, targets, NAMES[: max(2, columns)])
    table = found.examples
    assert table["row"].tolist() == list(range(60))
    assert table["true"].tolist() == [NAMES[i] for i in targets.tolist()]
    assert table["predicted"].tolist() == [NAMES[i] for i in found.predicted.tolist()]
    assert table["right"].mean() == found.accuracy
    assert table["loss"].mean() == pytest.approx(found.loss, rel=1e-5)
    np.testing.assert_allclose(np.exp(-table["loss"]), table["p_true"])
    assert (table["p_predicted"] >= table["p_true"]).all()
    wrong = table[~table["right"]].sort_values("loss", ascending=False, kind="stable")
    assert found.mistakes["row"].tolist() == wrong["row"].tolist()


def test_examples_of_outputs_that_are_not_finite_can_be_looked_at() -> None:
    split = Split(torch.zeros(2, 1), torch.tensor([1, 1]), NAMES[:2])
    found = Evaluation(split, torch.tensor([[float("nan"), 0.0], [0.0, 1.0]]))
    assert found.examples["loss"].isna().tolist() == [True, False]
    assert found.mistakes["row"].tolist() == [0]


@pytest.mark.parametrize("width", [1, 2])
def test_residuals_are_what_is_left_of_the_truth(width: int) -> None:
    outputs, targets = torch.randn(9, width), torch.randn(9, width)
    found = said(outputs, targets if width > 1 else targets[:, 0])
    ends = ["_0", "_1"] if width > 1 else [""]
    for i, end in enumerate(ends):
        residual = (targets[:, i].double() - outputs[:, i].double()).numpy()
        np.testing.assert_allclose(found.examples[f"residual{end}"], residual)
        np.testing.assert_allclose(found.residuals[:, i], residual)
    assert len(found.examples.columns) == 1 + 3 * width
    picture = found.plot_residuals()
    assert picture._repr_png_().startswith(b"\x89PNG")
    assert [axes.get_xlabel() for axes in picture.axes[:2]] == [
        f"true{ends[0]}",
        f"predicted{ends[0]}",
    ]


def test_intervals_slices_and_comparisons_are_asked_of_an_evaluation() -> None:
    targets = torch.arange(40) % 2
    right, wrong = torch.eye(2)[targets], torch.eye(2)[1 - targets]
    found = said(torch.cat([right[:30], wrong[30:]]), targets, NAMES[:2])
    low, high = found.interval("accuracy", level=0.9, resamples=200, seed=1)
    assert low < found.accuracy < high
    assert found.interval(level=0.9, resamples=200, seed=1) == (low, high)
    parts = found.slices(["early"] * 30 + ["late"] * 10)
    assert parts["accuracy"].to_dict() == {"early": 1.0, "late": 0.0}
    assert Evaluation(found.split, right).against(found).only_first == 10
    values = said(torch.arange(10.0)[:, None], torch.zeros(10))
    assert values.margin(level=0.5) == 5.0


def test_the_headlines_are_the_figures() -> None:
    found = said(torch.eye(2), torch.tensor([0, 1]), NAMES[:2])
    assert list(found.metrics) == ["loss", "accuracy", "precision", "recall", "f1"]
    assert found.metrics["accuracy"] == found.accuracy
    assert repr(found) == (
        "Evaluation of 2 rows: loss 0.3133, accuracy 1, precision 1, recall 1, f1 1"
    )
    assert list(said(torch.ones(2, 1), torch.zeros(2)).metrics) == ["loss", "mse", "mae", "r2"]


def test_pictures_of_an_evaluation_can_be_drawn() -> None:
    images = torch.randint(0, 255, (12, 4, 4), dtype=torch.uint8)
    split = Split(images, torch.arange(12) % 3, NAMES[:3])
    found = Evaluation(split, torch.randn(12, 3))
    assert found.plot_confusion()._repr_png_().startswith(b"\x89PNG")
    picture = found.plot_mistakes(3)
    assert sum(bool(axes.images) for axes in picture.axes) == min(3, len(found.mistakes))
    right = Evaluation(split, torch.eye(3)[split.targets])
    with pytest.raises(RequestError, match="no pictures to show: found no mistakes"):
        right.plot_mistakes()
    with pytest.raises(RequestError, match=r"found rows of \(2,\), expected wrong images"):
        said(torch.eye(2), torch.tensor([1, 0]), NAMES[:2]).plot_mistakes()


def test_a_prediction_has_outputs_probabilities_and_labels() -> None:
    data = load("digits")
    model = build("mlp", data)
    found = predict(model, data.train.inputs[:5])
    assert found.probabilities is not None
    assert torch.allclose(found.probabilities, found.output.softmax(1))
    assert found.labels == [data.classes[i] for i in found.output.argmax(1)]
    assert len(found) == 5
    plain = predict(nn.Linear(3, 2), torch.randn(4, 3))
    assert (plain.probabilities, plain.labels, plain.output.shape) == (None, None, (4, 2))


@pytest.mark.parametrize("name", ["mlp", "lenet", "convnet"])
def test_a_row_is_answered_alike_alone_and_in_a_batch(name: str) -> None:
    images = torch.randint(0, 256, (40, 16, 16), dtype=torch.uint8)
    data = dataset("d", train=(images, torch.arange(40) % 4))
    model = build(name, data)
    fit(model, data, epochs=1)
    whole = predict(model, images).output
    alone = torch.cat([predict(model, image).output for image in images[:10]])
    scale = max(1.0, float(whole.abs().max()))
    assert (alone - whole[:10]).abs().max() <= 1e-5 * scale
    parts = predict(model, images, batch_size=7).output
    assert (parts - whole).abs().max() <= 1e-5 * scale


def test_rows_in_any_guise_are_answered_alike() -> None:
    data = load("diabetes")
    model = build("linear", data)
    fit(model, data, epochs=1)
    rows = data.train.inputs[:3]
    guises: list[Any] = [rows.numpy(), rows.tolist(), pd.DataFrame(rows.numpy())]
    assert all(torch.equal(predict(model, g).output, predict(model, rows).output) for g in guises)


@pytest.mark.parametrize("frozen", [False, True])
def test_asking_leaves_every_flag_alone(frozen: bool) -> None:
    norm = nn.BatchNorm1d(3)
    model = nn.Sequential(nn.Linear(3, 3), norm, nn.Dropout(0.9))
    model.train()
    norm.train(not frozen)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    first = predict(model, torch.ones(4, 3)).output
    assert torch.equal(first, predict(model, torch.ones(4, 3)).output)  # no dropout
    assert [m.training for m in model] == [True, not frozen, True]
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_asking_restores_the_flags_after_an_error() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        predict(model, torch.ones(4, 5))
    assert model[0].training


def test_answers_may_be_trained_on() -> None:
    output = predict(nn.Linear(3, 2), torch.ones(4, 3)).output
    assert not output.requires_grad
    nn.Linear(2, 1)(output).sum().backward()  # inference-mode tensors would refuse


@pytest.mark.parametrize(
    ("split", "message"),
    [
        (load("line").test, "takes a Split, got NoneType: this dataset has no such split"),
        (load("line"), "evaluate takes a Split, got Dataset: pass data.test"),
        (torch.ones(2, 3), "takes a Split, got Tensor: pass one of a dataset's splits"),
        (Split(torch.ones(0, 2), torch.ones(0)), "there are no rows to predict: pass at least one"),
        (
            Split(torch.ones(2, 4), torch.zeros(2).long(), NAMES[:3]),
            r"outputs have the shape \(2, 4\), expected \(2, 3\) for 3 classes: change the size",
        ),
        (
            Split(torch.ones(2, 3), torch.zeros(2).long(), NAMES[:2]),
            r"shape \(2, 3\), expected \(2, 2\) or \(2, 1\) for 2 classes",
        ),
        (
            Split(torch.ones(2, 3), torch.zeros(2)),
            r"shape \(2, 3\), expected \(2, 1\) for the targets: change the size of its last layer",
        ),
    ],
)
def test_what_cannot_be_evaluated_is_refused(split: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        evaluate(nn.Identity(), split)


def test_rows_of_another_shape_are_refused() -> None:
    model = build("mlp", load("digits"))
    with pytest.raises(RequestError, match=r"shape \(2, 9, 9\), expected rows of \(8, 8\)"):
        predict(model, torch.zeros(2, 9, 9, dtype=torch.uint8))
    with pytest.raises(RequestError, match="batch_size must be a whole number from 1 up, got 0"):
        predict(model, torch.zeros(2, 8, 8, dtype=torch.uint8), batch_size=0)


@pytest.mark.parametrize(
    "name",
    [
        *("accuracy", "confusion", "per_class", "precision", "mistakes", "probabilities"),
        *("predicted", "brier"),
    ],
)
def test_a_regression_has_no_figures_of_classes(name: str) -> None:
    with pytest.raises(RequestError, match=r"a regression has no .*: ask for mse, mae or r2"):
        getattr(said(torch.ones(2, 1), torch.ones(2)), name)


@pytest.mark.parametrize(
    "name",
    [
        *("roc", "roc_auc", "precision_recall", "average_precision", "calibration"),
        *("calibration_error", "temperature", "plot_roc", "plot_precision_recall"),
        *("plot_calibration", "plot_confusion", "plot_per_class", "plot_mistakes"),
    ],
)
def test_a_regression_has_no_curves_of_classes(name: str) -> None:
    found = said(torch.ones(2, 1), torch.ones(2))
    with pytest.raises(RequestError, match=r"a regression has no .*: ask for mse, mae or r2"):
        getattr(found, name)()


@pytest.mark.parametrize("name", ["mse", "mae", "r2", "residuals"])
def test_a_classification_has_no_residuals(name: str) -> None:
    found = said(torch.eye(2), torch.tensor([0, 1]), NAMES[:2])
    with pytest.raises(RequestError, match=f"a classification has no {name}: ask for accuracy"):
        getattr(found, name)
    with pytest.raises(RequestError, match="a classification has no plot_residuals: ask for acc"):
        found.plot_residuals()


def test_classes_other_than_the_models_are_refused() -> None:
    X = torch.randn(6, 2)
    model = build("linear", dataset("ab", train=(X, ["a", "b", "c"] * 2)))
    other = dataset("xy", train=(X, ["x", "y", "z"] * 2))
    with pytest.raises(RequestError, match=r"made for the classes \('a', 'b', 'c'\)"):
        evaluate(model, other.train)


def test_a_prediction_shows_what_was_said() -> None:
    data = load("digits")
    said = repr(predict(build("linear", data), data.train.inputs[:7]))
    assert said == "Prediction of 7 rows: 0 10%; 0 10%; 0 10%; 0 10%; 0 10%; ..."
    line = load("line")
    assert repr(predict(build("linear", line), [[1.0]])) == "Prediction of 1 rows: 0"


@pytest.mark.parametrize("columns", [1, 3])
def test_mirroring_averages_an_image_and_its_mirror_image(columns: int) -> None:
    images = torch.randint(0, 256, (9, 16, 16, 3), dtype=torch.uint8)
    data = dataset("d", train=(images, torch.arange(9) % max(2, columns)))
    model = build("convnet", data)
    flipped = Split(images.flip(2), data.train.targets, data.classes)
    apart = [evaluate(model, split).outputs for split in (data.train, flipped)]
    found = evaluate(model, data.train, mirror=True, batch_size=4).outputs
    assert torch.allclose(found, (apart[0] + apart[1]) / 2, atol=1e-5)
    assert not torch.allclose(found, apart[0], atol=1e-4)


def test_only_images_have_a_mirror_image() -> None:
    data = load("diabetes")
    with pytest.raises(RequestError, match=r"mirror=True takes images, got rows of \(10,\) of fl"):
        evaluate(build("linear", data), data.train, mirror=True)


def test_what_is_no_model_is_refused() -> None:
    with pytest.raises(RequestError, match=r"expected a model \(an nn\.Module\), got str"):
        predict("net", [[1.0]])  # type: ignore[arg-type]


def test_outputs_without_an_axis_get_the_right_advice() -> None:
    with pytest.raises(RequestError, match=r"keep the axis of outputs, for instance by unsqueeze"):
        said(torch.ones(2), torch.zeros(2))
