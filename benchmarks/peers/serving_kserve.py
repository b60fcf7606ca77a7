"""The KServe SDK with a custom predictor, as its documentation shows it."""

from __future__ import annotations

import torch
from kserve import (  # type: ignore[import-not-found]
    InferOutput,
    InferRequest,
    InferResponse,
    Model,
    ModelServer,
)
from kserve.utils.utils import generate_uuid  # type: ignore[import-not-found]
from serving_task import PORT, served_net


class Lenet(Model):  # type: ignore[misc]
    """The net as a predictor."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.load()

    def load(self) -> bool:
        """Load the net."""
        self.net = served_net()
        self.ready = True
        return self.ready

    def predict(
        self,
        payload: InferRequest,
        headers: dict[str, str] | None = None,
        response_headers: dict[str, str] | None = None,
    ) -> InferResponse:
        """Answer one request."""
        rows = torch.from_numpy(payload.inputs[0].as_numpy())
        with torch.inference_mode():
            output = self.net(rows).numpy()
        answer = InferOutput(name="output", shape=list(output.shape), datatype="FP32")
        answer.set_data_from_numpy(output, binary_data=False)
        return InferResponse(
            response_id=payload.id or generate_uuid(), model_name=self.name, infer_outputs=[answer]
        )


if __name__ == "__main__":
    ModelServer(http_port=PORT, enable_grpc=False, workers=1, enable_latency_logging=False).start(
        [Lenet("lenet")]
    )
