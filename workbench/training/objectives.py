"""What a training minimizes, and one look beforehand at whether model, loss and data fit."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from workbench.datasets import Split
from workbench.errors import RequestError
from workbench.evaluation import infer
from workbench.evaluation.losses import Loss, check_outputs, is_binary, task_loss
from workbench.preprocessing import Preprocessing
from workbench.training.settings import number

__all__ = ["check_targets", "class_weights_of", "objective", "tried"]


def objective(
    model: nn.Module,
    few: Split,
    preprocessing: Preprocessing,
    *,
    loss: Loss | None,
    label_smoothing: float = 0.0,
    class_weights: Sequence[float] = (),
) -> Loss:
    """Return the loss to minimize, after one look at what the model answers.

    Targets of a regression take the outputs' shape first: (rows,) beside (rows, 1) would otherwise
    broadcast to (rows, rows), and every loss accept it.

    Args:
        model: on the device it is to be trained on.
        few: some raw rows and their targets.
        preprocessing: the model's.
        loss: of the user's own, or None for the one that fits the task.
        label_smoothing: see `task_loss`.
        class_weights: likewise.

    Raises:
        RequestError: the model cannot take the rows, or its outputs do not fit targets or loss.
    """
    outputs = tried(model, few.inputs, preprocessing)
    check_outputs(outputs, few.targets, few.classes)
    where = next((p.device for p in model.parameters()), outputs.device)
    if loss is None or isinstance(loss, nn.CrossEntropyLoss) or loss is F.cross_entropy:
        _refuse_probabilities(model, outputs, few.classes)
    if loss is None:
        return task_loss(
            few.classes,
            outputs=outputs.to(where),
            label_smoothing=label_smoothing,
            class_weights=class_weights,
        )
    if label_smoothing or class_weights:
        raise RequestError(
            "label_smoothing and class_weights belong to the loss of the task, and loss= is your "
            "own: build them into it, or leave loss= out"
        )
    own = loss if few.classes else partial(_reshaped, loss)
    _check_own(own, outputs.to(where), few.targets.to(where))
    return own


def tried(model: nn.Module, inputs: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Return what a model answers to some raw rows.

    Raises:
        RequestError: it cannot take them; the message names their shape.
    """
    try:
        return infer(model, preprocessing.batch(inputs), preprocessing)
    except (RuntimeError, TypeError) as error:
        first = str(error).splitlines()[0]
        taken = tuple(preprocessing(inputs).shape)
        name = type(model).__name__
        raise RequestError(f"{name} cannot take a batch shaped {taken}: {first}") from error


def class_weights_of(given: Any, split: Split) -> tuple[float, ...]:
    """Return what a row of each class counts: as given, or so that all classes weigh alike.

    Args:
        given: a number a class, `"balanced"` for rows / (classes × rows of the class), or None.
        split: whose rows are counted.

    Raises:
        RequestError: it is neither, or the task has no classes.
    """
    if given is None:
        return ()
    if not split.classes:
        raise RequestError("a regression has no classes to weigh: leave class_weights out")
    if isinstance(given, str) and given == "balanced":
        counts = torch.bincount(split.targets, minlength=len(split.classes)).clamp_min(1)
        return tuple((len(split) / (len(counts) * counts.double())).tolist())
    if isinstance(given, (str, Mapping)) or not isinstance(given, Iterable):
        raise RequestError(
            f"class_weights is {given!r:.60}, expected 'balanced' or a list with a number for each "
            "class, in the order of the dataset's classes"
        )
    values = given.tolist() if isinstance(given, Tensor) else given
    weights = tuple(number("a class weight", value) for value in values)
    if len(weights) != len(split.classes) or min(weights) < 0 or max(weights) == 0:
        raise RequestError(
            f"class_weights has {len(weights)} numbers, expected {len(split.classes)} of 0 or more,"
            f" one for each of {', '.join(split.classes[:5])}"
        )
    return weights


