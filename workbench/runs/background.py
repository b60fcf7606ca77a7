"""Work on runs in the background, each in a process of its own that outlives whoever asked for it.

At most `AT_ONCE` go at once in a home, whoever asks: the others wait, in the order in which they
came. A ticket, which is a file in the home, counts as long as the process that it names lives.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import psutil
from filelock import FileLock

from workbench.errors import RequestError, RunInterruptedError, WorkbenchError
from workbench.home import home, read_json, write_json
from workbench.runs.execution import point_latest, secrets_of, work
from workbench.runs.jobs import withdraw
from workbench.runs.queueing import queue
from workbench.runs.records import Run
from workbench.runs.sweeping import go_on
from workbench.runs.sweeps import Sweep
from workbench.runs.verification import verify

__all__ = ["AT_ONCE", "Kind", "Task", "execute_later", "start", "stop", "tasks"]

AT_ONCE = 2  # a long one, and a short one beside it; each run has as many threads as it would alone
_LOOK_EVERY = 0.1  # seconds
_SAME = 5.0  # seconds that the start of a process may be told apart, as its clock is set

Kind = Literal["run", "sweep", "verify"]


@dataclass(frozen=True)
class Task:
    """What a process in the background does, or waits to do.

    Args:
        kind: `"run"` executes a run, or goes on with it; `"sweep"` and `"verify"` are as named.
        folder: of the run or the sweep.
        asked: its place in the order in which they came.
        pid: of the process.
        born: when that was started, in seconds since 1970.
        waits: whether it has not begun.
    """

    kind: Kind
    folder: Path
    asked: int
    pid: int
    born: float
    waits: bool = True

    @property
    def log(self) -> Path:
        """What its process has said."""
        return _log(self.kind, self.folder)

    @property
    def _ticket(self) -> Path:
        return _tickets() / f"{self.asked}-{self.pid}.json"

    def _write(self) -> None:
        write_json(self._ticket, {**asdict(self), "folder": str(self.folder)})

    def _lives(self) -> bool:
        try:
            process = psutil.Process(self.pid)
            is_same = abs(process.create_time() - self.born) < _SAME
            return is_same and process.status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False


def start(kind: Kind, folder: Path, *, variables: Mapping[str, str] | None = None) -> None:
    """Let a run or a sweep be worked on in the background, when it is its turn.

    Args:
        kind: what is to be done.
        folder: of the run or the sweep, which is there.
        variables: of its environment, over this process's.

    Raises:
        RequestError: the same is going on already, or waits.
    """
    if any((task.kind, task.folder) == (kind, folder) for task in tasks()):
        raise RequestError(f"{kind} of {folder.name} is going on already: wait until it has ended")
    left = {k: v for k, v in os.environ.items() if k not in ("JPY_SESSION_NAME", "WORKBENCH_RUN")}
    fixed = {"WORKBENCH_HEADLESS": "1", "WORKBENCH_HOME": str(home())}
    asked = time.time_ns()
    with _log(kind, folder).open("ab" if kind == "run" else "wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "workbench.runs.background", kind, str(folder), str(asked)],
            env={**left, **fixed, **(variables or {})},
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,  # whatever ends a kernel ends none of these
        )
    threading.Thread(target=process.wait, daemon=True).start()  # or it would stay as a zombie
    _enter(kind, folder, asked, process.pid)


def execute_later(notebook: str | Path, parameters: Mapping[str, Any]) -> Run:
    """Execute a notebook as `execute` does, in the background, and return the run that waits.

    Args:
        notebook: its path; it is only read.
        parameters: by the names that the cell tagged `parameters` assigns.

    Raises:
        RequestError: the notebook or a parameter cannot be used; nothing was started.
    """
    waits = queue(notebook, parameters)
    point_latest(waits.folder)
    start("run", waits.folder, variables=secrets_of(waits, parameters))
    return waits


def tasks() -> list[Task]:
    """Return what goes on in the background and what waits, in the order in which they came."""
    found = []
    for ticket in _tickets().glob("*.json"):
        with contextlib.suppress(OSError, ValueError):  # it is over in this very moment
            task = Task(**{**(told := read_json(ticket)), "folder": Path(told["folder"])})
            if task._lives():
                found.append(task)
            else:
                ticket.unlink(missing_ok=True)
    return sorted(found, key=lambda task: task.asked)


def stop(task: Task) -> None:
    """End a task, keeping what it has; what waits is withdrawn.

    Args:
        task: as `tasks` returned it.
    """
    with contextlib.suppress(psutil.NoSuchProcess):
        if task._lives():
            psutil.Process(task.pid).terminate()
    if task.kind == "run":
        withdraw(task.folder)  # where its process was too young to do so


def _main() -> int:
    """Wait for the turn of this process, do what it was started for, and return its exit code."""
    kind, folder, asked = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    try:
        task = _enter(kind, folder, asked, os.getpid())  # type: ignore[arg-type]
        while not _is_begun(task):
            time.sleep(_LOOK_EVERY)
        _work(task)
        code = 0
    except WorkbenchError as error:
        print(f"error: {error}", file=sys.stderr)
        code = error.exit_code
    except KeyboardInterrupt:
        code = RunInterruptedError.exit_code
    if kind == "run" and code == RunInterruptedError.exit_code:
        withdraw(folder)  # where that was before it began
    (_tickets() / f"{asked}-{os.getpid()}.json").unlink(missing_ok=True)
    return code


def _work(task: Task) -> None:
    """Do it here and now."""
    if task.kind == "run":
        work(task.folder)
    elif task.kind == "sweep":
        go_on(Sweep.read(task.folder))
    else:
        print(verify(Run.read(task.folder)))


def _enter(kind: Kind, folder: Path, asked: int, pid: int) -> Task:
    """Put a process into the queue, unless it is there already, and return its task."""
    task = Task(kind, folder, asked, pid, psutil.Process(pid).create_time())
    with _lock():
        if not task._ticket.exists():
            task._write()
    return task


def _is_begun(task: Task) -> bool:
    """Return whether it is the turn of a task that waits, which begins with that."""
    with _lock():
        all_of_them = tasks()
        going = sum(not other.waits for other in all_of_them)
        first = next((other for other in all_of_them if other.waits), None)
        if going >= AT_ONCE or first is None or first.asked != task.asked:
            return False
        Task(**{**vars(task), "waits": False})._write()
        return True


def _tickets() -> Path:
    return home() / "tasks"


def _lock() -> FileLock:
    folder = home() / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    return FileLock(folder / "tasks.lock")


def _log(kind: Kind, folder: Path) -> Path:
    return folder / f"{kind}.log"


if __name__ == "__main__":
    sys.exit(_main())
