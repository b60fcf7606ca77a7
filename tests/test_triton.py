"""Triton's own clients, unmodified: every method works, or is answered by 501 and says why.

In a kernel, and by `workbench serve` with two workers.
"""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
import tritonclient.http as sync
from asking import ROWS, small_model
from supervised import serving
from torch import nn
from tritonclient.http import aio
from tritonclient.utils import InferenceServerException

from workbench.registry import list_models, publish
from workbench.serving import Listing, Service, serve

NOT_OFFERED: dict[str, tuple[Any, ...]] = {
    "get_trace_settings": ("small",),
    "update_trace_settings": ("small", {"trace_level": ["OFF"]}),
    "get_log_settings": (),
    "update_log_settings": ({"log_info": True},),
    "get_system_shared_memory_status": (),
    "register_system_shared_memory": ("region", "/key", 64),
    "unregister_system_shared_memory": ("region",),
    "get_cuda_shared_memory_status": ("region",),
    "register_cuda_shared_memory": ("region", b"aGFuZGxl", 0, 64),
    "unregister_cuda_shared_memory": (),
}
OFFERED: dict[str, tuple[Any, ...]] = {
    "is_server_live": (),
    "is_server_ready": (),
    "is_model_ready": ("small", "1"),
    "get_server_metadata": (),
    "get_model_metadata": ("small",),
    "get_model_config": ("small", "1"),
    "get_model_repository_index": (),
    "get_inference_statistics": ("small",),
    "load_model": ("kept",),
    "unload_model": ("kept",),
}
OWN = {  # these ask nothing of a server
    *("close", "generate_request_body", "parse_response_body"),
    *("plugin", "register_plugin", "unregister_plugin"),
}
INFER = {"infer", "async_infer"}


class Pair(nn.Module):
    """Takes numbers and texts, answers their sum and their join."""

    def forward(self, number: torch.Tensor, text: list[str]) -> dict[str, Any]:
        return {"sum": number.sum(1), "join": [t + "!" for t in text]}


