"""MLServer with a custom runtime and adaptive batching, as its documentation shows them.

The model is beside the server, not in a worker process: those do not start with uvloop 0.23, and
with 0.21 they took a third more of the processor for each answer.
"""

from __future__ import annotations

import asyncio

import torch
from mlserver import MLModel, MLServer  # type: ignore[import-not-found]
from mlserver.codecs import NumpyCodec  # type: ignore[import-not-found]
from mlserver.settings import ModelSettings, Settings  # type: ignore[import-not-found]
from mlserver.types import (  # type: ignore[import-not-found]
    InferenceRequest,
    InferenceResponse,
)
from serving_task import PORT, served_net


class Lenet(MLModel):  # type: ignore[misc]
    """The net as a runtime; MLServer joins several requests before it calls `predict`."""

    async def load(self) -> bool:
        """Load the net, once a worker."""
        self.net = served_net()
        return True

    async def predict(self, payload: InferenceRequest) -> InferenceResponse:
        """Answer a batch."""
        rows = torch.from_numpy(self.decode(payload.inputs[0], default_codec=NumpyCodec))
        with torch.inference_mode():
            output = self.net(rows).numpy()
        return InferenceResponse(
            model_name=self.name, outputs=[NumpyCodec.encode_output("output", output)]
        )


async def main() -> None:
    """Serve until told to stop."""
    settings = Settings(
        host="127.0.0.1",
        http_port=PORT,
        grpc_port=PORT + 1,
        metrics_port=PORT + 2,
        debug=False,
        parallel_workers=0,
    )
    model = ModelSettings(
        name="lenet", implementation=Lenet, max_batch_size=32, max_batch_time=0.001
    )
    await MLServer(settings).start([model])


if __name__ == "__main__":
    asyncio.run(main())
