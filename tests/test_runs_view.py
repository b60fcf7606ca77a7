"""What the table of runs shows and does, without a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jobsites import long_notebook, tiny_notebook
from test_runs_records import write
from typer.testing import CliRunner
from waiting import once
from writing import write_notebook

from workbench.cli import app
from workbench.errors import RequestError, RunError
from workbench.home import home
from workbench.pictures import Picture
from workbench.registry import version
from workbench.runs import Run, execute, list_runs
from workbench.runs.background import execute_later, tasks
from workbench.runs.queries import pick
from workbench.runs.verification import kept_verdict
from workbench.training.recorded import RecordedTraining
from workbench.widgets import RunsView, runs
from workbench.widgets.run_parallels import Axis, conditions_within

FIT = """\
import workbench as wb
data = wb.load("diabetes")
model = wb.build("linear", data, seed=0)
wb.fit(model, data, steps=n, batch_size=20, name="short")
"""

pytestmark = pytest.mark.usefixtures("ended")


@pytest.fixture
def many() -> list[str]:
    """Write records of 45 runs of two notebooks."""
    names = [f"20260101-0000{n:02d}-{'ab'[n % 2]}-{n:04x}" for n in range(45)]
    for n, name in enumerate(names):
        parameters = {"lr": 10.0 ** -(n % 5), "opt": ["adam", "sgd"][n % 3 == 0], "same": 1}
        metrics = {"accuracy": n / 45} if n % 9 else {}
        write(name, parameters=parameters, metrics=metrics, state="done" if n % 4 else "failed",
              error=None, cells=[], given=["lr"])  # fmt: skip
    return names


def ids(view: RunsView) -> list[str]:
    return [row["id"] for row in view.shown["rows"]]


def looked(view: RunsView) -> Any:
    view._due = 0.0
    view.look()
    return view.shown["part"]


def test_runs_are_turned_over_newest_first(many: list[str]) -> None:
    view = RunsView()
    assert (view.shown["total"], view.shown["found"], view.shown["pages"]) == (45, 45, 3)
    assert ids(view) == many[::-1][:20]
    view.do("turn", page=2)
    assert ids(view) == many[::-1][40:]
    view.do("turn", page=3)
    assert view.problem == "page 3 is not there: there are 3, from 0"
    assert view.shown["columns"] == ["lr", "opt", "accuracy"]
    first = dict(zip(view.shown["columns"], view.shown["rows"][-1]["values"], strict=True))
    assert first == {"lr": 1.0, "opt": "sgd", "accuracy": None}


def test_they_are_found_by_the_command_lines_words(many: list[str]) -> None:
    view = RunsView()
    view.do("find", where="lr<=0.01, accuracy>=0.5", notebook="a", state="done")
    words = ["lr<=0.01", "accuracy>=0.5", "notebook=a", "state=done"]
    assert ids(view) == [run.id for run in pick(list_runs(), words)][::-1]
    assert view.shown["found"] == len(ids(view)) > 2
    view.do("find", where="accuracy")
    error = CliRunner().invoke(app, ["runs", "--where", "accuracy"]).exception
    assert (view.shown["refused"], view.problem) == (str(error), "")
    assert view.shown["where"] == "lr<=0.01, accuracy>=0.5"  # nothing is lost
    view.do("find", where="lr>7")
    assert (ids(view), view.shown["pages"], view.shown["refused"]) == ([], 1, "")


def test_they_are_sorted_by_any_column(many: list[str]) -> None:
    view = RunsView()
    view.do("order", by="accuracy", down=True)
    assert ids(view)[:2] == [many[44], many[43]]
    view.do("order", by="accuracy", down=False)
    assert ids(view)[:2] == [many[1], many[2]]
    view.do("turn", page=2)
    assert set(ids(view)) == {many[n] for n in range(0, 45, 9)}  # those that have none
    view.do("order", by="acuracy", down=True)
    assert "unknown field of a run 'acuracy': did you mean accuracy?" in view.problem
    view.do("show_columns", columns=["same", "opt"])
    assert view.shown["rows"][0]["values"][0] == 1
    view.do("show_columns", columns=["width"])
    assert "unknown column 'width'" in view.problem


def test_those_selected_are_compared(many: list[str]) -> None:
    view = RunsView()
    part = view.shown["part"]
    assert [axis["name"] for axis in part["axes"]] == ["lr", "opt", "accuracy"]
    assert (len(part["lines"]), part["colours"]) == (45, ["lr", "accuracy"])
    view.do("select", runs=[many[1], many[2], many[4]])
    lines = {line["run"]: line["places"] for line in view.shown["part"]["lines"]}
    # 0.1, 0.01 and 0.0001 on an axis of powers, and 1, 2 and 4 of 45
    assert lines == {many[1]: [1.0, 0.0], many[2]: [0.6667, 0.3333], many[4]: [0.0, 1.0]}
    view.do("colour", by="lr")
    assert view.shown["part"]["colour"] == "lr"
    view.do("colour", by="opt")
    assert "unknown axis of numbers 'opt'" in view.problem
    view.do("select", runs=["nobody"])
    assert "unknown run 'nobody'" in view.problem
    assert view.shown["selected"] == 3


def test_they_are_ticked_page_by_page(many: list[str]) -> None:
    view = RunsView()
    view.do("tick", runs=[many[44], many[43]], on=True)
    view.do("turn", page=1)
    assert (view.shown["picked"], view.shown["selected"]) == ([], 2)
    view.do("tick", runs=ids(view), on=True)
    assert (view.shown["picked"], view.shown["selected"]) == (ids(view), 22)
    view.do("tick", runs=[many[44], many[24]], on=False)
    assert view._picked == [many[43], *many[23:4:-1]]
    view.do("tick", runs=["nobody"], on=True)
    assert "unknown run 'nobody'" in view.problem


def test_a_drag_along_an_axis_narrows_them_down(many: list[str]) -> None:
    view = RunsView()
    view.do("narrow", axis="accuracy", low=0.5, high=1.0)
    assert view.shown["where"] == "accuracy>=0.5"
    assert view.shown["found"] == len(pick(list_runs(), ["accuracy>=0.5"]))
    view.do("narrow", axis="opt", low=0.9, high=1.0)
    assert view.shown["where"] == "accuracy>=0.5, opt=sgd"
    view.do("narrow", axis="width", low=0.9, high=1.0)
    assert "unknown axis 'width'" in view.problem
    with pytest.raises(RequestError, match="2 values of opt stand there: drag over one of adam"):
        conditions_within([Axis("opt", words=("adam", "sgd"))], "opt", 0, 1)


def test_what_was_narrowed_is_narrowed_again(many: list[str]) -> None:
    view = RunsView()
    view.do("find", where="lr<=0.1")
    view.do("select", runs=[many[4], many[14], many[24], many[44]])
    view.do("narrow", axis="accuracy", low=0.1, high=1.0)
    assert (view.shown["where"], view.shown["selected"]) == ("lr<=0.1, accuracy>=0.17778", 3)
    view.do("narrow", axis="accuracy", low=0.3, high=0.9)  # from 14 to 44 of 45
    assert view.shown["where"] == "lr<=0.1, accuracy>=0.51111, accuracy<=0.91111"
    assert (view.shown["picked"], view._picked) == ([many[24]], [many[24]])


def test_a_drag_finds_what_crosses_there_of_many_selected() -> None:
    for n in range(300):
        accuracy = n / 10_000 if n < 200 else 5 + n
        write(f"20260101-00{n // 60:02d}{n % 60:02d}-a-{n:04x}", metrics={"accuracy": accuracy})
    view = RunsView()
    view.do("select", runs=[run.id for run in list_runs()])
    part = view.shown["part"]
    assert (len(part["lines"]), part["whose"]) == (200, "the first 200 of 300 selected runs")
    view.do("narrow", axis="accuracy", low=0.0, high=0.5)
    assert (view.shown["where"], view.shown["found"]) == ("accuracy<=0.00995", 100)
    assert view.shown["part"]["whose"] == "100 selected runs"
    view.do("select", runs=[])
    assert view.shown["part"]["whose"] == "100 runs found"


def test_figures_that_are_much_alike_are_told_apart() -> None:
    for n, rmse in enumerate((123456, 123460, 123466)):
        write(f"20260101-000000-a-{n:04x}", metrics={"rmse": rmse})
    view = RunsView()
    (axis,) = view.shown["part"]["axes"]
    marks = ["123456", "123458.5", "123461", "123463.5", "123466"]
    assert [text for _, text in axis["marks"]] == marks
    view.do("narrow", axis="rmse", low=0.1, high=0.9)
    assert view.shown["where"] == "rmse>=123457, rmse<=123465"
    assert ids(view) == ["20260101-000000-a-0001"]
    assert Axis.of("huge", [-1.7e308, 1.7e308]) is None


ODD = ("a, b", "'c', d", 'say "e", \\', "(f", "g\nh", " i", "=j", "", "[k]", "True", "€, 😀")


def test_words_are_found_whatever_is_in_them() -> None:
    for n, word in enumerate(ODD):
        write(f"20260101-000000-a-{n:04x}", parameters={"word": word})
    write("20260101-000000-a-ffff", parameters={"word": [1, "m, n"]})
    view = RunsView()
    (axis,) = view.shown["part"]["axes"]
    places = {line["run"]: line["places"][0] for line in view.shown["part"]["lines"]}
    for run, place in places.items():
        view.do("find", where="")
        view.do("narrow", axis=axis["name"], low=place - 0.01, high=place + 0.01)
        assert (ids(view), view.shown["refused"], view.problem) == ([run], "", "")
        view.do("find", where=f"{view.shown['where']}, seconds>0")
        assert ids(view) == [run]


def test_lines_are_coloured_by_the_metric_that_most_have(many: list[str]) -> None:
    for n in range(2):  # the oldest, whose metric comes last
        write(f"20250101-000000-c-{n:04x}", metrics={"r2": 0.1 + n}, parameters={"lr": 1.0})
    part = RunsView().shown["part"]
    assert (part["colours"], part["colour"]) == (["lr", "accuracy", "r2"], "accuracy")
    view = RunsView()
    view.do("find", where="r2>0")
    assert view.shown["part"]["colour"] == "r2"


def test_values_have_their_place_on_an_axis() -> None:
    axis = Axis.of("lr", [0.001, None, 1.0])
    assert axis is not None
    assert (axis.is_log, axis.place(0.1), axis.place(None)) == (True, 0.6667, None)
    assert [text for _, text in axis.marks()] == ["0.001", "0.00562", "0.0316", "0.178", "1"]
    assert Axis.of("n", [3, 3, None]) is None
    assert Axis.of("name", [str(n) for n in range(40)]) is None
    assert Axis.of("text", ["a" * 201, "b" * 201]) is None
    words = Axis.of("flag", [True, False, None])
    assert words is not None
    assert (words.words, words.place(True)) == (("False", "True"), 1.0)


def test_new_runs_appear_and_those_that_go_are_gone(many: list[str]) -> None:
    view = RunsView()
    view.do("select", runs=many[:2])
    new = "20270101-000000-c-ffff"
    write(new, metrics={"accuracy": 1.0}, error=None, cells=[], given=[])
    (home() / "runs" / many[0] / "run.json").unlink()
    looked(view)
    assert (ids(view)[0], view.shown["total"], view._picked) == (new, 45, [many[1]])
    assert view.shown["notebooks"] == ["a", "b", "c"]
    told = view.shown
    looked(view)
    assert view.shown is told  # nothing is told where nothing is new


def test_whatever_is_shown_is_small_and_plain(many: list[str]) -> None:
    view = RunsView()
    view.do("open_run", run=many[3])
    for tab in ("parallels", "curves", "run"):
        view.do("open_tab", tab=tab)
        assert view.problem == ""
        assert len(json.dumps(view.shown, allow_nan=False)) < 30_000
    view.do("select", runs=many)
    assert (len(view.shown["picked"]), view.shown["selected"]) == (20, 45)
    view.do("open_tab", tab="rest")
    assert "unknown part of the view 'rest'" in view.problem


def test_long_texts_are_cut() -> None:
    for n, text in enumerate(("a" * 12_000, "b" * 2_000)):
        write(f"20260101-000000-a-{n:04x}", parameters={"text": text}, error=None, cells=[])
    view = RunsView()
    view.do("open_run", run=list_runs()[0].id)
    assert view.shown["columns"][0] == "text"
    assert view.shown["rows"][1]["values"][0] == "a" * 199 + "…"
    assert view.shown["part"]["parameters"] == [["text", "a" * 199 + "…", False]]
    assert len(json.dumps(view.shown)) < 5_000


def test_curves_of_trainings_and_of_what_cells_recorded(tmp_path: Path) -> None:
    fitted = write_notebook(tmp_path / "fit.ipynb", FIT, parameters="n: int = 30")
    runs = [execute(fitted, {"n": 12}), execute(fitted, {}), execute(tiny_notebook(tmp_path), {})]
    view = RunsView()
    view.do("open_tab", tab="curves")
    view.do("select", runs=[run.id for run in runs])
    short, long, recorded = view.shown["part"]["trainings"]
    assert [len(one["curves"]["loss"]["values"]) for one in (short, long)] == [3 * 12, 3 * 30]
    kept = RecordedTraining.read(runs[0].folder / "trainings" / "short").history["loss"]
    assert short["curves"]["loss"]["values"][1::3] == pytest.approx(kept, rel=1e-4)
    assert (short["name"], short["step"]) == (runs[0].id[-4:], 12)
    assert recorded["rows"] == [{"step": 0, "loss": 1.0}, {"step": 1, "loss": 0.5}]
    assert recorded["curves"] == {}


def test_a_misspelt_column_is_said_beside_the_field(many: list[str]) -> None:
    view = RunsView()
    view.do("find", where="acuracy>=0.5")
    assert view.shown["refused"].startswith("unknown field of a run 'acuracy': did you mean acc")
    assert (view.shown["found"], view.problem) == (45, "")
    result = CliRunner().invoke(app, ["runs", "--where", "acuracy>=0.5"])
    assert str(result.exception) == view.shown["refused"]


def test_of_runs_with_several_trainings_each_has_its_first_curve(tmp_path: Path) -> None:
    many = FIT + "for i in range(7):\n    wb.fit(model, data, steps=2, name=f'then-{i}')\n"
    fitted = write_notebook(tmp_path / "fit.ipynb", many, parameters="n: int = 3")
    runs = [execute(fitted, {}), execute(fitted, {})]
    view = RunsView()
    view.do("open_tab", tab="curves")
    view.do("select", runs=[run.id for run in runs])
    told = [one["name"] for one in view.shown["part"]["trainings"]]
    names = ("short", "then-0", "then-1")
    assert told == [f"{run.id[-4:]} {name}" for name in names for run in runs]


def test_a_run_is_opened_verified_and_its_report_shown(tmp_path: Path) -> None:
    run = execute(tiny_notebook(tmp_path), {"epochs": 3})
    assert kept_verdict(run) is None
    view = RunsView()
    view.do("open_run", run=run.id)
    part = view.shown["part"]
    assert part["parameters"][0] == ["epochs", "3", True]
    assert (part["published"], part["line"]["can"]) == (["tiny@1"], [])
    view.do("verify", run=run.id)
    assert looked(view)["again"] == {"going": True, "place": 0}
    once(lambda: not looked(view)["again"]["going"])
    assert (view.shown["part"]["verification"]["verdict"], kept_verdict(run)) == (
        "identical", view.shown["part"]["verification"])  # fmt: skip
    view.do("show_report", run=run.id)
    assert view.report_page.startswith("<!doctype html>")
    assert "identical" in view.report_page
    view.do("close_report")
    assert (view.report_page, view.problem) == ("", "")


def test_what_a_verification_found_is_told(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "t.ipynb", "# Time", "import time\ntime.time()")
    run = execute(notebook, {})
    view = RunsView()
    view.do("open_run", run=run.id)
    view.do("verify", run=run.id)
    once(lambda: not looked(view)["again"]["going"])
    found = view.shown["part"]["verification"]
    assert found["verdict"] == "differs"
    assert found["told"][0].startswith("cell 1, output Time: ")
    view.do("stop_verification", run=run.id)
    assert view.problem == f"run {run.id} is not being verified here: there is nothing to stop"


def test_a_verification_that_proves_nothing_says_why(tmp_path: Path) -> None:
    run = execute(write_notebook(tmp_path / "t.ipynb", "1"), {})
    run.notebook.write_text(run.notebook.read_text() + "\n")
    view = RunsView()
    view.do("open_run", run=run.id)
    view.do("verify", run=run.id)
    once(lambda: not looked(view)["again"]["going"])
    assert "has SHA-256" in view.shown["part"]["trouble"]
    assert view.shown["part"]["verification"]["verdict"] == ""


def test_a_model_is_promoted_in_the_registrys_words(tmp_path: Path) -> None:
    run = execute(tiny_notebook(tmp_path), {})
    view = RunsView()
    view.do("open_run", run=run.id)
    view.do("promote", ref="tiny@1", alias="champion ", why="it is the first")
    assert view.shown["part"]["note"] == "tiny@champion is tiny@1"
    assert view.shown["part"]["aliases"] == {"tiny": {"champion": 1}}
    assert version("tiny@champion").version == 1
    view.do("promote", ref="tiny@1", alias="7")
    error = CliRunner().invoke(app, ["promote", "tiny@1", "7"]).exception
    assert view.problem == str(error)


def test_a_run_is_stopped_and_gone_on_with(tmp_path: Path) -> None:
    run = execute_later(long_notebook(tmp_path), {})
    once((tmp_path / "begun.txt").exists)
    view = RunsView()
    view.do("open_run", run=run.id)
    assert view.shown["part"]["line"]["can"] == ["stop"]
    view.do("stop", run=run.id)
    once(lambda: looked(view)["line"]["state"] == "interrupted" and not tasks())
    assert looked(view)["line"]["can"] == ["resume"]
    (tmp_path / "go.txt").touch()
    view.do("resume", run=run.id)
    once(lambda: looked(view)["line"]["state"] == "done")


def test_what_a_run_lacks_is_said_before_it_goes_on(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "s.ipynb", "1 / 0", parameters="api_token: str = ''")
    with pytest.raises(RunError):
        execute(notebook, {"api_token": "tell-nobody"})
    view = RunsView()
    (run,) = list_runs()
    view.do("resume", run=run.id)
    assert view.problem == (
        f"parameter 'api_token' is a secret, which run {run.id} has not kept: set the environment "
        "variable WORKBENCH_PARAMETER_API_TOKEN"
    )
    assert (tasks(), Run.read(run.folder).state) == ([], "failed")


def test_a_report_that_is_too_large_says_where_it_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = execute(write_notebook(tmp_path / "t.ipynb", "1"), {})
    monkeypatch.setattr("workbench.widgets.runs_view._LARGEST", 1000)
    view = RunsView()
    view.do("show_report", run=run.id)
    path = run.folder / "report.html"
    assert view.problem == f"the report has 0 MB, too many to be shown here: open {path}"
    assert view.report_page == ""


def test_headless_it_is_a_picture_of_the_newest(many: list[str]) -> None:
    assert isinstance(runs(), Picture)
    assert repr(RunsView()).endswith("and 33 older runs")
    assert RunsView()._repr_mimebundle_()["image/png"]


def test_of_no_runs_it_says_how_to_make_one() -> None:
    view = RunsView()
    assert (repr(view), view.shown["rows"]) == (repr(list_runs()), [])
    assert isinstance(runs(), Picture)
