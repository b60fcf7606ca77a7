"""Answers from elsewhere are judged as a model's are; what cannot be an answer is refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn import metrics as oracle
from sklearn.dummy import DummyClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from torch import nn

from workbench.datasets import Split, load
from workbench.errors import RequestError, UnknownNameError
from workbench.evaluation import Evaluation, evaluate

NAMES = ("cat", "dog", "fox", "owl")


def split(targets: Any, n_classes: int = 0) -> Split:
    """Return a split of which only the targets matter."""
    return Split(torch.zeros(len(targets), 1), torch.as_tensor(targets), NAMES[:n_classes])


@given(st.integers(0, 2**32 - 1), st.integers(1, 40), st.integers(2, 4))
@settings(max_examples=40, deadline=None)
def test_given_probabilities_are_scored_as_by_scikit_learn(seed: int, rows: int, n: int) -> None:
    random = np.random.default_rng(seed)
    p, y = random.dirichlet(np.full(n, 0.5), rows), random.integers(n, size=rows)
    found = Evaluation.of(split(y, n), probabilities=p)
    labels = list(range(n))
    assert found.loss == pytest.approx(oracle.log_loss(y, p, labels=labels))
    assert found.accuracy == pytest.approx(oracle.accuracy_score(y, p.argmax(1)))
    counts = oracle.confusion_matrix(y, p.argmax(1), labels=labels)
    assert found.confusion.tolist() == counts.tolist()
    f1 = oracle.f1_score(y, p.argmax(1), labels=labels, average="macro", zero_division=0)
    assert found.f1 == pytest.approx(f1)
    assert np.array_equal(found.probabilities, p)


def test_two_classes_may_have_one_column_of_probabilities() -> None:
    second, y = np.array([0.2, 0.9, 0.5, 0.7]), [0, 1, 1, 0]
    both = Evaluation.of(split(y, 2), probabilities=np.stack([1 - second, second], 1))
    for p in (second, second[:, None], second.tolist(), torch.tensor(second), pd.Series(second)):
        found = Evaluation.of(split(y, 2), probabilities=p)
        assert found.metrics == pytest.approx(both.metrics)
        assert found.roc_auc() == both.roc_auc()
        assert found.probabilities.shape == (4, 1)
        pd.testing.assert_frame_equal(found.examples, both.examples)
    assert found.loss == pytest.approx(oracle.log_loss(y, second))


def test_a_classifier_of_scikit_learn_is_judged() -> None:
    data = load("digits")
    assert data.test is not None
    X, y = data.train.inputs.flatten(1).numpy(), data.train.targets.numpy()
    X_test, y_test = data.test.inputs.flatten(1).numpy(), data.test.targets.numpy()
    model = LogisticRegression(max_iter=2000).fit(X / 16, y)
    p, said = model.predict_proba(X_test / 16), model.predict(X_test / 16)
    found = Evaluation.of(data.test, probabilities=p)
    assert found.accuracy == model.score(X_test / 16, y_test)
    assert found.loss == pytest.approx(oracle.log_loss(y_test, p))
    assert found.top_k(3) == oracle.top_k_accuracy_score(y_test, p, k=3)
    plain = Evaluation.of(data.test, labels=said)
    assert {**plain.metrics, "loss": found.loss} == found.metrics
    names = [data.classes[i] for i in said]
    assert Evaluation.of(data.test, labels=names).metrics == plain.metrics


def test_a_rule_that_always_says_the_same_is_judged() -> None:
    y = [0, 0, 0, 1, 2]
    model = DummyClassifier().fit(np.zeros((5, 1)), y)
    p = model.predict_proba(np.zeros((5, 1)))
    found = Evaluation.of(split(y, 3), probabilities=p)
    assert found.accuracy == 0.6
    assert found.loss == pytest.approx(oracle.log_loss(y, p))
    labels = Evaluation.of(split(y, 3), labels=model.predict(np.zeros((5, 1))))
    assert (
        repr(labels) == "Evaluation of 5 rows: accuracy 0.6, precision 0.2, recall 0.3333, f1 0.25"
    )
    assert labels.examples.columns.tolist() == ["row", "true", "predicted", "right"]
    assert labels.mistakes.to_dict("list") == {
        **{"row": [3, 4], "true": ["dog", "fox"]},
        "predicted": ["cat", "cat"],
    }


@pytest.mark.parametrize(
    "labels",
    [
        [0, 1, 1],
        ["cat", "dog", "dog"],
        np.array([False, True, True]),
        np.array([0.0, 1.0, 1.0]),
        torch.tensor([0, 1, 1]),
        pd.Series(["cat", "dog", "dog"], index=[7, 8, 9]),
        pd.Categorical(["cat", "dog", "dog"]),
        np.array([0, 1, 1], dtype=np.uint8),
    ],
)
def test_labels_come_in_any_guise(labels: Any) -> None:
    found = Evaluation.of(split([0, 1, 0], 2), labels=labels)
    assert found.predicted.tolist() == [0, 1, 1]
    assert found.predicted.dtype == torch.int64
    assert found.accuracy == pytest.approx(2 / 3)


@pytest.mark.parametrize("width", [0, 1, 3])
def test_given_values_are_scored_as_by_scikit_learn(width: int) -> None:
    random = np.random.default_rng(width)
    y = random.normal(size=(30, width) if width else 30).astype(np.float32)
    y_hat = y + random.normal(size=y.shape)
    found = Evaluation.of(split(y), values=y_hat)
    assert found.mse == pytest.approx(oracle.mean_squared_error(y, y_hat))
    assert found.mae == pytest.approx(oracle.mean_absolute_error(y, y_hat))
    assert found.r2 == pytest.approx(oracle.r2_score(y, y_hat))
    assert found.loss == pytest.approx(found.mse)
    assert found.outputs.shape == (30, max(width, 1))


def test_a_regression_of_scikit_learn_is_judged() -> None:
    data = load("diabetes")
    assert data.test is not None
    model = LinearRegression().fit(data.train.inputs.numpy(), data.train.targets.numpy())
    said = model.predict(data.test.inputs.numpy())
    found = Evaluation.of(data.test, values=said)
    assert found.r2 == pytest.approx(model.score(data.test.inputs, data.test.targets))
    table = found.examples
    assert table.columns.tolist() == ["row", "true", "predicted", "residual"]
    np.testing.assert_allclose(table["residual"], data.test.targets.numpy() - said)
    assert found.plot_residuals()._repr_png_().startswith(b"\x89PNG")


def test_what_was_given_may_change_afterwards() -> None:
    p = np.array([0.2, 0.8])
    found = Evaluation.of(split([0, 1], 2), probabilities=p)
    p[:] = 0.5
    assert found.probabilities[:, 0].tolist() == [0.2, 0.8]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "got no answers, expected exactly one of probabilities=, labels= and values="),
        ({"labels": [0, 1], "values": [0, 1]}, "got labels and values, expected exactly one of"),
        ({"values": [0, 1]}, "a classification has no values: give probabilities= or labels="),
        ({"labels": [0]}, r"labels have the shape \(1,\), expected \(2,\): one for each row"),
        ({"labels": [0, 3]}, "labels hold 3, expected class names or indices from 0 to 2"),
        ({"labels": [0, -1]}, "labels hold -1, expected"),
        ({"labels": [0, 0.5]}, "labels hold 0.5, expected"),
        ({"labels": [0, float("nan")]}, "labels hold nan, expected"),
        ({"labels": ["cat", "dgo"]}, "unknown class 'dgo': did you mean dog"),
        (
            {"probabilities": [0.5, 0.5]},
            r"shape \(2,\), expected \(2, 3\): a row for each of the split, and a column for each",
        ),
        ({"probabilities": [[1, 0, 0]]}, r"shape \(1, 3\), expected \(2, 3\)"),
        ({"probabilities": [[2, -1, 0]] * 2}, "go from -1 to 2, expected 0 to 1: give what"),
        ({"probabilities": [[1, -0.5, 0.5]] * 2}, "go from -0.5 to 1, expected 0 to 1"),
        ({"probabilities": [[1, 0, 0], [1, 0.5, 0]]}, "of row 1 sum to 1.5, expected 1: divide"),
        ({"probabilities": [[1, 0, 0], [float("nan")] * 3]}, "not finite, first in row 1"),
        ({"probabilities": [["a"] * 3] * 2}, "probabilities are not an array of numbers: could"),
        ({"probabilities": [[1], [1, 0]]}, "probabilities are not an array of numbers: setting"),
    ],
)
def test_what_cannot_answer_classes_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Evaluation.of(split([0, 1], 3), **given)


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"probabilities": [0.5] * 2}, "a regression has no probabilities: give values="),
        ({"labels": [0, 1]}, "a regression has no labels: give values="),
        ({"values": [1.0]}, r"values have the shape \(1,\), expected \(2,\) or \(2, 1\)"),
        ({"values": [[1.0, 2.0]] * 2}, r"shape \(2, 2\), expected \(2,\) or \(2, 1\)"),
        ({"values": [1.0, float("inf")]}, "values are not finite, first in row 1"),
    ],
)
def test_what_cannot_answer_a_regression_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Evaluation.of(split([0.0, 1.0]), **given)


def test_answers_are_those_of_a_split() -> None:
    with pytest.raises(RequestError, match=r"Evaluation\.of takes a Split, got Dataset: pass data"):
        Evaluation.of(load("line"), values=[1.0])  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError):
        Evaluation.of(split([0, 1], 2), labels=["cat", "cow"])


@pytest.mark.parametrize("name", ["loss", "probabilities", "brier"])
def test_labels_alone_have_no_probabilities(name: str) -> None:
    found = Evaluation.of(split([0, 1], 2), labels=[0, 0])
    with pytest.raises(RequestError, match=f"labels alone have no {name}: give Evaluation.of"):
        getattr(found, name)
    with pytest.raises(RequestError, match="labels alone have no roc"):
        found.roc()
    with pytest.raises(RequestError, match="labels alone have no threshold"):
        found.at(0.3)
    with pytest.raises(RequestError, match="labels alone have no temperature"):
        found.scaled(2)


@pytest.mark.parametrize("columns", [1, 2])
def test_a_threshold_moves_what_is_said_and_nothing_else(columns: int) -> None:
    targets = torch.randint(2, (60,))
    found = evaluate(nn.Identity(), Split(torch.randn(60, columns), targets, NAMES[:2]))
    p = found.examples["p_true"].where(targets.numpy() == 1, 1 - found.examples["p_true"])
    for threshold in (0.1, 0.5, 0.8):
        moved = found.at(threshold)
        assert moved.predicted.tolist() == (p > threshold).astype(int).tolist()
        assert moved.accuracy == oracle.accuracy_score(targets, p > threshold)
        assert (moved.loss, moved.roc_auc()) == (found.loss, found.roc_auc())
        assert moved.at(0.5).metrics == found.metrics
    assert found.at(1).recall == 0.5  # never the second: one class whole, the other not at all
    assert found.at(-np.inf).predicted.tolist() == [1] * 60


def test_a_threshold_is_compared_with_the_very_probability_given() -> None:
    found = Evaluation.of(split([0, 1], 2), probabilities=[0.3, 0.3 + 1e-16])
    assert found.at(0.3).predicted.tolist() == [0, 1]


def test_a_threshold_is_a_number_between_two_classes() -> None:
    with pytest.raises(RequestError, match="decides between two classes, found 3: of several"):
        Evaluation.of(split([0, 1], 3), probabilities=np.eye(3)[:2]).at(0.5)
    with pytest.raises(RequestError, match="a regression has no threshold"):
        Evaluation.of(split([0.0, 1.0]), values=[0, 1]).at(0.5)
    two = Evaluation.of(split([0, 1], 2), probabilities=[0.1, 0.2])
    for strange in ("0.5", None, float("nan")):
        with pytest.raises(RequestError, match=r"threshold must be a number, got .*: pass 0\.5"):
            two.at(strange)  # type: ignore[arg-type]
