"""`gradient_flow`: how large the gradient of each parameter is, beside the parameter itself."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import pandas as pd
import torch
from torch import Tensor, nn

from workbench.attached import attached
from workbench.datasets import Dataset
from workbench.datasets.splits import sample
from workbench.determinism import generator, seed_everything, undisturbed
from workbench.devices import device_of
from workbench.errors import RequestError
from workbench.evaluation.losses import Loss
from workbench.evaluation.surveys import passed_by
from workbench.modes import settled
from workbench.training.batches import TensorBatches
from workbench.training.dropout import own_dropout
from workbench.training.objectives import objective
from workbench.training.optimizers import frozen, train_mode
from workbench.training.planning import Plan
from workbench.training.trainings import Training

__all__ = ["GradientFlow", "gradient_flow"]

_ROWS = 64
_FEW = 2  # rows that a loss is tried with


@dataclass(frozen=True, eq=False)
class GradientFlow:
    """The gradient of one batch, parameter by parameter.

    Args:
        parameters: a row each: parameter, layer, size (how many numbers), weight_norm,
            gradient_norm, ratio (of the two) and note: `"frozen"`, `"unused"` or nothing.
        loss: of the batch.
        batch: which one it was, in words.
    """

    parameters: pd.DataFrame = field(repr=False)
    loss: float
    batch: str

    def by_layer(self) -> pd.DataFrame:
        """Return weight_norm, gradient_norm and ratio of each layer, in the model's order.

        Left out are parameters that have no gradient, and layers that have none else.
        """
        learned = self.parameters[self.parameters["note"] == ""]
        norms = learned.groupby("layer", sort=False)[["weight_norm", "gradient_norm"]]
        sums = norms.agg(_hypot)
        return sums.assign(ratio=sums["gradient_norm"] / sums["weight_norm"]).reset_index()

    @property
    def words(self) -> list[str]:
        """What is to be said of it, in sentences."""
        layers = self.by_layer()
        said = [
            f"The gradient of {self.batch}, at the weights as they are now; loss {self.loss:.4g}."
        ]
        norms = layers["gradient_norm"]
        if not norms.map(math.isfinite).all():
            broken = layers["layer"][~norms.map(math.isfinite)]
            said.append(f"Not a number: {', '.join(broken)}.")
        elif len(layers) > 1:
            ordered = layers.sort_values("gradient_norm")
            low, high = ordered.iloc[0], ordered.iloc[-1]
            said.append(
                f"It is smallest in {low['layer']} ({low['gradient_norm']:.3g}) and largest in "
                f"{high['layer']} ({high['gradient_norm']:.3g})."
            )
        for note in ("frozen", "unused"):
            names = self.parameters.loc[self.parameters["note"] == note, "parameter"]
            if len(names):
                said.append(f"{note.title()}, so without one: {', '.join(names)}.")
        return said


def gradient_flow(model: nn.Module, data: Dataset, *, step: int | None = None) -> GradientFlow:
    """Return the gradient of each parameter for one batch, at the weights as they are now.

    Of a model that was trained it is the batch of the last step with the training's own loss,
    dropout and augmentation, where the training's data is still at hand; else up to 64 training
    rows, always the same. It works on a copy, in single precision: weights, gradients, running
    statistics and random numbers are left as they are. A training is waited for.

    Args:
        model: any module that answers with one tensor.
        data: gives the rows where no training does.
        step: how many steps the weights have behind them; by default all that were taken.

    Raises:
        RequestError: the model does not fit the data, or cannot be copied.
    """
    with settled(model):
        twin = _copied(model)
    training = attached(model).training
    plan = _plan_of(twin, training)
    batch = _batch(twin, data, training, plan, step)
    lr_of = plan.settings.lr_of if plan else {}
    with frozen(twin, lr_of):
        loss, gradients = _gradients(twin, batch)
        table = _table(twin, gradients)
    return GradientFlow(table, loss, batch.said)


def _hypot(values: pd.Series[float]) -> float:
    return math.hypot(*values)  # of which a NaN stays one


class _Batch(NamedTuple):
    """Rows to learn from: as `forward` takes them, with the draws and the loss of their step."""

    inputs: Tensor
    targets: Tensor
    loss: Loss
    seed: int
    step: int
    said: str


def _copied(model: nn.Module) -> nn.Module:
    try:
        twin = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise RequestError(
            f"{type(model).__name__} cannot be copied, and gradients are taken on a copy: "
            f"{str(error).splitlines()[0]}"
        ) from None
    attached(twin).__dict__.update(vars(attached(model)))
    return twin


def _plan_of(twin: nn.Module, training: Training | None) -> Plan | None:
    """Return what the training does, for the copy; None where this process has it no more."""
    if training is None or training.past is None or training.past.given is None:
        return None
    return training.past.given.plan_for(twin, training)


def _batch(
    twin: nn.Module, data: Dataset, training: Training | None, plan: Plan | None, step: int | None
) -> _Batch:
    """Return the batch of the last step, or where that is not at hand, rows that stay the same."""
    if training is None or plan is None:
        return _fixed(twin, data, None, "with the loss that fits the task")
    done = len(training.history) if step is None else step
    batches, loss = plan.job.batches, plan.job.loss
    if not done or not isinstance(batches, TensorBatches):
        return _fixed(twin, data, loss, f"with the loss of training {training.name!r}")
    epoch, index = divmod(done - 1, batches.steps_per_epoch)
    inputs, targets = next(batches.epoch(epoch, skip=index))
    said = f"the {len(targets)} rows of step {done:,} of training {training.name!r}"
    return _Batch(inputs, targets, loss, plan.settings.seed, done - 1, said)


def _fixed(twin: nn.Module, data: Dataset, loss: Loss | None, said: str) -> _Batch:
    """Return some training rows; without a loss that of the task."""
    rows, preprocessing = sample(data.train, min(_ROWS, len(data.train))), passed_by(twin, data)
    if loss is None:
        few = rows.rows(torch.arange(min(_FEW, len(rows))))
        loss = objective(twin, few, preprocessing, loss=None)
    raw, device = preprocessing.batch(rows.inputs), device_of(twin)
    inputs, targets = preprocessing(raw.to(device)), rows.targets.to(device)
    return _Batch(inputs, targets, loss, 0, 0, f"{len(rows)} fixed rows of train, {said}")


def _gradients(twin: nn.Module, batch: _Batch) -> tuple[float, dict[str, Tensor | None]]:
    """Return the loss, and the gradient of each parameter that is learned."""
    train_mode(twin)
    learned = {name: p for name, p in twin.named_parameters() if p.requires_grad}
    device = batch.inputs.device
    with (
        undisturbed(),
        torch.inference_mode(False),
        torch.enable_grad(),
        own_dropout(twin, batch.seed, device) as draws,
    ):
        seed_everything(generator(batch.seed, "draws").initial_seed() % 2**32)  # of other noise
        if draws is not None:
            draws.step(batch.step)
        value = batch.loss(twin(batch.inputs).float(), batch.targets)
        found = torch.autograd.grad(value, list(learned.values()), allow_unused=True)
    return float(value.detach()), dict(zip(learned, found, strict=True))


def _table(twin: nn.Module, gradients: Mapping[str, Tensor | None]) -> pd.DataFrame:
    rows = []
    for name, p in twin.named_parameters():
        gradient = gradients.get(name)
        weight, flow = _norm(p), math.nan if gradient is None else _norm(gradient)
        note = "" if gradient is not None else "unused" if name in gradients else "frozen"
        ratio = flow / weight if weight else math.inf if flow else math.nan
        layer = name.rpartition(".")[0] or "(model)"
        rows.append((name, layer, p.numel(), weight, flow, ratio, note))
    columns = ["parameter", "layer", "size", "weight_norm", "gradient_norm", "ratio", "note"]
    return pd.DataFrame(rows, columns=columns)


def _norm(tensor: Tensor) -> float:
    return float(tensor.detach().double().norm())
