"""The endpoints that ask a model: V2 infer and generate, V1 predict, rows as people have them."""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Callable, Generator, Hashable
from typing import Any, TypeVar, cast

from starlette.types import Scope

from workbench.errors import RequestError
from workbench.serving.answers import Answer, Events, Refusal, json_answer
from workbench.serving.batching import Batcher
from workbench.serving.bodies import packed
from workbench.serving.challenging import Challenging
from workbench.serving.protocol import HEADER, InferRequest, read_infer, write_answer
from workbench.serving.requests import Request
from workbench.serving.rows import from_values, pictures, plain, read_rows, say_rows
from workbench.serving.served import Served
from workbench.serving.shelf import Shelf
from workbench.serving.tensors import Array
from workbench.serving.v1 import read_v1, write_v1
from workbench.types import JSON

__all__ = ["MAX_LABELS", "MAX_STREAMS", "Answering", "kept"]

MAX_LABELS = 2**17  # of the classes in one answer: each is a text of its own
MAX_STREAMS = 64  # open at once: each may have a model of its own
_LARGE = 2**20  # bytes: a body that takes so long to read that others should not wait for it
_LONG = 2**16  # bytes: outputs that take as long to write and pack
_HEADER = HEADER.lower().encode()

_T = TypeVar("_T")


class Answering:
    """Asks the models of a shelf.

    Args:
        shelf: that has them.
        batcher: whose thread they work in.
        challenging: says which of them answers, and has its answers noted.
        keep: takes an error that nobody expected, and what failed.
    """

    def __init__(
        self,
        shelf: Shelf,
        batcher: Batcher,
        challenging: Challenging,
        *,
        keep: Callable[[BaseException, str], None],
    ) -> None:
        self._shelf, self._batcher, self._challenging = shelf, batcher, challenging
        self._keep = keep
        self._streams = 0
        self._closing: set[asyncio.Task[None]] = set()

    async def infer(self, request: Request) -> Answer:
        """Answer by V2: tensors by name, as JSON or raw bytes."""
        served, body = await self._begin(request)
        asked = await _aside(
            len(body) >= _LARGE, read_infer, body, request.header(_HEADER), served.signature
        )
        inputs = {
            spec.name: await _decoded(asked.inputs[spec.name], spec.datatype, served)
            for spec in served.signature.inputs
        }
        outputs, weights = await self._ask(served, inputs, request, len(body), asked)
        is_long = _labels(asked, outputs) > 0 or _is_long(outputs)
        return await _aside(is_long, _infer_answer, asked, served, outputs, weights, request.scope)

    async def predict_v1(self, request: Request) -> Answer:
        """Answer by V1: rows or columns of JSON."""
        served, body = await self._begin(request)
        inputs, columnar = await _aside(_is_slow(body, served), _read_v1, body, served)
        outputs, _ = await self._ask(served, inputs, request, len(body))
        return await _aside(_is_long(outputs), _v1_answer, outputs, columnar, request.scope)

    async def predict(self, request: Request) -> Answer:
        """Answer rows as people have them with labels and probabilities, or values."""
        served, body = await self._begin(request)
        kind = request.header(b"content-type") or "application/json"
        inputs, notes = await _aside(_is_slow(body, served), read_rows, kind, body, served)
        outputs, _ = await self._ask(served, inputs, request, len(body))
        notes = {"id": request.id, **notes}
        return await _aside(_is_long(outputs), _rows_answer, served, outputs, notes)

    async def generate(self, request: Request) -> Answer:
        """Answer one row of flat JSON, a stream's last part where the model streams."""
        served, body = await self._begin(request)
        inputs = await _aside(_is_slow(body, served), _one_row, body, served)
        outputs, _ = await self._ask(served, inputs, request, len(body))
        return await _aside(_is_long(outputs), _flat_answer, served, outputs)

    async def generate_stream(self, request: Request) -> Events:
        """Answer one row of flat JSON by an event for each part that the model yields."""
        served, body = await self._begin(request)
        inputs = await _aside(_is_slow(body, served), _one_row, body, served)
        if not served.can_stream:
            outputs, _ = await self._ask(served, inputs, request, len(body))
            return Events(_nothing(), first=_flat(served, outputs))
        await _aside(len(body) >= _LARGE, served.check, inputs)
        timeout = _left(request, _timeout(request))
        if self._streams >= MAX_STREAMS:
            reason = f"{MAX_STREAMS} streams are open already: try again later"
            raise Refusal(429, reason, {"Retry-After": "1"})
        parts = self._parts(served, inputs, request)
        try:
            async with asyncio.timeout(timeout):
                first = await anext(parts, None)
        except TimeoutError:
            raise Refusal(
                504, "no first part within X-Request-Timeout: ask with a longer one"
            ) from None
        return Events(parts, first=first)

    async def _begin(self, request: Request) -> tuple[Served, bytes]:
        """Return the model that a path names and the request's body, if there is room for it."""
        served = self._challenging.pick(request)
        with self._batcher.reading(request.length):
            return served, await request.body()

    async def _ask(
        self,
        served: Served,
        inputs: dict[str, Array],
        request: Request,
        size: int,
        asked: InferRequest | None = None,
    ) -> tuple[dict[str, Array], JSON]:
        await _aside(size >= _LARGE, served.check, inputs)
        key: Hashable = None
        timeout = _timeout(request)
        if asked is not None:
            key = (tuple(asked.outputs.items()), tuple(sorted(asked.parameters.items())))
            timeout = timeout if asked.timeout is None else asked.timeout
        kept_inputs = self._challenging.kept(request, served, inputs)
        outputs, weights = await self._batcher.answer(
            served,
            inputs,
            self._shelf.tally(served),
            key=key,
            timeout=_left(request, timeout),
            connection=request.connection,
        )
        self._challenging.note(request, served, kept_inputs, outputs, weights)
        return outputs, weights

    async def _parts(
        self, served: Served, inputs: dict[str, Array], request: Request
    ) -> AsyncIterator[JSON]:
        """Yield what the model streams until the client leaves.

        Each part is its own work for the inference thread. An error before the first is raised; one
        after it is the last part, since the status is sent already.
        """
        gone, begun = asyncio.Event(), False
        if request.connection is not None:
            request.connection.when_gone(gone.set)
        parts = cast("Generator[dict[str, Array]]", served.stream(inputs))
        self._streams += 1
        try:
            while not gone.is_set():
                if self._batcher.is_draining:
                    yield {"error": "the service is stopping: ask again in a moment"}
                    return
                part = await self._batcher.run(lambda: next(parts, None))
                if part is None:
                    return
                yield _flat(served, part)
                begun = True
        except Exception as error:
            if not begun:
                raise
            yield {"error": kept(error, self._keep)}
        finally:  # without waiting: the thread may be at work on a part that came too late
            closing = asyncio.create_task(self._close(parts))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)

    async def _close(self, parts: Generator[dict[str, Array]]) -> None:
        try:
            await self._batcher.run(parts.close)
        except Exception as error:
            self._keep(error, "the end of a stream")
        finally:
            self._streams -= 1


