"""Connections: whatever a client sends, slowly, wrongly or without end, the server lives on."""

from __future__ import annotations

import asyncio
import contextlib
import http.client
import random
import select
import socket
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from functools import partial
from itertools import chain, repeat

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listening import LARGE, connect, echo, growth, listening, say, waits
from starlette.types import Receive, Scope, Send

from workbench.serving import connections
from workbench.serving.bodies import MAX_BODY
from workbench.serving.connections import MAX_CHUNKS, MAX_CONNECTIONS, MAX_HEAD, MAX_PIPELINED

GET = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: a\r\n"
CHUNKED = POST + b"Transfer-Encoding: chunked\r\n\r\n"
MIB = 2**20


@pytest.fixture(scope="module", params=[pytest.param("asyncio", marks=pytest.mark.full), "uvloop"])
def port(request: pytest.FixtureRequest) -> Iterator[int]:
    with listening(loop=request.param) as port:
        yield port
        assert say(port, GET).status == 200


@pytest.fixture
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a client lose our patience in a fifth of a second."""
    monkeypatch.setattr(connections, "LOOK_EVERY", 0.02)
    for state in ("new", "head", "body", "rest", "answer", "idle", "leaving"):
        monkeypatch.setitem(connections.PATIENCE, state, 0.2)


MALFORMED = {
    "no HTTP": b"hello\r\n\r\n",
    "TLS": bytes.fromhex("16030102000100"),
    "HTTP/2": b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    "no version": b"GET / HTTP/x\r\n\r\n",
    "no method": b"STRANGE / HTTP/1.1\r\nHost: a\r\n\r\n",
    "no path": b"GET ?x HTTP/1.1\r\nHost: a\r\n\r\n",
    "no path but a host": b"GET http://a HTTP/1.1\r\nHost: a\r\n\r\n",
    "a path in Latin-1": b"GET /\xe9 HTTP/1.1\r\nHost: a\r\n\r\n",
    "bare line feeds": b"GET / HTTP/1.1\nHost: a\n\n",
    "a folded header": b"GET / HTTP/1.1\r\nHost: a\r\n b\r\n\r\n",
    "a header with a zero": b"GET / HTTP/1.1\r\nHost: a\0\r\n\r\n",
    "a space before the colon": POST + b"Content-Length : 3\r\n\r\nabc",
    # What two servers in a row might understand in two ways:
    "length and chunks": POST + b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "chunks and length": POST + b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n0\r\n\r\n",
    "two lengths": POST + b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "lengths in one": POST + b"Content-Length: 3, 3\r\n\r\nabc",
    "a length with a sign": POST + b"Content-Length: +3\r\n\r\nabc",
    "a length below zero": POST + b"Content-Length: -3\r\n\r\nabc",
    "a length without end": POST + b"Content-Length: " + b"9" * 30 + b"\r\n\r\nabc",
    "an empty length": POST + b"Content-Length:\r\n\r\nabc",
    "chunked twice": POST + b"Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n",
    "not chunked at last": POST + b"Transfer-Encoding: chunked, gzip\r\n\r\n0\r\n\r\n",
    "nearly chunked": POST + b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "identity and length": POST + b"Transfer-Encoding: identity\r\nContent-Length: 3\r\n\r\nabc",
    "a chunk below zero": CHUNKED + b"-3\r\nabc\r\n0\r\n\r\n",
    "a chunk in C": CHUNKED + b"0x3\r\nabc\r\n0\r\n\r\n",
    "a chunk too long": CHUNKED + b"3\r\nabcd\r\n0\r\n\r\n",
    "a chunk without end": CHUNKED + b"f" * 17 + b"\r\nabc\r\n0\r\n\r\n",
    "a chunk with a line feed": CHUNKED + b"3\nabc\r\n0\r\n\r\n",
}


@pytest.mark.parametrize("sent", MALFORMED.values(), ids=list(MALFORMED))
def test_what_is_no_request_is_told_so(port: int, sent: bytes) -> None:
    with connect(port, sent) as wire:
        answer = wire.read()
        assert (answer.status, answer.headers["connection"]) in [(400, "close"), (501, "close")]
        assert answer.error.startswith(
            ("the bytes are no HTTP/1.1 request: ask by http://", "Tran")
        )
        assert wire.ends()
    assert say(port, GET).status == 200


def test_the_parser_s_own_reason_is_told(port: int) -> None:
    answer = say(port, MALFORMED["two lengths"])
    assert answer.error.endswith("https:// is not spoken here (Duplicate Content-Length)")


def test_another_coding_than_chunks_is_not_offered(port: int) -> None:
    answer = say(port, POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n")
    assert answer.status == 501
    assert answer.error.startswith("Transfer-Encoding is offered as chunked alone")


def test_it_is_no_proxy(port: int) -> None:
    answer = say(port, b"CONNECT a.example:443 HTTP/1.1\r\nHost: a.example\r\n\r\n")
    assert (answer.status, answer.error[:23]) == (400, "CONNECT is not offered:")


@pytest.mark.parametrize(
    "sent",
    [
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * MAX_HEAD + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: a\r\nX: " + b"x" * 20 * MIB,
        b"GET / HTTP/1.1\r\nHost: a\r\n" + b"X: y\r\n" * 400_000,
        b"GET /" + b"x" * 20 * MIB,
    ],
    ids=["whole", "one without end", "many", "a path"],
)
def test_a_flood_of_headers_is_cut(port: int, sent: bytes) -> None:
    with growth(16 * MIB):
        answer = say(port, sent)
    assert answer.status == 431
    assert answer.error.startswith(f"the request line and its headers are larger than {MAX_HEAD}")
    assert say(port, GET).status == 200


def test_a_head_as_large_as_may_be_is_read(port: int) -> None:
    head = b"GET / HTTP/1.1\r\nHost: a\r\nX: %s\r\n\r\n"
    assert say(port, head % (b"x" * (MAX_HEAD - 20))).status == 200


@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (b"1\r\na\r\n" * (MAX_CHUNKS + 1), f"the body has more than {MAX_CHUNKS} chunks: send la"),
        (b"1;" + b"x" * 20 * MIB, "the body's chunks hold over 1048576 bytes beside the data"),
        (b"0\r\nX: " + b"x" * 20 * MIB, "the body's chunks hold over 1048576 bytes beside the"),
        (b"0\r\n" + b"X: y\r\n" * 400_000, "the body's chunks hold over 1048576 bytes beside"),
    ],
    ids=["chunks", "an extension", "a trailer", "trailers"],
)
def test_a_flood_of_chunks_is_cut(port: int, sent: bytes, said: str) -> None:
    with growth(16 * MIB):
        answer = say(port, CHUNKED, sent)
    assert (answer.status, answer.error[: len(said)]) == (400, said)
    assert say(port, GET).status == 200


def test_chunks_up_to_the_bound_are_read(port: int) -> None:
    chunks = b"1;why=not\r\na\r\n" * 60_000
    assert say(port, CHUNKED + chunks + b"0\r\n\r\n").json["size"] == 60_000


def test_trailers_are_no_headers(port: int) -> None:
    with connect(port, CHUNKED + b"3\r\nabc\r\n0\r\nAuthorization: Bearer x\r\n\r\n", GET) as wire:
        assert wire.read().json["headers"] == ["host", "transfer-encoding"]
        assert wire.read().json["headers"] == ["host"]


@pytest.mark.parametrize("offer", [b"h2c", b"websocket"])
@pytest.mark.parametrize(
    "body", [b"Content-Length: 3\r\n\r\nabc", CHUNKED[-30:] + b"3\r\nabc\r\n0\r\n\r\n"]
)
@pytest.mark.parametrize("together", [True, False])
def test_an_offer_of_another_protocol_loses_no_body(
    port: int, offer: bytes, body: bytes, together: bool
) -> None:
    head = POST + b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: " + offer + b"\r\nX: y\r\n"
    fields, end, rest = body.partition(b"\r\n\r\n")
    parts = [head + body + GET] if together else [head + fields + end, rest, GET]
    with connect(port, *parts) as wire:
        answer = wire.read()
        assert answer.json["size"] == 3
        assert "x" in answer.json["headers"]
        assert wire.read().json["asked"] == "GET /"  # and the connection goes on


def test_a_client_that_waits_to_be_asked_for_the_body_is(port: int) -> None:
    with connect(port, POST + b"Expect: 100-continue\r\nContent-Length: 3\r\n\r\n") as wire:
        assert wire.raw.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
        wire.send(b"abc")
        assert wire.read().json["size"] == 3
        assert wire.ends()


def test_requests_in_a_row_are_answered_in_order(port: int) -> None:
    asked = [b"/%d" % i for i in range(MAX_PIPELINED)]
    with connect(port, b"".join(GET.replace(b"/ ", path + b" ") for path in asked)) as wire:
        assert [wire.read().json["asked"].encode() for _ in asked] == [b"GET " + p for p in asked]


async def late(scope: Scope, receive: Receive, send: Send) -> None:
    """Take some time."""
    await asyncio.sleep(0.5)
    await echo(scope, receive, send)


def test_too_many_requests_before_an_answer_are_refused() -> None:
    with listening(late) as port:
        with growth(16 * MIB):
            answer = say(port, GET * 50_000)
        assert answer.status == 400
        assert answer.error.startswith(f"more than {MAX_PIPELINED} requests before an answer: wait")
        assert say(port, GET).status == 200


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize(
    ("sent", "said"),
    [
        (GET[:-2], "the request's head was not whole within 0.2 s"),
        (GET + GET[:9], "the request's head was not whole within 0.2 s"),
        (POST + b"Content-Length: 9\r\n\r\nabc", "less than 32768 bytes of the body came in 0.2 s"),
        (CHUNKED + b"3\r\nabc\r\n", "less than 32768 bytes of the body came in 0.2 s"),
    ],
)
def test_who_stops_in_between_is_told_and_closed(port: int, sent: bytes, said: str) -> None:
    with connect(port, sent) as wire:
        answer = wire.read()
        if sent.startswith(GET):
            answer = wire.read()
        assert (answer.status, answer.error) == (408, said)
        assert wire.ends()


@pytest.mark.usefixtures("hasty")
@pytest.mark.parametrize("head", [b"GET / HTTP/1.1\r\n", POST + b"Content-Length: 999\r\n\r\n"])
def test_a_byte_now_and_then_does_not_keep_a_connection(port: int, head: bytes) -> None:
    with connect(port, head) as wire:
        started = time.monotonic()
        while not select.select([wire.raw], [], [], 0.05)[0]:
            wire.send(b"x")
            assert time.monotonic() < started + 5, "it was never closed"
        assert wire.read().status == 408


@pytest.mark.usefixtures("hasty")
def test_a_body_that_moves_is_read_to_its_end(port: int) -> None:
    parts = 6 * [bytes(connections.MOVE_BYTES)]
    with connect(port, POST + b"Content-Length: %d\r\n\r\n" % (6 * len(parts[0]))) as wire:
        for part in parts:
            time.sleep(0.1)
            wire.send(part)
        assert wire.read().json["size"] == 6 * len(parts[0])


@pytest.mark.usefixtures("hasty")
def test_who_says_nothing_is_closed_without_a_word(port: int) -> None:
    with connect(port) as silent, connect(port, GET) as idle:
        assert idle.read().status == 200
        assert silent.ends()
        assert idle.ends()


def taken(port: int, pauses: Iterable[float]) -> int:
    """Return how many bytes come of a large answer, whose client rests after each mebibyte."""
    rests = iter(pauses)
    size = 0
    ask = b"GET /large HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
    with connect(port, ask) as wire, contextlib.suppress(ConnectionError):
        while part := wire.raw.recv(MIB, socket.MSG_WAITALL):
            size += len(part)
            time.sleep(next(rests))
    return size


@pytest.mark.usefixtures("hasty")
def test_who_does_not_take_an_answer_is_let_go(port: int) -> None:
    assert MIB <= taken(port, chain([1.0], repeat(0.0))) < LARGE


@pytest.mark.usefixtures("hasty")
def test_who_takes_an_answer_slowly_gets_all_of_it(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(connections.PATIENCE, "answer", 0.6)
    assert taken(port, repeat(0.05)) > LARGE


@pytest.mark.usefixtures("hasty")
def test_who_takes_a_stream_slowly_gets_all_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    async def stream(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(LARGE // 2**16):
            await send({"type": "http.response.body", "body": bytes(2**16), "more_body": True})
        await send({"type": "http.response.body"})

    monkeypatch.setattr(connections, "MOVE_BYTES", LARGE)  # it moves by being asked for more
    monkeypatch.setitem(connections.PATIENCE, "answer", 0.6)
    with listening(stream) as port:
        assert taken(port, repeat(0.05)) > LARGE


@pytest.mark.usefixtures("hasty")
def test_an_application_may_take_its_time() -> None:
    with listening(late) as port:
        assert say(port, GET + GET[:5]).status == 200
        assert say(port, POST + b"Content-Length: 300000\r\n\r\n", bytes(300_000)).status == 200


async def early(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer before the body has come."""
    head = [(b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 401, "headers": head})
    await send({"type": "http.response.body"})


