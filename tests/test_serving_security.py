"""Who may not ask a service, and that nothing is executed for them."""

from __future__ import annotations

import socket

import pytest
from asking import ask, bearer, infer_body
from starlette.datastructures import Headers

from workbench.serving import Service
from workbench.serving.security import new_token, refusal

METHODS = ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE", "STRANGE"]
PATHS = [
    "/", "/v2", "/v2/health/ready", "/v2/health/live/", "//v2/health/live", "/v2/models/small",
    "/v2/models/small/infer", "/v1/models/small:predict", "/nothing",
]  # fmt: skip
INFER = "/v2/models/small/infer"


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


@pytest.mark.parametrize(
    "headers",
    [
        {"Authorization": "Bearer wrong"},
        {"Authorization": "Bearer "},
        {"Authorization": "TOKEN"},
        {"Authorization": "Basic TOKEN"},
        {"Authorization": "Bearer TOKENx"},
        {"Authorization": "Bearer é"},
        {"X-Workbench-Token": ""},
        {"X-Workbench-Token": "Bearer TOKEN"},
        {"Cookie": "token=TOKEN"},
    ],
)
def test_a_wrong_token_is_refused(service: Service, headers: dict[str, str]) -> None:
    sent = {key: value.replace("TOKEN", service.token) for key, value in headers.items()}
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


@pytest.mark.parametrize(
    ("headers", "message"),
    [
        ({"Host": "evil.example"}, "the Host header is evil.example: ask by 127.0.0.1, localhost"),
        ({"Host": "evil.example:80"}, "the Host header is evil.example:80"),
        ({"Host": "127.0.0.1.evil.example"}, "the Host header is"),
        ({"Host": "localhost@evil.example"}, "the Host header is"),
        ({"Host": "10.0.0.7"}, "the Host header is 10.0.0.7"),
        ({"Host": ""}, "the Host header is"),
        ({"Origin": "http://evil.example"}, "the Origin header is of another site"),
        ({"Origin": "null"}, "the Origin header is of another site"),
        ({"Origin": ""}, "the Origin header is of another site"),
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
    answer = ask(service, method, INFER, infer_body(), {**bearer(service), **headers})
    assert answer.status == 403
    assert answer.error.startswith(message)
    assert not [name for name in answer.headers if name.lower().startswith("access-control")]
    assert ask(service, "GET", "/v2/health/live", headers=headers).status == 403
    assert service.stats().requests == before


@pytest.mark.parametrize("name", ["127.0.0.1", "localhost", "LOCALHOST", "[::1]"])
def test_our_own_names_pass_with_any_port(service: Service, name: str) -> None:
    for host in (name, f"{name}:8000"):
        headers = {**bearer(service), "Host": host, "Origin": f"http://{host}"}
        headers["Sec-Fetch-Site"] = "same-origin"
        assert ask(service, "POST", INFER, infer_body(), headers).status == 200


def refused(host: str, bound: str) -> bool:
    headers = Headers({"host": host, "x-workbench-token": "t"})
    return refusal("/v2", headers, token="t", host=bound) is not None


def test_bound_to_every_address_any_address_is_ours_and_no_foreign_name() -> None:
    assert not refused("192.168.1.5:80", "0.0.0.0")
    assert not refused("[fe80::1]:80", "::")
    assert not refused(f"{socket.gethostname()}:80", "0.0.0.0")
    assert refused("evil.example:80", "0.0.0.0")
    assert refused("192.168.1.5:80", "127.0.0.1")
    assert not refused("box.lan:80", "box.lan")


def test_two_host_headers_and_none_are_refused() -> None:
    two = Headers(raw=[(b"host", b"localhost"), (b"host", b"evil.example")])
    for headers, said in ((two, "localhost, evil.example"), (Headers({}), "missing")):
        told = refusal("/v2/health/live", headers, token="t", host="127.0.0.1")
        assert told is not None
        assert told[0] == 403
        assert told[1].startswith(f"the Host header is {said}: ask by")


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
