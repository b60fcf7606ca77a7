"""The endpoints that ask a model: V2 infer and generate, V1 predict, rows as people have them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Hashable, Iterator
from typing import Any

from workbench.errors import RequestError
from workbench.serving.answers import Answer, Events, Refusal, json_answer
from workbench.serving.batching import Batcher
from workbench.serving.bodies import packed
from workbench.serving.protocol import HEADER, InferRequest, read_infer, write_answer
from workbench.serving.requests import Request
from workbench.serving.rows import from_values, pictures, plain, read_rows, say_rows
from workbench.serving.served import Served
from workbench.serving.shelf import Shelf
from workbench.serving.tensors import Array
from workbench.serving.v1 import read_v1, write_v1
from workbench.types import JSON

__all__ = ["Answering"]

_LARGE = 2**20  # bytes: a body that takes so long to read that others should not wait for it
_HEADER = HEADER.lower().encode()


class Answering:
    """Asks the models of a shelf.

    Args:
        shelf: that has them.
        batcher: whose thread they work in.
    """

    def __init__(self, shelf: Shelf, batcher: Batcher) -> None:
        self._shelf, self._batcher = shelf, batcher

    async def infer(self, request: Request) -> Answer:
        """Answer by V2: tensors by name, as JSON or raw bytes."""
        served, body = await self._begin(request)
        asked = await _aside(body, read_infer, body, request.header(_HEADER), served.signature)
        inputs = {
            spec.name: await _decoded(asked.inputs[spec.name], spec.datatype, served)
            for spec in served.signature.inputs
        }
        outputs, weights = await self._ask(served, inputs, request, asked)
        told = write_answer(
            asked,
            served.name,
            served.version,
            outputs,
            classes=served.classes,
            parameters=weights or None,
        )
        if told.header_length is None:
            return packed(Answer(told.body), request.scope)
        headers = {HEADER: str(told.header_length)}
        return packed(Answer(told.body, 200, "application/octet-stream", headers), request.scope)

    async def predict_v1(self, request: Request) -> Answer:
        """Answer by V1: rows or columns of JSON."""
        served, body = await self._begin(request)
        inputs, columnar = await _aside(
            body, _read_v1, body, served, may_be_files=served.takes_images
        )
        outputs, _ = await self._ask(served, inputs, request)
        return packed(Answer(write_v1(outputs, columnar=columnar)), request.scope)

    async def predict(self, request: Request) -> Answer:
        """Answer rows as people have them with labels and probabilities, or values."""
        served, body = await self._begin(request)
        kind = request.header(b"content-type") or "application/json"
        inputs, notes = await _aside(
            body, read_rows, kind, body, served, may_be_files=served.takes_images
        )
        outputs, _ = await self._ask(served, inputs, request)
        return json_answer({"model": served.ref, "rows": say_rows(outputs, served), **notes})

    async def generate(self, request: Request) -> Answer:
        """Answer one row of flat JSON, a stream's last part where the model streams."""
        served, body = await self._begin(request)
        inputs = _one_row(body, served)
        outputs, _ = await self._ask(served, inputs, request)
        return json_answer(_flat(served, outputs))

    async def generate_stream(self, request: Request) -> Events:
        """Answer one row of flat JSON by an event for each part that the model yields."""
        served, body = await self._begin(request)
        inputs = _one_row(body, served)
        served.check(inputs)
        if not served.can_stream:
            outputs, _ = await self._ask(served, inputs, request)
            return Events(_nothing(), first=_flat(served, outputs))
        parts = served.stream(inputs)
        try:
            async with asyncio.timeout(_timeout(request)):
                first = await self._batcher.run(lambda: next(parts, None))
        except TimeoutError:
            raise Refusal(
                504, "no first part within X-Request-Timeout: ask with a longer one"
            ) from None
        if first is None:
            return Events(_nothing())
        return Events(self._rest(served, parts, request), first=_flat(served, first))

    async def _begin(self, request: Request) -> tuple[Served, bytes]:
        """Return the model that a path names and the request's body, if there is room for it."""
        served = self._shelf.find(request.params["model"], request.params.get("version"))
        self._batcher.check_room()
        return served, await request.body()

    async def _ask(
        self,
        served: Served,
        inputs: dict[str, Array],
        request: Request,
        asked: InferRequest | None = None,
    ) -> tuple[dict[str, Array], JSON]:
        served.check(inputs)
        key: Hashable = None
        timeout = _timeout(request)
        if asked is not None:
            key = (tuple(asked.outputs.items()), tuple(sorted(asked.parameters.items())))
            timeout = timeout if asked.timeout is None else asked.timeout
        return await self._batcher.answer(
            served,
            inputs,
            self._shelf.tally(served),
            key=key,
            timeout=timeout,
            connection=request.connection,
        )

    async def _rest(
        self, served: Served, parts: Iterator[dict[str, Array]], request: Request
    ) -> AsyncIterator[JSON]:
        """Yield what a stream still has; each part is its own work for the inference thread."""
        gone = asyncio.Event()
        if request.connection is not None:
            request.connection.on_gone = gone.set
        try:
            while not gone.is_set():
                part = await self._batcher.run(lambda: next(parts, None))
                if part is None:
                    return
                yield _flat(served, part)
            await self._batcher.run(parts.close)  # type: ignore[attr-defined]  # a generator
        except Exception as error:  # the status is sent already
            yield {"error": f"the model raised {type(error).__name__}"}


async def _nothing() -> AsyncIterator[JSON]:
    return
    yield


async def _aside(body: bytes, read: Any, *given: Any, may_be_files: bool = False) -> Any:
    """Return what `read` returns, from another thread where that may take long.

    Args:
        body: of the request; a large one takes long.
        read: makes something of `given`.
        given: to it.
        may_be_files: whether there may be pictures in it, whose size says nothing.
    """
    if len(body) < _LARGE and not may_be_files:
        return read(*given)
    return await asyncio.to_thread(read, *given)


async def _decoded(rows: Array, datatype: str, served: Served) -> Array:
    """Return an input, pictures that came as files being decoded."""
    is_files = rows.dtype == object and datatype != "BYTES"
    return await asyncio.to_thread(pictures, rows, served) if is_files else rows


def _read_v1(body: bytes, served: Served) -> tuple[dict[str, Array], bool]:
    """Return the inputs of a V1 request, and whether they came by columns."""
    asked = read_v1(body, served.signature)
    if asked.rows is not None:
        return from_values(asked.rows, served), False
    columns = (asked.columns or {}).items()
    return {k: from_values(values, served, name=k)[k] for k, values in columns}, True


def _one_row(body: bytes, served: Served) -> dict[str, Array]:
    return from_values([plain(body, served)], served)


def _flat(served: Served, outputs: dict[str, Array]) -> JSON:
    """Return the first row of each output beside the model's name."""
    said = {"model_name": served.name, "model_version": served.version}
    return said | {name: _value(rows[0]) for name, rows in outputs.items()}


def _value(row: Any) -> Any:
    if isinstance(row, bytes):
        return row.decode("utf-8", "replace")
    return row.tolist()


def _timeout(request: Request) -> float | None:
    """Return the seconds after which the client has no use for an answer, or None.

    Raises:
        RequestError: the header is no number above 0.
    """
    said = request.header(b"x-request-timeout")
    if said is None:
        return None
    try:
        seconds = float(said)
    except ValueError:
        seconds = 0.0
    if not 0 < seconds < float("inf"):
        raise RequestError(f"X-Request-Timeout is {said[:40]!r}: expected seconds, above 0")
    return seconds
