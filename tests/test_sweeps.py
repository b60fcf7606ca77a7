"""Sweeps of real notebooks: killed, interrupted, halved, and always the same table."""

from __future__ import annotations

import json
import shutil
import signal
import time
from contextlib import nullcontext
from pathlib import Path

import pandas
import psutil
import pytest
from test_runs_command import begun, command
from typer.testing import CliRunner
from writing import write_notebook

from workbench.cli import app
from workbench.errors import RequestError, RunError, TamperedError
from workbench.home import home
from workbench.runs import Halving, Run, Sweep, list_runs, list_sweeps, sweep
from workbench.runs.executors import LocalExecutor
from workbench.runs.sweeping import go_on
from workbench.runs.sweeps import find_sweep, plan

CELL = "from workbench.journal import record\nimport random, torch\n"
DRAW = f"{CELL}record('x', n * random.random() + float(torch.rand(1)))"


def write(folder: Path, cell: str = DRAW, defaults: str = "n = 1\nseed = 0") -> Path:
    return write_notebook(folder / "a.ipynb", cell, parameters=defaults)


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch, warm_single: str | None) -> None:
    """Let every sweep of this process have one warm parent, which needs seconds to come up."""
    parent = "workbench.runs.sweeping.warm_parent"
    monkeypatch.setattr(parent, lambda envelope: nullcontext(warm_single))


def same(one: Sweep, other: Sweep) -> bool:
    tables = [made.table().reset_index(drop=True) for made in (one, other)]
    return bool(tables[0].equals(tables[1]))


@pytest.mark.usefixtures("shared")
def test_the_table_is_the_same_whatever_the_number_of_workers(tmp_path: Path) -> None:
    notebook = write(tmp_path)
    two = sweep(notebook, n=[1, 2], seeds=2, jobs=2)
    one = sweep(notebook, n=[1, 2], seeds=2, jobs=1, out=tmp_path / "out")
    assert same(one, two)
    assert {run.record["envelope"]["variables"]["OMP_NUM_THREADS"] for run in two.runs} == {"1"}
    assert [run.folder.name for run in one.runs] == list("1234")
    table = two.table()
    assert list(table["done"]) == ["2 of 2"] * 2
    values = pandas.Series([run.metrics["x"] for run in two.runs])
    assert table["x"].tolist() == pytest.approx(values.groupby([0, 0, 1, 1]).mean().tolist())
    assert table["x ±"].tolist() == pytest.approx(values.groupby([0, 0, 1, 1]).std().tolist())
    assert two.best("x", "max").metrics["x"] == values.max()
    assert [found.id for found in list_sweeps()] == [two.id]
    assert [run.record["sweep"]["id"] for run in list_runs()] == [two.id] * 4


def test_a_cold_sweep_comes_to_the_same_and_its_executor_says_what_it_said(
    tmp_path: Path, warm_single: str | None
) -> None:
    notebook = write(tmp_path)
    made = plan(notebook, [{"n": 2}])
    cold, hot = go_on(plan(notebook, [{"n": 2}]), cold=True), go_on(made, cold=False)
    assert same(cold, hot)
    assert [run.record["warm"] for run in (*cold.runs, *hot.runs)] == [False, True]
    executor = LocalExecutor(warm_single)
    executor.submit(made.folders[0], {})
    while not (ended := executor.poll()):
        time.sleep(0.05)
    assert ended == {made.folders[0]: 2}
    assert "is done: there is nothing to resume" in executor.logs(made.folders[0])
    executor.close()


@pytest.mark.usefixtures("shared")
def test_a_cell_that_raises_is_not_tried_again_and_a_kernel_that_dies_is(tmp_path: Path) -> None:
    died = (
        "import os\nif n == 2 and not os.path.exists('died'):\n    open('died', 'w'); os._exit(1)"
    )
    notebook = write(tmp_path, f"{DRAW}\n{died}\nif n == 3: 1 / 0\nif n == 4: os._exit(1)")
    made = sweep(notebook, n=[1, 2, 3, 4], jobs=2)
    assert [run.state for run in made.runs] == ["done", "done", "failed", "killed"]
    assert [len(run.record["attempts"]) for run in made.runs] == [0, 1, 0, 2]
    with pytest.raises(RequestError, match=r"no run of sweep .* has recorded 'y': recorded were x"):
        made.best("y", "max")


SLOW = f"{CELL}import time\nrecord('begun', 1)\ntime.sleep(n / 2)\nrecord('x', n)"


