"""The routes of jobs, asked over real sockets; real notebooks are run, and many are refused."""

from __future__ import annotations

import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from jobsites import ADMIN, TOKEN, JobSite, long_notebook, site_of, tiny_notebook, working
from listening import waits
from openapi_spec_validator import validate
from writing import write_notebook

from workbench.errors import RequestError
from workbench.registry import version
from workbench.runs import list_runs
from workbench.runs.executors import LocalExecutor
from workbench.runs.jobs import MAX_JOBS, JobQueue, listed_notebooks
from workbench.supervision.jobhost import JobHost

HERE = Path(__file__).parent


@pytest.fixture
def site(tmp_path: Path) -> Iterator[JobSite]:
    """Give a service whose notebooks nobody executes."""
    with site_of(tmp_path / "jobs.db", tiny_notebook(tmp_path), long_notebook(tmp_path)) as made:
        yield made


def test_a_notebook_is_run_from_its_schema_to_its_published_version(
    site: JobSite, warm: str | None
) -> None:
    _, told = site.ask("GET", "/jobs/notebooks")
    schemas = {entry["notebook"]: entry["parameters"] for entry in told["notebooks"]}
    jsonschema.validate({"epochs": 3}, schemas["tiny"])
    status, job = site.post("tiny", epochs=3, word="so it's")
    assert (status, job["state"], job["place"]) == (202, "queued", 1)
    host = JobHost(site.queue, site.jobs.notebooks, executor=LocalExecutor(warm))
    with site.follow(job["id"]) as events:
        heard = [next(events)]
        with working(host):
            heard += events
    last = heard[-1]["data"]
    assert (last["state"], last["error"], last["place"]) == ("done", None, None)
    assert last["metrics"] == {"loss": 1 / 3}
    assert last["parameters"] == {
        "epochs": 3, "word": "so it's", "seed": 0, "api_token": "(secret)",
    }  # fmt: skip
    assert version(last["published"][0]).lineage["run"] == job["id"]
    states = [e["data"]["state"] for e in heard if e["event"] == "state"]
    assert [states[0], states[-1]] == ["queued", "done"]
    losses = [(e["data"]["step"], e["data"]["value"]) for e in heard if e["event"] == "metric"]
    assert losses == [(0, 1.0), (1, 0.5), (2, 1 / 3)]
    said = "".join(e["data"]["text"] for e in heard if e["event"] == "log")
    assert said == "".join(f"epoch {n} is so it's\n" for n in range(3))
    assert site.ask("GET", f"/jobs/{job['id']}")[1] == last
    for place in (1, len(heard) // 2, len(heard) - 1):  # come again, it hears what it has not
        with site.follow(job["id"], heard[place - 1]["id"]) as events:
            assert rest(events) == rest(iter(heard[place:]))
    told = {"Last-Event-ID": heard[-1]["id"]}
    assert site.ask("GET", f"/jobs/{job['id']}/events", **told) == (204, None)


def rest(events: Iterator[Any]) -> list[Any]:
    """Return what events tell, but for states on the way, which are gone for who comes later."""
    every = [(event["event"], event["data"]) for event in events]
    return [e for e in every[:-1] if e[0] != "state"] + every[-1:]


@pytest.mark.parametrize(
    ("parameters", "reason"),
    [
        ({"epochs": "__import__('os').system('touch hit')"}, "parameter 'epochs' got str"),
        ({"epochs": {"__class__": "int"}}, "parameter 'epochs' got dict"),
        ({"epochs": 2.5}, "expected int"),
        ({"epochs": True}, "expected int"),
        ({"epochs": 10}, "1 <= epochs <= 9"),
        ({"word": ["touch hit"]}, "expected str"),
        ({"seed": "0; open('hit', 'w')"}, "expected int"),
        ({"epochs = 1\nopen('hit', 'w')\nx": 1}, "unknown parameter"),
        ({"api_token": "T0K3N"}, "set WORKBENCH_PARAMETER_API_TOKEN in the service's"),
        ([1], "parameters is no object"),
    ],
)
def test_what_is_not_of_its_type_is_refused_and_nothing_begins(
    site: JobSite, parameters: Any, reason: str
) -> None:
    status, told = site.ask("POST", "/jobs", {"notebook": "tiny", "parameters": parameters})
    assert status == 400
    assert reason in told["error"]
    assert "T0K3N" not in told["error"]
    assert site.ask("GET", "/jobs") == (200, {"jobs": []})
    assert list(list_runs()) == []


def test_to_json_there_is_one_number_one(site: JobSite) -> None:
    status, job = site.ask("POST", "/jobs", b'{"notebook": "tiny", "parameters": {"epochs": 1.0}}')
    assert (status, repr(job["parameters"]["epochs"])) == (202, "1")


def test_a_text_that_looks_like_code_is_a_text(site: JobSite, warm: str | None) -> None:
    code = "'); open('hit', 'w').close(); print(\"\\\n"
    _, job = site.post("tiny", word=code, epochs=1)
    with working(JobHost(site.queue, {"tiny"}, executor=LocalExecutor(warm))):
        assert waits(lambda: site.ask("GET", f"/jobs/{job['id']}")[1]["state"] == "done", 60)
    told = site.ask("GET", f"/jobs/{job['id']}")[1]
    assert told["parameters"]["word"] == code
    assert not list(HERE.parent.rglob("hit")) + list(Path(list_runs()[0].source).parent.glob("hit"))


@pytest.mark.parametrize(
    "name",
    [
        "other", "tiny.ipynb", "./tiny", "../tiny", "%74iny", "tiny%00", "TINY", "", "{}/other",
        "{}/tiny.ipynb", "file://{}/tiny.ipynb", "tiny\n", "long/../tiny", "..%2Ftiny", "x" * 9999,
    ],
)  # fmt: skip
def test_a_notebook_that_is_not_listed_is_not_found(
    site: JobSite, tmp_path: Path, name: str
) -> None:
    write_notebook(tmp_path / "other.ipynb", "1", parameters="epochs = 1")
    status, told = site.post(name.format(tmp_path))
    assert status == 404
    assert "There are: long, tiny. Only what `--jobs` lists can be run." in told["error"]
    assert len(told["error"]) < 300
    assert list(list_runs()) == []


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400), (b"[]", 400), (b"{", 400), (b'{"notebook": 1}', 400), (b"{}", 400),
        (b'{"notebook": "tiny", "path": "/etc/passwd"}', 400), (b"\xff", 400), (b"[" * 60_000, 400),
        (b'{"notebook": "tiny", "parameters": {"word": ' + b"[" * 9000, 400),
        (b'{"notebook": "tiny", "parameters": {"word": ' + b"[" * 900 + b"]" * 900 + b"}}", 400),
        (b'{"notebook": "tiny", "parameters": {"epochs": 1e999}}', 400),
        (b'{"notebook": "tiny", "parameters": {"epochs": ' + b"9" * 5000 + b"}}", 400),
        (b" " * 2**17, 413),
    ],
)  # fmt: skip
def test_a_malformed_request_is_refused(site: JobSite, body: bytes, status: int) -> None:
    found, told = site.ask("POST", "/jobs", body)
    assert (found, list(told)) == (status, ["error"])
    assert len(told["error"]) < 500


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/jobs"), ("POST", "/jobs"), ("GET", "/jobs/notebooks"), ("GET", "/jobs/x"),
        ("GET", "/jobs/x/events"), ("POST", "/jobs/x/cancel"),
    ],
)  # fmt: skip
def test_every_route_needs_the_administrator(site: JobSite, method: str, path: str) -> None:
    assert site.ask(method, path, token="wrong" * 8)[0] == 401
    status, told = site.ask(method, path, token=TOKEN)
    assert status == 403
    assert told["error"].startswith("this needs the administrator's token: start the service")


