"""What the evaluation view shows and opens, against the evaluation's own figures, browserless."""

from __future__ import annotations

import base64
import io
import json
import math
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from pixels import pixels
from sklearn import metrics as oracle

from workbench import build, fit, load
from workbench.datasets import Split
from workbench.errors import RequestError
from workbench.evaluation import Evaluation, evaluate
from workbench.pictures import Picture
from workbench.widgets import EvaluationView
from workbench.widgets.evaluation_parts import Headline
from workbench.widgets.images import shrunk

NAMES = ("cat", "dog", "fox", "owl")


@cache
def judged(name: str, seed: int = 0) -> Evaluation:
    """Return how a linear model, hardly trained, answers the test split of a real data set."""
    data = load(name)
    model = build("linear", data, seed=seed)
    fit(model, data, epochs=2, seed=seed)
    return evaluate(model, data.test)


def made(classes: int, rows: int, *shape: int, images: bool = False, seed: int = 0) -> Evaluation:
    """Return answers drawn at random that are right more often than by chance."""
    draw = torch.Generator().manual_seed(seed)
    inputs = torch.randint(0, 256, (rows, *shape), generator=draw, dtype=torch.uint8)
    targets = torch.randint(classes, (rows,), generator=draw)
    outputs = torch.randn(rows, classes, generator=draw)
    outputs[torch.arange(rows), targets] += 2
    names = tuple(f"class {i}" for i in range(classes))
    return Evaluation(Split(inputs if images else inputs.float(), targets, names), outputs)


def regressed(rows: int, width: int, seed: int = 0) -> Evaluation:
    draw = torch.Generator().manual_seed(0)
    inputs, targets = torch.randn(rows, 4, generator=draw), torch.randn(rows, width, generator=draw)
    off = torch.randn(rows, width, generator=torch.Generator().manual_seed(seed + 1))
    return Evaluation(Split(inputs, targets if width > 1 else targets[:, 0]), targets + off)


def spoilt(evaluation: Evaluation, value: float = math.nan) -> Evaluation:
    """Return the same answers but the first row's, which is no number."""
    outputs = evaluation.outputs.clone()
    outputs[0] = value
    return Evaluation(evaluation.split, outputs)


def rows_of(view: EvaluationView) -> list[int]:
    """Return the rows that are open, of all pages."""
    found = []
    for page in range(view.shown["open"]["pages"]):
        view.do("turn", page=page)
        found += [row["row"] for row in view.shown["open"]["rows"]]
    assert len(found) == view.shown["open"]["found"]
    return found


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "diabetes"])
def test_figures_have_the_intervals_of_the_bootstrap(name: str) -> None:
    found = judged(name)
    (figures,) = EvaluationView(found).shown["figures"]
    assert [figure for figure, *_ in figures] == list(found.metrics)
    for figure, value, low, high in figures:
        expected = (found.metrics[figure], *found.interval(figure))
        assert (value, low, high) == pytest.approx(expected, rel=1e-5)


def test_a_cell_opens_its_rows_the_surest_first() -> None:
    found, view = judged("digits"), EvaluationView(judged("digits"))
    assert view.shown["confusion"] == found.confusion.tolist()
    view.do("open_cell", true="8", predicted="1")
    cell = found.examples.query("true == '8' and predicted == '1'")
    expected = cell.sort_values("p_predicted", ascending=False)
    assert rows_of(view) == expected["row"].tolist()
    first = view.shown["open"]["rows"][0]
    row = first["row"]
    assert (pixels(first["src"]) == (found.split.inputs[row] * (255 / 16)).round().numpy()).all()
    said = first["said"][0]
    assert (first["true"], said["said"], said["right"]) == ("8", "1", False)
    assert said["p_true"] == pytest.approx(found.examples["p_true"][row], rel=1e-5)
    view.do("shut_rows")
    assert view.shown["open"] is None


def test_what_is_confused_most_is_told() -> None:
    found, view = judged("digits"), EvaluationView(judged("digits"))
    off = found.confusion.clone().fill_diagonal_(0)
    counts = [n for _, _, n in view.shown["pairs"]]
    assert counts == off.flatten().sort(descending=True).values[:10].tolist()
    assert all(off[i, j] == n for i, j, n in view.shown["pairs"])
    assert EvaluationView(judged("breast_cancer")).shown["pairs"] == []  # the matrix says it


