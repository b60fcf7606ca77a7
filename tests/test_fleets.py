"""The processes of a service as one of them sees them: who lives, what is counted and done."""

from __future__ import annotations

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import psutil
import pytest
import torch
from asking import Answer, ask, infer_body
from points import POINTS, better, publish_both

import workbench as wb
from workbench.errors import RequestError
from workbench.home import home
from workbench.registry import history
from workbench.registry.ledgers import Ledger
from workbench.serving import fleets, serve
from workbench.serving.fleets import Fleet
from workbench.serving.hosting import Server
from workbench.serving.orders import Orders
from workbench.serving.served import Served, served_from
from workbench.serving.shelf import Shelf
from workbench.types import JSON

ADMIN = {"Authorization": "Bearer admin"}


@pytest.fixture
def ledger() -> Iterator[Ledger]:
    ledger = Ledger.of("points")
    ledger.begin(1)
    yield ledger
    ledger.close()


@pytest.fixture
def other() -> Iterator[psutil.Process]:
    """Another process, which does nothing at all."""
    with subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"]) as process:
        yield psutil.Process(process.pid)
        process.kill()


def counted(waiting: int) -> JSON:
    line = {"waiting": waiting, "oldest": float(waiting), "busy_seconds": 2.0, "dropped": 1}
    return {"names": {}, "models": {}, "line": line}


def fleet_of(ledger: Ledger, counts: Callable[[], JSON] = lambda: counted(1)) -> Fleet:
    return Fleet(Orders(Shelf()), counts, ledger=ledger)


@contextmanager
def server_of(
    ref: str,
    ledger: Ledger,
    load: Callable[[str, str | None], Served] = lambda ref, name: served_from(ref, name=name),
    **more: Any,
) -> Iterator[Server]:
    """Return a worker's server, with a ledger that others might share."""
    server = Server(
        host="127.0.0.1", admin_token="admin", ledger=ledger,
        orders=lambda shelf: Orders(shelf, load), **more,
    )  # fmt: skip
    server.shelf.put(served_from(ref, name="points"))
    server.app.fleet.tick()
    server.start()
    try:
        yield server
    finally:
        server.stop()


def tell(server: Any, path: str, told: Any) -> Answer:
    return ask(server, "POST", path, json.dumps(told).encode(), ADMIN)


