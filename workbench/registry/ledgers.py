"""The ledger of a service: what its processes share, and what they leave behind.

One SQLite file, `services/<name>.db`, which every process of the service writes into a few times a
second and reads whenever it is asked: who answered what and when, which labels came later, how the
rows were distributed, what the service was told to do, and how each worker fares. A transaction is
there whole or not at all, whatever process is killed. Nothing is ordered by the clock, which may
jump: times are told, numbers count.

It is bounded: the oldest answers go once `MAX_ANSWERS` came after them, or the file holds more than
`MAX_BYTES`; the space is used again. Those that have labels stay until so many others have: labels
are few, and a challenge is decided by its first ones.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import msgspec

from workbench.errors import RequestError, UnknownNameError
from workbench.home import home
from workbench.registry.scores import checked, figures_of, paired, scored, sided
from workbench.registry.tables import LedgerFile, life_of
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
_MAX_GROUPS = 100  # of the labels of one version
_MAX_LISTED = 4 * 2**20  # bytes of answers that are listed at once
_GROUPS = """
WITH RECURSIVE known (part) AS (
    SELECT min(part) FROM feedback WHERE version = :version
    UNION ALL
    SELECT (SELECT min(part) FROM feedback WHERE version = :version AND part > known.part)
    FROM known WHERE known.part IS NOT NULL
) SELECT part FROM known WHERE part IS NOT NULL
"""  # as many looks into an index as there are groups; DISTINCT would look at all labels
_ENDS = """
SELECT coalesce((SELECT number FROM answers INDEXED BY unlabelled WHERE labelled = 0
                 ORDER BY number LIMIT 1), (SELECT max(number) FROM answers)),
    (SELECT max(number) FROM answers),
    coalesce((SELECT min(number) FROM feedback), 0), coalesce((SELECT max(number) FROM feedback), 0)
