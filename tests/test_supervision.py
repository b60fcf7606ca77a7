"""A service of several processes: what is lost when one of them dies, and what is not."""

from __future__ import annotations

import http.client
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest
from asking import ROWS, small_model
from supervised import ANGRY, COMMAND, SLOW, Load, Serve, ask, publish, serving
from waiting import once

import workbench as wb
from workbench.errors import RequestError, ServiceError
from workbench.home import home, read_json
from workbench.serving import Listing, find_service, list_services, serve
from workbench.serving.listening import listen
from workbench.supervision.stderr import Relay

# A supervisor that takes five seconds of silence for the end, and lets no place stay empty.
QUICK = (
    "from workbench.supervision import supervising, workers; supervising._STEADY = 0.0; "
    "workers._HANGS = 5.0; workers._STUCK = 10.0; from workbench.cli import main; main()"
)
EAGER = (sys.executable, "-c", QUICK, "serve")


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give a home with three versions of a model, of which the first is the champion."""
    root = tmp_path_factory.mktemp("published")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(root))
        for number in (1, 2, 3):
            publish("moody", number)
        wb.promote("moody@1", "champion")
        publish("other", 1)
    return root


@pytest.fixture(autouse=True)
def _copy(published: Path) -> None:
    shutil.copytree(published / "models", home() / "models")


@pytest.fixture(scope="module")
def running_home(tmp_path_factory: pytest.TempPathFactory, published: Path) -> Path:
    """Give a home in which a service runs."""
    root = tmp_path_factory.mktemp("running")
    shutil.copytree(published / "models", root / "models")
    return root


@pytest.fixture(scope="module")
def running(running_home: Path) -> Iterator[tuple[Serve, Listing]]:
    """Give a service of two workers that follow the champion, in a home of their own."""
    words = ("moody@champion", "--workers", "2", "--reload")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(running_home))
        with serving(*words) as served:
            yield served, served.service()


@pytest.fixture
def its_home(running_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the test be in the home of the running service."""
    monkeypatch.setenv("WORKBENCH_HOME", str(running_home))


def connected(service: Listing) -> http.client.HTTPConnection:
    return http.client.HTTPConnection(urlsplit(service.url).netloc, timeout=20)


def answer(service: Listing, first: float = 0.0) -> tuple[int, str]:
    connection = connected(service)
    try:
        return ask(connection, service, first)
    finally:
        connection.close()


def is_free(service: Listing) -> bool:
    try:
        listen("127.0.0.1", urlsplit(service.url).port or 0).close()
    except ServiceError:
        return False
    return True


def test_a_killed_worker_takes_its_own_requests_along_and_is_replaced(
    running: tuple[Serve, Listing],
) -> None:
    served, service = running
    before = served.pids()
    assert len(before) == 2
    with Load(service, clients=6) as load:
        load.more()
        psutil.Process(min(before)).kill()
        load.more()
        once(lambda: len(served.pids() - before) == 1)
        load.more()
    assert set(load.statuses) == {200}
    assert max(load.lost.values(), default=0) <= 1  # what it was asked just then


def test_a_worker_that_hangs_is_replaced() -> None:
    with serving("moody", "--workers", "2", command=EAGER) as served:
        service = served.service()
        (worker, _) = served.workers()
        worker.suspend()
        once(lambda: not worker.is_running())
        assert answer(service) == (200, "3")
        once(lambda: len(served.pids()) == 2)
        assert f"worker {worker.pid} of 'moody' hung and was killed" in served.stop()


@pytest.mark.full
def test_a_worker_that_hangs_at_the_start_ends_it() -> None:
    with serving("moody", "--workers", "2", command=EAGER) as served:
        once(lambda: len(served.workers()) == 2)
        served.workers()[0].suspend()
        code, errors = served.ended()
    assert (code, errors.startswith("error: a worker of 'moody' hung and was killed")) == (1, True)


def test_the_supervisor_loads_no_torch(running: tuple[Serve, Listing]) -> None:
    loaded = [
        any("libtorch" in part.path for part in process.memory_maps())
        for process in (psutil.Process(running[0].process.pid), *running[0].workers())
    ]
    assert loaded == [False, True, True]


