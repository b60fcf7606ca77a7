"""Services files and the client that asks: what lives is found, what is dead is removed."""

from __future__ import annotations

import errno
import os
import socket
import subprocess
import sys
import threading
from dataclasses import replace

import numpy as np
import pytest
from asking import ROWS, small_model

import workbench as wb
from workbench.errors import RequestError, ServiceError, UnknownNameError
from workbench.home import home, read_json, write_json
from workbench.serving import Listing, ServiceClient, find_service, list_services, serve
from workbench.serving.client import read_listing, remove_listing, write_listing

DEAD = Listing("dead", "http://127.0.0.1:1", "t", os.getpid(), "m@1")


def test_a_living_service_is_found_and_asked_by_its_file() -> None:
    with serve(small_model(), name="m", example=ROWS) as service:
        found = find_service("m")
        assert found == Listing("m", service.url, service.token, os.getpid(), service.model)
        assert list_services() == [found]
        assert service.token not in repr(found)
        output = found.client().infer("m", {"input": ROWS.numpy()})["output"]
        np.testing.assert_array_equal(output, wb.predict(small_model(), ROWS).output.numpy())
    with pytest.raises(UnknownNameError, match="unknown service 'm': There is no service yet"):
        find_service("m")


def test_a_misspelt_name_gets_the_nearest() -> None:
    with serve(small_model(), name="digits", example=ROWS):
        with pytest.raises(
            UnknownNameError, match=r"unknown service 'digit': did you mean digits\?"
        ):
            find_service("digit")
        with pytest.raises(RequestError, match=r"service name '\.\./x' cannot be used"):
            find_service("../x")


def test_a_file_whose_process_or_listener_is_gone_is_removed() -> None:
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait(20)
    with serve(small_model(), name="m", example=ROWS) as service:
        write_listing(DEAD)
        write_listing(replace(DEAD, name="ended", url=service.url, token="t", pid=ended.pid))
        write_listing(replace(DEAD, name="recycled", url=service.url, token="of another"))
        assert [found.name for found in list_services()] == ["m"]
        assert [path.name for path in (home() / "services").glob("*.json")] == ["m.json"]


def test_what_listens_and_stays_silent_counts_as_busy() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        busy = replace(DEAD, name="busy", url=f"http://127.0.0.1:{silent.getsockname()[1]}")
        write_listing(busy)
        assert read_listing("busy") == busy


def test_a_service_that_is_loading_or_full_lives() -> None:
    with serve(small_model(), name="m", example=ROWS) as service:
        with service._server.shelf.on_the_way("other"):
            assert not ServiceClient(service.url, service.token).is_ready()
            assert [found.name for found in list_services()] == ["m"]
        assert find_service("m").token == service.token


def test_a_process_without_connections_to_spare_removes_no_file(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def spent(*_: object) -> None:
        raise OSError(errno.EMFILE, "Too many open files")

    write_listing(DEAD)
    monkeypatch.setattr(socket, "socket", spent)
    assert [found.name for found in list_services()] == ["dead"]


@pytest.mark.parametrize("told", [b"no http", b"HTTP/1.1 404 Other\r\n\r\n"])
def test_where_somebody_else_listens_by_now_the_file_is_removed(told: bytes) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_once, args=(listener, told))
        thread.start()
        write_listing(replace(DEAD, url=f"http://127.0.0.1:{listener.getsockname()[1]}"))
        assert list_services() == []
        thread.join(20)
    assert not (home() / "services" / "dead.json").exists()


def test_a_file_that_cannot_be_read_or_is_newer_is_left_alone() -> None:
    folder = home() / "services"
    folder.mkdir(parents=True)
    (folder / "cut.json").write_text('{"name": "cut"')
    (folder / "list.json").write_text("[]")
    write_listing(DEAD)
    write_json(folder / "newer.json", {**read_json(folder / "dead.json"), "format": 2})
    assert list_services() == []
    left = sorted(path.name for path in folder.iterdir())
    assert left == ["cut.json", "list.json", "newer.json"]


def test_a_file_is_removed_only_by_its_own_service() -> None:
    write_listing(DEAD)
    remove_listing(replace(DEAD, token="other"))
    assert (home() / "services" / "dead.json").exists()
    remove_listing(DEAD)
    remove_listing(DEAD)
    assert not (home() / "services" / "dead.json").exists()


def test_errors_of_a_service_name_it_and_its_reason() -> None:
    with serve(small_model(), name="m", example=ROWS) as service:
        client = ServiceClient(service.url, service.token)
        with pytest.raises(ServiceError, match="'other' answered 404: unknown model 'other': this"):
            client.infer("other", {"input": ROWS.numpy()})
        with pytest.raises(ServiceError, match="'m' answered 401: no valid token"):
            ServiceClient(service.url, "wrong").infer("m", {"input": ROWS.numpy()})
        assert not ServiceClient(service.url, "wrong").is_ready()
    with pytest.raises(ServiceError, match=r"'m' at http.* does not answer \(.*refused.*\): see"):
        client.infer("m", {"input": ROWS.numpy()})


def answer_once(listener: socket.socket, told: bytes) -> None:
    connection, _ = listener.accept()
    with connection:
        while b"\r\n\r\n" not in connection.recv(65536):
            pass
        connection.sendall(told)
        connection.shutdown(socket.SHUT_WR)
        while connection.recv(65536):  # unread bytes would reset the connection
            pass


@pytest.mark.parametrize(
    ("told", "message"),
    [
        (b"HTTP/1.1 502 Bad\r\n\r\n<html>", "'m' answered 502: no reason given"),
        (b"HTTP/1.1 500 Bad\r\n\r\n[]", "'m' answered 500: no reason given"),
        (b"HTTP/1.1 200 OK\r\n\r\n{}", "'m' answered what cannot be read: the body is not what"),
        (b"no http", "does not answer"),
    ],
)
def test_what_is_no_service_says_so(told: bytes, message: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=answer_once, args=(listener, told))
        thread.start()
        client = ServiceClient(f"http://127.0.0.1:{listener.getsockname()[1]}", "t", timeout=10)
        with pytest.raises(ServiceError, match=message):
            client.infer("m", {"input": ROWS.numpy()[:0]})
        thread.join(20)


def test_finding_services_loads_no_torch() -> None:
    code = (
        "import sys; from workbench.serving import ServiceClient, list_services; list_services(); "
        "print([m for m in ('torch', 'starlette', 'uvicorn') if m in sys.modules])"
    )
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert told.stdout == "[]\n"
