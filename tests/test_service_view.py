"""What the view of a service shows and does, on real services, without a browser."""

from __future__ import annotations

import base64
import json
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from asking import ROWS, ask, bearer, small_model
from points import POINTS, publish_both
from prometheus_client.parser import text_string_to_metric_families
from supervised import SLOW, Load, Moody, publish, serving
from torch import Tensor, nn
from waiting import once

import workbench as wb
from workbench.errors import RequestError, ServiceError, UnknownNameError
from workbench.pictures import Picture
from workbench.registry import history
from workbench.serving import Service, find_service, serve
from workbench.serving.server import command_line
from workbench.serving.tallies import BOUNDS
from workbench.widgets import ServiceView, service_view, service_watch
from workbench.widgets.service_reach import Reached
from workbench.widgets.service_traffic import Counts, Traffic, within


@pytest.fixture
def points() -> Iterator[Service]:
    """Serve the first of two versions of a model of points."""
    publish_both()
    with serve("points@1") as running:
        yield running


def view_of(asked: Any, model: str | None = None) -> ServiceView:
    return ServiceView(Reached(asked, model))


def seen(view: ServiceView) -> Any:
    """Return what is shown after one more look at everything."""
    view._watch.hurry()
    view._watch.look()
    view.look()
    return view.shown


def post(service: Service, body: bytes) -> int:
    headers = {**bearer(service), "Content-Type": "application/json"}
    return ask(service, "POST", f"/models/{service.name}/predict", body, headers).status


# Figures.


def test_the_figures_are_the_services_own(points: Service) -> None:
    for k in (1, 2, 3, 3, 8):
        points.predict(POINTS[:k])
    assert post(points, b"[1]") == 400
    view, stats = view_of(points), points.stats()
    told = view.shown["traffic"]
    assert (told["requests"], told["rows"], told["batches"]) == (6, stats.rows, stats.batches)
    assert (told["statuses"], told["mean_rows"]) == ({"200": 5, "400": 1}, 17 / 5)
    assert dict(told["sizes"]) == {"1": 1, "2": 1, "3 to 4": 2, "5 to 8": 1}
    first, *_, last = view.shown["answers"]
    assert (first["rows"], last["rows"], first["version"]) == (8, 1, "1")
    labels = points.predict(POINTS[:8]).labels
    assert labels is not None
    assert first["said"] == f"{', '.join(labels[:3])}, and 5 more"
    assert view.shown["failures"] == []  # of before the view nobody knows when


def test_drift_is_told_as_the_monitor_tells_it(points: Service) -> None:
    view = view_of(points)
    assert view.shown["drift"]["looking"] == {"rows": 0, "window": 500}
    points.predict(POINTS[:600] + 3)
    told = seen(view)["drift"]
    monitor = wb.connect(points.url, points.token).monitor()
    assert (told["rows"], told["alarms"]) == (600, len(monitor["drift"]["alarm"]))
    assert {one["figure"]: one["psi"] for one in told["figures"]} == {
        one["figure"]: one["psi"] for one in monitor["drift"]["figures"]
    }
    over = [one["psi"] / one["threshold"] for one in told["figures"]]
    assert over == sorted(over, reverse=True)


def test_metrics_are_read_as_prometheus_reads_them(points: Service) -> None:
    with serve(small_model(), name="small", example=ROWS) as other:
        for k in (1, 5):
            points.predict(POINTS[:k])
            other.predict(ROWS)
        text = ask(points, "GET", "/metrics").body.decode()
    counts = Counts.read(text, "points")
    found = {
        (s.name, s.labels.get("le")): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if s.labels.get("model") == "points"
    }
    assert counts.rows == found["workbench_rows_total", None] == 6
    assert counts.batched == 6
    for bound, many in counts.latency:
        le = "+Inf" if bound == float("inf") else str(bound)
        assert found["workbench_answer_seconds_bucket", le] == many
    assert [bound for bound, _ in counts.latency] == [*BOUNDS, float("inf")]


