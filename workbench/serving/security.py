"""Who may ask a service: the guard before every route, and the tokens it wants.

A page in the user's browser can reach 127.0.0.1 too, by a form or by a name that points there. So
the Host must be ours, the Origin must be ours or absent, and every request carries the token; all
of that is checked before anything is executed.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import ipaddress
import os
import re
import secrets
import socket
import warnings
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from urllib.parse import parse_qs, urlsplit

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from workbench.errors import RequestError
from workbench.serving.answers import Answer, Refusal
from workbench.serving.bodies import read_body

__all__ = ["Guard", "new_token", "warn_of_exposure"]

_OPEN = "/v2/health/live"  # says only that something listens
_PAGES = ("/", "/docs")  # where a person arrives
_SIGN_IN = "/sign-in"
_HERE = ("127.0.0.1", "localhost", "[::1]")
_EVERYWHERE = ("0.0.0.0", "::")  # bound to every address of the machine
_NAME = r"(\*\.)?[a-z0-9_]([a-z0-9_.-]*[a-z0-9_])?|\[[0-9a-f:.]+\]"  # of a host that may be allowed
_ALLOW = "serve(..., allowed_hosts=[...]) or WORKBENCH_ALLOWED_HOSTS"

_FORM = 8 * 2**10  # bytes of a sign-in
_PAUSE = 1.0  # seconds after a wrong one, in which nobody is signed in
_GUESSES = 8  # that may wait for their turn

_READ = frozenset(
    (b"host", b"origin", b"sec-fetch-site", b"sec-fetch-mode", b"sec-fetch-dest", b"accept",
     b"authorization", b"x-workbench-token", b"cookie")
)  # fmt: skip

_Headers = Mapping[bytes, list[bytes]]


def new_token() -> str:
    """Return a fresh token of 256 random bits, fit for a header and a shell."""
    return secrets.token_hex(32)


def warn_of_exposure(host: str) -> None:
    """Warn whoever serves at an address that other machines can reach.

    Args:
        host: the address that is bound; loopback addresses are silent.
    """
    if host.lower() == "localhost" or (
        _is_address(host) and ipaddress.ip_address(host).is_loopback
    ):
        return
    warnings.warn(
        f"the service listens on {host}: every machine that reaches this one may knock, and token "
        "and inputs travel unencrypted. Leave host= out and let others in through Jupyter "
        "(/proxy/PORT/) or `ssh -L`; or put a proxy with TLS before it",
        stacklevel=3,
    )


class Guard:
    """The outermost ASGI application: refuses, or passes on to `app`.

    A request that passes has `scope["workbench.admin"]`, whether its token was the administrator's.

    Args:
        app: what answers the requests that may pass.
        token: what they carry, as `Authorization: Bearer` or `X-Workbench-Token`, or as the cookie
            of a sign-in.
        admin_token: what passes too, and as an administrator's; None for nobody.
        host: the address the service is bound to.
        allowed_hosts: names besides that proxies ask by; `*.example.org` is any name below it.
            Those in WORKBENCH_ALLOWED_HOSTS are added, and the one JupyterHub says it is known by.

    Raises:
        RequestError: a token is empty, or no header can carry it; both are the same; or a host is
            no name.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        admin_token: str | None = None,
        host: str,
        allowed_hosts: Collection[str] = (),
    ) -> None:
        self._app, self._token = app, _as_token(token)
        self._admin_token = None if admin_token is None else _as_token(admin_token)
        if self._admin_token == self._token:
            raise RequestError(
                "token and admin_token are the same, so all who may ask could load models and "
                "promote them: pass another admin_token"
            )
        # Another port of this host is sent the cookie too: it must not learn the token by it.
        session = hmac.new(self._token, b"workbench sign-in", hashlib.sha256)
        self._session = session.hexdigest().encode()
        self._hosts = _Hosts(host, allowed_hosts)
        self._turn, self._waiting = asyncio.Lock(), 0  # of the sign-ins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return  # neither lifespan nor websockets are spoken here
        headers: defaultdict[bytes, list[bytes]] = defaultdict(list)
        for name, value in scope["headers"]:
            if name in _READ:
                headers[name].append(value)
        try:
            answer = await self._instead(scope, headers, receive)
        except Refusal as refusal:
            answer = refusal.answer()
        except ClientDisconnect:
            return  # nobody listens
        if answer is None:
            await self._app(scope, receive, send)
        else:
            await answer.send(send)

    async def _instead(self, scope: Scope, headers: _Headers, receive: Receive) -> Answer | None:
        """Return what a request is answered with that may not pass, or None where it may.

        Raises:
            Refusal: it is of another site, or has no token.
        """
        self._check_site(scope, headers)
        method, path = scope["method"], scope["path"]
        reads = method in ("GET", "HEAD")
        if path == _SIGN_IN and method == "POST":
            return await self._sign_in(scope, receive)
        if path == _SIGN_IN and reads:
            return _to_page()  # it has the form, for whoever needs it
        if self._admits(scope, headers) or (reads and path == _OPEN):
            return None
        if reads and path in _PAGES and any(b"text/html" in value for value in headers[b"accept"]):
            return _sign_in_page()
        raise Refusal(
            401,
            "no valid token: send the header Authorization: Bearer TOKEN, or X-Workbench-Token: "
            "TOKEN through a proxy that needs the other; `workbench token` has it",
            {"WWW-Authenticate": "Bearer"},
        )

    def _check_site(self, scope: Scope, headers: _Headers) -> None:
        """Raise Refusal where a page of another site asks, or by a name that is not ours."""
        hosts = [value.decode("latin-1") for value in headers[b"host"]]
        if len(hosts) != 1 or not self._hosts.has(_name(hosts[0])):
            said = ", ".join(hosts)[:80] or "missing"
            raise Refusal(
                403,
                f"the Host header is {said}: ask by {self._hosts.listed}, or allow that name "
                f"by {_ALLOW}",
            )
        for origin in headers[b"origin"]:
            if not self._is_own(origin.decode("latin-1"), hosts[0]):
                raise Refusal(
                    403,
                    "the Origin header is of another site: a page elsewhere may not ask; a proxy "
                    f"may whose name is allowed by {_ALLOW}",
                )
        sites = {b"cross-site", b"same-site"}.intersection(headers[b"sec-fetch-site"])
        if sites and not _opens_page(scope, headers):
            raise Refusal(
                403, "the Sec-Fetch-Site header says another site: a page elsewhere may not ask"
            )

    def _is_own(self, origin: str, host: str) -> bool:
        """Return whether this service, or a proxy before it, has served the page that asks."""
        scheme, _, place = origin.lower().partition("://")
        if scheme not in ("http", "https"):
            return False
        return place == host.lower() or self._hosts.allows(_name(place))

    def _admits(self, scope: Scope, headers: _Headers) -> bool:
        """Return whether a request has the token, and note whether it is the administrator's."""
        offered = list(headers[b"x-workbench-token"])
        for value in headers[b"authorization"]:
            scheme, _, credentials = value.partition(b" ")
            if scheme.lower() == b"bearer":
                offered.append(credentials.strip())
        scope["workbench.admin"] = self._is_admin(offered)
        return (
            scope["workbench.admin"]
            or _is_among(offered, self._token)
            or _is_among(_cookies(headers[b"cookie"], _cookie_name(scope)), self._session)
        )

    def _is_admin(self, offered: Iterable[bytes]) -> bool:
        return self._admin_token is not None and _is_among(offered, self._admin_token)

    async def _sign_in(self, scope: Scope, receive: Receive) -> Answer:
        """Return the way to the page and a cookie for the token, or the form again.

        Raises:
            Refusal: too many try at once.
        """
        form = parse_qs((await read_body(scope, receive, most=_FORM)).decode("latin-1"))
        offered = form.get("token", [""])[0]  # one: a form of many would be as many guesses
        if not await self._guess([offered.strip().encode()]):
            return _sign_in_page(wrong=True)
        # No Path: the cookie is for what is beside the form, also behind /user/x/proxy/8000/.
        cookie = f"{_cookie_name(scope).decode()}={self._session.decode()}"
        return _to_page({"Set-Cookie": f"{cookie}; HttpOnly; SameSite=Strict"})

    async def _guess(self, offered: Iterable[bytes]) -> bool:
        """Return whether the token is among these; after a wrong guess, the next has to wait."""
        if self._waiting >= _GUESSES:
            raise Refusal(429, "too many sign-ins at once: wait a little", {"Retry-After": "10"})
        self._waiting += 1
        try:
            await self._turn.acquire()
        finally:
            self._waiting -= 1
        right = self._is_admin(offered) or _is_among(offered, self._token)
        asyncio.get_running_loop().call_later(0 if right else _PAUSE, self._turn.release)
        return right


