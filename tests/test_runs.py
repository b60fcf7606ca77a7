"""Runs of real notebooks in real kernels, and what their records say."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path

import nbformat
import psutil
import pytest
from writing import write_notebook

from workbench.errors import RequestError, RunEnvironmentError, RunError, UnknownNameError
from workbench.home import home
from workbench.runs import Run, execute, list_runs, run
from workbench.runs.envelopes import make_envelope
from workbench.runs.environment import changed_facts, environment, kernel_variables

RECORD = "from workbench.journal import note, record"
LEARN = f"""\
import os, random
{RECORD}
record("first", 0.5)
record("first", random.Random(seed).random() * epochs)
note("load", dataset="line", fingerprint="ab12")
note("publish", ref="line@1", folder="somewhere")
print(os.getcwd(), os.environ["WORKBENCH_HEADLESS"], widths)
"""


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A run that went well, of a notebook with headings, parameters and an earlier output."""
    folder = tmp_path_factory.mktemp("done")
    cells = ["# A line", "x = 1", "# Learn it\n\n```\n# no heading\n```", LEARN, ""]
    written = "epochs = 1\nseed = 0\nwidths = (1, 2)"
    notebook = write_notebook(folder / "work" / "a line.ipynb", *cells, parameters=written)
    return run(notebook, out=folder / "out", epochs=3, widths=[4, 5])


def test_a_run_keeps_what_explains_it(done: Run) -> None:
    assert done.state == done.record["state"] == "done"
    assert re.fullmatch(r"\d{8}-\d{6}-a-line-[0-9a-f]{4}", done.id)
    assert done.parameters == {"epochs": 3, "seed": 0, "widths": [4, 5]}
    assert (done.record["given"], done.record["seed"]) == (["epochs", "widths"], 0)
    assert done.published == ["line@1"]
    assert done.record["datasets"] == [{"name": "line", "fingerprint": "ab12"}]
    source = Path(done.record["notebook"]["path"])
    assert done.record["notebook"]["sha256"] == hashlib.sha256(source.read_bytes()).hexdigest()
    names = {path.name for path in done.folder.iterdir()}
    assert names == {"notebook.ipynb", "run.json", "metrics.jsonl", "events.jsonl"}


def test_the_last_value_of_a_name_is_its_metric(done: Run) -> None:
    import random

    assert done.metrics == {"first": random.Random(0).random() * 3}


def test_every_code_cell_has_its_truth(done: Run) -> None:
    cells = done.record["cells"]
    assert [cell["index"] for cell in cells] == [0, 1, 3, 5, 6]
    assert [cell["heading"] for cell in cells] == [None, None, "A line", "Learn it", "Learn it"]
    assert [cell["state"] for cell in cells] == ["done"] * 4 + ["skipped"]
    assert all(cell["seconds"] < done.record["seconds"] for cell in cells[:4])
    assert done.record["error"] is None


def test_the_executed_notebook_is_whole_and_worked_in_its_own_folder(done: Run) -> None:
    made = nbformat.read(done.notebook, as_version=4)
    nbformat.validate(made)
    source = Path(done.record["notebook"]["path"])
    assert made.cells[5].outputs[0].text == f"{source.parent} 1 (4, 5)\n"
    assert made.cells[1].source == "# Parameters of this run\nepochs = 3\nwidths = (4, 5)"
    assert made.metadata.workbench.run == done.id
    assert "widgets" not in made.metadata
    assert all("outputs" not in cell or not cell.outputs for cell in _cells(source))


def _cells(path: Path) -> list[nbformat.NotebookNode]:
    cells: list[nbformat.NotebookNode] = nbformat.read(path, as_version=4).cells
    return cells


def test_the_environment_is_recorded(done: Run) -> None:
    import numpy
    import torch

    found = done.record["environment"]
    assert found["packages"]["torch"] == torch.__version__
    assert found["packages"]["numpy"] == numpy.__version__
    assert found["threads"] == (psutil.cpu_count(logical=False) or psutil.cpu_count())
    assert found["hardware"]["cores"] == psutil.cpu_count()


def test_the_kernel_says_what_torch_ran_on(tmp_path: Path) -> None:
    import torch

    found = run(write_notebook(tmp_path / "a.ipynb", "import torch\ntorch.set_num_threads(1)"))
    hardware = found.record["environment"]["hardware"]
    assert hardware["instruction_set"] == torch.backends.cpu.get_cpu_capability()
    assert hardware["threads"] == 1


def test_git_and_threads_of_the_user_are_recorded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("WORKBENCH_HOME", "relative")
    found, diff = environment(tmp_path, make_envelope())
    assert (found["git"], diff, found["threads"]) == (None, "", 5)
    variables = kernel_variables(tmp_path, make_envelope())
    assert variables["OMP_NUM_THREADS"] == "5"
    assert variables["WORKBENCH_HOME"] == str(home())
    assert Path(variables["WORKBENCH_HOME"]).is_absolute()