@pytest.mark.parametrize("share", [0.01, 0.5, 0.95, 0.99, 1])
def test_a_percentile_lies_in_the_bucket_of_the_true_one(share: float) -> None:
    seconds = np.random.default_rng(0).lognormal(-4, 1.5, 1000)
    bounds = [*BOUNDS, float("inf")]
    said = within([(bound, int((seconds <= bound).sum())) for bound in bounds], share)
    true = np.quantile(seconds, share, method="inverted_cdf")
    assert said is not None
    bucket = np.searchsorted(BOUNDS, [said, true])
    assert bucket[0] == bucket[1]
    assert within([(1.0, 0), (float("inf"), 0)], share) is None
    assert within([(1.0, 0), (float("inf"), 3)], share) == float("inf")


def test_traffic_is_told_by_time() -> None:
    traffic, at = Traffic(), 1000.0
    for requests in (100, 100, 130, 150, 150):
        traffic.add(_answered(requests), at)
        at += 2
    told = traffic.told(at)
    assert told["rates"][-5:] == [0, 0, 15, 10, 0]  # what was there before it looked counts none
    assert told["rate"] == 5
    assert told["requests"] == 150
    later = [traffic.told(at + 200), traffic.told(at + 203.7)]
    assert later[0] == later[1]  # where nothing comes, nothing changes
    assert (later[0]["rate"], sum(later[0]["rates"])) == (0, 0)
    traffic.add(_answered(3), at)
    assert (traffic.now.requests, sum(traffic.told(at + 2)["rates"])) == (3, 0)  # begun anew


def _answered(n: int) -> Counts:
    return Counts.read(f'workbench_requests_total{{model="m",status="200"}} {n}.0\n', "m")


def test_latencies_are_of_the_last_minute_where_there_are_any() -> None:
    line = 'workbench_answer_seconds_bucket{{le="{}",model="m",version="1"}} {}.0\n'

    def counts(fast: int, slow: int) -> Counts:
        all_of = "".join(line.format(le, n) for le, n in (("0.1", fast), ("10.0", fast + slow)))
        return Counts.read(all_of + line.format("+Inf", fast + slow), "m")

    traffic = Traffic()
    for at, fast in ((0, 0), (61, 0), (62, 100)):
        traffic.add(counts(fast, 100), at)
    told = traffic.told(62)
    assert (told["since"], told["latency"]["p95"]) == ("in the last minute", 95.0)
    traffic.add(counts(100, 100), 130)
    traffic.add(counts(100, 100), 195)
    assert traffic.told(195)["since"] == "since it began"
    assert traffic.told(195)["latency"]["p95"] > 5000


def test_what_was_refused_or_failed_is_listed_as_it_comes() -> None:
    with serve(Moody(), name="moody", example=torch.zeros(1, 2)) as service:
        view = view_of(service)
        for body in (b"[1]", b"[1, 2, 3]", b"[2000, 1]"):
            post(service, body)
        shown = seen(view)
    assert sorted((one["status"], one["count"]) for one in shown["failures"]) == [
        ("400", 2),
        ("500", 1),
    ]
    assert shown["error"].rstrip().endswith("ArithmeticError: secret detail")
    assert all(time.time() - one["at"] < 20 for one in shown["failures"])


# Live.


def test_it_is_silent_when_nothing_changes_and_quick_when_something_does(points: Service) -> None:
    view, told = view_of(points), []
    view.observe(lambda change: told.append(change["new"]), names="shown")
    view.stay()
    time.sleep(1.5)
    assert told == []
    points.predict(POINTS[:4])
    once(lambda: bool(told) and told[-1]["traffic"]["requests"] == 1)
    told.clear()
    since = time.monotonic()
    while len(told) < 3:  # each request would be news
        points.predict(POINTS[:1])
        assert time.monotonic() < since + 60
    assert len(told) <= 4 * (time.monotonic() - since) + 1
    points.stop()
    once(lambda: bool(told) and told[-1]["state"] == "stopped")
    once(lambda: view._watch._thread is not None and not view._watch._thread.is_alive())