def test_a_pipe_that_nobody_reads_holds_nothing_up() -> None:
    with serving("moody", is_read=False) as served:
        service = served.service()
        for _ in range(150):  # of which each leaves a traceback
            assert answer(service, ANGRY)[0] == 500
        (worker,) = served.workers()
        worker.kill()  # which the supervisor tells of
        once(lambda: bool(served.pids() - {worker.pid}))
        assert answer(service) == (200, "3")
        assert served.stop() == ""


def test_what_is_left_out_of_a_pipe_is_said() -> None:
    reading, writing = os.pipe()
    relay = Relay(writing)
    for part in (b"x" * 2**21, b"y" * 2**21, b"z" * 1000):  # the last is too much
        assert relay.write(part) == len(part)
    with open(reading, "rb", buffering=0) as pipe:
        read = b""
        while not read.endswith(b"\n"):
            read += pipe.read(2**20)
    told = b"... 1000 bytes that nobody read in time are left out\n"
    assert read == b"x" * 2**21 + b"y" * 2**21 + told


@pytest.mark.usefixtures("its_home")
def test_a_promotion_under_load_drops_no_request_and_a_broken_one_changes_nothing(
    running: tuple[Serve, Listing],
) -> None:
    _, service = running
    listed = home() / "services" / "moody.json"
    with Load(service) as load:
        load.more()
        wb.promote("moody@2", "champion")
        once(lambda: read_json(listed)["model"] == "moody@2")
        before = load.versions["1"]
        load.more()
        assert load.versions["1"] <= before + 4  # those that were under way
        wb.promote("moody@3", "champion")
        shutil.rmtree(home() / "models/moody/3")
        load.more(500)
        wb.promote("moody@1", "champion")
        once(lambda: read_json(listed)["model"] == "moody@1")
    assert (set(load.statuses), sum(load.lost.values())) == ({200}, 0)
    assert set(load.versions) == {"1", "2"}


@pytest.mark.usefixtures("its_home")
def test_stop_ends_one_of_two_services(running: tuple[Serve, Listing]) -> None:
    with serving("other") as served:
        assert served.service().model == "other@1"
        assert [found.name for found in list_services()] == ["moody", "other"]
        told = subprocess.run(
            [*COMMAND, "stop", "other"], check=False, capture_output=True, text=True
        )
        assert (told.stdout, told.stderr) == ("service other is stopped\n", "")
        assert served.ended() == (0, "")
    assert [found.name for found in list_services()] == ["moody"]
    assert running[0].process.poll() is None


def test_a_service_of_a_kernel_is_stopped_there() -> None:
    with (
        serve(small_model(), name="m", example=ROWS) as service,
        pytest.raises(RequestError, match="service 'm' lives in a kernel or a script, process"),
    ):
        find_service("m").stop()
    assert not service.is_running