def test_code_that_is_not_committed_is_kept_and_told_apart(tmp_path: Path) -> None:
    git = ["git", "-C", str(tmp_path), "-c", "user.name=a", "-c", "user.email=a@b"]
    for command in (["init", "-q"], ["add", "."], ["commit", "-qm", "x", "--allow-empty"]):
        subprocess.run([*git, *command], check=True)
    (tmp_path / "a.py").write_text("x = 1\n")
    notebook = write_notebook(tmp_path / "a.ipynb", "print(1)")
    subprocess.run([*git, "add", "a.py"], check=True)
    first = run(notebook, out=tmp_path / "one")
    (tmp_path / "a.py").write_text("x = 2\n")
    second = run(notebook, out=tmp_path / "two")
    state = first.record["environment"]["git"]
    assert (len(state["commit"]), state["dirty"], len(state["diff_sha256"])) == (40, True, 64)
    assert "+x = 1" in (first.folder / "code.diff").read_text()
    changed = changed_facts(first.record, second.record)
    assert [line.split(" ")[:2] for line in changed] == [["uncommitted", "code"]]


def test_one_seed_gives_one_result(tmp_path: Path) -> None:
    cell = f"{RECORD}\nimport random\nrandom.seed(seed)\nrecord('x', random.random())"
    order = "record('order', hash('a') % 1000)"
    notebook = write_notebook(tmp_path / "a.ipynb", cell, order, parameters="seed = 0")
    first, second, other = (run(notebook, seed=seed) for seed in (7, 7, 8))
    assert first.metrics == second.metrics
    assert first.metrics["x"] != other.metrics["x"]
    assert [found.id for found in list_runs()] == [first.id, second.id, other.id]
    assert first.record["seed"] == 7


def test_a_failing_cell_is_named_and_what_was_done_is_kept(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORKBENCH_HEADLESS")
    cells = ["print('before')", "# Divide ##", "1 / 0", "print('after')"]
    with pytest.raises(RunError) as caught:
        run(write_notebook(tmp_path / "a.ipynb", *cells), out=tmp_path / "out")
    message = str(caught.value)
    assert message.startswith(
        "the run failed in cell 2 of 3 (Divide): ZeroDivisionError: division by zero\n\n---"
    )
    assert "----> 1 1 / 0" in message
    assert "\x1b" not in message
    assert message.endswith(f"What was done is in {tmp_path / 'out'}")
    assert (caught.value.exit_code, caught.value.folder) == (1, tmp_path / "out")
    failed = Run.read(tmp_path / "out")
    assert [cell["state"] for cell in failed.record["cells"]] == ["done", "failed", "pending"]
    assert failed.record["error"]["name"] == "ZeroDivisionError"
    assert _cells(failed.notebook)[0].outputs[0].text == "before\n"
    told = capsys.readouterr().err.splitlines()
    assert re.fullmatch(r"\[1/3\] a  \d\.\d s", told[0])
    assert re.fullmatch(r"\[2/3\] Divide  \d\.\d s and did not end well", told[1])


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("import os; os._exit(7)", "the kernel's process ended with exit code 7"),
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "the kernel was killed by signal 9, most often because memory ran out",
        ),
    ],
)
def test_a_kernel_that_dies_is_not_a_cell_that_is_done(
    tmp_path: Path, cell: str, said: str
) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "print(1)", cell, "print(2)")
    with pytest.raises(RunEnvironmentError, match=f"in cell 2 of 3: DeadKernelError: {said}"):
        run(notebook)
    dead = list_runs()["last"]
    assert [c["state"] for c in dead.record["cells"]] == ["done", "killed", "pending"]
    assert (dead.state, dead.record["error"]["value"]) == ("killed", said)


def test_leaving_by_sys_exit_is_a_failure(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "import sys\nsys.exit(0)", "print(2)")
    with pytest.raises(RunError, match="in cell 1 of 2: SystemExit: 0") as caught:
        run(notebook)
    assert caught.value.exit_code == 1
    assert list_runs()["last"].state == "failed"


@pytest.mark.parametrize(
    "raised",
    [
        "workbench.errors.SourceError('no source of cifar10 answered')",
        'RuntimeError("DefaultCPUAllocator: can\'t allocate memory")',
    ],
)
def test_an_environment_that_fails_in_a_cell_has_its_own_code(tmp_path: Path, raised: str) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", f"import workbench.errors\nraise {raised}")
    with pytest.raises(RunEnvironmentError, match=r"Error: .*(answered|allocate)") as caught:
        run(notebook)
    assert caught.value.exit_code == 4
    assert list_runs()["last"].state == "failed"


