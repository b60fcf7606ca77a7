"""Versions, aliases and several models on one server; streams; what an answer says of itself."""

from __future__ import annotations

import http.client
import json
import re
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from asking import ROWS, Answer, ask, bearer, infer_body, small_model
from torch import Tensor, nn

import workbench as wb
from workbench.registry import promote, publish
from workbench.serving import Service, answering, serve

ADMIN = {"Authorization": "Bearer admin"}


class Writer(nn.Module):
    """Says one word of a text after the other."""

    steps = 0

    def forward(self, texts: list[str]) -> list[str]:
        return [text.upper() for text in texts]

    def stream(self, texts: list[str]) -> Iterator[list[str]]:
        for word in texts[0].split():
            type(self).steps += 1
            if word == "stop":
                raise ArithmeticError("secret")
            yield [word.upper()]


class Endless(nn.Module):
    """Never stops, once it may begin."""

    begun, gate, closed = threading.Event(), threading.Event(), threading.Event()

    def forward(self, texts: list[str]) -> list[str]:
        return texts

    def stream(self, texts: list[str]) -> Iterator[list[str]]:
        self.begun.set()
        self.gate.wait(20)
        try:
            while True:
                yield texts
        finally:
            self.closed.set()


@pytest.fixture
def kept() -> Iterator[Service]:
    """Serve the second of three versions by one server, with an administrator."""
    for factor in (1, 2, 3):
        publish(small_model(factor), "kept", example=ROWS)
    promote("kept@2", "champion")
    with serve("kept@champion", admin_token="admin") as service:
        yield service


def output(answer: Answer) -> Tensor:
    assert answer.status == 200, answer.body
    return torch.tensor(answer.json["outputs"][0]["data"]).reshape(3, 3)


def test_a_version_an_alias_and_the_default_are_in_the_path(kept: Service) -> None:
    expected = small_model(2)(ROWS).detach()
    for place in ("", "/versions/2", "/versions/champion"):
        answer = ask(kept, "POST", f"/v2/models/kept{place}/infer", infer_body())
        torch.testing.assert_close(output(answer), expected)
        assert answer.json["model_version"] == "2"
    promote("kept@3", "champion")
    refused = ask(kept, "POST", "/v2/models/kept/versions/champion/infer", infer_body())
    assert refused.status == 404
    assert "unknown version 'champion', which is version 3 of 'kept'" in refused.error
    assert ask(kept, "GET", "/v2/models/kept/versions/nobody").status == 404


def test_another_version_is_loaded_beside_and_unloaded(kept: Service) -> None:
    load = "/v2/repository/models/kept@3/load"
    assert ask(kept, "POST", load, b"{}").status == 403
    assert ask(kept, "POST", load, b"{}", ADMIN).status == 200
    third = ask(kept, "POST", "/v2/models/kept/versions/3/infer", infer_body())
    torch.testing.assert_close(output(third), small_model(3)(ROWS).detach())
    assert ask(kept, "GET", "/v2/models/kept").json["versions"] == ["2", "3"]
    index = ask(kept, "POST", "/v2/repository/index", b"").json
    assert [(e["version"], e["state"]) for e in index] == [
        ("2", "READY"), ("3", "READY"), ("1", "UNAVAILABLE")
    ]  # fmt: skip
    ready = ask(kept, "POST", "/v2/repository/index", b'{"ready": true}').json
    assert [entry["version"] for entry in ready] == ["2", "3"]
    assert ask(kept, "POST", "/v2/repository/models/kept@3/unload", b"", ADMIN).status == 200
    assert ask(kept, "GET", "/v2/models/kept").json["versions"] == ["2"]
    assert ask(kept, "POST", "/v2/repository/models/kept/load", b"", ADMIN).status == 200
    assert kept.model == "kept@3"  # the newest, which answers now


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"[]", "the body is not what was expected: Expected `object`, got `array`"),
        (b"{", "the body is not JSON"),
        (b'{"parameters": 3}', "parameters is not an object"),
        (b'{"parameters": {"config": "{}"}}', "load has the parameter 'config': a model comes"),
        (
            b'{"parameters": {"file:1/model.py": "eA=="}}',
            "load has the parameter 'file:1/model.py'",
        ),
    ],
)
def test_nothing_in_a_request_is_loaded(kept: Service, body: bytes, message: str) -> None:
    answer = ask(kept, "POST", "/v2/repository/models/kept/load", body, ADMIN)
    assert (answer.status, message in answer.error) == (400, True), answer.error


