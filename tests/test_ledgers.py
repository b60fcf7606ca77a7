"""What the processes of a service share: whole transactions, whatever goes wrong, and bounded."""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from scipy import stats

from workbench.errors import RequestError, ServiceError, TamperedError, UnknownNameError
from workbench.registry import Histogram, Reference, ledgers
from workbench.registry.drifts import WINDOW
from workbench.registry.ledgers import MAX_SAID, Answered, Ledger, Looked, Shadowed

EVEN = Histogram((0.0, 1.0, 2.0), (0.0, 0.5, 0.5, 0.0))
REFERENCE = Reference(2000, {"age": EVEN}, {}, {"no": 0.5, "yes": 0.5})

WRITER = """
import sys
from pathlib import Path
from workbench.registry.ledgers import Answered, Ledger
path, name, times = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
ledger = Ledger(path)
for i in range(times):
    ledger.write([Answered(f"{name}-{i}-{j}", 0.0, "1", None, 1, ["a"], 0.1) for j in range(10)])
    print(i, flush=True)
"""


@pytest.fixture
def ledger(tmp_path: Path) -> Any:
    found = Ledger(tmp_path / "services" / "net.db")
    yield found
    found.close()


def answered(id: str, said: Any = ("cat",), version: str = "1", **more: Any) -> Answered:
    return Answered(id, 5.0, version, None, len(said) if said else 1, said, 0.01, **more)


