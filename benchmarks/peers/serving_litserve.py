"""LitServe with batching, as its documentation shows it."""

from __future__ import annotations

from typing import Any

import litserve  # type: ignore[import-not-found]
import torch
from serving_task import PORT, SHAPE, served_net
from torch import Tensor


class Lenet(litserve.LitAPI):  # type: ignore[misc]
    """The net in a worker process; LitServe stacks what `decode_request` returns."""

    def setup(self, device: str) -> None:
        """Load the net, once a worker."""
        self.net = served_net().to(device)

    def decode_request(self, request):  # type: ignore[no-untyped-def]
        """Return one image; LitServe reads a type said here as that of the query."""
        return torch.tensor(request["pixels"]).reshape(SHAPE)

    def predict(self, images: Tensor) -> Tensor:
        """Return the outputs of a batch."""
        with torch.inference_mode():
            outputs: Tensor = self.net(images)
        return outputs

    def encode_response(self, output: Tensor) -> dict[str, Any]:
        """Return one answer."""
        return {"output": output.tolist()}


if __name__ == "__main__":
    api = Lenet(max_batch_size=32, batch_timeout=0.01)
    server = litserve.LitServer(api, accelerator="cpu", workers_per_device=1)
    server.run(
        host="127.0.0.1",
        port=PORT,
        num_api_servers=1,
        log_level="warning",
        generate_client_file=False,
    )