@pytest.mark.parametrize(
    "path", ["x", "..", "%2e%2e", "%2e%2e%2fruns", "x%27%20OR%20%271%27=%271", "x/events", "%00"]
)
def test_a_job_that_is_not_there_is_not_found(site: JobSite, path: str) -> None:
    site.post("long")
    status, told = site.ask("GET", f"/jobs/{path}")
    assert status == 404
    assert "unknown job" in told["error"] or "there is no GET /jobs/../runs" in told["error"]


@pytest.mark.parametrize("last", ["x", "0-0-0-0", "0-0-0-0-0-0", "0-0-0-0--1", "1-9-9-9-9", "٣"])
def test_who_comes_with_an_id_that_is_none_hears_everything(site: JobSite, last: str) -> None:
    _, job = site.post("long")
    _, told = site.ask("POST", f"/jobs/{job['id']}/cancel")
    with site.follow(job["id"], last.encode().decode("latin-1")) as events:
        assert [event["data"] for event in events] == [told]


def test_the_queue_is_bounded_however_many_ask_at_once(site: JobSite, tmp_path: Path) -> None:
    for _ in range(MAX_JOBS - 1):
        assert site.post("long")[0] == 202
    with (
        site_of(tmp_path / "jobs.db", tmp_path / "long.ipynb") as worker,  # another one of it
        ThreadPoolExecutor(8) as pool,
    ):
        asked = list(pool.map(lambda who: who.post("long"), [site, worker] * 4))
    assert sorted(status for status, _ in asked) == [202] + 7 * [429]
    assert {told["error"] for status, told in asked if status == 429} == {
        "16 jobs wait already: try again when one is over"
    }
    assert len(list_runs()) == MAX_JOBS  # nothing is left of those that were refused
    places = [job["place"] for job in site.ask("GET", "/jobs")[1]["jobs"]]
    assert places == list(range(MAX_JOBS, 0, -1))