def test_a_killed_supervisor_leaves_nothing_and_the_next_has_its_port(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with serving("moody@champion", "--workers", "2") as served:
        service, workers = served.service(), served.workers()
        with Load(service) as load:
            load.more()
            served.process.kill()
            _, alive = psutil.wait_procs(workers, timeout=30)
        assert not alive
        assert set(load.statuses) <= {200, 503}
    wb.promote("moody@1", "steady")
    monkeypatch.setenv("WORKBENCH_ADMIN_TOKEN", "admin")
    with serving("moody@steady", "--port", service.url.rpartition(":")[2]) as served:
        assert served.service().url == service.url
        keeps_its_version_and_answers_what_is_under_way(served, find_service("moody"))


def keeps_its_version_and_answers_what_is_under_way(served: Serve, service: Listing) -> None:
    """Promote another version, kill the one worker, and end the service while it answers."""
    wb.promote("moody@2", "steady")
    (worker,) = served.workers()
    worker.kill()
    assert answer(service) == (200, "1")  # of the next worker, which it waited for
    connection = connected(service)
    connection.request("POST", "/models/moody/rollback", "{}", {"X-Workbench-Token": "admin"})
    assert connection.getresponse().status == 200
    assert wb.version("moody@steady").version == 1  # it knows still which alias it serves
    connection.close()
    told: list[tuple[int, str]] = []
    asking = threading.Thread(target=lambda: told.append(answer(service, SLOW)))
    asking.start()
    once(lambda: waiting(service) > 0)
    errors = served.stop()
    asking.join()
    assert told == [(200, "1")]
    assert is_free(service)
    assert not list((home() / "services").glob("*.json"))
    assert f"worker {worker.pid} of 'moody' was ended by SIGKILL" in errors


def waiting(service: Listing) -> int:
    """Return how many requests are in the line of a service, or being answered."""
    connection = connected(service)
    connection.request("GET", "/metrics", headers={"Authorization": f"Bearer {service.token}"})
    lines = connection.getresponse().read().decode().splitlines()
    connection.close()
    return sum(
        int(float(line.split()[-1])) for line in lines if "waiting" in line and line[0] != "#"
    )


def test_a_model_that_is_broken_ends_it_at_the_start_with_the_reason() -> None:
    (home() / "models/moody/3/weights.safetensors").write_bytes(b"")
    with serving("moody") as served:
        code, errors = served.ended()
    assert code == 1
    assert errors.startswith("error: ")
    assert "weights.safetensors" in errors
    assert not list((home() / "services").glob("*.json"))


@pytest.mark.full
def test_a_storm_of_deaths_and_promotions_loses_what_the_dead_had_in_hand() -> None:
    chance = random.Random(0)
    with serving("moody@champion", "--workers", "2", "--reload", command=EAGER) as served:
        with Load(served.service()) as load:
            deaths = 0
            for _ in range(30):
                if chance.random() < 0.6:
                    wb.promote(f"moody@{chance.randint(1, 3)}", "champion")
                    time.sleep(chance.uniform(0, 1.5))  # before, in and after the swap
                if chance.random() < 0.6:
                    deaths += 1
                    worker = chance.choice(served.workers())
                    worker.kill() if chance.random() < 0.7 else worker.suspend()
                    once(lambda gone=worker: not gone.is_running())  # type: ignore[misc]
                load.more()
                once(lambda: len(served.pids()) == 2)
        print(dict(load.statuses), dict(load.versions), deaths, dict(load.lost))
        assert deaths > 10
        assert set(load.statuses) == {200}
        assert set(load.versions) == {"1", "2", "3"}
        assert max(load.lost.values(), default=0) <= deaths
        served.stop()


@pytest.mark.full
def test_a_supervisor_that_is_killed_at_any_moment_leaves_nothing() -> None:
    chance = random.Random(0)
    port = "0"
    for _ in range(8):
        with serving("moody@champion", "--port", port, "--workers", "2") as served:
            once(lambda: len(served.workers()) == 2)
            workers = served.workers()
            if chance.random() < 0.5:
                time.sleep(chance.uniform(0, 5))
            else:
                service = served.service()
                port = service.url.rpartition(":")[2]
                with Load(service) as load:
                    load.more()
                    served.process.kill()
                assert set(load.statuses) <= {200, 503}
            served.process.kill()
            _, alive = psutil.wait_procs(workers, timeout=30)
            assert not alive
        assert list_services() == []


@pytest.mark.full
def test_a_version_that_breaks_while_it_runs_leaves_the_worker_that_has_it() -> None:
    with serving("moody@1", "--workers", "2") as served:
        service = served.service()
        weights = home() / "models/moody/1/weights.safetensors"
        content = weights.read_bytes()
        weights.write_bytes(b"")
        with Load(service) as load:
            served.workers()[0].kill()
            once(lambda: "takes its place in 2 s" in served.said())
            load.more()
            weights.write_bytes(content)
            once(lambda: len(served.pids()) == 2)
            load.more()
        assert set(load.statuses) == {200}
        assert "weights.safetensors" in served.said()
        served.stop()


@pytest.mark.full
def test_all_workers_begin_with_one_version_while_the_alias_moves() -> None:
    moved = threading.Event()

    def move() -> None:
        while not moved.wait(0.01):
            for number in (1, 2):
                wb.promote(f"moody@{number}", "champion")

    moving = threading.Thread(target=move)
    moving.start()
    for _ in range(4):
        with serving("moody@champion", "--workers", "2") as served:
            service = served.service()
            with Load(service, clients=16) as load:
                load.more(300)
            assert set(load.versions) == {service.model.partition("@")[2]}
            served.stop()
    moved.set()
    moving.join()
