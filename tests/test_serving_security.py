"""Who may not ask a service, and that nothing is executed for them."""

from __future__ import annotations

import asyncio
import http.client
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlencode

import pytest
from asking import Answer, ask, bearer, infer_body
from listening import listening
from starlette.types import Receive, Scope, Send

from workbench.errors import RequestError
from workbench.serving import Service
from workbench.serving.answers import json_answer
from workbench.serving.security import Guard, new_token, warn_of_exposure

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "PROPFIND"]
PATHS = [
    "/", "/docs", "/openapi.json", "/assets/page.css", "/assets/../openapi.json", "/nothing",
    "/v2", "/v2/health/ready", "/v2/health/live/", "//v2/health/live", "/v2/models/small",
    "/v2/models/small/infer", "/v1/models/small:predict", "/models/small/predict",
    "/v2/repository/index", "/v2/repository/models/small/load", "/sign-in/", "/v2/sign-in",
]  # fmt: skip
INFER = "/v2/models/small/infer"
BROWSER = {"Accept": "text/html,application/xhtml+xml;q=0.9,*/*;q=0.8"}


async def passed(scope: Scope, receive: Receive, send: Send) -> None:
    await json_answer({"admin": scope["workbench.admin"]}).send(send)


def guard(host: str = "127.0.0.1", allowed: Sequence[str] = (), token: str = "t") -> Guard:
    return Guard(passed, token=token, admin_token="a", host=host, allowed_hosts=allowed)


def told(
    guard: Guard, *headers: tuple[str, str], method: str = "GET", path: str = "/v2"
) -> tuple[int, str]:
    """Return the status and the body that a guard answers these headers with."""
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    raw = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    scope = {"type": "http", "method": method, "path": path, "headers": raw, "server": ("", 80)}
    asyncio.run(guard(scope, lambda: None, send))  # type: ignore[arg-type,return-value]
    return sent[0]["status"], sent[1]["body"].decode()


@pytest.mark.parametrize("method", METHODS)
def test_no_method_on_any_route_goes_without_the_token(service: Service, method: str) -> None:
    for path in PATHS:
        answer = ask(service, method, path, headers={})
        assert answer.status == 401, path
        assert answer.headers["WWW-Authenticate"] == "Bearer"
        if method != "HEAD":
            assert answer.error.startswith("no valid token: send the header Authorization: Bearer")


def test_liveness_alone_needs_no_token(service: Service) -> None:
    assert ask(service, "GET", "/v2/health/live", headers={}).status == 200
    for method in ("POST", "DELETE", "OPTIONS"):
        assert ask(service, method, "/v2/health/live", headers={}).status == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "TOKEN"},
        {"Authorization": "Basic TOKEN"},
        {"Authorization": "token TOKEN"},
        {"Authorization": "Bearer TOKENx"},
        {"Authorization": "Bearer é"},
        {"X-Workbench-Token": ""},
        {"X-Workbench-Token": "Bearer TOKEN"},
        {"Cookie": "token=TOKEN"},
        {"Cookie": "workbench-PORT=TOKEN"},
        {"Cookie": "workbench-PORT="},
    ],
)
def test_a_wrong_token_is_refused(service: Service, headers: dict[str, str]) -> None:
    port = service.url.rpartition(":")[2]
    sent = {k: v.replace("TOKEN", service.token).replace("PORT", port) for k, v in headers.items()}
    before = service.stats().requests
    assert ask(service, "POST", INFER, infer_body(), sent).status == 401
    assert service.stats().requests == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer TOKEN"},
        {"authorization": "bearer TOKEN"},
        {"X-Workbench-Token": "TOKEN"},
        {"Authorization": "Bearer of-the-proxy", "X-Workbench-Token": "TOKEN"},
    ],
)
def test_the_token_passes_in_either_header(service: Service, headers: dict[str, str]) -> None:
    sent = {key: value.replace("TOKEN", service.token) for key, value in headers.items()}
    assert ask(service, "POST", INFER, infer_body(), sent).status == 200


