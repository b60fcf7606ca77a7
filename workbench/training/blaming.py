"""The batch behind a step: its rows, how wrong each was as the step saw it, and its gradient."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from workbench.datasets import Split
from workbench.determinism import alone, undisturbed
from workbench.errors import RequestError
from workbench.evaluation.examples import classified, regressed
from workbench.evaluation.inference import decide, probabilities
from workbench.training.batches import Batches, Watched
from workbench.training.checkpoints import copy_into, tensors_of
from workbench.training.dropout import own_dropout
from workbench.training.jobs import Job
from workbench.training.loop import in_parts, n_parts
from workbench.training.optimizers import frozen, train_mode
from workbench.training.planning import laid_out
from workbench.training.rewinding import Given, Told, blank_copy, checked_step, replayed
from workbench.training.settings import Settings, whole
from workbench.training.trainings import Training

if TYPE_CHECKING:
    from workbench.pictures import Picture

__all__ = ["Blame", "blamed"]

_AROUND = 5  # steps on either side whose gradients are compared


@dataclass(frozen=True, eq=False)
class Blame:
    """What the batch of a step was, the hardest row first.

    Args:
        step: counted from 1.
        epoch: counted from 1.
        loss: that the history has of the step.
        table: a row a row of the batch: `row`, its index in the training split (of a DataLoader, in
            its dataset, where that has one), what it is, what was said of it, and its `loss`; all
            as the step saw it: augmented, with dropout, by the weights before the step. Where
            `class_weights` are, a loss counts as it did there: times its row's weight over the
            mean weight of the batch, or of its part, so that the losses' mean is the step's.
        norms: of the gradient, before any clipping, by step: of this one and of those around it.
        n: how many rows count as the hardest.
        images: those rows as the step saw them, uint8; None where the rows are no raw images.
        classes: the names; empty for a regression.
    """

    step: int
    epoch: int
    loss: float
    table: pd.DataFrame = field(repr=False)
    norms: dict[int, float] = field(repr=False)
    n: int
    images: Tensor | None = field(default=None, repr=False)
    classes: tuple[str, ...] = field(default=(), repr=False)

    @property
    def norm(self) -> float:
        """The norm of the step's gradient, before any clipping."""
        return self.norms[self.step]

    @property
    def usual_norm(self) -> float:
        """The median of those of the steps around it, at most five on either side; NaN of none."""
        others = [v for k, v in self.norms.items() if k != self.step and math.isfinite(v)]
        return statistics.median(others) if others else math.nan

    @property
    def hardest(self) -> pd.DataFrame:
        """The first rows of the table."""
        return self.table.head(self.n)

    def plot(self) -> Picture:
        """Return a picture of the hardest rows: as images, or the loss of each."""
        hardest = self.hardest
        if self.images is not None and self.classes:
            from workbench.evaluation.plots import mistakes_figure  # which loads matplotlib

            shown = hardest.assign(row=range(len(hardest)))
            return mistakes_figure(Split(self.images, torch.arange(len(hardest))), shown)
        from workbench.pictures import Picture

        figure = Picture(6, 1 + 0.3 * len(hardest))
        axes = figure.subplots()
        bars = axes.barh([_named(row) for row in hardest.to_dict("records")], hardest["loss"])
        axes.bar_label(bars, [f"{loss:.3g}" for loss in hardest["loss"]], padding=3)
        axes.axvline(self.loss, color="grey", linestyle="--")
        axes.invert_yaxis()
        axes.margins(x=0.12)
        axes.set(xlabel=f"loss at step {self.step:,} (dashed: of the batch)")
        return figure

    def __repr__(self) -> str:
        usual = f", {self.usual_norm:.3g} around it" if math.isfinite(self.usual_norm) else ""
        head = (
            f"step {self.step:,}, epoch {self.epoch}: loss {self.loss:.4g} over {len(self.table)} "
            f"rows, the gradient's norm {self.norm:.3g}{usual}"
        )
        rows = self.hardest.to_dict("records")
        return "\n".join([head, *(f"  {_named(row)}: {row['loss']:.3g}" for row in rows)])


