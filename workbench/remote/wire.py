"""Asking a service from anywhere: its answers, its events, and its refusals as our errors.

Loads no torch. One connection a request, so that a worker that is replaced, or a service that is
started again, is met by the next one.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import re
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import msgspec

from workbench.errors import RequestError, ServiceError, UnknownNameError

__all__ = ["Heard", "Reply", "Wire"]

_TRIES = 4  # of what changes nothing, where the service says when to come again
_LONGEST = 10.0  # seconds between two of them
_UNKNOWN = re.compile(r"unknown ([^']+) '(.*?)'")  # as UnknownNameError begins


@dataclass(frozen=True)
class Reply:
    """What was answered to one request.

    Args:
        status: in HTTP's numbers.
        headers: beside the body.
        body: its bytes.
    """

    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def reason(self) -> str | None:
        """Why it is an error, in the service's words; None where there is nothing of them."""
        try:
            return str(json.loads(self.body)["error"])
        except (ValueError, KeyError, TypeError):
            return None

    @property
    def pause(self) -> float | None:
        """The seconds after which to come again, where the service is only busy; else None."""
        said = self.headers.get("Retry-After", "")
        return float(said) if self.status in (429, 503) and said.isdecimal() else None


@dataclass(frozen=True)
class Heard:
    """One server-sent event.

    Args:
        kind: its name; empty where it has none.
        data: its JSON.
        id: what a later request says that it has heard, or None.
    """

    kind: str
    data: Any
    id: str | None = None


class Wire:
    """The way to one server.

    Args:
        url: its root, of http or https.
        token: what requests carry.
        timeout: seconds to wait for each answer, and for each sign of life of a stream.

    Raises:
        RequestError: the address is none.
    """

    def __init__(self, url: str, token: str, *, timeout: float) -> None:
        try:
            parts = urlsplit(url)
            is_address = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        except ValueError:  # a bracket too few, or a port that is none
            is_address = False
        if not is_address:
            raise RequestError(
                f"{url!r:.200} is no address of a service: expected one like "
                "'http://127.0.0.1:40123', which the service prints"
            )
        if not token.isascii() or not token.isprintable():
            raise RequestError("the token has letters that no header carries: was it cut or typed?")
        self.url, self._parts = url.rstrip("/"), parts
        self._token, self._timeout = token, timeout

    def ask(self, method: str, path: str, told: Any = None) -> Any:
        """Return the JSON that a request is answered with.

        Args:
            method: of HTTP.
            path: below the root, quoted.
            told: to send as JSON; None for nothing. Arrays, tensors and tables are sent as lists.

        Raises:
            UnknownNameError: the service knows no such thing.
            RequestError: it refuses the request.
            ServiceError: it failed, does not answer, or is none.
        """
        reply = self.reply(method, path, told)
        try:
            return json.loads(reply.body)
        except ValueError:
            raise ServiceError(
                f"{self.url}{path} answered {reply.status} with what is no JSON: is a service of "
                "the workbench there?"
            ) from None

    def reply(self, method: str, path: str, told: Any = None) -> Reply:
        """Return the answer to a request, as `ask`; a reading one is tried again while it is busy.

        Raises:
            WorkbenchError: as `ask`.
        """
        body = b"" if told is None else _encoded(told)
        for left in reversed(range(_TRIES if method == "GET" else 1)):
            reply = self._once(method, path, body)
            if reply.pause is None or left == 0:
                break
            time.sleep(min(reply.pause, _LONGEST))
        self._check(reply)
        return reply

    def events(self, path: str, heard: str | None) -> Iterator[Heard] | None:
        """Return the events of a stream as they come; None where there is nothing more to hear.

        Args:
            path: of the stream.
            heard: the id of the last event that came, or None.

        Raises:
            WorkbenchError: as `ask`; a `ServiceError` also while it is read.
        """
        headers = {} if heard is None else {"Last-Event-ID": heard}
        with contextlib.ExitStack() as opened, self._reached():
            connection = opened.enter_context(contextlib.closing(self._connection()))
            answer = self._sent(connection, "GET", path, b"", headers)
            if answer.status != 200:
                self._check(Reply(answer.status, answer.headers, answer.read()))
                return None
            opened.pop_all()  # it is closed by who has read it
            return self._read(connection, answer)

    def _once(self, method: str, path: str, body: bytes) -> Reply:
        with contextlib.closing(self._connection()) as connection, self._reached():
            answer = self._sent(connection, method, path, body, {})
            return Reply(answer.status, answer.headers, answer.read())

    def _read(
        self, connection: http.client.HTTPConnection, answer: http.client.HTTPResponse
    ) -> Iterator[Heard]:
        with contextlib.closing(connection), self._reached():
            yield from _events(answer)

    @contextlib.contextmanager
    def _reached(self) -> Iterator[None]:
        """Raise what a connection raises within as our error."""
        try:
            yield
        except (OSError, http.client.HTTPException) as error:
            why = str(error) or type(error).__name__
            raise ServiceError(
                f"the service at {self.url} does not answer ({why}): is it running, and reached "
                "from here? `workbench services` lists those of its machine"
            ) from None

    def _connection(self) -> http.client.HTTPConnection:
        is_safe = self._parts.scheme == "https"
        kind = http.client.HTTPSConnection if is_safe else http.client.HTTPConnection
        return kind(self._parts.hostname or "", self._parts.port, timeout=self._timeout)

    def _sent(
        self,
        connection: http.client.HTTPConnection,
        method: str,
        path: str,
        body: bytes,
        headers: dict[str, str],
    ) -> http.client.HTTPResponse:
        sent = {"Authorization": f"Bearer {self._token}", **headers}
        if body:
            sent["Content-Type"] = "application/json"
        connection.request(method, self._parts.path.rstrip("/") + path, body or None, sent)
        return connection.getresponse()

    def _check(self, reply: Reply) -> None:
        """Raise an error's answer as our error."""
        status, reason = reply.status, reply.reason
        if status < 400:
            return
        if reason is None:
            raise ServiceError(
                f"{self.url} answered {status} without a reason: is a service of the workbench "
                "there, or a proxy before it that wants something else?"
            )
        if status >= 500:
            raise ServiceError(f"the service at {self.url} answered {status}: {reason}")
        if status == 401:
            raise RequestError(
                f"the service at {self.url} does not take this token: `workbench token NAME` "
                "prints the one that it takes, on its machine"
            )
        raise _UnknownError(reason) if _UNKNOWN.match(reason) else RequestError(reason)


