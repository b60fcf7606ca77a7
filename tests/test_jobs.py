"""The queue of jobs and its host: real runs in real processes, killed and taken up again."""

from __future__ import annotations

import json
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from jobsites import long_notebook, working
from listening import waits

from workbench.errors import TamperedError, UnknownNameError
from workbench.registry.ledgers import Ledger
from workbench.runs.executors import LocalExecutor
from workbench.runs.jobs import MAX_JOBS, Job, JobQueue
from workbench.runs.queueing import queue as make_run
from workbench.runs.records import Run
from workbench.serving.jobevents import Moment, news
from workbench.supervision.jobhost import JobHost

HOST = """\
import time
from workbench.runs.jobs import JobQueue
from workbench.supervision.jobhost import JobHost
host = JobHost(JobQueue.of("digits"), {"long"})
while True:
    host.tick()
    time.sleep(0.02)
"""


@pytest.fixture
def jobs() -> Iterator[JobQueue]:
    """Give the jobs of a service."""
    with closing(JobQueue.of("digits")) as made:
        yield made


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    """Give a notebook that goes on until it is told to end."""
    return long_notebook(tmp_path)


def add(jobs: JobQueue, notebook: Path) -> Job:
    """Let a run of a notebook wait for its turn."""
    run = make_run(notebook, {})
    assert jobs.add(run.id, notebook.stem)
    return jobs.find(run.id)


def stands(jobs: JobQueue, job: Job, state: str) -> bool:
    """Return whether a job comes to stand so."""
    return waits(lambda: jobs.find(job.id).state == state, 60)


def host_of(jobs: JobQueue, warm: str | None) -> JobHost:
    """Return what executes the jobs of the long notebook, and begins fast."""
    return JobHost(jobs, {"long"}, executor=LocalExecutor(warm))


def test_one_is_taken_at_a_time_in_the_order_in_which_they_came(jobs: JobQueue) -> None:
    for name in "abc":
        jobs.add(name, "n")
    first = jobs.take({"n"})
    assert first is not None
    assert (first.id, first.state, first.tries) == ("a", "running", 1)
    assert jobs.take({"n"}) is None
    jobs.put_back(first)
    again = jobs.take({"n"})
    assert again is not None
    assert (again.id, again.tries) == ("a", 2)
    assert [jobs.place(jobs.find(name)) for name in "abc"] == [None, 1, 2]
    jobs.settle(again, "done")
    assert [job.id for job in jobs.jobs(last=2)] == ["c", "b"]


def test_many_at_once_keep_the_bound(jobs: JobQueue) -> None:
    others = [JobQueue.of("digits") for _ in range(3)]
    with ThreadPoolExecutor(8) as pool:
        asked = pool.map(lambda n: [jobs, *others][n % 4].add(str(n), "n"), range(3 * MAX_JOBS))
    assert sum(asked) == jobs.waiting() == MAX_JOBS
    for other in others:
        other.close()


def test_a_job_is_taken_by_one_of_many(jobs: JobQueue) -> None:
    jobs.add("a", "n")
    with ThreadPoolExecutor(8) as pool, closing(JobQueue.of("digits")) as other:
        taken = list(pool.map(lambda n: [jobs, other][n % 2].take({"n"}), range(20)))
    assert sum(job is not None for job in taken) == 1


def test_a_job_whose_notebook_is_listed_no_more_never_begins(jobs: JobQueue) -> None:
    jobs.add("a", "other")
    jobs.add("b", "n")
    taken = jobs.take({"n"})
    assert taken is not None
    assert taken.id == "b"
    assert jobs.find("a").state == "cancelled"
    assert jobs.find("a").error == "its notebook is not listed any more"