def writing(ledger: Ledger, name: str, times: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WRITER, str(ledger.path), name, str(times)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def ids(ledger: Ledger) -> list[str]:
    return [answer["id"] for answer in ledger.answers(last=10**6)]


def is_whole(ledger: Ledger) -> bool:
    return ledger.rows("PRAGMA integrity_check") == [{"integrity_check": "ok"}]


def test_answers_come_back_newest_first(ledger: Ledger) -> None:
    one = answered("a", ("cat", "dog"))
    live = Answered("b", 4.0, "0", "f00", 3, (0.5, 1.0, float("nan")), 0.02, drawn=True)
    ledger.write([one, live])
    ledger.write([answered("c", None)], shadows=[Shadowed("a", "2", ("cat", "cat"))])
    found = ledger.answers()
    assert [answer["id"] for answer in found] == ["c", "b", "a"]
    assert found[2] == {
        **{"id": "a", "at": 5.0, "version": "1", "weights": None, "rows": 2, "seconds": 0.01},
        **{"said": ["cat", "dog"], "shadow": "2", "shadow_said": ["cat", "cat"]},
        **{"drawn": False, "feedback": None},
    }
    assert (found[1]["said"], found[1]["weights"]) == ([0.5, 1.0, None], "f00")
    assert (found[1]["drawn"], found[0]["said"]) == (True, None)
    assert [answer["id"] for answer in ledger.answers(last=1, version="1")] == ["c"]


def test_a_list_of_large_answers_ends_before_it_is_large(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_MAX_LISTED", 100_000)
    ledger.write([answered(str(i), ["a long word indeed"] * 1000) for i in range(20)])
    found = [answer["id"] for answer in ledger.answers(last=20)]
    assert found == ["19", "18", "17", "16"]
    monkeypatch.setattr(ledgers, "_MAX_LISTED", 10)
    assert [answer["id"] for answer in ledger.answers(last=20)] == ["19"]


def test_the_file_is_as_private_as_a_token(ledger: Ledger) -> None:
    ledger.write([answered("a")])
    files = [file for file in ledger.path.parent.iterdir() if ".db" in file.name]
    assert len(files) == 4  # with the write-ahead log, its index and the lock
    assert {file.stat().st_mode & 0o077 for file in files if file.suffix != ".lock"} == {0}


def test_only_the_first_rows_of_a_large_answer_are_kept(ledger: Ledger) -> None:
    ledger.write([answered("a", ["cat"] * 1500)])
    assert len(ledger.answers()[0]["said"]) == MAX_SAID
    assert ledger.feedback("a", ["cat"] * 900 + ["dog"] * 600) == MAX_SAID
    assert ledger.accuracy("1")["accuracy"] == 0.9


def test_an_answer_that_is_told_twice_is_there_once(ledger: Ledger) -> None:
    ledger.write([answered("a"), answered("a", ("dog",)), answered("b")])
    assert [(a["id"], a["said"]) for a in ledger.answers()] == [("b", ["cat"]), ("a", ["cat"])]


def test_feedback_is_beside_its_answer(ledger: Ledger) -> None:
    ledger.write([answered("a", ("cat", "dog")), answered("b", (1.5,))])
    assert ledger.feedback("a", ["cat", "cat"], "night") == 2
    assert ledger.feedback("b", 2) == 1
    b, a = (answer["feedback"] for answer in ledger.answers())
    assert (a["labels"], a["group"]) == (["cat", "cat"], "night")
    assert (b["labels"], b["group"]) == ([2.0], None)
    assert abs(a["at"] - time.time()) < 60


@pytest.mark.parametrize(
    ("id", "labels", "said"),
    [
        ("nobody", "cat", "unknown answer 'nobody': expected the X-Request-Id of one of the last"),
        ("cat", ["cat", "dog"], "2 labels for an answer of 1 rows, expected one for each row"),
        ("cat", 3, "the label 3 is not a text like 'cat', as the answer was"),
        ("cat", None, "the label None is not a text like 'cat'"),
        ("value", "cat", "the label 'cat' is not a finite number, as the answer was"),
        ("value", True, "the label True is not a finite number"),
        ("value", float("nan"), "the label nan is not a finite number"),
        ("value", 10**400, "is not a finite number"),
        ("neither", "cat", "no label can be held against it"),
        ("known", "dog", "answer 'known' has feedback already, and the first one stays"),
    ],
)
def test_feedback_that_cannot_be_is_refused(
    ledger: Ledger, id: str, labels: Any, said: str
) -> None:
    ledger.write([answered("cat"), answered("value", (1.5,)), answered("neither", None)])
    ledger.write([answered("known")])
    ledger.feedback("known", "cat")
    with pytest.raises(RequestError, match=said) as caught:
        ledger.feedback(id, labels)
    assert isinstance(caught.value, UnknownNameError) == (id == "nobody")
    assert [a["feedback"] for a in ledger.answers(last=4)[1:]] == [None] * 3
    assert ledger.accuracy("1")["labels"] == 1


def test_live_accuracy_has_an_interval_whole_and_by_group(ledger: Ledger) -> None:
    ledger.write([answered(str(i)) for i in range(40)])
    ledger.write([answered("other", version="2")])
    for i in range(40):
        ledger.feedback(str(i), "dog" if i % 4 == 0 else "cat", ["day", "night", None][i % 3])
    found = ledger.accuracy("1")
    low, high = stats.binomtest(30, 40).proportion_ci(0.95, method="wilson")
    assert (found["labels"], found["accuracy"]) == (40, 0.75)
    assert found["interval"] == pytest.approx([low, high])
    assert {name: group["labels"] for name, group in found["groups"].items()} == {
        "day": 14,
        "night": 13,
    }
    assert found["groups"]["day"]["accuracy"] == 10 / 14
    assert ledger.accuracy("2") == {"version": "2", "labels": 0, "groups": {}}


def test_groups_of_labels_are_few(ledger: Ledger) -> None:
    ledger.write([answered(str(i)) for i in range(110)])
    ledger.write([answered("other", version="2")])
    for i in range(100):
        ledger.feedback(str(i), "cat", f"group {i % 100}")
    with pytest.raises(RequestError, match=r"group 'one more' would be one more than the 100 that"):
        ledger.feedback("100", "cat", "one more")
    ledger.feedback("100", "cat", "group 7")
    ledger.feedback("101", "cat")
    ledger.feedback("other", "cat", "one more")
    found = ledger.accuracy("1")
    assert (found["labels"], len(found["groups"])) == (102, 100)
    assert found["groups"]["group 7"]["labels"] == 2


def test_accuracy_without_its_groups_is_the_same(ledger: Ledger) -> None:
    ledger.write([answered(str(i)) for i in range(9)])
    for i in range(9):
        ledger.feedback(str(i), "dog" if i % 4 == 0 else "cat", [None, "day", "night"][i % 3])
    whole = ledger.accuracy("1")
    assert len(whole.pop("groups")) == 2
    assert ledger.accuracy("1", groups=False) == whole
    assert ledger.accuracy("2", groups=False) == {"version": "2", "labels": 0}


def test_of_a_live_model_the_answers_of_this_life_count(ledger: Ledger) -> None:
    for life in range(2):
        ledger.begin(1)
        ledger.write([answered(f"{life}-{i}", version=str(i % 2)) for i in range(4)])
        for i in range(4):
            ledger.feedback(f"{life}-{i}", "dog" if life == 0 else "cat")
    assert (ledger.accuracy("0")["labels"], ledger.accuracy("0")["accuracy"]) == (2, 1.0)
    assert (ledger.accuracy("1")["labels"], ledger.accuracy("1")["accuracy"]) == (4, 0.5)


def test_values_have_a_mean_absolute_error(ledger: Ledger) -> None:
    said = [0.5, 3.0, 9.0, 2.5, 1e3]
    ledger.write([answered(str(i), (value,)) for i, value in enumerate(said)])
    ledger.write([answered("none", (float("nan"),))])
    for i in range(5):
        ledger.feedback(str(i), 2 * i)
    ledger.feedback("none", 1)
    off = [abs(value - 2 * i) for i, value in enumerate(said)]
    expected = stats.t.interval(0.95, 4, loc=sum(off) / 5, scale=stats.sem(off))
    found = ledger.accuracy("1")
    assert (found["labels"], found["error"]) == (5, pytest.approx(sum(off) / 5))
    assert found["interval"] == pytest.approx([0.0, expected[1]])


def test_labels_without_end_leave_a_figure_and_no_interval(ledger: Ledger) -> None:
    ledger.write([answered("a", (1.0,)), answered("b", (1.0,))])
    assert ledger.feedback("a", 1e300) + ledger.feedback("b", -1e300) == 2
    found = ledger.accuracy("1")
    assert (found["error"], found["interval"]) == (pytest.approx(1e300), None)


def test_a_challenge_is_compared_on_what_it_was_asked_since(ledger: Ledger) -> None:
    ledger.write([answered("old")], shadows=[Shadowed("old", "2", ("dog",))])
    since = ledger.order({"do": "challenge"})
    ledger.write([answered("a", ("cat", "dog")), answered("b"), answered("c"), answered("d")])
    beside = [("a", "2", ("cat", "cat")), ("b", "3", ("dog",)), ("d", "2", ("dog",))]
    ledger.write([], shadows=[Shadowed(*one) for one in beside])
    for id, labels in (("d", "dog"), ("old", "dog"), ("c", "cat"), ("b", "cat")):
        ledger.feedback(id, labels)
    ledger.feedback("a", ["cat", "cat"])
    found = ledger.comparison("1", "2", since=since, mode="shadow", labels=10)
    assert (found.kind, found.mode) == ("accuracy", "shadow")
    assert (found.champion, found.challenger) == ((0, 1, 0), (1, 1, 1))  # as the labels came
    few = ledger.comparison("1", "2", since=since, mode="shadow", labels=2)
    assert (few.champion, few.challenger) == ((0, 1), (1, 1))
    assert len(ledger.comparison("1", "2", since=0, mode="shadow", labels=10).champion) == 4


@pytest.mark.parametrize("mode", ["shadow", "split"])
def test_no_more_is_read_than_decides(ledger: Ledger, mode: str) -> None:
    ledger.write([answered("before", ("cat",), drawn=True)])
    ledger.feedback("before", "cat")
    since = ledger.order({"do": "challenge"})
    rows = [answered(f"{v}-{i}", ["cat"] * 3, v, drawn=True) for i in range(4) for v in "12"]
    ledger.write(rows, shadows=[Shadowed(f"1-{i}", "2", ["cat"] * 3) for i in range(4)])
    for row in rows:
        ledger.feedback(row.id, ["cat"] * 3)
    with ledger.transaction() as db:  # whoever reads this is told so
        db.execute("UPDATE feedback SET labels = 'x' WHERE answer IN (1, 6, 7, 8, 9)")
    found = ledger.comparison("1", "2", since=since, mode=mode, labels=6)
    assert found.champion == found.challenger == (1,) * 6


def test_split_traffic_is_compared_on_what_was_drawn(ledger: Ledger) -> None:
    ledger.write([answered("named", (9.0,)), answered("a", (1.0,), drawn=True)])
    ledger.write([answered("b", (2.0,), "2", drawn=True), answered("c", (3.0,), "2", drawn=True)])
    for id in "abc":
        ledger.feedback(id, 1)
    ledger.feedback("named", 1)
    found = ledger.comparison("1", "2", since=0, mode="split", labels=10)
    assert (found.kind, found.champion, found.challenger) == ("error", (0,), (1, 2))
    assert ledger.comparison("1", "2", since=0, mode="split", labels=1).challenger == (1,)
    nothing = ledger.comparison("7", "8", since=0, mode="split", labels=1)
    assert (nothing.champion, nothing.challenger) == ((), ())


def looked(rows: int, *, first: int, version: str = "1") -> Looked:
    counts = [0, first, rows - first, 0]
    return Looked(version, rows, {"input age": counts, "class": [rows, 0]})


def test_a_window_is_closed_when_it_is_full(ledger: Ledger) -> None:
    half, known = WINDOW // 2, REFERENCE
    assert ledger.write([], [looked(half, first=10)], reference=lambda _: known) == []
    assert ledger.write([], [looked(half, first=10, version="2")], reference=lambda _: known) == []
    [window] = ledger.write([], [looked(half + 7, first=10)], reference=lambda _: known)
    assert ledger.windows() == [window] == ledger.windows(version="1")
    assert ledger.windows(version="2") == []
    assert (window["version"], window["rows"]) == ("1", WINDOW + 7)
    assert [figure["figure"] for figure in window["figures"]] == ["input age", "class"]
    assert window["alarm"] == ["input age", "class"]
    assert window["figures"][0]["ks"] == pytest.approx(0.5 - 20 / (WINDOW + 7))
    ledger.write([], [looked(WINDOW, first=half)], reference=lambda _: known)  # begins at nothing
    assert [len(window["alarm"]) for window in ledger.windows()] == [1, 2]


def test_rows_by_other_bins_begin_another_window(ledger: Ledger) -> None:
    ledger.write([], [Looked("1", WINDOW - 1, {"input age": [0, WINDOW - 1, 0]})])
    assert ledger.write([], [looked(2, first=1)], reference=lambda version: REFERENCE) == []
    [window] = ledger.write([], [looked(WINDOW, first=1)], reference=lambda version: REFERENCE)
    assert window["rows"] == WINDOW + 2


def test_orders_are_read_in_turn_and_end_with_a_life(ledger: Ledger) -> None:
    ledger.begin(1)
    numbers = [ledger.order({"do": "load", "ref": ref}) for ref in ("net@1", "net@2")]
    assert ledger.orders(0) == [
        (numbers[0], {"do": "load", "ref": "net@1"}),
        (numbers[1], {"do": "load", "ref": "net@2"}),
    ]
    assert ledger.orders(numbers[0]) == [(numbers[1], {"do": "load", "ref": "net@2"})]
    ledger.begin(1)
    assert ledger.orders(0) == []
    assert ledger.order({"do": "unload"}) > numbers[1]  # so nobody takes it for an older one


def test_workers_report_until_another_life_begins(ledger: Ledger) -> None:
    ledger.begin(2)
    assert ledger.unproven() == 2
    worker = Ledger(ledger.path)
    worker.report(11, 5.0, snapshot={"n": 1}, proven=False, applied=0)
    worker.report(12, 5.0, snapshot={}, proven=True, applied=4)
    worker.report(11, 5.0, snapshot={"n": 2}, proven=True, applied=5)
    first, second = ledger.workers()
    assert (first["pid"], first["snapshot"], first["proven"], first["applied"]) == (
        *(11, {"n": 2}),
        *(True, 5),
    )
    assert (second["pid"], ledger.unproven()) == (12, 0)
    ledger.begin(1)
    worker.report(11, 5.0, snapshot={}, proven=True, applied=5)  # it still drains
    assert (ledger.workers(), ledger.unproven()) == ([], 1)
    worker.close()


def test_workers_of_one_pid_are_told_apart(ledger: Ledger) -> None:
    ledger.begin(1)
    ledger.report(11, 5.0, snapshot={"n": 1}, proven=True, applied=0)
    ledger.report(11, 7.5, snapshot={"n": 2}, proven=True, applied=0)
    ledger.report(11, 7.5, snapshot={"n": 3}, proven=True, applied=0)
    told = [
        (worker["pid"], worker["began"], worker["snapshot"]["n"]) for worker in ledger.workers()
    ]
    assert told == [(11, 5.0, 1), (11, 7.5, 3)]


def test_answers_outlive_the_life_of_a_service(ledger: Ledger) -> None:
    ledger.write([answered("a")], [looked(9, first=1, version="0"), looked(9, first=1)])
    ledger.feedback("a", "cat")
    ledger.begin(1)
    assert (ids(ledger), ledger.accuracy("1")["labels"]) == (["a"], 1)
    kept = ledger.rows("SELECT version FROM looking")
    assert kept == [{"version": "1"}]  # what is live now is another model


def test_a_transaction_is_kept_whole_or_not_at_all(ledger: Ledger) -> None:
    with contextlib.suppress(KeyError), ledger.transaction():
        ledger.write([answered("a")])
        ledger.order({})
        raise KeyError
    assert (ids(ledger), ledger.orders(0)) == ([], [])
    with ledger.transaction():
        ledger.write([answered("b")])
        ledger.order({})
    assert (ids(ledger), len(ledger.orders(0))) == (["b"], 1)


def test_threads_may_all_use_it(ledger: Ledger) -> None:
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda i: ledger.write([answered(str(i))]), range(100)))
        known = sum(pool.map(lambda i: ledger.feedback(str(i), "cat"), range(100)))
    assert (known, sorted(ids(ledger), key=int)) == (100, [str(i) for i in range(100)])


