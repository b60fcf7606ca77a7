"""The line before the inference thread: what is batched, what is not, and who gets what."""

from __future__ import annotations

import asyncio
import gc
import threading
import weakref
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as some
from starlette.requests import ClientDisconnect
from torch import Tensor, nn

from workbench.errors import RequestError
from workbench.serving import batching
from workbench.serving.answers import Refusal
from workbench.serving.batching import MAX_ROWS, Batcher
from workbench.serving.served import Served, served_from
from workbench.serving.tallies import Tally, statistics


class Slow(nn.Module):
    """Doubles its rows once it is let, and remembers how many came at once."""

    def __init__(self) -> None:
        super().__init__()
        self.batches: list[int] = []
        self.gate = threading.Event()
        self.begun = threading.Event()

    def __deepcopy__(self, memo: object) -> Slow:
        return self  # a test looks at it

    def forward(self, x: Tensor) -> Tensor:
        self.begun.set()
        assert self.gate.wait(10)
        if bool((x < 0).any()):
            raise IndexError("a row below 0")
        self.batches.append(len(x))
        return x * 2


class Client:
    """A connection that can be lost."""

    leave: Callable[[], None] | None = None

    def when_gone(self, callback: Callable[[], None] | None) -> None:
        self.leave = callback


def slow(open_: bool = False) -> tuple[Served, Slow]:
    model = Slow()
    if open_:
        model.gate.set()
    model.gate.set()
    made = served_from(model, example=torch.zeros(1, 2))
    model.batches.clear()
    model.begun.clear()
    if not open_:
        model.gate.clear()
    return made, model


def rows(*values: float) -> dict[str, Any]:
    return {"input": np.array([[value, value] for value in values], dtype=np.float32)}


async def outputs(batcher: Batcher, *given: Any, **more: Any) -> dict[str, Any]:
    return (await batcher.answer(*given, **more))[0]


def in_loop(work: Callable[[Batcher], Coroutine[Any, Any, Any]]) -> Any:
    async def whole() -> Any:
        batcher = Batcher(asyncio.get_running_loop())
        try:
            return await work(batcher)
        finally:
            batcher.close()

    return asyncio.run(whole())


async def while_busy(model: Slow, batcher: Batcher, served: Served) -> asyncio.Task[Any]:
    """Let the thread be held up by a first request, which is returned."""
    first = asyncio.create_task(outputs(batcher, served, rows(0), Tally()))
    await asyncio.to_thread(model.begun.wait, 10)
    return first


def test_what_waits_is_answered_together_and_wakes_the_loop_once() -> None:
    served, model = slow()

    async def work(batcher: Batcher) -> list[Any]:
        first = await while_busy(model, batcher, served)
        rest = [
            asyncio.create_task(outputs(batcher, served, rows(i), Tally())) for i in range(1, 6)
        ]
        await asyncio.sleep(0)
        told: list[Any] = []
        plain = batcher._tell

        def tell(*given: Any) -> None:
            told.append(given)
            plain(*given)

        batcher._tell = tell  # type: ignore[assignment, method-assign]
        model.gate.set()
        answers = await asyncio.gather(first, *rest)
        assert len(told) == 2
        return [answer["output"][0, 0] for answer in answers]

    assert in_loop(work) == [0, 2, 4, 6, 8, 10]
    assert model.batches == [1, 5]


def test_a_free_thread_waits_for_nobody() -> None:
    served, model = slow(open_=True)

    async def work(batcher: Batcher) -> None:
        for i in range(50):
            await outputs(batcher, served, rows(i), Tally())

    in_loop(work)
    assert model.batches == [1] * 50


@settings(max_examples=25, deadline=None)
@given(
    some.lists(
        some.tuples(
            some.lists(some.floats(0, 100, width=32), min_size=1, max_size=5),
            some.sampled_from(["a", "b"]),
        ),
        min_size=1,
        max_size=12,
    )
)
def test_a_batch_equals_its_rows_one_by_one(asked: list[tuple[list[float], str]]) -> None:
    served, model = slow()

    async def work(batcher: Batcher) -> list[Any]:
        first = await while_busy(model, batcher, served)
        tasks = [
            asyncio.create_task(outputs(batcher, served, rows(*values), Tally(), key=key))
            for values, key in asked
        ]
        await asyncio.sleep(0)
        model.gate.set()
        await first
        return list(await asyncio.gather(*tasks))

    for (values, _), said in zip(asked, in_loop(work), strict=True):
        np.testing.assert_array_equal(said["output"], 2 * rows(*values)["input"])
    keys = [key for _, key in asked]
    assert len(model.batches) == 1 + len(set(keys))  # each key in a batch of its own, all of it


