"""Comparisons of real runs that differ in a parameter, in code, and in what they learned."""

from __future__ import annotations

import base64
import re
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook
from writing import write_notebook

from workbench.errors import RequestError
from workbench.home import read_json, write_json
from workbench.runs import Run, run
from workbench.runs.comparisons import compare

LOAD = "import workbench as wb\ndata = wb.load('digits', validation=100, train_limit=200)"
FIT = """\
net = wb.build("linear", data, seed=seed)
training = wb.fit(net, data, epochs=epochs, batch_size=50, seed=seed, name="night")
wb.fit(wb.build("linear", data), data, steps=3, batch_size=50)
"""
RECORD = """\
wb.record("accuracy", training.history["validation_accuracy"][-1], tolerance=1.0)
wb.record("loss", training.history["validation_loss"][-1])
wb.record("rows", len(data.test), tolerance=0.5)
"""


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run with two trainings, one of them named."""
    folder = tmp_path_factory.mktemp("first")
    cells = ["# Digits", LOAD, "print('one')\nprint('two')", "# Fit", FIT, "1", RECORD]
    notebook = write_notebook(folder / "digits.ipynb", *cells, parameters="epochs = 3\nseed = 0")
    return run(notebook, out=folder / "out", epochs=3)


@pytest.fixture(scope="module")
def second(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run of the same with another seed, a cell changed, one gone and one new."""
    folder = tmp_path_factory.mktemp("second")
    cells = ["# Digits", LOAD, "print('one')\nprint('three')", "# Fit", FIT, RECORD, "extra = 1"]
    notebook = write_notebook(folder / "digits.ipynb", *cells, parameters="epochs = 3\nseed = 0")
    return run(notebook, out=folder / "out", seed=1, epochs=4)


@pytest.fixture
def other(first: Run, tmp_path: Path) -> Callable[..., Run]:
    """Give a copy of the first run with another id and other values in its record."""

    def changed(number: int, **changes: Any) -> Run:
        folder = tmp_path / str(number)
        shutil.copytree(first.folder, folder)
        record = read_json(folder / "run.json")
        write_json(folder / "run.json", {**record, "id": f"copy-{number}", **changes})
        return Run.read(folder)

    return changed


def test_the_table_has_every_fact_of_every_run(first: Run, second: Run) -> None:
    found = compare([first, second]).table()
    assert list(found.columns) == [first.id, second.id]
    assert list(found.loc["parameters.epochs"]) == [3, 4]
    assert list(found.loc["parameters.seed"]) == [0, 1]
    for one in (first, second):
        around = one.record["environment"]
        assert {f"metrics.{name}": value for name, value in one.metrics.items()} == {
            name: value for name, value in found[one.id].items() if str(name).startswith("metrics.")
        }
        assert found[one.id]["environment.packages.torch"] == around["packages"]["torch"]
        assert found[one.id]["data.digits"] == one.record["datasets"][0]["fingerprint"]
        assert found[one.id]["code.notebook_sha256"] == one.record["notebook"]["sha256"]
    assert list(found.loc["code.cells"]) == ["–", "4; 6, gone; 7, new"]


def test_in_a_terminal_it_says_what_differs_and_then_the_metrics(first: Run, second: Run) -> None:
    lines = repr(compare([first, second])).splitlines()
    assert lines[:2] == [f"A  {first.id}  done", f"B  {second.id}  done"]
    differing = lines[3 : lines.index("", 3)]
    assert [line.split()[0] for line in differing] == [
        *("what", "parameters.epochs", "parameters.seed", "code.notebook", "code.notebook_sha256"),
        "code.cells",
    ]
    assert re.fullmatch(r"parameters.epochs +3 +4", differing[1])
    metrics = [line.split() for line in lines[lines.index("", 3) + 1 :]]
    assert metrics[0] == ["metric", "allowed", "A", "B", "B", "−", "A", "is"]
    assert [(row[0], row[-1]) for row in metrics[1:]] == [
        *(("accuracy", "within"), ("loss", "beyond"), ("rows", "equal")),
    ]
    assert float(metrics[2][3]) == pytest.approx(
        second.metrics["loss"] - first.metrics["loss"], rel=1e-3
    )


def test_equal_runs_differ_in_nothing(first: Run, other: Callable[..., Run]) -> None:
    found = compare([first, other(1)])
    assert "Nothing that is recorded differs, but for the metrics." in repr(found)
    assert found.changes == [[]]
    assert "code.cells" not in found.facts