class _Hosts:
    """The names that a service may be asked by.

    Args:
        bound: the address it is bound to.
        allowed: by whoever serves it.
    """

    def __init__(self, bound: str, allowed: Collection[str]) -> None:
        self._bound = bound.lower()
        self._allowed = {_as_host(name) for name in (*allowed, *_of_environment())}
        self._ours = {*_HERE, self._bound, f"[{self._bound}]"}
        self._everywhere = bound in _EVERYWHERE
        if self._everywhere:
            self._ours.add(socket.gethostname().lower())

    @property
    def listed(self) -> str:
        """Those that can be said."""
        return ", ".join(dict.fromkeys((*_HERE, self._bound, *sorted(self._allowed))))

    def has(self, name: str) -> bool:
        """Return whether a name, in lower case and without a port, is ours or allowed."""
        # No name of a foreign site is a bare address, so addresses are as safe as our own name.
        any_address = self._everywhere and _is_address(name.strip("[]"))
        return name in self._ours or any_address or self.allows(name)

    def allows(self, name: str) -> bool:
        """Return whether a name was allowed besides our own."""
        above = name.partition(".")[2]
        while above:
            if f"*.{above}" in self._allowed:
                return True
            above = above.partition(".")[2]
        return name in self._allowed


def _of_environment() -> Iterable[str]:
    """Yield the names that the environment allows."""
    yield from filter(
        None, map(str.strip, os.environ.get("WORKBENCH_ALLOWED_HOSTS", "").split(","))
    )
    hub = urlsplit(os.environ.get("JUPYTERHUB_PUBLIC_URL", "")).hostname
    if hub:
        yield f"[{hub}]" if ":" in hub else hub


