"""The shipped notebooks: their form, their stored outputs, their runs."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

from workbench.runs import Run, run

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
SMALL: dict[str, dict[str, Any]] = {
    "01_linear_regression": {"n_steps": 200},
    "05_cifar10_cnn": {"epochs": 1.0, "train_limit": 2000, "lenet_steps": 50},
}
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def nbval(*paths: Path, threads: int | None = None) -> subprocess.CompletedProcess[str]:
    """Compare every stored output of notebooks to a fresh execution, strictly."""
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-c", os.devnull]
    options = ["-q", "-p", "no:cacheprovider", "--nbval-cell-timeout", "900"]
    return subprocess.run(
        [*command, *options, *map(str, paths)],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )


def test_every_notebook_has_a_small_size() -> None:
    assert {path.stem for path in NOTEBOOKS} == set(SMALL)


@each
def test_notebook_is_whole(path: Path) -> None:
    nbformat.validate(nbformat.read(path, 4))
    cells = code_cells(path)
    assert [c for c in cells if "parameters" in c.metadata.get("tags", [])] == cells[:1]
    assert any(cell.outputs for cell in cells)
    assert not any(o.output_type == "error" for cell in cells for o in cell.outputs)
    assert path.stat().st_size < 600_000


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


@each
@pytest.mark.parametrize("threads", [1, 2])
def test_notebook_small_gives_its_stored_outputs(path: Path, tmp_path: Path, threads: int) -> None:
    """What strict nbval compares is the same at any size, and with any number of threads."""
    copy = tmp_path / path.name
    papermill.execute_notebook(path, copy, SMALL[path.stem], prepare_only=True, progress_bar=False)
    result = nbval(copy, threads=threads)
    assert result.returncode == 0, result.stdout[-5000:]


def test_nbval_sees_a_changed_output(tmp_path: Path) -> None:
    """The comparison can fail."""
    notebook = nbformat.v4.new_notebook()
    output = nbformat.v4.new_output("stream", text="3\n")
    notebook.cells = [nbformat.v4.new_code_cell("print(1 + 1)", outputs=[output])]
    nbformat.write(notebook, tmp_path / "wrong.ipynb")
    assert nbval(tmp_path / "wrong.ipynb").returncode == 1


@each
def test_notebook_runs_twice_to_the_same_metrics(path: Path) -> None:
    first, second = (run(path, **SMALL[path.stem]) for _ in range(2))
    assert first.state == second.state == "done"
    assert first.metrics == second.metrics != {}
    assert first.published
    assert first.published != second.published


def test_every_net_that_is_offered_can_be_trained() -> None:
    path = next(path for path in NOTEBOOKS if path.stem == "05_cifar10_cnn")
    made = run(path, model="lenet", **SMALL[path.stem])
    assert made.metrics["test_accuracy"] > 0.15  # a rate made for another net would stay at chance


@each
def test_notebook_runs_whole_under_plain_papermill(path: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.ipynb"
    papermill.execute_notebook(path, out, SMALL[path.stem], cwd=path.parent, progress_bar=False)
    assert not nbformat.read(out, 4).metadata.papermill.exception


@pytest.mark.full
@each
def test_notebook_at_its_defaults_gives_its_stored_outputs(path: Path) -> None:
    result = nbval(path)
    assert result.returncode == 0, result.stdout[-5000:]


@pytest.mark.full
def test_cifar10_at_its_defaults_is_right_three_times_of_four() -> None:
    path = next(path for path in NOTEBOOKS if path.stem == "05_cifar10_cnn")
    made: Run = run(path)
    assert made.metrics["test_accuracy"] >= 0.75
