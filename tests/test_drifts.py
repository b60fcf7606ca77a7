"""Drift: the figures against scipy's, no false alarms on rows without drift, and what is found."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from workbench.attached import attached
from workbench.datasets import dataset, load
from workbench.evaluation import infer
from workbench.models import build
from workbench.preprocessing import Preprocessing
from workbench.registry import Histogram, Reference
from workbench.registry.drifts import MATTERS, WINDOW, counts_of, drift, window_of
from workbench.training import fit

Draw = np.random.Generator


def normal(draw: Draw, rows: int, figures: int = 5) -> list[np.ndarray[Any, Any]]:
    return [draw.standard_normal(rows) for _ in range(figures)]


def reference_of(draw: Draw, rows: int, classes: int = 0) -> Reference:
    found = {str(i): Histogram.of(values) for i, values in enumerate(normal(draw, rows))}
    counts = draw.multinomial(rows, [1 / classes] * classes).tolist() if classes else []
    shares = {str(i): count / rows for i, count in enumerate(counts)}
    return Reference(rows, found, {}, shares)


def alarms(reference: Reference, values: list[np.ndarray[Any, Any]], **more: Any) -> list[str]:
    """Return the figures of one window that give the alarm."""
    counts = {f"input {i}": reference.inputs[str(i)].counts_of(v) for i, v in enumerate(values)}
    found = drift(reference, {**counts, **more})
    return [one.figure for one in found if one.alarm]


def test_the_index_is_the_sum_of_its_definition() -> None:
    reference = Reference(100, {"a": Histogram((0.0, 1.0), (0.0, 0.75, 0.25))}, {}, {})
    [found] = drift(reference, {"input a": [100, 300, 0]})
    terms = [(q - p) * np.log(q / p) for p, q in ((0.005, 0.25), (0.75, 0.75), (0.25, 0.00125))]
    assert found.figure == "input a"
    assert found.psi == pytest.approx(sum(terms))
    assert (found.threshold, found.alarm) == (MATTERS, True)
    assert found.ks == pytest.approx(0.25)
    assert found.p == pytest.approx(stats.kstwobign.sf(0.25 * (400 * 100 / 500) ** 0.5))


def test_what_is_empty_in_both_counts_nothing() -> None:
    reference = Reference(100, {}, {}, {"a": 0.5, "b": 0.5, "never": 0.0})
    [found] = drift(reference, {"class": [10, 10, 0]})
    assert (found.psi, found.ks, found.p, found.alarm) == (0, None, 1, False)


def test_the_test_of_an_order_errs_to_the_safe_side() -> None:
    draw = np.random.default_rng(0)
    for shift in (0, 0.1, 0.3):
        values, later = draw.standard_normal(2000), draw.standard_normal(500) + shift
        histogram = Histogram.of(values)
        reference = Reference(2000, {"a": histogram}, {}, {})
        [found] = drift(reference, {"input a": histogram.counts_of(later)})
        exact = stats.ks_2samp(values, later, method="asymp")
        assert found.ks is not None
        assert exact.statistic * 0.6 < found.ks <= exact.statistic + 1e-12
        assert found.p >= exact.pvalue * 0.99


@pytest.mark.parametrize("counts", [[10, 90], [50, 450], [100, 0], [250, 250], [0, 500], [60, 440]])
def test_the_test_of_classes_errs_to_the_safe_side(counts: list[int]) -> None:
    reference = Reference(300, {}, {}, {"a": 0.1, "b": 0.9})
    [found] = drift(reference, {"class": counts})
    exact = stats.fisher_exact([[30, 270], counts]).pvalue
    assert found.p >= exact
    assert (found.p < 1e-4) == (exact < 1e-8)


def test_no_alarm_for_chance_and_none_for_what_does_not_matter() -> None:
    many = Reference(10**6, {"a": Histogram((0.0, 1.0, 2.0), (0.0, 0.5, 0.5, 0.0))}, {}, {})
    [found] = drift(many, {"input a": [0, 520_000, 480_000, 0]})
    assert (found.p < 1e-9, found.alarm) == (True, False)
    few = Reference(10, many.inputs, {}, {})
    [found] = drift(few, {"input a": [0, 10, 2, 0]})
    assert (found.psi > MATTERS, found.alarm) == (True, False)


@pytest.mark.parametrize(("rows", "classes"), [(2000, 10), (200, 0), (100, 3), (30, 2), (1, 0)])
def test_no_window_in_a_thousand_without_drift_gives_the_alarm(rows: int, classes: int) -> None:
    """Over many references, since a window's chance depends on the luck of its reference."""
    draw, found = np.random.default_rng(4), 0
    for _ in range(100):
        reference = reference_of(draw, rows, classes)
        for _ in range(10):
            drawn = draw.multinomial(WINDOW, [1 / classes] * classes).tolist() if classes else []
            more = {"class": drawn} if classes else {}
            found += bool(alarms(reference, normal(draw, WINDOW), **more))
    assert found <= 1