def _as_host(name: str) -> str:
    """Return the name of a host as it is compared.

    Raises:
        RequestError: it is none.
    """
    plain = _name(name)
    if not re.fullmatch(_NAME, plain):
        raise RequestError(
            f"allowed host {name!r:.80} is none: expected a name as 'hub.example.org', or "
            "'*.example.org' for all below it, without http:// and path; '*' alone would let any "
            "page ask that points a name of its own at this machine"
        )
    return plain


def _as_token(token: str) -> bytes:
    if not re.fullmatch(r"[!-~]+", token):
        raise RequestError(
            "a token must be letters, digits and signs without spaces, and not be empty: "
            "pass another, or token=None for a random one"
        )
    return token.encode()


def _name(host: str) -> str:
    """Return a Host header, or what stands in one's place, without its port."""
    return re.sub(r":\d*$", "", host.strip()).lower()


def _is_address(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _sign_in_page(*, wrong: bool = False) -> Answer:
    from workbench.serving.pages import sign_in_page  # which loads torch, and a supervisor has none

    return sign_in_page(wrong=wrong)


def _to_page(headers: Mapping[str, str] | None = None) -> Answer:
    """Return the way from the sign-in to the page beside it."""
    return Answer(b"", 303, "text/plain", {"Location": "./", **(headers or {})})


def _opens_page(scope: Scope, headers: _Headers) -> bool:
    """Return whether a person follows a link to one of our pages, in a window and in no frame."""
    return (
        scope["method"] == "GET"
        and scope["path"] in _PAGES
        and headers[b"sec-fetch-mode"] == [b"navigate"]
        and headers[b"sec-fetch-dest"] == [b"document"]
    )


def _is_among(offered: Iterable[bytes], wanted: bytes) -> bool:
    """Return whether one is the wanted; in a time that says nothing of it."""
    return any(hmac.compare_digest(given, wanted) for given in offered)


def _cookie_name(scope: Scope) -> bytes:
    """Return the name of our cookie: those of a host's services lie side by side."""
    return b"workbench-%d" % scope["server"][1]


def _cookies(headers: Iterable[bytes], name: bytes) -> Iterable[bytes]:
    """Yield the values of the cookies of that name."""
    for header in headers:
        for cookie in header.split(b";"):
            key, _, value = cookie.strip().partition(b"=")
            if key == name:
                yield value