def test_a_tolerance_is_the_first_runs(other: Callable[..., Run]) -> None:
    metrics = {"near": 1.0, "far": 1.0, "same": 1.0, "old": 1.0}
    tolerances = {"near": 0.25, "far": 0.25, "same": None}
    runs = [
        other(1, metrics=metrics, tolerances=tolerances),
        other(2, metrics={"near": 0.75, "far": 1.26, "same": 1.0, "new": 2.0}, tolerances={}),
        other(3, metrics={"old": 1.5}),
    ]
    assert repr(compare(runs)).split("\n\n")[-1].splitlines() == [
        "metric  allowed  A  B     B − A  is      C    C − A  is",
        "near    ± 0.25   1  0.75  -0.25  within  –",
        "far     ± 0.25   1  1.26  +0.26  beyond  –",
        "same             1  1     +0     equal   –",
        "old              1  –                    1.5  +0.5   beyond",
        "new              –  2                    –",
    ]


def test_records_that_lack_a_fact_are_compared(other: Callable[..., Run]) -> None:
    runs = [
        other(1, environment={"python": "3.11", "git": {"commit": "a" * 40, "dirty": True}}),
        other(2, environment={"packages": {"torch": "2"}}, envelope=None, datasets=[]),
    ]
    found = compare(runs).table()
    differing = {w: list(row) for w, row in found.iterrows() if row.iloc[0] != row.iloc[1]}
    assert {str(name).partition(".")[0] for name in differing} <= {
        "code",
        "data",
        "environment",
        "envelope",
    }
    assert differing["environment.python"] == ["3.11", "–"]
    assert differing["environment.packages.torch"] == ["–", "2"]
    assert differing["code.uncommitted"] == [True, "–"]
    assert differing["data.digits"][1] == "–"
    assert f"code.commit  {'a' * 12}" in re.sub(" +", "  ", repr(compare(runs)))


def test_cells_are_compared_by_their_source_alone(first: Run, second: Run) -> None:
    (changes,) = compare([first, second]).changes
    assert [change.place for change in changes] == [
        "cell 4 (Digits)",
        "cell 6 (Fit), gone",
        "cell 7 (Fit), new",
    ]
    assert changes[0].before == "print('one')\nprint('two')"
    assert changes[0].after == "print('one')\nprint('three')"


CELLS = st.tuples(st.booleans(), st.sampled_from("abcdef"), st.sampled_from("xyz"))
NOTEBOOKS = st.lists(
    CELLS.map(lambda cell: (cell[0], f"first = {cell[1]}\nsecond = {cell[2]}\n")),
    unique=True,
    max_size=6,
)


@settings(deadline=None, max_examples=60)
@given(before=NOTEBOOKS, after=NOTEBOOKS)
def test_without_the_cells_that_differ_two_notebooks_are_the_same(
    before: list[tuple[bool, str]], after: list[tuple[bool, str]]
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        old, new = (_bare_run(Path(folder) / n, c) for n, c in (("a", before), ("b", after)))
        (changes,) = compare([old, new]).changes
    gone = [(c.cell is not None, c.before) for c in changes if c.before is not None]
    come = [(c.cell is not None, c.after) for c in changes if c.after is not None]
    assert set(gone) <= set(before)
    assert set(come) <= set(after)
    assert [c for c in before if c not in gone] == [c for c in after if c not in come]
    assert bool(changes) == (before != after)


def _bare_run(folder: Path, cells: list[tuple[bool, str]]) -> Run:
    made = [new_code_cell(text) if code else new_markdown_cell(text) for code, text in cells]
    folder.mkdir()
    nbformat.write(new_notebook(cells=made), folder / "notebook.ipynb")
    record = {
        **{"format": 1, "id": folder.name, "state": "done", "notebook": {"path": "/x.ipynb"}},
        **{"started": "2026-01-01", "seconds": 1.0, "parameters": {}, "metrics": {}},
        **{"published": [], "datasets": []},
    }
    write_json(folder / "run.json", record)
    return Run.read(folder)


def test_the_page_is_whole_and_needs_nothing_else(first: Run, second: Run, tmp_path: Path) -> None:
    target = tmp_path / "new" / "compared.html"
    assert compare([first, second]).save(str(target)) == target
    content = target.read_text()
    assert re.findall(r"<h1>(.*?)</h1>", content) == ["2 runs of digits"]
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", content) == [
        *("Metrics", "What differs", "Curves", "Notebooks"),
    ]
    assert "default-src &#x27;none&#x27;" in content
    assert not re.search(r"<(script|link|iframe)", content)
    assert re.findall(r'(?:src|href)="(?!data:)', content) == []
    assert len(re.findall("<section|<main|<header", content)) == 6
    assert all(run.id in content for run in (first, second))


