"""The HTTP application of one service: its routes, and every error as `{"error": "..."}`.

The V2 routes are those of the Open Inference Protocol; V1 has `:predict` by rows. A prediction is
the list of a row's outputs, the same numbers as V2's `output`.
"""

from __future__ import annotations

import functools
import logging
import secrets
import time
import traceback
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass

import torch
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from torch import Tensor

import workbench
from workbench.errors import RequestError
from workbench.serving.batching import FullError, InferenceThread
from workbench.serving.protocol import (
    EXTENSIONS,
    HEADER,
    encode,
    read_infer,
    read_instances,
    write_answer,
    write_predictions,
)
from workbench.serving.security import Guard
from workbench.serving.served import Served
from workbench.types import JSON

__all__ = ["MAX_BODY", "Application", "Stats"]

MAX_BODY = 64 * 2**20  # bytes
_RETRY_AFTER = "1"  # second; a line of requests moves on faster than that

_log = logging.getLogger("workbench.serving")
_log.addHandler(logging.NullHandler())  # nothing prints into whichever cell runs

_Endpoint = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Stats:
    """What a service has counted since it started.

    Args:
        requests: that asked for an inference.
        errors: those of them that were answered with an error.
        mean_seconds: from the whole request to its answer, over those without one; None before any.
    """

    requests: int
    errors: int
    mean_seconds: float | None


@dataclass
class _Counters:
    requests: int = 0
    errors: int = 0
    answered: int = 0
    seconds: float = 0.0


class Application:
    """Answers for one model, which can be swapped between two requests.

    Args:
        served: what answers.
        token: what requests carry.
        host: the address the service is bound to.
    """

    def __init__(self, served: Served, *, token: str, host: str) -> None:
        self.served = served  # each request reads it once, so a swap never shows half
        self._thread = InferenceThread()
        self._counters = _Counters()
        self.last_error: str | None = None  # the text alone: a traceback would keep the model
        self.asgi = Guard(self._routes(), token=token, host=host)

    def stats(self) -> Stats:
        """Return what was counted so far."""
        count = self._counters
        mean = count.seconds / count.answered if count.answered else None
        return Stats(count.requests, count.errors, mean)

    def keep(self, error: BaseException, what: str) -> None:
        """Keep an error's traceback as `last_error`, and log it.

        Args:
            error: that nobody expected.
            what: failed, for instance `"request 4f"`.
        """
        _log.error("%s failed", what, exc_info=error)
        self.last_error = f"{what} failed\n{''.join(traceback.format_exception(error))}"

    def close(self) -> None:
        """Let the inference thread end."""
        self._thread.close()

    def _routes(self) -> Starlette:
        model = "/v2/models/{model}"
        routes: list[tuple[str, str, _Endpoint]] = [
            ("GET", "/v2/health/live", _health),
            ("GET", "/v2/health/ready", _health),
            ("GET", "/v2", _server),
            ("GET", "/v2/", _server),
            ("POST", "/v1/models/{model}:predict", self._counted(self._predict)),
        ]
        for root in (model, f"{model}/versions/{{version}}"):
            routes += [
                ("GET", root, self._metadata),
                ("GET", f"{root}/ready", self._ready),
                ("POST", f"{root}/infer", self._counted(self._infer)),
            ]
        app = Starlette(
            routes=[Route(path, self._told(end), methods=[method]) for method, path, end in routes],
            exception_handlers={HTTPException: _refused},
        )
        app.router.redirect_slashes = False  # clients of the protocol follow no redirect
        return app

    async def _metadata(self, request: Request) -> Response:
        served = self._named(request)
        classes = list(served.preprocessing.classes)
        return _json(
            {
                "name": served.name,
                "versions": [served.version],
                "platform": "pytorch",
                **served.signature.to_json(),
                **({"classes": classes} if classes else {}),  # a regression has none
            }
        )

    async def _ready(self, request: Request) -> Response:
        return _json({"name": self._named(request).name, "ready": True})

    async def _infer(self, request: Request) -> Response:
        served = self._named(request)
        body = await _body(request)
        asked = read_infer(body, request.headers.get(HEADER), served.signature)
        (array,) = asked.inputs.values()
        # A copy: the bytes of a body are read-only, and may not lie as torch wants them.
        output = await self._answer(served, torch.from_numpy(array.copy()))
        outputs = {served.signature.outputs[0].name: output.numpy()}
        told = write_answer(asked, served.name, served.version, outputs)
        if told.header_length is None:
            return Response(told.body, media_type="application/json")
        headers = {HEADER: str(told.header_length)}
        return Response(told.body, headers=headers, media_type="application/octet-stream")

    async def _predict(self, request: Request) -> Response:
        served = self._named(request)
        instances = read_instances(await _body(request))
        rows = served.preprocessing.batch(instances)
        if len(rows) != len(instances):
            raise RequestError(
                f"instances has {len(instances)} entries of one row: expected a list of rows"
            )
        output = await self._answer(served, rows)
        return Response(write_predictions(output.numpy()), media_type="application/json")

    async def _answer(self, served: Served, rows: Tensor) -> Tensor:
        return await self._thread.run(functools.partial(served.answer, rows))

    def _named(self, request: Request) -> Served:
        """Return the model that a path names.

        Raises:
            HTTPException: it is not here.
        """
        served, asked = self.served, request.path_params
        if asked["model"] != served.name:
            raise HTTPException(
                404, f"unknown model {asked['model']!r:.120}: this service has {served.name!r}"
            )
        if asked.get("version", served.version) != served.version:
            raise HTTPException(
                404,
                f"unknown version {asked['version']!r:.40} of {served.name!r}: "
                f"this service has {served.version!r}",
            )
        return served

    def _counted(self, endpoint: _Endpoint) -> _Endpoint:
        """Return the endpoint, its requests, errors and seconds counted."""

        @functools.wraps(endpoint)
        async def counted(request: Request) -> Response:
            count, started = self._counters, time.perf_counter()
            count.requests += 1
            try:
                answer = await endpoint(request)
            except BaseException:
                count.errors += 1
                raise
            count.answered += 1
            count.seconds += time.perf_counter() - started
            return answer

        return counted

    def _told(self, endpoint: _Endpoint) -> _Endpoint:
        """Return the endpoint with whatever it raises told as an answer."""

        @functools.wraps(endpoint)
        async def told(request: Request) -> Response:
            try:
                return await endpoint(request)
            except HTTPException:
                raise
            except RequestError as error:
                return _error(400, str(error))
            except FullError as error:
                return _error(429, f"{error}: try again later", {"Retry-After": _RETRY_AFTER})
            except ClientDisconnect:
                return _error(400, "the client left before its request was whole")
            except Exception as error:
                number = secrets.token_hex(8)
                self.keep(error, f"request {number}")
                raised = f"the model raised {type(error).__name__}"
                where = "service.last_error in the kernel, or stderr of workbench serve,"
                return _error(500, f"{raised}; {where} has request {number}")

        return told


