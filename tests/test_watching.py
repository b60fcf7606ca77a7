"""A service watched over HTTP: answers with ids, labels that come later, drift, challengers."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from asking import Answer, ask, bearer
from jobsites import tiny_notebook
from points import POINTS, better, labels, publish_both
from prometheus_client.parser import text_string_to_metric_families

import workbench as wb
from workbench.runs.jobs import JobQueue
from workbench.serving import Service, serve
from workbench.serving.hosting import Server
from workbench.serving.jobs import Jobs

ADMIN = {"Authorization": "Bearer admin"}
FRESH = POINTS[1500:]


@pytest.fixture
def service() -> Iterator[Service]:
    publish_both()
    with serve("points@1", admin_token="admin") as running:
        yield running


def predict(service: Service, rows: torch.Tensor, path: str = "") -> Answer:
    body = json.dumps(rows.tolist()).encode()
    headers = {**bearer(service), "Content-Type": "application/json"}
    return ask(service, "POST", f"/models/points{path}/predict", body, headers)


def tell(service: Service, method: str, path: str, told: Any = None) -> Answer:
    body = None if told is None else json.dumps(told).encode()
    return ask(service, method, f"/models/points/{path}", body, ADMIN)


def label(service: Service, answer: Answer, label: Any, **more: Any) -> Answer:
    told = {"id": answer.headers["X-Request-Id"], "label": label, **more}
    return tell(service, "POST", "feedback", told)


def teach(service: Service, rows: torch.Tensor) -> list[str]:
    """Ask about rows one by one and say what they are; return which versions answered."""
    answers = [predict(service, row[None]) for row in rows]
    for answer, name in zip(answers, labels(rows), strict=True):
        assert label(service, answer, name).status == 200
    return [answer.headers["X-Model-Version"] for answer in answers]


def rightly_said(rows: torch.Tensor) -> int:
    """Return of how many rows the first version says what they are, asked without a service."""
    said = wb.predict(wb.version("points@1").load(), rows).labels or []
    return sum(a == b for a, b in zip(said, labels(rows), strict=True))


def test_every_answer_names_itself_and_its_version(service: Service) -> None:
    asked = [predict(service, FRESH[:1]) for _ in range(3)]
    assert len({answer.headers["X-Request-Id"] for answer in asked}) == 3
    assert asked[0].json["id"] == asked[0].headers["X-Request-Id"]
    assert asked[0].headers["X-Model-Version"] == "points@1"
    tell(service, "PUT", "challenger", {"version": 2})
    named = predict(service, FRESH[:1], "/versions/2")
    assert named.headers["X-Model-Version"] == named.json["model"] == "points@2"


def test_the_answers_log_says_which_version_answered_what(service: Service) -> None:
    answer = predict(service, FRESH[:3])
    label(service, answer, labels(FRESH[:3]))
    (kept,) = tell(service, "GET", "answers").json["answers"]
    assert kept["id"] == answer.json["id"]
    assert kept["said"] == [row["label"] for row in answer.json["rows"]]
    assert (kept["version"], kept["rows"]) == ("1", 3)
    assert kept["feedback"]["labels"] == labels(FRESH[:3])
    assert kept["at"] == pytest.approx(time.time(), abs=60)


def test_live_accuracy_is_that_of_the_labels_whole_and_by_group(service: Service) -> None:
    right = rightly_said(FRESH[:200])
    for half, group in ((FRESH[:100], "a"), (FRESH[100:200], "b")):
        label(service, predict(service, half), labels(half), group=group)
    found = tell(service, "GET", "monitor").json["accuracy"]
    assert found["labels"] == 200
    assert found["accuracy"] == right / 200
    assert found["interval"][0] < right / 200 < found["interval"][1]
    assert {name: part["labels"] for name, part in found["groups"].items()} == {"a": 100, "b": 100}


@pytest.mark.parametrize(
    ("told", "status", "reason"),
    [
        ({"label": "above"}, 400, "feedback is"),
        ({"id": 3, "label": "above"}, 400, "feedback is"),
        ({"id": "x", "label": "abov"}, 400, "unknown label 'abov': did you mean above?"),
        ({"id": "x", "label": "above"}, 404, "unknown answer 'x'"),
        ({"id": "x", "label": "above", "group": ""}, 400, "group is ''"),
        ({"id": "x", "label": "above", "when": 3}, 400, "unknown field 'when'"),
    ],
)
def test_wrong_feedback_is_refused(service: Service, told: Any, status: int, reason: str) -> None:
    answer = tell(service, "POST", "feedback", told)
    assert answer.status == status
    assert reason in answer.error


def test_labels_that_come_late_are_those_of_the_version_that_answered(service: Service) -> None:
    before = predict(service, FRESH[:1])
    renamed = wb.dataset(
        "others", train=(POINTS, (POINTS.sum(1) > 0).long()), classes=("under", "over")
    )
    model = wb.build("linear", renamed, seed=0)
    wb.fit(model, renamed, steps=1)
    wb.publish(model, "points")
    load = ask(service, "POST", "/v2/repository/models/points/load", b"{}", ADMIN)
    assert (load.status, predict(service, FRESH[:1]).headers["X-Model-Version"]) == (
        200,
        "points@3",
    )
    refused = label(service, before, "over")
    assert (refused.status, refused.error[:20]) == (400, "unknown label 'over'")
    assert label(service, before, "above").json == {"labels": 1}


def test_drift_is_seen_in_live_traffic_and_its_absence_too(service: Service) -> None:
    for part in FRESH.split(100):
        predict(service, part)
        tell(service, "GET", "monitor")  # each look has the rows so far written down
    assert tell(service, "GET", "monitor").json["drift"]["alarm"] == []
    for part in (FRESH + 1.5).split(100):
        predict(service, part)
        tell(service, "GET", "monitor")
    told = tell(service, "GET", "monitor").json
    assert {"input feature_0", "input feature_1"} <= set(told["drift"]["alarm"])
    assert [bool(window["alarm"]) for window in told["windows"]] == [True, False]
    assert told["run"] == wb.version("points@1").lineage["run"]


def test_a_challenger_is_compared_on_the_same_requests_and_unheard(service: Service) -> None:
    assert tell(service, "PUT", "challenger", {"version": "2"}).status == 200
    assert set(teach(service, FRESH[:60])) == {"points@1"}
    told = tell(service, "GET", "challenger").json
    assert told["mode"] == "shadow"
    assert told["reason"] == "too few labels: 940 of 1,000 are missing"
    assert told["evidence"]["challenger"] == {
        "labels": 60,
        "accuracy": 1.0,
        "interval": [pytest.approx(0.94, abs=0.01), pytest.approx(1.0)],
    }
    assert told["evidence"]["champion"]["accuracy"] < 0.9
    answered = tell(service, "GET", "answers").json["answers"]
    assert all(answer["shadow_said"] == answer["feedback"]["labels"] for answer in answered)


def test_the_better_is_promoted_and_rolled_back(service: Service) -> None:
    tell(service, "PUT", "challenger", {"version": "2"})
    teach(service, FRESH[:60])
    done = tell(service, "POST", "challenger/promote", {"labels": 60})
    assert done.json["promoted"] == "points@2"
    assert predict(service, FRESH[:1]).headers["X-Model-Version"] == "points@2"
    (line,) = wb.registry.promotions.history("points")
    assert (line["alias"], line["why"]) == ("champion", done.json["reason"])
    assert line["evidence"] == done.json["evidence"]
    assert tell(service, "GET", "challenger").status == 404
    wb.promote("points@1", "champion")
    back = tell(service, "POST", "rollback", {"why": "it is late"})
    assert (back.status, back.json["now"]) == (200, "points@2")


def test_the_worse_is_refused_with_the_reason() -> None:
    publish_both()
    with serve("points@2", admin_token="admin") as service:
        tell(service, "PUT", "challenger", {"version": "1"})
        refused = tell(service, "POST", "challenger/promote", {"labels": 60})
        assert (refused.status, refused.error) == (409, "too few labels: 60 of 60 are missing")
        teach(service, FRESH[:60])
        refused = tell(service, "POST", "challenger/promote", {"labels": 60})
        assert refused.status == 409
        assert refused.error.startswith("worse: accuracy ")
        assert predict(service, FRESH[:1]).headers["X-Model-Version"] == "points@2"


def test_another_alias_than_the_one_that_answers_moves_alone(service: Service) -> None:
    tell(service, "PUT", "challenger", {"version": "2"})
    teach(service, FRESH[:60])
    done = tell(service, "POST", "challenger/promote", {"labels": 60, "alias": "other"})
    assert (done.json["promoted"], wb.version("points@other").version) == ("points@2", 2)
    assert predict(service, FRESH[:1]).headers["X-Model-Version"] == "points@1"


def test_the_default_stays_while_another_version_is_tried_beside_it(service: Service) -> None:
    tell(service, "PUT", "challenger", {"version": "2"})
    unload = "/v2/repository/models/points@1/unload"
    refused = ask(service, "POST", unload, b"{}", ADMIN)
    assert refused.status == 409
    assert "points@2 is tried beside points@1" in refused.error
    tell(service, "DELETE", "challenger")
    assert ask(service, "POST", unload, b"{}", ADMIN).status == 200


def test_traffic_is_split_where_no_version_is_named(service: Service) -> None:
    tell(service, "PUT", "challenger", {"version": "2", "mode": "split", "share": 0.5})
    versions = teach(service, FRESH[:80])
    assert 20 < versions.count("points@2") < 60
    named = {
        predict(service, FRESH[:1], "/versions/1").headers["X-Model-Version"] for _ in range(9)
    }
    assert named == {"points@1"}
    told = tell(service, "GET", "challenger").json["evidence"]
    counts = [told[side]["labels"] for side in ("champion", "challenger")]
    assert counts == [versions.count("points@1"), versions.count("points@2")]
    assert tell(service, "DELETE", "challenger").status == 200
    assert set(teach(service, FRESH[:9])) == {"points@1"}


@pytest.mark.parametrize(
    ("told", "status", "reason"),
    [
        ({"version": "3"}, 400, "unknown version of points '3'"),
        ({"version": "1"}, 409, "points@1 is the default already"),
        ({"version": True}, 400, "version is True"),
        ({"version": "2", "mode": "canary"}, 400, "unknown mode 'canary'"),
        ({"version": "2", "share": 0}, 400, "share is 0"),
    ],
)
def test_a_wrong_challenge_changes_nothing(
    service: Service, told: Any, status: int, reason: str
) -> None:
    answer = tell(service, "PUT", "challenger", told)
    assert answer.status == status
    assert reason in answer.error
    assert tell(service, "GET", "challenger").status == 404


def test_what_changes_a_service_needs_the_administrator(service: Service) -> None:
    for method, path in (
        ("PUT", "challenger"), ("DELETE", "challenger"), ("POST", "challenger/promote"),
        ("POST", "rollback"),
    ):  # fmt: skip
        answer = ask(service, method, f"/models/points/{path}", b"{}", bearer(service))
        assert answer.status == 403
        assert "administrator's token" in answer.error


def test_a_challenger_that_fails_harms_nobody(service: Service, monkeypatch: Any) -> None:
    tell(service, "PUT", "challenger", {"version": "2"})
    challenger = service._server.shelf.find("points", "2")
    monkeypatch.setattr(challenger.source.fresh(), "forward", lambda rows: 1 / 0)
    assert [predict(service, FRESH[:1]).status for _ in range(5)] == [200] * 5
    assert all(a["shadow"] is None for a in tell(service, "GET", "answers").json["answers"])
    assert service.stats().errors == 0


def test_three_ways_to_ask_tell_the_same_story(service: Service) -> None:
    for rows in (FRESH[:1], FRESH[:7], FRESH[:300]):
        predict(service, rows)
    predict(service, torch.zeros(1, 3))
    ours = service.stats()
    path = "/v2/models/points/stats"
    triton = ask(service, "GET", path).json["model_stats"][0]
    scraped = {
        sample.name: sample.value
        for family in text_string_to_metric_families(ask(service, "GET", "/metrics").body.decode())
        for sample in family.samples
        if sample.labels.get("le") is None and sample.labels.get("status") != "400"
    }
    assert ours.rows == triton["inference_count"] == scraped["workbench_rows_total"] == 308
    assert ours.batches == triton["execution_count"] == scraped["workbench_batch_rows_count"]
    assert (
        triton["inference_stats"]["success"]["count"] == scraped["workbench_answer_seconds_count"]
    )
    assert (ours.requests, ours.errors, scraped["workbench_requests_total"]) == (4, 1, 3)
    assert scraped["workbench_batch_rows_sum"] == 308


def test_metrics_tell_of_the_version_and_its_labels(service: Service) -> None:
    label(service, predict(service, FRESH[:20]), labels(FRESH[:20]))
    families = {
        family.name: family
        for family in text_string_to_metric_families(ask(service, "GET", "/metrics").body.decode())
    }
    (info,) = families["workbench_model_info"].samples
    assert (info.labels["ref"], info.labels["default"]) == ("points@1", "true")
    assert families["workbench_labels"].samples[0].value == 20
    assert families["workbench_live_accuracy"].samples[0].value == rightly_said(FRESH[:20]) / 20


def test_a_live_model_is_watched_without_drift() -> None:
    with serve(better(), name="points", admin_token="admin") as service:
        label(service, predict(service, FRESH[:50]), labels(FRESH[:50]))
        told = tell(service, "GET", "monitor").json
        assert (told["model"], told["drift"], told["accuracy"]["accuracy"]) == ("points@0", None, 1)
        refused = tell(service, "PUT", "challenger", {"version": "1"})
        assert refused.status == 409
        assert "is a live model, which has no versions" in refused.error


def test_what_notebooks_take_is_told_to_an_administrator_alone(tmp_path: Path) -> None:
    notebook = tiny_notebook(tmp_path)
    queue = JobQueue(tmp_path / "jobs.db")
    jobs = Jobs(queue, {"tiny": notebook})
    server: Any = Server(host="127.0.0.1", admin_token="admin", jobs=jobs)
    server.start()
    try:
        assert b"tiny" in ask(server, "GET", "/openapi.json", headers=ADMIN).body
        told = ask(server, "GET", "/openapi.json").json["paths"]
        assert not any(path.startswith("/jobs") for path in told)
        assert ask(server, "GET", "/jobs").status == 403
        notebook.unlink()
        assert ask(server, "GET", "/openapi.json", headers=ADMIN).status == 200
    finally:
        server.stop()
        queue.close()