"""


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


class Ledger(LedgerFile):
    """What the processes of one service share and leave behind.

    Args:
        path: of its file.
    """

    @classmethod
    def of(cls, name: str) -> Ledger:
        """Return the ledger of the service of that name."""
        return cls(home() / "services" / f"{name}.db")

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
                "INSERT INTO answers VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, NULL, NULL, ?, 0) "
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
            RequestError: labels of another count or type, or it has feedback already; or the group
                is one more than a version can have.
        """
        many = labels if isinstance(labels, list | tuple) else [labels]
        with self.transaction() as db:
            found = db.execute("SELECT * FROM answers WHERE id = ?", (id,)).fetchone()
            if found is None:
                raise _UnknownAnswerError(id)
            said = _read(found["said"])
            given = checked(said, found["rows"], many)
            _check_group(db, found["version"], group)
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
            db.execute("UPDATE answers SET labelled = 1 WHERE number = ?", (found["number"],))
        return known

    def answers(self, *, last: int = 100, version: str | None = None) -> list[JSON]:
        """Return the last answers, newest first, each with its `feedback` if there is any.

        Args:
            last: how many at most; fewer where they have very many rows.
            version: only of this one, in digits.
        """
        query = (
            "SELECT a.*, f.labels, f.part, f.at AS known_at FROM answers a LEFT JOIN feedback f "
            "ON f.answer = a.number WHERE ? IS NULL OR a.version = ? "
            "ORDER BY a.number DESC LIMIT ?"
        )
        answers: list[JSON] = []
        size = 0
        with self.using() as db, closing(db.execute(query, (version, version, last))) as found:
            for row in found:
                size += sum(len(text) for text in row if isinstance(text, str))
                if size > _MAX_LISTED and answers:
                    break
                answers.append(_answer(row))
        return answers

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

    def accuracy(self, version: str, *, groups: bool = True) -> JSON:
        """Return how well a version did by the labels that came later, whole and by group.

        `labels` says how many there are, `accuracy` the share that it said right, or `error` how
        far off its values are on average, and `interval` where that lies with 95 % confidence, if
        the rows are independent of each other. `groups` has the same of each group. A live model
        is another one in each life of the service: of it, answers of this life count.

        Args:
            version: in digits.
            groups: whether to look at them, too.
        """
        begun = self.rows("SELECT answers FROM lives") if version == "0" else []
        part = "part" if groups else "NULL"
        found = self.rows(
            f"SELECT {part} AS part, hits IS NULL AS is_error, sum(known) AS known, "
            "sum(hits) AS hits, sum(off) AS off, sum(off_squared) AS squared, "
            "max(number) AS number FROM feedback INDEXED BY scores_of "
            "WHERE version = ? AND answer > ? GROUP BY 1, 2 ORDER BY 1",
            version, begun[0]["answers"] if begun else 0,
        )  # fmt: skip
        none: JSON = {"groups": {}} if groups else {}
        if not found:
            return {"version": version, "labels": 0, **none}
        kind = max(found, key=lambda row: row["number"])["is_error"]  # a live model may change
        parts = [row for row in found if row["is_error"] == kind]
        told = {row["part"]: figures_of([row]) for row in parts if row["part"] is not None}
        return {"version": version, **figures_of(parts), **({"groups": told} if groups else {})}

    def comparison(
        self, champion: str, challenger: str, *, since: int, mode: str, labels: int
    ) -> Scores:
        """Return how two versions did on the first labels that came in a challenge, for `judge`.

        Those are the first, whatever came later: a labelled answer stays until `MAX_ANSWERS` others
        have labels, or until such ones alone are too many bytes.

        Args:
            champion: the one version, in digits.
            challenger: the other.
            since: the number of the order that began the challenge; 0 for all there is.
            mode: `"shadow"`: requests that the champion answered and the challenger was asked too;
                `"split"`: requests for which one of the two was drawn.
            labels: of each, at most.
        """
        begun = self.rows("SELECT feedback, answers FROM orders WHERE number = ?", since)
        after = tuple(begun[0].values()) if begun else (0, 0)
        query = (
            "SELECT a.said, a.shadow_said, f.labels FROM feedback f INDEXED BY feedback_of "
            "CROSS JOIN answers a ON a.number = f.answer "  # which keeps this order of the two
            "WHERE f.version = ? AND f.number > ? AND f.answer > ? AND {} ORDER BY f.number"
        )
        with self.using() as db:
            if mode == "shadow":
                shadowed = query.format("a.shadow = ?")
                return paired(db.execute(shadowed, (champion, *after, challenger)), labels)
            drawn = query.format("a.drawn")
            sides = [db.execute(drawn, (side, *after)) for side in (champion, challenger)]
            return sided(sides[0], sides[1], labels)

    def order(self, what: JSON) -> int:
        """Append what all processes of the service are to do; return its number."""
        with self.transaction() as db:
            number = db.execute(  # greater than any before, also where the file is another one
                "INSERT INTO orders SELECT 1 + max("
                "(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'orders'), "
                "(SELECT coalesce(max(applied), 0) FROM workers)), ?, "
                "(SELECT coalesce(max(number), 0) FROM answers), "
                "(SELECT coalesce(max(seq), 0) FROM sqlite_sequence WHERE name = 'feedback')",
                (_text(what),),
            ).lastrowid
        assert number is not None
        return number

    def orders(self, after: int) -> list[tuple[int, JSON]]:
        """Return the orders of this life of the service with a greater number, oldest first.

        All of them, also those that a later one undoes: what is here by the end depends on each. A
        worker that takes another's place so loads every version that was ordered in this life.
        """
        found = self.rows("SELECT * FROM orders WHERE number > ? ORDER BY number", after)
        return [(row["number"], _read(row["content"])) for row in found]

    def last_order(self) -> int:
        """Return the greatest number that an order of this file ever had; 0 before any."""
        (found,) = self.rows(
            "SELECT coalesce(max(seq), 0) AS last FROM sqlite_sequence WHERE name = 'orders'"
        )
        return int(found["last"])

    def version_of(self, id: str) -> str | None:
        """Return the version that gave an answer, in digits; None of one that is not known.

        Args:
            id: of the request.
        """
        found = self.rows("SELECT version FROM answers WHERE id = ?", id)
        return found[0]["version"] if found else None

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
            self.life = db.execute(
                "INSERT INTO lives SELECT NULL, ?, ?, coalesce(max(number), 0) FROM answers",
                (time.time(), workers),
            ).lastrowid
            db.execute("DELETE FROM lives WHERE number < ?", (self.life,))

    def report(self, pid: int, began: float, *, snapshot: JSON, proven: bool, applied: int) -> None:
        """Say how a worker fares; of one from an earlier life of the service nothing is kept.

        Args:
            pid: of the process.
            began: when, as the system tells it: a pid alone may be another process's by now.
            snapshot: its counts as of now.
            proven: whether it has answered once.
            applied: the number of the last order that it has followed.
        """
        with self.transaction() as db:
            if life_of(db) != self.life:
                return
            db.execute(
                "INSERT OR REPLACE INTO workers VALUES (NULL, ?, ?, ?, ?, ?, ?)",
                (pid, began, time.time(), _text(snapshot), proven, applied),
            )
            db.execute(
                "DELETE FROM workers WHERE number <= "
                "(SELECT number FROM workers ORDER BY number DESC LIMIT 1 OFFSET ?)",
                (_MAX_WORKERS,),
            )

    def workers(self) -> list[JSON]:
        """Return what each worker of this life reported last, also those that are gone."""
        found = self.rows(
            "SELECT pid, began, at, snapshot, proven, applied FROM workers ORDER BY pid, began"
        )
        return [
            {**row, "snapshot": _read(row["snapshot"]), "proven": bool(row["proven"])}
            for row in found
        ]

    def unproven(self) -> int:
        """Return how many of the workers that `begin` was told of have still to answer once."""
        found = self.rows(
            "SELECT coalesce((SELECT workers FROM lives), 1) "
            "- (SELECT count(*) FROM workers WHERE proven) AS left"
        )
        return max(0, int(found[0]["left"]))

    def looking(self, version: str) -> int:
        """Return how many rows there are of the version's window that is not full yet."""
        found = self.rows("SELECT rows FROM looking WHERE version = ?", version)
        return found[0]["rows"] if found else 0


