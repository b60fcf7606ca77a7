"""Jobs followed and ended from elsewhere, and what the wire to a service bears."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from jobsites import ADMIN, TOKEN, JobSite, long_notebook, site_of, tiny_notebook, working
from listening import listening
from starlette.types import Receive, Scope, Send
from tqdm import tqdm
from writing import write_notebook

from workbench.errors import RequestError, RunError, ServiceError, UnknownNameError
from workbench.registry import version
from workbench.remote import RemoteService, connect
from workbench.remote.jobs import RemoteJob
from workbench.remote.wire import Wire
from workbench.runs.executors import LocalExecutor
from workbench.serving.answers import Answer, Event, Refusal, encode, json_answer
from workbench.supervision.jobhost import JobHost
from workbench.types import JSON


def remote_of(port: int, token: str = ADMIN, path: str = "") -> RemoteService:
    """Return the way to what listens there, which may have no models."""
    return RemoteService(Wire(f"http://127.0.0.1:{port}{path}", token, timeout=20))


@pytest.fixture
def site(tmp_path: Path) -> Iterator[JobSite]:
    """Give a service whose notebooks nobody executes."""
    bad = write_notebook(tmp_path / "bad.ipynb", "# Sum", "1 / n", parameters="n: int = 0")
    notebooks = tiny_notebook(tmp_path), long_notebook(tmp_path), bad
    with site_of(tmp_path / "jobs.db", *notebooks) as made:
        yield made


def test_a_notebook_is_trained_followed_and_its_version_named(
    site: JobSite, warm: str | None
) -> None:
    remote = remote_of(site.port)
    assert remote.notebooks()["tiny"]["properties"]["epochs"]["type"] == "integer"
    job = remote.train("tiny", epochs=3, word="so it's")
    assert repr(job) == f"Job {job.id}: queued, number 1 in the queue"
    host = JobHost(site.queue, site.jobs.notebooks, executor=LocalExecutor(warm))
    with working(host):
        heard = list(job.follow())
    assert [e.data["value"] for e in heard if e.kind == "metric"] == [1.0, 0.5, 1 / 3]
    said = "".join(e.data["text"] for e in heard if e.kind == "log")
    assert said == "".join(f"epoch {n} is so it's\n" for n in range(3))
    assert (job.state, job.metrics, job.error) == ("done", {"loss": 1 / 3}, None)
    assert (job.parameters["epochs"], job.wait(timeout=0)) == (3, job)
    assert version(job.published[0]).lineage["run"] == job.id
    assert repr(job) == f"Job {job.id}: done, published {job.published[0]}"
    assert [e.kind for e in job.follow()][-1] == "state"  # all of it again


def test_who_waits_for_a_job_that_fails_hears_why(site: JobSite, warm: str | None) -> None:
    job = remote_of(site.port).train("bad", n=0)
    host = JobHost(site.queue, site.jobs.notebooks, executor=LocalExecutor(warm))
    with working(host), pytest.raises(RunError, match=r"is failed: in cell 3 of 3: ZeroDivision"):
        job.wait(60)
    assert "failed: in cell 3 of 3: ZeroDivisionError" in repr(job)


def test_a_job_is_listed_cancelled_and_waited_for_no_longer_than_said(site: JobSite) -> None:
    remote = remote_of(site.port)
    assert repr(remote.jobs()) == "no jobs yet"
    one, other = remote.train("long"), remote.train("long", n=2)
    assert [job.id for job in remote.jobs()] == [one.id, other.id]
    found = remote.jobs()["last"]
    with pytest.raises(TimeoutError, match=r"is queued still after 0.1 s: wait again, or cancel"):
        found.wait(0.1)
    found.cancel()
    assert (found.state, other.state, one.state) == ("cancelled", "cancelled", "queued")
    with pytest.raises(RunError, match="cancelled: Cancelled: cancelled while it waited"):
        other.wait()
    assert repr(remote.jobs()).count("\n") == 1


@pytest.mark.parametrize(
    ("ask", "kind", "reason"),
    [
        (lambda r: r.train("tin"), UnknownNameError, "unknown notebook 'tin': did you mean tiny"),
        (lambda r: r.train("tiny", epochs="2; hit()"), RequestError, "'epochs' got str"),
        (lambda r: r.train("tiny", epoch=2), UnknownNameError, "unknown parameter 'epoch'"),
        (lambda r: RemoteJob(r._wire, {"id": "x", "notebook": "", "state": "queued"}).state,
         UnknownNameError, "unknown job 'x'"),
    ],
)  # fmt: skip
def test_a_refusal_is_raised_with_the_services_reason(
    site: JobSite, ask: Callable[[RemoteService], Any], kind: type[Exception], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        ask(remote_of(site.port))
    with pytest.raises(RequestError, match="this needs the administrator's token"):
        ask(remote_of(site.port, TOKEN))


def test_the_cells_of_a_job_are_a_line_of_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    drawn = io.StringIO()
    monkeypatch.setattr("workbench.remote.jobs._SHOW_AFTER", 0.0)
    monkeypatch.setattr("workbench.remote.jobs._LOOK_EVERY", 0.01)
    monkeypatch.setattr(
        "workbench.remote.jobs.progress",
        lambda total, label, unit: tqdm(total=total, desc=label, file=drawn, mininterval=0),
    )
    cells = [None, {"number": 2, "of": 3, "heading": "Train"}, None]
    states = zip(("queued", "running", "done"), cells, strict=True)
    with listening(Telling([json_answer(standing(*state)) for state in states])) as port:
        RemoteJob(remote_of(port)._wire, standing("queued", None)).wait()
    assert "Train:  33%" in drawn.getvalue()
    assert "3/3" in drawn.getvalue()


# The wire.


def standing(state: str, cell: JSON | None = None) -> JSON:
    """Return what a service says of a job."""
    told: JSON = {"id": "j", "notebook": "n", "place": None, "published": [], "error": None}
    return {**told, "state": state, "cell": cell, "metrics": {}}


class Telling:
    """An application that gives one answer after the other, and keeps what it was asked."""

    def __init__(self, answers: list[Answer]) -> None:
        self._answers, self.asked = iter(answers), list[tuple[str, str | None]]()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        heard = dict(scope["headers"]).get(b"last-event-id", b"").decode() or None
        self.asked.append((f"{scope['method']} {scope['path']}", heard))
        await next(self._answers).send(send)


def stream(*events: Event) -> Answer:
    """Return a stream that ends after these."""
    return Answer(b"".join(event.encode() for event in events), media_type="text/event-stream")


def test_a_stream_that_breaks_off_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.remote.jobs._LOOK_EVERY", 0.01)
    app = Telling(
        [
            stream(Event(), Event(standing("running"), "1", "state")),
            stream(Event({"text": "a"}, "2", "log"), Event({"error": "busy"})),
            stream(),
            Refusal(503, "the ledger is busy").answer(),
            Answer(b"data: {cut\n\n", media_type="text/event-stream"),
            stream(Event(standing("done"), "3", "state"), Event({"text": "late"}, "4", "log")),
        ]
    )
    with listening(app) as port:
        heard = list(RemoteJob(remote_of(port)._wire, standing("queued")).follow())
    assert [event.id for event in heard] == ["1", "2", "3"]
    assert [last for _, last in app.asked] == [None, "1", "2", "2", "2", "2"]


def test_a_service_that_is_away_for_too_long_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.remote.jobs._LOOK_EVERY", 0.01)
    monkeypatch.setattr("workbench.remote.jobs._PATIENCE", 0.1)
    with listening() as port:
        job = RemoteJob(remote_of(port)._wire, standing("running"))
    with pytest.raises(ServiceError, match="does not answer"):
        list(job.follow())
    with pytest.raises(ServiceError, match="does not answer"):
        job.wait()


def test_a_job_whose_events_were_all_told_has_no_more() -> None:
    with listening(Telling([Answer(status=204)])) as port:
        assert list(RemoteJob(remote_of(port)._wire, standing("done")).follow()) == []


@pytest.mark.parametrize("status", [429, 503])
def test_only_what_changes_nothing_is_asked_again(status: int) -> None:
    busy = Refusal(status, "full", {"Retry-After": "0"}).answer()
    app = Telling([busy, busy, json_answer({"models": ["m"]}), busy, *[busy] * 4])
    error = RequestError if status == 429 else ServiceError
    with listening(app) as port:
        remote = remote_of(port)
        assert remote.models() == ["m"]
        with pytest.raises(error, match="full"):
            remote.predict([[1]])
        with pytest.raises(error, match="full"):
            remote.models()
    assert [asked for asked, _ in app.asked].count("POST /models/m/predict") == 1
    assert len(app.asked) == 3 + 1 + 4


def test_a_service_behind_a_proxy_is_asked_under_its_prefix() -> None:
    app = Telling([json_answer({"models": ["a b/c"]}), json_answer({"labels": 1})])
    with listening(app) as port:
        remote = remote_of(port, path="/hub/proxy/1/")
        remote.models()
        assert remote.feedback("id", 2.5) == 1
    assert app.asked[1][0] == "POST /hub/proxy/1/models/a b/c/feedback"
    assert repr(remote) == f"RemoteService at http://127.0.0.1:{port}/hub/proxy/1: a b/c"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (Answer(b"<html>", 404), "answered 404 without a reason: is a service of the workbench"),
        (Answer(b"<html>"), "answered 200 with what is no JSON"),
        (Answer(b"", 302), "answered 302 with what is no JSON"),
        (Answer(encode({"error": "the model raised"}), 500), "answered 500: the model raised"),
    ],
)
def test_what_is_no_service_or_fails_is_said(answer: Answer, reason: str) -> None:
    with listening(Telling([answer])) as port, pytest.raises(ServiceError, match=reason):
        connect(f"http://127.0.0.1:{port}", "t")


@pytest.mark.parametrize(
    ("url", "token", "reason"),
    [
        ("127.0.0.1:80", "t", "is no address of a service: expected one like 'http://127.0.0.1"),
        ("ftp://here", "t", "is no address"),
        ("http://", "t", "is no address"),
        ("http://127.0.0.1:1", "a\nb", "the token has letters that no header carries"),
    ],
)
def test_what_is_no_address_or_token_is_refused(url: str, token: str, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        connect(url, token)
