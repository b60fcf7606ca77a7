"""Models of each kind that a service's page has a form for, with hostile names in what they say."""

from __future__ import annotations

from collections.abc import Iterator

import pandas as pd
import torch
from torch import Tensor, nn

from workbench.datasets import Dataset, dataset
from workbench.evaluation import evaluate
from workbench.models import build
from workbench.registry import promote, publish
from workbench.serving import Service, serve
from workbench.training import fit

__all__ = ["EVIL", "KINDS", "Pair", "Shout", "people", "serve_all", "shades"]

EVIL = "</script><img src=x onerror='document.documentElement.dataset.ran=1'>\"&amp;"
KINDS = {"shades": "image", "people": "table", "shout": "text", "pair": "json"}


class Shout(nn.Module):
    """Texts to louder texts."""

    def forward(self, text: list[str]) -> list[str]:
        return [one.upper() for one in text]

    def stream(self, text: list[str]) -> Iterator[str]:
        yield from text[0].upper() or "…"


class Pair(nn.Module):
    """Two inputs to two outputs."""

    def forward(self, left: Tensor, right: Tensor) -> dict[str, Tensor]:
        return {"sum": left + right.unsqueeze(1), "right": right}


def shades() -> Dataset:
    """Return pictures 4 wide and 6 high, which are dark or bright."""
    bright = torch.arange(20) % 2
    inputs = (torch.rand(20, 6, 4, 3) * 99 + 150 * bright.reshape(-1, 1, 1, 1)).to(torch.uint8)
    return dataset("shades", train=(inputs, bright), test=(inputs, bright), classes=("dark", EVIL))


def people() -> nn.Module:
    """Return a model of rows with named columns to a number."""
    rows = pd.DataFrame(torch.rand(20, 3).numpy(), columns=["age", EVIL, "1"])
    data = dataset("people", train=(rows, rows["age"] * 2), test=(rows, rows["age"] * 2))
    net = build("linear", data, seed=0)
    fit(net, data, steps=2, batch_size=20)
    return net


def serve_all() -> dict[str, Service]:
    """Serve a model of each kind, all on one server; of pictures a version with an alias."""
    data = shades()
    net = build("mlp", data, seed=0)
    fit(net, data, steps=2, batch_size=20)
    made = publish(net, "shades", evaluation=evaluate(net, data.test))
    promote(made.ref, "champion")
    pair = {"left": torch.rand(2, 3), "right": torch.tensor([1.0, 2.0])}
    return {
        "shades": serve(made),
        "people": serve(people(), name="people"),
        "shout": serve(Shout(), name="shout", example=["<hello> & 'you'"]),
        "pair": serve(Pair(), name="pair", example=pair),
    }
