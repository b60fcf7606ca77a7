"""What every server beside this file shares: the trained net, from where the benchmark put it."""

from __future__ import annotations

import os

import torch
from contest import Net
from safetensors.torch import load_file

__all__ = ["PORT", "SHAPE", "served_net"]

PORT = int(os.environ["SERVING_PORT"])
SHAPE = (3, 32, 32)  # of one image


def served_net() -> Net:
    """Return the net with its weights, fit to answer."""
    torch.set_num_threads(1)
    net = Net()
    net.load_state_dict(load_file(os.environ["SERVING_WEIGHTS"]))
    return net.eval()
