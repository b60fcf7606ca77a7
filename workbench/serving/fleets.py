"""`Fleet`: the processes that answer for one service, as one of them sees them.

They share nothing but the ledger: each writes down what it has counted, reads what the others have,
and carries the orders out in one sequence. A process that comes later carries out all of them.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TypeVar

import psutil

from workbench.errors import ServiceError, TamperedError
from workbench.registry.ledgers import Ledger
from workbench.serving.answers import Refusal
from workbench.serving.orders import Orders
from workbench.serving.tallies import added
from workbench.types import JSON

__all__ = ["Fleet"]

_PATIENCE = 30.0  # seconds for the others to carry an order out
_LOOK_EVERY = 0.05  # seconds between two looks at whether they have
_ORDERS_EVERY = 0.25  # seconds between two looks at what is ordered
_HEARTBEAT = 5.0  # seconds after which counts are written again that have not changed
_CLERKS = 2  # threads that ask ledgers, each of which may have to wait for another process
_LINE = 32  # requests that may wait for them

_log = logging.getLogger("workbench.serving")

_T = TypeVar("_T")


class Fleet:
    """The processes of a service.

    Args:
        orders: carries them out here.
        counts: returns what was counted here so far.
        ledger: of the service; None where this process is all there is.
    """

    def __init__(
        self, orders: Orders, counts: Callable[[], JSON], *, ledger: Ledger | None = None
    ) -> None:
        self._orders, self._own_counts, self._ledger = orders, counts, ledger
        self._began = psutil.Process().create_time()
        self._applied = 0
        self._reported: tuple[JSON, int] | None = None
        self._due = 0.0  # when it is reported again, whether or not it has changed
        self._all_proven = ledger is None
        self._clerks = _Clerks("workbench-ledger", _CLERKS)
        self._loader = _Clerks("workbench-load", 1)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workbench-orders", daemon=True)

    def start(self) -> None:
        """Begin to carry out what is ordered, in a thread of its own: a model may take long."""
        if self._ledger is not None:
            self._thread.start()

    def close(self) -> None:
        """Carry out no more."""
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join(10)
        self._clerks.close()
        self._loader.close()

    def tick(self) -> None:
        """Carry out what was ordered meanwhile, and write down what was counted."""
        self.obey()
        self.report()

    def obey(self) -> None:
        """Carry out what was ordered meanwhile."""
        if self._ledger is None:
            return
        last = self._ledger.last_order()
        self._applied = min(self._applied, last)  # less: a damaged ledger was moved away
        for number, order in self._ledger.orders(self._applied):
            try:
                self._orders.carry_out(order)
            except Exception as error:  # whoever gave it had checked it: the registry has changed
                _log.error("the order %s was not carried out: %s", order, error)
            self._applied = number

    def report(self) -> None:
        """Write down what was counted, if that has changed, or nothing was for some seconds."""
        now = self._own_counts(), self._applied
        if self._ledger is None or (now == self._reported and time.monotonic() < self._due):
            return
        self._ledger.report(os.getpid(), self._began, snapshot=now[0], proven=True, applied=now[1])
        self._reported, self._due = now, time.monotonic() + _HEARTBEAT

    async def ask(self, work: Callable[..., _T], *given: Any) -> _T:
        """Return what `work` makes of `given`, which reads or writes a ledger.

        It is done by one of a few threads that do nothing else, since it may have to wait for
        another process; inferences never wait for it.

        Raises:
            Refusal: 503, too many wait already.
        """
        return await self._clerks.ask(work, *given)

    async def is_proven(self) -> bool:
        """Return whether every process that the service began with has answered once."""
        if not self._all_proven and self._ledger is not None:
            try:
                self._all_proven = await self.ask(self._ledger.unproven) == 0
            except (ServiceError, TamperedError):
                return True  # nothing is known of the others, and this one answers
        return self._all_proven

    def counts(self) -> JSON:
        """Return what all have counted: this process by now, the others by their last tick.

        While the ledger cannot be read, it is what this process has counted.
        """
        whole = {**self._own_counts(), "workers": 1}
        for other in self._others():
            whole = added(whole, other)
        return whole

    async def check(self, order: JSON) -> None:
        """Raise where an order cannot be carried out; a version that it needs is here then.

        Raises:
            RequestError: it cannot be.
        """
        await self._loader.ask(self._orders.check, order)

    async def give(self, order: JSON) -> bool:
        """Return whether all have carried an order out in time; who has not still will.

        Raises:
            RequestError: it cannot be.
            ServiceError: it could not be written down, and nobody will.
        """
        await self.check(order)
        if self._ledger is None:
            await self._loader.ask(self._orders.carry_out, order)
            return True
        return await self._is_followed(await self.ask(self._ledger.order, order))

    async def carry_out(self, order: JSON) -> None:
        """Have an order carried out by all, and return once they have.

        Raises:
            RequestError: it cannot be.
            ServiceError: a process has not done so in time; it still will.
        """
        if not await self.give(order):
            raise ServiceError(
                f"the order is taken, and not every process has carried it out within "
                f"{_PATIENCE:g} s: GET /v2/repository/index says what each has"
            )

    async def _is_followed(self, number: int) -> bool:
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            with contextlib.suppress(Refusal, ServiceError, TamperedError):  # the order is taken
                if await self.ask(self._have_applied, number):
                    return True
            await asyncio.sleep(_LOOK_EVERY)
        return False

    def _have_applied(self, number: int) -> bool:
        assert self._ledger is not None
        return all(w["applied"] >= number for w in self._ledger.workers() if _lives(w))

    def _others(self) -> list[JSON]:
        try:
            known = [] if self._ledger is None else self._ledger.workers()
        except (ServiceError, TamperedError):
            return []
        own = os.getpid(), self._began
        return [_counted(worker) for worker in known if (worker["pid"], worker["began"]) != own]

    def _run(self) -> None:
        while not self._ended.wait(_ORDERS_EVERY):
            with contextlib.suppress(Exception):  # of the ledger; `report` says the same of it
                self.obey()


class _Clerks:
    """Threads that do what may take long, and a line before them that is not endless."""

    def __init__(self, name: str, count: int) -> None:
        self._threads = ThreadPoolExecutor(count, thread_name_prefix=name)
        self._count, self._asked = count, 0

    async def ask(self, work: Callable[..., _T], *given: Any) -> _T:
        if self._asked >= self._count + _LINE:
            reason = "the service's ledger is busy: try again in a moment"
            raise Refusal(503, reason, {"Retry-After": "1"})
        self._asked += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, work, *given)
        finally:
            self._asked -= 1

    def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _lives(worker: JSON) -> bool:
    """Return whether a worker's process lives; its number may be another's by now."""
    try:
        return bool(psutil.Process(worker["pid"]).create_time() == worker["began"])
    except psutil.Error:
        return False


def _counted(worker: JSON) -> JSON:
    """Return what another worker has counted; of one that is gone, nothing waits any more."""
    told = worker["snapshot"]
    if _lives(worker):
        return {**told, "workers": 1}
    return {**told, "line": {**told["line"], "waiting": 0, "oldest": 0.0}, "workers": 0}
