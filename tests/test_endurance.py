"""Many requests: malformed ones without one 500, and hours of traffic on the same memory."""

from __future__ import annotations

import contextlib
import json
import random
import socket
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from copy import copy
from typing import Any
from urllib.parse import urlsplit

import psutil
import pytest
from points import POINTS, publish_both
from supervised import Serve, serving

import workbench as wb
from workbench.serving import Listing

MILLION = 2**20
SEVERAL = 8  # requests that one connection sends before it reads
CLIENTS = 16  # at once; most of them wait, as for an answer that may be known in a moment
BOSS = "b" * 32
TENSOR = {"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [0.5, 1.5]}
BODIES: dict[str, Any] = {
    "/v2/models/points/infer": {"inputs": [TENSOR]},
    "/v1/models/points:predict": {"instances": [[0.5, 1.5]]},
    "/models/points/predict": [[0.5, 1.5]],
    "/models/points/feedback": {"id": "x", "label": "above", "group": "a"},
    "/models/points/challenger": {"version": 1, "mode": "shadow", "share": 0.5},
    "/models/points/challenger/promote": {"p": 0.05, "labels": 1000, "alias": "champion"},
    "/models/points/rollback": {"alias": "champion", "why": "x"},
    "/v2/repository/index": {"ready": True},
}
WRONG: list[Any] = [None, True, -1, 1e300, float("nan"), 2**70, "x", "", [], {}, [[]], {"a": [1]}]


def request(method: str, path: str, body: bytes, *more: str) -> bytes:
    """Return the bytes of a request, with more lines in its head."""
    lines = [
        f"{method} {path} HTTP/1.1",
        "Host: 127.0.0.1",
        f"Authorization: Bearer {BOSS}",  # so that nothing is refused before it is read
        "Content-Type: application/json",
        f"Content-Length: {len(body)}",
        *more,
    ]
    return "\r\n".join([*lines, "", ""]).encode() + body


def statuses(listing: Listing, requests: list[bytes]) -> Counter[int]:
    """Return how requests that are sent in a row are answered, up to where the service hangs up."""
    port = urlsplit(listing.url).port or 0
    with closing(socket.create_connection(("127.0.0.1", port), timeout=30)) as line:
        last = request("GET", "/v2/health/live", b"", "Connection: close")
        with contextlib.suppress(ConnectionError):  # it hangs up on what is no HTTP
            line.sendall(b"".join([*requests, last]))
        heard = b"".join(iter(lambda: _received(line), b""))
    found = Counter[int]()
    while heard.startswith(b"HTTP/1.1 "):
        head, _, rest = heard.partition(b"\r\n\r\n")
        found[int(head[9:12])] += 1
        length = next(
            (int(h[15:]) for h in head.lower().split(b"\r\n") if h[:15] == b"content-length:"), 0
        )
        heard = rest[length:]
    return found


def _received(line: socket.socket) -> bytes:
    try:
        return line.recv(65536)
    except ConnectionResetError:
        return b""


def malformed(numbers: random.Random) -> Iterator[bytes]:
    """Yield requests of every kind with something wrong in the body or in the path, without end."""
    while True:
        path = numbers.choice(list(BODIES))
        meant = "PUT" if path.endswith("/challenger") else "POST"
        method = meant if numbers.random() < 0.9 else numbers.choice(["POST", "PUT", "GET"])
        body = numbers.choice([garbled, misread])(BODIES[path], numbers)
        if numbers.random() < 0.1:
            path = path[: numbers.randrange(1, len(path))]
            path += numbers.choice(["%00", "é", "/..", "?"])
        yield request(method, path, body)


def garbled(told: Any, numbers: random.Random) -> bytes:
    """Return a body with some of its bytes changed."""
    body = bytearray(json.dumps(told).encode())
    for _ in range(numbers.randint(1, 6)):
        where = numbers.randrange(len(body))
        body[where : where + numbers.randint(0, 3)] = numbers.randbytes(numbers.randint(0, 3))
    return bytes(body)


def misread(told: Any, numbers: random.Random) -> bytes:
    """Return a body that is JSON, with a value that nobody expects."""
    told = copy(told)
    told[numbers.choice(list(told) if isinstance(told, dict) else [0])] = numbers.choice(WRONG)
    return json.dumps(told).encode()


def resident(serve: Serve) -> int:
    """Return the bytes of memory that all its processes have to themselves."""
    return sum(process.memory_full_info().uss for process in serve.everything())


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Iterator[Serve]:
    monkeypatch.setenv("WORKBENCH_ADMIN_TOKEN", BOSS)
    publish_both()
    wb.promote("points@2", "champion")
    with serving("points@champion", "--workers", "2") as running:
        yield running


def refused(listing: Listing, count: int, seed: int) -> Counter[int]:
    """Return how so many malformed requests of several clients are answered."""

    def client(number: int) -> Counter[int]:
        wrong, found = malformed(random.Random(1000 * seed + number)), Counter[int]()
        for _ in range(count // CLIENTS // SEVERAL):
            found += statuses(listing, [next(wrong) for _ in range(SEVERAL)])
        return found

    with ThreadPoolExecutor(CLIENTS) as pool:
        return sum(pool.map(client, range(CLIENTS)), Counter[int]())


def answered(listing: Listing, count: int, seed: int) -> Counter[int]:
    """Return how so many good requests are answered, every tenth followed by its label."""
    numbers, found = random.Random(seed), Counter[int]()
    for _ in range(count // SEVERAL):
        rows = [POINTS[numbers.randrange(2000)].tolist() for _ in range(numbers.choice([1, 1, 20]))]
        body = json.dumps(rows).encode()
        found += statuses(listing, [request("POST", "/models/points/predict", body)] * SEVERAL)
    return found


def check_malformed(serve: Serve, count: int) -> None:
    listing = serve.service()
    tried = request("PUT", "/models/points/challenger", b'{"version": 1}')
    assert statuses(listing, [tried]) == {200: 2}  # some of the others try it, too
    assert refused(listing, 256, seed=0)[500] == 0
    before = resident(serve)
    found = refused(listing, count, seed=1)
    assert found[500] == 0, found
    assert sum(found[status] for status in found if 400 <= status < 500) > count / 4, found
    assert resident(serve) - before < 48 * MILLION
    assert answered(listing, 80, seed=0) == {200: 90}
    assert psutil.Process(serve.process.pid).is_running()
    assert len(serve.workers()) == 2


def test_malformed_requests_are_refused_without_one_500(serve: Serve) -> None:
    check_malformed(serve, 1_024)


@pytest.mark.full
def test_a_hundred_thousand_malformed_requests(serve: Serve) -> None:
    check_malformed(serve, 100_096)  # as many of each client


@pytest.mark.full
def test_hours_of_traffic_take_no_more_memory(serve: Serve) -> None:
    """300,000 requests, as many as 20 a second are in four hours."""
    listing = serve.service()
    sizes = []
    for part in range(10):
        with ThreadPoolExecutor(4) as pool:
            found = sum(
                pool.map(lambda n: answered(listing, 7_500, seed=n), range(4 * part, 4 * part + 4)),
                Counter[int](),
            )
        assert found.keys() <= {200, 429}
        sizes.append(resident(serve))
    assert max(sizes[5:]) - max(sizes[1:5]) < 16 * MILLION, [s // MILLION for s in sizes]