class _UnknownAnswerError(UnknownNameError):
    """No answer has that id; the others are not listed, of which there are too many."""

    def __init__(self, id: str) -> None:
        super().__init__("answer", id, ())
        self.args = (
            f"unknown answer {id!r:.120}: expected the X-Request-Id of one of the last "
            f"{MAX_ANSWERS:,} answers of this service; one that was given this moment is known "
            "within a second",
        )


def _values(answer: Answered) -> tuple[Any, ...]:
    return (
        answer.id, answer.at, answer.version, answer.weights, answer.rows, _said(answer.said),
        answer.seconds, answer.drawn,
    )  # fmt: skip


def _said(said: Sequence[str] | Sequence[float] | None) -> str | None:
    return None if said is None else _text(said[:MAX_SAID])


def _check_group(db: sqlite3.Connection, version: str, group: str | None) -> None:
    """Raise where a group would be one more than the labels of a version can have."""
    if group is None:
        return
    known = [row["part"] for row in db.execute(_GROUPS, {"version": version})]
    if group not in known and len(known) >= _MAX_GROUPS:
        raise RequestError(
            f"group {group!r:.80} would be one more than the {_MAX_GROUPS} that the labels of a "
            f"version can have: expected one of those there are, such as {known[0]!r:.80}, or none"
        )


def _forget(db: sqlite3.Connection) -> None:
    """Let the oldest answers go that are too many, or whose file is too large.

    With labels or without, each among their own; for the file's sake those that are more of both.
    """
    first, last, first_label, last_label = db.execute(_ENDS).fetchone()
    pages, free, size = (
        db.execute(f"PRAGMA {name}").fetchone()[0]
        for name in ("page_count", "freelist_count", "page_size")
    )
    is_large = (pages - free) * size > MAX_BYTES
    are_labels = last_label - first_label > last - first
    until = _until(first, last, is_large=is_large and not are_labels)
    db.execute(
        "DELETE FROM answers INDEXED BY unlabelled WHERE labelled = 0 AND number <= ?", (until,)
    )
    until = _until(first_label, last_label, is_large=is_large and are_labels)
    old = "SELECT answer FROM feedback WHERE number <= ?"
    db.execute(f"DELETE FROM answers WHERE number IN ({old})", (until,))
    db.execute("DELETE FROM feedback WHERE number <= ?", (until,))


def _until(first: int, last: int, *, is_large: bool) -> int:
    """Return the number up to which the oldest of a table go."""
    return max(last - MAX_ANSWERS, first + (last - first) // 50 if is_large else 0)


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


def _answer(row: sqlite3.Row) -> JSON:
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
