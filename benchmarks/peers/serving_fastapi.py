"""FastAPI as its users write it: a pydantic model, a plain `def`, a forward for each request.

It is run by uvicorn's command, with uvloop and httptools.
"""

from __future__ import annotations

import torch
from fastapi import FastAPI  # type: ignore[import-not-found]
from pydantic import BaseModel
from serving_task import SHAPE, served_net

app = FastAPI()
net = served_net()


class Image(BaseModel):
    """One image, its pixels one after the other."""

    pixels: list[float]


class Answer(BaseModel):
    """What the net says of it."""

    output: list[float]


@app.post("/predict")  # type: ignore[untyped-decorator]
def predict(image: Image) -> Answer:
    """Answer one request; FastAPI calls it in a thread of its pool."""
    rows = torch.tensor(image.pixels).reshape(1, *SHAPE)
    with torch.inference_mode():
        return Answer(output=net(rows)[0].tolist())