def test_two_processes_write_at_once(ledger: Ledger) -> None:
    both = [writing(ledger, name, 100) for name in "xy"]
    assert [process.communicate()[0].split()[-1] for process in both] == ["99", "99"]
    assert [process.returncode for process in both] == [0, 0]
    expected = {f"{name}-{i}-{j}" for name in "xy" for i in range(100) for j in range(10)}
    found = ids(ledger)
    assert (set(found), len(found)) == (expected, len(expected))
    own = [[int(id.split("-")[1]) for id in found if id[0] == name] for name in "xy"]
    assert own == [sorted(order, reverse=True) for order in own]


def test_a_killed_process_leaves_whole_transactions(ledger: Ledger) -> None:
    process = writing(ledger, "x", 10**6)
    assert process.stdout is not None
    for _ in range(40):
        done = int(process.stdout.readline())
    process.kill()
    said = [int(line) for line in process.stdout.read().split()]
    process.wait()
    process.stdout.close()
    found = ids(ledger)
    last = max(int(id.split("-")[1]) for id in found)
    assert last >= (said[-1] if said else done)  # nothing that it knew to be written is lost
    assert len(found) == 10 * (last + 1)
    assert is_whole(ledger)
    ledger.write([answered("after")])
    assert ids(ledger)[0] == "after"


