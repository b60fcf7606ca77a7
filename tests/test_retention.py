"""What is removed, what never is, and what a kill in the middle leaves."""

from __future__ import annotations

import errno
import os
import pty
import shutil
import signal
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
import typer
from filelock import FileLock
from typer.testing import CliRunner

from workbench.cli import storage
from workbench.errors import RequestError, TamperedError, UnknownNameError
from workbench.home import home, write_json
from workbench.runs import list_runs
from workbench.runs.records import run_lock
from workbench.runs.retention import discard, gc, named, remove
from workbench.training.trainings import RECORD

A, B, C = "20260101-000000-a-0001", "20260102-000000-a-0002", "20260103-000000-b-0003"
COMMANDS = typer.Typer()
storage.register(COMMANDS)


def write(name: str = A, *, folder: Path | None = None, days: float = 0, **changes: Any) -> Path:
    """Write the folder of a run that began that many days ago, of the notebook in its id."""
    folder = folder or home() / "runs" / name
    record = {
        **{"format": 1, "id": name, "state": "done", "notebook": {"path": f"/x/{name[16]}.ipynb"}},
        **{"started": str(datetime.now(UTC) - timedelta(days)), "seconds": 1.5, "parameters": {}},
        **{"metrics": {}, "published": [], "datasets": []},
        **changes,
    }
    write_json(folder / "run.json", record)
    (folder / "notebook.ipynb").write_text("x" * 1000)
    return folder


def write_training(name: str, *, within: Path | None = None) -> Path:
    folder = (within or home()) / "trainings" / name
    write_json(folder / RECORD, {"format": 1, "state": "done"})
    return folder


def write_sweep(name: str, *runs: str) -> Path:
    write_json(home() / "sweeps" / name / "sweep.json", {"runs": runs})
    return home() / "sweeps" / name


def left() -> list[str]:
    """Return what lies in the folders of runs, sweeps and trainings."""
    return sorted(path.name for kind in ("runs", "sweeps", "trainings") for path in _in(kind))


def _in(kind: str) -> list[Path]:
    return [path for path in (home() / kind).glob("*") if path.name != ".index.json"]


# rm


@pytest.mark.parametrize("what", [A, A[:-1], "20260101", "last", "{folder}", "{folder}/", "{link}"])
def test_a_run_is_removed_by_any_of_its_names(what: str, tmp_path: Path) -> None:
    folder = write(A)
    if what != "last":
        write(B, days=1)
    (tmp_path / "link").symlink_to(folder)
    given = what.format(folder=folder, link=tmp_path / "link")
    assert remove([given]) == [folder]
    assert left() == ([] if what == "last" else [B])


def test_a_run_in_a_folder_of_its_own_is_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(folder=tmp_path / "out" / "x")
    monkeypatch.chdir(tmp_path / "out")
    assert remove(["x"]) == [tmp_path / "out" / "x"]
    assert list((tmp_path / "out").iterdir()) == []


def test_a_training_and_a_sweep_go_and_a_sweep_takes_its_runs(tmp_path: Path) -> None:
    for name in (A, B, C):
        write(name)
    training = write_training("night")
    sweep = write_sweep("grid", A, C, "20250101-000000-a-gone", "..", "../../victim")
    (tmp_path / "victim").mkdir()
    write(folder=tmp_path / "victim")
    removals = named(["grid", A, "night"])
    assert [removal.kind for removal in removals] == ["sweep", "run", "run", "training"]
    assert left() == [A, B, C, "grid", "night"]
    assert remove(["grid", A, "night"]) == [
        *(sweep, home() / "runs" / A, home() / "runs" / C, training),
    ]
    assert left() == [B]
    assert (tmp_path / "victim" / "run.json").exists()


def test_what_goes_says_how_large_it_is_and_that_versions_stay() -> None:
    write(A, published=["m@1", "m@2"])
    (home() / "runs" / B).mkdir()
    (home() / "runs" / B / "run.json").write_text("{")
    first, second = named([A, B])
    assert first.size == sum(f.stat().st_size for f in (home() / "runs" / A).iterdir())
    assert first.note == "its model versions stay: m@1, m@2"
    assert (second.size, second.note) == (1, "its record cannot be read")
    remove([A, B])
    assert left() == []