def test_the_token_in_the_url_does_not_pass(service: Service) -> None:
    assert ask(service, "GET", f"/v2?token={service.token}", headers={}).status == 401


def test_the_administrators_token_is_told_from_the_other() -> None:
    host = ("host", "localhost")
    assert told(guard(), host, ("authorization", "Bearer t")) == (200, '{"admin":false}')
    assert told(guard(), host, ("authorization", "Bearer a")) == (200, '{"admin":true}')
    assert told(guard(), host, ("x-workbench-token", "a")) == (200, '{"admin":true}')
    assert told(guard(), host, path="/v2/health/live") == (200, '{"admin":false}')
    plain = Guard(passed, token="t", host="127.0.0.1")
    assert told(plain, host, ("authorization", "Bearer a"))[0] == 401


def test_one_token_for_all_is_refused() -> None:
    with pytest.raises(RequestError, match="token and admin_token are the same"):
        Guard(passed, token="one", admin_token="one", host="127.0.0.1")


@pytest.mark.parametrize("token", ["", " ", "a b", "tökén", "a\n"])
def test_a_token_that_no_header_carries_is_refused(token: str) -> None:
    with pytest.raises(RequestError, match="a token must be letters, digits and signs without sp"):
        guard(token=token)
    with pytest.raises(RequestError, match="and not be empty: pass another, or token=None for a"):
        Guard(passed, token="t", admin_token=token, host="127.0.0.1")


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Host": "evil.example"}, "the Host header is evil.example: ask by 127.0.0.1, localhost"),
        ({"Host": "evil.example:80"}, "the Host header is evil.example:80"),
        ({"Host": "127.0.0.1.evil.example"}, "the Host header is"),
        ({"Host": "localhost@evil.example"}, "the Host header is"),
        ({"Host": "localhost."}, "the Host header is"),
        ({"Host": "10.0.0.7"}, "the Host header is 10.0.0.7"),
        ({"Host": ""}, "the Host header is"),
        ({"Origin": "http://evil.example"}, "the Origin header is of another site"),
        ({"Origin": "null"}, "the Origin header is of another site"),
        ({"Origin": ""}, "the Origin header is of another site"),
        ({"Origin": "file://"}, "the Origin header is of another site"),
        ({"Origin": "http://localhost:8888"}, "the Origin header is of another site"),
        ({"Sec-Fetch-Site": "cross-site"}, "the Sec-Fetch-Site header says another site"),
        ({"Sec-Fetch-Site": "same-site"}, "the Sec-Fetch-Site header says another site"),
    ],
)
@pytest.mark.parametrize("method", ["GET", "POST", "DELETE", "OPTIONS"])
def test_other_sites_are_refused_before_anything_is_done(
    service: Service, method: str, headers: dict[str, str], message: str
) -> None:
    before = service.stats().requests
    for path in (INFER, "/v2/health/live", "/sign-in", "/"):
        answer = ask(service, method, path, infer_body(), {**bearer(service), **headers})
        assert answer.status == 403
        assert answer.error.startswith(message)
        assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert service.stats().requests == before


@pytest.mark.parametrize(
    "headers",
    [
        {"Content-Type": "text/plain"},
        {"Content-Type": "application/x-www-form-urlencoded"},
        {"Content-Type": "multipart/form-data; boundary=x"},
    ],
)
@pytest.mark.parametrize("mode", ["navigate", "no-cors", "cors", "websocket"])
def test_a_form_of_another_page_is_refused(
    service: Service, headers: dict[str, str], mode: str
) -> None:
    page = {"Origin": "https://evil.example", "Sec-Fetch-Site": "cross-site"}
    page |= {"Sec-Fetch-Mode": mode, "Sec-Fetch-Dest": "document", **headers, **bearer(service)}
    before = service.stats().requests
    for path in (INFER, "/v2/repository/models/small/load", "/sign-in", "/", "/docs"):
        assert ask(service, "POST", path, infer_body(), page).status == 403
        silent = {key: value for key, value in page.items() if key != "Origin"}
        assert ask(service, "POST", path, infer_body(), silent).status == 403
    assert service.stats().requests == before


