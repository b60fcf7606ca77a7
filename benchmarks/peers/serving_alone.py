"""The net alone, without a server: images a second, one by one and by 32, on one thread."""

from __future__ import annotations

import json
import os
import time

import torch
from serving_task import SHAPE, served_net

SECONDS = float(os.environ["SERVING_SECONDS"])  # for each size


def images_a_second(rows: int) -> float:
    """Return how many images a second the net answers, `rows` at a time."""
    net, images, done = served_net(), torch.rand(rows, *SHAPE), 0
    with torch.inference_mode():
        for _ in range(50):
            net(images)
        began = time.perf_counter()
        while time.perf_counter() - began < SECONDS:
            net(images)
            done += rows
    return done / (time.perf_counter() - began)


if __name__ == "__main__":
    print(json.dumps({rows: images_a_second(rows) for rows in (1, 32)}))
