"""The ledger of a service: what its processes share, and what they leave behind.

One SQLite file, `services/<name>.db`, which every process of the service writes into a few times a
second and reads whenever it is asked: who answered what and when, which labels came later, how the
rows were distributed, what the service was told to do, and how each worker fares. A transaction is
there whole or not at all, whatever process is killed. Nothing is ordered by the clock, which may
jump: times are told, numbers count.

It is bounded: the oldest answers go, with their feedback, once there are more than `MAX_ANSWERS` or
the file holds more than `MAX_BYTES`; the space is used again.
"""

from __future__ import annotations

import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from threading import RLock
from typing import TYPE_CHECKING, Any

import msgspec

from workbench.errors import RequestError, UnknownNameError
from workbench.home import home
from workbench.registry.scores import checked, figures_of, paired, scored, sided
from workbench.registry.tables import connect, told
from workbench.registry.verdicts import Scores
from workbench.types import JSON

if TYPE_CHECKING:
    from workbench.registry.references import Reference

__all__ = ["MAX_ANSWERS", "MAX_BYTES", "MAX_SAID", "Answered", "Ledger", "Looked", "Shadowed"]

MAX_SAID = 1000  # rows of one answer whose labels or values are kept
MAX_ANSWERS = 1_000_000
MAX_BYTES = 2**30
_MAX_WINDOWS = 10_000
_MAX_WORKERS = 256  # whose last counts are kept, dead ones among them


@dataclass(frozen=True, slots=True)
class Answered:
    """One answered request.

    Args:
        id: of the request, unlike any other.
        at: when, in seconds since 1970.
        version: that answered, in digits; "0" is a live model.
        weights: their hash, of a live model.
        rows: that were asked about.
        said: of each row the label, or the value; of the first `MAX_SAID`. None where a row has
            neither.
        seconds: from the request to its answer.
        drawn: whether the version was drawn, where traffic is split between two.
    """

    id: str
    at: float
    version: str
    weights: str | None
    rows: int
    said: Sequence[str] | Sequence[float] | None
    seconds: float
    drawn: bool = False


@dataclass(frozen=True, slots=True)
class Shadowed:
    """What another version said to an answered request.

    Args:
        id: of the request.
        version: in digits.
        said: as that of an `Answered`.
    """

    id: str
    version: str
    said: Sequence[str] | Sequence[float] | None


@dataclass(frozen=True, slots=True)
class Looked:
    """Rows that were looked at for drift.

    Args:
        version: that answered them.
        rows: how many.
        counts: by figure, how many of them lie in each bin, as `counts_of` returns them.
    """

    version: str
    rows: int
    counts: Mapping[str, Sequence[int]]


