"""Too many clients, and clients that leave: whoever stays is answered, and nothing is left over."""

from __future__ import annotations

import asyncio
import gc
import http.client
import json
import logging
import time
import weakref
from collections import Counter
from collections.abc import Iterator

import numpy as np
import psutil
import pytest
import torch
from asking import ROWS, ask, bearer, infer_body, small_model
from torch import Tensor, nn

from workbench.serving import Service, serve

BODY = infer_body()


class Late(nn.Module):
    """Takes its time for each batch."""

    seconds = 0.0

    def forward(self, x: Tensor) -> Tensor:
        time.sleep(self.seconds)
        return x


@pytest.fixture
def late(monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    with serve(Late(), name="late", example=ROWS) as service:
        monkeypatch.setattr(Late, "seconds", 0.02)
        yield service


async def one(
    service: Service, *, hang_up: float | None = None, name: str = "late"
) -> tuple[int, dict[str, str], bytes]:
    """Ask by a connection of its own; `hang_up` is after how many seconds it is closed instead."""
    reader, writer = await asyncio.open_connection("127.0.0.1", int(service.url[17:]))
    head = (
        f"POST /v2/models/{name}/infer HTTP/1.1\r\nHost: 127.0.0.1\r\n"
        f"Authorization: Bearer {service.token}\r\nContent-Length: {len(BODY)}\r\n\r\n"
    )
    try:
        writer.write(head.encode() + BODY)
        if hang_up is not None:
            await asyncio.sleep(hang_up)
            return 0, {}, b""
        status = int((await reader.readline()).split()[1])
        headers = {}
        while (line := (await reader.readline()).decode().strip()) != "":
            key, _, value = line.partition(": ")
            headers[key.lower()] = value
        return status, headers, await reader.readexactly(int(headers["content-length"]))
    finally:
        writer.close()


def test_overload_is_answered_by_200_and_429_alone(
    late: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workbench.serving.batching.MAX_REQUESTS", 20)

    async def flood() -> list[tuple[int, dict[str, str], bytes]]:
        return list(await asyncio.gather(*(one(late) for _ in range(300))))

    answers = asyncio.run(flood())
    found = Counter(status for status, _, _ in answers)
    assert found.keys() == {200, 429}
    for status, headers, body in answers:
        if status == 429:
            assert 1 <= int(headers["retry-after"]) <= 60
        else:
            assert np.allclose(json.loads(body)["outputs"][0]["data"], ROWS.flatten())
    assert late.stats().refused == {429: found[429]}
    assert ask(late, "POST", "/v2/models/late/infer", BODY).status == 200


def test_a_storm_of_clients_that_leave_hurts_nobody(late: Service) -> None:
    chance = np.random.default_rng(0)
    process = psutil.Process()
    before = process.memory_info().rss

    async def storm() -> list[int]:
        for _ in range(10):
            leaving = [one(late, hang_up=float(chance.uniform(0, 0.03))) for _ in range(20)]
            staying = [one(late) for _ in range(10)]
            said = await asyncio.gather(*leaving, *staying)
            assert [status for status, _, _ in said[20:]] == [200] * 10
        return [(await one(late))[0] for _ in range(20)]

    assert asyncio.run(storm()) == [200] * 20
    assert late.stats().waiting == 0
    assert process.memory_info().rss - before < 64 * 2**20


def test_a_stop_answers_what_was_accepted() -> None:
    async def stopping() -> list[int]:
        service = serve(Late(), name="late", example=ROWS)
        Late.seconds = 0.3
        try:
            asked = [asyncio.create_task(one(service)) for _ in range(8)]
            while service.stats().waiting < 8:
                await asyncio.sleep(0.01)
            await asyncio.to_thread(service.stop)
            return [(await task)[0] for task in asked]
        finally:
            Late.seconds = 0.0

    assert asyncio.run(stopping()) == [200] * 8


def test_a_swap_under_load_loses_nothing_and_mixes_nothing() -> None:
    known = [small_model(k)(ROWS).flatten().tolist() for k in range(1, 6)]

    async def swapping(service: Service) -> list[bytes]:
        going, said = True, []

        async def ask_on() -> None:
            while going:
                status, _, body = await one(service, name="m")
                assert status == 200
                said.append(body)

        asked = [asyncio.create_task(ask_on()) for _ in range(8)]
        for k in range(2, 6):
            await asyncio.sleep(0.1)
            await asyncio.to_thread(serve, small_model(k), name="m", example=ROWS)
        await asyncio.sleep(0.1)
        going = False
        await asyncio.gather(*asked)
        return said

    with serve(small_model(1), name="m", example=ROWS) as service:
        said = asyncio.run(swapping(service))
    found = torch.tensor([json.loads(body)["outputs"][0]["data"] for body in said])
    close = [torch.isclose(found, torch.tensor(row), rtol=1e-5).all(1) for row in known]
    assert torch.stack(close).any(0).all()
    assert close[0].any()
    assert close[-1].any()


class Endless(nn.Module):
    """Streams until it is stopped."""

    def forward(self, x: Tensor) -> Tensor:
        return x

    def stream(self, x: Tensor) -> Iterator[Tensor]:
        while True:
            time.sleep(0.01)
            yield x


def test_a_stop_ends_a_stream_with_a_last_word() -> None:
    service = serve(Endless(), name="endless", example=ROWS)
    connection = http.client.HTTPConnection("127.0.0.1", int(service.url[17:]), timeout=20)
    path = "/v2/models/endless/generate_stream"
    connection.request("POST", path, b'{"input": [1, 2]}', bearer(service))
    answer = connection.getresponse()
    assert answer.read(5) == b"data:"
    service.stop()
    said = answer.read()
    connection.close()
    assert said.endswith(b'data: {"error":"the service is stopping: ask again in a moment"}\n\n')


def test_a_model_that_failed_is_let_go_by_a_swap(monkeypatch: pytest.MonkeyPatch) -> None:
    log = logging.getLogger("workbench.serving")  # pytest would keep the record of the error
    monkeypatch.setattr(log, "disabled", True)

    class Broken(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            if bool((x > 0).any()):
                raise ArithmeticError("here")
            return x

    gc.disable()
    try:
        with serve(Broken(), name="m", example=torch.zeros(1, 2)) as service:
            before = weakref.ref(service._served.source.fresh())
            assert ask(service, "POST", "/v2/models/m/infer", infer_body()).status == 500
            serve(small_model(), name="m", example=ROWS)
            assert ask(service, "POST", "/v2/models/m/infer", infer_body()).status == 200
            assert before() is None
    finally:
        gc.enable()