def test_models_shapes_and_types_are_never_mixed() -> None:
    (one, model), (other, second) = slow(), slow(open_=True)

    async def work(batcher: Batcher) -> None:
        first = await while_busy(model, batcher, one)
        wide = {"input": np.ones((1, 3), np.float32)}
        double = {"input": np.ones((1, 2), np.float64)}
        asked = [(one, rows(1)), (other, rows(1)), (one, rows(2)), (other, rows(2))]
        tasks = [
            asyncio.create_task(outputs(batcher, served, inputs, Tally()))
            for served, inputs in [*asked, (one, wide), (one, double)]
        ]
        await asyncio.sleep(0)
        model.gate.set()
        await asyncio.gather(first, *tasks, return_exceptions=True)

    in_loop(work)
    assert model.batches == [1, 2, 1, 1]
    assert second.batches == [2]


def test_a_large_request_goes_in_parts_and_others_go_between() -> None:
    served, model = slow()
    large = {"input": np.arange(4 * MAX_ROWS, dtype=np.float32).repeat(2).reshape(-1, 2)}

    async def work(batcher: Batcher) -> tuple[Any, list[str]]:
        first, ended = await while_busy(model, batcher, served), list[str]()
        tasks = []

        def note(name: str, task: object) -> None:
            ended.append(name)

        for name, inputs in (("large", large), ("small", rows(7))):
            task = asyncio.create_task(outputs(batcher, served, inputs, Tally()))
            task.add_done_callback(partial(note, name))
            tasks.append(task)
        await asyncio.sleep(0)
        model.gate.set()
        await first
        return (await asyncio.gather(*tasks))[0], ended

    said, ended = in_loop(work)
    np.testing.assert_array_equal(said["output"], 2 * large["input"])
    assert ended == ["small", "large"]
    assert max(model.batches) <= MAX_ROWS


def test_one_that_the_model_fails_at_hurts_no_neighbour() -> None:
    served, model = slow()

    async def work(batcher: Batcher) -> list[Any]:
        first = await while_busy(model, batcher, served)
        tasks = [
            asyncio.create_task(outputs(batcher, served, rows(v), Tally())) for v in (1, -1, 2)
        ]
        await asyncio.sleep(0)
        model.gate.set()
        await first
        return list(await asyncio.gather(*tasks, return_exceptions=True))

    one, failed, two = in_loop(work)
    assert (one["output"][0, 0], two["output"][0, 0]) == (2, 4)
    assert isinstance(failed, IndexError)


def test_who_leaves_or_is_late_leaves_the_line_at_once() -> None:
    served, model = slow()

    async def work(batcher: Batcher) -> None:
        first, left, tally = await while_busy(model, batcher, served), Client(), Tally()
        gone = asyncio.create_task(outputs(batcher, served, rows(1), tally, connection=left))
        late = asyncio.create_task(outputs(batcher, served, rows(2), tally, timeout=0.05))
        stays = asyncio.create_task(outputs(batcher, served, rows(3), tally))
        await asyncio.sleep(0)
        assert left.leave is not None
        left.leave()
        with pytest.raises(ClientDisconnect):
            await gone
        with pytest.raises(Refusal, match="no answer within the timeout: ask") as refused:
            await late  # though the thread is busy: a timer ends it
        assert refused.value.status == 504
        assert batcher.waiting == 2
        model.gate.set()
        assert (await stays)["output"][0, 0] == 6
        await first
        assert (tally.cancelled, tally.fail.count, tally.success.count) == (1, 1, 1)

    in_loop(work)
    assert model.batches == [1, 1]


def test_a_full_line_refuses_and_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_REQUESTS", 3)
    served, model = slow()

    async def work(batcher: Batcher) -> None:
        first = await while_busy(model, batcher, served)
        rest = [asyncio.create_task(outputs(batcher, served, rows(1), Tally())) for _ in range(2)]
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="3 requests are waiting already") as refused:
            await outputs(batcher, served, rows(2), Tally())
        assert refused.value.status == 429
        assert 1 <= int(refused.value.headers["Retry-After"]) <= 60
        model.gate.set()
        await asyncio.gather(first, *rest)
        assert (await outputs(batcher, served, rows(2), Tally()))["output"][0, 0] == 4

    in_loop(work)


def test_the_bytes_that_wait_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_BYTES", 20)
    served, model = slow()

    async def work(batcher: Batcher) -> None:
        first = await while_busy(model, batcher, served)
        with pytest.raises(Refusal, match="try again later"):
            await outputs(batcher, served, rows(1, 2), Tally())
        model.gate.set()
        await first

    in_loop(work)


def test_draining_answers_what_was_taken_and_takes_nothing_more() -> None:
    served, model = slow()

    async def work(batcher: Batcher) -> None:
        first = await while_busy(model, batcher, served)
        second = asyncio.create_task(outputs(batcher, served, rows(1), Tally()))
        await asyncio.sleep(0)
        drained = asyncio.create_task(batcher.drain())
        await asyncio.sleep(0)
        with pytest.raises(Refusal, match="the service is stopping") as refused:
            await outputs(batcher, served, rows(1), Tally())
        assert refused.value.status == 503
        assert not drained.done()
        model.gate.set()
        await asyncio.gather(first, second, drained)

    in_loop(work)