def test_of_many_classes_those_confused_most_are_shown() -> None:
    found = made(120, 6000, 3)
    view, off = EvaluationView(found), found.confusion.clone().fill_diagonal_(0)
    block, counts = view.shown["block"], torch.tensor(view.shown["confusion"])
    assert (len(block), block) == (30, sorted(block))
    assert torch.equal(counts, found.confusion[block][:, block])
    assert view.shown["totals"] == found.targets.bincount()[block].tolist()
    assert {k for i, j, _ in view.shown["pairs"] for k in (i, j)} <= set(block)
    outside = [k for k in range(120) if k not in block]
    assert off[outside][:, outside].max() <= off[block][:, block].max()
    i, j, n = view.shown["pairs"][-1]
    view.do("open_cell", true=found.classes[i], predicted=found.classes[j])
    assert view.shown["open"]["found"] == n
    right = EvaluationView(Evaluation.of(found.split, labels=found.targets))
    assert (right.shown["block"], right.shown["pairs"]) == (list(range(30)), [])


def test_many_classes_are_scored_page_by_page() -> None:
    found = made(250, 3000, 3)
    view = EvaluationView(found)
    view.do("open_tab", tab="classes")
    view.do("sort", by="recall", falling=True)
    names = []
    for page in range(3):
        view.do("turn", page=page)
        names += [name for name, *_ in view.shown["table"]]
    assert (
        names
        == found.per_class.sort_values("recall", ascending=False, kind="stable").index.tolist()
    )
    view.do("turn", page=3)
    assert view.problem == "page 3 is not there: there are 3, from 0"
    view.do("sort", by="class", falling=False)
    assert (view.shown["page"], view.shown["table"][0][0]) == (0, "class 0")


def test_of_many_classes_the_curves_of_the_chosen_one_are_found() -> None:
    found = made(120, 2000, 3)
    view = EvaluationView(found)
    view.do("open_tab", tab="curves")
    for name in ("class 0", "class 7"):
        view.do("choose_class", of=name)
        areas = [name, found.roc_auc(name), found.average_precision(name)]
        assert view.shown["areas"] == [[name, *(pytest.approx(v, rel=1e-5) for v in areas[1:])]]
    few = EvaluationView(made(40, 2000, 3))
    few.do("open_tab", tab="curves")
    assert len(few.shown["areas"]) == 40


def test_columns_have_the_names_of_the_table() -> None:
    found, view = judged("breast_cancer"), EvaluationView(judged("breast_cancer"))
    view.do("open_row", row=0)
    assert view.shown["columns"] == [name for name, _ in view.shown["alone"]["features"]]
    assert view.shown["columns"] == list(found.split.features)


def test_mistakes_are_those_of_the_evaluation() -> None:
    found, view = judged("digits"), EvaluationView(judged("digits"))
    view.do("open_tab", tab="mistakes")
    table = found.mistakes
    assert view.shown["open"]["found"] == len(table)
    for shown, (_, wrong) in zip(view.shown["open"]["rows"], table.iterrows(), strict=False):
        said = shown["said"][0]
        assert (shown["row"], shown["true"], said["said"]) == tuple(wrong.iloc[:3])
        p = (said["p_true"], said["p_predicted"])
        assert p == pytest.approx((wrong["p_true"], wrong["p_predicted"]), rel=1e-5)
    assert rows_of(view) == table["row"].tolist()


def test_a_row_alone_has_every_class_or_the_likeliest_and_the_true() -> None:
    found, view = judged("digits"), EvaluationView(judged("digits"))
    row = int(found.mistakes["row"][0])
    view.do("open_row", row=row)
    chances = dict(view.shown["alone"]["chances"])
    assert [chances[name] for name in found.classes] == pytest.approx(
        found.probabilities[row].tolist(), abs=1e-5
    )
    many = made(40, 30, 3)
    view = EvaluationView(many)
    for row in range(30):
        view.do("open_row", row=row)
        names = [name for name, _ in view.shown["alone"]["chances"]]
        top = many.probabilities[row].argsort(descending=True)[:10].tolist()
        assert names[:10] == [many.classes[i] for i in top]
        assert many.classes[int(many.targets[row])] in names
    view.do("open_row", row=-1)
    assert view.shown["alone"] is None