def test_a_name_that_means_nothing_or_too_much_is_refused() -> None:
    for name in (A, B):
        write(name)
    write_training("night")
    with pytest.raises(UnknownNameError, match="run, sweep or training 'nigth': did you mean nigh"):
        remove([A, "nigth"])
    with pytest.raises(UnknownNameError, match="'nig': did you mean night"):
        remove(["nig"])
    with pytest.raises(RequestError, match=f"'2026' is not one thing but 2: run {A}, run {B}; say"):
        remove(["2026"])
    write_sweep("night")
    with pytest.raises(RequestError, match="'night' is not one thing but 2: sweep night, training"):
        remove(["night"])
    with pytest.raises(RequestError, match=r"no run in '.*/runs': expected the folder of one, whi"):
        remove([A, str(home() / "runs")])
    for name in ("", ".", "..", ".trash-x"):
        with pytest.raises(UnknownNameError):
            remove([name])
    assert left() == [A, B, "night", "night"]


def test_nothing_but_a_run_is_removed_by_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "project"
    write_json(other / "run.json", {"name": "of another tool"})
    with pytest.raises(TamperedError, match=r"project/run.json is of format None, this workbench"):
        remove([str(other)])
    write(folder=tmp_path)
    with pytest.raises(RequestError, match=r"run folder '.*' holds .*home too: remove it by hand"):
        remove([str(tmp_path)])
    write(folder=other)
    monkeypatch.chdir(other)
    with pytest.raises(RequestError, match=r"project' holds .*/project too: remove it by hand"):
        remove([str(other)])
    assert (other / "notebook.ipynb").exists()


def test_what_a_link_in_the_home_leads_to_stays(tmp_path: Path) -> None:
    write(folder=tmp_path / "elsewhere")
    (home() / "runs").mkdir(parents=True)
    (home() / "runs" / A).symlink_to(tmp_path / "elsewhere")
    remove([A])
    assert left() == []
    assert (tmp_path / "elsewhere" / "notebook.ipynb").exists()


def test_nothing_goes_while_one_of_them_is_running() -> None:
    running, training = write(B, state="running"), write_training("night")
    write(A)
    with run_lock(running), pytest.raises(RequestError, match=f"run '{B}' is running: wait until"):
        remove([A, B])
    with FileLock(training / ".lock"), pytest.raises(RequestError, match="training 'night' is run"):
        remove([A, "night"])
    inner = write_training("inner", within=running)
    with FileLock(inner / ".lock"), pytest.raises(RequestError, match=f"run '{B}' is running"):
        remove([A, B])
    write_sweep("grid", A, B)
    with run_lock(running), pytest.raises(RequestError, match=f"run '{B}' is running"):
        remove(["grid"])
    assert left() == [A, B, "grid", "night"]
    remove(["grid", "night"])
    assert left() == []


def test_a_damaged_sweep_is_named() -> None:
    write_sweep("grid")
    (home() / "sweeps" / "grid" / "sweep.json").write_text("[]")
    with pytest.raises(TamperedError, match=r"sweep.json does not say which runs are its own: Ty"):
        remove(["grid"])


def test_what_cannot_be_moved_or_deleted_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(*_: object) -> None:
        raise OSError(errno.EBUSY, "Device or resource busy")

    write(A)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", busy)
        with pytest.raises(RequestError, match=f"run '.*{A}' cannot be removed: Device or resour"):
            remove([A])
    assert left() == [A]
    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        with pytest.raises(RequestError, match=r"is still in .*/runs/\.trash-.*then run workbench"):
            remove([A])
    assert len(list_runs()) == 0


def test_what_another_process_removes_meanwhile_is_gone_too() -> None:
    write(A)
    removals = named([A])
    remove([A])
    assert discard(removals) == [home() / "runs" / A]
    assert left() == []


KILLED = """
import os, signal, sys
from workbench.runs.retention import remove
place, _, name = sys.argv[1].rpartition(".")
setattr(sys.modules[place], name, lambda *_, **__: os.kill(os.getpid(), signal.SIGKILL))
remove(sys.argv[2:])
"""