def test_nobody_looks_where_no_page_is(points: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    view = view_of(points)
    view.stay()
    assert view.look()
    monkeypatch.setattr(view, "_until", 0.0)
    once(lambda: not view.look() and view._watch._ended.is_set())
    points.predict(POINTS[:1])
    view.stay()
    once(lambda: view.shown["traffic"]["requests"] == 1)


# Steering.


def test_a_version_is_swapped_in_and_no_request_is_dropped() -> None:
    publish("moody", 1)
    publish("moody", 2)
    wb.publish(small_model(), "other", example=ROWS)
    with serve("moody@1") as service:
        view, where = view_of(service), (service.url, service.token)
        assert [one["ref"] for one in view.shown["versions"]] == ["moody@2", "moody@1"]
        with Load(find_service("moody")) as load:
            load.more(50)
            view.do("swap", ref="moody@2")
            load.more(50)
        assert (set(load.statuses), load.lost.total()) == ({200}, 0)
        assert set(load.versions) == {"1", "2"}
        assert (view.problem, view.shown["model"]) == ("", "moody@2")
        assert (service.model, service.url, service.token) == ("moody@2", *where)
        view.do("swap", ref="other@1")
        assert "unknown version that takes and answers the same 'other@1'" in view.problem


def test_an_alias_is_promoted_with_its_reason(points: Service) -> None:
    view = view_of(points)
    view.do("promote", ref="points@2", alias="champion", why="it is right more often")
    assert wb.version("points@champion").ref == "points@2"
    assert history("points")[-1]["why"] == "it is right more often"
    assert seen(view)["versions"][0]["aliases"] == ["champion"]
    assert "accuracy" in view.shown["versions"][0]["figures"]
    view.do("promote", ref="points@2", alias="2")
    assert view.problem.startswith("'2' cannot be an alias")
    assert points.model == "points@1"  # one in a kernel follows no alias


def test_it_drains_stops_and_serves_again() -> None:
    publish("moody", 1)
    with serve("moody@1") as service:
        view, statuses = view_of(service), list[int]()
        body = json.dumps([SLOW, 1]).encode()
        asking = threading.Thread(target=lambda: statuses.append(post(service, body)))
        asking.start()
        once(lambda: service.stats().waiting == 1)
        view.do("stop")
        assert (view.problem, view.shown["state"]) == ("", "draining")
        assert view.shown["cannot"]["swap"] == "the service is draining"
        once(lambda: view.shown["state"] == "stopped")
        asking.join()
        assert statuses == [200]
        assert (view.look(), view.shown["cannot"]["again"]) == (False, "")
        assert view.shown["note"] == "The service is stopped: nothing answers at its address."
        view.do("again")
        assert (view.problem, view.shown["state"]) == ("", "running")
        assert view.service is not None
        assert view.service is not service
        assert (view.service.url, view.service.token) == (service.url, service.token)
        assert post(view.service, b"[1, 2]") == 200
        assert "take view.service" in view.shown["note"]
        view.service.stop()


def test_a_live_model_cannot_be_served_again_from_here() -> None:
    with serve(small_model(), name="small", example=ROWS) as service:
        view = view_of(service)
        assert view.shown["model"].startswith("live, weights ")
        assert view.shown["drift"]["looking"] is None
    view.look()
    assert view.shown["cannot"]["again"].startswith("it answered with a live model, not a version")
    view.do("again")
    assert view.problem.startswith("serving again cannot be done: it answered with a live model")
    view.do("stop")
    assert view.problem == "stopping cannot be done: the service is stopped"
    again = view_of(service)
    assert again.shown["state"] == "stopped"


# Services of other processes.


def test_of_a_service_elsewhere_all_is_known_and_little_can_be_done(
    points: Service, monkeypatch: pytest.MonkeyPatch, tmp_path: Any
) -> None:
    points.predict(POINTS[:5])
    remote = wb.connect(points.url, points.token)
    near = view_of(remote)
    there = f"it lives in a kernel or a script, process {find_service('points').pid}: do it there"
    assert near.shown["cannot"] == {
        "swap": there, "promote": "", "stop": there, "again": "the service is running",
    }  # fmt: skip
    near.do("swap", ref="points@2")
    assert near.problem == f"swapping cannot be done: {there}"
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "elsewhere"))
    far = view_of(remote)
    assert far.shown["cannot"]["promote"].startswith("its registry is on another machine")
    assert far.shown["cannot"]["stop"].endswith("workbench stop there")
    assert far.shown["versions"] == []
    for shown in (near.shown, far.shown):
        assert (shown["model"], shown["traffic"]["rows"]) == ("points@1", 5)
        assert (shown["answers"][0]["rows"], shown["error"]) == (5, "")


