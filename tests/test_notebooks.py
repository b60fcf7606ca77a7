"""The shipped notebooks: their form, their stored outputs, their runs."""

from __future__ import annotations

import ast
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import papermill
import pytest

from workbench.runs import Run, execute, run
from workbench.runs.envelopes import make_envelope
from workbench.runs.outputs import compare_outputs

NOTEBOOKS = sorted((Path(__file__).parent.parent / "notebooks").glob("*.ipynb"))
SMALL: dict[str, dict[str, Any]] = {
    "01_linear_regression": {"n_steps": 50},
    "13_serve_and_monitor": {"epochs": 12, "n_labels": 150},
    "05_cifar10_cnn": {"epochs": 0.5, "train_limit": 1000, "lenet_steps": 20},
}
each = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
quick = pytest.mark.parametrize(  # what executes them again; each run of 13 starts a service
    "path",
    [
        pytest.param(path, marks=[pytest.mark.full] if path.stem.startswith("13") else [])
        for path in NOTEBOOKS
    ],
    ids=lambda path: path.stem,
)


def code_cells(path: Path) -> list[Any]:
    return [cell for cell in nbformat.read(path, 4).cells if cell.cell_type == "code"]


def nbval(*paths: Path, threads: int | None = None) -> subprocess.CompletedProcess[str]:
    """Compare every stored output of notebooks to a fresh execution, strictly."""
    environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
    command = [sys.executable, "-m", "pytest", "--nbval", "--nbval-current-env", "-c", os.devnull]
    options = ["-v", "-p", "no:cacheprovider", "--nbval-cell-timeout", "900"]
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


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> str:
    """What nbval says of each notebook, at its small size on one thread, and of a wrong one."""
    folder = tmp_path_factory.mktemp("compared")
    shutil.copytree(NOTEBOOKS[0].parent / "jobs", folder / "jobs")  # that notebook 13 lists
    copies = [folder / path.name for path in NOTEBOOKS]
    for path, copy in zip(NOTEBOOKS, copies, strict=True):
        small = SMALL[path.stem]
        papermill.execute_notebook(path, copy, small, prepare_only=True, progress_bar=False)
    wrong = nbformat.v4.new_notebook()
    output = nbformat.v4.new_output("stream", text="3\n")
    wrong.cells = [nbformat.v4.new_code_cell("print(1 + 1)", outputs=[output])]
    nbformat.write(wrong, folder / "wrong.ipynb")
    return nbval(*copies, folder / "wrong.ipynb", threads=1).stdout


def said_of_cells(name: str, compared: str) -> list[str]:
    return re.findall(rf"\b{name}::ipynb::Cell \d+ (\w+)", compared)


@each
def test_notebook_small_gives_its_stored_outputs(path: Path, compared: str) -> None:
    """What strict nbval compares is the same at any size."""
    passed = ["PASSED"] * (len(code_cells(path)) + 1)  # and that of the given parameters
    assert said_of_cells(path.stem, compared) == passed, compared[-5000:]


def test_nbval_sees_a_changed_output(compared: str) -> None:
    """The comparison can fail."""
    assert said_of_cells("wrong", compared) == ["FAILED"]


@quick
def test_notebook_runs_twice_to_the_same_metrics(path: Path, warm: str | None) -> None:
    """In a kernel of its own and in a forked one."""
    first = run(path, **SMALL[path.stem])
    second = execute(path, SMALL[path.stem], warm=warm)
    assert first.state == second.state == "done"
    assert first.metrics == second.metrics != {}
    assert first.published
    assert first.published != second.published


def test_every_net_that_is_offered_can_be_trained(warm_single: str | None) -> None:
    path = next(path for path in NOTEBOOKS if path.stem == "05_cifar10_cnn")
    enough = {**SMALL[path.stem], "model": "lenet", "epochs": 1.0, "train_limit": 2000}
    made = execute(path, enough, envelope=make_envelope(threads=1), warm=warm_single)
    assert made.metrics["test_accuracy"] > 0.15  # a rate made for another net would stay at chance


@quick
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
@each
def test_notebook_at_its_defaults_gives_its_stored_outputs(path: Path) -> None:
    result = nbval(path)
    assert result.returncode == 0, result.stdout[-5000:]


@pytest.mark.full
def test_cifar10_at_its_defaults_is_right_three_times_of_four() -> None:
    path = next(path for path in NOTEBOOKS if path.stem == "05_cifar10_cnn")
    made: Run = run(path)
    assert made.metrics["test_accuracy"] >= 0.75
