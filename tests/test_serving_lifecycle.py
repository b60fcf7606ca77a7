"""A service from its start to its end: address, swap, port, threads, signals, files."""

from __future__ import annotations

import gc
import json
import logging
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import weakref
from pathlib import Path

import pytest
import torch
from asking import ROWS, ask, infer_body, small_model
from torch import nn

import workbench as wb
from workbench.attached import attached
from workbench.errors import RequestError, ServiceError, UnknownNameError
from workbench.home import home, read_json
from workbench.serving import Service, serve
from workbench.serving.client import start_lock
from workbench.serving.server import command_line


def test_run_again_the_cell_swaps_the_model_at_the_same_address() -> None:
    with serve(small_model(1), name="m", example=ROWS) as first:
        url, token, model = first.url, first.token, first.model
        second = serve(small_model(2), name="m", example=ROWS)
        assert second is first
        assert (second.url, second.token) == (url, token)
        assert second.model != model
        assert torch.equal(second.predict(ROWS).output, wb.predict(small_model(2), ROWS).output)
        assert read_json(home() / "services" / "m.json")["model"] == second.model
        assert serve(small_model(2), name="m", example=ROWS, port=int(url[17:])) is first


def test_swaps_under_traffic_lose_no_request_and_mix_no_answer() -> None:
    known = [wb.predict(small_model(k), ROWS).output.flatten().tolist() for k in (1, 2)]
    with serve(small_model(1), name="m", example=ROWS) as service:
        seen: list[list[float]] = []
        done = threading.Event()

        def ask_on() -> None:
            while not done.is_set():
                answer = ask(service, "POST", "/v2/models/m/infer", infer_body())
                seen.append(answer.json["outputs"][0]["data"])

        asking = threading.Thread(target=ask_on)
        asking.start()
        for k in (2, 1, 2, 1, 2):
            serve(small_model(k), name="m", example=ROWS)
            time.sleep(0.05)
        done.set()
        asking.join(20)
    assert {known.index(data) for data in seen} == {0, 1}


def test_the_model_before_a_swap_is_let_go() -> None:
    with serve(small_model(1), name="m", example=ROWS) as service:
        service.predict(ROWS)
        before = weakref.ref(service._served.source.fresh())
        serve(small_model(2), name="m", example=ROWS)
        service.predict(ROWS)  # the thread's frames of the request before are gone by then
        service._server.monitor.flush()  # and so are the notes of what it answered
        gc.collect()
        assert before() is None


def test_a_snapshot_does_not_follow_the_live_model() -> None:
    model = small_model(1)
    model.train()
    with serve(model, name="m", example=ROWS) as service:
        with torch.no_grad():
            model.get_parameter("weight").zero_()
        assert torch.equal(service.predict(ROWS).output, wb.predict(small_model(1), ROWS).output)
        assert service.model == f"live, weights {service.model[-12:]}"
    assert model.training


def test_a_fitted_model_needs_nothing_more_and_keeps_its_preprocessing() -> None:
    data = wb.load("diabetes")
    model = wb.build("linear", data, seed=0)
    wb.fit(model, data, epochs=1)
    with serve(model) as service:
        assert service.name == "model"
        rows = data.train.inputs[:50]
        assert torch.equal(service.predict(rows).output, wb.predict(model, rows).output)
        assert attached(service._served.source.fresh()).training is None


def test_a_version_answers_with_its_reference() -> None:
    data = wb.load("diabetes")
    model = wb.build("linear", data, seed=0)
    published = wb.publish(model, "diabetes-linear")
    with serve("diabetes-linear@1") as service:
        assert serve(published) is service
        assert serve("diabetes-linear") is service
        assert service.model == "diabetes-linear@1"
        rows = data.train.inputs[:50]
        assert torch.equal(service.predict(rows).output, wb.predict(model, rows).output)
        answer = ask(service, "POST", "/v2/models/diabetes-linear/infer", b"")
        assert answer.status == 400
        told = ask(service, "GET", "/v2/models/diabetes-linear").json
        assert told["versions"] == ["1"]