class Half(nn.Module):
    """Answers what it is asked, in the precision it is asked in."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * 2


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> str:
    return str(tmp_path_factory.mktemp("home"))


@pytest.fixture(autouse=True)
def _shared_home(_own_home: None, home: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", home)


EXAMPLES: dict[str, tuple[nn.Module, Any]] = {
    "small": (small_model(), ROWS),
    "kept": (small_model(), ROWS),
    "pair": (Pair(), {"number": torch.zeros(1, 2), "text": ["a"]}),
    "numbers": (Half(), {"x": torch.zeros(1, 2, dtype=torch.int64)}),
    "brain": (Half(), {"x": torch.zeros(1, 2, dtype=torch.bfloat16)}),
}


@pytest.fixture(scope="module", params=["kernel", "workers"])
def served(home: str, request: pytest.FixtureRequest) -> Iterator[Service | Listing]:
    """Serve several models by one server, whose administrator the clients are."""
    with pytest.MonkeyPatch.context() as patch, ExitStack() as stack:
        patch.setenv("WORKBENCH_HOME", home)
        patch.setenv("WORKBENCH_ADMIN_TOKEN", "admin")
        if not list_models():
            for name, (model, example) in EXAMPLES.items():
                publish(model, name, example=example)
        if request.param == "kernel":
            service = stack.enter_context(serve("small", admin_token="admin"))
            for name in ("pair", "numbers", "brain"):
                stack.enter_context(serve(name))
            yield service
        else:
            listing = stack.enter_context(serving("small", "--workers", "2")).service()
            with sync.InferenceServerClient(listing.url.removeprefix("http://")) as made:
                made.register_plugin(Admin())
                for name in ("pair", "numbers", "brain"):
                    made.load_model(name)
            yield listing


@pytest.fixture
def client(served: Service | Listing) -> Iterator[sync.InferenceServerClient]:
    with sync.InferenceServerClient(served.url.removeprefix("http://")) as made:
        made.register_plugin(Admin())
        yield made


class Admin(sync.InferenceServerClientPlugin):  # type: ignore[misc]
    def __call__(self, request: Any) -> None:
        request.headers["Authorization"] = "Bearer admin"


def methods(kind: type) -> set[str]:
    return {n for n, _ in inspect.getmembers(kind, callable) if not n.startswith("_")}


def test_every_method_of_both_clients_is_looked_at() -> None:
    looked_at = OFFERED.keys() | NOT_OFFERED.keys() | OWN | INFER
    assert methods(sync.InferenceServerClient) <= looked_at
    assert methods(aio.InferenceServerClient) <= looked_at


@pytest.mark.parametrize("name", OFFERED)
def test_it_works(client: sync.InferenceServerClient, served: Service | Listing, name: str) -> None:
    client.load_model("kept")
    said = getattr(client, name)(*OFFERED[name])
    assert said is not False
    client.load_model("kept")
    assert alike(asyncio.run(aio_call(served, name, *OFFERED[name]))) == alike(said)


def alike(said: Any) -> Any:
    """Return what every worker says alike: how fast its engines are each has measured itself."""
    return {**said, "parameters": {}} if isinstance(said, dict) else said


@pytest.mark.parametrize("name", NOT_OFFERED)
def test_it_is_refused_by_501(
    client: sync.InferenceServerClient, served: Service | Listing, name: str
) -> None:
    for call in (
        lambda: getattr(client, name)(*NOT_OFFERED[name]),
        lambda: asyncio.run(aio_call(served, name, *NOT_OFFERED[name])),
    ):
        with pytest.raises(InferenceServerException, match="is not offered") as failed:
            call()  # type: ignore[no-untyped-call]
        assert failed.value.status() == "501"


async def aio_call(service: Service | Listing, name: str, *given: Any, **more: Any) -> Any:
    async with aio.InferenceServerClient(service.url.removeprefix("http://")) as client:
        client.register_plugin(Admin())
        return await getattr(client, name)(*given, **more)


def tensor(name: str, array: np.ndarray[Any, Any], datatype: str, *, binary: bool = True) -> Any:
    made = sync.InferInput(name, list(array.shape), datatype)
    made.set_data_from_numpy(array, binary_data=binary)
    return made


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize("compression", [None, "gzip", "deflate"])
def test_rows_are_answered_however_they_come(
    client: sync.InferenceServerClient,
    served: Service | Listing,
    binary: bool,
    compression: str | None,
) -> None:
    rows = np.tile(ROWS.numpy(), (400, 1))  # enough that the answer is worth packing
    inputs, outputs = (
        [tensor("input", rows, "FP32", binary=binary)],
        [sync.InferRequestedOutput("output", binary_data=binary)],
    )
    packed = dict.fromkeys(
        ("request_compression_algorithm", "response_compression_algorithm"), compression
    )
    expected = small_model()(torch.from_numpy(rows)).detach().numpy()
    for wanted in (None, outputs):
        said = client.infer("small", inputs, outputs=wanted, request_id="7", **packed)
        np.testing.assert_allclose(said.as_numpy("output"), expected, rtol=1e-5)
        assert said.get_response()["id"] == "7"
        said = asyncio.run(aio_call(served, "infer", "small", inputs, outputs=wanted, **packed))
        np.testing.assert_allclose(said.as_numpy("output"), expected, rtol=1e-5)


def test_async_infer_answers(client: sync.InferenceServerClient) -> None:
    rows = [tensor("input", ROWS.numpy(), "FP32")]
    asked = [client.async_infer("small", rows) for _ in range(3)]
    for request in asked:
        assert request.get_result().as_numpy("output").shape == (3, 3)


@pytest.mark.parametrize("binary", [True, False])
def test_several_named_inputs_and_outputs(client: sync.InferenceServerClient, binary: bool) -> None:
    texts = np.array(["über".encode(), b""], dtype=object)
    numbers = np.array([[1, 2], [3, 4]], dtype=np.float32)
    inputs = [
        tensor("text", texts, "BYTES", binary=binary),
        tensor("number", numbers, "FP32", binary=not binary),
    ]
    said = client.infer("pair", inputs)
    assert said.as_numpy("sum").tolist() == [3, 7]
    assert said.as_numpy("join").tolist() == ["über!".encode(), b"!"]
    one = client.infer("pair", inputs, outputs=[sync.InferRequestedOutput("join")])
    assert [out["name"] for out in one.get_response()["outputs"]] == ["join"]


def test_other_datatypes_keep_theirs(client: sync.InferenceServerClient) -> None:
    whole = np.array([[2**60, -1]], dtype=np.int64)
    said = client.infer("numbers", [tensor("input", whole, "INT64")])
    assert (said.as_numpy("output") == whole * 2).all()
    halves = np.array([[1.5, -2.0]], dtype=ml_dtypes.bfloat16)
    said = client.infer("brain", [tensor("input", halves, "BF16")])
    assert said.get_output("output")["datatype"] == "BF16"
    assert said.as_numpy("output").tolist() == [[3.0, -4.0]]


def test_classification_names_the_classes(client: sync.InferenceServerClient) -> None:
    wanted = [sync.InferRequestedOutput("output", class_count=2)]
    said = client.infer("small", [tensor("input", ROWS.numpy(), "FP32")], outputs=wanted)
    best = small_model()(ROWS).argmax(1).tolist()
    tops = [row[0].decode().split(":") for row in said.as_numpy("output")]
    assert [int(index) for _, index, *_ in tops] == best


def test_an_error_says_what_is_wrong(
    client: sync.InferenceServerClient, served: Service | Listing
) -> None:
    wrong = [tensor("input", np.zeros((1, 3), np.float32), "FP32")]
    for call in (
        lambda: client.infer("small", wrong),
        lambda: asyncio.run(aio_call(served, "infer", "small", wrong)),
    ):
        with pytest.raises(InferenceServerException, match=r"shape \[1, 3\]") as failed:
            call()  # type: ignore[no-untyped-call]
        assert failed.value.status() == "400"


def test_versions_are_loaded_beside_each_other(
    client: sync.InferenceServerClient, tmp_path: Path
) -> None:
    client.load_model("kept")
    index = client.get_model_repository_index()
    assert {"name": "kept", "version": "1", "state": "READY", "reason": ""} in index
    client.unload_model("kept")
    assert not client.is_model_ready("kept")
    with pytest.raises(InferenceServerException, match="comes from the registry"):
        client.load_model("kept", config="{}")
    with pytest.raises(InferenceServerException, match="comes from the registry"):
        client.load_model("kept", config="{}", files={"file:1/model.pt": b"code"})
