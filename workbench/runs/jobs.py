"""The jobs of a service: runs asked for over the wire, in a queue that outlives every process.

They are a table of the service's ledger, the one SQLite file that its processes share. Every change
is one transaction, so two processes that ask at once keep the bound, and no job begins twice. What
a run did is in its own folder; here is only whose turn it is.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workbench import journal
from workbench.errors import RequestError, UnknownNameError
from workbench.home import home, read_json, write_json
from workbench.registry.tables import LedgerFile
from workbench.runs.notebooks import read_notebook
from workbench.runs.parameters import declared
from workbench.runs.records import run_lock

__all__ = ["MAX_JOBS", "OVER", "Job", "JobQueue", "JobState", "listed_notebooks", "withdraw"]

MAX_JOBS = 16  # that may wait
_KEPT = 1000  # jobs that are over; the oldest are forgotten first, their runs are not

JobState = Literal[
    "queued", "running", "done", "failed", "interrupted", "killed", "timed out", "cancelled"
]
OVER: tuple[JobState, ...] = (
    *("done", "failed", "interrupted", "killed", "timed out"),
    "cancelled",
)

_COLUMNS = "number, id, notebook, state, tries, is_cancelled, error"


@dataclass(frozen=True, slots=True)
class Job:
    """One run that was asked for.

    Args:
        number: its place in the order in which they came.
        id: of its run too.
        notebook: the name that it is listed by.
        state: that of its run when that is over, or cancelled.
        tries: how often it was begun.
        is_cancelled: whether somebody has asked for its end.
        error: why it is over, where its run does not say.
    """

    number: int
    id: str
    notebook: str
    state: JobState
    tries: int
    is_cancelled: bool
    error: str | None

    @property
    def folder(self) -> Path:
        """The folder of its run."""
        return home() / "runs" / self.id


class JobQueue:
    """The jobs of one service, whichever process and thread asks.

    Every method raises what a `LedgerFile` does, and then nothing has changed.

    Args:
        path: of the service's ledger.
    """

    def __init__(self, path: Path) -> None:
        self._ledger = LedgerFile(path)

    @classmethod
    def of(cls, service: str) -> JobQueue:
        """Return the jobs of a service of this home, by its name."""
        return cls(home() / "services" / f"{service}.db")

    def add(self, identity: str, notebook: str) -> bool:
        """Let a run wait for its turn; return whether there was room.

        Args:
            identity: of the run, whose folder is there.
            notebook: the name that it is listed by.
        """
        with self._ledger.transaction() as sql:
            if _waiting(sql) >= MAX_JOBS:
                return False
            sql.execute("INSERT INTO jobs (id, notebook) VALUES (?, ?)", (identity, notebook))
            sql.execute(
                "DELETE FROM jobs WHERE number IN (SELECT number FROM jobs WHERE state NOT IN "
                "('queued', 'running') ORDER BY number DESC LIMIT -1 OFFSET ?)",
                (_KEPT,),
            )
        return True

    def take(self, listed: Collection[str]) -> Job | None:
        """Return the next job, which runs from now on; None where none waits, or one still runs.

        Args:
            listed: names of notebooks; a job of another one is cancelled rather than begun.
        """
        marks = ", ".join("?" * len(listed))
        with self._ledger.transaction() as sql:
            sql.execute(
                "UPDATE jobs SET state = 'cancelled', error = 'its notebook is not listed any more'"
                f" WHERE state = 'queued' AND notebook NOT IN ({marks})",
                tuple(listed),
            )
            rows = sql.execute(
                "UPDATE jobs SET state = 'running', tries = tries + 1 WHERE number = (SELECT "
                "min(number) FROM jobs WHERE state = 'queued') AND NOT EXISTS (SELECT 1 FROM jobs "
                f"WHERE state = 'running') RETURNING {_COLUMNS}"
            ).fetchall()
        return _job(rows[0]) if rows else None

    def cancel(self, identity: str) -> Job:
        """Return a job, over now if it waited; if it runs, whoever executes it is to end it.

        Raises:
            UnknownNameError: there is none.
        """
        with self._ledger.transaction() as sql:
            sql.execute(
                "UPDATE jobs SET is_cancelled = 1, state = CASE state WHEN 'queued' THEN "
                "'cancelled' ELSE state END WHERE id = ? AND state IN ('queued', 'running')",
                (identity,),
            )
        return self.find(identity)

    def settle(self, job: Job, state: JobState, error: str | None = None) -> None:
        """Let a job that runs be over.

        Args:
            job: that was taken.
            state: how it ended.
            error: why, where its run does not say.
        """
        self._set(job, "state = ?, error = ?", state, error)

    def put_back(self, job: Job, *, counted: bool = True) -> None:
        """Let a job that runs wait again, before all others.

        Args:
            job: that was taken.
            counted: whether this counts as a try.
        """
        self._set(job, "state = 'queued', tries = ?", job.tries - (not counted))

    def running(self) -> list[Job]:
        """Return what was taken and is not over, by whichever process."""
        return self._read("WHERE state = 'running' ORDER BY number")

    def waiting(self) -> int:
        """Return how many wait."""
        with self._ledger.using() as sql:
            return _waiting(sql)

    def jobs(self, last: int) -> list[Job]:
        """Return the last ones, the newest first."""
        return self._read("ORDER BY number DESC LIMIT ?", last)

    def find(self, identity: str) -> Job:
        """Return a job.

        Raises:
            UnknownNameError: there is none.
        """
        found = self._read("WHERE id = ?", identity)
        if not found:
            raise UnknownNameError("job", identity[:80], [job.id for job in self.jobs(last=_KEPT)])
        return found[0]

    def place(self, job: Job) -> int | None:
        """Return which one of those that wait a job is, from 1 on; None if it does not wait."""
        if job.state != "queued":
            return None
        before = "SELECT count(*) FROM jobs WHERE state = 'queued' AND number < ?"
        with self._ledger.using() as sql:
            return 1 + int(sql.execute(before, (job.number,)).fetchone()[0])

    def close(self) -> None:
        """Let go of the file."""
        self._ledger.close()

    def _set(self, job: Job, what: str, *values: object) -> None:
        with self._ledger.transaction() as sql:
            sql.execute(
                f"UPDATE jobs SET {what} WHERE id = ? AND state = 'running'", (*values, job.id)
            )

    def _read(self, which: str, *values: object) -> list[Job]:
        with self._ledger.using() as sql:
            rows = sql.execute(f"SELECT {_COLUMNS} FROM jobs {which}", values).fetchall()
        return [_job(row) for row in rows]


def listed_notebooks(paths: Iterable[str | Path]) -> dict[str, Path]:
    """Return notebooks by the names that they are asked for by: those of their files.

    Args:
        paths: of .ipynb files.

    Raises:
        RequestError: one is missing, is no notebook, or its parameters cannot be read; or two have
            the same name.
    """
    found: dict[str, Path] = {}
    for given in paths:
        path = Path(given).expanduser().absolute()
        declared(read_notebook(path))
        if found.setdefault(path.stem, path) != path:
            raise RequestError(
                f"{found[path.stem]} and {path} are both asked for as {path.stem!r}: rename one"
            )
    return found


def withdraw(folder: Path) -> None:
    """Say in the record of a run that has not begun that it was interrupted, since it is cancelled.

    Args:
        folder: of the run; nothing happens where it is gone or has begun.
    """
    with contextlib.suppress(OSError, ValueError), run_lock(folder):
        record = read_json(folder / "run.json")
        if record["state"] == "queued":
            told = {"name": "Cancelled", "value": "cancelled while it waited", "traceback": ""}
            record.update(state="interrupted", ended=journal.now(), error=told)
            write_json(folder / "run.json", record)
            (folder / ".lock").unlink(missing_ok=True)  # while it is held, as a run does


def _waiting(sql: sqlite3.Connection) -> int:
    return int(sql.execute("SELECT count(*) FROM jobs WHERE state = 'queued'").fetchone()[0])


def _job(row: Iterable[Any]) -> Job:
    number, identity, notebook, state, tries, is_cancelled, error = row
    return Job(number, identity, notebook, state, tries, bool(is_cancelled), error)
