"""A raw handler: what a server costs that does the least, and one that does nothing.

`/infer` reads the Open Inference Protocol by msgspec straight into typed lists, or raw bytes; it
asks the net there and then, one image at a time. `/empty` reads the body and answers `{}`.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
import torch
import uvicorn
from serving_task import PORT, SHAPE, served_net

net = served_net()


class Tensor(msgspec.Struct):
    """One input of a request."""

    name: str
    shape: list[int]
    datatype: str
    data: list[float] = []
    parameters: dict[str, int] = {}


class Request(msgspec.Struct):
    """A request."""

    inputs: list[Tensor]


DECODER = msgspec.json.Decoder(Request)


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    """Answer one request."""
    parts, more = [], True
    while more:
        message = await receive()
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    body = b"".join(parts)
    answer = b"{}" if scope["path"] == "/empty" else infer(body, scope["headers"])
    headers = [
        (b"content-type", b"application/json"),
        (b"content-length", str(len(answer)).encode()),
    ]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": answer})


def infer(body: bytes, headers: list[tuple[bytes, bytes]]) -> bytes:
    """Return the answer to one image, in JSON."""
    length = next((v for name, v in headers if name == b"inference-header-content-length"), None)
    if length is None:
        array = np.array(DECODER.decode(body).inputs[0].data, dtype=np.float32)
    else:
        head = int(length)
        DECODER.decode(memoryview(body)[:head])
        array = np.frombuffer(body, dtype=np.float32, offset=head).copy()
    with torch.inference_mode():
        output = net(torch.from_numpy(array).reshape(1, *SHAPE))[0].tolist()
    told = {"name": "output", "shape": [1, len(output)], "datatype": "FP32", "data": output}
    return msgspec.json.encode({"model_name": "lenet", "outputs": [told]})


if __name__ == "__main__":
    uvicorn.run(
        app,
        host="127.0.0.1",
        port=PORT,
        loop="uvloop",
        http="httptools",
        lifespan="off",
        access_log=False,
        log_level="warning",
    )
