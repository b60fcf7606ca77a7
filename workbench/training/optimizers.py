"""The optimizer: which parameters it moves, how fast each, and which of them decay."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from workbench.errors import RequestError, UnknownNameError
from workbench.training.settings import Settings

__all__ = ["OPTIMIZERS", "Maker", "frozen", "make_optimizer", "set_rate", "train_mode"]

Maker = Callable[[list[dict[str, Any]]], Optimizer]

OPTIMIZERS = ("adamw", "nesterov", "sgd")


def make_optimizer(model: nn.Module, settings: Settings, maker: Maker | None = None) -> Optimizer:
    """Return an optimizer of the model's trainable parameters.

    Its groups carry `share`: the group's peak rate as a share of the training's. Weights decay;
    biases and the parameters of norms, which have one axis, do not (as in He et al., "Bag of
    Tricks", 2018).

    Args:
        model: on the device it is to be trained on.
        settings: optimizer, lr, lr_of, momentum, weight_decay.
        maker: of the user's own, from groups to an optimizer; None for the one that is named.

    Raises:
        RequestError: nothing is trainable, or there is no such optimizer.
    """
    groups = _groups(model, settings)
    if not groups:
        raise RequestError(f"{settings.model} has no parameter to train: all are frozen")
    if maker is not None:
        return maker(groups)
    fused = settings.device.split(":")[0] in ("cpu", "cuda") and _floats(groups)
    common: Any = {"lr": settings.lr, "fused": fused}
    if settings.optimizer in ("sgd", "nesterov"):
        nesterov = settings.optimizer == "nesterov"
        return torch.optim.SGD(groups, momentum=settings.momentum, nesterov=nesterov, **common)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(groups, betas=(settings.momentum, 0.999), **common)
    raise UnknownNameError("optimizer", settings.optimizer, OPTIMIZERS)


def set_rate(optimizer: Optimizer, rate: float) -> None:
    """Give each group its share of a learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["share"]


@contextlib.contextmanager
def frozen(model: nn.Module, lr_of: Mapping[str, float]) -> Iterator[None]:
    """Freeze the parts of a model whose rate is 0 for the while.

    Args:
        model: its parameters' names are compared.
        lr_of: rates by the start of a parameter's name.

    Raises:
        UnknownNameError: no parameter's name begins so.
    """
    names = [name for name, _ in model.named_parameters()]
    for part in lr_of:
        if not any(_is_of(name, part) for name in names):
            parts = {name.rpartition(".")[0] or name for name in names}
            raise UnknownNameError("part of the model", part, parts)
    held = [
        p for name, p in model.named_parameters() if p.requires_grad and _rate(name, lr_of) == 0
    ]
    for parameter in held:
        parameter.requires_grad = False
    try:
        yield
    finally:
        for parameter in held:
            parameter.requires_grad = True


def train_mode(model: nn.Module) -> None:
    """Put a model into training mode, but for norms frozen whole, which keep their statistics."""
    model.train()
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        norm = getattr(module, "running_mean", None) is not None
        if norm and own and not any(p.requires_grad for p in own):
            module.eval()


def _groups(model: nn.Module, settings: Settings) -> list[dict[str, Any]]:
    """Return the trainable parameters by peak rate and decay, in the model's order."""
    found: dict[tuple[float, float], list[Tensor]] = {}
    for name, p in model.named_parameters():
        if p.requires_grad:
            rate = _rate(name, settings.lr_of)
            decay = settings.weight_decay if p.ndim > 1 else 0.0
            key = (settings.lr if rate is None else rate, decay)
            found.setdefault(key, []).append(p)
    return [
        {"params": params, "weight_decay": decay, "share": rate / settings.lr}
        for (rate, decay), params in found.items()
    ]


def _rate(name: str, lr_of: Mapping[str, float]) -> float | None:
    """Return the rate of the longest part that a parameter is of, or None."""
    parts = [part for part in lr_of if _is_of(name, part)]
    return lr_of[max(parts, key=len)] if parts else None


def _is_of(name: str, part: str) -> bool:
    return name == part or name.startswith(f"{part}.")


def _floats(groups: list[dict[str, Any]]) -> bool:
    return all(p.dtype in (torch.float32, torch.float64) for g in groups for p in g["params"])
