"""`pytest --workbench` on real notebooks in real kernels, in a process of its own."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_output
from writing import write_notebook

import workbench.runs.engine  # noqa: F401 -- or each test within this process would load papermill

pytest_plugins = ["pytester"]

IMPORTS = "import os, sys, time\nfrom tqdm import tqdm\nfrom workbench.journal import record"
NOISE = "print(time.time(), file=sys.stderr)\nfor i in tqdm(range(3)): pass\nprint(3)"
UPDATE = "shown = display('a', display_id='x')\nshown.update('b')"
CLEAR = "from IPython.display import clear_output\nprint('old')\nclear_output()\nprint('new')"
HOME = "from workbench.home import home, write_file\nwrite_file(home() / 'left', b'')"
SHELL = "from workbench.serving.server import command_line"
ACC = "from workbench.journal import record\nrecord('acc', {}, tolerance=0.01)\n"
PRINT = "print('a\\n<script>alert({})</script>\\n  last')"


def stored(path: Path, *outputs: Any, **metrics: Any) -> Path:
    """Store outputs in the last cells of a notebook, and accept numbers."""
    notebook = nbformat.read(path, as_version=4)
    for cell, output in zip(reversed(notebook.cells), reversed(outputs), strict=False):
        cell.outputs = [output]
    accepted = {name: {"value": v, "tolerance": t} for name, (v, t) in metrics.items()}
    notebook.metadata["workbench"] = {"metrics": accepted, "requires": ["acc >= 0"]}
    nbformat.write(notebook, path)
    return path


def run_pytest(folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    """Run pytest in the folder, its home beside it, with warnings as errors."""
    return subprocess.run(
        [sys.executable, "-W", "error", "-m", "pytest", "-W", "error", *options],
        cwd=folder,
        env={**os.environ, "WORKBENCH_HOME": str(folder.parent / "home")},
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture(scope="module")
def checked(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """A folder of notebooks, and what pytest said of them."""
    folder = tmp_path_factory.mktemp("checked") / "work"
    good = write_notebook(
        folder / "in" / "good.ipynb",
        "# Good",
        IMPORTS,
        ACC.format(0.805),
        HOME,
        NOISE,
        UPDATE,
        CLEAR,
    )
    three = new_output("stream", text="3\n")
    updated = new_output("display_data", data={"text/plain": "'b'"})
    stored(good, three, updated, new_output("stream", text="new\n"), acc=(0.8, 0.01))
    source = ACC.format(0.7) + "record('new', 1)"
    off = write_notebook(folder / "off.ipynb", "# Off", source, "# Print", PRINT.format(1))
    printed = new_output("stream", text="a\n<script>alert(0)</script>\n  last\n")
    stored(off, printed, acc=(0.8, 0.01), gone=(1, None))
    write_notebook(folder / "raises.ipynb", "# Fails here", "x = 0\n1 / x", "print(1)")
    result = run_pytest(folder, "--workbench")
    assert result.returncode == 1, result.stdout + result.stderr
    return folder, result.stdout


def test_a_notebook_that_is_as_stored_passes(checked: tuple[Path, str]) -> None:
    """Its number is within tolerance; noise, updated displays and cleared outputs do not matter."""
    folder, said = checked
    assert "in/good.ipynb: 1 number and its outputs agree, " in said
    assert "2 failed, 1 passed" in said
    assert not (folder / ".failures" / "in").exists()


def test_what_differs_is_said_in_few_lines(checked: tuple[Path, str]) -> None:
    assert """off.ipynb ___________________________________
number acc: found 0.7, accepted is 0.8 ± 0.01
number gone: not recorded, accepted is 1
number new: found 1, none is accepted
cell 2 (Print), stdout, line 2: '<script>alert(0)</script>' became '<script>alert(1)</script>'