def test_a_full_disk_loses_one_write_and_no_more(ledger: Ledger) -> None:
    ledger.write([answered("a")])
    pages = ledger.rows("PRAGMA page_count")[0]["page_count"]
    ledger.rows(f"PRAGMA max_page_count = {pages + 4}")
    with pytest.raises(ServiceError, match=r"net\.db cannot be written .*disk is full"):
        ledger.write([answered(str(i)) for i in range(5000)])
    assert ids(ledger) == ["a"]
    ledger.write([answered("b")])
    ledger.rows("PRAGMA max_page_count = 1000000")
    ledger.write([answered(str(i)) for i in range(5000)])
    assert (len(ids(ledger)), is_whole(ledger)) == (5002, True)


def _no_large_files() -> None:
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (300_000, 300_000))


def test_a_process_whose_files_may_not_grow_says_so(ledger: Ledger) -> None:
    ledger.write([answered("a")])
    command = [sys.executable, "-c", WRITER, str(ledger.path), "x", "5000"]
    ended = subprocess.run(
        command, preexec_fn=_no_large_files, capture_output=True, text=True, check=False
    )
    assert ended.returncode == 1
    assert "net.db cannot be written or read just now: " in ended.stderr.splitlines()[-1]
    found = ids(ledger)
    assert len(found) == 10 * len(ended.stdout.split()) + 1 > 100
    assert is_whole(ledger)