def test_the_command_names_its_home_wherever_it_is_pasted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WORKBENCH_HOME", "own home")
    assert command_line().startswith(f"WORKBENCH_HOME='{tmp_path}/own home' ")
    monkeypatch.delenv("WORKBENCH_HOME")
    assert "WORKBENCH_HOME" not in command_line()


def test_the_representation_holds_no_token() -> None:
    with serve(small_model(), name="m", example=ROWS) as service:
        first, second = repr(service).splitlines()
        assert re.fullmatch(
            r"Service 'm' at http://127\.0\.0\.1:\d+ answers with live, weights [0-9a-f]{12}", first
        )
        told = re.match(r'curl -H "Authorization: Bearer \$\((.*) token m\)" ', second)
        assert told is not None
        assert told[1].startswith(f"WORKBENCH_HOME={home()} ")  # as the other shell may have none
        for shown in (repr(service), service._repr_html_(), service.url):
            assert service.token not in shown
        assert service.url in service._repr_html_()
    assert repr(service) == "Service 'm' is stopped"
    assert service._repr_html_() == "<p>Service <b>m</b> is stopped</p>"


@pytest.mark.skipif(shutil.which("curl") is None, reason="the command that is shown is curl's")
def test_the_command_that_is_shown_works_in_a_shell() -> None:
    with serve(small_model(), name="m", example=ROWS) as service:
        command = repr(service).splitlines()[1]
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        ended = subprocess.run(
            command, shell=True, env={**os.environ, "PATH": path}, capture_output=True, check=True
        )
        told = service.predict(ROWS[:1])
        said = json.loads(ended.stdout)
        assert said.pop("id")
        assert said == {"model": "m@0", "rows": [{"output": told.output.tolist()[0]}]}


def test_stop_frees_port_thread_and_file_and_may_be_said_twice() -> None:
    service = serve(small_model(), name="m", example=ROWS)
    port, file = int(service.url.rsplit(":", 1)[1]), home() / "services" / "m.json"
    assert file.stat().st_mode & 0o777 == 0o600
    assert read_json(file)["pid"] == os.getpid()
    service.predict(ROWS)
    service.stop()
    service.stop()
    assert not file.exists()
    assert not [t for t in threading.enumerate() if t.name == "workbench-serve-m"]
    socket.create_server(("127.0.0.1", port)).close()
    with pytest.raises(ServiceError, match=r"service 'm' is stopped: run serve\(\.\.\.\) again"):
        service.predict(ROWS)


def test_a_stopped_name_starts_anew_and_the_old_handle_cannot_stop_it() -> None:
    old = serve(small_model(), name="m", example=ROWS, token="same")
    old.stop()
    with serve(small_model(), name="m", example=ROWS, token="same") as new:
        old.stop()
        assert new is not old
        assert new.is_running
        assert (home() / "services" / "m.json").exists()


def test_a_port_in_use_is_an_error_in_the_cell() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            ServiceError, match=f"port {port} of 127.0.0.1 is in use: pass another, or port=0"
        ):
            serve(small_model(), example=ROWS, port=port)
    assert not list((home() / "services").glob("*.json"))


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"host": "192.0.2.1"}, ServiceError, r"cannot listen on 192\.0\.2\.1 port 0 \(.*\): pass"),
        ({"port": "80"}, RequestError, "port is str '80': expected an int from 0 to 65535, 0 for"),
        ({"port": True}, RequestError, "port is bool True: expected an int from 0 to 65535"),
        ({"port": 70000}, RequestError, "port 70000 is none: expected 0 to 65535"),
        ({"token": ""}, RequestError, "a token must be letters, digits and signs"),
        ({"token": "two words"}, RequestError, "a token must be .* pass another, or token=None"),
        (
            {"token": "x", "admin_token": "x"},
            RequestError,
            "token and admin_token are the sam",
        ),
        ({"name": "a/b"}, RequestError, "service name 'a/b' cannot be used: expected up to 100"),
        ({"name": ".."}, RequestError, r"service name '\.\.' cannot be used"),
        ({"example": None}, RequestError, "Linear was never built or fitted.*pass example="),
    ],
)
@pytest.mark.filterwarnings("ignore:the service listens on")
def test_what_cannot_start_says_why(
    options: dict[str, object], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        serve(small_model(), **{"example": ROWS, **options})  # type: ignore[arg-type]


def test_what_is_no_model_says_so() -> None:
    with pytest.raises(RequestError, match=r"cannot serve list: expected a model \(an nn.Module\)"):
        serve([])  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="unknown model 'nothing'"):
        serve("nothing@1")
    model = nn.Linear(2, 3)
    model.extra = model.weight * 2
    with pytest.raises(RequestError, match="Linear cannot be copied, and a service needs a copy"):
        serve(model, example=ROWS)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"port": 1}, "port 1 was asked for"),
        ({"host": "localhost"}, "host localhost was asked for"),
        ({"token": "other", "port": 1}, "port 1 and another token was asked for"),
    ],
)
def test_another_address_or_token_for_a_running_name_is_an_error(
    options: dict[str, object], said: str
) -> None:
    with serve(small_model(), name="m", example=ROWS) as service:
        with pytest.raises(
            ServiceError, match=rf"'m' runs at http.* already, and {said}: call its"
        ):
            serve(small_model(2), name="m", example=ROWS, **options)  # type: ignore[arg-type]
        assert torch.equal(service.predict(ROWS).output, wb.predict(small_model(), ROWS).output)


