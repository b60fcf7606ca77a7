"""What a server remembers of its answers, written down four times a second by a thread of its own.

The event loop only lays a note of each answer aside. The thread puts the notes into the ledger of
each name, in one transaction; it says which label each row got, and looks at some of the rows for
drift. Nothing of this holds an answer up: where notes come faster than they can be written, or the
disk is full, they are dropped and counted.
"""

from __future__ import annotations

import contextlib
import logging
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch

from workbench.errors import WorkbenchError
from workbench.evaluation import Prediction
from workbench.registry import version
from workbench.registry.drifts import counts_of
from workbench.registry.ledgers import MAX_SAID, Answered, Ledger, Looked, Shadowed
from workbench.registry.references import Reference
from workbench.serving.served import Served
from workbench.serving.tensors import Array

__all__ = ["TICK", "Monitor", "Note", "Shadow"]

TICK = 0.25  # seconds
_MOST_NOTES = 8_192  # that wait to be written
_MOST_BYTES = 32 * 2**20  # of the answers that wait, and of the rows that wait to be looked at
_BURST = 2_048  # rows of one version that are looked at for drift after a calm,
_RATE = 128.0  # and as many a second for as long as requests come

_log = logging.getLogger("workbench.serving")

_K = TypeVar("_K")
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Note:
    """One answer.

    Args:
        id: of the request.
        at: when it was answered, in seconds since 1970.
        served: what answered.
        inputs: by name, raw.
        outputs: by name.
        weights: the hash of a live model's.
        seconds: from the whole request to its answer.
        drawn: whether what answered was drawn, traffic being split.
    """

    id: str
    at: float
    served: Served
    inputs: dict[str, Array]
    outputs: dict[str, Array]
    weights: str | None
    seconds: float
    drawn: bool = False

    @property
    def rows(self) -> int:
        """How many rows it had."""
        return len(next(iter(self.outputs.values())))

    @property
    def size(self) -> int:
        """How many bytes it holds."""
        return sum(array.nbytes for part in (self.inputs, self.outputs) for array in part.values())


@dataclass(frozen=True, slots=True)
class Shadow:
    """What a challenger said to a request that another version answered.

    Args:
        id: of the request.
        served: the challenger.
        outputs: by name.
    """

    id: str
    served: Served
    outputs: dict[str, Array]


class _Budget:
    """How many rows may be looked at: all after a calm, some of them while many come."""

    def __init__(self) -> None:
        self._left, self._since = float(_BURST), time.monotonic()

    def take(self, rows: int) -> int:
        """Return how many of so many rows may be looked at now."""
        now = time.monotonic()
        self._left = min(_BURST, self._left + _RATE * (now - self._since))
        self._since = now
        taken = min(rows, int(self._left))
        self._left -= taken
        return taken


