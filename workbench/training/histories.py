"""What happened during a training: a loss a step, figures an epoch."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pandas as pd

from workbench.errors import UnknownNameError

if TYPE_CHECKING:
    from workbench.pictures import Picture

__all__ = ["History"]


@dataclass
class History:
    """The course of a training.

    Args:
        steps: a list a name (`"loss"`, `"lr"`), with one value for each step.
        epochs: a row an epoch: epoch (from 1), step it ended on, mean loss, accuracy (of the
            batches as they were trained on), validation_loss, validation_accuracy; of two classes
            validation_precision, _recall and _f1 too; of a regression validation_mae and _r2.
    """

    steps: dict[str, list[float]] = field(default_factory=lambda: {"loss": [], "lr": []})
    epochs: list[dict[str, float]] = field(default_factory=list)

    def __getitem__(self, name: str) -> list[float]:
        """Return the values of `"loss"` or `"lr"` by step, or of any other figure by epoch."""
        if name in self.steps:
            return self.steps[name]
        known = {key for row in self.epochs for key in row}
        if name not in known:
            raise UnknownNameError("figure of a training", name, {*self.steps, *known})
        return [row[name] for row in self.epochs if name in row]

    def __len__(self) -> int:
        return len(self.steps["loss"])

    def table(self) -> pd.DataFrame:
        """Return the figures of each epoch, a row an epoch."""
        return pd.DataFrame(self.epochs)

    def plot(self) -> Picture:
        """Return the loss by step, raw and smoothed, with the validation loss of each epoch."""
        from workbench.pictures import Picture

        figure = Picture(7, 3.2)
        axes = figure.subplots()
        loss = pd.Series(self["loss"], index=range(1, len(self) + 1))
        axes.plot(loss, alpha=0.25, color="C0", linewidth=1)
        smooth = loss.ewm(span=max(len(loss) / 25, 1)).mean()
        axes.plot(smooth, color="C0", label="training (smoothed)")
        held = [row for row in self.epochs if "validation_loss" in row]
        if held:
            ends, losses = [r["step"] for r in held], [r["validation_loss"] for r in held]
            axes.plot(ends, losses, "o-", color="C1", label="validation")
        axes.set(xlabel="step", ylabel="loss", xlim=(0, len(self) + 1))
        axes.set_ylim(0, 1.05 * float(smooth.max()))
        axes.legend(frameon=False)
        return figure
