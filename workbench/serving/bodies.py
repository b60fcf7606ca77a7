"""What comes with a request and goes with an answer: read within bounds, inflated, packed.

A body is never larger in memory than its bound, whatever its headers promise and however small it
was packed. The bytes of one that is refused are left to the connection to drain.
"""

from __future__ import annotations

import zlib
from dataclasses import replace

from starlette.requests import ClientDisconnect
from starlette.types import Receive, Scope

from workbench.serving.answers import Answer, Refusal

__all__ = ["MAX_BODY", "packed", "read_body"]

MAX_BODY = 64 * 2**20  # bytes, as they were sent and as they are inflated
_MAX_RATIO = 200  # that a body may grow by when it is inflated...
_ALWAYS = 2**20  # ...beyond this many bytes: small rows of zeros shrink well
_STEP = 8 * 2**10  # bytes that are inflated at once: so little grows before it is known to
_PACKED_FROM = 2**10  # bytes; what is smaller fits into one packet anyway
_PACKED_TO = 8 * 2**20  # bytes; what is larger takes longer to pack than most networks to carry
_LEVEL = 1  # of deflate: twice as fast as the next, and floats do not shrink much more by others

_WINDOWS = {"gzip": 31, "deflate": 15}  # zlib's numbers for the header that each begins with
_OFFERED = ", ".join(_WINDOWS)


async def read_body(scope: Scope, receive: Receive, *, most: int = MAX_BODY) -> bytes:
    """Return the whole body of a request, inflated where it was sent so.

    Args:
        scope: of the request.
        receive: that its parts come by.
        most: bytes that it may have, sent and inflated.

    Raises:
        Refusal: 413 it is too large, as its length says or as it comes; 415 it is encoded by
            another method than gzip or deflate; 400 it is not what its encoding says.
        ClientDisconnect: the client left before it was whole.
    """
    length, encodings = b"", []
    for name, value in scope["headers"]:
        if name == b"content-length":
            length = value
        elif name == b"content-encoding":
            encodings.append(value.decode("latin-1"))
    if length.isdigit() and int(length) > most:
        raise _too_large(most)
    into = _taker(", ".join(encodings), most)
    while True:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        into.take(message.get("body", b""))
        if not message.get("more_body", False):
            return into.whole()


def packed(answer: Answer, scope: Scope) -> Answer:
    """Return an answer as small as its client can read it: with gzip or deflate where it says so.

    Args:
        answer: to be sent; one under 1 KiB or over 8 MiB stays as it is.
        scope: of the request, whose Accept-Encoding is asked.
    """
    if not _PACKED_FROM <= len(answer.body) <= _PACKED_TO:
        return answer
    accepted = [value for name, value in scope["headers"] if name == b"accept-encoding"]
    method = _liked(b",".join(accepted).decode("latin-1")) if accepted else None
    if method is None:
        return answer
    stream = zlib.compressobj(_LEVEL, wbits=_WINDOWS[method])
    body = stream.compress(answer.body) + stream.flush()
    headers = {**answer.headers, "Content-Encoding": method, "Vary": "Accept-Encoding"}
    return replace(answer, body=body, headers=headers)


def _liked(accepted: str) -> str | None:
    """Return the method that an Accept-Encoding likes best, gzip before deflate, or None."""
    weights: dict[str, float] = {}
    for part in accepted.lower().split(","):
        name, *parameters = (word.strip() for word in part.split(";"))
        weights[name] = _weight(parameters)
    rest = weights.get("*", 0.0)
    best = max(_WINDOWS, key=lambda name: weights.get(name, rest))  # the first of equals
    return best if weights.get(best, rest) > 0 else None


def _weight(parameters: list[str]) -> float:
    """Return the weight among the parameters of a method; 0 where it is no number."""
    for parameter in parameters:
        if parameter.startswith("q="):
            try:
                return float(parameter.removeprefix("q="))
            except ValueError:
                return 0.0
    return 1.0


class _Plain:
    """Takes the parts of a body that was sent as it is."""

    def __init__(self, most: int) -> None:
        self._most, self._size = most, 0
        self._parts: list[bytes] = []

    def take(self, part: bytes) -> None:
        """Keep a part."""
        self._size += len(part)
        if self._size > self._most:
            raise _too_large(self._most)
        self._parts.append(part)

    def whole(self) -> bytes:
        """Return what was taken."""
        return self._parts[0] if len(self._parts) == 1 else b"".join(self._parts)


class _Inflated(_Plain):
    """Takes the parts of a body that was sent packed, and keeps what they inflate to."""

    def __init__(self, most: int, method: str) -> None:
        super().__init__(most)
        self._method, self._sent = method, 0
        self._stream = zlib.decompressobj(wbits=_WINDOWS[method])

    def take(self, part: bytes) -> None:
        """Inflate a part, no further than a body may grow."""
        for start in range(0, len(part), _STEP):
            self._inflate(part[start : start + _STEP])

    def _inflate(self, piece: bytes) -> None:
        self._sent += len(piece)
        if self._sent > self._most:
            raise _too_large(self._most)
        most = min(self._most, max(_ALWAYS, _MAX_RATIO * self._sent))
        try:
            grown = self._stream.decompress(piece, most - self._size + 1)
        except zlib.error:
            raise self._broken(f"is no {self._method} stream") from None
        if self._size + len(grown) > most:
            raise self._grows_too_much(most)
        if self._stream.unused_data:
            raise self._broken(f"goes on after its {self._method} stream has ended")
        super().take(grown)

    def whole(self) -> bytes:
        """Return what was taken, whose end must have come."""
        if not self._stream.eof:
            raise self._broken(f"ends before its {self._method} stream does")
        return super().whole()

    def _grows_too_much(self, most: int) -> Refusal:
        if most == self._most:
            return _too_large(most, "inflated, ")
        return Refusal(
            413,
            f"the body inflates to more than {_MAX_RATIO} times its size: send it as it is, "
            "without Content-Encoding",
        )

    def _broken(self, how: str) -> Refusal:
        kind = "one gzip member" if self._method == "gzip" else "one zlib stream"
        return Refusal(400, f"the body {how}: Content-Encoding {self._method} is {kind}")


def _taker(encoding: str, most: int) -> _Plain:
    """Return what takes a body of that Content-Encoding."""
    method = encoding.strip().lower()
    if method in ("", "identity"):
        return _Plain(most)
    if method not in _WINDOWS:
        raise Refusal(
            415,
            f"Content-Encoding {encoding!r:.40} is not offered: send {_OFFERED}, or no encoding",
            {"Accept-Encoding": _OFFERED},
        )
    return _Inflated(most, method)


def _too_large(most: int, how: str = "") -> Refusal:
    return Refusal(
        413, f"the body is {how}larger than {most} bytes: send the rows in several requests"
    )
