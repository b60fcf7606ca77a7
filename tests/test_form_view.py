"""What the form of a notebook's parameters shows and starts, without a browser."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from jobsites import long_notebook
from typer.testing import CliRunner
from waiting import once
from writing import write_notebook

from workbench.cli import app
from workbench.errors import RequestError
from workbench.home import home
from workbench.pictures import Picture
from workbench.runs import execute, find_run, list_runs, list_sweeps
from workbench.runs.background import tasks
from workbench.widgets import FormView, form

PARAMETERS = """\
from typing import Literal
from pathlib import Path
flag: bool = True  # whether to
kind: Literal["adam", "sgd"] | None = "adam"
size = "small"  # size in ("small", "large"); of the net
n: int = 3  # 1 <= n <= 9; how many
steps: int = 100  # steps >= 1
lr: float = 0.001  # 0 < lr <= 1
scale: float = 1.0  # 0 < scale <= 1
limit: int | None = None
clip = float("inf")
word: str = "a, b"
place = Path("data")
widths: tuple[int, ...] = (32, 64)
half = n / 2
api_token: str | None = None
seed: int = 0
"""
CELL = "import workbench as wb\nwb.record('twice', 2 * n)\nwb.record('seen', len(str(api_token)))"

pytestmark = pytest.mark.usefixtures("ended")


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "tiny.ipynb", "# Count", CELL, parameters=PARAMETERS)


def fields(view: FormView, key: str) -> dict[str, Any]:
    return {field["name"]: field[key] for field in view.shown["fields"]}


def looked(view: FormView) -> list[Any]:
    view._due = 0.0
    view.look()
    works: list[Any] = view.shown["works"]
    return works


def said_by_the_command_line(*words: str) -> str:
    error = CliRunner().invoke(app, list(words)).exception
    assert isinstance(error, RequestError)
    return str(error)


def test_every_type_has_its_control(notebook: Path) -> None:
    controls = fields(FormView(notebook), "control")
    assert {name: control["kind"] for name, control in controls.items()} == {
        **{"flag": "check", "kind": "choice", "size": "choice", "n": "slider", "steps": "number"},
        **{"lr": "slider", "scale": "slider", "limit": "text", "clip": "text", "word": "text"},
        **{"place": "text", "widths": "text", "half": "text", "api_token": "secret"},
        "seed": "number",
    }
    assert [text for text, _ in controls["kind"]["options"]] == ["adam", "sgd", "None"]
    assert (controls["n"]["low"], controls["n"]["high"], controls["n"]["step"]) == (1, 9, 1)
    assert (controls["lr"]["low"], controls["lr"]["log"]) == (0.0001, True)
    assert (controls["scale"]["low"], controls["scale"]["log"]) == (0.01, False)
    assert controls["half"]["example"] == "n / 2"


def test_defaults_stand_in_the_notebooks_own_words(notebook: Path) -> None:
    view = FormView(notebook)
    texts = fields(view, "text")
    assert texts == fields(view, "default")
    assert (texts["widths"], texts["clip"], texts["limit"]) == ("(32, 64)", 'float("inf")', "None")
    assert (texts["word"], texts["place"], texts["half"]) == ("a, b", "data", "")
    view.do("open_mode", mode="sweep")
    assert fields(view, "text")["word"] == '"a, b"'  # where a comma parts alternatives
    assert fields(view, "about")["n"] == "how many · 1 <= n <= 9 · int"


@pytest.mark.parametrize(
    ("name", "text"),
    [("n", "12"), ("n", "1.5"), ("lr", "0"), ("lr", ""), ("kind", "adan"), ("size", "medium"),
     ("widths", "(1, 'x')"), ("limit", "many"), ("flag", "maybe"), ("seed", "abc")],
)  # fmt: skip
def test_what_is_wrong_is_said_in_the_command_lines_words(
    notebook: Path, name: str, text: str
) -> None:
    view = FormView(notebook)
    view.do("fill", mode="run", texts={"word": "kept", name: text})
    problem = fields(view, "problem")[name]
    assert problem == said_by_the_command_line("run", str(notebook), "-p", f"{name}={text}")
    view.do("begin")
    assert (tasks(), len(list_runs()), view.shown["ready"], view.problem) == ([], 0, False, "")
    assert (fields(view, "text")["word"], fields(view, "text")[name]) == ("kept", text)
    view.do("reset", parameter=name)
    assert (fields(view, "problem")[name], fields(view, "text")["word"]) == ("", "kept")


@pytest.mark.parametrize(
    ("place", "words"),
    [("n", ["-p", "n=1,12"]), ("lr", ["-p", "lr=0.5..2", "--samples", "40"]),
     ("samples", ["-p", "lr=0.1..0.5"]), ("samples", ["--samples", "3"]),
     ("seeds", ["--seeds", "0"]), ("lr", ["-p", "lr=x..0.5"]), ("lr", ["-p", "lr=0.5..0.1"])],
)  # fmt: skip
def test_so_it_is_of_a_sweep(notebook: Path, place: str, words: list[str]) -> None:
    view = FormView(notebook)
    view.do("open_mode", mode="sweep")
    given = dict(zip(words[::2], words[1::2], strict=True))
    name, _, text = given.get("-p", "").partition("=")
    counts = {"samples": given.get("--samples", ""), "seeds": given.get("--seeds", "")}
    view.do("fill", mode="sweep", texts={name: text} if name else {}, counts=counts)
    problems = fields(view, "problem") | view.shown["problems"]
    assert problems[place] == said_by_the_command_line("sweep", str(notebook), *words)
    view.do("begin")
    assert (tasks(), len(list_sweeps()), view.shown["points"]) == ([], 0, None)


def test_a_run_is_begun_with_what_was_changed(notebook: Path) -> None:
    view = FormView(notebook)
    texts = {**fields(view, "text"), "n": "5", "scale": "1", "widths": "[8]", "flag": "False"}
    view.do("fill", mode="run", texts=texts)
    view.do("keep", secret="api_token", text="tell-nobody")
    command = f"workbench run {notebook} -p flag=False -p n=5 -p scale=1 -p 'widths=[8]'"
    assert view.shown["command"] == command
    view.do("begin")
    assert view.problem == ""
    assert [(work["state"], work["given"]["n"]) for work in view.shown["works"]] == [
        ("queued", "5")
    ]
    once(lambda: looked(view)[0]["state"] == "done" and not looked(view)[0]["can"])
    work = view.shown["works"][0]
    assert work["metrics"] == {"twice": 10, "seen": 11}
    record = find_run(work["id"]).record
    assert record["given"] == ["flag", "n", "widths", "api_token"]
    assert (record["parameters"]["widths"], record["parameters"]["scale"]) == ([8], 1.0)
    assert "tell-nobody" not in json.dumps(view.get_state(), default=str)
    assert fields(view, "set")["api_token"]
    view.do("reset")
    assert (fields(view, "text")["n"], fields(view, "set")["api_token"]) == ("3", False)


def test_what_is_typed_as_the_mode_changes_stays_with_its_mode(notebook: Path) -> None:
    view = FormView(notebook)
    view.do("open_mode", mode="sweep")
    view.do("fill", mode="run", texts={"n": "7"})
    assert fields(view, "text")["n"] == "3"
    view.do("open_mode", mode="run")
    assert fields(view, "text")["n"] == "7"
    view.do("fill", mode="walk", texts={"n": "7"})
    assert "unknown mode 'walk'" in view.problem


def test_a_notebook_is_copied_to_be_opened_and_its_own_is_left_alone(
    notebook: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = execute(notebook, {})
    view = FormView(notebook)
    assert view.shown["works"][0]["notebook"] == str(run.notebook)
    view.do("copy", run=run.id)
    copy = tmp_path / "runs" / f"{run.id}.ipynb"
    assert view.shown["works"][0]["notebook"] == str(copy)
    assert copy.read_bytes() == run.notebook.read_bytes()
    copy.write_text("mine")
    view.do("copy", run=run.id)
    assert (copy.read_text(), view.problem) == ("mine", "")


def test_a_double_press_begins_one_run(notebook: Path) -> None:
    view = FormView(notebook)
    for _ in range(2):
        view.do("begin", begun=0)
    assert (len(view.shown["works"]), view.shown["begun"]) == (1, 1)
    view.do("begin", begun=1)
    assert len(view.shown["works"]) == 2
    once(lambda: all(work["state"] == "done" for work in looked(view)), 120)


def test_a_sweep_says_how_many_points_it_has_and_runs_them(notebook: Path) -> None:
    view = FormView(notebook)
    view.do("fill", mode="run", texts={"word": "x, y"})
    view.do("open_mode", mode="sweep")
    assert (fields(view, "text")["word"], view.shown["points"]) == ("'x, y'", 1)
    texts, counts = {"n": "1,2", "word": "'x, y'"}, {"samples": "", "seeds": "2"}
    view.do("fill", mode="sweep", texts=texts, counts=counts)
    assert view.shown["points"] == 4
    view.do("begin")
    (work,) = view.shown["works"]
    assert (work["kind"], work["total"], work["names"]) == ("sweep", 4, ["n", "word", "seed"])
    once(lambda: looked(view)[0]["state"] == "done", 120)
    (work,) = view.shown["works"]
    assert (work["counts"], work["metrics"]) == ({"done": 4}, ["twice", "seen"])
    assert [row["metrics"][0] for row in work["rows"]] == [2, 2, 4, 4]
    columns = ["n", "word", "done", "twice", "twice ±", "seen", "seen ±"]
    assert work["over_seeds"]["columns"] == columns
    assert [row[2:5] for row in work["over_seeds"]["rows"]] == [["2 of 2", 2, 0], ["2 of 2", 4, 0]]
    assert [run.parameters["word"] for run in list_runs()] == ["x, y"] * 4


def test_a_run_is_seen_stopped_and_resumed_by_another_form(tmp_path: Path) -> None:
    first = FormView(long_notebook(tmp_path))
    first.do("begin")
    once((tmp_path / "begun.txt").exists)
    view = FormView(tmp_path / "long.ipynb")  # as after a restart of the kernel
    (work,) = view.shown["works"]
    assert (work["state"], work["cell"], work["cells"], work["can"]) == ("running", 2, 2, ["stop"])
    view.do("stop", run=work["id"])
    assert view.shown["works"][0]["ending"]
    once(lambda: looked(view)[0]["state"] == "interrupted" and not tasks())
    work = looked(view)[0]
    assert work["trouble"].startswith("interrupted in cell 2 of 2. What was done is in")
    assert (work["can"], work["ending"]) == (["resume"], False)
    (tmp_path / "go.txt").touch()
    view.do("resume", run=work["id"])
    once(lambda: looked(view)[0]["state"] == "done")


def test_a_sweep_is_stopped_and_gone_on_with(tmp_path: Path) -> None:
    view = FormView(long_notebook(tmp_path))
    view.do("open_mode", mode="sweep")
    view.do("fill", mode="sweep", texts={"n": "1,2,3"})
    view.do("begin")
    once((tmp_path / "begun.txt").exists, 120)
    (work,) = looked(view)
    assert (work["state"], work["can"]) == ("running", ["stop"])
    view.do("stop_sweep", sweep=work["id"])
    once(lambda: looked(view)[0]["state"] == "interrupted" and not tasks())
    assert "workbench resume" in looked(view)[0]["trouble"]
    (tmp_path / "go.txt").touch()
    view.do("resume_sweep", sweep=work["id"])
    once(lambda: looked(view)[0]["state"] == "done", 120)
    view.do("stop_sweep", sweep=work["id"])
    assert view.problem == f"sweep {work['id']} is not going on here: stop it where it was begun"


def test_a_run_that_fails_says_where(tmp_path: Path) -> None:
    view = FormView(write_notebook(tmp_path / "bad.ipynb", "# Here", "1 / 0"))
    assert repr(view) == "bad.ipynb takes no parameters: it has no cell tagged 'parameters'"
    view.do("begin")
    once(lambda: looked(view)[0]["state"] == "failed")
    trouble = view.shown["works"][0]["trouble"]
    assert trouble.startswith("the run failed in cell 1 of 1 (Here): ZeroDivisionError: division")


def test_an_edited_notebook_is_read_anew(notebook: Path) -> None:
    view = FormView(notebook)
    view.do("fill", mode="run", texts={"n": "5", "steps": "7"})
    write_notebook(notebook, CELL, parameters="n: int = 3  # n >= 2\nnew = 1")
    looked(view)
    assert fields(view, "text") == {"n": "5", "new": "1"}
    assert fields(view, "control")["n"]["kind"] == "number"
    notebook.write_text("{")
    looked(view)
    view.do("begin")
    assert "is not a notebook" in view.problem


def test_what_there_is_not_is_refused(notebook: Path, tmp_path: Path) -> None:
    view = FormView(notebook)
    view.do("fill", mode="run", texts={"m": "5"})
    assert "unknown parameter 'm'" in view.problem
    view.do("open_mode", mode="walk")
    assert "unknown mode 'walk'" in view.problem
    view.do("resume_sweep", sweep="none")
    assert view.problem == "unknown sweep 'none': There is no sweep yet."
    with pytest.raises(
        RequestError, match=r"no notebook '.*tyni.ipynb': did you mean .*tiny.ipynb"
    ):
        form(tmp_path / "tyni.ipynb")
    assert not (home() / "runs").exists()


def test_headless_it_is_a_picture_of_the_parameters(notebook: Path) -> None:
    assert isinstance(form(notebook), Picture)
    assert "clip" in repr(FormView(notebook))
    assert FormView(notebook)._repr_mimebundle_()["image/png"]