def test_a_kernel_that_cannot_start_fails_the_environment(tmp_path: Path) -> None:
    (tmp_path / "ipykernel_launcher.py").write_text("raise SystemExit('no kernel today')")
    notebook = write_notebook(tmp_path / "a.ipynb", "print(1)")
    with pytest.raises(RunEnvironmentError, match="before cell 1 of 1: RuntimeError: Kernel died"):
        run(notebook, out=tmp_path / "out")
    assert "no kernel today" in (tmp_path / "out" / "kernel.log").read_text()
    assert Run.read(tmp_path / "out").state == "failed"


def test_a_long_temporary_folder_does_not_stop_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("x" * 80)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))
    assert run(write_notebook(tmp_path / "a.ipynb", "print(1)")).state == "done"
    assert list(long.iterdir()) == []


def test_tags_say_which_cells_are_skipped_or_may_raise(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "1 / 0", "2 / 0", "x = 1")
    document = nbformat.read(notebook, as_version=4)
    document.cells[0].metadata["tags"] = ["raises-exception"]
    document.cells[1].metadata["tags"] = ["skip-execution"]
    nbformat.write(document, notebook)
    states = [cell["state"] for cell in run(notebook).record["cells"]]
    assert states == ["done", "skipped", "done"]


def test_a_run_can_be_started_from_a_notebook(tmp_path: Path) -> None:
    write_notebook(tmp_path / "inner.ipynb", f"{RECORD}\nrecord('x', y)", parameters="y = 1")
    cell = "from workbench.runs import run\ninner = run('inner.ipynb', y=2)\nprint(inner.metrics)"
    outer = run(write_notebook(tmp_path / "outer.ipynb", cell, f"{RECORD}\nrecord('z', 3)"))
    assert outer.metrics == {"z": 3}
    assert [out["text"] for out in _cells(outer.notebook)[0].outputs] == ["{'x': 2}\n"]
    assert [found.metrics for found in list_runs()] == [{"z": 3}, {"x": 2}]


def test_whoever_reads_during_a_run_finds_whole_files(tmp_path: Path) -> None:
    cells = [f"print('x' * 200_000)\nprint({i})" for i in range(12)]
    notebook, out = write_notebook(tmp_path / "a.ipynb", *cells), tmp_path / "out"
    states: set[str] = set()
    ended = threading.Event()

    def read() -> None:
        while not ended.is_set():
            for name in ("run.json", "notebook.ipynb"):
                if (out / name).exists():
                    found = json.loads((out / name).read_text())
                    states.add(found.get("state", "notebook"))

    reader = threading.Thread(target=read)
    reader.start()
    run(notebook, out=out)
    ended.set()
    reader.join()
    assert states >= {"running", "notebook"}
    assert [path.name for path in out.iterdir() if path.name.startswith(".")] == []


def test_a_bad_request_starts_nothing(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "print(1)", parameters="epochs = 1")
    before = psutil.Process().children()
    with pytest.raises(UnknownNameError, match="unknown parameter 'epoch': did you mean epochs"):
        run(notebook, epoch=3)
    with pytest.raises(RequestError, match="parameter 'epochs' got str 'x', expected int"):
        execute(notebook, {"epochs": "x"}, out=tmp_path / "out")
    assert not home().exists()
    assert not (tmp_path / "out").exists()
    assert psutil.Process().children() == before


def test_a_run_never_writes_over_anything(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "print(1)")
    with pytest.raises(RequestError, match=r"out '.*' holds a.ipynb, expected an absent or empty"):
        run(notebook, out=tmp_path)
    with pytest.raises(RequestError, match=r"out '.*' cannot be a run's folder: Not a directory"):
        run(notebook, out=notebook)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("lin.ipynb", None, r"no notebook '.*lin.ipynb': did you mean .*line.ipynb\?"),
        ("weather", None, r"no notebook '.*weather': pass the path of an .ipynb file"),
        ("no/a.ipynb", None, "there is no folder '.*no'"),
        (".", None, "that is a folder; pass a notebook in it"),
        ("a.py", lambda p: p.write_text("print(1)"), "a.py is not a notebook: .* not appear to"),
        ("a.ipynb", lambda p: p.write_text("{}"), "a.ipynb is not a notebook: .*missing a key"),
        ("a.ipynb", lambda p: p.write_bytes(b"\xff"), "a.ipynb is not a notebook: .*decode"),
    ],
)
def test_what_is_not_a_notebook_is_refused(
    tmp_path: Path, name: str, write: Callable[[Path], object] | None, message: str
) -> None:
    write_notebook(tmp_path / "line.ipynb", "print(1)")
    if write:
        write(tmp_path / name)
    with pytest.raises(RequestError, match=message):
        run(tmp_path / name)


def test_a_notebook_of_another_language_is_refused(tmp_path: Path) -> None:
    notebook = write_notebook(tmp_path / "a.ipynb", "1")
    document = nbformat.read(notebook, as_version=4)
    document.metadata["kernelspec"] = {"name": "ir", "display_name": "R", "language": "R"}
    nbformat.write(document, notebook)
    with pytest.raises(RequestError, match="is a notebook of 'R'; runs are of Python notebooks"):
        run(notebook)
