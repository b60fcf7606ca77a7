"""The records of runs, read and listed."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import RequestError, TamperedError, UnknownNameError
from workbench.home import home, write_json
from workbench.runs import Run, list_runs
from workbench.runs.records import remembered, run_lock

FIRST, SECOND, THIRD = "20260101-000000-a-0001", "20260101-000000-a-0002", "20260202-000000-b-0003"


def write(name: str, **changes: Any) -> Path:
    folder = home() / "runs" / name
    record = {
        **{"format": 1, "id": name, "state": "done", "notebook": {"path": f"/x/{name[16]}.ipynb"}},
        **{"started": name, "seconds": 1.5, "parameters": {"lr": 0.1}, "metrics": {"loss": 0.5}},
        **{"published": ["m@1"], "datasets": []},
        **changes,
    }
    write_json(folder / "run.json", record)
    return folder


@pytest.fixture
def three() -> None:
    for name in (THIRD, FIRST, SECOND):
        write(name)


@pytest.mark.usefixtures("three")
def test_runs_are_listed_oldest_first_and_found_by_name() -> None:
    runs = list_runs()
    assert [run.id for run in runs] == [FIRST, SECOND, THIRD]
    assert runs[-1].id == runs["last"].id == runs["20260202"].id == runs[THIRD].id == THIRD
    assert [run.id for run in runs[:2]] == [FIRST, SECOND]
    assert (runs[0].metrics, runs[0].parameters) == ({"loss": 0.5}, {"lr": 0.1})
    assert (runs[0].published, runs[0].notebook.name) == (["m@1"], "notebook.ipynb")
    assert repr(runs[0]) == f"Run {FIRST}: done after 1.5 s, loss 0.5"
    assert repr(runs[:1]) == repr(runs[0])


@pytest.mark.usefixtures("three")
def test_an_ambiguous_or_unknown_name_is_refused() -> None:
    with pytest.raises(RequestError, match=f"'20260101' is not one run but 2: {FIRST}, {SECOND}"):
        list_runs()["20260101"]
    with pytest.raises(UnknownNameError, match=f"unknown run '{THIRD}x': did you mean {THIRD}"):
        list_runs()[THIRD + "x"]


def test_no_runs_say_how_to_make_one() -> None:
    assert len(list_runs()) == 0
    assert repr(list_runs()) == "no runs yet: workbench run NOTEBOOK makes one"
    with pytest.raises(UnknownNameError, match="unknown run 'last': There is no run yet"):
        list_runs()["last"]


@pytest.mark.usefixtures("three")
def test_the_table_has_a_row_a_run() -> None:
    table = list_runs().table()
    assert list(table.index) == [FIRST, SECOND, THIRD]
    assert list(table["parameters.lr"]) == [0.1] * 3
    assert list(table["metrics.loss"]) == [0.5] * 3
    assert list(table["notebook"]) == ["a", "a", "b"]
    assert list_runs()[:0].table().empty


def test_a_running_record_that_nobody_holds_reads_as_killed() -> None:
    folder = write(FIRST, state="running", seconds=None, metrics={})
    (folder / "metrics.jsonl").write_text('{"name": "loss", "value": 2}\n{"name": "lo')
    assert Run.read(folder).state == "killed"
    assert Run.read(folder).metrics == {"loss": 2}
    with run_lock(folder):
        assert Run.read(folder).state == "running"
        assert repr(Run.read(folder)) == f"Run {FIRST}: running, loss 2"


def test_a_folder_without_a_run_and_a_newer_format_are_refused(tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"no run in '.*': it holds no run.json"):
        Run.read(tmp_path)
    newer = write(FIRST, format=2)
    with pytest.raises(TamperedError, match=r"run.json is of format 2, this workbench reads forma"):
        Run.read(newer)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("{", "cannot be read: Expecting property name"),
        ("[]", "holds a list"),
        ('{"format": 1, "id": "x"}', "lacks state, notebook"),
        ('{"format": 2}', "is of format 2, this workbench reads format 1"),
    ],
)
@pytest.mark.usefixtures("three")
def test_a_damaged_record_is_named_and_hides_no_other(text: str, found: str) -> None:
    (home() / "runs" / SECOND / "run.json").write_text(text)
    with pytest.raises(TamperedError, match=f"{SECOND}/run.json .*{found}"):
        Run.read(home() / "runs" / SECOND)
    with pytest.warns(UserWarning, match=f"{SECOND}/run.json .*{found}"):
        assert [run.id for run in list_runs()] == [FIRST, THIRD]


def test_every_load_of_a_name_is_kept_once_and_in_order(tmp_path: Path) -> None:
    loads = [("b", "1"), ("a", "2"), ("b", "1"), ("b", "3")]
    lines = [f'{{"event": "load", "dataset": "{n}", "fingerprint": "{f}"}}\n' for n, f in loads]
    (tmp_path / "events.jsonl").write_text("".join(lines))
    assert remembered(tmp_path)["datasets"] == [
        {"name": name, "fingerprint": value} for name, value in (("b", "1"), ("a", "2"), ("b", "3"))
    ]


def test_two_readers_of_a_killed_run_agree_that_it_was_killed() -> None:
    folder = write(FIRST, state="running", seconds=None)
    code = (
        "import sys; from pathlib import Path; from workbench.runs import Run\n"
        "print({Run.read(Path(sys.argv[1])).state for _ in range(500)})"
    )
    readers = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    assert [reader.communicate(timeout=60)[0] for reader in readers] == ["{'killed'}\n"] * 2
