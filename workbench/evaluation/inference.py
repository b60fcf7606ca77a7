"""The one way from raw rows to outputs: what evaluate, predict and a service all use."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from workbench.attached import attached
from workbench.devices import device_of
from workbench.errors import RequestError
from workbench.evaluation.losses import is_binary
from workbench.modes import evaluating
from workbench.preprocessing import Preprocessing, as_tensor
from workbench.progress import progress

__all__ = [
    "Prediction",
    "decide",
    "infer",
    "predict",
    "preprocessing_of",
    "probabilities",
]


@dataclass(frozen=True, repr=False, eq=False)
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

    @classmethod
    def of(cls, output: Tensor, preprocessing: Preprocessing) -> Prediction:
        """Return what outputs shaped (rows, outputs) say by a model's preprocessing."""
        chances = probabilities(output, preprocessing.classes)
        labels = None if chances is None else preprocessing.labels(decide(chances))
        return cls(output, chances, labels)

    def __len__(self) -> int:
        return len(self.output)

    def __repr__(self) -> str:
        if self.labels is None or self.probabilities is None:
            said = [", ".join(f"{value:.4g}" for value in row) for row in self.output[:5].tolist()]
        else:
            sure = self.probabilities
            sure = torch.maximum(sure, 1 - sure) if sure.shape[1] == 1 else sure
            tops = sure[:5].max(1).values.tolist()
            said = [f"{name} {top:.0%}" for name, top in zip(self.labels, tops, strict=False)]
        more = "; ..." if len(self) > 5 else ""
        return f"Prediction of {len(self):,} rows: {'; '.join(said)}{more}"


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
    raw = preprocessing.batch(rows)
    return Prediction.of(infer(model, raw, preprocessing, batch_size=batch_size), preprocessing)


def preprocessing_of(model: nn.Module, rows: Any) -> Preprocessing:
    """Return the model's preprocessing; for one that has none, that which changes nothing."""
    if not isinstance(model, nn.Module):
        raise RequestError(f"expected a model (an nn.Module), got {type(model).__name__}")
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
    mirror: bool = False,
    label: str | None = None,
) -> Tensor:
    """Return the outputs for raw rows, shaped (rows, outputs), on the CPU.

    Args:
        model: any module whose outputs' first axis is rows.
        raw: rows that `preprocessing.batch` has checked.
        preprocessing: what makes them into what `forward` takes.
        batch_size: how many rows go through at once.
        mirror: whether an image and its mirror image are both asked, and their outputs averaged.
        label: names the progress bar; None shows none.

    Raises:
        RequestError: there are no rows, none go through at once, or those to mirror are no images.
    """
    if len(raw) == 0:
        raise RequestError("there are no rows to predict: pass at least one")
    if batch_size < 1:
        raise RequestError(f"batch_size must be a whole number from 1 up, got {batch_size!r}")
    if mirror and preprocessing.kind != "image":
        raise RequestError(
            f"mirror=True takes images, got rows of {preprocessing.shape} of "
            f"{preprocessing.dtype}: leave it out, or make the data set of uint8 images"
        )
    device = device_of(model)
    outputs = []
    with evaluating(model), torch.inference_mode(), _bar(label, len(raw)) as advance:
        for part in raw.split(batch_size):
            outputs.append(_answer(model, preprocessing(part.to(device)), mirror).float().cpu())
            advance(len(part))
    return torch.cat(outputs).clone()


def _answer(model: nn.Module, batch: Tensor, mirror: bool) -> Tensor:
    """Return the outputs of a batch, or where `mirror` the mean with those of its mirror image."""
    outputs = _tensor(model, model(batch))
    return (outputs + _tensor(model, model(batch.flip(-1)))) / 2 if mirror else outputs


def _tensor(model: nn.Module, answer: Any) -> Tensor:
    if isinstance(answer, Tensor):
        return answer
    raise RequestError(
        f"forward of {type(model).__name__} returned a {type(answer).__name__}, expected one "
        "tensor shaped (rows, outputs): return the logits or values alone"
    )


def probabilities(outputs: Tensor, classes: tuple[str, ...]) -> Tensor | None:
    """Return probabilities from logits shaped (rows, classes or 1), or None without classes."""
    if not classes:
        return None
    return outputs.sigmoid() if is_binary(outputs, classes) else outputs.softmax(1)


def decide(chances: Tensor) -> Tensor:
    """Return the index of the likeliest class, shaped (rows,); of one column, whether above ½."""
    return (chances[:, 0] > 0.5).long() if chances.shape[1] == 1 else chances.argmax(1)


@contextlib.contextmanager
def _bar(label: str | None, rows: int) -> Iterator[Any]:
    if label is None:
        yield lambda n: None
        return
    with progress(rows, label, unit="row") as bar:
        yield bar.update
