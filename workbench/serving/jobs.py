"""The endpoints of jobs: notebooks that were listed when the service began, run over the wire.

All of them want the administrator's token (403 without it). Nothing is executed that was not
listed: a name is looked up in that list and never opened, a value is checked by the type of its
parameter and written as the literal that it is.

`GET /jobs/notebooks` answers the list, `parameters` being a JSON Schema (draft 2020-12):

    {"notebooks": [{"notebook": "05_cifar10_cnn", "parameters": {"type": "object", …}}]}

`POST /jobs` takes `{"notebook": "05_cifar10_cnn", "parameters": {"epochs": 2}}`, the parameters
being optional, and answers 202 with the job; 400 for a parameter that is none, or not of its type,
404 for a notebook that is not listed, 429 with Retry-After while the queue is full.

`GET /jobs` answers `{"jobs": […]}`, the last 100, the newest first. `GET /jobs/{id}` answers one,
404 where there is none. `POST /jobs/{id}/cancel` (no body needed) answers it too: cancelled, or
with `cancelling` true until its run has ended; of one that is over, as it is.

A job is

    {"id": "20260101-120000-05_cifar10_cnn-1f3a",   of its run too
     "notebook": "05_cifar10_cnn",
     "parameters": {"epochs": 2, "seed": 0},        all of the notebook's, with their values
     "state": "running",       queued, running; over: done, failed, interrupted, killed, timed out,
                               cancelled
     "place": null,            in the queue, from 1 on; null unless queued
     "cancelling": false,      whether it runs still, and was asked to end
     "cell": {"number": 3, "of": 7, "heading": "Train"},   that runs or ended it; or null
     "attempts": 0,            at its run before this one
     "queued": "2026-…", "started": "2026-…" | null, "ended": null,   ISO 8601, UTC
     "seconds": null,          that its last attempt took; null before its end
     "metrics": {"accuracy": 0.5},                  the last value of each
     "published": ["cifar10-cnn@4"],
     "error": null}            why it did not end well, a text

`GET /jobs/{id}/events` streams server-sent events until the job is over, each with an `id:`; a
client that comes again with it as `Last-Event-ID` hears what it has not, from any worker. Kinds
(`event:`) and their data:

    state     the job, when its state, place or cell has changed; the last event is such a one
    metric    {"name": "loss", "value": 0.3, "time": "2026-…", "step": 10, …}   as it was recorded
    log       {"cell": 3, "text": "epoch 1\\n"}      what a cell has printed, whole lines

and, without a name, `{"error": "…"}` as the last where the stream cannot go on. Comments (`:`) keep
it open. The stream may end before the job, when the service stops. Who comes with the id of the
very last event is answered 204; who comes with an id that is none hears everything.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import shutil
from collections.abc import AsyncIterator, Mapping
from pathlib import Path
from typing import Any

from workbench.errors import RequestError, ServiceError, TamperedError, UnknownNameError
from workbench.home import read_json as from_file
from workbench.runs.jobs import MAX_JOBS, OVER, Job, JobQueue, withdraw
from workbench.runs.notebooks import read_notebook
from workbench.runs.parameters import Parameter, bind, declared, schema
from workbench.runs.queueing import queue, secret_variable
from workbench.runs.records import Run
from workbench.serving.answers import Answer, Event, Events, Refusal, encode, json_answer
from workbench.serving.jobevents import Moment, mark_of, news
from workbench.serving.requests import Endpoint, Request, Route
from workbench.serving.tensors import read_json
from workbench.types import JSON

__all__ = ["Jobs"]

_MAX_BODY = 64 * 2**10  # bytes
_LISTED = 100  # jobs
_STREAMS = 64  # that may be open at once
_LOOK_EVERY = 0.25  # seconds between two looks of a stream
_QUIET = 60  # looks without news, after which a comment keeps the connection open
_LONGEST = 2000  # characters of what was raised
_SOON = {"Retry-After": "10"}

_log = logging.getLogger("workbench.serving")
_Parameters = Mapping[str, Parameter] | None


class Jobs:
    """Answers for the jobs of a service.

    Args:
        jobs: that wait, run, and are over.
        notebooks: that may be run, by the names that they are asked for by.
    """

    def __init__(self, jobs: JobQueue, notebooks: Mapping[str, Path]) -> None:
        self._queue, self.notebooks = jobs, dict(notebooks)
        self._making = asyncio.Lock()  # one at a time: it is work for a thread of a shared pool
        self._closing = asyncio.Event()
        self._streams = 0

    def routes(self) -> list[Route]:
        """Return the routes of jobs."""
        table: list[tuple[str, str, Endpoint]] = [
            ("GET", "/jobs/notebooks", self.list_notebooks),
            ("POST", "/jobs", self.start),
            ("GET", "/jobs", self.list_jobs),
            ("GET", "/jobs/{id}", self.show),
            ("GET", "/jobs/{id}/events", self.follow),
            ("POST", "/jobs/{id}/cancel", self.cancel),
        ]
        return [Route(method, path, endpoint, admin=True) for method, path, endpoint in table]

    def close(self) -> None:
        """End the streams, since the service stops; from the loop's own thread."""
        self._closing.set()

    def schemas(self) -> dict[str, JSON]:
        """Return the JSON Schema of each notebook's parameters by its name, secrets left out.

        Raises:
            Refusal: 503, a notebook cannot be read any more.
        """
        found = {}
        for name, path in self.notebooks.items():
            known = _declared(name, path) or {}
            open_ = {n: parameter for n, parameter in known.items() if not parameter.is_secret}
            found[name] = schema(open_, name)
        return found

    async def list_notebooks(self, request: Request) -> Answer:
        """Say which notebooks may be run, and what parameters they take."""
        found = await asyncio.to_thread(self.schemas)
        told = [{"notebook": name, "parameters": schema} for name, schema in found.items()]
        return json_answer({"notebooks": told})

    async def start(self, request: Request) -> Answer:
        """Let a notebook wait for its turn."""
        name, parameters = _read(await request.body(most=_MAX_BODY))
        path = self.notebooks.get(name)
        if path is None:
            reason = str(UnknownNameError("notebook", name[:80], self.notebooks))
            raise Refusal(404, f"{reason} Only what `--jobs` lists can be run.")
        async with self._making:
            told = await asyncio.to_thread(self._make, name, path, parameters)
        return Answer(encode(told), 202)

    async def list_jobs(self, request: Request) -> Answer:
        """Say how the last jobs stand."""
        return json_answer({"jobs": await asyncio.to_thread(self._all)})

    async def show(self, request: Request) -> Answer:
        """Say how a job stands."""
        return json_answer(await asyncio.to_thread(self._told, request.params["id"]))

    async def cancel(self, request: Request) -> Answer:
        """Let a job not begin, or end."""
        return json_answer(await asyncio.to_thread(self._cancel, request.params["id"]))

    async def follow(self, request: Request) -> Answer | Events:
        """Tell what happens in a job as it does."""
        identity = request.params["id"]
        heard = request.header(b"last-event-id")
        since = Moment.parse(heard)
        events, _, is_over = await asyncio.to_thread(self._news, identity, since)
        if is_over and not events:
            return Answer(status=204)  # by which an EventSource knows not to come again
        if request.scope["method"] == "HEAD":
            return Answer(media_type="text/event-stream")
        if self._streams >= _STREAMS:
            raise Refusal(429, f"{_STREAMS} streams are open already: try again later", _SOON)
        return Events(self._parts(identity, since, request))

    async def _parts(
        self, identity: str, since: Moment, request: Request
    ) -> AsyncIterator[Event | JSON]:
        """Yield what is new of a job until it is over, the client leaves, or the service stops."""
        gone = asyncio.Event()
        if request.connection is not None:
            request.connection.when_gone(gone.set)
        self._streams, quiet = self._streams + 1, 0
        try:
            while not gone.is_set() and not self._closing.is_set():
                events, since, is_over = await asyncio.to_thread(self._news, identity, since)
                for event in events:
                    yield event
                if is_over:
                    return
                quiet = 0 if events else quiet + 1
                if quiet and quiet % _QUIET == 0:
                    yield Event()
                if not events:
                    await asyncio.sleep(_LOOK_EVERY)
        except (Refusal, ServiceError) as error:  # the job is forgotten, or the ledger busy
            yield {"error": str(error)}
        except Exception:
            _log.exception("the events of job %s cannot go on", identity)
            yield {"error": "the stream cannot go on: ask again with the id of its last event"}
        finally:
            self._streams -= 1

    def _news(self, identity: str, since: Moment) -> tuple[list[Event], Moment, bool]:
        """Return what is new, the moment after it, and whether that was the last."""
        job = self._find(identity)
        told = self._say(job, is_whole=False)
        events, after = news(told, job.folder, since)
        return events, after, job.state in OVER and after.mark == mark_of(told)

    def _make(self, name: str, path: Path, parameters: JSON) -> JSON:
        """Return a job that waits from now on, its folder made.

        Raises:
            Refusal: 429 the queue is full, 503 the notebook cannot be read or no folder be made.
            RequestError: a parameter is none, or its value not of its type.
        """
        if self._queue.waiting() >= MAX_JOBS:
            raise _full()
        given = _checked(_declared(name, path), parameters)
        try:
            run = queue(path, given)
        except (RequestError, OSError) as error:  # a full disk, or a notebook changed just now
            _log.error("no run of %s can be made: %s", name, error)
            raise Refusal(503, "no folder of a run can be made: see the service's log") from None
        is_taken = False
        try:
            is_taken = self._queue.add(run.id, name)
        finally:  # nobody would ever begin it
            if not is_taken:
                shutil.rmtree(run.folder, ignore_errors=True)
        if not is_taken:
            raise _full()
        return self._told(run.id)

    def _cancel(self, identity: str) -> JSON:
        job = self._find(identity)
        job = self._queue.cancel(job.id)
        if job.state == "cancelled":
            withdraw(job.folder)
        return self._say(job)

    def _all(self) -> list[JSON]:
        return [self._say(job) for job in self._queue.jobs(last=_LISTED)]

    def _told(self, identity: str) -> JSON:
        return self._say(self._find(identity))

    def _find(self, identity: str) -> Job:
        try:
            return self._queue.find(identity)
        except UnknownNameError as error:
            raise Refusal(404, str(error)) from None

    def _say(self, job: Job, *, is_whole: bool = True) -> JSON:
        """Return what there is to say of a job.

        Args:
            job: as it stands.
            is_whole: whether metrics so far are told of one that runs, which takes longer.
        """
        record = _record(job.folder, is_whole=is_whole or job.state in OVER)
        return {
            "id": job.id,
            "notebook": job.notebook,
            "parameters": record.get("parameters", {}),
            "state": job.state,
            "place": self._queue.place(job),
            "cancelling": job.is_cancelled and job.state == "running",
            "cell": _cell(record),
            "attempts": len(record.get("attempts", ())),
            **{key: record.get(key) for key in ("queued", "started", "ended", "seconds")},
            "metrics": record.get("metrics", {}),
            "published": record.get("published", []),
            "error": job.error or _error(record),
        }


