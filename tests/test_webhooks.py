"""Webhooks asked over real sockets, the dead, the slow and the rude among them."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import RequestError
from workbench.runs import webhooks
from workbench.runs.webhooks import check_url, notify

FOLDER = Path("/home/me/runs/20260101-000000-night-0001")
SECRET = "T0K3N"
REQUIREMENT = {"text": "x>=0.9", "holds": False, "found": 0.7, "wanted": 0.9}
RECORD = {
    **{"id": FOLDER.name, "state": "failed", "notebook": {"path": "/x/night.ipynb"}},
    "error": {"cell": 3, "heading": "Train", "name": "ValueError", "value": "no\nrows \ud800"},
    "metrics": {"x": 0.7},
    "requirements": [
        {**REQUIREMENT, "message": "x is 0.7, required >= 0.9"},
        {**REQUIREMENT, "text": "x>=0.5", "holds": True},
    ],
}
Answer = Callable[[BaseHTTPRequestHandler], None]
Asked = list[tuple[str, str | None, Any]]


def say(code: int, **headers: str) -> Answer:
    def answer(handler: BaseHTTPRequestHandler) -> None:
        handler.send_response(code, "T0K3N in a phrase")
        for name, value in headers.items():
            handler.send_header(name, value)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.fixture(autouse=True)
def _no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("no_proxy", "*")


@pytest.fixture
def serve() -> Iterator[Callable[[Answer], tuple[str, Asked]]]:
    """Give a way to start a server; its URL holds a secret, and what it was asked is kept."""
    with contextlib.ExitStack() as stack:

        def start(answer: Answer) -> tuple[str, Asked]:
            asked: Asked = []

            class Handler(BaseHTTPRequestHandler):
                def do_POST(self) -> None:
                    body = self.rfile.read(int(self.headers["Content-Length"]))
                    asked.append((self.path, self.headers["Content-Type"], json.loads(body)))
                    answer(self)

                def do_GET(self) -> None:
                    asked.append((self.path, None, None))
                    say(200)(self)

                def log_message(self, *_: Any) -> None:
                    pass

            server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
            stack.callback(server.server_close)
            thread = threading.Thread(target=server.serve_forever, args=(0.05,))
            thread.start()
            stack.callback(thread.join)
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/services/{SECRET}", asked

        yield start


def told(url: str) -> str:
    """Return what `notify` says went wrong, which holds nothing of the URL but its host."""
    said = notify(url, RECORD, FOLDER)
    assert said is not None
    assert SECRET not in said
    assert "\n" not in said
    return said


def test_a_webhook_is_told_what_one_wants_to_know(serve: Callable[..., tuple[str, Asked]]) -> None:
    url, asked = serve(say(204))
    assert notify(url, RECORD, FOLDER) is None
    ((path, kind, found),) = asked
    assert (path, kind) == (f"/services/{SECRET}", "application/json")
    assert found.pop("text") == (
        "workbench: night failed in cell 3 (Train); ValueError: no rows \ud800; "
        f"required x>=0.9, x is 0.7, required >= 0.9; {FOLDER}"
    )
    assert found == {
        **{"id": FOLDER.name, "notebook": "/x/night.ipynb", "state": "failed"},
        **{"error": {"name": "ValueError", "value": "no\nrows \ud800"}, "cell": 3},
        **{"heading": "Train", "metrics": {"x": 0.7}, "folder": str(FOLDER)},
        "failed_requirements": RECORD["requirements"][:1],  # type: ignore[index]
    }


def test_a_run_that_is_done_has_less_to_tell(serve: Callable[..., tuple[str, Asked]]) -> None:
    url, asked = serve(say(200))
    done = {**RECORD, "state": "done", "error": None}
    assert notify(url, done, FOLDER) is None
    assert notify(url, {**done, "error": {"name": "E", "value": "x" * 999}}, FOLDER) is None
    first, second = (body for _, _, body in asked)
    assert first["text"].startswith("workbench: night done; required x>=0.9, x is 0.7")
    assert (first["error"], first["cell"], first["heading"]) == (None, None, None)
    assert len(second["text"]) < 500


@pytest.mark.parametrize("code", [400, 404, 500, 503, 599])
def test_an_answer_that_is_no_success_is_named(
    code: int, serve: Callable[..., tuple[str, Asked]]
) -> None:
    url, _ = serve(say(code))
    assert told(url).startswith(f"the webhook at 127.0.0.1 answered {code}")
    assert told(url).endswith(": it was not told of the run")


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
@pytest.mark.parametrize("to", ["file:///etc/passwd", "ftp://127.0.0.1/x", "/elsewhere"])
def test_a_redirect_is_not_followed(
    code: int, to: str, serve: Callable[..., tuple[str, Asked]]
) -> None:
    url, asked = serve(say(code, Location=to))
    assert f"answered {code} " in told(url)
    assert len(asked) == 1


def test_a_refused_connection_is_named() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    assert told(f"http://127.0.0.1:{port}/{SECRET}") == (
        "the webhook at 127.0.0.1 cannot be reached (Connection refused): "
        "it was not told of the run"
    )


def test_a_host_that_does_not_exist_is_named() -> None:
    said = told(f"https://nowhere.invalid/{SECRET}")
    assert said.startswith("the webhook at nowhere.invalid cannot be reached (")


@pytest.mark.parametrize("drips", [False, True])
def test_a_slow_webhook_is_given_up(
    drips: bool, serve: Callable[..., tuple[str, Asked]], monkeypatch: pytest.MonkeyPatch
) -> None:
    over = threading.Event()

    def stall(handler: BaseHTTPRequestHandler) -> None:
        while not over.wait(0.05):
            with contextlib.suppress(OSError):
                if drips:
                    handler.wfile.write(b"H")

    monkeypatch.setattr(webhooks, "_PATIENCE", 0.4)
    url, asked = serve(stall)
    began = time.monotonic()
    try:
        said = told(url)
        assert time.monotonic() - began < 2
    finally:
        over.set()
    assert said == (
        "the webhook at 127.0.0.1 gave no answer within 0.4 s: it was not told of the run"
    )
    assert len(asked) == 1


def nonsense(handler: BaseHTTPRequestHandler) -> None:
    handler.wfile.write(b"T0K3N T0K3N\r\n\r\n")


def test_an_answer_that_is_no_http_is_named(serve: Callable[..., tuple[str, Asked]]) -> None:
    url, _ = serve(nonsense)
    assert "cannot be reached (" in told(url)


@pytest.mark.parametrize(
    "url",
    [
        *("", "x", "hooks.example.org/T0K3N", "ftp://example.org/T0K3N", "file:///etc/T0K3N"),
        *("http://", "http:///T0K3N", "http://h:T0K3N/", "http://h:0/T0K3N", "http://[T0K3N"),
        *("http://me:T0K3N@h/", "http://T0K3N@h"),
        *("http://h/T0K3N x", "http://h/T0K3N\n", "http://h/ü", "javascript:T0K3N"),
    ],
)
def test_what_cannot_be_posted_to_is_refused_without_being_repeated(url: str) -> None:
    with pytest.raises(RequestError, match=r"expected http:// or https://, a host") as caught:
        check_url(url)
    assert SECRET not in str(caught.value)
    assert told(url) == str(caught.value)


@pytest.mark.parametrize(
    "url", ["https://hooks.example.org/a?b=c#d", "HTTP://h:8080", "http://[::1]:9/", "https://h"]
)
def test_what_can_be_posted_to_is_taken(url: str) -> None:
    check_url(url)
