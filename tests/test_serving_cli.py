"""`workbench serve`, `token` and `services`, as a person runs them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from asking import ROWS, small_model

import workbench as wb
from workbench.errors import ServiceError
from workbench.home import home
from workbench.serving import find_service, serve

COMMAND = [sys.executable, "-m", "workbench"]


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], check=False, capture_output=True, text=True, timeout=60
    )


@contextmanager
def serving(*words: str) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(
        [*COMMAND, "serve", *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def published() -> torch.nn.Module:
    data = wb.load("diabetes")
    model = wb.build("linear", data, seed=0)
    wb.publish(model, "diabetes-linear")
    return model


def test_a_version_is_served_until_sigterm() -> None:
    model, rows = published(), wb.load("diabetes").train.inputs[:20]
    with serving("diabetes-linear@1") as process:
        assert process.stdout is not None
        url = process.stdout.readline().strip()
        told = process.stdout.readline()
        assert told == "diabetes-linear@1; its token: workbench token diabetes-linear\n"
        found = find_service("diabetes-linear")
        assert (found.url, found.pid, found.model) == (url, process.pid, "diabetes-linear@1")
        assert command("token", "diabetes-linear").stdout == f"{found.token}\n"
        assert found.token not in url + told
        output = found.client().infer("diabetes-linear", {"input": rows.numpy()})["output"]
        np.testing.assert_array_equal(output, wb.predict(model, rows).output.numpy())
        process.send_signal(signal.SIGTERM)
        rest, errors = process.communicate(timeout=20)
    assert (process.returncode, rest, errors) == (0, "", "")
    assert not list((home() / "services").glob("*.json"))


def test_an_alias_is_served_to_a_proxy_and_an_administrator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    published()
    wb.promote("diabetes-linear@1", "champion")
    monkeypatch.setenv("WORKBENCH_ADMIN_TOKEN", "admin")
    hosts = ("--allowed-host", "a.example.org", "--allowed-host", "b.example.org")
    with serving("diabetes-linear@champion", *hosts) as process:
        assert process.stdout is not None
        where = urlsplit(process.stdout.readline().strip()).netloc
        sent = {"Host": "b.example.org", "X-Workbench-Token": "admin"}
        connection = http.client.HTTPConnection(where, timeout=20)
        connection.request("POST", "/v2/repository/models/diabetes-linear@1/load", b"{}", sent)
        assert connection.getresponse().status == 200
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=20)[1] == ""


def test_what_a_service_fails_at_is_on_stderr() -> None:
    published()
    program = (
        "from workbench.serving.served import Served\n"
        "first = iter([Served.answer])\n"  # its own, when it is put there
        "def broken(*_): raise ArithmeticError('secret detail')\n"
        "Served.answer = lambda *given: next(first, broken)(*given)\n"
        "import sys; sys.argv = ['workbench', 'serve', 'diabetes-linear']\n"
        "from workbench.cli import main; main()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = find_service("diabetes-linear")
        with pytest.raises(ServiceError, match="stderr of workbench serve, has request") as caught:
            found.client().infer("diabetes-linear", {"input": np.zeros((1, 10), np.float32)})
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=20)
    assert f"request {str(caught.value).split()[-1]} failed\nTraceback" in errors
    assert "ArithmeticError: secret detail" in errors
    assert found.token not in errors


def test_ctrl_c_ends_it_with_3() -> None:
    published()
    with serving("diabetes-linear") as process:
        assert process.stdout is not None
        process.stdout.readline()
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=20)
    assert (process.returncode, errors) == (3, "")
    assert not list((home() / "services").glob("*.json"))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["serve", "nothing@1"], 2, "error: unknown model 'nothing'"),
        (["token", "nothing"], 2, "error: unknown service 'nothing': There is no service yet."),
    ],
)
def test_a_wrong_name_is_a_wrong_request(words: list[str], code: int, message: str) -> None:
    told = command(*words)
    assert (told.returncode, told.stdout) == (code, "")
    assert told.stderr.startswith(message)


def test_services_lists_what_lives_without_tokens() -> None:
    assert command("services").stdout == "no service runs; start one with `workbench serve NAME`\n"
    with serve(small_model(), name="m", example=ROWS) as service:
        line = command("services").stdout
        assert line == f"m  {service.url}  process {os.getpid()}  {service.model}\n"
        told = json.loads(command("services", "--json").stdout)
        pid = os.getpid()
        assert told == [{"name": "m", "url": service.url, "pid": pid, "model": service.model}]
    assert json.loads(command("services", "--json").stdout) == []