class Monitor:
    """Writes down what a server answers; begins with `start`.

    Args:
        also: done at each tick besides.
        is_alone: whether this process is all of the service, so that its ledgers begin with it.
    """

    def __init__(
        self,
        *,
        also: Callable[[], None] | None = None,
        is_alone: bool = True,
    ) -> None:
        self.dropped = 0  # answers that were not written down
        self.trouble: str | None = None  # why the last write failed
        self._also, self._is_alone = also, is_alone
        self._notes: deque[Note] = deque()
        self._shadows: deque[Shadow] = deque()
        self._bytes = 0
        self._ledgers: dict[str, Ledger] = {}
        self._references: dict[tuple[str, str], Reference | None] = {}
        self._budgets: defaultdict[tuple[str, str], _Budget] = defaultdict(_Budget)
        self._writing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workbench-monitor", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def close(self) -> None:
        """Write what is left, and end."""
        self._ended.set()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(10)
        self.flush()
        with self._writing:
            for ledger in self._ledgers.values():
                ledger.close()
            self._ledgers.clear()

    def answered(self, note: Note) -> None:
        """Take a note of an answer; it is written at the next tick."""
        if len(self._notes) >= _MOST_NOTES or self._bytes > _MOST_BYTES:
            self.dropped += 1
            return
        self._bytes += note.size
        self._notes.append(note)

    def shadowed(self, shadow: Shadow) -> None:
        """Take what a challenger said to a request that is noted already."""
        if len(self._shadows) < _MOST_NOTES:
            self._shadows.append(shadow)

    def ledger(self, name: str) -> Ledger:
        """Return the ledger of a name."""
        with self._writing:
            return self._ledger(name)

    def flush(self) -> None:
        """Write now what there is; whatever goes wrong is said in `trouble`."""
        with self._writing:
            notes = [self._notes.popleft() for _ in range(len(self._notes))]
            shadows = [self._shadows.popleft() for _ in range(len(self._shadows))]
            self._bytes = 0
            beside = _by(shadows, lambda shadow: shadow.served.name)
            for name, theirs in _by(notes, lambda note: note.served.name).items():
                self._write(name, theirs, beside.pop(name, []))
            for name, rest in beside.items():
                self._write(name, [], rest)

    def _run(self) -> None:
        while not self._ended.wait(TICK):
            self.flush()
            if self._also is not None:
                try:
                    self._also()
                except Exception as error:  # the ticks go on, whatever one came to
                    self._fail("the workers' part of a tick", error)

    def _write(self, name: str, notes: Sequence[Note], shadows: Sequence[Shadow]) -> None:
        """Write notes of one name, each by itself where one among them cannot be."""
        error = self._tried(name, notes, shadows)
        if error is None:
            self.trouble = None
        elif isinstance(error, WorkbenchError) or len(notes) + len(shadows) == 1:
            self._lose(name, len(notes), error)  # a full disk, or a figure that no database holds
        else:
            for note in notes:
                if (error := self._tried(name, [note], [])) is not None:
                    self._lose(name, 1, error)
            for shadow in shadows:
                self._tried(name, [], [shadow])

    def _tried(
        self, name: str, notes: Sequence[Note], shadows: Sequence[Shadow]
    ) -> Exception | None:
        """Write notes in one transaction; return why that failed."""
        try:
            told = [row for part in _by(notes, _served).values() for row in _answered(part)]
            beside = [row for part in _by(shadows, _served).values() for row in _shadowed(part)]
            looked = [
                look
                for served, part in _by(notes, _served).items()
                for look in self._looked(served, part)
            ]
            self._ledger(name).write(
                told, looked, beside, reference=lambda number: self._references.get((name, number))
            )
        except Exception as error:
            return error
        return None

    def _looked(self, served: Served, notes: Sequence[Note]) -> list[Looked]:
        """Return how some rows of one version are distributed over the bins of its reference."""
        known, reference = served.preprocessing, self.reference(served)
        if known is None or reference is None:
            return []
        budget = self._budgets[served.name, served.version]
        most = budget.take(sum(note.rows for note in notes))
        if most == 0:
            return []
        raw, output = _last_rows(notes, most)
        return [Looked(served.version, most, counts_of(reference, raw, output, known))]

    def _lose(self, name: str, count: int, error: Exception) -> None:
        self.dropped += count
        self._fail(f"writing down {count} answers of {name}", error)

    def _ledger(self, name: str) -> Ledger:
        if name not in self._ledgers:
            self._ledgers[name] = ledger = Ledger.of(name)
            if self._is_alone:
                ledger.begin(1)
        return self._ledgers[name]

    def reference(self, served: Served) -> Reference | None:
        """Return the reference of a version; a live model has none."""
        key = served.name, served.version
        if key not in self._references:
            found = None
            if served.version != "0":
                try:
                    with contextlib.suppress(WorkbenchError):  # it is gone, and answers still
                        found = version(served.model).reference
                except OSError:  # it is tried again at the next tick
                    return None
            self._references[key] = found
        return self._references[key]

    def _fail(self, what: str, error: Exception) -> None:
        told = f"{what} failed: {type(error).__name__}: {error}"
        if self.trouble != told:  # once, and not four times a second
            _log.error("%s", told)
        self.trouble = told


def _served(note: Note | Shadow) -> Served:
    return note.served


def _by(notes: Iterable[_T], key: Callable[[_T], _K]) -> dict[_K, list[_T]]:
    parts: defaultdict[_K, list[_T]] = defaultdict(list)
    for note in notes:
        parts[key(note)].append(note)
    return parts


def _answered(notes: Sequence[Note]) -> list[Answered]:
    """Return the rows of the ledger for notes of one model."""
    said = _said(notes[0].served, [note.outputs for note in notes])
    return [
        Answered(
            note.id,
            note.at,
            note.served.version,
            note.weights,
            note.rows,
            values,
            note.seconds,
            note.drawn,
        )
        for note, values in zip(notes, said, strict=True)
    ]


def _shadowed(shadows: Sequence[Shadow]) -> list[Shadowed]:
    """Return what the ledger keeps of the answers of one challenger."""
    said = _said(shadows[0].served, [shadow.outputs for shadow in shadows])
    return [
        Shadowed(shadow.id, shadow.served.version, values)
        for shadow, values in zip(shadows, said, strict=True)
    ]


def _said(
    served: Served, answers: Sequence[dict[str, Array]]
) -> list[list[str] | list[float] | None]:
    """Return what each answer says of its first rows: labels or values; None where neither."""
    if served.preprocessing is None:
        return [None] * len(answers)
    outputs = [next(iter(answer.values()))[:MAX_SAID] for answer in answers]
    said = Prediction.of(torch.from_numpy(np.concatenate(outputs)), served.preprocessing)
    values: list[str] | list[float]
    if said.labels is not None:
        values = said.labels
    elif outputs[0][:1].size == 1:
        values = said.output.reshape(-1).tolist()
    else:
        return [None] * len(answers)
    ends = np.cumsum([len(rows) for rows in outputs])
    return [values[end - len(rows) : end] for end, rows in zip(ends, outputs, strict=True)]


def _last_rows(notes: Sequence[Note], most: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the last rows that were asked about, `most` of them, and the answers to them."""
    rows, first = 0, len(notes)
    while first and rows < most:
        first -= 1
        rows += notes[first].rows
    inputs = np.concatenate([next(iter(note.inputs.values())) for note in notes[first:]])
    outputs = np.concatenate([next(iter(note.outputs.values())) for note in notes[first:]])
    return torch.from_numpy(inputs[-most:]), torch.from_numpy(outputs[-most:])