Side by side in .failures/off/diff.html, executed in .failures/off/notebook.ipynb.
If it is right now, accept it: pytest --workbench --regen off.ipynb
""" in checked[1]
    assert "off.ipynb: 4 differences: .failures/off/diff.html, " in checked[1]


def test_the_page_sets_it_side_by_side_and_is_harmless(checked: tuple[Path, str]) -> None:
    page = (checked[0] / ".failures" / "off" / "diff.html").read_text()
    assert "<script" not in page
    assert "http://" not in page and "https://" not in page  # noqa: PT018
    assert "<title>off.ipynb is not as stored</title>" in page
    row = page[page.index(">acc<") : page.index(">gone<")]
    assert row.index(">0.8<") < row.index(">0.7<") < row.index(">0.01<") < row.index("differs")
    assert "cell 2 (Print), stdout" in page
    for name, digit in (("del", 0), ("ins", 1)):
        assert f"&lt;script&gt;alert(<{name} style=" in page
        assert f">{digit}</{name}>)&lt;/script&gt;" in page


def test_the_executed_notebook_is_kept(checked: tuple[Path, str]) -> None:
    made = nbformat.read(checked[0] / ".failures" / "off" / "notebook.ipynb", as_version=4)
    assert made.cells[3].outputs[0].text == "a\n<script>alert(1)</script>\n  last\n"


def test_a_cell_that_raises_is_told_as_a_run_tells_it(checked: tuple[Path, str]) -> None:
    folder, said = checked
    told = "the run failed in cell 1 of 2 (Fails here): ZeroDivisionError: division by zero"
    assert told in said
    assert "----> 2 1 / x" in said
    assert "What was done is in .failures/raises\n" in said
    assert "raises.ipynb: the run failed: .failures/raises/diff.html, " in said
    kept = folder / ".failures" / "raises"
    made = nbformat.read(kept / "notebook.ipynb", as_version=4)
    assert made.cells[1].outputs[0].ename == "ZeroDivisionError"
    assert told in (kept / "diff.html").read_text()


def test_nothing_is_left_in_the_home_of_the_user(checked: tuple[Path, str]) -> None:
    assert not (checked[0].parent / "home").exists()


@pytest.fixture(scope="module")
def accepted(checked: tuple[Path, str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the folder, its differences accepted."""
    folder = tmp_path_factory.mktemp("accepted") / "work"
    shutil.copytree(checked[0], folder)
    notebook = nbformat.read(folder / "off.ipynb", as_version=4)
    notebook.metadata["widgets"] = {}
    notebook.cells[1].metadata["execution"] = {"iopub.execute_input": "2026-01-01T00:00:00Z"}
    nbformat.write(notebook, folder / "off.ipynb")
    write_notebook(folder / "plain.ipynb", "x = 3", "x")
    write_notebook(folder / "shell.ipynb", f"{SHELL}\nprint(command_line())")
    (folder / "off.ipynb").chmod(0o640)
    result = run_pytest(folder, "--workbench", "--regen", "off.ipynb", "plain.ipynb", "shell.ipynb")
    assert result.returncode == 0, result.stdout + result.stderr
    assert "off.ipynb: accepted 2 numbers and its outputs, " in result.stdout
    assert "plain.ipynb: accepted 0 numbers and its outputs, " in result.stdout
    return folder


def test_what_was_accepted_passes_and_nbval_strictly_beside_it(accepted: Path) -> None:
    assert not (accepted / ".failures" / "off" / "diff.html").exists()
    nbval = ("--nbval", "--nbval-current-env")
    both = run_pytest(accepted, "-v", "--workbench", *nbval, "off.ipynb")
    assert both.returncode == 0, both.stdout
    assert "off.ipynb: 2 numbers and its outputs agree, " in both.stdout
    for item in ("off.ipynb::run", "off::ipynb::Cell 0", "off::ipynb::Cell 1"):
        assert f"{item} PASSED" in both.stdout


def test_what_is_stored_names_no_place_of_this_machine(accepted: Path) -> None:
    assert nbformat.read(accepted / "shell.ipynb", 4).cells[-1].outputs[0].text == "workbench\n"


def test_accepting_keeps_all_else(accepted: Path, checked: tuple[Path, str]) -> None:
    before = nbformat.read(checked[0] / "off.ipynb", as_version=4)
    after = nbformat.read(accepted / "off.ipynb", as_version=4)
    nbformat.validate(after)
    metrics = {"acc": {"value": 0.7, "tolerance": 0.01}, "new": {"value": 1, "tolerance": None}}
    assert after.metadata.workbench == {"metrics": metrics, "requires": ["acc >= 0"]}
    assert after.cells[3].outputs[0].text == "a\n<script>alert(1)</script>\n  last\n"
    assert [cell.get("execution_count") for cell in after.cells] == [None, 1, None, 2]
    assert (accepted / "off.ipynb").stat().st_mode & 0o777 == 0o640
    for notebook in (before, after):
        del notebook.metadata["workbench"]
        for cell in notebook.cells:
            cell.pop("outputs", None)
            cell.pop("execution_count", None)
    assert before == after
    assert "workbench" not in nbformat.read(accepted / "plain.ipynb", as_version=4).metadata


@pytest.mark.usefixtures("forked")
def test_numbers_are_not_compared_at_other_parameters(pytester: pytest.Pytester) -> None:
    """But a value that is the default changes nothing, and outputs are compared at any size."""
    folder = pytester.path
    for name, defaults, shown in [
        ("outputs", "n = 1  # how many", "n > 0"),
        ("differs", "n = 1", "n == 1"),
        ("default", "k = 1", "k == 1"),
    ]:
        source = f"{ACC.format(defaults[0])}print({shown})"
        path = write_notebook(folder / f"{name}.ipynb", source, parameters=defaults)
        stored(path, new_output("stream", text="True\n"), acc=(1, None))
    given = ("--workbench-parameters", "n=2", "--workbench-parameters", "k=1")
    said = pytester.runpytest_inprocess("--workbench", *given).stdout.str()
    note = "numbers are not compared, since another value is given for n"
    assert f"outputs.ipynb: its outputs agree; {note}, " in said
    assert "default.ipynb: 1 number and its outputs agree, " in said
    assert "differs.ipynb: 1 difference: .failures/differs/diff.html, " in said
    assert f"in .failures/differs/notebook.ipynb.\n{note}\n" in said
    assert note in (folder / ".failures" / "differs" / "diff.html").read_text()


