"""The shipped notebooks: their form, their stored outputs, their runs."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest
from lessons import COURSE, NOTEBOOKS, SMALL, code_cells

from workbench.runs import Run, execute, run
from workbench.runs.envelopes import make_envelope
from workbench.runs.notebooks import has_tag
from workbench.runs.outputs import compare_outputs
from workbench.runs.parameters import declared
from workbench.runs.warm import WarmParent, can_fork

each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
lesson = pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem)
one_quick = pytest.mark.parametrize(  # the first notebook in `make test`, all under `make full`
    "path",
    [
        pytest.param(path, marks=[] if path.stem.startswith("01") else [pytest.mark.full])
        for path in NOTEBOOKS
    ],
    ids=lambda path: path.stem,
)


def named(stem: str) -> Path:
    return next(path for path in NOTEBOOKS if path.stem == stem)


def small(path: Path, precision: str) -> dict[str, Any]:
    """Return the parameters of the small size; notebook 13 leaves the precision to `fit`."""
    return SMALL[path.stem] | ({"precision": precision} if path in COURSE else {})


def nbval(*paths: Path, home: Path, threads: int) -> subprocess.CompletedProcess[str]:
    """Compare every stored output of notebooks to a fresh execution, strictly."""
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-c", os.devnull]
    options = ["-v", "-p", "no:cacheprovider", "--nbval-cell-timeout", "900"]
    environment = {"OMP_NUM_THREADS": str(threads), "WORKBENCH_HOME": str(home)}
    return subprocess.run(
        [*command, *options, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **environment},
    )


def prepared(folder: Path, precision: str) -> list[Path]:
    """Return copies of the notebooks with the parameters of the small size in them."""
    beside = shutil.ignore_patterns("pictures", ".*")  # notebooks read a table and list jobs
    shutil.copytree(NOTEBOOKS[0].parent, folder, ignore=beside)
    for path in NOTEBOOKS:
        given = small(path, precision)
        papermill.execute_notebook(
            path, folder / path.name, given, prepare_only=True, progress_bar=False
        )
    return [folder / path.name for path in NOTEBOOKS]


def said_of_cells(name: str, compared: str) -> list[str]:
    return re.findall(rf"\b{name}::ipynb::Cell \d+ (\w+)", compared)


def test_every_notebook_has_a_small_size() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SMALL)


@each
def test_notebook_is_whole(path: Path) -> None:
    notebook = nbformat.read(path, 4)
    nbformat.validate(notebook)
    cells = code_cells(path)
    assert [cell for cell in cells if has_tag(cell, "parameters")] == cells[:1]
    assert any(cell.outputs for cell in cells)
    assert not any(o.output_type == "error" for cell in cells for o in cell.outputs)
    assert "widgets" not in notebook.metadata
    assert not any("execution" in cell.metadata for cell in cells)  # when it ran
    assert path.stat().st_size < 600_000


def test_the_index_names_every_notebook_and_shows_it() -> None:
    folder = NOTEBOOKS[0].parent
    page = (folder / "README.md").read_text(encoding="utf-8")
    assert set(re.findall(r"\]\((\w+\.ipynb)\)", page)) == {path.name for path in NOTEBOOKS}
    pictures = {folder / name for name in re.findall(r"pictures/\w+\.png", page)}
    assert pictures == {folder / "pictures" / f"{path.stem[:2]}.png" for path in NOTEBOOKS}
    assert all(0 < picture.stat().st_size <= 60_000 for picture in pictures)


@each
def test_notebook_reads_as_a_lesson(path: Path) -> None:
    """A title first, short cells, claims asserted, no long function."""
    cells = nbformat.read(path, 4).cells
    assert cells[0].source.startswith("# ")
    for cell in code_cells(path):
        assert cell.source.count("\n") < 12, cell.source
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.FunctionDef):
                assert (node.end_lineno or 0) - node.lineno < 15, node.name
    assert sum("assert" in cell.source for cell in code_cells(path)) >= 5


@lesson
def test_lesson_has_its_parts(path: Path) -> None:
    """Prose and code in equal parts, where it stands on the path, a table, a model that serves."""
    cells = nbformat.read(path, 4).cells
    prose = "\n".join(cell.source for cell in cells if cell.cell_type == "markdown")
    code = "\n".join(cell.source for cell in code_cells(path))
    assert 0.35 <= sum(cell.cell_type == "markdown" for cell in cells) / len(cells) <= 0.65
    assert all(part in prose for part in ("**Builds on", "**What next", "\n## Exercises"))
    assert re.search("^## .*baseline.*budget", prose, re.MULTILINE)
    calls = ("wb.fit(", "wb.record(", "wb.publish(", "wb.serve(", ".show()", "service.stop()")
    assert not [call for call in calls if call not in code]


@lesson
def test_lesson_tells_of_each_parameter(path: Path) -> None:
    known = declared(nbformat.read(path, 4)) or {}
    assert {"scale", "precision", "seed"} <= set(known)
    untold = [p.name for p in known.values() if not (p.annotation and p.help)]
    assert not untold
    assert known["scale"].default == 1


@lesson
def test_lesson_answers_its_exercises(path: Path) -> None:
    """Each has a folded answer in words, and a folded cell that checks it."""
    pairs = list(pairwise(nbformat.read(path, 4).cells))
    asked = [pair for pair in pairs if re.search(r"^\*\*Exercise", pair[0].source, re.MULTILINE)]
    assert len(asked) >= 3
    for number, (question, answer) in enumerate(asked, 1):
        form = rf"^\*\*Exercise {number}\.\*\*.*<details>.*<summary>.*</details>"
        assert re.search(form, question.source, re.MULTILINE | re.DOTALL), question.source
        assert has_tag(answer, "solution"), question.source
        assert answer.metadata.jupyter.source_hidden
        assert "assert" in answer.source


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What nbval says of each notebook, at its small size on one thread, and of a wrong one."""
    folder = tmp_path_factory.mktemp("compared") / "notebooks"
    copies = prepared(folder, "fp32")
    wrong = nbformat.v4.new_notebook()
    output = nbformat.v4.new_output("stream", text="3\n")
    wrong.cells = [nbformat.v4.new_code_cell("print(1 + 1)", outputs=[output])]
    nbformat.write(wrong, folder / "wrong.ipynb")
    return nbval(*copies, folder / "wrong.ipynb", home=folder / "home", threads=1).stdout