def _read(body: bytes) -> tuple[str, JSON]:
    """Return the name and the parameters that a body asks for.

    Raises:
        RequestError: it is something else.
    """
    told = read_json(body, dict)
    for key in told.keys() - {"notebook", "parameters"}:
        raise RequestError(f"a job has no {key!r:.80}: expected notebook, and maybe parameters")
    name, parameters = told.get("notebook"), told.get("parameters", {})
    if not isinstance(name, str):
        raise RequestError('notebook is no text: expected {"notebook": "its name"}')
    if not isinstance(parameters, dict):
        raise RequestError("parameters is no object: expected values by their names")
    return name, parameters


def _declared(name: str, path: Path) -> _Parameters:
    try:
        return declared(read_notebook(path))
    except (RequestError, OSError) as error:
        _log.error("notebook %s cannot be read: %s", name, error)
        raise Refusal(503, f"notebook {name} cannot be read: see the service's log") from None


def _checked(known: _Parameters, given: JSON) -> JSON:
    """Return the values of parameters, each of its type.

    Raises:
        RequestError: a parameter is none, is a secret, or its value is of another type.
    """
    taken = {}
    for name, value in given.items():
        parameter = (known or {}).get(name)
        if known is not None and parameter is None:
            raise UnknownNameError("parameter", name[:80], known)
        if parameter is not None and parameter.is_secret:
            raise RequestError(
                f"parameter {name!r} is a secret, which would lie in a queue until its run begins: "
                f"set {secret_variable(name)} in the service's environment instead"
            )
        as_it_came = parameter is None or parameter.kind.takes(value)
        taken[name] = value if as_it_came else _whole(value)
    bind(known, taken)
    return taken