def until_some_ended(runs: Path, n: int) -> None:
    for _ in range(1200):
        states = [json.loads(path.read_text())["state"] for path in runs.glob("*/run.json")]
        if states.count("done") >= n:
            return
        time.sleep(0.05)
    raise AssertionError("no run came to its end")


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize(
    "number",
    [
        signal.SIGKILL,
        *(pytest.param(other, marks=pytest.mark.full) for other in (signal.SIGTERM, signal.SIGINT)),
    ],
)
def test_a_sweep_that_was_stopped_goes_on_and_repeats_nothing(
    tmp_path: Path, number: signal.Signals, monkeypatch: pytest.MonkeyPatch
) -> None:
    notebook = write(tmp_path, SLOW)
    process = command("sweep", notebook, "-p", "n=1,2,3", "--jobs", 2)
    until_some_ended(home() / "runs", 1)
    family = psutil.Process(process.pid).children(recursive=True)
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == (-9 if number == signal.SIGKILL else 3), err
    assert psutil.wait_procs(family, timeout=15)[1] == []
    (made,) = list_sweeps()
    done = {
        run.id: (run.folder / "run.json").stat().st_mtime_ns
        for run in made.runs
        if run.state == "done"
    }
    assert 1 <= len(done) < 3
    monkeypatch.setenv("WORKBENCH_HEADLESS", "0")
    again = CliRunner().invoke(app, ["resume", made.id])
    assert again.exit_code == 0, again.stderr
    assert [run.metrics["x"] for run in made.runs] == [1, 2, 3]
    kept = {run.id: (run.folder / "run.json").stat().st_mtime_ns for run in made.runs}
    assert {run: kept[run] for run in done} == done
    assert "[3/3]" in again.stderr


LEARN = f"""{CELL}total = 0
for step in range(1, 9):
    total += n
    open(f'{{n}}.txt', 'a').write(str(step))
    record('score', total, step=step)
record('end', total)"""


@pytest.mark.usefixtures("shared")
def test_halving_stops_the_worse_half_whatever_the_number_of_workers(tmp_path: Path) -> None:
    tables = []
    for jobs in (1, 3):
        notebook = write(tmp_path / str(jobs), LEARN)
        made = sweep(notebook, n=[1, 2, 3, 4], jobs=jobs, halving=Halving("score", 2))
        table = made.table()
        assert list(table["state"]) == ["stopped", "stopped", "stopped", "done"]
        assert sorted(made.stopped.values()) == [
            *["among the worse half of score at step 2"] * 2,
            "among the worse half of score at step 4",
        ]
        assert (tmp_path / str(jobs) / "1.txt").read_text() == "12"
        assert (tmp_path / str(jobs) / "4.txt").read_text() == "12" + "1234" + "12345678"
        tables.append(table.reset_index(drop=True))
    assert tables[0].equals(tables[1])


@pytest.mark.usefixtures("shared")
def test_a_training_that_halving_looks_at_goes_on_to_the_same(tmp_path: Path) -> None:
    cell = (
        "import workbench as wb, torch\nx = torch.linspace(-1, 1, 64)[:, None]\n"
        "data = wb.dataset('p', train=(x, 3 * x + 1), validation=8)\n"
        "model = wb.build('linear', data, seed=0)\n"
        "calls = [wb.RecordEpochs('validation_loss')]\n"
        "wb.fit(model, data, epochs=6, lr=lr, callbacks=calls)\n"
        "wb.record('loss', wb.evaluate(model, data.train).loss)"
    )
    notebook = write(tmp_path, cell, "lr = 0.1\nseed = 0")
    halved = sweep(notebook, lr=[0.001, 0.05], halving=Halving("validation_loss", 2), jobs=2)
    whole = sweep(notebook, lr=[0.05], jobs=1)
    assert [run.state for run in halved.runs] == ["interrupted", "done"]
    assert halved.runs[1].metrics == whole.runs[0].metrics
    lines = (halved.folders[1] / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line).get("step") for line in lines]
    assert steps == [1, 2, 3, 4, 5, 6, None]


@pytest.mark.parametrize("text", ["loss", "loss:", ":3", "loss:x", "loss:max"])
def test_a_halving_that_is_none_is_refused(text: str) -> None:
    with pytest.raises(RequestError, match="is not understood: expected a metric and the step of"):
        Halving.parse(text)
    assert Halving.parse("a:loss:3") == Halving("a:loss", 3)
    assert Halving.parse("hue:3:max") == Halving("hue", 3, "max")
    with pytest.raises(RequestError, match="whether more or less of 'hue' is better is not known"):
        Halving("hue", 3)
    with pytest.raises(RequestError, match="goal is 'most', expected 'min' or 'max'"):
        Halving("hue", 3, "most")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="first look of halving is 0, expected 1 or more"):
        Halving("loss", 0)