def test_a_job_that_waits_is_cancelled_and_leaves_its_place(site: JobSite) -> None:
    ids = [site.post("long")[1]["id"] for _ in range(3)]
    status, told = site.ask("POST", f"/jobs/{ids[0]}/cancel")
    assert (status, told["state"], told["place"]) == (200, "cancelled", None)
    assert told["error"] == "Cancelled: cancelled while it waited"
    assert list_runs()[ids[0]].state == "interrupted"
    assert site.ask("GET", f"/jobs/{ids[1]}")[1]["place"] == 1
    assert site.ask("POST", f"/jobs/{ids[0]}/cancel") == (200, told)  # a second time is the same
    with site.follow(ids[0]) as events:
        assert [event["data"] for event in events] == [told]


def test_a_job_that_runs_is_cancelled_while_its_stream_is_open(
    site: JobSite, tmp_path: Path, warm: str | None
) -> None:
    _, job = site.post("long")
    _, after = site.post("long")
    host = JobHost(site.queue, {"long"}, executor=LocalExecutor(warm))
    with working(host), site.follow(job["id"]) as events:
        assert waits((tmp_path / "begun.txt").exists, 60)
        assert site.ask("GET", f"/jobs/{after['id']}")[1]["place"] == 1  # one at a time
        told = site.ask("POST", f"/jobs/{job['id']}/cancel")[1]
        assert (told["state"], told["cancelling"]) == ("running", True)
        site.ask("POST", f"/jobs/{after['id']}/cancel")
        heard = list(events)
    last = heard[-1]["data"]
    assert (last["state"], last["cancelling"]) == ("cancelled", False)
    assert last["cell"] == {"number": 2, "of": 2, "heading": None}
    assert last["error"].startswith("in cell 2 of 2: KeyboardInterrupt")
    assert {"cell": 2, "text": "under way\n"} in [event["data"] for event in heard]
    assert list_runs()[job["id"]].state == "interrupted"


def test_a_cell_that_raises_fails_its_job_and_the_next_one_begins(
    tmp_path: Path, warm: str | None
) -> None:
    bad = write_notebook(tmp_path / "bad.ipynb", "# Sum", "1 / n", parameters="n: int = 0")
    with site_of(tmp_path / "jobs.db", bad) as site:
        ids = [site.post("bad", n=n)[1]["id"] for n in (0, 1)]
        with working(JobHost(site.queue, {"bad"}, executor=LocalExecutor(warm))):
            assert waits(lambda: site.ask("GET", f"/jobs/{ids[1]}")[1]["state"] == "done", 60)
        told = site.ask("GET", f"/jobs/{ids[0]}")[1]
    assert (told["state"], told["cell"]["heading"]) == ("failed", "Sum")
    assert told["error"] == "in cell 3 of 3: ZeroDivisionError: division by zero"


