"""BentoML with adaptive batching, as its documentation shows it: `bentoml serve` of this file."""

from __future__ import annotations

import bentoml  # type: ignore[import-not-found]
import numpy as np
import torch
from serving_task import SHAPE, served_net


@bentoml.service(workers=1)
class Lenet:
    """The net; BentoML joins the arrays of several requests along their first axis."""

    def __init__(self) -> None:
        self.net = served_net()

    @bentoml.api(batchable=True, max_batch_size=32, max_latency_ms=1000)  # type: ignore[untyped-decorator]
    def predict(self, images: np.ndarray) -> np.ndarray:
        """Return the outputs of a batch."""
        rows = torch.from_numpy(images.astype(np.float32)).reshape(-1, *SHAPE)
        with torch.inference_mode():
            outputs: np.ndarray = self.net(rows).numpy()
        return outputs
