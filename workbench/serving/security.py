"""Who may ask a service: the guard before every route, and the tokens it wants.

A page in the user's browser can reach 127.0.0.1 too, by a form or by a name that points there. So
the Host must be ours, the Origin must be ours or absent, and every request carries the token; all
of that is checked before anything is executed.
"""

from __future__ import annotations

import hmac
import ipaddress
import re
import secrets
import socket
from collections.abc import Iterable

from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from workbench.errors import RequestError
from workbench.serving.protocol import encode

__all__ = ["Guard", "new_token", "refusal"]

_OPEN = "/v2/health/live"  # says only that something listens
_HERE = ("127.0.0.1", "localhost", "[::1]")
_EVERYWHERE = ("0.0.0.0", "::")  # bound to every address of the machine


def new_token() -> str:
    """Return a fresh token of 256 random bits, fit for a header and a shell."""
    return secrets.token_hex(32)


class Guard:
    """The outermost ASGI application: refuses, or passes on to `app`.

    Args:
        app: what answers the requests that may pass.
        token: what they carry, as `Authorization: Bearer` or `X-Workbench-Token`.
        host: the address the service is bound to.

    Raises:
        RequestError: the token is empty, or no header can carry it.
    """

    def __init__(self, app: ASGIApp, *, token: str, host: str) -> None:
        if not re.fullmatch(r"[!-~]+", token):
            raise RequestError(
                "a token must be letters, digits and signs without spaces, and not be empty: "
                "pass another, or token=None for a random one"
            )
        self._app, self._token, self._host = app, token, host

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return  # neither lifespan nor websockets are spoken here
        refused = refusal(scope["path"], Headers(scope=scope), token=self._token, host=self._host)
        if refused is None:
            await self._app(scope, receive, send)
            return
        status, reason = refused
        headers = {"WWW-Authenticate": "Bearer"} if status == 401 else None
        body = encode({"error": reason})
        await Response(body, status, headers, "application/json")(scope, receive, send)


def refusal(path: str, headers: Headers, *, token: str, host: str) -> tuple[int, str] | None:
    """Return why a request may not pass, as status and reason, or None where it may.

    Args:
        path: of the request, decoded.
        headers: of the request.
        token: the one that passes.
        host: the address the service is bound to.
    """
    hosts = headers.getlist("host")
    if len(hosts) != 1 or not _is_ours(_name(hosts[0]), host):
        said = ", ".join(hosts)[:80] or "missing"
        return 403, f"the Host header is {said}: ask by {', '.join(dict.fromkeys((*_HERE, host)))}"
    if any(origin not in _origins(hosts[0]) for origin in headers.getlist("origin")):
        return 403, "the Origin header is of another site: a page elsewhere may not ask"
    if {"cross-site", "same-site"} & set(headers.getlist("sec-fetch-site")):
        return 403, "the Sec-Fetch-Site header says another site: a page elsewhere may not ask"
    if path == _OPEN or _carries(headers, token):
        return None
    return (
        401,
        "no valid token: send the header Authorization: Bearer TOKEN; `workbench token` has it",
    )


def _name(host: str) -> str:
    """Return a Host header without its port."""
    return re.sub(r":\d*$", "", host.strip()).lower()


def _is_ours(name: str, bound: str) -> bool:
    ours = {*_HERE, bound.lower(), f"[{bound.lower()}]"}
    if bound in _EVERYWHERE:
        # No name of a foreign site is a bare address, so addresses are as safe as our own name.
        return name in ours | {socket.gethostname().lower()} or _is_address(name)
    return name in ours


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name.strip("[]"))
    except ValueError:
        return False
    return True


def _origins(host: str) -> Iterable[str]:
    """Return the origins of a page that this service itself, or a proxy before it, has served."""
    return (f"http://{host}", f"https://{host}")


def _carries(headers: Headers, token: str) -> bool:
    offered = list(headers.getlist("x-workbench-token"))
    for value in headers.getlist("authorization"):
        scheme, _, credentials = value.partition(" ")
        if scheme.lower() == "bearer":
            offered.append(credentials.strip())
    wanted = token.encode()
    return any(hmac.compare_digest(given.encode(), wanted) for given in offered)
