"""The one thread that a server's models work in, and the bounded line of requests before it.

Whenever the thread is free it takes what is there: the requests at the head of the line that can be
answered together become one batch, and the event loop is woken once for all their answers. Nobody
waits for a batch to fill, and nothing polls. A full line refuses at once: a service that answers
late answers nobody.
"""

from __future__ import annotations

import asyncio
import contextlib
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, Protocol, TypeVar

import numpy as np
from starlette.requests import ClientDisconnect

from workbench.errors import RequestError, ServiceError
from workbench.serving.answers import Refusal
from workbench.serving.served import Served
from workbench.serving.tallies import BatchTimes, Tally
from workbench.serving.tensors import Array
from workbench.types import JSON

__all__ = ["MAX_BYTES", "MAX_REQUESTS", "MAX_ROWS", "Batcher", "Connection"]

MAX_ROWS = 256  # that go through a model at once; a larger request goes in parts
MAX_REQUESTS = 512  # in the line, with those being answered
MAX_BYTES = 256 * 2**20  # of all their inputs
_LONGEST = 60  # seconds that a client is told to stay away at most

_T = TypeVar("_T")


class Connection(Protocol):
    """What a connection offers to whoever answers its request."""

    def when_gone(self, callback: Callable[[], None] | None) -> None:
        """Let `callback` be called once if the client leaves, at once if it has; None for none."""


@dataclass(eq=False, slots=True)
class _Ticket:
    """One accepted request: its rows, how far they have come, and who waits for the answer."""

    served: Served
    inputs: dict[str, Array] | None  # None, as the future, once nobody waits any more
    key: Hashable
    rows: int
    size: int
    tally: Tally
    future: asyncio.Future[dict[str, Array]] | None
    accepted: float
    begun: float = 0.0
    taken: int = 0
    parts: list[dict[str, Array]] = field(default_factory=list)
    weights: JSON = field(default_factory=dict)
    error: Exception | None = None

    def take(self, n: int) -> _Part | None:
        """Take the next `n` rows at most; return None where nobody waits for them any more."""
        inputs, future = self.inputs, self.future  # both at once: the event loop lets go of them
        if inputs is None or future is None or future.done() or self.error is not None:
            return None
        start, self.taken = self.taken, min(self.rows, self.taken + n)
        return _Part(self, inputs, start, self.taken)

    def let_go(self) -> None:
        """Keep no rows, and no error whose frames do, until the thread comes to it."""
        self.inputs = self.future = None


@dataclass(eq=False, slots=True)
class _Errand:
    """Something else that only the inference thread may do."""

    work: Callable[[], Any]
    future: asyncio.Future[Any]


@dataclass(frozen=True, slots=True)
class _Part:
    """Some rows of a request, from `start` to `stop`."""

    ticket: _Ticket
    inputs: dict[str, Array]
    start: int
    stop: int

    def cut(self) -> dict[str, Array]:
        """Return the rows."""
        if len(self) == self.ticket.rows:
            return self.inputs
        return {name: rows[self.start : self.stop] for name, rows in self.inputs.items()}

    def __len__(self) -> int:
        return self.stop - self.start