def test_a_server_that_cannot_start_raises_its_own_error(monkeypatch: pytest.MonkeyPatch) -> None:
    import uvicorn

    def broken(self: uvicorn.Server, sockets: object = None) -> None:
        sys.exit(3)  # as uvicorn does where its start fails

    monkeypatch.setattr(uvicorn.Server, "serve", broken)
    with pytest.raises(
        ServiceError, match=r"the service did not answer at .* within 30 s: 3; pass"
    ):
        serve(small_model(), name="m", example=ROWS)
    assert not list((home() / "services").glob("*.json"))


def test_signals_loggers_and_output_stay_as_they_are(capfd: pytest.CaptureFixture[str]) -> None:
    signals = [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)]
    handlers, level = list(logging.root.handlers), logging.root.level
    with serve(small_model(), name="m", example=ROWS) as service:
        assert [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM)] == signals
        ask(service, "GET", "/nothing")
        with socket.create_connection(("127.0.0.1", int(service.url[17:]))) as raw:
            raw.sendall(b"no http\r\n\r\n")
            assert raw.recv(100).startswith(b"HTTP/1.1 400")
    assert (list(logging.root.handlers), logging.root.level) == (handlers, level)
    assert capfd.readouterr() == ("", "")


def test_it_starts_within_a_running_event_loop() -> None:
    import asyncio

    async def cell() -> bool:
        with serve(small_model(), name="m", example=ROWS) as service:
            return len(service.predict(ROWS)) == 3

    assert asyncio.run(cell())


PROCESS = """
import sys, torch
sys.path.insert(0, {tests!r})
from asking import ROWS, small_model
from workbench.serving import serve
service = serve(small_model(), name="m", example=ROWS)
print(service.url, flush=True)
if sys.stdin.readline() == "clean\\n":
    sys.exit()
"""