@pytest.fixture(scope="module")
def two_threads() -> Iterator[str | None]:
    """Give the address of a warm parent of runs on two threads, as few machines have fewer."""
    if not can_fork():
        yield None
        return
    with WarmParent(make_envelope(threads=2)) as parent:
        yield parent.address


@each
def test_notebook_small_gives_its_stored_outputs(path: Path, compared: str) -> None:
    """What strict nbval compares is the same at any size."""
    passed = ["PASSED"] * (len(code_cells(path)) + 1)  # and that of the given parameters
    assert said_of_cells(path.stem, compared) == passed, compared[-5000:]


def test_nbval_sees_a_changed_output(compared: str) -> None:
    """The comparison can fail."""
    assert said_of_cells("wrong", compared) == ["FAILED"]


@lesson
def test_notebook_runs_by_the_workbench_on_two_threads_in_bf16(
    path: Path, two_threads: str | None
) -> None:
    """It shows what is stored then too."""
    made = execute(path, small(path, "bf16"), envelope=make_envelope(threads=2), warm=two_threads)
    assert made.state == "done"
    assert made.metrics != {}
    assert made.published
    assert compare_outputs(nbformat.read(path, 4), nbformat.read(made.notebook, 4)) == []


@one_quick
def test_notebook_runs_twice_to_the_same_metrics(path: Path, warm: str | None) -> None:
    """In a kernel of its own and in a forked one."""
    first = run(path, **SMALL[path.stem])
    second = execute(path, SMALL[path.stem], warm=warm)
    assert first.state == second.state == "done"
    assert first.metrics == second.metrics != {}
    assert first.published
    assert first.published != second.published


@one_quick
def test_notebook_runs_whole_under_plain_papermill(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On two threads it shows what is stored, too."""
    monkeypatch.setenv("OMP_NUM_THREADS", "2")
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(path, out, SMALL[path.stem], cwd=path.parent, progress_bar=False)
    found = nbformat.read(out, 4)
    assert not found.metadata.papermill.exception
    assert compare_outputs(nbformat.read(path, 4), found) == []


@pytest.mark.full
def test_every_net_that_is_offered_can_be_trained(warm_single: str | None) -> None:
    path = named("05_cifar10_cnn")
    given = {"model": "lenet", "epochs": 4.0, "scale": 0.05}
    made = execute(path, given, envelope=make_envelope(threads=1), warm=warm_single)
    assert made.metrics["test_accuracy"] > 0.15  # a rate made for another net would stay at chance


@pytest.mark.full
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("threads", [1, 2])
def test_nbval_twice_in_a_row(tmp_path: Path, threads: int, precision: str) -> None:
    """The second time, the home has what the first published."""
    copies = prepared(tmp_path / "notebooks", precision)
    for _ in range(2):
        result = nbval(*copies, home=tmp_path / "shared", threads=threads)
        assert result.returncode == 0, result.stdout[-5000:]


@pytest.mark.full
@pytest.mark.parametrize("threads", [1, 2])
@each
def test_notebook_at_its_defaults_gives_its_stored_outputs(
    path: Path, tmp_path: Path, threads: int
) -> None:
    result = nbval(path, home=tmp_path / "home", threads=threads)
    assert result.returncode == 0, result.stdout[-5000:]


@pytest.mark.full
def test_cifar10_at_its_defaults_is_right_three_times_of_four() -> None:
    made: Run = run(named("05_cifar10_cnn"))
    assert made.metrics["test_accuracy"] >= 0.75