def test_the_oldest_that_are_over_are_forgotten(
    jobs: JobQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.runs.jobs._KEPT", 2)
    for name in "abcd":
        jobs.add(name, "n")
        jobs.cancel(name)
    jobs.add("e", "n")
    assert [job.id for job in jobs.jobs(last=9)] == ["e", "d", "c"]
    with pytest.raises(UnknownNameError, match="unknown job 'a': "):
        jobs.find("a")


@pytest.mark.parametrize("first", ["jobs", "ledger"])
def test_they_share_the_file_with_the_rest_of_the_ledger(jobs: JobQueue, first: str) -> None:
    with closing(Ledger.of("digits")) as ledger:
        if first == "ledger":
            ledger.order({"do": "load"})
        jobs.add("a", "n")
        if first == "jobs":
            ledger.order({"do": "load"})
        assert jobs.find("a").notebook == "n"
        assert [what for _, what in ledger.orders(0)] == [{"do": "load"}]


BRIEF = """\
import sys
from workbench.registry.ledgers import Ledger
ledger = Ledger.of("digits")
if sys.argv[1] == "order":
    ledger.order({})
print(len(ledger.orders(0)))
ledger.close()
"""


def in_passing(what: str) -> str:
    """Return what a process that opens the ledger and is gone again has seen in it."""
    return subprocess.check_output([sys.executable, "-c", BRIEF, what], text=True)


def test_opening_them_takes_no_lock_from_the_rest_of_the_process(jobs: JobQueue) -> None:
    with closing(Ledger.of("digits")) as ledger:
        ledger.order({})
        assert jobs.waiting() == 0
        assert in_passing("order") == "2\n"
        ledger.order({})  # into a log that the other one would have removed, had it been the last
        assert in_passing("look") == "3\n"


def test_a_file_of_a_newer_format_and_one_that_is_none_are_left_alone(tmp_path: Path) -> None:
    with closing(sqlite3.connect(tmp_path / "newer.db")) as newer:
        newer.execute("PRAGMA user_version = 99")
    (tmp_path / "none.db").write_bytes(b"no ledger" * 999)
    for name, reason in (("newer.db", "has format 99"), ("none.db", "or no ledger of a service")):
        with (
            closing(JobQueue(tmp_path / name)) as queue,
            pytest.raises(TamperedError, match=reason),
        ):
            queue.waiting()


def test_what_supervises_loads_no_torch() -> None:
    code = "import sys, workbench.supervision.jobhost as j; print('torch' in sys.modules)"
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "False\n"


def test_a_run_outlives_a_host_that_is_killed_and_another_waits_for_it(
    jobs: JobQueue, notebook: Path, warm: str | None
) -> None:
    first, second = add(jobs, notebook), add(jobs, notebook)
    begun = notebook.parent / "begun.txt"
    with subprocess.Popen([sys.executable, "-c", HOST]) as killed:
        assert waits(begun.exists, 60)
        killed.kill()
    with working(host_of(jobs, warm)):
        assert [job.id for job in jobs.running()] == [first.id]
        (notebook.parent / "go.txt").touch()
        assert stands(jobs, second, "done")
    assert jobs.find(first.id).state == "done"
    assert Run.read(first.folder).record["attempts"] == []
    assert begun.read_text() == "xx"  # one a job: nothing was done twice


def test_a_host_that_is_killed_before_its_run_begins_leaves_it_to_the_next(
    jobs: JobQueue, notebook: Path, warm: str | None
) -> None:
    first, second = add(jobs, notebook), add(jobs, notebook)
    (notebook.parent / "go.txt").touch()
    with subprocess.Popen([sys.executable, "-c", HOST]) as killed:
        assert waits(lambda: bool(jobs.running()))
        killed.kill()
    with working(host_of(jobs, warm)):
        assert stands(jobs, second, "done")
    assert jobs.find(first.id).state == "done"
    assert (notebook.parent / "begun.txt").read_text() == "xx"


def test_a_run_of_a_killed_host_is_cancelled_by_the_next(
    jobs: JobQueue, notebook: Path, warm: str | None
) -> None:
    job = add(jobs, notebook)
    with subprocess.Popen([sys.executable, "-c", HOST]) as killed:
        assert waits((notebook.parent / "begun.txt").exists, 60)
        killed.kill()
    jobs.cancel(job.id)
    with working(host_of(jobs, warm)):
        assert stands(jobs, job, "cancelled")
    assert Run.read(job.folder).state == "interrupted"


def test_a_run_that_is_killed_is_resumed_once(
    jobs: JobQueue, notebook: Path, warm: str | None
) -> None:
    job, begun = add(jobs, notebook), notebook.parent / "begun.txt"
    with working(host_of(jobs, warm)):
        for _ in range(2):
            assert waits(begun.exists, 60)
            begun.unlink()
            kill(Run.read(job.folder))
        assert stands(jobs, job, "killed")
    assert len(Run.read(job.folder).record["attempts"]) == 1


def kill(run: Run) -> None:
    """Kill the process of a run, and its kernel, before they can say anything."""
    process = psutil.Process(run.record["pid"])
    for one in [process, *process.children(recursive=True)]:
        one.kill()


def test_a_host_that_closes_interrupts_and_the_next_goes_on(
    jobs: JobQueue, notebook: Path, warm: str | None
) -> None:
    job = add(jobs, notebook)
    with working(host_of(jobs, warm)):
        assert waits((notebook.parent / "begun.txt").exists, 60)
    assert Run.read(job.folder).state == "interrupted"
    assert (jobs.find(job.id).state, jobs.find(job.id).tries) == ("queued", 0)
    (notebook.parent / "go.txt").touch()
    with working(host_of(jobs, warm)):
        assert stands(jobs, job, "done")
    assert len(Run.read(job.folder).record["attempts"]) == 1


def test_a_run_that_cannot_begin_says_why(jobs: JobQueue, tmp_path: Path, warm: str | None) -> None:
    path = long_notebook(tmp_path / "deeper")
    gone, homeless = add(jobs, path), add(jobs, path)
    shutil.rmtree(gone.folder)
    shutil.rmtree(path.parent)
    with working(host_of(jobs, warm)):
        assert stands(jobs, homeless, "failed")
    assert jobs.find(gone.id).error == "the record of its run is gone or damaged"
    assert "which is gone: put the folder back" in (jobs.find(homeless.id).error or "")
    assert jobs.find(homeless.id).tries == 2


TOLD = {"state": "running", "place": None, "attempts": 0, "cell": None, "cancelling": False}


def written(folder: Path, *cells: tuple[str, str], metrics: str = "") -> None:
    """Write what a run leaves: the state of each cell, what it has printed, and metrics."""
    record = {"cells": [{"index": n, "state": state} for n, (state, _) in enumerate(cells)]}
    texts = [[{"output_type": "stream", "name": "stdout", "text": text}] for _, text in cells]
    folder.mkdir(exist_ok=True)
    (folder / "run.json").write_text(json.dumps(record))
    (folder / "notebook.ipynb").write_text(json.dumps({"cells": [{"outputs": t} for t in texts]}))
    (folder / "metrics.jsonl").write_text(metrics)


def heard(folder: Path, since: Moment, **changes: Any) -> tuple[list[Any], Moment]:
    """Return the data of what is new, states by their name, and the moment after it."""
    events, after = news({**TOLD, **changes}, folder, since)
    assert Moment.parse(str(after)) == after
    return [e.data["state"] if e.name == "state" else e.data for e in events], after


def test_a_line_is_told_when_it_is_whole_and_once(tmp_path: Path) -> None:
    written(tmp_path, ("done", "a"), ("running", "b\nhal"), ("pending", ""))
    told, after = heard(tmp_path, Moment())
    assert told == ["running", {"cell": 1, "text": "a"}, {"cell": 2, "text": "b\n"}]
    assert heard(tmp_path, after) == ([], after)
    written(tmp_path, ("done", "a"), ("done", "b\nhalf"), ("running", "c\n"))
    told, after = heard(tmp_path, after)
    assert told == [{"cell": 2, "text": "half"}, {"cell": 3, "text": "c\n"}]
    written(tmp_path, ("done", "a"), ("done", "b\nhalf"), ("running", "c\nd"))
    told, after = heard(tmp_path, after, state="killed")
    assert told == [{"cell": 3, "text": "d"}]
    assert heard(tmp_path, after, state="killed")[0] == ["killed"]  # at last, when all is told


def test_a_cell_that_clears_what_it_printed_is_told_anew(tmp_path: Path) -> None:
    written(tmp_path, ("running", "10 % is done\n"))
    _, after = heard(tmp_path, Moment())
    written(tmp_path, ("running", "20 %\n"))
    assert heard(tmp_path, after)[0] == [{"cell": 1, "text": "20 %\n"}]


def test_a_flood_is_told_in_parts(tmp_path: Path) -> None:
    text = "".join(f"{n}\n" for n in range(50_000))
    written(tmp_path, ("running", text), ("pending", ""))
    parts, after = heard(tmp_path, Moment())
    while True:
        told, after = heard(tmp_path, after)
        if not told:
            break
        parts += told
    assert "".join(part["text"] for part in parts[1:]) == text
    assert max(len(part["text"]) for part in parts[1:]) == 2**16


def test_metrics_are_told_once_without_what_is_carried_or_torn(tmp_path: Path) -> None:
    lines = [{"name": "loss", "value": n, "step": n} for n in range(3)]
    carried = json.dumps({**lines[0], "carried": True}) + "\n"
    whole = "".join(json.dumps(line) + "\n" for line in lines[:2])
    written(tmp_path, metrics=carried + whole + '{"name": "lo')
    told, after = heard(tmp_path, Moment())
    assert told == ["running", *lines[:2]]
    written(tmp_path, metrics=carried + whole + '{"name": "lo\n' + json.dumps(lines[2]) + "\n")
    assert heard(tmp_path, after)[0] == [lines[2]]


def test_another_attempt_is_told_from_its_beginning(tmp_path: Path) -> None:
    written(tmp_path, ("running", "a\nb\n"), metrics='{"name": "n", "value": 1}\n')
    _, after = heard(tmp_path, Moment())
    written(tmp_path, ("running", "a\nb\nc\n"), metrics='{"name": "n", "value": 2}\n')
    told, _ = heard(tmp_path, after, attempts=1)
    again = [{"name": "n", "value": 2}, {"cell": 1, "text": "a\nb\nc\n"}]
    assert told == ["running", *again]


def test_a_job_whose_run_is_removed_has_nothing_more_to_tell(tmp_path: Path) -> None:
    assert heard(tmp_path / "gone", Moment(), state="done")[0] == ["done"]