@pytest.mark.parametrize("path", ["index", "models/kept/load", "models/kept/unload"])
def test_the_repository_reads_no_large_body(kept: Service, path: str) -> None:
    body = b'{"parameters": [' + 30_000 * b"{}," + b"{}]}"
    answer = ask(kept, "POST", f"/v2/repository/{path}", body, ADMIN)
    assert (answer.status, answer.error[:36]) == (413, "the body is larger than 65536 bytes:")


def test_models_of_one_kernel_share_a_server_until_the_last_stops(kept: Service) -> None:
    with serve(small_model(7), name="other", example=ROWS) as other:
        assert (other.url, other.token) == (kept.url, kept.token)
        assert ask(kept, "GET", "/v2/models").json == {"models": ["kept", "other"]}
        assert other.predict(ROWS).output.equal(wb.predict(small_model(7), ROWS).output)
        alone = serve(small_model(8), name="alone", example=ROWS, token="of-its-own")
        assert alone.url != kept.url
        alone.stop()
    assert ask(kept, "GET", "/v2/models").json == {"models": ["kept"]}
    assert kept.predict(ROWS).output.equal(wb.predict(small_model(2), ROWS).output)


def events(service: Service, body: bytes) -> list[Any]:
    answer = ask(service, "POST", "/v2/models/writer/generate_stream", body)
    assert answer.headers["Content-Type"] == "text/event-stream"
    parts = answer.body.decode().removesuffix("\n\n").split("\n\n")
    return [json.loads(part.removeprefix("data: ")) for part in parts if part]


def test_a_model_that_streams_is_heard_word_by_word() -> None:
    with serve(Writer(), name="writer", example=["a b"]) as service:
        said = events(service, b'{"input": "one two"}')
        assert [part["output"] for part in said] == ["ONE", "TWO"]
        assert said[0]["model_name"] == "writer"
        assert events(service, b'{"input": ""}') == []
        failed = events(service, b'{"input": "one stop two"}')
        (told,) = failed[1:]
        numbered = re.fullmatch(
            r"the model raised ArithmeticError; .* has request (\w+)", told["error"]
        )
        assert numbered
        assert service.last_error is not None
        assert service.last_error.startswith(f"request {numbered[1]} failed\n")
        assert "ArithmeticError: secret" in service.last_error
        whole = ask(service, "POST", "/v2/models/writer/generate", b'{"input": "one two"}')
        assert whole.json["output"] == "ONE TWO"
        refused = ask(service, "POST", "/v2/models/writer/generate_stream", b'{"text": "x"}')
        assert refused.status == 400


def test_a_stream_whose_client_leaves_is_not_gone_on_with() -> None:
    with serve(Writer(), name="writer", example=["a b"]) as service:
        Writer.steps = 0
        connection = http.client.HTTPConnection("127.0.0.1", int(service.url[17:]), timeout=10)
        text = json.dumps({"input": "word " * 1_000_000})
        path = "/v2/models/writer/generate_stream"
        connection.request("POST", path, text, {**bearer(service)})
        assert connection.getresponse().read(10) == b'data: {"mo'
        connection.close()
        seen = -1
        while seen != Writer.steps:
            seen = Writer.steps
            time.sleep(0.3)
        assert seen < 1_000_000
        assert ask(service, "GET", "/v2/health/ready").status == 200


@pytest.fixture
def endless() -> Iterator[Service]:
    for event in (Endless.begun, Endless.gate, Endless.closed):
        event.clear()
    with serve(Endless(), name="writer", example=["a b"]) as service:
        yield service
        Endless.gate.set()