def test_one_logit_gives_both_chances() -> None:
    split = Split(torch.zeros(2, 3), torch.tensor([0, 1]), ("no", "yes"))
    view = EvaluationView(Evaluation(split, torch.tensor([[-1.0], [2.0]])))
    view.do("open_row", row=1)
    yes = 1 / (1 + math.exp(-2))
    assert dict(view.shown["alone"]["chances"]) == pytest.approx(
        {"yes": yes, "no": 1 - yes}, abs=1e-5
    )
    assert view.shown["alone"]["features"] == [["x1", 0], ["x2", 0], ["x3", 0]]


def test_classes_are_sorted_by_any_column() -> None:
    found, view = judged("digits"), EvaluationView(judged("digits"))
    view.do("open_tab", tab="classes")
    assert [row[0] for row in view.shown["table"]] == list(found.classes)
    for column in ("precision", "recall", "f1", "support"):
        view.do("sort", by=column, falling=True)
        expected = found.per_class.sort_values(column, ascending=False, kind="stable")
        assert [row[0] for row in view.shown["table"]] == expected.index.tolist()
        assert np.allclose([row[1:] for row in view.shown["table"]], expected.to_numpy())
    view.do("sort", by="class", falling=True)
    assert view.shown["table"][0][0] == "9"
    view.do("sort", by="suport", falling=True)
    assert "unknown column 'suport': did you mean support?" in view.problem


@pytest.mark.parametrize("bins", [5, 10, 15])
def test_every_bin_opens_its_rows(bins: int) -> None:
    found, view = judged("digits"), EvaluationView(judged("digits"))
    view.do("open_tab", tab="calibration")
    view.do("calibrate", bins=bins)
    table = found.calibration(bins)
    assert view.shown["error"] == pytest.approx(found.calibration_error(bins), rel=1e-5)
    assert view.shown["brier"] == pytest.approx(found.brier, rel=1e-5)
    assert [row[2] for row in view.shown["bins"]] == table["rows"].tolist()
    for place in range(bins):
        view.do("open_bin", place=place)
        rows = rows_of(view)
        assert len(rows) == table["rows"][place]
        right = found.examples["right"][rows].mean()
        assert right == pytest.approx(table["accuracy"][place], nan_ok=True)


def test_curves_are_those_of_scikit_learn() -> None:
    found, view = judged("digits"), EvaluationView(judged("digits"))
    view.do("open_tab", tab="curves")
    view.do("choose_class", of="8")
    truth, p = found.targets.numpy() == 8, found.probabilities[:, 8].numpy()
    fpr, tpr, _ = oracle.roc_curve(truth, p, drop_intermediate=False)
    assert np.allclose(view.shown["roc"], np.stack([fpr, tpr], 1), atol=1e-5)
    name, auc, average = view.shown["areas"][8]
    assert (name, auc) == ("8", pytest.approx(oracle.roc_auc_score(truth, p), rel=1e-4))
    assert average == pytest.approx(oracle.average_precision_score(truth, p), rel=1e-4)
    assert view.shown["share"] == pytest.approx(truth.mean(), rel=1e-5)


def test_a_thinned_curve_has_nearly_the_same_area() -> None:
    found = made(2, 5000, 3)
    view = EvaluationView(found)
    view.do("open_tab", tab="curves")
    points = np.array(view.shown["roc"])
    assert 300 < len(points) <= 400
    assert points[0].tolist() == [0, 0]
    assert points[-1].tolist() == [1, 1]
    area = np.trapezoid(points[:, 1], points[:, 0])
    assert area == pytest.approx(found.roc_auc(), abs=2e-3)


@pytest.mark.parametrize("threshold", [0.0, 0.2, 0.83, 1.0])
def test_all_parts_follow_the_threshold(threshold: float) -> None:
    found, view = judged("breast_cancer"), EvaluationView(judged("breast_cancer"))
    view.do("open_tab", tab="curves")
    view.do("decide", threshold=threshold)
    expected, now = found.at(threshold), view.shown["now"]
    assert now["confusion"] == expected.confusion.tolist()
    scores = expected.per_class.loc["benign"]
    names = ("precision", "recall", "f1")
    assert [now[name] for name in names] == pytest.approx([scores[n] for n in names], rel=1e-5)
    alarms, negatives = expected.confusion[0, 1], expected.confusion[0].sum()
    assert now["false_positive_rate"] == pytest.approx(float(alarms / negatives), rel=1e-5)
    figures = {name: value for name, value, *_ in view.shown["figures"][0]}
    assert figures == pytest.approx(expected.metrics, rel=1e-5)
    assert view.evaluation.threshold == view.shown["threshold"] == threshold
    view.do("open_cell", true="benign", predicted="malignant")
    missed = (expected.targets == 1) & (expected.predicted == 0)
    assert sorted(rows_of(view)) == missed.nonzero()[:, 0].tolist()
    view.do("open_tab", tab="mistakes")
    assert view.shown["open"]["found"] == len(expected.mistakes)
    view.do("decide", threshold=None)
    assert view.evaluation is found