def until(done: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not done():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_of_a_process_that_is_gone_what_it_has_counted_stays(
    ledger: Ledger, other: psutil.Process
) -> None:
    fleet, began = fleet_of(ledger), other.create_time()
    ledger.report(other.pid, began, snapshot=counted(5), proven=True, applied=0)
    assert fleet.counts()["workers"] == 2
    assert fleet.counts()["line"]["waiting"] == 6
    other.kill()
    other.wait()
    assert fleet.counts()["workers"] == 1
    line = {"waiting": 1, "oldest": 1.0, "busy_seconds": 4.0, "dropped": 2}
    assert fleet.counts()["line"] == line


def test_an_order_waits_for_those_who_live_and_for_nobody_else(
    ledger: Ledger, other: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The number of a worker that is gone is another process's by now, which takes no orders."""
    monkeypatch.setattr(fleets, "_PATIENCE", 0.5)
    fleet = fleet_of(ledger)
    ledger.report(other.pid, 1.0, snapshot=counted(0), proven=True, applied=0)
    assert asyncio.run(fleet.give({"do": "mark"}))
    ledger.report(other.pid, other.create_time(), snapshot=counted(0), proven=True, applied=0)
    assert not asyncio.run(fleet.give({"do": "mark"}))


def test_orders_of_a_ledger_that_takes_a_damaged_ones_place_are_carried_out(
    ledger: Ledger,
) -> None:
    fleet, seen = fleet_of(ledger), list[JSON]()
    fleet._orders.carry_out = seen.append  # type: ignore[assignment,method-assign]
    ledger.order({"do": "mark"})
    fleet.obey()
    ledger.path.unlink()
    fleet.obey()
    ledger.order({"do": "end challenge", "name": "points"})
    fleet.obey()
    assert [order["do"] for order in seen] == ["mark", "end challenge"]


def test_counts_are_written_when_they_change(ledger: Ledger) -> None:
    waiting = 1
    fleet = fleet_of(ledger, lambda: counted(waiting))

    def written() -> int:
        fleet.report()
        found: int = ledger.rows("SELECT max(number) AS last FROM workers")[0]["last"]
        return found

    ledger.report(1, 1.0, snapshot={}, proven=True, applied=0)
    first = written()
    ledger.report(1, 1.0, snapshot={}, proven=True, applied=0)  # takes the next number
    assert written() == first + 1
    waiting = 2
    assert written() == first + 2


def test_no_inference_waits_for_a_ledger_that_another_process_holds() -> None:
    with serve(better(), name="points") as service:
        service._server.monitor.ledger("points")
        path = "/models/points/feedback"
        told = {"id": "x", "label": "above"}
        answers = list[int]()

        def teach() -> None:
            body = json.dumps(told).encode()
            answers.append(ask(service, "POST", path, body).status)

        asking = [threading.Thread(target=teach) for _ in range(50)]
        holder = sqlite3.connect(home() / "services" / "points.db", isolation_level=None)
        holder.execute("BEGIN IMMEDIATE")
        for thread in asking:
            thread.start()
        until(lambda: 503 in answers)  # the line is full
        large = infer_body(torch.zeros(100_000, 2))
        assert len(large) > 2**20
        assert ask(service, "POST", "/v2/models/points/infer", large).status == 200
        assert ask(service, "GET", "/v2/health/ready").status == 200
        assert any(thread.is_alive() for thread in asking)
        holder.execute("ROLLBACK")
        holder.close()
        for thread in asking:
            thread.join(20)
        assert set(answers) == {404, 503}


def test_answers_are_written_down_while_a_model_is_loaded(ledger: Ledger) -> None:
    publish_both()
    begun, go_on = threading.Event(), threading.Event()

    def load(ref: str, name: str | None) -> Served:
        begun.set()
        go_on.wait(20)
        return served_from(ref, name=name)

    with server_of("points@1", ledger, load) as server:
        ledger.order({"do": "put", "ref": "points@2", "name": "points"})
        assert begun.wait(20)
        assert tell(server, "/models/points/predict", POINTS[:1].tolist()).status == 200
        until(lambda: len(ledger.answers()) == 1)
        assert server.shelf.find("points").version == "1"
        go_on.set()
        until(lambda: server.shelf.find("points").version == "2")


def test_a_rollback_that_some_have_still_to_follow_is_done(
    ledger: Ledger, other: psutil.Process, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fleets, "_PATIENCE", 0.5)
    for version in publish_both():
        wb.promote(version.ref, "champion")
    with server_of("points@2", ledger) as server:
        began = other.create_time()
        ledger.report(other.pid, began, snapshot=counted(0), proven=True, applied=0)
        told = tell(server, "/models/points/rollback", {})
        assert told.json == {"now": "points@1", "before": "points@2", "pending": True}
        assert wb.version("points@champion").version == 1
        until(lambda: server.shelf.find("points").version == "1")


def test_an_alias_is_never_on_what_cannot_be_loaded(ledger: Ledger) -> None:
    for version in publish_both():
        wb.promote(version.ref, "champion")

    def load(ref: str, name: str | None) -> Served:
        raise RequestError(f"{ref} wants a package that is not here")

    with server_of("points@2", ledger, load) as server:
        refused = tell(server, "/models/points/rollback", {})
        assert (refused.status, refused.error) == (400, "points@1 wants a package that is not here")
        assert [line["version"] for line in history("points")] == [1, 2]  # it was not even moved
        assert server.shelf.find("points").version == "2"


def test_what_follows_an_alias_is_moved_by_that_alone(ledger: Ledger) -> None:
    for version in publish_both():
        for alias in ("champion", "other"):
            wb.promote(version.ref, alias)
    with server_of("points@2", ledger, alias="champion", follows="champion") as server:
        refused = tell(server, "/v2/repository/models/points/load", {})
        assert refused.status == 409
        assert "follows points@champion: promote a version" in refused.error
        moved = tell(server, "/models/points/rollback", {"alias": "other"})
        assert (moved.status, moved.json["now"]) == (200, "points@1")
        assert server.shelf.find("points").version == "2"
        assert tell(server, "/models/points/rollback", {}).status == 200
        assert server.shelf.find("points").version == "1"


def test_a_process_is_known_by_when_it_began(ledger: Ledger) -> None:
    """A worker that is gone may have had this very process's number: its counts are not lost."""
    fleet = fleet_of(ledger)
    fleet.report()
    ledger.report(os.getpid(), 1.0, snapshot=counted(5), proven=True, applied=0)
    assert fleet.counts()["line"]["busy_seconds"] == 4.0
    assert fleet.counts()["workers"] == 1