def test_one_of_workbench_serve_is_stopped_from_here() -> None:
    publish("moody", 1)
    with serving("moody") as process:
        listing = process.service()
        remote = wb.connect(listing.url, listing.token)
        remote.predict([[1.0, 2.0]])
        view = view_of(remote)
        assert view.shown["traffic"]["requests"] == 1
        assert "follows its alias by itself" in view.shown["cannot"]["swap"]
        view.do("stop")
        once(lambda: view.shown["state"] == "stopped")
        assert process.ended()[0] == 0
        assert not view.look()
        assert view.shown["cannot"]["again"].endswith("process: workbench serve moody there")


def test_what_another_server_answers_is_said_and_looked_at_again(
    points: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    view = view_of(points)
    with monkeypatch.context() as other:
        other.setattr(view._watch._wire, "ask", lambda *_: {"of": "another server"})
        view._watch.hurry()
        view.stay()
        once(lambda: "its answers are not understood: KeyError: " in view._watch.trouble)
    once(lambda: view._watch.trouble == "")


def test_a_service_that_is_lost_is_looked_for_a_while(
    points: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    remote = wb.connect(points.url, points.token)
    view = view_of(remote)
    points.stop()
    view.stay()
    once(lambda: view.shown["state"] == "not reached")
    assert "does not answer" in view.shown["note"]
    assert view.look()
    monkeypatch.setattr(service_view, "_LOST", 0)
    assert not view.look()
    with pytest.raises(ServiceError, match="does not answer"):
        remote.show()


def test_of_several_models_one_is_named(points: Service) -> None:
    with serve(small_model(), name="small", example=ROWS):
        remote = wb.connect(points.url, points.token)
        with pytest.raises(RequestError, match="the service has points, small: say which, model="):
            remote.show()
        with pytest.raises(UnknownNameError, match="unknown model 'pints': did you mean points"):
            remote.show("pints")
        assert view_of(remote, "small").shown["model"] == "a live model"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: (small_model(), ROWS), "--data-raw '[0.0, 0.14"),
        (lambda: (nn.Flatten(), torch.zeros(1, 4, 4, dtype=torch.uint8)), "@picture.png http"),
        (lambda: (nn.Identity(), torch.zeros(1, 300)), '" http://'),
    ],
)
def test_the_command_of_a_remote_service_fits_its_rows(
    make: Callable[[], tuple[nn.Module, Tensor]], said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, rows = make()
    with serve(model, name="m", example=rows) as service:
        remote = wb.connect(service.url, service.token)
        command = view_of(remote).shown["curl"]
        assert f'Bearer $({command_line()} token m)"' in command
        assert said in command
        assert service.url in command
        monkeypatch.setenv("WORKBENCH_HOME", "/nowhere")
        assert 'Bearer $TOKEN"' in view_of(remote).shown["curl"]


# What is left of it.


def test_the_token_is_in_nothing_that_a_notebook_saves(points: Service) -> None:
    for view in (view_of(points), view_of(wb.connect(points.url, points.token))):
        saved = json.dumps([view.get_state(), view._repr_mimebundle_()], default=str)
        assert points.token not in saved
        assert "workbench token points" in view.shown["curl"]


def test_headless_it_is_a_picture_and_text(points: Service) -> None:
    points.predict(POINTS[:600])
    remote = wb.connect(points.url, points.token)
    for asked in (points, remote):
        assert isinstance(asked.show(), Picture)
    bundle = view_of(points)._repr_mimebundle_()
    told = f"Service 'points' at {points.url}: running, points@1, 1 requests"
    assert bundle["text/plain"] == told
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")


def test_whatever_is_shown_is_small_and_plain(
    points: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service_watch, "_LAST", 50)
    for i in range(60):
        points.predict(POINTS[i * 20 : i * 20 + 20])
    assert len(json.dumps(view_of(points).shown, allow_nan=False)) < 20_000


def test_on_a_hub_its_page_is_behind_the_proxy(
    points: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert view_of(points).shown["page"] == f"{points.url}/"
    monkeypatch.setenv("JUPYTERHUB_SERVICE_PREFIX", "/user/ann/")
    port = points.url.rpartition(":")[2]
    assert view_of(points).shown["page"] == f"/user/ann/proxy/{port}/"