def test_an_answer_before_the_body_is_heard_by_who_still_sends() -> None:
    sent = POST + b"Content-Length: %d\r\n" % MAX_BODY
    with listening(early) as port, growth(16 * MIB):
        assert say(port, sent + b"Connection: close\r\n\r\n", bytes(MAX_BODY)).status == 401
        with connect(port, sent + b"\r\n", bytes(MAX_BODY), GET) as wire:
            assert [wire.read().status, wire.read().status] == [401, 401]


def test_who_sends_on_for_ever_is_cut_off() -> None:
    chunk = b"%x\r\n%s\r\n" % (MIB, bytes(MIB))
    with listening(early) as port, growth(16 * MIB):
        with connect(port, CHUNKED) as wire, pytest.raises(ConnectionError):
            deque(map(wire.send, repeat(chunk, 300)))
        assert say(port, GET).status == 401


def test_one_connection_too_many_is_told_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MAX_CONNECTIONS", 20)
    monkeypatch.setattr(connections, "_TOLD", 2)
    with listening() as port, contextlib.ExitStack() as stack:
        held = [stack.enter_context(connect(port, GET)) for _ in range(20)]
        assert {wire.read().status for wire in held} == {200}
        refused = [stack.enter_context(connect(port, GET)) for _ in range(4)]
        assert [wire.read().status for wire in refused[:2]] == [503, 503]
        assert all(wire.ends() for wire in refused[2:])
        held.pop().close()
        for wire in refused:
            wire.close()
        assert waits(lambda: alive(port))
        held[0].send(GET)
        assert held[0].read().status == 200


