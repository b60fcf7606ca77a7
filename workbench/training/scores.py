"""How good the answers are, during a training: hits of a step, figures of the validation split."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from workbench.attached import released
from workbench.evaluation import Evaluation, infer
from workbench.evaluation.losses import is_binary
from workbench.modes import at_rest
from workbench.training.checkpoints import tensors_of
from workbench.training.jobs import Job

__all__ = ["averaged", "hits", "lent", "validate"]


def hits(outputs: Tensor, targets: Tensor, classes: tuple[str, ...]) -> Tensor:
    """Return how many rows were answered rightly, as a tensor, so that nobody waits for it."""
    said = outputs[:, 0] > 0 if is_binary(outputs, classes) else outputs.argmax(1)
    return (said == targets).sum()


def validate(job: Job) -> dict[str, float]:
    """Return the figures of the validation split, by the average of the weights if one is kept.

    Besides the loss: accuracy of classes, with precision, recall and F1 where there are two; mean
    absolute error and R² of a regression.
    """
    split = job.validation
    assert split is not None
    with averaged(job.model, job.held):
        outputs = infer(job.model, job.preprocessing.batch(split.inputs), job.preprocessing)
    device = next((p.device for p in job.model.parameters()), outputs.device)
    loss = float(job.loss(outputs.to(device), split.targets.to(device)))
    found = Evaluation(split=split, outputs=outputs)
    names = ["accuracy"] if split.classes else ["mae", "r2"]
    if len(split.classes) == 2:
        names += ["precision", "recall", "f1"]
    figures = {f"validation_{name}": float(getattr(found, name)) for name in names}
    return {"validation_loss": loss, **figures}


@contextlib.contextmanager
def averaged(model: nn.Module, held: Mapping[str, Tensor]) -> Iterator[None]:
    """Give the model averaged weights for the while."""
    own = tensors_of(model)
    before = {name: own[name].detach().clone() for name in held}
    try:
        _copy(own, held)
        yield
    finally:
        _copy(own, before)


@contextlib.contextmanager
def lent(model: nn.Module, held: Mapping[str, Tensor]) -> Iterator[None]:
    """Lend the model to everyone for the while, as it answers at its best.

    Whatever is done to its tensors or modes, it comes back as it was.
    """
    own = tensors_of(model)
    before = {name: tensor.detach().clone() for name, tensor in own.items()}
    try:
        _copy(own, held)
        with at_rest(model), released(model):
            yield
    finally:
        _copy(own, before)


@torch.no_grad()
def _copy(own: Mapping[str, Tensor], values: Mapping[str, Tensor]) -> None:
    for name, value in values.items():
        own[name].copy_(value)