@pytest.mark.full
@pytest.mark.parametrize("rows", [2000, 500, 200, 100, 60, 30])
def test_false_alarms_stay_below_one_in_a_thousand_of_many_windows(rows: int) -> None:
    draw = np.random.default_rng(rows)
    found = 0
    for _ in range(1000):
        reference = reference_of(draw, rows, 10)
        for _ in range(20):
            drawn = draw.multinomial(WINDOW, [0.1] * 10).tolist()
            found += bool(alarms(reference, normal(draw, WINDOW), **{"class": drawn}))
    assert found <= 20


@pytest.mark.parametrize("name", ["digits", "breast_cancer"])
def test_rows_of_the_same_data_give_no_alarm_and_others_do(name: str) -> None:
    """Halves of real rows drawn at random, one as the reference and one as the window."""
    data = load(name)
    model = build("linear", data, seed=0)
    fit(model, data, steps=20)
    preprocessing = attached(model).preprocessing
    assert preprocessing is not None
    raw = preprocessing.batch(torch.cat([data.train.inputs, data.test.inputs]))  # type: ignore[union-attr]
    output, draw, found = infer(model, raw, preprocessing), torch.Generator().manual_seed(0), 0
    for _ in range(30):
        mine, later = torch.randperm(len(raw), generator=draw)[: 2 * WINDOW].chunk(2)
        reference = Reference.of(raw[mine], output[mine], preprocessing)
        counts = counts_of(reference, raw[later], output[later], preprocessing)
        found += any(one.alarm for one in drift(reference, counts))
    assert found == 0
    half = (raw[later] / 2).to(raw.dtype)
    counts = counts_of(reference, half, infer(model, half, preprocessing), preprocessing)
    assert sum(one.alarm for one in drift(reference, counts)) >= 2


@pytest.mark.parametrize(
    ("rows", "shift", "spread", "least"),
    [
        *[(2000, 0.5, 1, 80), (2000, 0.7, 1, 100), (2000, 0, 2, 100), (2000, 0, 0.5, 100)],
        *[(200, 0.7, 1, 95), (200, 0, 3, 95), (60, 1, 1, 90)],
    ],
)
def test_a_change_of_one_figure_is_found(
    rows: int, shift: float, spread: float, least: int
) -> None:
    """Of 100 windows, each against a reference of its own."""
    draw, found = np.random.default_rng(5), 0
    for _ in range(100):
        first, *others = normal(draw, WINDOW)
        found += alarms(reference_of(draw, rows), [first * spread + shift, *others]) == ["input 0"]
    assert found >= least


@pytest.mark.parametrize(("shares", "least"), [((0.4, 0.3, 0.3), 0), ((0.65, 0.2, 0.15), 100)])
def test_a_change_of_classes_is_found_where_it_matters(
    shares: tuple[float, ...], least: int
) -> None:
    draw, found = np.random.default_rng(6), 0
    for _ in range(100):
        counts = draw.multinomial(WINDOW, shares).tolist()
        found += alarms(reference_of(draw, 1000, 3), [], **{"class": counts}) == ["class"]
    assert found >= least
    assert (found > 5) == bool(least)


def test_counts_are_those_of_each_figure() -> None:
    rows = torch.arange(24.0).reshape(12, 2)
    data = dataset("points", train=(rows, torch.arange(12) % 3), classes=["a", "b", "c"])
    model = build("linear", data)
    fit(model, data, steps=1)
    kept = attached(model).preprocessing
    assert kept is not None
    output = infer(model, rows, kept)
    reference = Reference.of(rows, output, kept)
    found = counts_of(reference, rows, output, kept)
    assert set(found) == {"input feature_0", "input feature_1", "output top_probability", "class"}
    for figure, counts in found.items():
        assert sum(counts) == 12, figure
    shares = [count / 12 for count in found["input feature_1"]]
    assert shares == pytest.approx(list(reference.inputs["feature_1"].shares))
    assert [count / 12 for count in found["class"]] == list(reference.classes.values())
    assert not any(one.alarm for one in drift(reference, found))


def test_what_is_no_number_was_never_seen() -> None:
    plain = Preprocessing("tensor", (), "float32")
    rows = torch.arange(10.0)
    reference = Reference.of(rows, rows[:, None], plain)
    strange = torch.full((10,), float("nan"))
    counts = counts_of(reference, strange, rows[:, None], plain)
    assert counts["input mean"][-1] == sum(counts["input mean"]) == 10


def test_counts_of_another_reference_are_left_out() -> None:
    reference = reference_of(np.random.default_rng(0), 100)
    assert drift(reference, {"input 0": [1, 2, 3], "input of old": [1, 2]}) == []


def test_a_window_says_which_figures_give_the_alarm() -> None:
    reference = Reference(900, {}, {}, {"a": 0.5, "b": 0.5})
    drifts = drift(reference, {"class": [500, 0]})
    window = window_of("3", 1.0, 2.0, 500, drifts)
    assert {key: window[key] for key in ("version", "first", "last", "rows", "alarm")} == {
        **{"version": "3", "first": 1.0, "last": 2.0, "rows": 500, "alarm": ["class"]},
    }
    assert list(window["figures"][0]) == ["figure", "psi", "threshold", "ks", "p", "alarm"]