def test_a_threshold_that_was_given_is_where_it_begins() -> None:
    view = EvaluationView(judged("breast_cancer").at(0.3))
    assert (view.shown["threshold"], view.shown["moved"]) == (0.3, False)
    view.do("decide", threshold=0.6)
    assert (view.shown["threshold"], view.shown["moved"]) == (0.6, True)
    view.do("decide", threshold=None)
    assert view.shown["threshold"] == 0.3
    view.do("decide", threshold="high")
    assert "threshold must be a number, got 'high'" in view.problem
    several = EvaluationView(judged("digits"))
    several.do("decide", threshold=0.5)
    assert "a threshold decides between two classes, found 10" in several.problem


def test_a_class_without_rows_has_no_curves_and_says_so() -> None:
    outputs = torch.eye(4)[[0, 0, 1]]
    view = EvaluationView(
        Evaluation(Split(torch.zeros(3, 2), torch.tensor([0, 0, 1]), NAMES), outputs)
    )
    view.do("open_tab", tab="curves")
    assert (view.shown["of"], view.shown["areas"][2][:2]) == ("cat", ["fox", None])
    view.do("choose_class", of="fox")
    expected = "no row is of the class 'fox', so it has no curves: choose another"
    assert view.shown["reason"] == expected
    view.do("choose_class", of="fax")
    assert "unknown class 'fax': did you mean fox?" in view.problem


def test_a_regression_shows_what_is_left_over() -> None:
    found, view = judged("diabetes"), EvaluationView(judged("diabetes"))
    table = found.examples
    assert view.shown["dots"] == [
        [row, pytest.approx(true, rel=1e-5), pytest.approx(said, rel=1e-5)]
        for row, true, said in table[["row", "true", "predicted"]].to_numpy()
    ]
    order = table["residual"].abs().sort_values(ascending=False, kind="stable").index
    assert rows_of(view) == order.tolist()
    view.do("open_row", row=int(order[0]))
    alone = view.shown["alone"]
    expected = table.loc[order[0], ["true", "predicted", "residual"]].tolist()
    assert alone["outputs"] == [[pytest.approx(value, rel=1e-5) for value in expected]]
    values = [value for _, value in alone["features"]]
    assert values == pytest.approx(found.split.inputs[order[0]].tolist(), rel=1e-5)


def test_each_of_several_outputs_has_its_figures() -> None:
    found = regressed(60, 3)
    view = EvaluationView(found)
    by_output = np.array(view.shown["by_output"])
    true, said = found.targets.numpy(), found.outputs.numpy()
    expected = [
        oracle.mean_squared_error(true, said, multioutput="raw_values"),
        oracle.mean_absolute_error(true, said, multioutput="raw_values"),
        oracle.r2_score(true, said, multioutput="raw_values"),
    ]
    assert np.allclose(by_output.T, expected, rtol=1e-4)
    view.do("choose_output", output=2)
    assert [dot[2] for dot in view.shown["dots"]] == pytest.approx(said[:, 2].tolist(), rel=1e-5)
    assert rows_of(view)[0] == int(found.residuals[:, 2].abs().argmax())
    view.do("choose_output", output=3)
    assert view.problem == "output 3 is not there: there are 3, from 0"


def test_two_are_compared_row_by_row() -> None:
    first, second = judged("digits"), judged("digits", seed=1)
    view, comparison = EvaluationView(first, second), first.against(second)
    assert view.shown["tab"] == "comparison"
    assert view.shown["sentence"] == repr(comparison)
    told = [view.shown[name] for name in ("difference", "low", "high", "p")]
    expected = [comparison.difference, *comparison.interval, comparison.p]
    assert told == pytest.approx(expected, rel=1e-5)
    for group, n in view.shown["groups"]:
        assert n == getattr(comparison, group)
        view.do("open_group", group=group)
        one, two = first.examples["right"], second.examples["right"]
        wanted = {"both_right": one & two, "only_first": one & ~two, "only_second": ~one & two}
        rows = wanted.get(group, ~one & ~two)
        assert sorted(rows_of(view)) == np.flatnonzero(rows).tolist()
    said = view.shown["open"]["rows"][0]["said"]
    row = view.shown["open"]["rows"][0]["row"]
    assert [answer["said"] for answer in said] == [
        evaluation.examples["predicted"][row] for evaluation in (first, second)
    ]