def check_targets(name: str, split: Split) -> None:
    """Raise where a split is empty, or a target is no class of it.

    Raises:
        RequestError: naming the split, the value found and what was expected.
    """
    if len(split) == 0:
        raise RequestError(f"{name} has no rows: give it at least one, or leave it out")
    if not split.classes:
        return
    low, high = int(split.targets.min()), int(split.targets.max())
    if low < 0 or high >= len(split.classes):
        raise RequestError(
            f"targets of {name} run from {low} to {high}, expected class indices from 0 to "
            f"{len(split.classes) - 1} for {len(split.classes)} classes: number them from 0"
        )


def _reshaped(loss: Loss, outputs: Tensor, targets: Tensor) -> Tensor:
    return loss(outputs, targets.reshape(outputs.shape))


def _refuse_probabilities(model: nn.Module, outputs: Tensor, classes: tuple[str, ...]) -> None:
    """Raise where the model ends in a softmax or sigmoid, which the loss has inside already."""
    if not classes:
        return
    modules = [m for m in model.modules() if not any(m.children())]
    last = modules[-1] if modules else None
    sums = outputs.sum(1)
    one = outputs.shape[1] > 1 and bool((outputs >= 0).all() and ((sums - 1).abs() < 1e-4).all())
    if one or (is_binary(outputs, classes) and isinstance(last, nn.Sigmoid)):
        what = "softmax" if one else "sigmoid"
        raise RequestError(
            f"{type(model).__name__} answers with probabilities, expected logits: cross-entropy "
            f"has the {what} inside, and behind another one learns slowly or not at all. Leave "
            f"the {what} out; predict applies it"
        )


def _check_own(loss: Loss, outputs: Tensor, targets: Tensor) -> None:
    """Call a loss of the user's own once; raise where it would broadcast, or gives no scalar."""
    shapes = f"outputs shaped {tuple(outputs.shape)} and targets shaped {tuple(targets.shape)}"
    try:
        with _NoBroadcast(len(targets)):
            value = loss(outputs.clone().requires_grad_(), targets)
    except RequestError:
        raise RequestError(
            f"the loss compares {shapes} elementwise, which would broadcast to "
            f"{(len(targets), len(targets))}: reshape one of them in the loss, for instance "
            "targets.reshape(outputs.shape)"
        ) from None
    except (RuntimeError, TypeError, ValueError, IndexError) as error:
        first = str(error).splitlines()[0]
        hint = ""
        if outputs.ndim == 2 and outputs.shape[1] == 1 and not targets.is_floating_point():
            hint = ". Of two classes there is one logit: binary_cross_entropy_with_logits fits it"
        raise RequestError(f"the loss cannot take {shapes}: {first}{hint}") from error
    if not isinstance(value, Tensor) or value.numel() != 1:
        found = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
        raise RequestError(f"the loss returned {found}, expected one number: take the mean")


class _NoBroadcast(TorchFunctionMode):
    """Raises where (rows, 1) meets (rows,) in one operation."""

    def __init__(self, rows: int) -> None:
        super().__init__()
        self._pair = {(rows, 1), (rows,)}

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        given = [*args, *(kwargs or {}).values()]
        meet = {tuple(a.shape) for a in given if isinstance(a, Tensor)} == self._pair
        if meet and func in _BROADCASTING:
            raise RequestError("broadcast")
        answer = func(*args, **(kwargs or {}))
        square = isinstance(answer, Tensor) and answer.ndim == 2 and len({*answer.shape}) == 1
        if meet and square:
            raise RequestError("broadcast")
        return answer


# Losses of torch that do so within, where no square is seen, and at most warn.
_BROADCASTING = {
    F.huber_loss,
    F.kl_div,
    F.l1_loss,
    F.mse_loss,
    F.poisson_nll_loss,
    F.smooth_l1_loss,
    F.soft_margin_loss,
}
