"""A server of one small application, and bytes sent to it as no client would."""

from __future__ import annotations

import json
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from typing import Any

import psutil
import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from workbench.serving.answers import Refusal, json_answer
from workbench.serving.bodies import packed, read_body
from workbench.serving.connections import Connection

__all__ = ["LARGE", "Reply", "Wire", "connect", "echo", "growth", "listening", "say", "waits"]

LARGE = 24 * 2**20  # characters of the answer that `echo` has at /large


class Reply:
    """One answer, read to its end.

    Args:
        status: in HTTP's numbers.
        headers: by their names in lower case; of several of a name the last.
        body: as it came.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        """The body, read as JSON."""
        return json.loads(self.body)

    @property
    def error(self) -> str:
        """The reason given, the body having nothing beside it."""
        assert self.headers["content-type"] == "application/json"
        assert list(self.json) == ["error"]
        return str(self.json["error"])


async def echo(scope: Scope, receive: Receive, send: Send) -> None:
    """Say what was asked, how large the body was, and which headers came."""
    try:
        body = await read_body(scope, receive)
    except Refusal as refusal:
        return await refusal.answer().send(send)
    except ClientDisconnect:
        return None
    headers = [name.decode() for name, _ in scope["headers"]]
    told = {"asked": f"{scope['method']} {scope['path']}", "size": len(body), "headers": headers}
    if scope["path"] == "/large":
        told["zeros"] = "0" * LARGE
    return await packed(json_answer(told), scope).send(send)


@contextmanager
def listening(app: ASGIApp = echo, loop: str = "uvloop") -> Iterator[int]:
    """Answer with an application in a thread, and give the port."""
    config = uvicorn.Config(
        app, http=Connection, loop=loop, ws="none", lifespan="off", log_config=None,
        access_log=False, proxy_headers=False, timeout_graceful_shutdown=5,
    )  # fmt: skip
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
    thread = threading.Thread(target=server.run, args=([listener],))
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        server.should_exit = True
        thread.join(20)
        listener.close()
        assert not thread.is_alive()


class Wire:
    """A connection, and what comes by it."""

    def __init__(self, raw: socket.socket) -> None:
        self.raw, self._file = raw, raw.makefile("rb")
        self.send = raw.sendall

    def close(self) -> None:
        """Leave."""
        self._file.close()
        self.raw.close()

    def read(self) -> Reply:
        """Return the next answer, those with status 100 being passed over."""
        while (line := self._file.readline()).startswith(b"HTTP/1.1 100"):
            self._file.readline()
        status = re.match(rb"HTTP/1\.1 (\d{3}) ", line)
        assert status, f"no answer but {line!r}"
        headers = {}
        while (line := self._file.readline()) != b"\r\n":
            name, value = line.decode("latin-1").split(":", 1)
            headers[name.lower()] = value.strip()
        return Reply(int(status[1]), headers, self._file.read(int(headers["content-length"])))

    def ends(self) -> bool:
        """Return whether the server ends it without another word."""
        try:
            return self._file.read(1) == b""
        except ConnectionError:
            return True


@contextmanager
def connect(port: int, *parts: bytes) -> Iterator[Wire]:
    """Open a connection, having sent some bytes."""
    with closing(Wire(socket.create_connection(("127.0.0.1", port), timeout=10))) as wire:
        for part in parts:
            wire.send(part)
        yield wire


def say(port: int, *parts: bytes) -> Reply:
    """Return the answer to some bytes on a connection of their own."""
    with connect(port, *parts) as wire:
        return wire.read()


def waits(until: Callable[[], bool], seconds: float = 10) -> bool:
    """Return whether something comes true in time."""
    end = time.monotonic() + seconds
    while not (came := until()) and time.monotonic() < end:
        time.sleep(0.01)
    return came


@contextmanager
def growth(most: int) -> Iterator[None]:
    """Fail where this process has more memory afterwards than before, by more than `most` bytes."""
    process = psutil.Process()
    before = process.memory_info().rss
    yield
    grown = process.memory_info().rss - before
    assert grown < most, f"{grown / 2**20:.1f} MiB more"