USAGE = [
    (["--regen"], "--regen says how to execute notebooks: add --workbench"),
    (
        ["--workbench-parameters", "n=1"],
        "--workbench-parameters says how to execute notebooks: add --workbench",
    ),
    (
        ["--workbench", "--workbench-parameters", "n:1"],
        "--workbench-parameters 'n:1' is not an assignment: write NAME=VALUE",
    ),
    (
        ["--workbench", "--workbench-parameters", "epcohs=1"],
        "unknown parameter 'epcohs': did you mean epochs? There are: epochs.",
    ),
    (
        ["--workbench", "--regen", "--workbench-parameters", "epochs=2"],
        "--regen stores what a notebook gives at its defaults, and another value is given for "
        "epochs: leave out --workbench-parameters",
    ),
]


@pytest.mark.parametrize(("options", "message"), USAGE)
def test_a_wrong_request_is_refused_before_anything_runs(
    pytester: pytest.Pytester, options: list[str], message: str
) -> None:
    write_notebook(pytester.path / "a.ipynb", "x = 1", parameters="epochs = 1")
    result = pytester.runpytest_inprocess(*options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    assert f"ERROR: {message}" in result.errlines + result.outlines


def test_a_notebook_that_cannot_be_checked_is_an_error(pytester: pytest.Pytester) -> None:
    (pytester.path / "broken.ipynb").write_text("{}")
    path = write_notebook(pytester.path / "wrong.ipynb", "1")
    notebook = nbformat.read(path, as_version=4)
    notebook.metadata["workbench"] = {"metrics": {"acc": 0.5}}
    nbformat.write(notebook, path)
    typed = write_notebook(pytester.path / "typed.ipynb", "1", parameters="n = 1")
    result = pytester.runpytest_inprocess("--workbench", "--workbench-parameters", "n=x")
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert f"{pytester.path / 'broken.ipynb'} is not a notebook: " in result.stdout.str()
    assert (
        f"{path} accepts 0.5 as 'acc' in its metadata, expected "
        '{"value": a number, "tolerance": a number or null}: write that, or use --regen'
    ) in result.outlines
    assert "parameter 'n' got str 'x', expected int" in result.stdout.str()
    regen = pytester.runpytest_inprocess("--workbench", "--regen", "--collect-only", path, typed)
    assert regen.ret == 0


def test_an_edit_meanwhile_is_not_overwritten(pytester: pytest.Pytester) -> None:
    path = write_notebook(pytester.path / "a.ipynb", "open('a.ipynb', 'a').write('\\n')")
    before = path.read_text()
    result = pytester.runpytest_inprocess("--workbench", "--regen")
    assert "was changed while it ran, so that nothing was accepted: run it again" in (
        result.stdout.str()
    )
    assert path.read_text() == before + "\n"


def test_an_interrupt_stops_the_session(pytester: pytest.Pytester) -> None:
    stop = f"import os, signal, time\nos.kill({os.getpid()}, signal.SIGINT)\ntime.sleep(20)"
    write_notebook(pytester.path / "a.ipynb", stop)
    write_notebook(pytester.path / "b.ipynb", "1")
    result = pytester.runpytest_inprocess("--workbench", no_reraise_ctrlc=True)
    assert result.ret == pytest.ExitCode.INTERRUPTED
    assert "b.ipynb" not in result.stdout.str()


def test_what_was_kept_is_not_collected(pytester: pytest.Pytester) -> None:
    write_notebook(pytester.path / "kept" / "a" / "notebook.ipynb", "1")
    options = ["--workbench", "--workbench-failures", "kept"]
    assert pytester.runpytest_inprocess(*options).ret == pytest.ExitCode.NO_TESTS_COLLECTED


def test_without_the_option_nothing_is_collected_or_loaded(tmp_path: Path) -> None:
    folder = tmp_path / "work"
    write_notebook(folder / "a.ipynb", "1")
    heavy = ["papermill", "nbformat", "nbclient", "torch", "numpy", "pandas", "jupyter_client"]
    (folder / "test_it.py").write_text(
        f"import sys\n\ndef test_it():\n    assert 'workbench.runs.plugin' in sys.modules\n"
        f"    assert not {set(heavy)} & set(sys.modules)\n"
    )
    result = run_pytest(folder, "-p", "no:nbval")
    assert result.returncode == 0, result.stdout
    assert "1 passed" in result.stdout
