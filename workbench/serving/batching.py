"""The one thread that a service's model works in, and the bounded line of requests before it.

A full line refuses at once: a service that answers late answers nobody.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

__all__ = ["FullError", "InferenceThread"]

_LINE = 64  # requests: those waiting and the one being answered

_Answer = TypeVar("_Answer")


class FullError(Exception):
    """The line of requests is full; the client is to come back later."""


class InferenceThread:
    """Runs one piece of work at a time off the event loop, in the order of arrival.

    `run` is called from one event loop only, so the count needs no lock.
    """

    def __init__(self) -> None:
        self._waiting = 0
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="workbench-inference")

    async def run(self, work: Callable[[], _Answer]) -> _Answer:
        """Return what `work` returns, once it is its turn.

        Raises:
            FullError: as many requests as may wait do already.
        """
        if self._waiting >= _LINE:
            raise FullError(f"{self._waiting} requests are waiting already")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._executor, work)
        finally:
            self._waiting -= 1

    def close(self) -> None:
        """Start nothing more; what is being answered ends by itself."""
        self._executor.shutdown(wait=False, cancel_futures=True)
