"""The access log: a line of JSON for every request, also for one that the guard refused.

A thread of its own writes it: where nobody reads the stream, that thread alone waits, and the
oldest lines go.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import IO

import msgspec
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from workbench.journal import now
from workbench.types import JSON

__all__ = ["AccessLog"]

_PATH = 200  # letters of a path that are kept
_MOST = 32_768  # lines that wait to be written
_EVERY = 0.25  # seconds between two writes
_LAST = 2.0  # seconds that the last lines may take


class AccessLog:
    """An ASGI application that passes on to `app` and writes a line of each request.

    Neither what the headers nor what the bodies hold is in it.

    Args:
        app: what answers.
        stream: that the lines go to.
    """

    def __init__(self, app: ASGIApp, stream: IO[str]) -> None:
        self._app, self._stream = app, stream
        self._lines: deque[JSON] = deque(maxlen=_MOST)
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workbench-access", daemon=True)
        self._thread.start()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        begun = time.perf_counter()
        status, size = 0, 0

        async def counting(message: Message) -> None:
            nonlocal status, size
            status = message.get("status", status)
            size += len(message.get("body", b""))
            await send(message)

        try:
            await self._app(scope, receive, counting)
        finally:
            request = scope.get("workbench.request")
            self._lines.append(
                {
                    "time": now(),
                    "id": request.id if request else None,
                    "client": (scope.get("client") or [None])[0],
                    "method": scope["method"],
                    "path": scope["path"][:_PATH],
                    "status": status or None,  # None: the client left before its answer
                    "seconds": round(time.perf_counter() - begun, 6),
                    "bytes": size,
                    "model": request.model if request else None,
                }
            )

    def close(self) -> None:
        """Write the last lines, if they can be written soon."""
        self._ended.set()
        self._thread.join(_LAST)

    def _run(self) -> None:
        while not self._ended.wait(_EVERY):
            self._write()
        self._write()

    def _write(self) -> None:
        lines = [self._lines.popleft() for _ in range(len(self._lines))]
        if lines:
            with contextlib.suppress(OSError, ValueError):  # the disk is full, or it is closed
                self._stream.write(
                    "".join(f"{msgspec.json.encode(line).decode()}\n" for line in lines)
                )
                self._stream.flush()
