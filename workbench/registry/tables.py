"""The file of a ledger: its tables, how it is opened, and its troubles in our own words."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from workbench.errors import ServiceError, TamperedError

__all__ = ["connect", "told"]

_SECONDS = 5.0  # that a process waits for another to end its transaction
_FORMAT = 1
_TABLES = """
CREATE TABLE answers (number INTEGER PRIMARY KEY, id TEXT NOT NULL UNIQUE, at REAL NOT NULL,
    version TEXT NOT NULL, weights TEXT, rows INTEGER NOT NULL, said TEXT, seconds REAL NOT NULL,
    shadow TEXT, shadow_said TEXT, drawn INTEGER NOT NULL);
CREATE TABLE feedback (number INTEGER PRIMARY KEY, answer INTEGER NOT NULL UNIQUE, at REAL NOT NULL,
    version TEXT NOT NULL, part TEXT, labels TEXT NOT NULL, known INTEGER NOT NULL,
    hits INTEGER, off REAL, off_squared REAL);
CREATE INDEX feedback_of ON feedback (version, number);
CREATE TABLE looking (version TEXT PRIMARY KEY, first REAL NOT NULL, rows INTEGER NOT NULL,
    counts TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE windows (number INTEGER PRIMARY KEY, version TEXT NOT NULL, content TEXT NOT NULL);
CREATE INDEX windows_of ON windows (version, number);
CREATE TABLE orders (number INTEGER PRIMARY KEY AUTOINCREMENT, content TEXT NOT NULL,
    answers INTEGER NOT NULL);
CREATE TABLE lives (number INTEGER PRIMARY KEY, at REAL NOT NULL, workers INTEGER NOT NULL);
CREATE TABLE workers (number INTEGER PRIMARY KEY, pid INTEGER NOT NULL UNIQUE, at REAL NOT NULL,
    snapshot TEXT NOT NULL, proven INTEGER NOT NULL, applied INTEGER NOT NULL);
"""


def connect(path: Path) -> sqlite3.Connection:
    """Return a connection to the ledger, which is made where there is none."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{path}.lock", timeout=_SECONDS):  # two that change to WAL at once would clash
        # Answers are as private as tokens. A file that is there must not be opened and closed here:
        # that would drop the locks that SQLite holds on it in this process.
        with contextlib.suppress(FileExistsError):
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
def told(path: Path) -> Iterator[None]:
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
