"""Bodies: the same bytes however they were packed and cut, and never more than their bounds."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from listening import LARGE, connect, growth, listening, say
from starlette.requests import ClientDisconnect

from workbench.serving.answers import Answer, Refusal
from workbench.serving.bodies import MAX_BODY, packed, read_body

PACK: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": partial(gzip.compress, mtime=0),  # the same bytes at any time, and so names of tests
    "deflate": zlib.compress,
    "identity": bytes,
}
UNPACK: Mapping[str, Callable[[bytes], bytes]] = {
    "gzip": gzip.decompress,
    "deflate": zlib.decompress,
}
MIB = 2**20


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with listening() as port:
        yield port


def read_parts(parts: Sequence[bytes], encoding: str = "", most: int = MAX_BODY) -> bytes:
    """Return a body that comes in these parts; the client leaves after the last, were it asked."""
    messages: list[dict[str, Any]] = [
        {"type": "http.request", "body": part, "more_body": True} for part in parts
    ]
    messages[-1]["more_body"] = False

    async def receive() -> dict[str, Any]:
        return messages.pop(0)

    headers = [(b"content-encoding", encoding.encode())] if encoding else []
    return asyncio.run(read_body({"headers": headers}, receive, most=most))


def post(body: bytes, *headers: bytes) -> bytes:
    lines = [b"POST / HTTP/1.1", b"Host: a", b"Content-Length: %d" % len(body), *headers]
    return b"\r\n".join([*lines, b"", body])


def bomb(size: int) -> bytes:
    """Return what inflates to that many zeros."""
    stream = zlib.compressobj(wbits=31)
    zeros = bytes(MIB)
    return b"".join(stream.compress(zeros) for _ in range(size // MIB)) + stream.flush()


@settings(deadline=None, max_examples=60)
@given(
    st.binary(max_size=3000), st.sampled_from(["", *PACK]), st.lists(st.integers(0, 3000))
)  # fmt: skip
def test_a_body_is_the_same_however_it_is_packed_and_cut(
    body: bytes, encoding: str, cuts: list[int]
) -> None:
    sent = PACK[encoding or "identity"](body)
    edges = [0, *sorted(min(cut, len(sent)) for cut in cuts), len(sent)]
    parts = [sent[a:b] for a, b in pairwise(edges)]
    assert read_parts(parts, encoding.upper()) == body


def test_a_body_may_be_as_large_as_the_bound_and_no_larger(port: int) -> None:
    noise = np.random.default_rng(0).bytes(3000)
    for encoding, pack in PACK.items():
        assert read_parts([pack(noise)], encoding, most=len(pack(noise))) == noise
        with pytest.raises(Refusal, match="larger than 2999 bytes: send the rows in several req"):
            read_parts([pack(noise)], encoding, most=2999)
    nothing = zlib.compress(b"")[:2] + b"\0\0\0\xff\xff" * 600  # blocks without a byte
    with pytest.raises(Refusal, match="larger than 2999 bytes"):
        read_parts([nothing], "deflate", most=2999)
    assert say(port, post(bytes(MAX_BODY))).json["size"] == MAX_BODY


@pytest.mark.parametrize("closes", [b"Connection: close", b"Connection: keep-alive"])
@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_too_large_is_refused_and_its_client_hears_so(
    port: int, closes: bytes, chunked: bool
) -> None:
    sent = post(b"x" * (MAX_BODY + 2 * MIB), closes)
    if chunked:
        head = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n" + closes
        size = b"%x" % MIB
        sent = head + b"\r\n\r\n" + (size + b"\r\n" + bytes(MIB) + b"\r\n") * 66 + b"0\r\n\r\n"
    answer = say(port, sent)  # all of it is sent before the answer is read
    with growth(96 * MIB):  # one may be there still, and no two
        assert {say(port, sent).status for _ in range(3)} == {413}
    assert (answer.status, answer.error[:31]) == (413, f"the body is larger than {MAX_BODY}"[:31])
    assert say(port, post(b"abc")).json["size"] == 3


def test_a_length_too_large_is_refused_before_anything_is_sent(port: int) -> None:
    head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n" % (MAX_BODY + 1)
    assert say(port, head + b"\r\n").status == 413
    expecting = say(port, head + b"Expect: 100-continue\r\n\r\n")
    assert (expecting.status, expecting.headers["connection"]) == (413, "close")


@pytest.mark.parametrize("encoding", ["br", "zstd", "gzip, gzip", "compress", "nonsense"])
def test_another_encoding_is_refused_with_those_that_are_offered(port: int, encoding: str) -> None:
    answer = say(port, post(b"abc", b"Content-Encoding: " + encoding.encode()))
    assert answer.error == (
        f"Content-Encoding {encoding!r} is not offered: send gzip, deflate, or no encoding"
    )
    assert (answer.status, answer.headers["accept-encoding"]) == (415, "gzip, deflate")


def spoilt() -> Iterator[tuple[str, bytes, str]]:
    """Yield an encoding, bytes that are not of it, and what is said of them."""
    for encoding in ("gzip", "deflate"):
        good = PACK[encoding](b"rows" * 100)
        yield encoding, b"", "ends before"
        yield encoding, good[:-1], "ends before"
        yield encoding, good + b"x", "goes on after"
        yield encoding, good + good, "goes on after"
        yield encoding, b"no stream at all", "is no"
        yield encoding, good[:15] + b"\xff\xff" + good[17:], "is no"
        yield encoding, good[:-5] + bytes([good[-5] ^ 1]) + good[-4:], "is no"
    yield "deflate", zlib.compress(b"rows", wbits=-15), "is no"
    yield "gzip", zlib.compress(b"rows"), "is no"


@pytest.mark.parametrize(("encoding", "sent", "said"), list(spoilt()))
def test_a_spoilt_stream_is_told_as_what_it_is(encoding: str, sent: bytes, said: str) -> None:
    for parts in ([sent], [sent[i : i + 1] for i in range(len(sent))] or [b""]):
        with pytest.raises(Refusal, match=f"the body {said} .*{encoding} stream") as refusal:
            read_parts(parts, encoding)
        assert refusal.value.status == 400


def test_what_inflates_too_far_is_refused_as_soon_as_it_does(port: int) -> None:
    assert len(read_parts([bomb(MIB)], "gzip")) == MIB
    with pytest.raises(Refusal, match="the body inflates to more than 200 times its size: send"):
        read_parts([bomb(2 * MIB)], "gzip")
    lines = zlib.compress(np.arange(2000, dtype="<f4").tobytes() * 9000, 1)  # ratio below 200
    with pytest.raises(Refusal, match="the body is inflated, larger than 67108864 bytes"):
        read_parts([lines[i : i + 9999] for i in range(0, len(lines), 9999)], "deflate")


def test_a_hundred_bombs_leave_the_service_alive_and_small(port: int) -> None:
    sent = post(bomb(64 * MIB), b"Content-Encoding: gzip")
    assert say(port, sent).status == 413
    with growth(32 * MIB):
        for _ in range(100):
            assert say(port, sent).status == 413
            assert say(port, post(b"abc")).json["size"] == 3


def test_a_client_that_leaves_in_between_is_no_error(port: int) -> None:
    async def receive() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientDisconnect):
        asyncio.run(read_body({"headers": []}, receive))
    with connect(port, post(b"abcdef")[:-3]):
        pass
    assert say(port, post(b"abc")).json["size"] == 3


ROWS = Answer(np.zeros(3000, np.float32).tobytes(), 200, "application/octet-stream", {"X": "1"})


@pytest.mark.parametrize(
    ("accepted", "method"),
    [
        (None, None),
        ("", None),
        ("identity", None),
        ("br, zstd", None),
        ("gzip", "gzip"),
        ("GZIP", "gzip"),
        ("deflate", "deflate"),
        ("gzip, deflate, br", "gzip"),
        ("deflate, gzip", "gzip"),
        ("gzip;q=0.5, deflate;q=0.8", "deflate"),
        ("gzip; q=0, deflate", "deflate"),
        ("gzip;q=0", None),
        ("gzip;q=0, *", "deflate"),
        ("*", "gzip"),
        ("*;q=0", None),
        ("gzip;q=nonsense", None),
        ("br;q=1.0, gzip;q=0.8, *;q=0.1", "gzip"),
    ],
)
def test_an_answer_is_packed_as_its_client_likes_it(
    accepted: str | None, method: str | None
) -> None:
    headers = [] if accepted is None else [(b"accept-encoding", accepted.encode())]
    answer = packed(ROWS, {"headers": headers})
    if method is None:
        assert answer is ROWS
        return
    assert UNPACK[method](answer.body) == ROWS.body
    assert answer.headers == {"X": "1", "Content-Encoding": method, "Vary": "Accept-Encoding"}
    assert len(answer.body) < 1000


def test_a_small_answer_stays_as_it_is() -> None:
    small = Answer(b"x" * 1023)
    assert packed(small, {"headers": [(b"accept-encoding", b"gzip")]}) is small


def test_a_packed_answer_arrives(port: int) -> None:
    many = b"".join(b"X-%d: y\r\n" % i for i in range(400))
    answer = say(port, b"GET / HTTP/1.1\r\nHost: a\r\nAccept-Encoding: deflate\r\n%s\r\n" % many)
    assert answer.headers["content-encoding"] == "deflate"
    assert zlib.decompress(answer.body).count(b"x-") == 400


def test_a_very_large_answer_is_not_packed(port: int) -> None:
    answer = say(port, b"GET /large HTTP/1.1\r\nHost: a\r\nAccept-Encoding: deflate\r\n\r\n")
    assert "content-encoding" not in answer.headers
    assert answer.body.count(b"0") >= LARGE