def elsewhere() -> tuple[subprocess.Popen[str], str]:
    code = PROCESS.format(tests=str(Path(__file__).parent))
    process = subprocess.Popen(
        [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    return process, process.stdout.readline().strip()


def test_a_name_served_by_another_process_is_an_error_until_that_ends() -> None:
    process, url = elsewhere()
    with process:
        message = f"'m' runs at {url} already, in process {process.pid}: stop it .workbench stop"
        with pytest.raises(ServiceError, match=message):
            serve(small_model(), name="m", example=ROWS)
        process.kill()
        process.wait(20)
        assert (home() / "services" / "m.json").exists()
        with serve(small_model(), name="m", example=ROWS) as service:
            assert service.is_running


RACE = """
import sys, time
sys.path.insert(0, {tests!r})
from asking import ROWS, small_model
from workbench.serving import serve
from workbench.serving.hosting import Server
started = Server.start
def late(self):
    time.sleep(0.5)  # both have looked for the name by then
    started(self)
Server.start = late
print("ready", flush=True)
sys.stdin.readline()
try:
    service = serve(small_model(), name="m", example=ROWS)
except Exception as error:
    print(type(error).__name__, error, flush=True)
else:
    print(service.url, flush=True)
    sys.stdin.readline()
"""


def test_of_two_processes_that_start_a_name_at_once_one_serves() -> None:
    code = RACE.format(tests=str(Path(__file__).parent))
    starting = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in starting:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in starting:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    said = [process.stdout.readline().strip() for process in starting if process.stdout]
    for process in starting:
        process.communicate("end\n", timeout=20)
    refused, url = sorted(said)
    assert re.fullmatch(r"http://127\.0\.0\.1:\d+", url)
    assert refused.startswith(f"ServiceError service 'm' runs at {url} already, in process ")


def test_a_name_that_is_being_started_elsewhere_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("workbench.serving.server.START", 0.1)
    monkeypatch.setattr("workbench.serving.server.DRAIN", 0.1)
    message = r"'m' is being started by another process, which holds .*m\.lock: wait for it"
    with start_lock("m", timeout=0), pytest.raises(ServiceError, match=message):
        serve(small_model(), name="m", example=ROWS)


def test_a_process_that_ends_takes_its_service_and_file_along() -> None:
    process, url = elsewhere()
    with process:
        assert json.loads((home() / "services" / "m.json").read_text())["url"] == url
        process.communicate("clean\n", timeout=20)
    assert process.returncode == 0
    assert not (home() / "services" / "m.json").exists()


def test_a_name_that_an_administrator_unloaded_is_served_again_where_it_was() -> None:
    with serve(small_model(), name="m", example=ROWS, admin_token="admin") as service:
        where, admin = service.url, {"Authorization": "Bearer admin"}
        unloaded = ask(service, "POST", "/v2/repository/models/m/unload", b"", admin)
        assert (unloaded.status, service.is_running) == (200, False)
        with serve(small_model(2), name="other", example=ROWS) as other:
            assert other.url == where
        assert serve(small_model(2), name="m", example=ROWS) is service
        assert service.url == where
        assert torch.equal(service.predict(ROWS).output, wb.predict(small_model(2), ROWS).output)


FORK = """
import os, sys, torch
sys.path.insert(0, {tests!r})
from asking import ROWS, small_model
from workbench.errors import ServiceError
from workbench.serving import serve
with serve(small_model(), name="m", example=ROWS) as service:
    child = os.fork()
    if not child:
        try:
            serve(small_model(), name="m", example=ROWS)
        except ServiceError as error:
            print(error, flush=True)
        sys.exit()  # which leaves the block and runs what is to be run at exit
    assert os.waitpid(child, 0)[1] == 0
    from workbench.serving import list_services
    print([found.name for found in list_services()], len(service.predict(ROWS)))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there are no forks here")
def test_a_forked_child_stops_no_service_of_its_parent() -> None:
    code = FORK.format(tests=str(Path(__file__).parent))
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    refused, found = ended.stdout.splitlines()
    assert re.match(r"service 'm' runs at http://.* already, in process \d+: stop it", refused)
    assert found == "['m'] 3"


def test_a_damaged_version_is_left_out_of_the_index_and_warns_in_no_cell() -> None:
    data = wb.load("diabetes")
    for name in ("whole", "broken"):
        made = wb.publish(wb.build("linear", data), name)
    (made.folder / "version.json").chmod(0o644)
    (made.folder / "version.json").write_text("{")
    with serve(small_model(), name="m", example=ROWS) as service:
        told = ask(service, "POST", "/v2/repository/index", b"")  # here a warning is an error
    assert [entry["name"] for entry in told.json] == ["m", "whole"]


@pytest.mark.filterwarnings("ignore:the service listens on 0.0.0.0")
def test_ipv6_and_every_address(monkeypatch: pytest.MonkeyPatch) -> None:
    for host, url in (("::1", r"http://\[::1\]:\d+"), ("0.0.0.0", r"http://127\.0\.0\.1:\d+")):
        if host == "::1" and not _has_ipv6():
            continue
        with serve(small_model(), name="m", host=host, example=ROWS) as service:
            assert re.fullmatch(url, service.url)
            assert isinstance(service, Service)
            assert len(service.predict(ROWS)) == 3


def _has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True