def alive(port: int) -> bool:
    with contextlib.suppress(AssertionError, ConnectionError):
        return say(port, GET).status == 200
    return False


def test_the_limit_of_connections_leaves_the_notebook_half_of_its_files() -> None:
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    assert min(1_000, soft // 2) == MAX_CONNECTIONS


@pytest.mark.full
def test_a_thousand_connections_and_one() -> None:
    with listening() as port, contextlib.ExitStack() as stack, growth(64 * MIB):
        held = [stack.enter_context(connect(port, GET)) for _ in range(MAX_CONNECTIONS)]
        assert {wire.read().status for wire in held} == {200}
        answer = say(port, GET)
        assert answer.status == 503
        assert answer.error.startswith(f"{MAX_CONNECTIONS} connections are open already: close so")
        stack.close()
        assert waits(lambda: alive(port))


class Waiting:
    """An application that waits until the client is gone."""

    def __init__(self) -> None:
        self.asked, self.gone, self.told = threading.Event(), threading.Event(), 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] == "/wait":
            left = asyncio.Event()
            scope["workbench.connection"].when_gone(partial(self._gone, left))
            self.asked.set()
            await left.wait()
            self.gone.set()
        else:
            scope["workbench.connection"].when_gone(partial(self._gone, asyncio.Event()))
            await echo(scope, receive, send)

    def _gone(self, left: asyncio.Event) -> None:
        self.told += 1
        left.set()