def kept(error: Exception, keep: Callable[[BaseException, str], None]) -> str:
    """Return what a client is told of an error that its model raised, the rest being kept.

    Args:
        error: that nobody expected.
        keep: takes it, and a number that the client is told.
    """
    number = secrets.token_hex(8)
    keep(error, f"request {number}")
    error.__traceback__ = None  # its frames would keep the model
    where = "service.last_error in the kernel, or stderr of workbench serve,"
    return f"the model raised {type(error).__name__}; {where} has request {number}"


async def _nothing() -> AsyncIterator[JSON]:
    return
    yield


async def _aside(takes_long: bool, work: Callable[..., _T], *given: Any) -> _T:
    """Return what `work` makes of `given`, from another thread where that takes long."""
    return await asyncio.to_thread(work, *given) if takes_long else work(*given)


async def _decoded(rows: Array, datatype: str, served: Served) -> Array:
    """Return an input, pictures that came as files being decoded."""
    is_files = rows.dtype == object and datatype != "BYTES"
    return await _aside(True, pictures, rows, served) if is_files else rows


def _is_slow(body: bytes, served: Served) -> bool:
    """Return whether a body takes long to read; the size of a picture's file says nothing."""
    return len(body) >= _LARGE or served.takes_images


def _is_long(outputs: dict[str, Array]) -> bool:
    """Return whether an answer takes long to write; what a text holds is not in its array."""
    size = 0
    for array in outputs.values():
        size += array.nbytes + (sum(map(len, array.flat)) if array.dtype.kind == "O" else 0)
    return size >= _LONG


def _labels(asked: InferRequest, outputs: dict[str, Array]) -> int:
    """Return how many of the best classes an answer has.

    Raises:
        RequestError: they are too many.
    """
    count = 0
    for name, wanted in asked.outputs.items():
        if wanted.classes:
            rows = outputs[name]
            count += min(rows.size, len(rows) * wanted.classes)
    if count > MAX_LABELS:
        raise RequestError(
            f"the answer would have {count} labels, expected at most {MAX_LABELS}: ask for fewer "
            "by classification, or in several requests"
        )
    return count


def _infer_answer(
    asked: InferRequest, served: Served, outputs: dict[str, Array], weights: JSON, scope: Scope
) -> Answer:
    told = write_answer(
        asked,
        served.name,
        served.version,
        outputs,
        classes=served.classes,
        parameters=weights or None,
    )
    if told.header_length is None:
        return packed(Answer(told.body), scope)
    headers = {HEADER: str(told.header_length)}
    return packed(Answer(told.body, 200, "application/octet-stream", headers), scope)


def _v1_answer(outputs: dict[str, Array], columnar: bool, scope: Scope) -> Answer:
    return packed(Answer(write_v1(outputs, columnar=columnar)), scope)


def _rows_answer(served: Served, outputs: dict[str, Array], notes: JSON) -> Answer:
    return json_answer({"model": served.ref, "rows": say_rows(outputs, served), **notes})


def _flat_answer(served: Served, outputs: dict[str, Array]) -> Answer:
    return json_answer(_flat(served, outputs))


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


def _left(request: Request, timeout: float | None) -> float | None:
    """Return the seconds that are left of a timeout, which began with the request.

    Raises:
        Refusal: 504, none are.
    """
    if timeout is None:
        return None
    left = timeout - (time.perf_counter() - request.begun)
    if left <= 0:
        raise Refusal(504, f"the timeout of {timeout:.3g} s was over before the request was read")
    return left