def test_two_regressions_are_compared_by_their_errors() -> None:
    first, second = regressed(50, 1), regressed(50, 1, seed=1)
    view, comparison = EvaluationView(first, second), first.against(second)
    assert view.shown["p"] == pytest.approx(comparison.p, rel=1e-5)
    errors = [evaluation.residuals[:, 0].abs() for evaluation in (first, second)]
    dots = np.array(view.shown["dots"])[:, 1:].T
    assert np.allclose(dots, np.stack(errors), rtol=1e-5)
    view.do("open_group", group="first_closer")
    rows = rows_of(view)
    assert sorted(rows) == (errors[0] < errors[1]).nonzero()[:, 0].tolist()
    gains = (errors[1] - errors[0])[rows]
    assert (gains.diff() <= 0).all()
    view.do("open_group", group="only_first")
    assert "unknown group of rows 'only_first'" in view.problem


def test_labels_alone_leave_out_what_needs_probabilities() -> None:
    found = judged("digits")
    view = EvaluationView(Evaluation.of(found.split, labels=found.predicted))
    assert [name for name, *_ in view.shown["figures"][0]] == [
        "accuracy",
        "precision",
        "recall",
        "f1",
    ]
    for tab, what in (("calibration", "calibration"), ("curves", "roc")):
        view.do("open_tab", tab=tab)
        expected = f"labels alone have no {what}: give Evaluation.of(split, probabilities=...)"
        assert view.shown["reason"] == expected
    view.do("open_bin", place=0)
    assert "labels alone have no calibration" in view.problem
    view.do("open_tab", tab="mistakes")
    assert rows_of(view) == found.mistakes["row"].sort_values().tolist()
    view.do("open_row", row=0)
    assert view.shown["alone"]["chances"] == []


def test_probabilities_alone_show_as_much_as_a_model() -> None:
    found = judged("breast_cancer")
    given = Evaluation.of(found.split, probabilities=found.probabilities.double())
    view, whole = EvaluationView(given), EvaluationView(found)
    for tab in view.shown["tabs"]:
        view.do("open_tab", tab=tab)
        whole.do("open_tab", tab=tab)
        assert view.shown.keys() == whole.shown.keys()
        assert "reason" not in view.shown


def test_answers_that_are_no_numbers_are_told() -> None:
    view = EvaluationView(spoilt(made(3, 20, 4)))
    expected = "1 of 20 rows were answered with what is not finite, first row 0, so there is no roc"
    view.do("open_tab", tab="curves")
    assert expected in view.shown["reason"]
    view.do("open_row", row=0)
    assert {p for _, p in view.shown["alone"]["chances"]} == {None}
    first, second = spoilt(regressed(20, 1), math.inf), regressed(20, 1, seed=1)
    view = EvaluationView(first, second)
    assert view.shown["reason"].startswith("1 of 20 rows were answered with what is not finite, so")
    assert sum(n for _, n in view.shown["groups"]) == 20
    view.do("open_tab", tab="predictions")
    assert (view.shown["strange"], len(view.shown["dots"])) == (1, 19)
    assert rows_of(view)[0] == 0


def test_one_row_alone_has_no_interval() -> None:
    for found, other in ((made(2, 1, 3), made(2, 1, 3)), (regressed(1, 1), regressed(1, 1))):
        view = EvaluationView(found, other)
        expected = "1 row has no spread to draw from: evaluate two or more"
        assert view.shown["reasons"] == [expected]
        assert view.shown["reason"] == expected
        assert all(low is None for _, _, low, _ in view.shown["figures"][0])
        for tab in view.shown["tabs"]:
            view.do("open_tab", tab=tab)
            assert view.problem == ""


def test_intervals_of_many_rows_come_when_they_are_asked_for() -> None:
    found = made(3, 1001, 2)
    view = EvaluationView(found)
    assert view.shown["missing"]
    assert [low for _, _, low, _ in view.shown["figures"][0]] == [None] * 5
    for known in range(1, 6):
        view.do("estimate")
        assert [low is not None for _, _, low, _ in view.shown["figures"][0]].count(True) == known
    assert not view.shown["missing"]
    low, high = found.interval("f1")
    assert view.shown["figures"][0][4][2:] == pytest.approx([low, high], rel=1e-5)


