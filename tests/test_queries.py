"""Runs picked and sorted by what their records say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from workbench.errors import RequestError, UnknownNameError
from workbench.runs.queries import check_known, pick
from workbench.runs.records import Run, RunList


def run(identity: str, **of: Any) -> Run:
    brief = {
        **{"id": identity, "state": "done", "notebook": {"path": "/x/a.ipynb"}, "parameters": {}},
        **{"started": identity, "seconds": 1.0, "metrics": {}, "published": [], "datasets": []},
        **of,
    }
    return Run(Path(identity), brief)


RUNS = RunList(
    [
        run(
            "1", parameters={"lr": 0.1, "net": "mlp"}, metrics={"accuracy": 0.7, "val/mean loss": 2}
        ),
        run("2", parameters={"lr": 1, "net": "cnn"}, metrics={"accuracy": 0.9}, seconds=9.0),
        run(
            "3",
            parameters={"lr": None, "tags": "a, 'b'"},
            state="timed out",
            notebook={"path": "/x/b.ipynb"},
        ),
    ]
)


@pytest.mark.parametrize(
    ("where", "found"),
    [
        ([], "123"),
        (["accuracy>=0.7"], "12"),
        (["metrics.accuracy > 0.7"], "2"),
        (["parameters.lr<1"], "1"),
        (["lr=1"], "2"),
        (["lr=None"], "3"),
        (["net=cnn"], "2"),
        (["net!=cnn"], "1"),
        (["net='cnn'"], "2"),
        (["tags=\"a, 'b'\""], "3"),
        (["tags=a, 'b'"], "3"),
        (["val/mean loss <= 2"], "1"),
        (["state=timed out"], "3"),
        (["notebook=b"], "3"),
        (["seconds>5", "accuracy>0.5"], "2"),
        (["nothing=3"], ""),
    ],
)
def test_conditions_are_about_what_the_record_has(where: list[str], found: str) -> None:
    assert "".join(run.id for run in pick(RUNS, where)) == found


def test_a_condition_on_a_field_that_no_run_has_is_refused() -> None:
    check_known(RUNS, ["metrics.accuracy>1", "parameters.lr=None", "state=x", "val/mean loss<0"])
    check_known(RunList([]), ["nothing=3"])
    for name in ("acuracy", "metrics.acuracy"):
        with pytest.raises(UnknownNameError, match=rf"unknown field of a run '{name}': did you"):
            check_known(RUNS, ["state=done", f"{name}>=0.7"])


def test_runs_are_sorted_by_a_field_and_those_without_it_come_first() -> None:
    assert [run.id for run in pick(RUNS, [], "accuracy")] == ["3", "1", "2"]
    assert [run.id for run in pick(RUNS, [], "seconds")] == ["1", "3", "2"]
    assert [run.id for run in pick(RUNS, [], "net")] == ["3", "2", "1"]
    assert [run.id for run in pick(RUNS, [], "-accuracy")] == ["2", "1", "3"]
    with pytest.raises(UnknownNameError, match="field of a run 'acuracy': did you mean accuracy"):
        pick(RUNS, [], "acuracy")


@pytest.mark.parametrize("text", ["accuracy", "0.7<", "=3", "a ~ b"])
def test_what_is_no_condition_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match=r"is not understood: expected a field, one of .* and"):
        pick(RUNS, [text])