def test_a_storm_of_cancellations_hurts_nobody() -> None:
    served, _ = slow(open_=True)
    chance = np.random.default_rng(0)

    async def work(batcher: Batcher) -> None:
        for _ in range(30):
            tasks, clients = [], []
            for value in range(20):
                clients.append(Client())
                tasks.append(
                    asyncio.create_task(
                        outputs(batcher, served, rows(value), Tally(), connection=clients[-1])
                    )
                )
            await asyncio.sleep(0)
            leaving = set(chance.choice(20, 10, replace=False).tolist())
            for i in leaving:
                leave = clients[i].leave
                if leave is not None:
                    leave()
            said: list[Any] = await asyncio.gather(*tasks, return_exceptions=True)
            for value, answer in enumerate(said):
                if not isinstance(answer, ClientDisconnect):
                    assert answer["output"][0, 0] == 2 * value
            assert sum(isinstance(answer, ClientDisconnect) for answer in said) <= len(leaving)
        answers = [await outputs(batcher, served, rows(v), Tally()) for v in range(100)]
        assert [answer["output"][0, 0] for answer in answers] == [2 * v for v in range(100)]
        assert batcher.waiting == 0

    in_loop(work)


def test_other_work_is_done_between_two_batches_and_its_error_is_its_own() -> None:
    served, _ = slow(open_=True)

    async def work(batcher: Batcher) -> None:
        name = await batcher.run(lambda: threading.current_thread().name)
        assert name == "workbench-inference"
        with pytest.raises(ZeroDivisionError):
            await batcher.run(lambda: 1 // 0)
        assert (await outputs(batcher, served, rows(4), Tally()))["output"][0, 0] == 8

    in_loop(work)


def test_what_was_counted_adds_up() -> None:
    served, _ = slow(open_=True)
    tally = Tally()

    async def work(batcher: Batcher) -> None:
        for n in (1, 2, 2):
            await outputs(batcher, served, rows(*range(n)), tally)

    in_loop(work)
    said = statistics("m", "1", tally.counts())
    assert (said["inference_count"], said["execution_count"]) == (5, 3)
    assert said["inference_stats"]["success"]["count"] == 3
    assert [size["batch_size"] for size in said["batch_stats"]] == [1, 2]
    stages = said["inference_stats"]
    spent = sum(stages[k]["ns"] for k in ("queue", "compute_input", "compute_infer"))
    assert 0 < spent <= stages["success"]["ns"]


class Failing(nn.Module):
    """Raises what it is told to, once it is armed and asked for a row below 0."""

    error: BaseException | None = None

    def forward(self, x: Tensor) -> Tensor:
        if self.error is not None and bool((x < 0).any()):
            raise self.error
        return x


@pytest.mark.parametrize(
    "error", [StopIteration(3), SystemExit(2), RequestError("odd"), KeyboardInterrupt()]
)
def test_whatever_a_model_raises_ends_its_own_request_alone(
    error: BaseException, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Failing, "error", error)
    served = served_from(Failing(), example=torch.zeros(1, 2))

    async def work(batcher: Batcher) -> None:
        tasks = [
            asyncio.create_task(outputs(batcher, served, rows(value), Tally()))
            for value in (1, -1, 2)
        ]
        said: list[Any] = await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 10)
        assert [said[0]["output"][0, 0], said[2]["output"][0, 0]] == [1, 2]
        assert isinstance(said[1], RuntimeError)
        assert type(error).__name__ in str(said[1])
        assert batcher.is_alive

    in_loop(work)


def test_who_left_keeps_no_rows_in_the_line() -> None:
    served, model = slow()

    async def work(batcher: Batcher) -> None:
        first, left = await while_busy(model, batcher, served), Client()
        large = {"input": np.zeros((1000, 2), np.float32)}
        kept = weakref.ref(large["input"])
        gone = asyncio.create_task(outputs(batcher, served, large, Tally(), connection=left))
        del large
        await asyncio.sleep(0)
        assert left.leave is not None
        left.leave()
        with pytest.raises(ClientDisconnect):
            await gone
        del gone
        await asyncio.sleep(0)  # the loop, too, lets go of the task
        gc.collect()
        assert kept() is None  # though the thread has not seen it yet
        model.gate.set()
        await first

    in_loop(work)


def test_the_inbox_is_bounded_by_those_that_left_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batching, "MAX_REQUESTS", 4)
    served, model = slow()

    async def work(batcher: Batcher) -> None:
        first = await while_busy(model, batcher, served)
        for _ in range(4):
            with pytest.raises(Refusal, match="no answer within"):
                await outputs(batcher, served, rows(1), Tally(), timeout=0.001)
        assert batcher.waiting == 1
        with pytest.raises(Refusal, match="4 requests are waiting already"):
            await outputs(batcher, served, rows(1), Tally())
        model.gate.set()
        await first

    in_loop(work)