@pytest.mark.parametrize(("at", "gone"), [("os.rename", False), ("shutil.rmtree", True)])
def test_a_kill_leaves_a_whole_run_or_a_leftover_that_gc_sweeps(at: str, gone: bool) -> None:
    write(A)
    write_training("night")
    code = "import shutil\n" + KILLED
    killed = subprocess.run([sys.executable, "-c", code, at, A, "night"], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert [run.id for run in list_runs()] == ([] if gone else [A])
    trainings = list((home() / "trainings").glob(f"*/{RECORD}"))  # as they are listed
    assert len(trainings) == (0 if gone else 1)
    assert gone or {f.name for f in (home() / "runs" / A).iterdir()} >= {"notebook.ipynb"}
    trash = [path for kind in ("runs", "trainings") for path in _in(kind) if path.name[0] == "."]
    assert len(trash) == (2 if gone else 1)
    for path in trash:
        os.utime(path, (0, 0))  # an empty one may have an owner for an hour
    assert set(gc(keep_last=9).leftovers) == set(trash)
    assert left() == ([] if gone else [A, "night"])


def test_latest_leads_to_the_newest_run_that_is_left() -> None:
    for name, days in ((A, 3), (B, 2), (C, 1)):
        write(name, days=days)
    latest = home() / "latest"
    latest.symlink_to(home() / "runs" / C)
    remove([A])
    assert latest.resolve().name == C
    remove(["last"])
    assert latest.resolve().name == B
    remove([str(latest)])
    assert not latest.is_symlink()


# gc


@pytest.fixture
def month() -> None:
    """Write five runs of one notebook and one of another; the newest first good one is `0`."""
    for days in (1, 10, 20, 30, 40):
        write(f"20260101-00000{days // 10}-a-{days:04}", days=days)
    write(C, days=50)


def gone(**rules: Any) -> list[str]:
    return [removal.folder.name[-4:] for removal in gc(**rules).runs]


@pytest.mark.usefixtures("month")
@pytest.mark.parametrize(
    ("rules", "expected"),
    [
        ({"keep_days": 25}, ["0030", "0040"]),
        ({"keep_days": 100}, []),
        ({"keep_last": 2}, ["0020", "0030", "0040"]),
        ({"keep_last": 3, "keep_days": 35}, ["0040"]),
        ({"keep_last": 4, "keep_days": 5}, ["0040"]),
        ({"keep_last": 0}, ["0010", "0020", "0030", "0040"]),  # the last good ones stay
        ({"keep_days": 0.5}, ["0010", "0020", "0030", "0040"]),
    ],
)
def test_a_run_goes_if_no_rule_keeps_it(rules: dict[str, Any], expected: list[str]) -> None:
    would = gc(**rules, dry_run=True)
    assert len(list_runs()) == 6
    assert [removal.folder.name[-4:] for removal in would.runs] == expected
    assert would.size == sum(removal.size for removal in would.runs) >= 1000 * len(expected)
    assert gone(**rules) == expected
    assert len(list_runs()) == 6 - len(expected)
    assert gone(**rules) == []


def test_what_is_needed_is_never_removed() -> None:
    write(A, days=9, state="queued")
    running = write(B, days=9, state="running")
    (write(C, days=9, state="failed") / "keep").touch()
    publisher = write("20260101-000000-p-0001", days=9, state="failed", published=["m@1", "m@2"])
    write("20260101-000000-a-0009", days=8)
    write("20260101-000000-a-0010", days=7, requirements=[{"text": "x>=1", "holds": False}])
    write_json(home() / "models" / "m" / "2" / "version.json", {})
    with run_lock(running):
        found, more = gc(keep_last=0), gc(keep_last=0, with_published=True)
    assert [removal.folder.name for removal in found.runs] == ["20260101-000000-a-0010"]
    assert found.kept == {
        C: "it has a file called keep",
        publisher.name: "it published m@2",
        "20260101-000000-a-0009": "it is the last good run of its notebook",
    }
    assert [removal.folder for removal in more.runs] == [publisher]
    assert (home() / "models" / "m" / "2" / "version.json").exists()


@pytest.fixture
def swept() -> list[str]:
    """Write a sweep of three old runs, and a newer run of their notebook; return the ids."""
    ids = [f"20260101-000000-s-000{n}" for n in (1, 2, 3)]
    for n, name in enumerate(ids):
        write(name, days=9, sweep={"id": "grid", "point": n})
    write("20260105-000000-s-0009")
    write_sweep("grid", *ids)
    return ids


def test_a_sweep_goes_with_all_its_runs(swept: list[str]) -> None:
    (home() / "sweeps" / "grid" / ".lock").touch()
    would, found = gc(keep_days=5, dry_run=True), gc(keep_days=5)
    assert would == found
    assert {removal.folder.name for removal in found.runs} == set(swept)
    assert [(removal.kind, removal.folder.name) for removal in found.sweeps] == [("sweep", "grid")]
    assert found.size == sum(removal.size for removal in (*found.runs, *found.sweeps))
    assert left() == ["20260105-000000-s-0009"]


def test_no_run_of_a_sweep_goes_while_it_is_going_on(swept: list[str]) -> None:
    with FileLock(home() / "sweeps" / "grid" / ".lock"):
        would, found = gc(keep_days=5, dry_run=True), gc(keep_days=5)
    assert would == found
    assert (found.runs, found.sweeps) == ((), ())
    assert found.kept == dict.fromkeys(swept, "it belongs to sweep grid, which is going on")
    assert {*swept, "grid"} < set(left())


@pytest.mark.parametrize(
    "changes", [{"days": 1}, {"state": "queued"}, {"published": ["m@1"]}, {"keep": True}]
)
def test_a_sweep_stays_whole_for_one_of_its_runs(swept: list[str], changes: dict[str, Any]) -> None:
    keep = changes.pop("keep", False)
    folder = write(swept[0], sweep={"id": "grid", "point": 0}, **{"days": 9, **changes})
    if keep:
        (folder / "keep").touch()
    write_json(home() / "models" / "m" / "1" / "version.json", {})
    found = gc(keep_days=5)
    assert (found.runs, found.sweeps) == ((), ())
    why = "it belongs to sweep grid, of which not all would go"
    assert {name: found.kept[name] for name in swept[1:]} == dict.fromkeys(swept[1:], why)
    assert found.kept.get(swept[0]) != why
    assert {*swept, "grid"} < set(left())


def test_a_sweep_stays_whole_if_one_of_its_runs_is_taken_up_again(swept: list[str]) -> None:
    with run_lock(home() / "runs" / swept[0]):
        found = gc(keep_days=5)
    assert (found.runs, found.sweeps) == ((), ())
    assert all(f"run '{swept[0]}' is running" in found.kept[name] for name in swept)
    assert {*swept, "grid"} < set(left())


def test_what_went_of_a_sweep_is_told_though_the_rest_could_not(
    swept: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    rename = os.rename

    def stuck(what: Path, to: Path) -> None:
        if what.name == swept[0]:  # the oldest is the last to go
            raise OSError(errno.EBUSY, "Device or resource busy")
        rename(what, to)

    monkeypatch.setattr(os, "rename", stuck)
    found = gc(keep_days=5)
    assert {removal.folder.name for removal in found.runs} == set(swept[1:])
    assert [removal.folder.name for removal in found.sweeps] == ["grid"]
    assert list(found.kept) == swept[:1]
    assert "cannot be removed: Device or resource busy" in found.kept[swept[0]]


def test_what_nights_are_compared_with_stays() -> None:
    met, missed = ([{"text": "x>=1", "holds": holds}] for holds in (True, False))
    write("20260101-000000-a-0001", days=9, parameters={"n": 1}, requirements=met)
    write("20260101-000000-a-0002", days=8, parameters={"n": 1}, requirements=met)
    write("20260101-000000-a-0003", days=7, parameters={"n": 1}, requirements=missed)
    write("20260101-000000-a-0004", days=6, parameters={"n": 2})
    write("20260101-000000-a-0005", days=5, parameters={"n": 3})
    found = gc(keep_last=0)
    assert [removal.folder.name[-4:] for removal in found.runs] == ["0004", "0003", "0001"]
    assert {name[-4:]: why for name, why in found.kept.items()} == {
        "0002": "it is the last good run with its parameters",
        "0005": "it is the last good run of its notebook",
    }


def test_a_run_whose_version_is_gone_goes_too() -> None:
    write(A, state="failed", published=["m@1", "strange"])
    assert gone(keep_last=0) == ["0001"]


def test_a_moment_that_cannot_be_read_is_never_old() -> None:
    write(A, state="failed", started="yesterday")
    write(B, state="failed", started="2020-01-01T00:00:00")
    assert gone(keep_days=1) == []


def test_a_run_that_is_taken_up_again_meanwhile_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write(A, state="failed")
    with run_lock(folder):
        found = gc(keep_last=0)
    assert (found.runs, left()) == ((), [A])
    assert found.kept[A].startswith(f"run '{A}' is running: wait until it has ended")


def test_leftovers_are_swept_and_what_is_in_use_is_not() -> None:
    folder, training = write(A), write_training("night")
    (home() / "runs" / ".trash-old" / B).mkdir(parents=True)
    (home() / "runs" / ".trash-old" / B / "run.json").write_text("{}")
    (home() / "sweeps" / ".trash-new").mkdir(parents=True)
    for name in (".run.json.abc", ".notebook.ipynb.abc", ".run.json.new", "mine"):
        (folder / name).write_text("half")
        if not name.endswith("new"):
            os.utime(folder / name, (0, time.time() - 4000))
    (home() / "locks").mkdir()
    (home() / "locks" / "night.lock").touch()
    (training / ".lock").touch()
    with run_lock(folder):
        would, found = gc(keep_last=1, dry_run=True), gc(keep_last=1)
    names = {".trash-old", ".run.json.abc", ".notebook.ipynb.abc", "night.lock", ".lock"}
    assert {path.name for path in found.leftovers} == names
    assert folder / ".lock" not in found.leftovers
    assert would == found
    assert found.size == 2 + 4 + 4
    assert {path.name for path in folder.iterdir()} == {
        *(".lock", ".run.json.new", "mine", "notebook.ipynb", "run.json")
    }
    assert left() == [".trash-new", A, "night"]
    assert {path.name for path in training.iterdir()} == {RECORD}


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ({}, "gc has no rule of what to keep: pass keep_days, keep_last or both, as in workbench"),
        ({"keep_days": -1}, "keep_days is -1, expected a number from 0"),
        ({"keep_last": -1}, "keep_last is -1, expected a number from 0"),
        ({"keep_days": float("nan")}, "keep_days is nan, expected a number from 0"),
    ],
)
def test_rules_that_are_none_are_refused(rules: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        gc(**rules)
    assert not home().exists()


# the commands


def test_rm_without_a_terminal_needs_a_yes() -> None:
    folder = write(A, published=["m@1"])
    said = CliRunner().invoke(COMMANDS, ["rm", A])
    assert str(said.exception) == (
        "rm asks before it removes anything, and there is no terminal to ask at: pass --yes"
    )
    assert isinstance(said.exception, RequestError)
    assert left() == [A]
    said = CliRunner().invoke(COMMANDS, ["rm", A, "--yes"])
    assert (said.exit_code, said.stdout) == (0, f"{folder}\n")
    assert said.stderr == f"run  {folder}  0.0 MB  its model versions stay: m@1\n"
    assert left() == []


@pytest.mark.parametrize("answer", ["y", "n", ""])
def test_rm_asks_at_a_terminal(answer: str) -> None:
    write(A)
    code = (
        "import sys, typer; from workbench.cli import storage\n"
        "app = typer.Typer(); storage.register(app); sys.argv[1:] = ['rm', 'last']; app()"
    )
    ours, theirs = pty.openpty()
    os.write(ours, f"{answer}\n".encode())
    done = subprocess.run(
        [sys.executable, "-c", code], stdin=theirs, capture_output=True, text=True, check=False
    )
    for end in (ours, theirs):
        os.close(end)
    assert "Remove this for good, 0.0 MB? [y/N]:" in done.stderr
    assert (done.returncode, left()) == ((0, []) if answer == "y" else (1, [A]))


def test_gc_says_what_it_did() -> None:
    old = write(A, days=9)
    write(B, days=8)
    (write(C, days=9) / "keep").touch()
    said = CliRunner().invoke(COMMANDS, ["gc", "--keep-days", "7", "--dry-run"])
    assert said.stdout == f"{old}\n"
    assert said.stderr.splitlines() == [
        f"kept {B}: it is the last good run of its notebook",
        f"kept {C}: it has a file called keep",
        "would remove: runs 1, sweeps 0, leftovers 0, 0.0 MB",
    ]
    said = CliRunner().invoke(COMMANDS, ["gc", "--keep-days", "7", "--keep-last", "1"])
    assert said.stderr.endswith("removed: runs 1, sweeps 0, leftovers 0, 0.0 MB\n")
    assert left() == [B, C]
    assert isinstance(CliRunner().invoke(COMMANDS, ["gc"]).exception, RequestError)