async def _health(_: Request) -> Response:
    return _json({"live": True, "ready": True})


async def _server(_: Request) -> Response:
    return _json({"name": "workbench", "version": workbench.__version__, "extensions": EXTENSIONS})


async def _refused(request: Request, error: Exception) -> Response:
    """Return the answer to a route that is not there, or not by this method."""
    assert isinstance(error, HTTPException)
    asked = f"{request.method} {request.url.path}"[:200]
    if error.status_code == 405:
        allowed = ", ".join(sorted((error.headers or {})["Allow"].split(", ")))
        return _error(405, f"{asked} is not offered: expected {allowed}", {"Allow": allowed})
    if error.detail == "Not Found":
        return _error(404, f"there is no {asked}: GET /v2 says what this service is")
    return _error(error.status_code, error.detail, error.headers)


async def _body(request: Request) -> bytes:
    """Return the body of a request, having checked that it is plain and not too large.

    One that is too large is read on for as long again without being kept: a client that is still
    sending hears nothing.

    Raises:
        HTTPException: it is encoded, or larger than 64 MiB.
    """
    encoding = request.headers.get("content-encoding", "identity")
    if encoding.lower() != "identity":
        raise HTTPException(
            415, f"Content-Encoding {encoding!r:.40} is not offered: send the body as it is"
        )
    size, parts = 0, []
    async for part in request.stream():
        size += len(part)
        if size <= MAX_BODY:
            parts.append(part)
        else:
            parts.clear()
        if size > 2 * MAX_BODY:
            break
    if size > MAX_BODY:
        raise HTTPException(
            413, f"the body is larger than {MAX_BODY} bytes: send the rows in several requests"
        )
    return b"".join(parts)


def _error(status: int, reason: str, headers: Mapping[str, str] | None = None) -> Response:
    return Response(
        encode({"error": reason}), status, dict(headers or {}), media_type="application/json"
    )


def _json(data: JSON) -> Response:
    return Response(encode(data), media_type="application/json")
