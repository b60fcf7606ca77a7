"""The file of a ledger: its tables, how it is opened, and its troubles in our own words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from threading import RLock
from typing import Any

from filelock import FileLock, Timeout

from workbench.errors import ServiceError, TamperedError
from workbench.types import JSON

__all__ = ["LedgerFile", "life_of"]

_SECONDS = 5.0  # that a process waits for another to end its transaction
_FORMAT = 1
_TABLES = """
CREATE TABLE answers (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at REAL NOT NULL,
    version TEXT NOT NULL, weights TEXT, rows INTEGER NOT NULL, said TEXT, seconds REAL NOT NULL,
    shadow TEXT, shadow_said TEXT, drawn INTEGER NOT NULL, labelled INTEGER NOT NULL DEFAULT 0);
CREATE INDEX unlabelled ON answers (number) WHERE labelled = 0;
CREATE TABLE feedback (number INTEGER PRIMARY KEY AUTOINCREMENT, answer INTEGER NOT NULL UNIQUE,
    at REAL NOT NULL, version TEXT NOT NULL, part TEXT, labels TEXT NOT NULL,
    known INTEGER NOT NULL, hits INTEGER, off REAL, off_squared REAL);
CREATE INDEX feedback_of ON feedback (version, number);
CREATE INDEX scores_of ON feedback (version, part, known, hits, off, off_squared, answer);
CREATE TABLE looking (version TEXT PRIMARY KEY, first REAL NOT NULL, rows INTEGER NOT NULL,
    counts TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE windows (number INTEGER PRIMARY KEY, version TEXT NOT NULL, content TEXT NOT NULL);
CREATE INDEX windows_of ON windows (version, number);
CREATE TABLE orders (number INTEGER PRIMARY KEY AUTOINCREMENT, content TEXT NOT NULL,
    answers INTEGER NOT NULL, feedback INTEGER NOT NULL);
CREATE TABLE lives (number INTEGER PRIMARY KEY, at REAL NOT NULL, workers INTEGER NOT NULL,
    answers INTEGER NOT NULL);
CREATE TABLE workers (number INTEGER PRIMARY KEY, pid INTEGER NOT NULL, began REAL NOT NULL,
    at REAL NOT NULL, snapshot TEXT NOT NULL, proven INTEGER NOT NULL, applied INTEGER NOT NULL,
    UNIQUE (pid, began));
CREATE TABLE jobs (number INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE,
    notebook TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'queued', tries INTEGER NOT NULL DEFAULT 0,
    is_cancelled INTEGER NOT NULL DEFAULT 0, error TEXT);
"""


class LedgerFile:
    """The file of a ledger, for all threads of a process; made at first use.

    Every method raises a `ServiceError` where the file cannot be written or read just now (a full
    disk, another process that holds it), and then nothing of that call is in it; a `TamperedError`
    where it is no ledger, or one of a newer workbench. Where it was moved away, another one begins.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.life: int | None = None  # that of the service when this process came to the file
        self._lock = RLock()  # held for the whole of a transaction
        self._open: sqlite3.Connection | None = None
        self._found: tuple[int, int] | None = None  # which file it is that was opened

    @contextlib.contextmanager
    def using(self) -> Iterator[sqlite3.Connection]:
        """Give the connection to nobody else meanwhile."""
        with self._lock:
            if self._open is not None and self._open.in_transaction:
                yield self._open  # a part of that one, which tells what goes wrong
                return
            try:
                with _told(self.path):
                    yield self._connection()
            except TamperedError:
                self.close()
                self._found = None  # what lies there next may look the same
                raise

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for one transaction, which is kept whole or not at all.

        Within another one of the same thread, it is a part of that one.
        """
        with self.using() as db:
            if db.in_transaction:
                yield db
                return
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            finally:
                if db.in_transaction:
                    with contextlib.suppress(sqlite3.Error):
                        db.execute("ROLLBACK")

    def rows(self, query: str, *values: Any) -> list[JSON]:
        """Return the rows that a query finds, each by the names of its columns."""
        with self.using() as db:
            return [dict(row) for row in db.execute(query, values)]

    def close(self) -> None:
        """Let go of the file; another call opens it again."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    def _connection(self) -> sqlite3.Connection:
        if self._open is not None and _which(self.path) != self._found:
            self.close()
        if self._open is None:
            self._open = _connect(self.path)
            found = _which(self.path)
            if found != self._found:
                self._found, self.life = found, life_of(self._open)
        return self._open


def life_of(db: sqlite3.Connection) -> int | None:
    """Return the number of the life that the service is in; None before its first one."""
    life: int | None = db.execute("SELECT max(number) FROM lives").fetchone()[0]
    return life


def _which(path: Path) -> tuple[int, int] | None:
    """Return which file lies there, if one does."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return found.st_dev, found.st_ino


def _connect(path: Path) -> sqlite3.Connection:
    """Return a connection to the ledger, which is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=_SECONDS):  # two that change to WAL at once would clash
        # Answers are as private as tokens. A file that is there must not be opened and closed here:
        # that would drop the locks that SQLite holds on it in this process.
        if not path.exists():
            for end in ("-wal", "-shm"):  # of one that was moved away without them
                path.with_name(path.name + end).unlink(missing_ok=True)
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        db = sqlite3.connect(path, _SECONDS, isolation_level=None, check_same_thread=False)
        try:
            db.row_factory = sqlite3.Row
            db.execute("PRAGMA journal_mode = WAL")
            db.execute("PRAGMA synchronous = NORMAL")
            db.execute(f"PRAGMA journal_size_limit = {2**26}")
            _prepare(db, path)
        except BaseException:
            db.close()
            raise
    return db


@contextlib.contextmanager
def _told(path: Path) -> Iterator[None]:
    """Raise what SQLite or the disk raise within as errors of the workbench."""
    try:
        yield
    except (sqlite3.OperationalError, OSError, Timeout) as error:
        raise ServiceError(f"{path} cannot be written or read just now: {error}") from error
    except sqlite3.IntegrityError:
        raise
    except sqlite3.DatabaseError as error:
        raise TamperedError(
            f"{path} is damaged, or no ledger of a service: {error}: move it away, and the service "
            "begins another one"
        ) from error


def _prepare(db: sqlite3.Connection, path: Path) -> None:
    """Make the tables of a new file; refuse one that another workbench wrote."""
    found = db.execute("PRAGMA user_version").fetchone()[0]
    if found > _FORMAT:
        raise TamperedError(
            f"{path} has format {found}, this workbench reads up to {_FORMAT}: upgrade with "
            "pip install --upgrade maas-workbench"
        )
    if found < _FORMAT:
        db.executescript(f"BEGIN IMMEDIATE; {_TABLES} PRAGMA user_version = {_FORMAT}; COMMIT;")
