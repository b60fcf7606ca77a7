"""The start page: which notebooks, runs, models and services it shows, and when it looks."""

from __future__ import annotations

import base64
import io
import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from writing import write_notebook

from workbench.datasets import dataset
from workbench.errors import RequestError
from workbench.lab import START, write_start
from workbench.models import build
from workbench.pictures import Picture
from workbench.registry import promote, publish
from workbench.runs import run
from workbench.serving import serve
from workbench.training import fit
from workbench.widgets import FormView, HomeView, RunsView, home
from workbench.widgets.home_gallery import Entry, entries, thumbnail

LESSONS = Path(__file__).parents[1] / "notebooks"
README = """
A word about [another](later.ipynb) one.

| | lesson | Minutes | result |
|---|---|---|---|
| [![a dot](dot.png)](b.ipynb) | [b](b.ipynb): the *second*, `first` | 2 | **0.9** or [more](x.md) |
| | [a](a.ipynb) | | |
| | [gone](gone.ipynb): no such file | 1 | |
| | [deep](deep/a.ipynb): elsewhere | 1 | |
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "course"
    for name in ("a", "b", "later"):
        write_notebook(folder / f"{name}.ipynb", f"# Lesson *{name}*\n\ntext", "1")
    write_start(folder)
    (folder / "broken.ipynb").write_text("{")
    Image.new("RGB", (800, 400), "red").save(folder / "dot.png")
    (folder / "README.md").write_text(README)
    return folder


def test_a_readme_says_what_and_in_which_order(folder: Path) -> None:
    second, first, broken, later = entries(folder)
    dot = folder / "dot.png"
    about = "the second, first"
    assert second == Entry("b.ipynb", "Lesson b", about, "2", "0.9 or more", dot, "a dot")
    assert first == Entry("a.ipynb", "Lesson a")
    assert (broken, later) == (
        Entry("broken.ipynb", "broken"),
        Entry("later.ipynb", "Lesson later"),
    )
    (folder / "README.md").unlink()
    names = [entry.file for entry in entries(folder)]
    assert names == ["a.ipynb", "b.ipynb", "broken.ipynb", "later.ipynb"]


def test_every_lesson_has_a_picture_minutes_and_a_result() -> None:
    told = entries(LESSONS)
    assert told[0].title == "1 · Linear regression by gradient descent"
    for entry in told:
        assert entry.about
        assert entry.minutes
        assert entry.result
        assert entry.picture
        assert thumbnail(entry.picture)


def test_a_picture_is_made_small(folder: Path) -> None:
    address = thumbnail(folder / "dot.png")
    assert address
    image = Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2])))
    assert image.size == (360, 180)
    assert thumbnail(folder / "gone.png") is None
    assert thumbnail(folder / "README.md") is None


def test_it_shows_runs_models_and_services(folder: Path) -> None:
    view = HomeView(folder)
    assert (view.shown["runs"], view.shown["models"], view.shown["services"]) == ([], [], [])
    ended = run(write_notebook(folder / "c.ipynb", "import workbench as wb; wb.record('x', 2.5)"))
    points = dataset("points", train=(torch.randn(12, 4), torch.arange(12) % 3))
    model = build("linear", points, seed=0)
    fit(model, points, steps=1)
    versions = [publish(model, "net") for _ in range(2)]
    promote("net@1", "champion")
    with serve(versions[1]) as service:
        view.look()
        (told,) = view.shown["services"]
        assert told == {"name": "net", "url": service.url, "model": "net@2"}
        assert service.token not in json.dumps([view.shown, view.path])
    (shown,) = view.shown["runs"]
    assert (shown["id"], shown["notebook"], shown["state"]) == (ended.id, "c", "done")
    assert shown["figures"] == [["x", 2.5]]
    (net,) = view.shown["models"]
    assert (net["name"], net["champion"], net["newest"], net["versions"]) == ("net", 1, 2, 2)
    assert repr(view) == f"workbench at {folder}: 5 notebooks, 1 runs, 1 models, 1 services"


def test_a_damaged_model_is_said_and_hides_no_other(folder: Path) -> None:
    points = dataset("points", train=(torch.randn(12, 4), torch.arange(12) % 3))
    model = build("linear", points, seed=0)
    fit(model, points, steps=1)
    for name in ("good", "bad"):
        broken = publish(model, name)
    (broken.folder / "version.json").write_text("{")
    view = HomeView(folder)
    assert [model["name"] for model in view.shown["models"]] == ["good"]
    (problem,) = view.shown["problems"]
    assert "bad" in problem


def test_it_looks_while_a_page_shows_it_and_not_too_often(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    view, clock = HomeView(folder), [1000.0]
    monkeypatch.setattr("workbench.widgets.home_view.time.monotonic", lambda: clock[0])
    monkeypatch.setattr(view, "follow", lambda: None)  # the test looks itself
    assert not view.look()
    view.stay()
    write_notebook(folder / "new.ipynb", "1")
    clock[0] += 1
    assert view.look()
    assert len(view.path) == 4
    clock[0] += 2
    assert view.look()
    assert len(view.path) == 5
    clock[0] += 60
    assert not view.look()


def test_a_form_and_the_runs_are_opened_one_at_a_time(folder: Path) -> None:
    begun = run(write_notebook(folder / "c.ipynb", "1", parameters="n: int = 3"))
    view = HomeView(folder)
    view.do("set_up", file="c.ipynb")
    form = view._view
    assert isinstance(form, FormView)
    assert (form.shown["name"], view.panel) == ("c.ipynb", form.model_id)
    view.do("open_runs", run=begun.id)
    assert isinstance(view._view, RunsView)
    assert view._view.shown["part"]["line"]["id"] == begun.id
    assert form.comm is None  # it is closed
    view.do("close_panel")
    assert (view.panel, view.problem) == ("", "")
    view.do("set_up", file="../secret.ipynb")
    assert view.problem.startswith("unknown notebook '../secret.ipynb'")


def test_headless_it_is_a_picture_and_text(folder: Path) -> None:
    assert isinstance(home(folder), Picture)
    bundle = HomeView(folder)._repr_mimebundle_()
    assert "4 notebooks" in bundle["text/plain"]
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
    assert START not in bundle["text/plain"]
    with pytest.raises(RequestError, match="no folder 'nowhere': pass one in which notebooks are"):
        home("nowhere")