class Batcher:
    """A line of requests and the thread that answers them.

    All methods but `close` are called in the event loop that is given.

    Args:
        loop: that waits for the answers.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._inbox: SimpleQueue[_Ticket | _Errand | None] = SimpleQueue()
        self._waiting: set[_Ticket] = set()
        self._bytes = 0
        self._busy, self._done = 0.0, 0.0  # seconds of work, and requests answered in them
        self.busy_seconds = 0.0  # of all work so far
        self._draining = False
        self._thread = threading.Thread(target=self._work, name="workbench-inference", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """How many requests are in the line, with those being answered."""
        return len(self._waiting)

    @property
    def oldest(self) -> float:
        """Seconds that the oldest of them has been here; 0 where there is none."""
        accepted = min((ticket.accepted for ticket in self._waiting), default=None)
        return 0.0 if accepted is None else time.perf_counter() - accepted

    @property
    def is_alive(self) -> bool:
        """Whether its thread works."""
        return self._thread.is_alive()

    @property
    def is_draining(self) -> bool:
        """Whether it takes nothing more."""
        return self._draining

    def check_room(self, size: int = 0) -> None:
        """Raise where a request of `size` bytes would not be taken; asked before it is read, too.

        Raises:
            Refusal: 429 with the seconds until there is room, or 503 where the server is stopping.
        """
        if self._draining:
            raise Refusal(503, "the service is stopping: ask again in a moment", _later(1))
        lined = max(len(self._waiting), self._inbox.qsize())  # who has left is in the inbox still
        if lined >= MAX_REQUESTS or self._bytes + size > MAX_BYTES:
            wait = len(self._waiting) * self._busy / max(self._done, 1)
            raise Refusal(
                429,
                f"{lined} requests are waiting already: try again later",
                _later(wait),
            )

    @contextlib.contextmanager
    def reading(self, size: int) -> Iterator[None]:
        """Keep room for a body of `size` bytes while it is being read.

        Raises:
            Refusal: as `check_room` says.
        """
        self.check_room(size)
        self._bytes += size
        try:
            yield
        finally:
            self._bytes -= size

    async def answer(
        self,
        served: Served,
        inputs: dict[str, Array],
        tally: Tally,
        *,
        key: Hashable = None,
        timeout: float | None = None,
        connection: Connection | None = None,
    ) -> tuple[dict[str, Array], JSON]:
        """Return the outputs for checked inputs, once it is their turn, and by which weights.

        Args:
            served: what answers.
            inputs: by name; all have as many rows.
            tally: where it is counted.
            key: requests are only batched with those of an equal key: outputs and parameters.
            timeout: seconds after which nobody wants the answer, or None.
            connection: of the client; when it is lost, the request leaves the line.

        Raises:
            Refusal: 429 or 503 as `check_room` says, or 504 after the timeout.
            ClientDisconnect: the client is gone.
        """
        size = sum(rows.nbytes for rows in inputs.values())
        self.check_room(size)
        shapes = tuple((name, rows.dtype.str, rows.shape[1:]) for name, rows in inputs.items())
        rows = len(next(iter(inputs.values())))
        future: asyncio.Future[dict[str, Array]] = self._loop.create_future()
        ticket = _Ticket(
            served, inputs, (id(served), shapes, key), rows, size, tally, future,
            time.perf_counter(),
        )  # fmt: skip
        timer = None if timeout is None else self._loop.call_later(timeout, _end, ticket, _late())
        if connection is not None:
            connection.when_gone(partial(_end, ticket, ClientDisconnect()))
        self._waiting.add(ticket)
        self._bytes += size
        self._inbox.put(ticket)
        try:
            outputs = await future
        except (ClientDisconnect, asyncio.CancelledError):
            tally.cancelled += 1
            raise
        except Exception:
            tally.fail.add(time.perf_counter() - ticket.accepted)
            raise
        finally:
            ticket.let_go()
            self._waiting.discard(ticket)
            self._bytes -= size
            if timer is not None:
                timer.cancel()
            if connection is not None:
                connection.when_gone(None)
        now = time.perf_counter()
        tally.answered(now - ticket.accepted, rows, ticket.begun - ticket.accepted)
        return outputs, ticket.weights

    async def run(self, work: Callable[[], _T]) -> _T:
        """Return what `work` returns, done in the inference thread between two batches."""
        future: asyncio.Future[_T] = self._loop.create_future()
        self._inbox.put(_Errand(work, future))
        return await future

    async def drain(self) -> None:
        """Take nothing more; return when everything that was taken is answered."""
        self._draining = True
        while self._waiting:
            await asyncio.wait([t.future for t in self._waiting if t.future is not None])
            await asyncio.sleep(0)  # whoever waits for the answer takes the ticket off

    def close(self) -> None:
        """Let the thread end after what it is doing."""
        self._draining = True
        self._inbox.put(None)

    def _work(self) -> None:
        """Answer what comes: the thread's whole life."""
        line: deque[_Ticket | _Errand] = deque()
        while self._fill(line):
            head = line[0]
            if isinstance(head, _Errand):
                line.popleft()
                self._tell(_errand_done, head.future, _outcome(head.work))
            else:
                self._answer(_together(line))
            del head  # nothing of a model is kept while it waits

    def _fill(self, line: deque[_Ticket | _Errand]) -> bool:
        """Put what has come into the line, waiting where it is empty; return False at the end."""
        with contextlib.suppress(Empty):
            while True:
                came = self._inbox.get() if not line else self._inbox.get_nowait()
                if came is None:
                    return False
                line.append(came)
        return True

    def _answer(self, parts: list[_Part]) -> None:
        """Ask the model with some rows, and let the event loop hand out what came of it."""
        if not parts:
            return
        begun = time.perf_counter()
        done = _run(parts)
        if isinstance(done, Exception):
            for part in parts:  # one of them is to blame, the others are not
                alone = done if len(parts) == 1 else _run([part])
                part.ticket.error = alone if isinstance(alone, Exception) else None
        times = done if isinstance(done, BatchTimes) else None
        whole = [p.ticket for p in parts if p.stop == p.ticket.rows or p.ticket.error is not None]
        size, tally = sum(map(len, parts)), parts[0].ticket.tally
        self._tell(self._deliver, whole, size, times, tally, time.perf_counter() - begun)

    def _deliver(
        self,
        tickets: Sequence[_Ticket],
        size: int,
        times: BatchTimes | None,
        tally: Tally,
        seconds: float,
    ) -> None:
        """Hand out the answers of a batch: the one time that it wakes the event loop."""
        self._busy, self._done = 0.99 * self._busy + seconds, 0.99 * self._done + len(tickets)
        self.busy_seconds += seconds
        if times is not None:
            tally.batch(size, times)
        for ticket in tickets:
            future = ticket.future
            if future is None or future.done():
                continue
            if ticket.error is not None:
                future.set_exception(ticket.error)
            else:
                future.set_result(_joined(ticket.parts))

    def _tell(self, callback: Callable[..., None], *args: Any) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed: nobody listens any more
            self._loop.call_soon_threadsafe(callback, *args)