@pytest.mark.parametrize("before", [b"", GET])
@pytest.mark.parametrize("after", [b"", GET, b"nonsense\r\n\r\n"])
def test_whoever_answers_hears_that_the_client_has_gone(before: bytes, after: bytes) -> None:
    app = Waiting()
    with listening(app) as port:
        with connect(port, before + GET.replace(b"/", b"/wait", 1)) as wire:
            assert app.asked.wait(10)
            wire.send(after)
        assert app.gone.wait(10)
        assert say(port, GET).status == 200
    assert app.told == 1


def test_who_asks_only_after_the_client_has_gone_hears_of_it() -> None:
    gone, unheard = threading.Event(), threading.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        connection = scope["workbench.connection"]
        while (await receive())["type"] != "http.disconnect":
            pass
        connection.when_gone(unheard.set)
        connection.when_gone(None)
        await asyncio.sleep(0)
        connection.when_gone(gone.set)
        assert not gone.is_set()  # but soon

    with listening(app) as port:
        with connect(port, GET):
            pass
        assert gone.wait(10)
    assert not unheard.is_set()


def test_nobody_hears_of_a_client_whose_answer_was_whole() -> None:
    told: list[str] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["method"] == "GET":
            scope["workbench.connection"].when_gone(partial(told.append, scope["path"]))
        await echo(scope, receive, send)

    with listening(app) as port:
        with connect(port, GET, POST + b"Content-Length: 9\r\n\r\n") as wire:
            assert wire.read().status == 200
        assert say(port, GET).status == 200
    assert not told


