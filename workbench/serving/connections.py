"""A connection of HTTP/1.1 that bounds whatever its client decides: bytes, number and time.

The limits are those of a server on which strangers may knock: they hold before the token is asked
for. Nothing is timed per request; each connection looks once a second whether its client moves.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Callable, Hashable
from typing import TYPE_CHECKING, Any, cast

import httptools
from uvicorn.config import Config
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)
from uvicorn.server import ServerState

from workbench.serving.answers import Refusal
from workbench.serving.bodies import MAX_BODY

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

__all__ = [
    "LOOK_EVERY",
    "MAX_CHUNKS",
    "MAX_CONNECTIONS",
    "MAX_FRAMING",
    "MAX_HEAD",
    "MAX_PIPELINED",
    "MOVE_BYTES",
    "PATIENCE",
    "Connection",
]


def _half_of_the_files(most: int) -> int:
    """Return `most`, or half of what this process may open: the rest is the notebook's."""
    try:
        import resource
    except ImportError:  # Windows knows no such limit
        return most
    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return most if soft == resource.RLIM_INFINITY else min(most, soft // 2)


MAX_CONNECTIONS = _half_of_the_files(1_000)
MAX_HEAD = 64 * 2**10  # bytes of a request's first line and its headers
MAX_CHUNKS = 65_536  # of a body
MAX_FRAMING = 2**20  # bytes of a request that are neither its head nor its body
MAX_PIPELINED = 16  # requests that wait for the answer to the one before
MOVE_BYTES = 32 * 2**10  # that must come of a body, or be taken of an answer, in each patience
LOOK_EVERY = 1.0  # seconds
PATIENCE = {  # seconds that a client may stay in a state without moving
    "new": 10.0,  # nothing has come yet
    "head": 10.0,  # a head is not whole
    "body": 30.0,  # a body is not whole
    "rest": 30.0,  # a body that has its answer already
    "answer": 120.0,  # the client takes no answer; what the system holds hides small steps
    "idle": 75.0,  # between two requests; longer than proxies keep a connection
    "leaving": 2.0,  # it was refused, and may read why
    "served": math.inf,  # it waits for us
}

_CONTINUE = b"HTTP/1.1 100"
_TOLD = 100  # connections beyond the limit that are told so before they are closed
_NO_HTTP = "the bytes are no HTTP/1.1 request: ask by http://, since https:// is not spoken here"


class Connection(HttpToolsProtocol):
    """One client's connection; a request finds its own as `scope["workbench.connection"]`.

    Whoever answers a request may say by `when_gone` what to do if its client leaves.
    """

    def __init__(
        self,
        config: Config,
        server_state: ServerState,
        app_state: dict[str, Any],
        _loop: asyncio.AbstractEventLoop | None = None,
    ) -> None:
        super().__init__(config, server_state, app_state, _loop)
        self._answered: RequestResponseCycle | None = None  # the last whose answer was begun
        self._requests = 0  # begun, with the one that is being read
        self._in_head = self._in_body = False
        self._framing = self._taken = self._chunks = 0  # bytes, bytes and chunks of this request
        self._resumed = 0  # times that the client took what had piled up
        self._leaving = self._gone = False
        self._when_gone: Callable[[], None] | None = None
        self._seen: Hashable = None
        self._since = self.loop.time()

    # asyncio's side

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin; one connection too many is told so."""
        super().connection_made(transport)
        self._words = _Words(transport, self._close)
        self._timer = self.loop.call_later(LOOK_EVERY, self._look)
        if len(self.connections) > MAX_CONNECTIONS + _TOLD:
            transport.abort()
        elif len(self.connections) > MAX_CONNECTIONS:
            self._refuse(
                503, f"{MAX_CONNECTIONS} connections are open already: close some, or try again"
            )

    def connection_lost(self, exc: Exception | None) -> None:
        """End, and tell whoever was answering."""
        self._timer.cancel()
        self._drop()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._leaving:
            self._taken += len(data)
        else:
            self._framing += len(data)
            self._parse(data)
        if self._taken > 2 * MAX_BODY and not self._is_answering:  # nobody reads it any more
            self.transport.abort()

    def resume_writing(self) -> None:
        """Note that the client takes its answer."""
        self._resumed += 1
        super().resume_writing()

    # The parser's side

    def on_message_begin(self) -> None:
        """Begin with a request."""
        if len(self.pipeline) >= MAX_PIPELINED:
            raise Refusal(
                400, f"more than {MAX_PIPELINED} requests before an answer: wait for the answers"
            )
        self._requests += 1
        self._in_head = True
        self._framing = self._taken = self._chunks = 0
        super().on_message_begin()

    def on_headers_complete(self) -> None:
        """Let the application answer, if the head is as it should be."""
        self._in_head = False
        _check_head(self.url, self.headers)
        if self.parser.should_upgrade():
            if self.parser.get_method() == b"CONNECT":
                raise Refusal(400, "CONNECT is not offered: this is a service, and no proxy")
            return  # the parser stops here, and `_stay` goes on
        self._in_body = True
        self.scope["workbench.connection"] = self  # type: ignore[typeddict-unknown-key]
        super().on_headers_complete()
        self.flow.resume_reading()  # also behind a request in the row, so that we hear who leaves
        self.headers = cast(list[tuple[bytes, bytes]], deque(maxlen=0))  # trailers are let fall
        if self.expect_100_continue:
            self.cycle.keep_alive = False  # a refused client may send the body or not: who knows
        self.cycle.transport = cast(asyncio.Transport, self._words)

    def on_chunk_header(self) -> None:
        """Count a chunk."""
        self._chunks += 1
        if self._chunks > MAX_CHUNKS:
            raise Refusal(400, f"the body has more than {MAX_CHUNKS} chunks: send larger ones")

    def on_body(self, body: bytes) -> None:
        """Count and keep a part of the body."""
        self._framing -= len(body)
        self._taken += len(body)
        super().on_body(body)

    def on_message_complete(self) -> None:
        """Note that a request is whole."""
        if not self.parser.should_upgrade():
            self._in_body = False
            super().on_message_complete()

    # uvicorn's side

    def on_response_complete(self) -> None:
        """Go on with the next request."""
        self.server_state.total_requests += 1
        self._when_gone = None
        if not self.transport.is_closing():
            self._words.end()
        if self._leaving or self.transport.is_closing():
            return
        self.flow.resume_reading()
        if self.pipeline:
            self._start_asgi_task(*self.pipeline.pop())

    def shutdown(self) -> None:
        """Close after the answer, or now where no request is whole."""
        if self._state() in ("head", "body"):
            self._refuse(503, "the service is stopping: ask again in a moment")
        if self._leaving:
            self.transport.close()
        else:
            super().shutdown()

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._answered = cycle
        super()._start_asgi_task(cycle, app)

    # Our own

    def when_gone(self, callback: Callable[[], None] | None) -> None:
        """Let `callback` be called once if the client leaves before its answer is whole.

        Args:
            callback: in the place of the one before; called soon where the client has left already.
                None for none.
        """
        self._when_gone = callback
        if self._gone and callback is not None:
            self.loop.call_soon(self._tell)

    def _tell(self) -> None:
        callback, self._when_gone = self._when_gone, None
        if callback is not None:
            callback()

    @property
    def _is_answering(self) -> bool:
        return self._answered is not None and not self._answered.response_complete

    def _parse(self, data: bytes) -> None:
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as upgrade:
            self._stay(data[upgrade.args[0] :])
        except httptools.HttpParserCallbackError as error:
            cause = error.__context__
            refusal = cause if isinstance(cause, Refusal) else Refusal(400, _NO_HTTP)
            self._refuse(refusal.status, refusal.reason)
        except httptools.HttpParserError as error:
            self._refuse(400, f"{_NO_HTTP} ({error})")
        else:
            if self._in_head and self._framing > MAX_HEAD:
                self._refuse(431, _large_head())
            elif self._framing > MAX_FRAMING:
                self._refuse(
                    400, f"the body's chunks hold over {MAX_FRAMING} bytes beside the data"
                )

    def _stay(self, rest: bytes) -> None:
        """Go on in HTTP/1.1 with a request that offers another protocol, as Java's clients do."""
        ours = [(k, v) for k, v in self.headers if k not in (b"connection", b"upgrade")]
        line = b"%s %s HTTP/%s" % (
            self.parser.get_method(), self.url, self.parser.get_http_version().encode(),
        )  # fmt: skip
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn does
        head = b"\r\n".join([line, *(k + b": " + v for k, v in ours), b"", b""])
        self._parse(head + rest)

    def _refuse(self, status: int, reason: str) -> None:
        """Say why in the application's place, and close."""
        answered = self._answered
        if answered and answered.response_started and not answered.response_complete:
            self.transport.abort()  # half an answer is out, and nothing can follow it
            return
        body = Refusal(status, reason).answer().body
        lines = [
            STATUS_LINE[status],
            *(b"%s: %s\r\n" % header for header in self.server_state.default_headers),
            b"content-type: application/json\r\ncontent-length: %d\r\n" % len(body),
            b"connection: close\r\n\r\n",
            body,
        ]
        self.transport.write(b"".join(lines))
        self._leave()

    def _close(self) -> None:
        """Close after an answer, its client having been heard out."""
        if self._in_body:
            self._leave()
        else:
            self.transport.close()

    def _leave(self) -> None:
        """Say no more, but read on for a while: who is still sending would not hear the end."""
        self._leaving = True
        self._drop()
        self.flow.resume_reading()
        if self.transport.can_write_eof():
            self.transport.write_eof()

    def _drop(self) -> None:
        """Let go of the requests that will have no answer."""
        self._gone = True
        self.pipeline.clear()
        if self._answered is not None and self._is_answering:
            self._answered.disconnected = True
            self._answered.message_event.set()
            self._tell()
        self._answered = None

    def _look(self) -> None:
        """End the connection where its client has not moved for too long."""
        self._timer = self.loop.call_later(LOOK_EVERY, self._look)
        state, now = self._state(), self.loop.time()
        left = self.transport.get_write_buffer_size()
        moved = (self._requests, self._taken // MOVE_BYTES, self._resumed, left // MOVE_BYTES)
        if (state, moved) != self._seen:
            self._seen, self._since = (state, moved), now
        elif now - self._since >= PATIENCE[state]:
            self._end(state)

    def _end(self, state: str) -> None:
        """End the connection, whose client was in that state for too long."""
        seconds = PATIENCE[state]
        if state == "head":
            self._refuse(408, f"the request's head was not whole within {seconds:g} s")
        elif state == "body":
            self._refuse(408, f"less than {MOVE_BYTES} bytes of the body came in {seconds:g} s")
        elif state in ("new", "idle"):
            self.transport.close()
        else:
            self.transport.abort()

    def _state(self) -> str:
        """Return what the connection waits for, in a word of `PATIENCE`."""
        if self.flow.write_paused or self.transport.is_closing():
            return "answer"
        if self._leaving:
            return "leaving"
        in_body = self._in_body and self.cycle is self._answered
        if self.flow.read_paused or (self._is_answering and not in_body):
            return "served"
        if in_body:
            return "body" if self._is_answering else "rest"
        if self._in_head:
            return "head"
        return "idle" if self._requests else "new"


class _Words:
    """What a cycle takes for the transport: an answer's head goes with the first of its body.

    One packet instead of two; a client that waits on another thread wakes once. What closes the
    connection after a last answer is the connection's to say.
    """

    def __init__(self, transport: asyncio.Transport, close: Callable[[], None]) -> None:
        self._write, self._close = transport.write, close
        self.is_closing = transport.is_closing
        self._head: bytes | None = None
        self._begun = False

    def write(self, data: bytes) -> None:
        """Send a part of an answer, or hold its head until the next part."""
        if self._begun:
            head, self._head = self._head, None
            self._write(data if head is None else head + data)
        elif data.startswith(_CONTINUE):
            self._write(data)
        else:
            self._head, self._begun = data, True

    def end(self) -> None:
        """Be ready for the next answer; one without a body goes out now."""
        head, self._head, self._begun = self._head, None, False
        if head is not None:
            self._write(head)

    def close(self) -> None:
        """Close the connection after its last answer."""
        self.end()
        self._close()


def _check_head(url: bytes, headers: list[tuple[bytes, bytes]]) -> None:
    """Refuse a head that is too large, or a body in another coding than chunks."""
    size = len(url)
    for name, value in headers:
        size += len(name) + len(value)
        if name == b"transfer-encoding" and value.lower() != b"chunked":
            raise Refusal(501, "Transfer-Encoding is offered as chunked alone: send the body so")
    if size > MAX_HEAD:
        raise Refusal(431, _large_head())


def _large_head() -> str:
    return f"the request line and its headers are larger than {MAX_HEAD} bytes: send fewer"
