"""An open-loop client: requests that arrive when they arrive, whether or not the last was answered.

Latency is counted from the moment at which a request was to arrive, so neither a slow server nor a
slow client hides behind requests that were not sent yet. Every answer is checked.
"""

from __future__ import annotations

import asyncio
import gc
import json
import random
import select
import selectors
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Outcome", "at_once", "offer", "poisson"]

CONNECTIONS = 1000  # open at once; who arrives when all are busy is turned away unsent
TOLERANCE = 1e-5  # of the largest magnitude of an answer, at least 1


@dataclass(frozen=True)
class Outcome:
    """What became of the arrivals that count.

    Args:
        asked: arrivals that count.
        good: answered right and in time.
        late: not answered in time.
        refused: answered with a status other than 200.
        lost: whose connection broke or could not be made.
        unsent: that found all connections busy.
        wrong: answered with other numbers than the model's.
        seconds: from the first arrival to the last.
        p50_ms: of the good ones; None where there are none.
        p99_ms: of the good ones; None where there are none.
        client_cpu: this program's own share of one core.
        client_lag_ms: how much later than due a request was sent, the 99th percentile.
    """

    asked: int
    good: int
    late: int
    refused: int
    lost: int
    unsent: int
    wrong: int
    seconds: float
    p50_ms: float | None
    p99_ms: float | None
    client_cpu: float
    client_lag_ms: float | None


def poisson(rate: float, seconds: float, *, seed: int = 0) -> list[float]:
    """Return the moments, in seconds, at which independent clients arrive, `rate` a second."""
    source, moment, moments = random.Random(seed), 0.0, []
    while (moment := moment + source.expovariate(rate)) < seconds:
        moments.append(moment)
    return moments


def at_once(count: int) -> list[float]:
    """Return the moments of so many that arrive together."""
    return [0.0] * count


def offer(
    port: int,
    requests: Sequence[bytes],
    expected: Sequence[Sequence[float]],
    moments: Sequence[float],
    *,
    deadline: float = 1.0,
    settling: float = 0.0,
) -> Outcome:
    """Send the requests in turn, each at its moment, and return what became of them.

    Args:
        port: of the server, on this machine.
        requests: whole, headers and body.
        expected: the right answer to each of them.
        moments: in seconds from now, in order.
        deadline: seconds from a request's moment after which its client has left.
        settling: seconds at the start whose arrivals do not count.
    """
    run = _Run(port, requests, expected, moments, deadline, settling)
    collecting = gc.isenabled()
    gc.disable()
    try:
        with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(_Fine())) as runner:
            return runner.run(run.outcome())
    finally:
        if collecting:
            gc.enable()


class _Fine(selectors.EpollSelector):
    """Wakes within microseconds of when it should; epoll alone knows only milliseconds."""

    def select(self, timeout: float | None = None) -> Any:
        if timeout is not None and timeout > 0:
            select.select([self.fileno()], [], [], timeout)
            timeout = 0
        return super().select(timeout)


class _Asked:
    """One arrival: its moment, which request it is, and whether it is settled."""

    __slots__ = ("connection", "due", "settled", "which")

    def __init__(self, due: float, which: int) -> None:
        self.due, self.which, self.settled = due, which, False
        self.connection: _Connection | None = None


