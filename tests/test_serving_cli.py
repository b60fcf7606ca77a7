"""`workbench serve`, `token` and `services`, as a person runs them."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from asking import ROWS, small_model
from supervised import ANGRY, COMMAND, publish, serving

import workbench as wb
from workbench.errors import ServiceError
from workbench.home import home
from workbench.serving import serve


def command(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words], check=False, capture_output=True, text=True, timeout=60
    )


def published() -> torch.nn.Module:
    data = wb.load("diabetes")
    model = wb.build("linear", data, seed=0)
    wb.publish(model, "diabetes-linear")
    return model


def test_a_version_is_served_until_sigterm() -> None:
    model, rows = published(), wb.load("diabetes").train.inputs[:20]
    with serving("diabetes-linear@1") as served:
        found = served.service()
        assert found.model == "diabetes-linear@1"
        twice = command("serve", "diabetes-linear")
        already = f"error: service 'diabetes-linear' runs at {found.url} already, in process "
        assert (twice.returncode, twice.stdout) == (1, "")
        assert twice.stderr.startswith(already)
        assert command("token", "diabetes-linear").stdout == f"{found.token}\n"
        output = found.client().infer("diabetes-linear", {"input": rows.numpy()})["output"]
        expected = wb.predict(model, rows).output.numpy()
        np.testing.assert_allclose(output, expected, atol=1e-5 * np.abs(expected).max())
        assert served.stop() == ""
        assert served.process.stdout is not None
        assert served.process.stdout.read() == ""
        assert found.token not in served.log.read_text()
    assert not list((home() / "services").glob("*.json"))


def test_an_alias_is_served_to_a_proxy_and_an_administrator(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    published()
    wb.promote("diabetes-linear@1", "champion")
    monkeypatch.setenv("WORKBENCH_ADMIN_TOKEN", "admin")
    hosts = ("--allowed-host", "a.example.org", "--allowed-host", "b.example.org")
    with serving("diabetes-linear@champion", *hosts) as served:
        found = served.service()
        where = urlsplit(found.url).netloc
        sent = {"Host": "b.example.org", "X-Workbench-Token": "admin"}
        connection = http.client.HTTPConnection(where, timeout=20)
        connection.request("POST", "/v2/repository/models/diabetes-linear@1/load", b"{}", sent)
        assert connection.getresponse().status == 200
        connection.close()
        for worker in served.workers():
            seen = " ".join([*worker.cmdline(), *worker.environ().values()])
            assert "admin" not in seen.split()
            assert found.token not in seen
        assert served.stop() == ""


def test_what_a_service_fails_at_is_on_stderr() -> None:
    publish("moody", 1)
    with serving("moody") as served:
        found = served.service()
        with pytest.raises(ServiceError, match="stderr of workbench serve, has request") as caught:
            found.client().infer("moody", {"input": np.array([[ANGRY, 0]], np.float32)})
        errors = served.stop()
    assert f"request {str(caught.value).split()[-1]} failed\nTraceback" in errors
    assert "ArithmeticError: secret detail" in errors


def test_ctrl_c_ends_it_with_3() -> None:
    published()
    with serving("diabetes-linear") as served:
        served.service()
        for process in served.everything():  # as a terminal does it
            process.send_signal(signal.SIGINT)
        assert served.ended() == (3, "")
    assert not list((home() / "services").glob("*.json"))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["serve", "nothing@1"], 2, "error: unknown model 'nothing'"),
        (["serve", "m", "--jobs", "n.ipynb"], 2, "error: --jobs is for whoever has the admin"),
        (
            ["serve", "m@3", "--reload"],
            2,
            "error: --reload follows an alias, and m@3 is one version",
        ),
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