class Ledger:
    """What the processes of one service share and leave behind; of any thread, made at first use.

    Every method raises a `ServiceError` where the file cannot be written or read just now (a full
    disk, another process that holds it), and then nothing of that call is in it; a `TamperedError`
    where it is no ledger, or one of a newer workbench.

    Args:
        path: of the file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = RLock()  # held for the whole of a transaction
        self._open: sqlite3.Connection | None = None
        self._life: int | None = None  # that of the service when this process came to it

    @classmethod
    def of(cls, name: str) -> Ledger:
        """Return the ledger of the service of that name."""
        return cls(home() / "services" / f"{name}.db")

    @contextlib.contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Give the connection for one transaction, which is kept whole or not at all.

        Within another one of the same thread, it is a part of that one.
        """
        with self._lock, told(self.path):
            db = self._connection()
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
        with self._lock, told(self.path):
            return [dict(row) for row in self._connection().execute(query, values)]

    def write(
        self,
        answers: Sequence[Answered],
        looked: Sequence[Looked] = (),
        shadows: Sequence[Shadowed] = (),
        *,
        reference: Callable[[str], Reference | None] = lambda version: None,
    ) -> list[JSON]:
        """Add what a process has gathered; return the drift windows that are full by that.

        Args:
            answers: oldest first.
            looked: oldest first.
            shadows: of these answers, or of earlier ones.
            reference: returns that of a version, by its digits.
        """
        with self.transaction() as db:
            db.executemany(
                "INSERT INTO answers VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, ?) "
                "ON CONFLICT (id) DO NOTHING",
                [_values(answer) for answer in answers],
            )
            db.executemany(
                "UPDATE answers SET shadow = ?, shadow_said = ? WHERE id = ?",
                [(shadow.version, _said(shadow.said), shadow.id) for shadow in shadows],
            )
            if answers:
                _forget(db)
            return [window for one in looked if (window := _looked(db, one, reference)) is not None]

    def feedback(self, id: str, labels: Any, group: str | None = None) -> int:
        """Keep what a request's rows turned out to be; return how many labels are known by that.

        Args:
            id: of the request.
            labels: one for each row, in order; of one row also by itself. Texts where the answer
                was a label, numbers where it was a value.
            group: of the rows, to look at their accuracy apart.

        Raises:
            UnknownNameError: no answer has that id.
            RequestError: labels of another count or type, or it has feedback already.
        """
        many = labels if isinstance(labels, list | tuple) else [labels]
        with self.transaction() as db:
            found = db.execute("SELECT * FROM answers WHERE id = ?", (id,)).fetchone()
            if found is None:
                raise _UnknownAnswerError(id)
            said = _read(found["said"])
            given = checked(said, found["rows"], many)
            known, hits, off, squared = scored(said, given)
            try:
                db.execute(
                    "INSERT INTO feedback VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                    (found["number"], time.time(), found["version"], group, _text(given), known,
                     hits, off, squared),
                )  # fmt: skip
            except sqlite3.IntegrityError:
                raise RequestError(
                    f"answer {id!r} has feedback already, and the first one stays"
                ) from None
        return known

    def answers(self, *, last: int = 100, version: str | None = None) -> list[JSON]:
        """Return the last answers, newest first, each with its `feedback` if there is any.

        Args:
            last: how many at most.
            version: only of this one, in digits.
        """
        found = self.rows(
            "SELECT a.*, f.labels, f.part, f.at AS known_at FROM answers a LEFT JOIN feedback f "
            "ON f.answer = a.number WHERE ? IS NULL OR a.version = ? "
            "ORDER BY a.number DESC LIMIT ?",
            version, version, last,
        )  # fmt: skip
        return [_answer(row) for row in found]

    def windows(self, *, version: str | None = None, last: int = 20) -> list[JSON]:
        """Return the last drift windows, newest first, as `window_of` makes them.

        Args:
            version: only of this one, in digits.
            last: how many at most.
        """
        found = self.rows(
            "SELECT content FROM windows WHERE ? IS NULL OR version = ? "
            "ORDER BY number DESC LIMIT ?",
            version, version, last,
        )  # fmt: skip
        return [_read(row["content"]) for row in found]

    def accuracy(self, version: str) -> JSON:
        """Return how well a version did by the labels that came later, whole and by group.

        `labels` says how many there are, `accuracy` the share that it said right, or `error` how
        far off its values are on average, and `interval` where that lies with 95 % confidence, if
        the rows are independent of each other. `groups` has the same of each group.

        Args:
            version: in digits.
        """
        found = self.rows(
            "SELECT part, hits IS NULL AS is_error, sum(known) AS known, sum(hits) AS hits, "
            "sum(off) AS off, sum(off_squared) AS squared, max(number) AS number "
            "FROM feedback WHERE version = ? GROUP BY part, is_error ORDER BY part",
            version,
        )
        if not found:
            return {"version": version, "labels": 0, "groups": {}}
        kind = max(found, key=lambda row: row["number"])["is_error"]  # a live model may change
        parts = [row for row in found if row["is_error"] == kind]
        groups = {row["part"]: figures_of([row]) for row in parts if row["part"] is not None}
        return {"version": version, **figures_of(parts), "groups": groups}

    def comparison(
        self, champion: str, challenger: str, *, since: int, mode: str, labels: int
    ) -> Scores:
        """Return how two versions did on the first labels that came in a challenge, for `judge`.

        Args:
            champion: the one version, in digits.
            challenger: the other.
            since: the number of the order that began the challenge; 0 for all there is.
            mode: `"shadow"`: requests that the champion answered and the challenger was asked too;
                `"split"`: requests for which one of the two was drawn.
            labels: of each, at most.
        """
        begun = self.rows("SELECT answers FROM orders WHERE number = ?", since)
        after = begun[0]["answers"] if begun else 0
        query = (
            "SELECT a.said, a.shadow_said, f.labels FROM feedback f JOIN answers a "
            "ON a.number = f.answer WHERE f.version = ? AND a.number > ? AND {} "
            "ORDER BY f.number LIMIT ?"
        )
        if mode == "shadow":
            shadowed = query.format("a.shadow = ?")
            return paired(self.rows(shadowed, champion, after, challenger, labels), labels)
        drawn = query.format("a.drawn")
        sides = [self.rows(drawn, side, after, labels) for side in (champion, challenger)]
        return sided(sides[0], sides[1], labels)

    def order(self, what: JSON) -> int:
        """Append what all processes of the service are to do; return its number."""
        with self.transaction() as db:
            number = db.execute(
                "INSERT INTO orders (content, answers) "
                "SELECT ?, coalesce(max(number), 0) FROM answers",
                (_text(what),),
            ).lastrowid
        assert number is not None
        return number

    def orders(self, after: int) -> list[tuple[int, JSON]]:
        """Return the orders of this life of the service with a greater number, oldest first."""
        found = self.rows("SELECT * FROM orders WHERE number > ? ORDER BY number", after)
        return [(row["number"], _read(row["content"])) for row in found]

    def begin(self, workers: int) -> None:
        """Begin a life of the service: orders and workers of the one before are forgotten.

        Its answers, feedback and windows stay, but for rows of a live model that fill no window:
        it is another model now.

        Args:
            workers: how many processes will answer.
        """
        with self.transaction() as db:
            for table in ("orders", "workers", "looking WHERE version = '0'"):
                db.execute(f"DELETE FROM {table}")
            now = (time.time(), workers)
            self._life = db.execute("INSERT INTO lives VALUES (NULL, ?, ?)", now).lastrowid
            db.execute("DELETE FROM lives WHERE number < ?", (self._life,))

    def report(self, pid: int, *, snapshot: JSON, proven: bool, applied: int) -> None:
        """Say how a worker fares; of one from an earlier life of the service nothing is kept.

        Args:
            pid: of the process.
            snapshot: its counts as of now.
            proven: whether it has answered once.
            applied: the number of the last order that it has followed.
        """
        with self.transaction() as db:
            if _life(db) != self._life:
                return
            db.execute(
                "INSERT OR REPLACE INTO workers VALUES (NULL, ?, ?, ?, ?, ?)",
                (pid, time.time(), _text(snapshot), proven, applied),
            )
            db.execute(
                "DELETE FROM workers WHERE number <= "
                "(SELECT number FROM workers ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (_MAX_WORKERS,),
            )

    def workers(self) -> list[JSON]:
        """Return what each worker of this life reported last, also those that are gone."""
        found = self.rows("SELECT pid, at, snapshot, proven, applied FROM workers ORDER BY pid")
        return [
            {**row, "snapshot": _read(row["snapshot"]), "proven": bool(row["proven"])}
            for row in found
        ]

    def unproven(self) -> int:
        """Return how many of the workers that `begin` was told of have still to answer once."""
        found = self.rows(
            "SELECT workers - (SELECT count(*) FROM workers WHERE proven) AS left "
            "FROM lives ORDER BY number DESC LIMIT 1"
        )
        return max(0, found[0]["left"]) if found else 1

    def looking(self, version: str) -> int:
        """Return how many rows there are of the version's window that is not full yet."""
        found = self.rows("SELECT rows FROM looking WHERE version = ?", version)
        return found[0]["rows"] if found else 0

    def close(self) -> None:
        """Let go of the file; another call opens it again."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    def _connection(self) -> sqlite3.Connection:
        if self._open is None:
            self._open = connect(self.path)
            self._life = _life(self._open) if self._life is None else self._life
        return self._open


class _UnknownAnswerError(UnknownNameError):
    """No answer has that id; the others are not listed, of which there are too many."""

    def __init__(self, id: str) -> None:
        super().__init__("answer", id, ())
        self.args = (
            f"unknown answer {id!r:.120}: expected the X-Request-Id of one of the last "
            f"{MAX_ANSWERS:,} answers of this service; one that was given this moment is known "
            "within a second",
        )


def _life(db: sqlite3.Connection) -> int | None:
    life: int | None = db.execute("SELECT max(number) FROM lives").fetchone()[0]
    return life


def _values(answer: Answered) -> tuple[Any, ...]:
    return (
        answer.id, answer.at, answer.version, answer.weights, answer.rows, _said(answer.said),
        answer.seconds, answer.drawn,
    )  # fmt: skip


def _said(said: Sequence[str] | Sequence[float] | None) -> str | None:
    return None if said is None else _text(said[:MAX_SAID])


def _forget(db: sqlite3.Connection) -> None:
    """Let the oldest answers go that are too many, or whose file is too large."""
    oldest, newest = db.execute(
        "SELECT (SELECT min(number) FROM answers), (SELECT max(number) FROM answers)"
    ).fetchone()  # both in one query would look at all of them
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    last = newest - MAX_ANSWERS
    if (pages - free) * size > MAX_BYTES:
        last = max(last, oldest + (newest - oldest) // 50)
    if last >= oldest:
        for table, key in (("feedback", "answer"), ("answers", "number")):
            db.execute(f"DELETE FROM {table} WHERE {key} <= ?", (last,))


def _looked(
    db: sqlite3.Connection, looked: Looked, reference: Callable[[str], Reference | None]
) -> JSON | None:
    """Add rows to those of the version's window; return the window if it is full by that."""
    from workbench.registry.drifts import WINDOW, drift, window_of  # torch; a supervisor has none

    version, now, counts = looked.version, time.time(), dict(looked.counts)
    found = db.execute("SELECT * FROM looking WHERE version = ?", (version,)).fetchone()
    first, rows = now, looked.rows
    before = _read(found["counts"]) if found else {}
    if {n: len(c) for n, c in before.items()} == {n: len(c) for n, c in counts.items()}:
        first, rows = found["first"], found["rows"] + looked.rows
        counts = {n: [a + b for a, b in zip(before[n], c, strict=True)] for n, c in counts.items()}
    known = reference(version) if rows >= WINDOW else None
    if rows < WINDOW or known is None:
        values = (version, first, rows, _text(counts))
        db.execute("INSERT OR REPLACE INTO looking VALUES (?, ?, ?, ?)", values)
        return None
    window = window_of(version, first, now, rows, drift(known, counts))
    db.execute("DELETE FROM looking WHERE version = ?", (version,))
    db.execute("INSERT INTO windows VALUES (NULL, ?, ?)", (version, _text(window)))
    db.execute(
        "DELETE FROM windows WHERE number <= (SELECT max(number) FROM windows) - ?",
        (_MAX_WINDOWS,),
    )
    return window


def _answer(row: JSON) -> JSON:
    """Return an answer as lists show it."""
    plain = ("id", "at", "version", "weights", "rows", "seconds", "shadow")
    feedback = {"labels": _read(row["labels"]), "group": row["part"], "at": row["known_at"]}
    return {
        **{name: row[name] for name in plain},
        "said": _read(row["said"]),
        "shadow_said": _read(row["shadow_said"]),
        "drawn": bool(row["drawn"]),
        "feedback": feedback if row["labels"] is not None else None,
    }


def _text(value: Any) -> str:
    return msgspec.json.encode(value).decode()


def _read(text: str | None) -> Any:
    return None if text is None else msgspec.json.decode(text)