def _together(line: deque[_Ticket | _Errand]) -> list[_Part]:
    """Take from the line the rows that go through the model next; those of one key, in order.

    A request of more rows than there is room for goes to the end of the line with the rest of them,
    so that nobody has to wait for all of it.
    """
    parts: list[_Part] = []
    rest: list[_Ticket | _Errand] = []
    large: list[_Ticket] = []
    room, key = MAX_ROWS, None
    while line and room:
        ticket = line.popleft()
        if isinstance(ticket, _Errand) or (key is not None and ticket.key != key):
            rest.append(ticket)
        elif (part := ticket.take(room)) is not None:
            key = ticket.key
            room -= len(part)
            parts.append(part)
            if ticket.taken < ticket.rows:
                large.append(ticket)
    line.extendleft(reversed(rest))
    line.extend(large)
    return parts


def _run(parts: list[_Part]) -> BatchTimes | Exception:
    """Ask the model with some rows, and give them their outputs; return when, or what it raised."""
    begun = time.perf_counter()
    served = parts[0].ticket.served
    try:
        cuts = [part.cut() for part in parts]
        inputs = cuts[0] if len(cuts) == 1 else _stacked(cuts)
        ready = time.perf_counter()
        outputs, weights = served.answer(inputs), served.weights()
        answered = time.perf_counter()
        at = 0
        for part in parts:
            ticket, end = part.ticket, at + len(part)
            ticket.begun, ticket.weights = ticket.begun or begun, weights
            ticket.parts.append({name: rows[at:end] for name, rows in outputs.items()})
            at = end
    except ServiceError as error:  # a live model cannot be followed any more
        return error
    except BaseException as error:  # whatever it is, this thread goes on
        return _fault(error)
    return BatchTimes(begun, ready, answered, time.perf_counter())


def _stacked(cuts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    return {name: np.concatenate([cut[name] for cut in cuts]) for name in cuts[0]}


def _joined(parts: Sequence[dict[str, Array]]) -> dict[str, Array]:
    return parts[0] if len(parts) == 1 else _stacked(parts)


def _end(ticket: _Ticket, error: Exception) -> None:
    """End a request without an answer, wherever it is."""
    if ticket.future is not None and not ticket.future.done():
        ticket.future.set_exception(error)


def _fault(error: BaseException) -> Exception:
    """Return what a model raised as an error that a future can carry, and no fault of a client."""
    if isinstance(error, Exception) and not isinstance(error, (StopIteration, RequestError)):
        return error
    fault = RuntimeError(f"{type(error).__name__}: {error}")
    fault.__cause__ = error
    return fault


def _outcome(work: Callable[[], _T]) -> Future[_T]:
    """Return what some work came to, its result or its error."""
    done: Future[_T] = Future()
    try:
        done.set_result(work())
    except BaseException as error:
        done.set_exception(_fault(error))
    return done


def _errand_done(future: asyncio.Future[Any], done: Future[Any]) -> None:
    if future.done():
        return
    error = done.exception()
    if error is not None:
        future.set_exception(error)
    else:
        future.set_result(done.result())


def _later(seconds: float) -> dict[str, str]:
    return {"Retry-After": str(min(_LONGEST, max(1, math.ceil(seconds))))}


def _late() -> Refusal:
    return Refusal(504, "no answer within the timeout: ask with a longer one")