def test_a_training_is_drawn_for_all_runs_with_its_figures_as_a_table(
    first: Run, second: Run, tmp_path: Path
) -> None:
    content = compare([first, second]).save(tmp_path / "compared.html").read_text()
    curves = content[content.index(">Curves<") : content.index(">Notebooks<")]
    assert re.findall(r"<h3>(.*?)</h3>", curves) == ["01-linear", "night"]
    pictures = re.findall(r'<img src="data:image/png;base64,([^"]*)" alt="([^"]*)">', curves)
    assert all(base64.b64decode(data).startswith(b"\x89PNG") for data, _ in pictures)
    alt = pictures[1][1]
    assert alt.startswith("Losses of the training night. A Training done: linear on digits, 12 of")
    assert "; B Training done: linear on digits, 16 of 16 steps" in alt
    night = curves[curves.index("<h3>night") :]
    rows = re.findall(r'<tr><th scope="row"[^>]*>([AB])</th><td class="number">(\d)</td>', night)
    assert rows == [("A", "1"), ("A", "2"), ("A", "3"), *(("B", str(n)) for n in (1, 2, 3, 4))]
    assert f">{first.metrics['accuracy']:.6g}</td>" in night


def test_the_difference_of_a_cell_is_marked_line_by_line(
    first: Run, second: Run, tmp_path: Path
) -> None:
    content = compare([first, second, first_again(first, tmp_path)]).save(tmp_path / "c.html")
    text = content.read_text()
    assert re.findall(r"<h3>(From .*?)</h3>", text) == [
        *("From A to B: 3 cells differ", "From A to C: the same source"),
    ]
    assert (
        "<pre><span> print(&#x27;one&#x27;)</span><del>-print(&#x27;two&#x27;)</del>"
        "<ins>+print(&#x27;three&#x27;)</ins></pre>"
    ) in text
    assert "<pre><ins>+extra = 1</ins></pre>" in text
    assert "Parameters of this run" not in text


def first_again(first: Run, folder: Path) -> Run:
    shutil.copytree(first.folder, folder / "again")
    return Run.read(folder / "again")


def test_a_notebook_shows_what_differs(first: Run, second: Run) -> None:
    shown = compare([first, second])._repr_html_()
    assert '<tr><th scope="row">parameters.epochs</th><td>3</td><td>4</td></tr>' in shown
    assert "<style" not in shown


def test_a_loss_that_exploded_can_be_drawn(other: Callable[..., Run], tmp_path: Path) -> None:
    runs = [other(1), other(2)]
    for one, loss in zip(runs, (np.inf, np.nan), strict=True):
        steps = np.array([[1.0, 0.1, 0.1], [loss, 0.1, 0.2]])
        (one.folder / "trainings" / "night" / "steps.f64").write_bytes(steps.tobytes())
    content = compare(runs).save(tmp_path / "compared.html").read_text()
    assert "<h3>night</h3>" in content


def test_trainings_that_cannot_be_read_or_compared_are_left_out(
    other: Callable[..., Run], tmp_path: Path
) -> None:
    runs = [other(1), other(2)]
    for one in runs:
        (one.folder / "trainings" / "night" / "training.json").write_text("{")
        shutil.rmtree(one.folder / "trainings" / "01-linear")
        (one.folder / "trainings" / "empty").mkdir()
    content = compare(runs).save(tmp_path / "compared.html").read_text()
    assert "Curves" not in content


def test_a_run_without_a_notebook_is_compared(other: Callable[..., Run], tmp_path: Path) -> None:
    runs = [other(1), other(2, state="queued", started=None, seconds=None)]
    runs[1].notebook.unlink()
    found = compare(runs)
    assert {change.kind for change in found.changes[0]} == {", gone"}
    assert found.save(tmp_path / "compared.html").exists()


def test_a_comparison_takes_two_runs_at_least_and_each_once(first: Run, second: Run) -> None:
    with pytest.raises(RequestError, match="takes two runs at least, got none: name another run"):
        compare([])
    with pytest.raises(RequestError, match=f"at least, got only {first.id}: name another run"):
        compare([first])
    with pytest.raises(RequestError, match=f"run {first.id} is there twice: compare it with"):
        compare([first, second, Run.read(first.folder)])
