"""`Fleet`: the processes that answer for one service, as one of them sees them.

They share nothing but the ledger: each writes down what it has counted, reads what the others have,
and carries the orders out in one sequence. A process that comes later carries out all of them.
"""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable

import psutil

from workbench.errors import ServiceError, TamperedError
from workbench.registry.ledgers import Ledger
from workbench.serving.orders import Orders
from workbench.serving.tallies import added
from workbench.types import JSON

__all__ = ["Fleet"]

_PATIENCE = 30.0  # seconds for the others to carry an order out
_LOOK_EVERY = 0.05  # seconds

_log = logging.getLogger("workbench.serving")


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
        self._applied = 0
        self._all_proven = ledger is None

    def tick(self) -> None:
        """Carry out what was ordered meanwhile, and write down what was counted."""
        if self._ledger is None:
            return
        for number, order in self._ledger.orders(self._applied):
            try:
                self._orders.carry_out(order)
            except Exception as error:  # whoever gave it had checked it: the registry has changed
                _log.error("the order %s was not carried out: %s", order, error)
            self._applied = number
        self._ledger.report(
            os.getpid(), snapshot=self._own_counts(), proven=True, applied=self._applied
        )

    def is_proven(self) -> bool:
        """Return whether every process that the service began with has answered once."""
        if not self._all_proven and self._ledger is not None:
            try:
                self._all_proven = self._ledger.unproven() == 0
            except (
                ServiceError,
                TamperedError,
            ):  # nothing is known of the others; this one answers
                return True  # nothing is known of the others, and this one answers
        return self._all_proven

    def counts(self) -> JSON:
        """Return what all have counted: this process by now, the others by their last tick."""
        whole = {**self._own_counts(), "workers": 1}
        others = self._ledger.workers() if self._ledger is not None else []
        for other in others:
            if other["pid"] != os.getpid():
                lives = psutil.pid_exists(other["pid"])
                whole = added(whole, {**other["snapshot"], "workers": int(lives)})
        return whole

    async def give(self, order: JSON) -> None:
        """Have an order carried out by all, and return once they have.

        Raises:
            RequestError: it cannot be.
            ServiceError: a process has not done so in time; it still will.
        """
        await asyncio.to_thread(self._orders.check, order)
        if self._ledger is None:
            await asyncio.to_thread(self._orders.carry_out, order)
        else:
            await asyncio.to_thread(self._hand_round, self._ledger, order)

    def _hand_round(self, ledger: Ledger, order: JSON) -> None:
        number = ledger.order(order)
        until = time.monotonic() + _PATIENCE
        while time.monotonic() < until:
            living = [w for w in ledger.workers() if psutil.pid_exists(w["pid"])]
            if all(worker["applied"] >= number for worker in living):
                return
            time.sleep(_LOOK_EVERY)
        raise ServiceError(
            f"the order is taken, and not every process has carried it out within {_PATIENCE:g} s: "
            "GET /v2/repository/index says what each has"
        )
