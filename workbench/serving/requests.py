"""One request as the endpoints see it, and the table of routes that finds theirs."""

from __future__ import annotations

import itertools
import random
import re
import secrets
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qsl

from starlette.routing import compile_path
from starlette.types import Receive, Scope

from workbench.serving.answers import Answer, Events, Refusal
from workbench.serving.batching import Connection
from workbench.serving.bodies import MAX_BODY, read_body
from workbench.serving.tensors import read_json
from workbench.types import JSON

__all__ = ["Endpoint", "Request", "Route", "Routes"]

_REMEMBERED = 1024  # paths whose endpoint is known without a search
_PROCESS = secrets.token_hex(6) + "-"  # ids of several processes differ, also after a restart
_numbers = itertools.count(1)


@dataclass(slots=True)
class Request:
    """A request: what its path names, its headers and its body.

    Args:
        scope: of ASGI.
        receive: of ASGI.
        params: what the placeholders of its route stand for.
        begun: when it came, by `time.perf_counter`.
        id: unlike that of any other; what a later label of its rows comes with.
        model: the reference of what answered it, once that is known.
        draw: a number from 0 to 1, by which it falls to one version or another.
        drawn: whether it did.
    """

    scope: Scope
    receive: Receive
    params: dict[str, str] = field(default_factory=dict)
    begun: float = field(default_factory=time.perf_counter)
    id: str = field(default_factory=lambda: f"{_PROCESS}{next(_numbers):x}")
    model: str | None = None
    draw: float = field(default_factory=random.random)
    drawn: bool = False

    @property
    def query(self) -> dict[str, str]:
        """What its address has after the question mark; of a name twice, the last."""
        return dict(parse_qsl(self.scope["query_string"].decode("latin-1")))

    @property
    def told(self) -> list[tuple[bytes, bytes]]:
        """What the headers of its answer say of it: its id, and what answered."""
        headers = [(b"x-request-id", self.id.encode())]
        if self.model is not None:
            headers.append((b"x-model-version", self.model.encode()))
        return headers

    def header(self, name: bytes) -> str | None:
        """Return the first header of that name, which is in lower case, or None."""
        for known, value in self.scope["headers"]:
            if known == name:
                return str(value.decode("latin-1"))
        return None

    @property
    def length(self) -> int:
        """How many bytes its body has, by its header; of one in chunks a guess, 1 MiB."""
        said = self.header(b"content-length")
        return int(said) if said is not None and said.isdigit() else 2**20

    async def body(self, *, most: int = MAX_BODY) -> bytes:
        """Return the whole body, inflated where it was sent so.

        Args:
            most: bytes that it may have.

        Raises:
            Refusal: it is too large, or is not what its headers say.
        """
        return await read_body(self.scope, self.receive, most=most)

    async def json(self, *, most: int) -> JSON:
        """Return the object of JSON that its body is; of an empty one an empty object.

        Args:
            most: bytes that it may have.

        Raises:
            RequestError: it is something else.
        """
        told: JSON = read_json((await self.body(most=most)) or b"{}", dict)
        return told

    @property
    def connection(self) -> Connection | None:
        """What tells when the client has left, where the server can."""
        found: Connection | None = self.scope.get("workbench.connection")
        return found

    @property
    def is_admin(self) -> bool:
        """Whether it came with the token of an administrator."""
        return bool(self.scope.get("workbench.admin"))


Endpoint = Callable[[Request], Awaitable[Answer | Events]]


@dataclass(frozen=True)
class Route:
    """What a method of a path does.

    Args:
        method: of HTTP.
        path: with placeholders, for instance `"/v2/models/{model}"`.
        endpoint: that answers.
        counted: whether it asks for an inference, and is counted with the model's requests.
        admin: whether it is for an administrator's token alone.
    """

    method: str
    path: str
    endpoint: Endpoint
    counted: bool = False
    admin: bool = False

    def check(self, request: Request) -> None:
        """Raise where a request may not come here.

        Raises:
            Refusal: 403, it came without the administrator's token.
        """
        if self.admin and not request.is_admin:
            raise Refusal(
                403,
                "this needs the administrator's token: start the service with admin_token=, or "
                "with WORKBENCH_ADMIN_TOKEN in its environment, and send that one",
            )


class Routes:
    """The table of routes.

    Args:
        routes: in the order in which they are tried.
    """

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [(_pattern(route.path), route) for route in routes]
        self._found: dict[tuple[str, str], tuple[Route, dict[str, str]]] = {}

    def find(self, method: str, path: str) -> tuple[Route, dict[str, str]]:
        """Return the route of a request, and what its placeholders stand for.

        Raises:
            Refusal: 404 where there is no such path, 405 where it has other methods.
        """
        known = self._found.get((method, path))
        if known is not None:
            return known
        found = [(route, m) for pattern, route in self._routes if (m := pattern.match(path))]
        asked = f"{method} {path}"[:200]
        if not found:
            raise Refusal(404, f"there is no {asked}: GET /v2 says what this service is")
        wanted = "GET" if method == "HEAD" else method  # the server keeps the body to itself
        for route, match in found:
            if route.method == wanted:
                params: dict[str, Any] = match.groupdict()
                if len(self._found) < _REMEMBERED:
                    self._found[method, path] = route, params
                return route, params
        methods = {route.method for route, _ in found}
        allowed = ", ".join(sorted(methods | ({"HEAD"} if "GET" in methods else set())))
        raise Refusal(
            405, f"{asked} is not offered: expected {allowed}", headers={"Allow": allowed}
        )


def _pattern(path: str) -> re.Pattern[str]:
    """Return what matches a path; no name in one has a colon, since V1 puts its verb after one."""
    return re.compile(compile_path(path)[0].pattern.replace("[^/]+", "[^/:]+"))