def test_where_no_file_can_be_it_is_said_each_time(tmp_path: Path) -> None:
    (tmp_path / "services").write_text("a file")
    ledger = Ledger(tmp_path / "services" / "net.db")
    for _ in range(2):
        with pytest.raises(ServiceError, match=r"net\.db cannot be written or read just now: "):
            ledger.write([answered("a")])
    (tmp_path / "services").unlink()
    ledger.write([answered("a")])
    assert ids(ledger) == ["a"]
    ledger.close()


def test_another_process_that_holds_the_file_is_waited_for_and_named(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.registry.tables._SECONDS", 0.05)
    ledger.write([answered("a")])
    other = sqlite3.connect(ledger.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(ServiceError, match="database is locked"):
        ledger.write([answered("b")])
    assert ids(ledger) == ["a"]  # reading goes on
    other.execute("COMMIT")
    other.close()
    ledger.write([answered("c")])
    assert ids(ledger) == ["c", "a"]


def test_a_file_that_is_no_ledger_is_named(tmp_path: Path) -> None:
    (tmp_path / "net.db").write_bytes(b"no database at all" * 500)
    with pytest.raises(TamperedError, match=r"net\.db is damaged, or no ledger of a service"):
        Ledger(tmp_path / "net.db").answers()
    newer = sqlite3.connect(tmp_path / "newer.db")
    newer.execute("PRAGMA user_version = 9")
    newer.close()
    with pytest.raises(TamperedError, match=r"newer\.db has format 9, this workbench reads up to"):
        Ledger(tmp_path / "newer.db").answers()


def test_where_a_damaged_file_was_moved_away_another_one_begins(ledger: Ledger) -> None:
    ledger.write([answered("a")])
    ledger.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    ledger.path.write_bytes(b"no database at all" * 5000)
    ledger.rows("PRAGMA shrink_memory")  # or it would answer from what it has read
    with pytest.raises(TamperedError, match=r"net\.db is damaged"):
        ledger.write([answered("b")])
    ledger.path.unlink()
    ledger.write([answered("c")])
    assert (ids(ledger), is_whole(ledger)) == (["c"], True)


@pytest.mark.parametrize("alone", [True, False])
def test_all_go_on_in_another_file_where_theirs_was_moved_away(ledger: Ledger, alone: bool) -> None:
    ledger.begin(2)
    worker, late = Ledger(ledger.path), Ledger(ledger.path)
    applied = [ledger.order({"do": "load", "ref": str(i)}) for i in range(3)][-1]
    worker.write([answered(f"old {i}") for i in range(100)])
    late.write([answered("older")])
    for end in ("",) if alone else ("", "-wal", "-shm"):
        os.rename(f"{ledger.path}{end}", f"{ledger.path}.old{end}")
    worker.write([answered("a")])
    worker.report(11, 5.0, snapshot={}, proven=True, applied=applied)
    ledger.write([answered("b")])
    late.close()
    assert ledger.order({"do": "load"}) > applied  # so those who carried these out hear of it
    assert [worker["pid"] for worker in ledger.workers()] == [11]
    assert (ids(late), ledger.unproven()) == (["b", "a"], 0)
    worker.close()
    late.close()
    assert (is_whole(ledger), ids(ledger)) == (True, ["b", "a"])


HOLDER = """
import sys
from pathlib import Path
from workbench.registry.ledgers import Answered, Ledger
ledger = Ledger(Path(sys.argv[1]))
for at in range(2):
    ledger.write([Answered(f"{at} {i}", 0.0, "1", None, 1, ["a"], 0.1) for i in range(500)])
    print(at, flush=True)
    sys.stdin.readline()
"""


def test_a_process_that_still_has_a_file_that_was_moved_away_does_no_harm(ledger: Ledger) -> None:
    command = [sys.executable, "-c", HOLDER, str(ledger.path)]
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
        assert other.stdout is not None
        assert other.stdin is not None
        assert other.stdout.readline() == "0\n"
        ledger.path.rename(f"{ledger.path}.old")
        ledger.write([answered(f"a {i}") for i in range(9)])
        other.stdin.write("\n")
        other.stdin.flush()
        assert other.stdout.readline() == "1\n"
        ledger.write([answered(f"b {i}") for i in range(9)])
        other.stdin.close()
    assert (len(ids(ledger)), is_whole(ledger), ids(ledger)[0]) == (518, True, "b 8")


def test_a_clock_that_jumps_back_changes_no_order(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    for moment in (2e9, 1e9, -5.0):
        monkeypatch.setattr("workbench.registry.ledgers.time.time", lambda now=moment: now)
        ledger.begin(1)
        ledger.write(
            [Answered(f"at {moment:g}", moment, "1", None, 1, ["a"], 0.1)],
            [looked(WINDOW, first=WINDOW // 2)],
            reference=lambda version: REFERENCE,
        )
        ledger.report(1, 5.0, snapshot={"at": moment}, proven=True, applied=0)
        ledger.feedback(f"at {moment:g}", "a")
    assert ids(ledger) == ["at -5", "at 1e+09", "at 2e+09"]
    assert [window["last"] for window in ledger.windows()] == [-5.0, 1e9, 2e9]
    assert (ledger.workers()[0]["snapshot"], ledger.unproven()) == ({"at": -5.0}, 0)


def test_the_oldest_answers_go_and_those_with_labels_stay(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "MAX_ANSWERS", 100)
    for i in range(30):
        ledger.write([answered(f"{i}-{j}") for j in range(10)])
        ledger.feedback(f"{i}-0", "cat")
    kept = [f"{i}-{j}" for i in range(29, 19, -1) for j in range(9, -1, -1)]
    assert ids(ledger) == kept + [f"{i}-0" for i in range(19, -1, -1)]
    assert ledger.accuracy("1")["labels"] == 30
    with pytest.raises(UnknownNameError, match="one of the last 100 answers"):
        ledger.feedback("3-1", "cat")


def test_the_first_labels_of_a_challenge_outlive_many_answers(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "MAX_ANSWERS", 100)
    since = ledger.order({"do": "challenge"})
    for i in range(40):
        many = [answered(f"{i}-{j}", drawn=True) for j in range(10)]
        ledger.write(many)
        ledger.feedback(f"{i}-5", "dog" if i == 0 else "cat")
        found = ledger.comparison("1", "2", since=since, mode="split", labels=3)
        assert found.champion == (0, 1, 1)[: i + 1]


def test_labels_are_bounded_too(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MAX_ANSWERS", 10)
    for i in range(40):
        ledger.write([answered(f"{i}")])
        ledger.feedback(f"{i}", "cat")
    ledger.write([answered("last")])
    assert ids(ledger) == ["last", *map(str, range(39, 29, -1))]
    assert ledger.accuracy("1")["labels"] == 10


def test_the_file_stays_as_small_as_it_is_told(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "MAX_BYTES", 2**20)
    for i in range(200):
        ledger.write([answered(f"{i}-{j}", ["a long word indeed"] * 50) for j in range(20)])
    ledger.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    assert ledger.path.stat().st_size < 1.5 * 2**20
    assert ids(ledger)[0] == "199-19"
    assert len(ids(ledger)) > 500


def test_a_file_of_labels_stays_as_small(ledger: Ledger, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledgers, "MAX_BYTES", 2**20)
    for i in range(300):
        ledger.write([answered(f"{i}", ["a long word indeed"] * 500)])
        ledger.feedback(f"{i}", ["a long word indeed"] * 500)
    ledger.rows("PRAGMA wal_checkpoint(TRUNCATE)")
    assert ledger.path.stat().st_size < 1.5 * 2**20
    assert 20 < ledger.accuracy("1")["labels"] // 500 == len(ids(ledger))


def test_windows_and_workers_are_bounded_too(
    ledger: Ledger, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledgers, "_MAX_WINDOWS", 5)
    monkeypatch.setattr(ledgers, "_MAX_WORKERS", 5)
    ledger.begin(1)
    for i in range(12):
        full = looked(WINDOW + i, first=1)
        ledger.write([], [full], reference=lambda version: REFERENCE)
        ledger.report(100 - i, 5.0, snapshot={}, proven=True, applied=0)
        ledger.report(100, 5.0, snapshot={}, proven=True, applied=i)
    assert [window["rows"] - WINDOW for window in ledger.windows()] == [11, 10, 9, 8, 7]
    assert [worker["pid"] for worker in ledger.workers()] == [89, 90, 91, 92, 100]


def test_json_holds_what_it_returns(ledger: Ledger) -> None:
    ledger.begin(1)
    ledger.write([answered("a")], [looked(WINDOW, first=1)], reference=lambda version: REFERENCE)
    ledger.feedback("a", "cat", "night")
    ledger.report(1, 5.0, snapshot={}, proven=True, applied=0)
    found = [ledger.answers(), ledger.windows(), ledger.accuracy("1"), ledger.workers()]
    assert json.loads(json.dumps(found, allow_nan=False)) == found


def test_it_lies_beside_the_listing_of_its_service() -> None:
    home = Path(os.environ["WORKBENCH_HOME"])
    assert Ledger.of("net").path == home / "services" / "net.db"