def blamed(
    training: Training, given: Given, step: int, n: int, *, told: Told | None = None
) -> Blame:
    """Return what the batch of a step was; see `Training.blame`."""
    n, step = whole("n", n), whole("step", step)
    checked_step(training, step)
    first = checked_step(training, step - 1)  # of a branch, its own first step
    done, origin = len(training.history), training.branched_from
    seen = _Seen(training.settings, step)
    good = done - 1 if training.state == "failed" else done  # the last one is why it failed
    last = min(step + _AROUND, good)
    start = max(first - _AROUND, origin.step if origin else 0)
    with replayed(training, given, last, start=start, through=seen.between, told=told) as replay:
        batches = replay.job.batches
        epoch, place = divmod(step - 1, training.settings.steps_per_epoch)
        rows = batches.rows_of(epoch, place)
        table = seen.table(rows, replay.plan.data.classes)
        hardest = table["row"].head(n).tolist()
        images = batches.images_of(epoch, hardest) if rows is not None else None
    loss = training.history["loss"][step - 1]
    return Blame(step, epoch + 1, loss, table, seen.norms, n, images, replay.plan.data.classes)


class _Seen:
    """What the steps around one see: their gradients, and of that one the outputs and losses.

    Each is looked at on a copy of the model, right before the loop takes it.
    """

    def __init__(self, settings: Settings, step: int) -> None:
        self._settings, self._step = settings, step
        self.norms: dict[int, float] = {}
        self._outputs = self._targets = self._losses = torch.empty(0)

    def between(self, job: Job, batches: Batches) -> Batches:
        """Return the batches, to be looked at before the loop has them."""
        return Watched(batches, partial(self.look, job))

    def look(self, job: Job, step: int, inputs: Tensor, targets: Tensor) -> None:
        """Look at a batch by the weights before its step."""
        settings = self._settings
        if abs(step - self._step) > _AROUND:
            return
        device = torch.device(settings.device)
        model = blank_copy(job.model, device)
        copy_into(model, tensors_of(job.model), "the model")
        half = settings.precision == "bf16"
        precision = torch.autocast(device.type, torch.bfloat16) if half else nullcontext()
        with (
            undisturbed() if alone() else nullcontext(),  # what a step draws there, it draws too
            frozen(model, settings.lr_of),
            laid_out(model, channels_last=settings.channels_last),
            own_dropout(model, settings.seed, device) as draws,
        ):
            train_mode(model)
            if draws is not None:
                draws.step(step - 1)
            outputs, _ = in_parts(model, job.loss, inputs, targets, settings.accumulate, precision)
            gradients = [p.grad for p in model.parameters() if p.grad is not None]
        self.norms[step] = float(torch.nn.utils.get_total_norm(gradients))
        if step == self._step:
            self._outputs, self._targets = outputs.cpu(), targets.cpu()
            self._losses = _each(job, settings, outputs, targets)

    def table(self, rows: Sequence[Any] | None, classes: tuple[str, ...]) -> pd.DataFrame:
        """Return the rows of the batch, the hardest first.

        Args:
            rows: what they are called; None for their places in the batch.
            classes: the names; empty for a regression.
        """
        outputs, targets, losses = self._outputs, self._targets, self._losses
        if classes:
            chances = probabilities(outputs, classes)
            assert chances is not None
            said = decide(chances)
            if chances.shape[1] == 1:
                chances = torch.cat([1 - chances, chances], dim=1)
            table = classified(targets, said, classes, chances, losses)
        else:
            table = regressed(targets, outputs).assign(loss=losses.numpy())
        if rows is not None:
            table["row"] = list(rows)
        order = np.argsort(-table["loss"].to_numpy(), kind="stable")
        return table.iloc[order].reset_index(drop=True)


@torch.no_grad()
def _each(job: Job, settings: Settings, outputs: Tensor, targets: Tensor) -> Tensor:
    """Return the loss of each row as it counted in the step, shaped (rows,)."""
    pairs = zip(outputs.split(1), targets.split(1), strict=True)
    try:
        losses = torch.tensor([float(job.loss(output, target)) for output, target in pairs])
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        first = str(error).splitlines()[0]
        raise RequestError(
            f"the loss cannot take a row alone, so none has a loss of its own: {first}: blame "
            "needs a loss that is a mean over rows"
        ) from None
    if not settings.class_weights:
        return losses
    weights = torch.tensor(settings.class_weights)[targets.cpu()]
    parts = weights.tensor_split(n_parts(settings.accumulate, len(weights)))
    shares = torch.cat([part / part.mean() for part in parts])
    return torch.where(weights > 0, losses * shares, 0.0)  # one of weight 0 has no mean alone


def _named(row: Mapping[Any, Any]) -> str:
    """Return what a row of the table is, and what was said of it."""
    true, said = (
        ", ".join(
            v if isinstance(v, str) else f"{v:.4g}" for k, v in row.items() if k.startswith(key)
        )
        for key in ("true", "predicted")
    )
    return f"row {row['row']}: is {true}, said {said}"