def test_a_halving_may_be_written_as_on_the_command_line(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="halving 'loss' is not understood"):
        sweep(write(tmp_path), n=[1, 2], halving="loss")
    assert not home().exists()


@pytest.mark.usefixtures("shared")
def test_a_metric_that_nobody_records_is_told(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no run has recorded 'scorr_loss' with step=.*score"):
        sweep(write(tmp_path, LEARN), n=[1, 2], halving=Halving("scorr_loss", 2))


def test_the_shell_gets_table_and_exit_code_and_a_run_that_somebody_stops_is_not_begun_again(
    tmp_path: Path,
) -> None:
    cell, out = SLOW.replace("n / 2", "60 * (n == 1)"), tmp_path / "out"
    notebook = write(tmp_path, f"{cell}\nif n == 2: 1 / 0")
    process = command("sweep", notebook, "-p", "n=1,2,3", "--out", out, "--jobs", 1)
    begun(out / "1")
    Run.read(out / "1").stop()
    said, err = process.communicate(timeout=120)
    assert process.returncode == 1, err
    assert "error: 2 of 3 runs did not end well" in err
    assert (said.splitlines()[-1], said.count("failed")) == (str(out), 1)
    made = Sweep.read(out)
    assert [run.state for run in made.runs] == ["interrupted", "failed", "done"]
    assert [run.record["attempts"] for run in made.runs] == [[], [], []]


@pytest.mark.usefixtures("shared")
def test_points_of_different_names_and_runs_that_were_removed_are_borne(tmp_path: Path) -> None:
    made = go_on(plan(write(tmp_path), [{"n": 1}, {"seed": 2}]))
    table = made.table()
    assert list(table["seed"].isna()) == [True, False]
    shutil.rmtree(made.folders[0])
    assert len(made.table()) == len(made.runs) == 1


@pytest.mark.usefixtures("shared")
def test_a_secret_is_in_no_plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cell = "from workbench.journal import record\nrecord('length', len(api_key))"
    notebook = write(tmp_path, cell, 'api_key: str = ""\nn = 1')
    with pytest.raises(RequestError, match=r"'api_key' is a secret.*WORKBENCH_PARAMETER_API_KEY"):
        sweep(notebook, api_key=["one", "two"])
    monkeypatch.setenv("WORKBENCH_PARAMETER_API_KEY", "hush-hush")
    made = sweep(notebook, n=[1, 2])
    assert [run.metrics["length"] for run in made.runs] == [9, 9]
    texts = [path.read_text(errors="replace") for path in home().rglob("*") if path.is_file()]
    assert not any("hush-hush" in text for text in texts)


def test_a_prefix_that_fits_runs_too_is_no_sweep(tmp_path: Path) -> None:
    made = plan(write(tmp_path), [{"n": 1}])
    assert find_sweep(made.id) is not None
    (home() / "runs" / f"{made.id[:8]}-other").mkdir(parents=True)
    with pytest.raises(RequestError, match=r"is not one sweep or run but several: .*; say more"):
        find_sweep(made.id[:8])


def test_every_point_is_checked_before_anything_starts(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match="parameter 'n' got str 'x', expected int"):
        sweep(write(tmp_path), n=[1, "x"])
    assert not home().exists()


def test_a_plan_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no sweep in '.*': it holds no sweep.json"):
        Sweep.read(tmp_path)
    (tmp_path / "sweep.json").write_text("[]")
    with pytest.raises(TamperedError, match="is not the plan of a sweep: "):
        Sweep.read(tmp_path)
    (tmp_path / "sweep.json").write_text('{"format": 2, "runs": []}')
    with pytest.raises(TamperedError, match="is of format 2, this workbench reads format 1: use"):
        Sweep.read(tmp_path)


def test_two_processes_never_work_at_one_sweep(tmp_path: Path) -> None:
    from filelock import FileLock

    made = plan(write(tmp_path), [{"n": 1}])
    assert find_sweep(made.id[:-2]) is not None
    assert find_sweep("nothing") is None
    with (
        FileLock(made.folder / ".lock"),
        pytest.raises(RequestError, match=r"sweep .* is going on in another process: wait until"),
    ):
        go_on(made)


def test_a_process_that_ends_without_a_word_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(write(tmp_path), [{"n": 1}])
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    (tmp_path / "typer.py").write_text("raise SystemExit('no typer today')")
    with pytest.raises(RunError, match=r"ended without a word in its record: no typer today"):
        go_on(made, cold=True)
