"""Notebooks to be run over the wire, and a service that has nothing but jobs."""

from __future__ import annotations

import asyncio
import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from listening import listening
from starlette.types import Receive, Scope, Send
from writing import write_notebook

from workbench.errors import RequestError, ServiceError
from workbench.runs.jobs import JobQueue, listed_notebooks
from workbench.serving.answers import Answer, Events, Refusal, json_answer
from workbench.serving.jobpaths import job_paths
from workbench.serving.jobs import Jobs
from workbench.serving.openapi import openapi_document
from workbench.serving.requests import Request, Route, Routes
from workbench.serving.security import Guard
from workbench.supervision.jobhost import JobHost
from workbench.types import JSON

__all__ = ["ADMIN", "TOKEN", "JobSite", "long_notebook", "site_of", "tiny_notebook", "working"]

TOKEN, ADMIN = "t" * 32, "a" * 32
PARAMETERS = """\
epochs: int = 2  # how often; 1 <= epochs <= 9
word: str = "calm"
seed = 0
api_token: str | None = None
"""
TINY = """\
import workbench as wb
for epoch in range(epochs):
    print(f"epoch {epoch} is {word}")
    wb.record("loss", 1 / (epoch + 1), step=epoch)
"""
PUBLISH = """\
import torch
model = torch.nn.Linear(2, 1)
wb.publish(model, "tiny", example=torch.zeros(1, 2)).ref
"""
LONG = """\
import pathlib, time
open("begun.txt", "a").write("x")
print("under way", flush=True)
while not pathlib.Path("go.txt").exists():
    time.sleep(0.02)
"""


def tiny_notebook(folder: Path) -> Path:
    """Write a notebook with typed parameters, which records, prints and publishes."""
    return write_notebook(
        folder / "tiny.ipynb", "# Count", TINY, "# Publish", PUBLISH, parameters=PARAMETERS
    )


def long_notebook(folder: Path) -> Path:
    """Write a notebook that says `begun.txt`, and goes on until `go.txt` is beside it."""
    return write_notebook(folder / "long.ipynb", LONG, parameters="n: int = 1")


@contextmanager
def working(host: JobHost) -> Iterator[None]:
    """Let a host execute what waits, in a thread."""
    over = threading.Event()

    def work() -> None:
        while not over.wait(0.02):
            host.tick()

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(20)
        host.close()


class _App:
    """Answers for jobs alone, its errors told as the whole application tells them."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs
        self._routes = Routes([*jobs.routes(), Route("GET", "/openapi.json", self._document)])

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await (await self._answer(Request(scope, receive))).send(send)

    async def _answer(self, request: Request) -> Answer | Events:
        try:
            scope = request.scope
            route, request.params = self._routes.find(scope["method"], scope["path"])
            route.check(request)
            return await route.endpoint(request)
        except Refusal as refusal:
            return refusal.answer()
        except RequestError as error:
            return Refusal(400, str(error)).answer()
        except ServiceError as error:
            return Refusal(503, str(error)).answer()

    async def _document(self, request: Request) -> Answer:
        schemas = await asyncio.to_thread(self._jobs.schemas)
        return json_answer({**openapi_document([]), "paths": job_paths(schemas)})


class JobSite:
    """A service of jobs, and what asks it.

    Args:
        port: of this machine.
        jobs: its endpoints.
        queue: its jobs.
    """

    def __init__(self, port: int, jobs: Jobs, queue: JobQueue) -> None:
        self.port, self.jobs, self.queue = port, jobs, queue

    def ask(
        self, method: str, path: str, body: Any = None, *, token: str = ADMIN, **headers: str
    ) -> tuple[int, Any]:
        """Return the status and the JSON of an answer; bytes are sent as they are."""
        sent = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=20)) as line:
            line.request(method, path, sent, {"Authorization": f"Bearer {token}", **headers})
            answer = line.getresponse()
            said = answer.read()
            return answer.status, json.loads(said) if said else None

    def post(self, notebook: Any, **parameters: Any) -> tuple[int, Any]:
        """Ask for a run."""
        return self.ask("POST", "/jobs", {"notebook": notebook, "parameters": parameters})

    @contextmanager
    def follow(self, identity: str, last: str | None = None) -> Iterator[Iterator[JSON]]:
        """Give the events of a job, each with its kind, its id and its data."""
        headers = {"Authorization": f"Bearer {ADMIN}", **({"Last-Event-ID": last} if last else {})}
        with closing(http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)) as line:
            line.request("GET", f"/jobs/{identity}/events", headers=headers)
            answer = line.getresponse()
            assert answer.status == 200, answer.read()
            assert answer.headers["content-type"] == "text/event-stream"
            yield _events(answer)


def _events(answer: http.client.HTTPResponse) -> Iterator[JSON]:
    event: dict[str, str] = {}
    for raw in answer:
        line = raw.decode().rstrip("\n")
        if line:
            field, _, value = line.partition(": ")
            event[field] = value
        elif "data" in event:
            yield {**event, "data": json.loads(event["data"])}
            event = {}
        else:
            event = {}


@contextmanager
def site_of(path: Path, *notebooks: Path) -> Iterator[JobSite]:
    """Serve the jobs of notebooks, which lie in the ledger at `path`; nothing executes them."""
    queue = JobQueue(path)
    jobs = Jobs(queue, listed_notebooks(notebooks))
    guard = Guard(_App(jobs), token=TOKEN, admin_token=ADMIN, host="127.0.0.1")
    with listening(guard) as port:
        try:
            yield JobSite(port, jobs, queue)
        finally:
            jobs.close()
    queue.close()
