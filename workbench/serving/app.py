"""The HTTP application of a server: its routes, and every error as `{"error": "..."}`."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
import traceback
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import IO

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from workbench.errors import RequestError, ServiceError, TamperedError
from workbench.registry.ledgers import Ledger
from workbench.serving.access import AccessLog
from workbench.serving.answering import Answering, kept
from workbench.serving.answers import Answer, Events, Refusal, json_answer
from workbench.serving.batching import Batcher
from workbench.serving.challenging import Challenging
from workbench.serving.describing import (
    config,
    metadata,
    server_metadata,
    v1_metadata,
    v1_status,
)
from workbench.serving.fleets import Fleet
from workbench.serving.jobs import Jobs
from workbench.serving.monitoring import Monitor
from workbench.serving.openapi import NOT_OFFERED, openapi_document
from workbench.serving.orders import Orders
from workbench.serving.pages import asset, docs_page, home_page
from workbench.serving.repository import Repository
from workbench.serving.requests import Endpoint, Request, Route, Routes
from workbench.serving.security import Guard
from workbench.serving.served import Served
from workbench.serving.shelf import Counters, Shelf
from workbench.serving.tallies import Tally, statistics
from workbench.serving.watching import Watching
from workbench.types import JSON

__all__ = ["Application", "Stats"]

_log = logging.getLogger("workbench.serving")
_log.addHandler(logging.NullHandler())  # nothing prints into whichever cell runs


@dataclass(frozen=True)
class Stats:
    """What a service has counted since it started.

    Args:
        requests: that asked for an inference.
        errors: those of them that were answered with an error.
        mean_seconds: from the whole request to its answer, over those without one; None before any.
        rows: that the model answered.
        batches: that it was asked with.
        waiting: requests of the whole server that are in the line or being answered.
        refused: requests that were not taken, by status: 429 the line was full, 504 too late.
    """

    requests: int
    errors: int
    mean_seconds: float | None
    rows: int
    batches: int
    waiting: int
    refused: dict[int, int]


class Application:
    """Answers for the models of a shelf.

    Args:
        shelf: the models, which may change between two requests.
        batcher: whose thread they work in.
        token: what requests carry.
        admin_token: what those carry that load and unload models; None lets nobody.
        host: the address the server is bound to.
        allowed_hosts: names that it may be asked by besides, for proxies.
        monitor: writes its answers down.
        ledger: that it shares with other processes of the service; None where it is alone.
        orders: carries out what an administrator says; None for what loads versions as they are.
        jobs: notebooks that are run over the wire; None for none.
        access_log: a stream that gets a line of JSON for every request; None for none.
        alias: that a promotion moves, where none is named.
        follows: the alias whose version is the default, wherever it moves, `""` for the newest
            version; None where nothing is followed.
    """

    def __init__(  # noqa: PLR0913 - the parts of a service, each made elsewhere
        self,
        shelf: Shelf,
        batcher: Batcher,
        *,
        token: str,
        admin_token: str | None,
        host: str,
        allowed_hosts: Collection[str],
        monitor: Monitor,
        ledger: Ledger | None = None,
        orders: Orders | None = None,
        jobs: Jobs | None = None,
        access_log: IO[str] | None = None,
        alias: str = "champion",
        follows: str | None = None,
    ) -> None:
        self.shelf, self.batcher, self.monitor = shelf, batcher, monitor
        self.last_error: str | None = None  # the text alone: a traceback would keep the model
        self.fleet = Fleet(orders or Orders(shelf), self._counts, ledger=ledger)
        challenging = Challenging(shelf, batcher, monitor)
        answering = Answering(shelf, batcher, challenging, keep=self.keep)
        watching = Watching(shelf, monitor, self.fleet, alias=alias, follows=follows)
        repository = Repository(shelf, self.fleet, follows=follows)
        self._jobs = jobs
        more = [*watching.routes(), *(jobs.routes() if jobs else ())]
        self._routes = Routes([*self._table(answering, repository), *more])
        guard = Guard(
            self, token=token, admin_token=admin_token, host=host, allowed_hosts=allowed_hosts
        )
        self._log = None if access_log is None else AccessLog(guard, access_log)
        self.asgi: ASGIApp = self._log or guard

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request that the guard has let pass."""
        request = Request(scope, receive)
        scope["workbench.request"] = request
        try:
            answer = await self._answer(request)
        except ClientDisconnect:
            return  # nobody listens
        await answer.send(send, request.told)

    def stats(self, name: str) -> Stats:
        """Return what was counted of a name so far, by all processes of the service."""
        counts = self.fleet.counts()
        count = counts["names"].get(name) or Counters().counts()
        tallies = counts["models"].get(name, {}).values()
        return Stats(
            count["requests"],
            count["errors"],
            count["seconds"] / count["answered"] if count["answered"] else None,
            sum(tally["rows"] for tally in tallies),
            sum(tally["batches"] for tally in tallies),
            counts["line"]["waiting"],
            {int(status): number for status, number in count["refused"].items()},
        )

    def keep(self, error: BaseException, what: str) -> None:
        """Keep an error's traceback as `last_error`, and log it.

        Args:
            error: that nobody expected.
            what: failed, for instance `"request 4f"`.
        """
        _log.error("%s failed", what, exc_info=error)
        self.last_error = f"{what} failed\n{''.join(traceback.format_exception(error))}"

    def close(self) -> None:
        """End what would go on for as long as a job does; called in the event loop."""
        if self._jobs is not None:
            self._jobs.close()

    def close_log(self) -> None:
        """Write the last lines of the access log."""
        if self._log is not None:
            self._log.close()

    async def _answer(self, request: Request) -> Answer | Events:
        """Return the answer to a request, whatever its endpoint raises being told as one."""
        try:
            route, request.params = self._routes.find(
                request.scope["method"], request.scope["path"]
            )
            route.check(request)
        except Refusal as refusal:
            return refusal.answer()
        counters = self.shelf.counters.get(request.params.get("model", ""))
        if not route.counted or counters is None:
            return await self._told(route.endpoint, request)
        return await self._counted(route.endpoint, request, counters)

    async def _counted(
        self, endpoint: Endpoint, request: Request, count: Counters
    ) -> Answer | Events:
        """Return the endpoint's answer, its requests, errors and seconds counted."""
        started = time.perf_counter()
        count.requests += 1
        try:
            answer = await self._told(endpoint, request)
        except BaseException:
            count.errors += 1
            raise
        status = answer.status if isinstance(answer, Answer) else 200
        count.statuses[status] += 1
        if status >= 400:
            count.errors += 1
            if status in (429, 503, 504):
                count.refused[status] += 1
        else:
            count.answered += 1
            count.seconds += time.perf_counter() - started
        return answer

    async def _told(self, endpoint: Endpoint, request: Request) -> Answer | Events:
        try:
            return await endpoint(request)
        except Refusal as refusal:
            return refusal.answer()
        except RequestError as error:
            return Refusal(400, str(error)).answer()
        except (ServiceError, TamperedError) as error:  # a ledger that cannot be read, for instance
            return Refusal(503, str(error)).answer()
        except ClientDisconnect:
            raise
        except Exception as error:
            return Refusal(500, kept(error, self.keep)).answer()

    def _table(self, ask: Answering, repository: Repository) -> list[Route]:
        """Return the routes; a model's own exist for its default, a version and an alias."""
        get, post = "GET", "POST"
        routes = [
            Route(get, "/", self._home),
            Route(get, "/docs", self._docs),
            Route(get, "/openapi.json", self._openapi),
            Route(get, "/assets/{name}", _asset),
            Route(get, "/v2/health/live", _live),
            Route(get, "/v2/health/ready", self._ready),
            Route(get, "/v2", _server),
            Route(get, "/v2/", _server),
            Route(get, "/v2/models", self._names),
            Route(get, "/v2/models/stats", self._all_stats),
            Route(post, "/v2/repository/index", repository.index),
            Route(post, "/v2/repository/models/{model}/load", repository.load, admin=True),
            Route(post, "/v2/repository/models/{model}/unload", repository.unload, admin=True),
            Route(get, "/v1/models", self._names),
        ]
        for root in ("/v2/models/{model}", "/v2/models/{model}/versions/{version}"):
            routes += [
                Route(post, f"{root}/infer", ask.infer, counted=True),
                Route(post, f"{root}/generate", ask.generate, counted=True),
                Route(post, f"{root}/generate_stream", ask.generate_stream, counted=True),
                Route(get, root, self._metadata),
                Route(get, f"{root}/ready", self._model_ready),
                Route(get, f"{root}/config", self._config),
                Route(get, f"{root}/stats", self._stats),
            ]
        for place in ("", "/versions/{version}", "/labels/{version}"):
            root = f"/v1/models/{{model}}{place}"
            routes += [
                Route(post, f"{root}:predict", ask.predict_v1, counted=True),
                Route(get, f"{root}/metadata", self._v1_metadata),
                Route(get, root, self._v1_status),
            ]
        for root in ("/models/{model}", "/models/{model}/versions/{version}"):
            routes.append(Route(post, f"{root}/predict", ask.predict, counted=True))
        routes += [Route(method, path, _refuse) for path in NOT_OFFERED for method in (get, post)]
        return routes

    def _counts(self) -> JSON:
        """Return what this process has counted."""
        line = {
            "waiting": self.batcher.waiting,
            "oldest": self.batcher.oldest,
            "busy_seconds": self.batcher.busy_seconds,
            "dropped": self.monitor.dropped,
        }
        return {**self.shelf.counts(), "line": line}

    def _named(self, request: Request) -> Served:
        return self.shelf.find(request.params["model"], request.params.get("version"))

    async def _home(self, request: Request) -> Answer:
        accepted = request.header(b"accept")
        if accepted is not None and "text/html" not in accepted:
            return json_answer({"status": "alive"})  # what clients of V1 look for here
        return await asyncio.to_thread(home_page, list(self.shelf))

    async def _docs(self, request: Request) -> Answer:
        return await asyncio.to_thread(lambda: docs_page(self._document(request)))

    async def _openapi(self, request: Request) -> Answer:
        return json_answer(await asyncio.to_thread(self._document, request))

    def _document(self, request: Request) -> JSON:
        """Return what may be asked; of jobs, and what their notebooks take, whoever may."""
        jobs = None
        if self._jobs is not None and request.is_admin:
            with contextlib.suppress(Refusal):  # a notebook that cannot be read any more
                jobs = self._jobs.schemas()
        return openapi_document(list(self.shelf), jobs=jobs)

    async def _ready(self, request: Request) -> Answer:
        if not self.batcher.is_alive:
            raise Refusal(503, "the inference thread has ended: serve the models again")
        why = self._why_not_ready()
        if why is not None or not await self.fleet.is_proven():
            told = why or "starting: not each of its processes has answered yet"
            raise Refusal(503, f"the service is {told}", headers={"Retry-After": "1"})
        return json_answer({"live": True, "ready": True})

    def _why_not_ready(self) -> str | None:
        if self.batcher.is_draining:
            return "stopping"
        is_new = any(name not in self.shelf for name in self.shelf.loading)
        return "loading a model" if is_new else None

    async def _names(self, request: Request) -> Answer:
        return json_answer({"models": list(dict.fromkeys(served.name for served in self.shelf))})

    async def _metadata(self, request: Request) -> Answer:
        served = self._named(request)
        versions = [other.version for other in self.shelf.versions(served.name)]
        return json_answer(metadata(served, sorted(versions, key=int)))

    async def _model_ready(self, request: Request) -> Answer:
        return json_answer({"name": self._named(request).name, "ready": True})

    async def _config(self, request: Request) -> Answer:
        return json_answer(config(self._named(request)))

    async def _stats(self, request: Request) -> Answer:
        return await self.fleet.ask(self._statistics, [self._named(request)])

    async def _all_stats(self, request: Request) -> Answer:
        return await self.fleet.ask(self._statistics, list(self.shelf))

    def _statistics(self, models: Sequence[Served]) -> Answer:
        """Return what was counted of some models by all processes, in the protocol's words."""
        counted = self.fleet.counts()["models"]
        told = [
            statistics(
                served.name,
                served.version,
                counted.get(served.name, {}).get(served.version) or Tally().counts(),
            )
            for served in models
        ]
        return json_answer({"model_stats": told})

    async def _v1_status(self, request: Request) -> Answer:
        served = self._named(request)
        named = "version" in request.params
        models = [served] if named else self.shelf.versions(served.name)
        return json_answer(v1_status(served.name, models))

    async def _v1_metadata(self, request: Request) -> Answer:
        return json_answer(v1_metadata(self._named(request)))


async def _refuse(request: Request) -> Answer:
    raise Refusal(501, f"{request.scope['path']} is not offered: send the tensors in the request")


async def _live(request: Request) -> Answer:
    return json_answer({"live": True})


async def _server(request: Request) -> Answer:
    return json_answer(server_metadata())


async def _asset(request: Request) -> Answer:
    found = asset(request.params["name"])
    if found is None:
        raise Refusal(404, "there is no such file")
    return found