def test_a_server_that_stops_answers_what_it_has_and_waits_for_nobody() -> None:
    with contextlib.ExitStack() as stack:
        with listening(late) as port:
            asked = stack.enter_context(connect(port, GET))
            idle = stack.enter_context(connect(port))
            half = stack.enter_context(connect(port, GET[:9]))
            time.sleep(0.2)
            started = time.monotonic()
        assert time.monotonic() - started < 2
        assert asked.read().status == 200
        assert idle.ends()
        assert (half.read().status, half.ends()) == (503, True)


def test_many_short_connections_leave_nothing_behind(port: int) -> None:
    def ask() -> None:
        client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
        client.request("POST", "/", b"abc", {"Connection": "close"})
        assert client.getresponse().read()
        client.close()

    for _ in range(20):
        ask()
    with growth(8 * MIB):
        for _ in range(300):
            ask()


TOKENS = [
    b"GET", b"POST", b" ", b"/", b"?", b" HTTP/1.1", b"\r\n", b"\n", b"\r", b"\0", b":", b"Host: a",
    b"Content-Length: 3", b"Transfer-Encoding: chunked", b"Expect: 100-continue", b"Upgrade: h2c",
    b"Connection: upgrade", b"Connection: close", b"3\r\nabc\r\n", b"0\r\n\r\n", b"abc", b"-1",
    b"Content-Encoding: gzip", b"x" * 5000, b"\xff\xfe", b"99999999999", GET, CHUNKED,
]  # fmt: skip
NONSENSE = st.lists(
    st.lists(st.sampled_from(TOKENS) | st.binary(max_size=30), max_size=12).map(b"".join),
    max_size=4,
)


def send_nonsense(port: int, parts: list[bytes]) -> None:
    with contextlib.suppress(ConnectionError), connect(port, *parts) as wire:
        wire.raw.shutdown(socket.SHUT_WR)
        wire.raw.recv(100)
    assert say(port, GET).status == 200


@settings(deadline=None, max_examples=60)
@given(NONSENSE)
def test_nonsense_leaves_the_server_alive(port: int, parts: list[bytes]) -> None:
    send_nonsense(port, parts)


@pytest.mark.full
def test_much_nonsense_leaves_the_server_alive_and_small(port: int) -> None:
    draw = random.Random(0)
    with growth(16 * MIB):
        for _ in range(5000):
            words = [
                draw.choice(TOKENS) if draw.random() < 0.7 else draw.randbytes(20)
                for _ in range(draw.randrange(40))
            ]
            cut = draw.randrange(len(words) + 1)
            send_nonsense(port, [b"".join(words[:cut]), b"".join(words[cut:])])