def test_a_stream_ends_when_the_service_stops_and_its_client_leaves_nothing(site: JobSite) -> None:
    _, job = site.post("long")
    with site.follow(job["id"]) as events:
        assert next(events)["data"]["state"] == "queued"
        assert site.jobs._streams == 1
    assert waits(lambda: site.jobs._streams == 0)
    with site.follow(job["id"]) as events:
        next(events)
        site.jobs.close()
        assert list(events) == []


def test_a_head_of_a_stream_comes_back_at_once(site: JobSite) -> None:
    _, job = site.post("long")
    assert site.ask("HEAD", f"/jobs/{job['id']}/events") == (200, None)


def test_a_ledger_that_another_process_holds_is_told_and_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.registry.tables._SECONDS", 0.05)
    with site_of(tmp_path / "jobs.db", long_notebook(tmp_path)) as site:
        assert site.post("long")[0] == 202
        with closing(sqlite3.connect(tmp_path / "jobs.db", isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            status, told = site.post("long")
            assert (status, "cannot be written or read just now" in told["error"]) == (503, True)
            assert len(list_runs()) == 1  # no folder is left that nobody would begin
            JobHost(site.queue, {"long"}).tick()  # nothing begins, and nothing is raised
            assert site.ask("GET", "/jobs")[1]["jobs"][0]["state"] == "queued"
        assert site.post("long")[0] == 202


def test_a_notebook_that_is_gone_is_the_services_trouble(site: JobSite, tmp_path: Path) -> None:
    (tmp_path / "tiny.ipynb").unlink()
    for status, told in (site.post("tiny"), site.ask("GET", "/jobs/notebooks")):
        assert status == 503
        assert told["error"] == "notebook tiny cannot be read: see the service's log"


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (["gone.ipynb"], "no notebook"),
        (["tiny.ipynb", "deeper/tiny.ipynb"], "are both asked for as 'tiny': rename one"),
        (["wrong.ipynb"], "is not Python"),
    ],
)
def test_notebooks_that_cannot_be_listed_are_refused_before_a_service_begins(
    tmp_path: Path, names: list[str], reason: str
) -> None:
    tiny_notebook(tmp_path)
    tiny_notebook(tmp_path / "deeper")
    write_notebook(tmp_path / "wrong.ipynb", parameters="n = = 1")
    with pytest.raises(RequestError, match=reason):
        listed_notebooks(tmp_path / name for name in names)


CONFIGURATION = """\
[checks] # of an id no schema says that there is such a job; and the queue may be full
positive_data_acceptance.expected-statuses = ["2xx", "404", "429"]
"""


@contextmanager
def emptied(queue: JobQueue) -> Iterator[None]:
    """Let no job wait for long, so that there is room and streams come to their ends."""
    over = threading.Event()

    def empty() -> None:
        while not over.wait(0.02):
            for job in queue.jobs(last=MAX_JOBS):
                queue.cancel(job.id)

    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(empty)
        try:
            yield
        finally:
            over.set()
        done.result()


def fuzz(site: JobSite, folder: Path, *options: str) -> int:
    """Let schemathesis look for an answer that the document does not tell of; count requests."""
    configuration = folder / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    program = [sys.executable, "-m", "schemathesis.cli", f"--config-file={configuration}", "run"]
    asked = [
        f"http://127.0.0.1:{site.port}/openapi.json", f"--header=Authorization: Bearer {ADMIN}",
        "--continue-on-failure", "--seed=1", "--phases=examples,coverage,fuzzing,stateful",
    ]  # fmt: skip
    with emptied(site.queue):
        done = subprocess.run(
            [*program, *asked, *options], cwd=folder, capture_output=True, text=True, check=False
        )
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    found = re.search(r"(\d+) generated", done.stdout)
    assert found
    return int(found[1])


def test_the_routes_are_told_whole(site: JobSite) -> None:
    _, document = site.ask("GET", "/openapi.json")
    validate(document)
    told = {(m.upper(), path) for path, methods in document["paths"].items() for m in methods}
    assert told == {(route.method, route.path) for route in site.jobs.routes()}


def test_the_routes_do_what_the_document_says(site: JobSite, tmp_path: Path) -> None:
    assert fuzz(site, tmp_path, "--max-examples=5") > 100


@pytest.mark.full
def test_the_routes_do_what_the_document_says_for_long(site: JobSite, tmp_path: Path) -> None:
    assert fuzz(site, tmp_path, "--max-examples=150") > 2000
