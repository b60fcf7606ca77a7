"""Whatever becomes of the ledger and the access log, requests are answered; losses are said."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from asking import ask
from points import POINTS, better, publish_both

from workbench.home import home
from workbench.registry.ledgers import Ledger
from workbench.serving import Service, monitoring, serve
from workbench.serving.hosting import Server
from workbench.serving.monitoring import Monitor
from workbench.serving.served import Served, served_from


@pytest.fixture
def service() -> Iterator[Service]:
    with serve(better(), name="points") as running:
        yield running


def predict(service: Service | Server, n: int = 1) -> int:
    body = json.dumps(POINTS[:n].tolist()).encode()
    headers = {"Authorization": f"Bearer {service.token}", "Content-Type": "application/json"}
    return ask(service, "POST", "/models/points/predict", body, headers).status  # type: ignore[arg-type]


def log_of(service: Service) -> dict[str, object]:
    told = ask(service, "GET", "/models/points/monitor").json["log"]
    assert isinstance(told, dict)
    return told


def test_a_full_disk_costs_the_log_and_no_answer(service: Service) -> None:
    ledger = service._server.monitor.ledger("points")
    with ledger.transaction() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
    ledger.rows(f"PRAGMA max_page_count = {pages}")
    assert {predict(service, n=1000) for _ in range(20)} == {200}
    told = log_of(service)
    kept = len(ledger.answers())  # a part of a page may have been left
    assert (told["dropped"], kept < 20) == (20 - kept, True)
    assert "disk is full" in str(told["trouble"])
    ledger.rows("PRAGMA max_page_count = 1000000")
    assert predict(service) == 200
    assert log_of(service) == {"dropped": 20 - kept, "trouble": None}
    assert len(ledger.answers()) == kept + 1


def test_a_damaged_ledger_costs_the_log_and_no_answer(service: Service) -> None:
    (home() / "services" / "points.db").write_bytes(b"no database" * 1000)
    assert predict(service) == 200
    answer = ask(service, "GET", "/models/points/monitor")
    assert answer.status == 503
    assert "is damaged, or no ledger of a service" in answer.error
    assert predict(service) == 200
    assert ask(service, "GET", "/v2/health/ready").status == 200
    assert b"workbench_workers 1.0" in ask(service, "GET", "/metrics").body


def test_notes_that_come_too_fast_are_dropped_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(monitoring, "_MOST_NOTES", 10)
    monitor, served = Monitor(), served_from(better(), name="points")
    inputs = served.arrays(POINTS[:2])
    note = monitoring.Note("", 0.0, served, inputs, served.answer(inputs), None, 0.1)
    for i in range(25):
        monitor.answered(replace(note, id=str(i)))
    assert monitor.dropped == 15
    monitor.flush()
    assert [answer["id"] for answer in Ledger.of("points").answers()] == list("9876543210")
    monitor.answered(note)
    assert monitor.dropped == 15
    monitor.close()


def noted(served: Served, n: int = 2) -> monitoring.Note:
    inputs = served.arrays(POINTS[:n])
    return monitoring.Note("good", 0.0, served, inputs, served.answer(inputs), None, 0.1)


def test_an_odd_answer_costs_no_other_one_its_note() -> None:
    monitor, good = Monitor(), noted(served_from(better(), name="points"))
    wide = replace(good, id="wide", outputs={"output": np.zeros((2, 7), np.float32)})
    odd = replace(good, id="odd", outputs={"output": np.zeros((2, 1), object)})
    for note in (good, wide, odd, replace(good, id="more")):
        monitor.answered(note)
    monitor.flush()
    assert [answer["id"] for answer in Ledger.of("points").answers()] == ["more", "wide", "good"]
    assert monitor.dropped == 1
    assert str(monitor.trouble).startswith("writing down 1 answers of points failed")
    monitor.close()


def test_a_reference_that_cannot_be_read_just_now_is_read_later(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    publish_both()
    monitor, note = Monitor(), noted(served_from("points@1"), 5)
    with monkeypatch.context() as patch:
        patch.setattr(monitoring, "version", lambda ref: os.listdir("/nowhere/at/all"))
        monitor.answered(note)
        monitor.flush()
    assert (monitor.dropped, Ledger.of("points").looking("1")) == (0, 0)
    monitor.answered(replace(note, id="later"))
    monitor.flush()
    assert Ledger.of("points").looking("1") == 5
    monitor.close()


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 3e38])
def test_values_that_are_no_numbers_are_written_down_as_they_can(bad: float) -> None:
    model = torch.nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.fill_(0)
        model.bias.fill_(bad)
    with serve(model, name="points", example=POINTS[:2]) as service:
        assert predict(service) == 200
        assert log_of(service) == {"dropped": 0, "trouble": None}
        assert len(service._server.monitor.ledger("points").answers()) == 1


def test_the_access_log_has_a_line_for_each_request() -> None:
    publish_both()
    stream = io.StringIO()
    server = Server(host="127.0.0.1", access_log=stream)
    server.shelf.put(served_from("points@2", name="points"))
    server.start()
    assert predict(server) == 200
    wrong = ask(server, "GET", "/nowhere?token=s3cret", headers={})  # type: ignore[arg-type]
    assert wrong.status == 401
    server.stop()
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    asked = next(line for line in lines if line["path"] == "/models/points/predict")
    assert (asked["status"], asked["model"], asked["method"]) == (200, "points@2", "POST")
    assert asked["seconds"] > 0
    assert (len(asked["id"]) > 9, asked["client"]) == (True, "127.0.0.1")
    refused = next(line for line in lines if line["path"] == "/nowhere")
    assert (refused["status"], refused["model"]) == (401, None)
    assert server.token not in stream.getvalue()
    assert "s3cret" not in stream.getvalue()


@pytest.mark.skipif(sys.platform != "linux", reason="needs /dev/full")
def test_an_access_log_on_a_full_disk_costs_no_answer() -> None:
    publish_both()
    with contextlib.suppress(OSError), open("/dev/full", "w") as full:  # closing it fails too
        server = Server(host="127.0.0.1", access_log=full)
        server.shelf.put(served_from("points@2", name="points"))
        server.start()
        assert [predict(server) for _ in range(3)] == [200] * 3
        server.monitor.flush()
        assert predict(server) == 200
        server.stop()
        assert server.monitor.trouble is None
