"""What goes back over HTTP: an answer, or a refusal, `{"error": "..."}` and nothing else."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from starlette.types import Send

__all__ = ["Answer", "Event", "Events", "Refusal", "encode", "json_answer"]


def encode(data: Any) -> bytes:
    """Return `data` as JSON; numbers that are not finite become null."""
    return msgspec.json.encode(data)


@dataclass(frozen=True)
class Answer:
    """A whole answer.

    Args:
        body: its bytes.
        status: in HTTP's numbers.
        media_type: of the body.
        headers: besides Content-Type and Content-Length.
    """

    body: bytes = b""
    status: int = 200
    media_type: str = "application/json"
    headers: Mapping[str, str] = field(default_factory=dict)

    async def send(self, send: Send, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send it as the answer to one request, with more headers."""
        told = {
            "content-type": self.media_type,
            **({"content-length": str(len(self.body))} if self.status != 204 else {}),
            **self.headers,
        }
        headers = [(name.lower().encode(), value.encode("latin-1")) for name, value in told.items()]
        headers += more
        await send({"type": "http.response.start", "status": self.status, "headers": headers})
        await send({"type": "http.response.body", "body": self.body})


class Refusal(Exception):  # noqa: N818  (an answer like others, no defect)
    """A request that is not answered as asked; whoever raises it says the status and the reason.

    Args:
        status: in HTTP's numbers, from 400 up.
        reason: for the client; names nothing that is not the client's own.
        headers: to send beside it.
    """

    def __init__(self, status: int, reason: str, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(reason)
        self.status, self.reason, self.headers = status, reason, dict(headers or {})

    def answer(self) -> Answer:
        """Return it as an answer."""
        return Answer(encode({"error": self.reason}), self.status, headers=self.headers)


def json_answer(data: Any) -> Answer:
    """Return `data` as a JSON answer."""
    return Answer(encode(data))


@dataclass(frozen=True)
class Event:
    """A server-sent event with more than its data.

    Args:
        data: as JSON; None for a comment, which keeps a silent connection open.
        id: what a client that comes again says it has heard, as `Last-Event-ID`.
        name: of its kind.
    """

    data: Any = None
    id: str | None = None
    name: str | None = None

    def encode(self) -> bytes:
        """Return it as it is sent."""
        if self.data is None:
            return b":\n\n"
        fields = [("event", self.name), ("id", self.id)]
        told = "".join(f"{field}: {value}\n" for field, value in fields if value is not None)
        return told.encode() + b"data: " + encode(self.data) + b"\n\n"


class Events:
    """An answer that comes in parts, as server-sent events of JSON.

    Args:
        rest: the parts after the first, each an `Event` or its data; an error among them is told
            as the last, `{"error": "…"}`.
        first: the first one, which whoever makes this has waited for, so that what keeps it from
            coming is still told by a status; None where nothing comes.
    """

    def __init__(self, rest: AsyncIterator[Any], *, first: Any = None) -> None:
        self._rest, self._first = rest, first

    async def send(self, send: Send, more: Sequence[tuple[bytes, bytes]] = ()) -> None:
        """Send it as the answer to one request, with more headers."""
        headers = [(b"content-type", b"text/event-stream"), (b"cache-control", b"no-store"), *more]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        if self._first is not None:
            await self._say(send, self._first)
        async for part in self._rest:
            await self._say(send, part)
        await send({"type": "http.response.body", "body": b""})

    async def _say(self, send: Send, part: Any) -> None:
        event = part if isinstance(part, Event) else Event(part)
        await send({"type": "http.response.body", "body": event.encode(), "more_body": True})