@pytest.mark.parametrize("site", ["cross-site", "same-site", "none", "same-origin"])
def test_a_link_of_another_page_opens_the_two_pages_alone(service: Service, site: str) -> None:
    link = {"Sec-Fetch-Site": site, "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    elsewhere = "-site" in site
    for path in ("/", "/docs"):
        assert ask(service, "GET", path, headers={**link, **BROWSER}).status == 401
        assert (
            ask(service, "GET", path, headers={**link, **BROWSER, **bearer(service)}).status == 200
        )
        for other in ({"Sec-Fetch-Dest": "iframe"}, {"Sec-Fetch-Mode": "cors"}):
            told = ask(service, "GET", path, headers={**link, **bearer(service), **other})
            assert told.status == (403 if elsewhere else 200)
    asked = ask(service, "GET", "/v2", headers={**link, **bearer(service)})
    assert asked.status == (403 if elsewhere else 200)


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_our_own_names_pass_with_any_port(service: Service, name: str) -> None:
    for host in (name, f"{name}:8000", f"{name}:"):
        for scheme in ("http", "https"):
            headers = {**bearer(service), "Host": host, "Origin": f"{scheme}://{host}"}
            headers["Sec-Fetch-Site"] = "same-origin"
            assert ask(service, "POST", INFER, infer_body(), headers).status == 200


def refused(host: str, guard: Guard) -> bool:
    status, _ = told(guard, ("host", host), ("x-workbench-token", "t"))
    assert status in (200, 403)
    return status == 403


def test_bound_to_every_address_any_address_is_ours_and_no_foreign_name() -> None:
    assert not refused("192.168.1.5:80", guard("0.0.0.0"))
    assert not refused("[fe80::1]:80", guard("::"))
    assert not refused(f"{socket.gethostname()}:80", guard("0.0.0.0"))
    assert refused("evil.example:80", guard("0.0.0.0"))
    assert refused("192.168.1.5.evil.example", guard("0.0.0.0"))
    assert refused("192.168.1.5:80", guard("127.0.0.1"))
    assert not refused("box.lan:80", guard("box.lan"))
    assert not refused("[fe80::1]", guard("fe80::1"))


def test_a_host_that_is_allowed_passes_and_those_below_a_star() -> None:
    known = guard(allowed=["hub.example.org", "*.lab.example.org:443", "[fd00::7]", "My_Box"])
    for name in ("hub.example.org", "HUB.example.org:8000", "a.lab.example.org", "[fd00::7]:1"):
        assert not refused(name, known)
    assert not refused("x.y.lab.example.org", known)
    assert not refused("my_box:8000", known)
    for name in ("lab.example.org", "example.org", "xhub.example.org", "a.lab.example.org.evil"):
        assert refused(name, known)


def test_the_refusal_says_how_a_host_is_allowed() -> None:
    status, said = told(guard(allowed=["hub.example.org"]), ("host", "evil.example"))
    assert status == 403
    assert "ask by 127.0.0.1, localhost, [::1], hub.example.org, or allow that name" in said
    assert "serve(..., allowed_hosts=[...]) or WORKBENCH_ALLOWED_HOSTS" in said


def test_the_environment_allows_hosts(monkeypatch: pytest.MonkeyPatch) -> None:
    assert refused("hub.example.org", guard())
    monkeypatch.setenv("WORKBENCH_ALLOWED_HOSTS", "hub.example.org, *.other.example,")
    assert not refused("hub.example.org", guard())
    assert not refused("a.other.example", guard())
    monkeypatch.delenv("WORKBENCH_ALLOWED_HOSTS")
    monkeypatch.setenv("JUPYTERHUB_PUBLIC_URL", "https://notebooks.example.org:8443/user/x/")
    assert not refused("notebooks.example.org:8443", guard())
    assert refused("hub.example.org", guard())


@pytest.mark.parametrize(
    "name", ["*", "*.", "", "https://a.example", "a.example/x", "a b", ".a", "*a"]
)
def test_what_is_no_name_of_a_host_is_not_allowed(name: str) -> None:
    with pytest.raises(RequestError, match=r"allowed host .* is none: expected a name as 'hub.exa"):
        guard(allowed=[name])


def test_the_page_of_an_allowed_proxy_may_ask_and_no_other() -> None:
    known, token = guard(allowed=["*.proxy.example"]), ("x-workbench-token", "t")
    for origin, status in [
        ("https://a.proxy.example", 200),
        ("https://a.proxy.example:8443", 200),
        ("https://proxy.example.evil", 403),
        ("ftp://a.proxy.example", 403),
        ("http://localhost:8888", 403),  # our own name, and another server's page
    ]:
        assert told(known, ("host", "localhost:80"), ("origin", origin), token)[0] == status


def test_two_host_headers_and_none_are_refused() -> None:
    two = [("host", "localhost"), ("host", "evil.example")]
    for headers, said in ((two, "localhost, evil.example"), ([], "missing")):
        status, reason = told(guard(), *headers, path="/v2/health/live")
        assert status == 403
        assert f"the Host header is {said}: ask by" in reason


def test_a_request_without_a_host_is_refused(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", int(service.url[17:]))) as raw:
        raw.sendall(b"GET /v2/health/live HTTP/1.0\r\n\r\n")
        assert raw.recv(100).startswith(b"HTTP/1.1 403")


def test_a_websocket_is_no_way_around_the_token(service: Service) -> None:
    headers = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "eA=="}
    assert ask(service, "GET", "/v2", headers=headers).status == 401


def test_tokens_are_long_and_never_the_same() -> None:
    assert len({new_token() for _ in range(100)}) == 100
    assert len(bytes.fromhex(new_token())) == 32


# The sign-in of a browser


def sign_in(service: Service, token: str, **headers: str) -> Answer:
    form = urlencode({"token": token}).encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded", "Origin": service.url}
    return ask(service, "POST", "/sign-in", form, {**kind, **headers})


@pytest.fixture
def unhurried(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a wrong sign-in cost no second."""
    monkeypatch.setattr("workbench.serving.security._PAUSE", 0.05)


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_browser_without_the_token_sees_the_form_alone(service: Service, path: str) -> None:
    answer = ask(service, "GET", path, headers=BROWSER)
    assert (answer.status, answer.headers.get_content_type()) == (401, "text/html")
    assert b'action="sign-in"' in answer.body
    assert service.model.encode() not in answer.body
    assert ask(service, "GET", "/openapi.json", headers=BROWSER).status == 401
    assert ask(service, "POST", path, headers=BROWSER).status == 401


def test_a_sign_in_gives_a_cookie_that_passes_and_is_not_the_token(service: Service) -> None:
    answer = sign_in(service, f" {service.token}\n")
    assert (answer.status, answer.headers["Location"]) == (303, "./")
    cookie, *attributes = answer.headers["Set-Cookie"].split("; ")
    assert sorted(attributes) == ["HttpOnly", "SameSite=Strict"]  # and no Path
    assert cookie.startswith(f"workbench-{service.url.rpartition(':')[2]}=")
    assert service.token not in cookie
    jar = {"Cookie": f"_xsrf=2|a; {cookie}; other=1"}
    assert ask(service, "GET", "/", headers={**BROWSER, **jar}).status == 200
    assert ask(service, "POST", INFER, infer_body(), jar).status == 200
    assert ask(service, "POST", INFER, infer_body(), {"Cookie": f"{cookie}x"}).status == 401
    away = {**jar, "Origin": "https://evil.example"}
    assert ask(service, "POST", INFER, infer_body(), away).status == 403


@pytest.mark.usefixtures("unhurried")
@pytest.mark.parametrize("token", ["", "wrong", "TOKENx", "é"])
def test_a_wrong_sign_in_shows_the_form_again(service: Service, token: str) -> None:
    answer = sign_in(service, token.replace("TOKEN", service.token))
    assert answer.status == 401
    assert "Set-Cookie" not in answer.headers
    assert b"That is not the token." in answer.body


@pytest.mark.usefixtures("unhurried")
def test_a_form_is_one_guess(service: Service) -> None:
    form = f"token=wrong&token={service.token}".encode()
    assert ask(service, "POST", "/sign-in", form, {}).status == 401


def test_the_way_back_from_the_form_leads_to_the_page(service: Service) -> None:
    answer = ask(service, "GET", "/sign-in", headers=BROWSER)
    assert (answer.status, answer.headers["Location"]) == (303, "./")
    assert "Set-Cookie" not in answer.headers


def test_the_administrators_token_signs_in_without_its_rights() -> None:
    with listening(guard()) as port:
        page = http.client.HTTPConnection("127.0.0.1", port)
        page.request("POST", "/sign-in", "token=a")
        answer = page.getresponse()
        cookie = (answer.headers["Set-Cookie"] or "").partition(";")[0]
        answer.read()
        page.request("GET", "/v2", headers={"Cookie": cookie})
        assert page.getresponse().read() == b'{"admin":false}'
        page.close()


@pytest.fixture
def guarded() -> Iterator[int]:
    with listening(guard()) as port:
        yield port


def guesses(port: int, number: int) -> list[http.client.HTTPConnection]:
    """Return connections that have sent a wrong sign-in each."""
    pages = [http.client.HTTPConnection("127.0.0.1", port, timeout=20) for _ in range(number)]
    for page in pages:
        page.request("POST", "/sign-in", "token=wrong")
    return pages


def test_guesses_take_their_turn_and_are_few(guarded: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.serving.security._PAUSE", 0.1)
    started = time.monotonic()
    pages = guesses(guarded, 12)
    answers = [page.getresponse() for page in pages]
    assert time.monotonic() - started >= 0.8
    said = sorted((answer.status, answer.headers["Retry-After"]) for answer in answers)
    assert said == [(401, None)] * 9 + [(429, "10")] * 3
    assert any(b"too many sign-ins at once" in answer.read() for answer in answers)
    for page in pages:
        page.close()


def test_a_sign_in_is_small_and_guesses_hold_up_nobody_else(guarded: int) -> None:
    pages = guesses(guarded, 2)
    page = http.client.HTTPConnection("127.0.0.1", guarded, timeout=20)
    started = time.monotonic()
    page.request("GET", "/v2", headers={"Authorization": "Bearer t"})
    assert page.getresponse().read() == b'{"admin":false}'
    page.request("POST", "/sign-in", b"token=" + b"x" * 9000)
    answer = page.getresponse()
    assert (answer.status, answer.read()[:45]) == (
        413,
        b'{"error":"the body is larger than 8192 bytes:',
    )
    assert time.monotonic() - started < 0.9
    for other in (page, *pages):
        other.close()


# Bound to more than this machine


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "box.lan", "fe80::1"])
def test_an_address_that_others_reach_is_warned_of(host: str) -> None:
    def serves() -> None:
        warn_of_exposure(host)

    with pytest.warns(UserWarning, match=f"the service listens on {host}: every machine") as caught:
        exec(compile("serves()", "a cell", "exec"), {"serves": serves})
    assert caught[0].filename == "a cell"
    assert "unencrypted. Leave host= out and let others in through" in str(caught[0].message)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "localhost", "LocalHost", "::1"])
def test_a_loopback_address_is_not_warned_of(host: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_exposure(host)
