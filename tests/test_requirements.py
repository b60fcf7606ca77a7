"""Requirements: what is one, when it holds, and which run is the last good one."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from workbench.errors import RequestError
from workbench.home import home, write_json
from workbench.runs import list_runs
from workbench.runs.requirements import (
    Outcome,
    Requirement,
    is_good,
    last_good,
    to_compare_with,
)

NOTEBOOK = Path("/x/night.ipynb")


def check(text: str, last: dict[str, float] | None = None, **metrics: float) -> Outcome:
    return Requirement.parse(text).check(metrics, last)


@pytest.mark.parametrize(
    ("text", "metric", "sign"),
    [
        ("test_accuracy>=0.75", "test_accuracy", ">="),
        ("loss<.5", "loss", "<"),
        ("  mean loss  <=  1e-3 ", "mean loss", "<="),
        ("bias > -1.", "bias", ">"),
        ("epochs==+3", "epochs", "=="),
        ("last>=last - 0.01", "last", ">="),
        ("train/loss<=last", "train/loss", "<="),
    ],
)
def test_a_requirement_is_read(text: str, metric: str, sign: str) -> None:
    found = Requirement.parse(text)
    assert (found.text, found.metric, found.sign) == (text, metric, sign)


@pytest.mark.parametrize(
    "text",
    [
        *("", "x", ">=1", "x>=", "x=1", "x=>1", "x!=1", "x>=1>=2", "1<x<2", "x>=nan", "x>=inf"),
        *("x>=75%", "x>=1_000", "x>=last/2", "x>=last-", "x>=2*last", "x>=last-last", "x>=lasts"),
        *("x>=1 2", "x>=1e9999", "x>=1e999", "x>=last*1e999"),
    ],
)
def test_what_is_none_is_refused_with_an_example(text: str) -> None:
    with pytest.raises(RequestError, match=r"requirement '.*' is not understood: .*<=, >=, ==, <"):
        Requirement.parse(text)
    with pytest.raises(
        RequestError, match=r"as in 'test_accuracy>=0.75' or 'test_accuracy>=last-0"
    ):
        Requirement.parse(text)


@pytest.mark.parametrize(
    ("text", "holds"),
    [
        *(("x>=0.5", True), ("x>0.5", False), ("x<=0.5", True), ("x<0.5", False)),
        *(("x==0.5", True), ("x>=0.51", False), ("x<=0.49", False), ("x==0.50001", False)),
        *(("x>=last", True), ("x>last", False), ("x>=last+0.1", False), ("x>last-0.1", True)),
        *(("x>=last*0.98", True), ("x>=last*1.02", False), ("x<=last*-1", False)),
    ],
)
def test_a_bound_is_kept_or_not(text: str, holds: bool) -> None:
    assert check(text, {"x": 0.5}, x=0.5).holds is holds


def test_decimals_are_compared_as_they_are_written() -> None:
    assert 0.8 - 0.1 > 0.7
    assert check("x>=last-0.1", {"x": 0.8}, x=0.7).holds


@given(st.floats(-1e6, 1e6), st.floats(-1e6, 1e6))
def test_a_bound_agrees_with_python(found: float, bound: float) -> None:
    assert check(f"x>={bound!r}", x=found).holds is (found >= bound)
    assert check(f"x=={bound:.30g}", x=bound).holds
    assert check(f"x<{bound:.17g}", x=found).holds is (found < bound)
    assert check("x>=last", {"x": bound}, x=found).holds is (found >= bound)


def test_an_outcome_says_what_was_found_and_wanted() -> None:
    outcome = check("x>=last-0.01", {"x": 0.76}, x=0.7)
    assert outcome.message == "x is 0.7, required >= 0.75 (last was 0.76)"
    told = {"text": "x>=last-0.01", "holds": False, "found": 0.7, "wanted": 0.75}
    assert outcome.to_json() == {**told, "message": outcome.message}
    assert check("x>=0.7500001", x=0.75).message == "x is 0.75, required >= 0.7500001"
    assert check("x<=last", {"x": 1}, x=1).message == "x is 1, required <= 1 (last was 1)"


def test_a_metric_that_was_not_recorded_does_not_hold() -> None:
    outcome = check("x>=0", b=1, a=2)
    assert (outcome.holds, outcome.found, outcome.wanted) == (False, None, None)
    assert outcome.message == "x was not recorded; recorded are: a, b"
    assert check("x>=last").message == "x was not recorded; recorded are: none"


def test_without_an_earlier_value_a_relative_requirement_holds() -> None:
    outcome = check("x>=last-0.01", None, x=0.7)
    assert (outcome.holds, outcome.found, outcome.wanted) == (True, 0.7, None)
    assert outcome.message == "x is 0.7, no earlier run to compare with"
    outcome = check("x>=last", {"y": 1.0}, x=0.7)
    assert outcome.message == "x is 0.7, no value of it in the last good run to compare with"
    assert outcome.holds


@pytest.mark.parametrize("text", ["x>=0", "x<0", "x==last", "x>=last-1", "x<last*2"])
def test_nan_never_holds_and_json_can_hold_it(text: str) -> None:
    for last in ({"x": 1.0}, None):
        outcome = check(text, last, x=math.nan)
        assert (outcome.holds, outcome.message) == (False, "x is not a number")
        json.dumps(outcome.to_json(), allow_nan=False)


def test_infinity_is_compared_and_json_can_hold_it() -> None:
    outcome = check("x>=0.5", x=math.inf)
    assert (outcome.holds, outcome.found) == (True, None)
    assert not check("x<=0.5", x=math.inf).holds


def write(number: int, *, path: Path = NOTEBOOK, **changes: Any) -> str:
    """Write the record of a run of the night's notebook, and return its id."""
    name = f"2026010{number}-000000-night-000{number}"
    record = {
        **{"format": 1, "id": name, "state": "done", "notebook": {"path": str(path)}},
        **{"started": f"2026-01-0{number}T00:00:00+00:00", "seconds": 1.0, "parameters": {}},
        **{"metrics": {"x": float(number)}, "published": [], "datasets": []},
        **changes,
    }
    write_json(home() / "runs" / name / "run.json", record)
    return name


def holding(*holds: bool) -> list[dict[str, Any]]:
    return [{"text": "x>=0", "holds": held, "found": 1.0} for held in holds]


def test_the_last_good_run_is_done_and_met_all_that_was_required() -> None:
    write(1)
    good = write(2, requirements=holding(True, True))
    write(3, requirements=holding(True, False))
    write(4, state="failed", requirements=[])
    write(5, path=Path("/x/other.ipynb"))
    write(6, parameters={"epochs": 1})
    this = write(7)
    found = last_good(list_runs()[this], list_runs())
    assert found is not None
    assert (found.id, found.metrics) == (good, {"x": 2.0})


def test_later_runs_need_the_last_good_one_of_what_was_judged_and_of_the_notebook() -> None:
    write(1, requirements=holding(True))
    night = write(2, requirements=holding(True))
    write(3, requirements=holding(False))
    other = write(4, parameters={"epochs": [1]}, requirements=holding(True))
    write(5, parameters={"epochs": 2})  # a quick try, or a point of a sweep
    newest = write(6)
    write(7, state="failed")
    assert {run.id: what for run, what in to_compare_with(list_runs()).items()} == {
        **dict.fromkeys((night, other), "the last good run with its parameters"),
        newest: "the last good run of its notebook",
    }


def test_there_may_be_no_good_run() -> None:
    this = write(1)
    assert last_good(list_runs()[this], list_runs()) is None
    assert is_good(list_runs()[this])