def test_intervals_that_would_take_minutes_are_left_to_whoever_asks() -> None:
    head = Headline(regressed(2000, 60))
    assert head.missing == ["loss", "mse", "mae"]
    expected = "intervals of r2 would take long here: ask evaluation.interval('r2') for one"
    assert head.reason == expected
    assert Headline(made(400, 10, 2)).missing == ["loss", "accuracy"]


@pytest.mark.parametrize(
    "found",
    [
        lambda: made(2, 10_000, 32, 32, 3, images=True),
        lambda: made(10, 10_000, 64, 64, 3, images=True),
        lambda: made(100, 10_000, 400),
        lambda: made(1000, 20_000, 4),
        lambda: made(3, 40, 300, 200, 3, images=True),
        lambda: regressed(10_000, 1),
        lambda: regressed(200, 500),
    ],
)
def test_whatever_is_shown_is_bounded_and_plain(found: Any) -> None:
    evaluation = found()
    other = Evaluation(evaluation.split, evaluation.outputs.flip(1) + 0.1)
    view = EvaluationView(evaluation, other)
    for tab in view.shown["tabs"]:
        view.do("open_tab", tab=tab)
        view.do("open_row", row=0)
        assert len(json.dumps(view.shown, allow_nan=False)) < 300_000
        assert view.problem == ""
    if evaluation.classes:
        true = evaluation.classes[int(evaluation.targets[0])]
        view.do("open_cell", true=true, predicted=true)
        view.do("open_row", row=0)
        assert len(json.dumps(view.shown, allow_nan=False)) < 300_000


def test_a_shrunk_image_has_the_means_of_its_pixels() -> None:
    image = torch.randint(0, 256, (256, 128, 3), dtype=torch.uint8)
    small = shrunk(image, 64)
    expected = image.reshape(64, 4, 32, 4, 3).double().mean((1, 3))
    assert small.shape == (64, 32, 3)
    assert torch.allclose(small.double(), expected, atol=1e-3)
    assert shrunk(image[..., 0], 64).shape == (64, 32)
    assert shrunk(image[:200, :70], 64).shape == (64, 22, 3)
    assert shrunk(image, 300) is image


def test_what_is_not_there_is_refused_and_nothing_moves() -> None:
    view = EvaluationView(judged("digits"))
    before = view.shown
    for name, what, expected in (
        (
            "open_tab",
            {"tab": "mistake"},
            "unknown part of the view 'mistake': did you mean mistakes?",
        ),
        ("open_cell", {"true": "ten", "predicted": "1"}, "unknown class 'ten'"),
        ("open_group", {"group": "both_right"}, "compare by evaluation.show(other)"),
        ("open_bin", {"place": 10}, "bin 10 is not there: there are 10, from 0"),
        ("calibrate", {"bins": 0}, "bins must be a whole number from 1 to 50, got 0"),
        ("turn", {"page": 1}, "page 1 is not there: there are 1, from 0"),
        ("open_row", {"row": 360}, "row 360 is not there: there are 360, from 0"),
        ("choose_output", {"output": 0}, "output 0 is not there: there are 0, from 0"),
    ):
        view.do(name, **what)
        assert expected in view.problem
        assert view.shown == before


def test_only_evaluations_of_the_same_rows_are_compared() -> None:
    found = judged("digits")
    with pytest.raises(RequestError, match="show takes an Evaluation to compare with, got float"):
        found.show(0.9)  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="have 360 rows and 20, expected the same rows"):
        found.show(made(10, 20, 4))


@pytest.mark.parametrize(
    "found",
    [lambda: judged("digits"), lambda: judged("diabetes"), lambda: regressed(20, 40),
     lambda: made(60, 300, 4), lambda: spoilt(regressed(20, 1)), lambda: made(2, 1, 3)],
)  # fmt: skip
def test_headless_it_is_a_picture_and_text(found: Any) -> None:
    evaluation = found()
    for picture in (evaluation.show(), evaluation.show(evaluation)):
        assert isinstance(picture, Picture)
        image = Image.open(io.BytesIO(picture._repr_png_()))
        assert max(image.size) < 1300
    bundle = EvaluationView(evaluation)._repr_mimebundle_()
    assert bundle["text/plain"] == repr(evaluation)
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