class _UnknownError(UnknownNameError):
    """What a service calls unknown, in its words."""

    def __init__(self, reason: str) -> None:
        found = _UNKNOWN.match(reason)
        kind, name = found.groups() if found else ("name", "")
        super().__init__(kind, name, ())
        self.args = (reason,)


def _events(answer: http.client.HTTPResponse) -> Iterator[Heard]:
    """Yield the events of a stream; comments are signs of life and nothing else."""
    told: dict[str, str] = {}
    while line := answer.readline():
        name, _, value = line.decode("utf-8", "replace").rstrip("\r\n").partition(":")
        if name:
            told[name] = value.removeprefix(" ")
        elif not line.strip():
            if "data" in told:
                yield Heard(told.get("event", ""), _data(told["data"]), told.get("id"))
            told = {}


def _data(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        raise http.client.HTTPException("an event is no JSON") from None


def _encoded(told: Any) -> bytes:
    try:
        return msgspec.json.encode(told, enc_hook=_plain)
    except (TypeError, OverflowError, UnicodeEncodeError) as error:
        raise RequestError(f"this cannot be sent as JSON: {error}") from None


def _plain(value: Any) -> Any:
    """Return as JSON what has no word there: arrays as lists, tables by their columns' names."""
    if hasattr(value, "to_dict") and hasattr(value, "columns"):  # a DataFrame
        named = all(isinstance(name, str) for name in value.columns)
        missing = bool(value.isna().to_numpy().any())
        found = msgspec.json.encode(
            value.to_dict("records") if named else value.to_numpy().tolist()
        )
    elif hasattr(value, "tolist"):
        found = msgspec.json.encode(value.tolist())
        missing = b"null" in found and b'"' not in found  # where there are texts, it may be one
    else:
        raise TypeError(f"{type(value).__name__} is none of numbers, texts, lists, arrays, tables")
    if missing:
        raise TypeError("it has NaN or infinite values, which JSON has no word for: fill them in")
    return msgspec.Raw(found)