def _whole(value: Any) -> Any:
    """Return a value with 1 for each 1.0 in it, which to JSON are the same number."""
    with contextlib.suppress(RecursionError):  # so deep is no parameter
        if isinstance(value, list):
            return [_whole(item) for item in value]
        if isinstance(value, dict):
            return {name: _whole(item) for name, item in value.items()}
        if isinstance(value, float) and value.is_integer():
            return int(value)
    return value


def _full() -> Refusal:
    return Refusal(429, f"{MAX_JOBS} jobs wait already: try again when one is over", _SOON)


def _record(folder: Path, *, is_whole: bool) -> JSON:
    """Return the record of a run; an empty one where it cannot be read."""
    try:
        record: JSON = Run.read(folder).record if is_whole else from_file(folder / "run.json")
    except (RequestError, TamperedError, OSError, ValueError):
        return {}
    return record


def _cell(record: JSON) -> JSON | None:
    """Return the cell of a record that runs, or that ended the run."""
    cells = record.get("cells", [])
    for number, cell in enumerate(cells, 1):
        if cell["state"] not in ("pending", "done", "skipped"):
            return {"number": number, "of": len(cells), "heading": cell["heading"]}
    return None


def _error(record: JSON) -> str | None:
    """Return in one text why a run did not end well, without the traceback."""
    told = record.get("error")
    if not told:
        return None
    where = f"in cell {told['cell']} of {len(record['cells'])}: " if "cell" in told else ""
    return f"{where}{told['name']}: {told['value'][:_LONGEST]}"