def listen(service: Service) -> http.client.HTTPConnection:
    """Ask for a stream, and wait until the model is at it."""
    connection = http.client.HTTPConnection("127.0.0.1", int(service.url[17:]), timeout=10)
    path = "/v2/models/writer/generate_stream"
    connection.request("POST", path, b'{"input": "a"}', {**bearer(service)})
    assert Endless.begun.wait(10)
    return connection


def test_a_stream_whose_client_leaves_before_its_first_part_ends(endless: Service) -> None:
    listen(endless).close()
    time.sleep(0.3)  # until the server has seen it
    Endless.gate.set()
    assert Endless.closed.wait(10)
    begun = time.monotonic()
    endless.stop()
    assert time.monotonic() - begun < 3


def test_a_stream_whose_first_part_comes_too_late_ends(endless: Service) -> None:
    headers = {**bearer(endless), "X-Request-Timeout": "0.2"}
    path = "/v2/models/writer/generate_stream"
    late = ask(endless, "POST", path, b'{"input": "a"}', headers)
    assert (late.status, late.error[:40]) == (504, "no first part within X-Request-Timeout: ")
    assert not Endless.closed.is_set()  # nobody waited for the model
    Endless.gate.set()
    assert Endless.closed.wait(10)


def test_so_many_streams_are_open_at_once(
    endless: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(answering, "MAX_STREAMS", 1)
    first, path = listen(endless), "/v2/models/writer/generate_stream"
    full = ask(endless, "POST", path, b'{"input": "a"}')
    assert (full.status, full.headers["Retry-After"]) == (429, "1")
    assert full.error == "1 streams are open already: try again later"
    first.close()
    Endless.gate.set()
    assert Endless.closed.wait(10)
    Endless.begun.clear()
    time.sleep(0.1)
    second = listen(endless)
    assert second.getresponse().status == 200
    second.close()


def test_a_model_that_does_not_stream_is_one_event() -> None:
    with serve(small_model(), name="writer", example=ROWS) as service:
        (said,) = events(service, b'{"input": [1, 2]}')
        assert said["output"] == small_model()(torch.tensor([[1.0, 2.0]]))[0].tolist()


def test_an_answer_of_a_live_model_names_its_weights() -> None:
    model = small_model()
    with serve(model, name="m", example=ROWS, mode="live") as service:
        first = ask(service, "POST", "/v2/models/m/infer", infer_body()).json
        with torch.no_grad():
            next(p for p in model.parameters() if p.ndim == 1).add_(1)
        second = ask(service, "POST", "/v2/models/m/infer", infer_body()).json
    assert first["parameters"]["hash"] != second["parameters"]["hash"]
    assert second["outputs"][0]["data"][0] == pytest.approx(first["outputs"][0]["data"][0] + 1)


@pytest.mark.parametrize("said", ["0", "-1", "soon", "inf", "nan"])
def test_a_timeout_that_is_none_is_refused(kept: Service, said: str) -> None:
    headers = {**bearer(kept), "X-Request-Timeout": said}
    answer = ask(kept, "POST", "/v2/models/kept/infer", infer_body(), headers)
    assert answer.error.startswith(f"X-Request-Timeout is '{said}': expected seconds, above 0")


def test_a_timeout_begins_with_the_request(kept: Service) -> None:
    def slowly() -> Iterator[bytes]:
        yield infer_body()[:9]
        time.sleep(0.3)
        yield infer_body()[9:]

    headers = {**bearer(kept), "X-Request-Timeout": "0.2"}
    late = ask(kept, "POST", "/v2/models/kept/infer", slowly(), headers)
    assert late.status == 504
    assert late.error == "the timeout of 0.2 s was over before the request was read"
    headers["X-Request-Timeout"] = "20"
    assert ask(kept, "POST", "/v2/models/kept/infer", slowly(), headers).status == 200


def test_labels_are_bounded_by_answer(kept: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(answering, "MAX_LABELS", 6)
    for count, status in [(1, 200), (2, 200), (3, 400), (2**60, 400)]:
        outputs = [{"name": "output", "parameters": {"classification": count}}]
        answer = ask(kept, "POST", "/v2/models/kept/infer", infer_body(outputs=outputs))
        assert answer.status == status
    assert answer.error.startswith("the answer would have 9 labels, expected at most 6: ask for f")


LARGE = 2**17  # rows


@pytest.mark.parametrize(
    ("path", "reads", "writes", "body"),
    [
        ("/v2/models/kept/infer", "read_infer", "_infer_answer", infer_body(torch.ones(LARGE, 2))),
        (
            "/v1/models/kept:predict", "_read_v1", "_v1_answer",
            json.dumps({"instances": LARGE * [[1, 2]]}).encode(),
        ),
        (
            "/models/kept/predict", "read_rows", "_rows_answer",
            json.dumps(LARGE * [[1, 2]]).encode(),
        ),
        (
            "/v2/models/kept/generate", "_one_row", "_flat_answer",
            json.dumps({"input": [1, 2], "parameters": "x" * 2**20}).encode(),
        ),
    ],
)  # fmt: skip
def test_what_takes_long_leaves_the_event_loop_alone(
    kept: Service, monkeypatch: pytest.MonkeyPatch, path: str, reads: str, writes: str, body: bytes
) -> None:
    seen: dict[str, str] = {}
    for name in (reads, writes):
        monkeypatch.setattr(answering, name, seen_by(getattr(answering, name), name, seen))
    assert ask(kept, "POST", path, body).status == 200
    assert not seen[reads].startswith("workbench-serve")
    if not path.endswith("generate"):  # whose answer is a row
        assert not seen[writes].startswith("workbench-serve")


def test_a_small_request_wakes_no_other_thread(
    kept: Service, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: dict[str, str] = {}
    for name in ("read_infer", "_infer_answer"):
        monkeypatch.setattr(answering, name, seen_by(getattr(answering, name), name, seen))
    assert ask(kept, "POST", "/v2/models/kept/infer", infer_body()).status == 200
    assert {name.rpartition("-")[0] for name in seen.values()} == {"workbench-serve"}


def seen_by(work: Any, name: str, seen: dict[str, str]) -> Any:
    """Return what does as `work`, and notes the name of the thread that it is done in."""

    def noting(*given: Any) -> Any:
        seen[name] = threading.current_thread().name
        return work(*given)

    return noting


def test_statistics_tell_of_every_version_that_is_here(kept: Service) -> None:
    for _ in range(3):
        ask(kept, "POST", "/v2/models/kept/infer", infer_body())
    (told,) = ask(kept, "GET", "/v2/models/kept/stats").json["model_stats"]
    assert (told["version"], told["inference_count"], told["execution_count"]) == ("2", 9, 3)
    assert ask(kept, "GET", "/v2/models/stats").json["model_stats"] == [told]
    stats = kept.stats()
    assert (stats.requests, stats.rows, stats.batches, stats.refused) == (3, 9, 3, {})


def test_v1_says_what_its_clients_look_for(kept: Service) -> None:
    told = ask(kept, "GET", "/v1/models/kept").json
    assert told["ready"] is True
    assert told["model_version_status"][0]["state"] == "AVAILABLE"
    assert ask(kept, "GET", "/v1/models/kept/labels/champion").json["name"] == "kept"
    said = ask(kept, "GET", "/v1/models/kept/versions/2/metadata").json
    inputs = said["metadata"]["signature_def"]["signature_def"]["serving_default"]["inputs"]
    assert inputs["input"]["dtype"] == "DT_FLOAT"
    column = ask(kept, "POST", "/v1/models/kept:predict", b'{"inputs": [[1, 2]]}').json
    expected = small_model(2)(torch.tensor([[1.0, 2.0]])).tolist()
    assert column["outputs"] == [pytest.approx(expected[0])]


def test_a_config_is_triton_s(kept: Service) -> None:
    told = ask(kept, "GET", "/v2/models/kept/config").json
    assert told["input"] == [{"name": "input", "data_type": "TYPE_FP32", "dims": [2]}]
    assert told["max_batch_size"] == 256
