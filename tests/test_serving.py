"""What a service answers, over a real socket: equal to the local answer, or a clear error."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
import tritonclient.http as triton
from asking import ROWS, ask, bearer, infer_body, small_model
from torch import Tensor, nn

import workbench as wb
from workbench.errors import RequestError
from workbench.serving import Service, serve
from workbench.serving.bodies import MAX_BODY


@pytest.fixture
def client(service: Service) -> Iterator[triton.InferenceServerClient]:
    with triton.InferenceServerClient(service.url.removeprefix("http://")) as made:
        yield made


def local(rows: Tensor = ROWS) -> np.ndarray[Any, Any]:
    return wb.predict(small_model(), rows).output.numpy()


def test_health_and_metadata(service: Service) -> None:
    assert ask(service, "GET", "/v2/health/live", headers={}).json["live"] is True
    assert ask(service, "GET", "/v2/health/ready").json["ready"] is True
    for path in ("/v2", "/v2/"):
        told = ask(service, "GET", path).json
        assert told["name"] == "workbench"
        assert told["version"] == wb.__version__
        assert "binary_tensor_data" in told["extensions"]


@pytest.mark.parametrize("path", ["/v2/models/small", "/v2/models/small/versions/0"])
def test_metadata_of_the_model(service: Service, path: str) -> None:
    assert ask(service, "GET", path).json == {
        "name": "small",
        "versions": ["0"],
        "platform": "pytorch",
        "parameters": {"model": service.model},
        "inputs": [{"name": "input", "datatype": "FP32", "shape": [-1, 2]}],
        "outputs": [{"name": "output", "datatype": "FP32", "shape": [-1, 3]}],
    }
    assert ask(service, "GET", f"{path}/ready").json == {"name": "small", "ready": True}


@pytest.mark.parametrize("path", ["/v2/models/small/infer", "/v2/models/small/versions/0/infer"])
def test_json_infer_equals_the_local_answer(service: Service, path: str) -> None:
    answer = ask(service, "POST", path, infer_body(id="seven"))
    assert answer.headers["Content-Type"] == "application/json"
    assert answer.headers["Inference-Header-Content-Length"] is None
    (output,) = answer.json.pop("outputs")
    told = {key: answer.json[key] for key in ("id", "model_name", "model_version")}
    assert told == {"id": "seven", "model_name": "small", "model_version": "0"}
    array = np.array(output["data"], np.float32).reshape(output["shape"])
    np.testing.assert_array_equal(array, local())


@pytest.mark.parametrize("sent", [True, False])
@pytest.mark.parametrize("wanted", [True, False, None])
def test_unmodified_tritonclient_gets_the_local_answer(
    service: Service, client: triton.InferenceServerClient, sent: bool, wanted: bool | None
) -> None:
    tensor = triton.InferInput("input", [3, 2], "FP32")
    tensor.set_data_from_numpy(ROWS.numpy(), binary_data=sent)
    outputs = None
    if wanted is not None:
        outputs = [triton.InferRequestedOutput("output", binary_data=wanted)]
    result = client.infer(
        "small", [tensor], outputs=outputs, request_id="9", headers=bearer(service)
    )
    np.testing.assert_array_equal(result.as_numpy("output"), local())
    assert result.get_response()["id"] == "9"


def test_tritonclient_with_the_token_as_a_plugin(
    service: Service, client: triton.InferenceServerClient
) -> None:
    class Token(triton.InferenceServerClientPlugin):  # type: ignore[misc]  # untyped package
        def __call__(self, request: Any) -> None:
            request.headers.update(bearer(service))

    client.register_plugin(Token())
    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("small", "0")
    assert not client.is_model_ready("other")
    assert client.get_model_metadata("small")["outputs"][0]["shape"] == [-1, 3]
    with pytest.raises(triton.InferenceServerException, match="unknown model 'other'"):
        client.get_model_metadata("other")


def test_a_raw_binary_body(service: Service) -> None:
    headers = {**bearer(service), "Inference-Header-Content-Length": "0"}
    answer = ask(service, "POST", "/v2/models/small/infer", ROWS.numpy().tobytes(), headers)
    length = int(answer.headers["Inference-Header-Content-Length"])
    assert answer.headers["Content-Type"] == "application/octet-stream"
    assert json.loads(answer.body[:length])["outputs"][0]["shape"] == [3, 3]
    assert answer.body[length:] == local().tobytes()


@pytest.mark.parametrize("path", ["/v1/models/small:predict", "/v1/models/small%3Apredict"])
def test_v1_predicts_the_same_numbers(service: Service, path: str) -> None:
    body = json.dumps({"instances": ROWS.tolist()}).encode()
    predictions = ask(service, "POST", path, body).json["predictions"]
    np.testing.assert_array_equal(np.array(predictions, np.float32), local())


def test_a_chunked_body_is_read(service: Service) -> None:
    body = infer_body()
    parts = iter([body[:10], body[10:50], body[50:]])
    assert ask(service, "POST", "/v2/models/small/infer", parts).status == 200


def test_what_is_not_finite_is_refused_before_the_model(service: Service) -> None:
    rows = torch.tensor([[float("nan"), 1.0], [1.0, 1.0]])
    with pytest.raises(RequestError, match="inputs hold NaN or infinite values in 1 of 2 rows"):
        service.predict(rows)
    headers = {**bearer(service), "Inference-Header-Content-Length": "0"}
    told = ask(service, "POST", "/v2/models/small/infer", rows.numpy()[:1].tobytes(), headers)
    assert (told.status, b"inputs hold NaN" in told.body) == (400, True)


INFER = "/v2/models/small/infer"
PREDICT = "/v1/models/small:predict"


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "message"),
    [
        ("GET", "/v3", None, 404, "there is no GET /v3: GET /v2 says what this service is"),
        ("GET", "/v2/health/live/", None, 404, "there is no GET /v2/health/live/"),
        ("GET", "/v2/models/x", None, 404, "unknown model 'x': this service has 'small'"),
        ("POST", "/v2/models/x/infer", b"{}", 404, "unknown model 'x'"),
        ("POST", "/v1/models/x:predict", b"{}", 404, "unknown model 'x'"),
        ("GET", "/v2/models/small/versions/7", None, 404, "unknown version '7' of 'small'"),
        ("PUT", INFER, b"", 405, f"PUT {INFER} is not offered: expected POST"),
        ("DELETE", "/v2", None, 405, "DELETE /v2 is not offered: expected GET, HEAD"),
        ("POST", INFER, b"", 400, "the body is not JSON: Input data was truncated"),
        ("POST", INFER, b"{}", 400, "the body is not what was expected"),
        ("POST", INFER, infer_body(ROWS[:0]), 400, "there are no rows to predict"),
        ("POST", INFER, infer_body(ROWS[:, :1]), 400, "has the shape [3, 1], expected [-1, 2]"),
        ("POST", PREDICT, b'{"instances": []}', 400, "inputs have the shape (0,)"),
        ("POST", PREDICT, b'{"instances": [1, 2]}', 400, "the rows are 2 values of one row"),
        ("POST", PREDICT, b'{"instances": [[1, 2, 3]]}', 400, "expected rows of (2,)"),
        ("POST", PREDICT, b'{"instances": [[1, "a"]]}', 400, "are not an array of numbers"),
        ("POST", PREDICT, b'{"instances": [[1], [1, 2]]}', 400, "are not an array of numbers"),
        ("POST", PREDICT, b'{"instances": [[1, null]]}', 400, "are not an array of numbers"),
        ("POST", PREDICT, b'{"instances": [[1, 1e39]]}', 400, "inputs hold NaN or infinite"),
        ("POST", PREDICT, b'{"rows": [[1, 2]]}', 400, "the body needs either instances, a list of"),
    ],
)
def test_every_error_is_told_in_one_form(
    service: Service, method: str, path: str, body: bytes | None, status: int, message: str
) -> None:
    answer = ask(service, method, path, body)
    assert (answer.status, message in answer.error) == (status, True), answer.error
    assert ask(service, "GET", "/v2/health/ready").status == 200


def test_a_body_encoded_in_an_unknown_way_is_refused(service: Service) -> None:
    headers = {**bearer(service), "Content-Encoding": "zstd"}
    answer = ask(service, "POST", INFER, b"x", headers)
    assert (answer.status, answer.error[:32]) == (415, "Content-Encoding 'zstd' is not o")
    assert answer.headers["Accept-Encoding"] == "gzip, deflate"


@pytest.mark.parametrize("chunked", [False, True])
def test_a_body_too_large_is_heard_to_be(service: Service, chunked: bool) -> None:
    part = bytes(2**20)
    parts = (part for _ in range(MAX_BODY // len(part) + 1))
    answer = ask(service, "POST", INFER, parts if chunked else b"".join(parts))
    assert answer.status == 413
    assert answer.error.startswith(f"the body is larger than {MAX_BODY} bytes: send the rows in")
    assert ask(service, "POST", INFER, infer_body()).status == 200


class Slow(nn.Module):
    """Waits for `gate`, and raises for negative rows."""

    gate = threading.Event()

    def forward(self, x: Tensor) -> Tensor:
        self.gate.wait(20)
        if bool((x < 0).any()):
            raise ArithmeticError("secret detail")
        return x


def test_a_model_that_raises_is_a_500_whose_traceback_the_service_keeps(
    capfd: pytest.CaptureFixture[str],
) -> None:
    Slow.gate.set()
    with serve(Slow(), example=ROWS) as running:
        assert running.last_error is None
        answer = ask(running, "POST", "/v2/models/model/infer", infer_body(-ROWS))
        assert answer.status == 500
        said = "the model raised ArithmeticError; service.last_error in the kernel, or stderr of"
        assert answer.error.startswith(f"{said} workbench serve, has request ")
        assert "secret" not in answer.error
        kept = (running.last_error or "").splitlines()
        assert kept[0] == f"request {answer.error.split()[-1]} failed"
        assert (kept[1], kept[-1]) == (
            "Traceback (most recent call last):", "ArithmeticError: secret detail"
        )  # fmt: skip
        ask(running, "POST", "/v2/models/model/infer", b"{")
        assert running.last_error == "\n".join([*kept, ""])
        stats = running.stats()
        assert (stats.requests, stats.errors, stats.mean_seconds) == (2, 2, None)
    assert capfd.readouterr() == ("", "")


def test_bytes_that_are_no_request_are_told_as_every_error(service: Service) -> None:
    with socket.create_connection(("127.0.0.1", int(service.url[17:]))) as raw:
        raw.sendall(b"\x16\x03\x01 no http\r\n\r\n")
        head, _, body = b"".join(iter(lambda: raw.recv(4096), b"")).partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert b"\r\ncontent-type: application/json\r\n" in head
    assert list(told := json.loads(body)) == ["error"]
    assert told["error"].startswith("the bytes are no HTTP/1.1 request: ask by http://")
    assert ask(service, "GET", "/v2/health/ready").status == 200


def test_a_full_line_refuses_and_says_when_to_come_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("workbench.serving.batching.MAX_REQUESTS", 64)
    Slow.gate.set()
    with serve(Slow(), name="slow", example=ROWS) as running:
        Slow.gate.clear()
        answers = []

        def one() -> None:
            answers.append(ask(running, "POST", "/v2/models/slow/infer", infer_body()))
            if answers[-1].status == 429:
                Slow.gate.set()

        threads = [threading.Thread(target=one) for _ in range(65)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(30)
    (full,) = [answer for answer in answers if answer.status != 200]
    assert full.headers["Retry-After"] == "1"
    assert full.error == "64 requests are waiting already: try again later"


def test_only_inferences_are_counted() -> None:
    with serve(small_model(), example=ROWS) as running:
        assert running.stats().requests == 0
        for _ in range(3):
            running.predict(ROWS)
        ask(running, "POST", "/v2/models/model/infer", b"{")
        stats = running.stats()
        assert (stats.requests, stats.errors) == (4, 1)
        assert 0 < (stats.mean_seconds or 0) < 5


def test_a_fitted_classifier_answers_with_labels() -> None:
    images = torch.randint(0, 256, (20, 16, 16, 3), dtype=torch.uint8)
    data = wb.dataset("noise", train=(images, torch.arange(20) % 4), classes=["a", "b", "c", "d"])
    model = wb.build("convnet", data, seed=0)
    rows = data.train.inputs
    with serve(model, name="noise") as running:
        assert ask(running, "GET", "/v2/models/noise").json["classes"] == ["a", "b", "c", "d"]
        asked, told = running.predict(rows), wb.predict(model, rows)
        assert torch.equal(asked.output, told.output)
        assert asked.probabilities is not None
        assert told.probabilities is not None
        assert torch.equal(asked.probabilities, told.probabilities)
        assert asked.labels == told.labels
        body = json.dumps({"instances": rows.tolist()}).encode()
        v1 = ask(running, "POST", "/v1/models/noise:predict", body).json["predictions"]
        assert np.array_equal(np.array(v1, np.float32), told.output.numpy())
        lossy = json.dumps({"instances": (rows + 0.5).tolist()}).encode()
        refused = ask(running, "POST", "/v1/models/noise:predict", lossy)
        assert "do not fit uint8 without loss" in refused.error
