"""The one way from raw rows to outputs: what evaluate, predict and a service all use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from workbench.attached import attached
from workbench.errors import RequestError
from workbench.evaluation.losses import is_binary
from workbench.preprocessing import Preprocessing, as_tensor
from workbench.progress import progress

__all__ = [
    "Prediction",
    "decide",
    "evaluating",
    "infer",
    "predict",
    "preprocessing_of",
    "probabilities",
]


@dataclass(frozen=True)
class Prediction:
    """What a model says of some rows.

    Args:
        output: what `forward` returned, shaped (rows, outputs): logits, or values.
        probabilities: (rows, classes), or (rows, 1) of the second of two classes; None without.
        labels: the name of the likeliest class of each row; None without classes.
    """

    output: Tensor = field(repr=False)
    probabilities: Tensor | None = field(repr=False)
    labels: list[str] | None

    def __len__(self) -> int:
        return len(self.output)


def predict(model: nn.Module, rows: Any, *, batch_size: int = 512) -> Prediction:
    """Return what the model says of raw rows, by the preprocessing it was trained with.

    The model is put into evaluation mode for the while and left as it was.

    Args:
        model: built, fitted or loaded; one that was never either takes its rows as they are.
        rows: an array, tensor, DataFrame or nested list, shaped (rows, ...), or one row.
        batch_size: how many rows go through the model at once.

    Raises:
        RequestError: the rows are not what the model was trained on.
    """
    preprocessing = preprocessing_of(model, rows)
    output = infer(model, preprocessing.batch(rows), preprocessing, batch_size=batch_size)
    chances = probabilities(output, preprocessing.classes)
    labels = None
    if chances is not None:
        labels = preprocessing.labels(decide(chances))
    return Prediction(output, chances, labels)


def preprocessing_of(model: nn.Module, rows: Any) -> Preprocessing:
    """Return the model's preprocessing; for one that has none, that which changes nothing."""
    known = attached(model).preprocessing
    if known is not None:
        return known
    raw = as_tensor(rows)
    return Preprocessing("tensor", tuple(raw.shape[1:]), str(raw.dtype)[6:])


def infer(
    model: nn.Module,
    raw: Tensor,
    preprocessing: Preprocessing,
    *,
    batch_size: int = 512,
    label: str | None = None,
) -> Tensor:
    """Return the outputs for raw rows, shaped (rows, outputs), on the CPU.

    Args:
        model: any module whose outputs' first axis is rows.
        raw: rows that `preprocessing.batch` has checked.
        preprocessing: what makes them into what `forward` takes.
        batch_size: how many rows go through at once.
        label: names the progress bar; None shows none.

    Raises:
        RequestError: there are no rows, or none go through at once.
    """
    if len(raw) == 0:
        raise RequestError("there are no rows to predict: pass at least one")
    if batch_size < 1:
        raise RequestError(f"batch_size must be a whole number from 1 up, got {batch_size!r}")
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    outputs = []
    with evaluating(model), torch.inference_mode(), _bar(label, len(raw)) as advance:
        for part in raw.split(batch_size):
            outputs.append(model(preprocessing(part.to(device))).float().cpu())
            advance(len(part))
    return torch.cat(outputs).clone()


def probabilities(outputs: Tensor, classes: tuple[str, ...]) -> Tensor | None:
    """Return probabilities from logits shaped (rows, classes or 1), or None without classes."""
    if not classes:
        return None
    return outputs.sigmoid() if is_binary(outputs, classes) else outputs.softmax(1)


def decide(chances: Tensor) -> Tensor:
    """Return the index of the likeliest class, shaped (rows,); of one column, whether above ½."""
    return (chances[:, 0] > 0.5).long() if chances.shape[1] == 1 else chances.argmax(1)


@contextlib.contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Put every module into evaluation mode for the while, then each back into its own.

    Flags are set one by one: a module frozen by `eval()` inside a model in training stays so, and
    an exported program, which refuses `eval()`, works too.
    """
    before = [(module, module.training) for module in model.modules()]
    try:
        for module, _ in before:
            module.training = False
        yield
    finally:
        for module, flag in before:
            module.training = flag


@contextlib.contextmanager
def _bar(label: str | None, rows: int) -> Iterator[Any]:
    if label is None:
        yield lambda n: None
        return
    with progress(rows, label, unit="row") as bar:
        yield bar.update
