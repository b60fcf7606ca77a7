"""The list of runs, fast and always what the records say."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from test_runs_records import FIRST, write

from workbench.errors import RequestError
from workbench.home import home, read_json, write_json
from workbench.runs import find_run, list_runs
from workbench.runs.index import _FILE, RunWatch

INDEX = f"runs/{_FILE}"


@pytest.fixture
def many() -> list[str]:
    names = [f"20260101-0000{number:02d}-a-{number:04x}" for number in range(40)]
    for name in names:
        write(name, metrics={"x": int(name[-2:], 16)})
    return names


def test_the_index_says_what_the_records_say(many: list[str]) -> None:
    first = [(run.id, run.metrics, run.record["state"]) for run in list_runs()]
    assert (home() / INDEX).exists()
    assert [(run.id, run.metrics, run.record["state"]) for run in list_runs()] == first
    assert [run.id for run in list_runs()] == many


def test_what_changed_is_read_anew_and_what_is_gone_is_gone(many: list[str]) -> None:
    list_runs()
    write(many[3], state="failed", metrics={"x": 99})
    shutil.rmtree(home() / "runs" / many[0])
    found = list_runs()
    assert (len(found), found[many[3]].state, found[many[3]].metrics) == (39, "failed", {"x": 99})


def test_a_run_that_has_not_ended_is_never_taken_from_the_index(many: list[str]) -> None:
    write(many[1], state="queued", started=None, queued="2026")
    list_runs()
    index = read_json(home() / INDEX)
    assert many[1] not in index["runs"]
    assert many[2] in index["runs"]


@pytest.mark.parametrize("text", ["{", "[]", '{"format": 99, "runs": {}}', ""])
@pytest.mark.usefixtures("many")
def test_an_index_that_cannot_be_read_is_made_anew(text: str) -> None:
    (home() / INDEX).write_text(text)
    assert len(list_runs()) == 40
    assert json.loads((home() / INDEX).read_text())["format"] == 1


@pytest.mark.usefixtures("many")
def test_a_home_that_cannot_be_written_is_listed_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError("read-only")

    monkeypatch.setattr("workbench.runs.index.write_file", refuse)
    assert len(list_runs()) == 40


def test_a_run_is_found_by_folder_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(FIRST)
    elsewhere = tmp_path / "elsewhere"
    shutil.copytree(folder, elsewhere)
    assert find_run(str(elsewhere)).folder == elsewhere
    assert find_run(FIRST[:20]).folder == find_run("last").folder == folder
    with pytest.raises(RequestError, match=r"no run in '.*nowhere': expected the folder of one"):
        find_run(str(tmp_path / "nowhere"))
    monkeypatch.chdir(tmp_path)
    assert find_run("elsewhere").folder == elsewhere


def test_the_brief_has_all_that_lists_and_queries_need() -> None:
    write(FIRST, requirements=[{"text": "x>0", "holds": True}], sweep={"id": "s", "point": 0})
    (run,) = list_runs()
    assert run.requirements == [{"text": "x>0", "holds": True}]
    assert run.record["sweep"]["id"] == "s"
    write_json(run.folder / "run.json", {**run.record, "queued": "2025", "started": None})
    assert list_runs()[0].began == "2025"


def test_a_watch_reads_only_what_has_changed(many: list[str]) -> None:
    watch = RunWatch()
    before = watch.look()
    write(many[5], state="failed", metrics={"x": 7})
    write("20260101-000099-a-ffff", state="queued", started=None, queued="2027")
    shutil.rmtree(home() / "runs" / many[0])
    after = watch.look()
    assert [repr(run) for run in after] == [repr(run) for run in list_runs()]
    kept = {id(run) for run in before}
    assert {run.id for run in after if id(run) not in kept} == {many[5], after[-1].id}