class _Run:
    """The arrivals of one run and the connections they share, the last used first."""

    def __init__(
        self,
        port: int,
        requests: Sequence[bytes],
        expected: Sequence[Sequence[float]],
        moments: Sequence[float],
        deadline: float,
        settling: float,
    ) -> None:
        self.port, self.requests, self.expected = port, requests, expected
        self.moments, self.deadline, self.settling = moments, deadline, settling
        self.idle: list[_Connection] = []
        self.open = self.next = 0
        self.under_way: deque[_Asked] = deque()
        self.count: Counter[str] = Counter()
        self.latencies: list[float] = []
        self.lags: list[float] = []
        self.connecting: set[asyncio.Task[None]] = set()

    async def outcome(self) -> Outcome:
        """Let all arrive, wait until each is settled, and return what was counted."""
        self.loop = asyncio.get_running_loop()
        self.finished = asyncio.Event()
        self.began = self.loop.time() + 0.01
        worked = time.process_time()
        self.loop.call_at(self.began, self.tick)
        await self.finished.wait()
        worked, took = time.process_time() - worked, self.loop.time() - self.began
        for connection in list(self.idle):
            connection.transport.abort()
        count, latencies = self.count, sorted(self.latencies)
        counted = [moment for moment in self.moments if moment >= self.settling]
        return Outcome(
            asked=len(counted),
            **{key: count[key] for key in ("good", "late", "refused", "lost", "unsent", "wrong")},
            seconds=counted[-1] - counted[0],
            p50_ms=_quantile_ms(latencies, 0.5),
            p99_ms=_quantile_ms(latencies, 0.99),
            client_cpu=worked / took,
            client_lag_ms=_quantile_ms(sorted(self.lags), 0.99),
        )

    def tick(self) -> None:
        """Send what is due, give up what is late, and come again when the next is due."""
        moments, now = self.moments, self.loop.time() - self.began
        while self.next < len(moments) and moments[self.next] <= now:
            self.arrive(_Asked(moments[self.next], self.next % len(self.requests)), now)
            self.next += 1
        line = self.under_way
        while line and (line[0].settled or line[0].due + self.deadline < now):
            asked = line.popleft()
            if self.settle(asked, "late") and asked.connection is not None:
                asked.connection.transport.abort()
        if self.next < len(moments):
            self.loop.call_at(self.began + moments[self.next], self.tick)
        elif line:
            self.loop.call_later(0.005, self.tick)
        else:
            self.finished.set()

    def arrive(self, asked: _Asked, now: float) -> None:
        """Send one request over a connection that is free, or over a new one."""
        self.lags.append(now - asked.due)
        if self.idle:
            self.idle.pop().ask(asked)
        elif self.open < CONNECTIONS:
            self.open += 1
            task = self.loop.create_task(self.connect(asked))
            self.connecting.add(task)
            task.add_done_callback(self.connecting.discard)
        else:
            self.settle(asked, "unsent")
            return
        self.under_way.append(asked)

    async def connect(self, asked: _Asked) -> None:
        """Open a connection for one that arrived."""
        try:
            _, connection = await self.loop.create_connection(
                lambda: _Connection(self), "127.0.0.1", self.port
            )
        except OSError:
            self.open -= 1
            self.settle(asked, "lost")
            return
        if asked.settled:  # it took too long
            connection.transport.abort()
        else:
            connection.ask(asked)

    def settle(self, asked: _Asked, how: str) -> bool:
        """Count one that is settled now; return False where it was settled before."""
        if asked.settled:
            return False
        asked.settled = True
        self.count[how] += asked.due >= self.settling
        return True

    def answered(self, asked: _Asked, status: int, body: bytes) -> None:
        """Count an answer."""
        latency = self.loop.time() - self.began - asked.due
        if status != 200:
            how = "refused"
        elif not _is_right(body, self.expected[asked.which]):
            how = "wrong"
        else:
            how = "good" if latency <= self.deadline else "late"
        if self.settle(asked, how) and how == "good" and asked.due >= self.settling:
            self.latencies.append(latency)


class _Connection(asyncio.Protocol):
    """One connection, with at most one request under way."""

    transport: asyncio.Transport

    def __init__(self, run: _Run) -> None:
        self.run, self.read = run, b""
        self.asked: _Asked | None = None

    def ask(self, asked: _Asked) -> None:
        """Send a request."""
        self.asked, self.read, asked.connection = asked, b"", self
        self.transport.write(self.run.requests[asked.which])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep what to write to."""
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        """Read on; once the answer is whole, count it and be free for the next."""
        self.read += data
        end = self.read.find(b"\r\n\r\n") + 4
        if end < 4 or self.asked is None:
            return
        head = self.read[:end].lower()
        at = head.index(b"content-length:") + 15
        size = int(head[at : head.index(b"\r", at)])
        if len(self.read) < end + size:
            return
        asked, self.asked = self.asked, None
        self.run.answered(asked, int(head[9:12]), self.read[end : end + size])
        if b"connection: close" not in head:
            self.run.idle.append(self)

    def connection_lost(self, error: Exception | None) -> None:
        """Count what was under way as lost."""
        self.run.open -= 1
        if self in self.run.idle:
            self.run.idle.remove(self)
        if self.asked is not None:
            self.run.settle(self.asked, "lost")


def _is_right(body: bytes, expected: Sequence[float]) -> bool:
    """Return whether an answer holds the expected numbers, whichever server wrote it."""
    try:
        said = json.loads(body)
        if isinstance(said, dict):
            found = said["outputs"][0]["data"] if "outputs" in said else said["output"]
        else:
            (found,) = said
        bound = TOLERANCE * max(1.0, *map(abs, expected))
        pairs = zip(found, expected, strict=True)
        return all(abs(number - right) <= bound for number, right in pairs)
    except (ValueError, KeyError, IndexError, TypeError):
        return False


def _quantile_ms(seconds: Sequence[float], share: float) -> float | None:
    """Return a quantile of sorted values in milliseconds."""
    if not seconds:
        return None
    return 1e3 * seconds[min(int(share * len(seconds)), len(seconds) - 1)]
