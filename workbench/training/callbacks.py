"""Callbacks: code of your own at a few moments of a training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from workbench.errors import RequestError
from workbench.journal import record

if TYPE_CHECKING:
    from workbench.training.checkpoints import Checkpoint
    from workbench.training.trainings import Training

__all__ = ["Callback", "EarlyStopping", "RecordEpochs"]


class Callback:
    """Code at a few moments of a training: override what you need, the rest costs nothing.

    Each is given the training, whose history is up to date at the end of an epoch, and which can be
    stopped by `training.stop()`. Read what you need from the history rather than count along: then
    it is right after an interruption too.
    """

    def on_start(self, training: Training) -> None:
        """Before the first step, or the first one after an interruption."""

    def on_step(self, training: Training, step: int) -> None:
        """After each step, counted from 1; the costly place."""

    def on_epoch(self, training: Training, row: dict[str, float]) -> None:
        """After each epoch, with its figures as `training.history.epochs` has them."""

    def on_checkpoint(self, training: Training, checkpoint: Checkpoint) -> None:
        """Once a checkpoint is on disk: at the next look after that, or before the end."""

    def on_end(self, training: Training) -> None:
        """After the last step, whether all went well, it was stopped, or it failed."""


class EarlyStopping(Callback):
    """Stop when a figure has not been better for some epochs; `training.best` has the best weights.

    Args:
        patience: how many epochs in a row may pass without a new best one.
        figure: as the history names it; losses and errors fall, all else rises.

    Raises:
        RequestError: patience is not a whole number from 1 up.
    """

    def __init__(self, patience: int = 5, figure: str = "validation_loss") -> None:
        if not isinstance(patience, int) or patience < 1:
            raise RequestError(f"patience must be a whole number from 1 up, got {patience!r}")
        self.patience, self.figure = patience, figure

    def on_start(self, training: Training) -> None:
        """Stop at once where a training that goes on had been stopped by this before."""
        if training.history.epochs and self._is_over(training):
            training.stop()

    def on_epoch(self, training: Training, row: dict[str, float]) -> None:
        """Look back over the history; stop if the best epoch is too long ago."""
        if self.figure not in row:
            known = ", ".join(name for name in row if name not in ("epoch", "step"))
            raise RequestError(
                f"early stopping looks at {self.figure!r}, this training has {known}: give the "
                "dataset a validation split, or name one of these"
            )
        if self._is_over(training):
            training.stop()

    def _is_over(self, training: Training) -> bool:
        """Return whether no epoch since the last extension was the best for too long."""
        phases = training.settings.phases
        last = max(i for i, phase in enumerate(phases) if not phase.start)  # sized anew, it goes on
        begun = sum(phase.steps for phase in phases[:last])
        rows = [r for r in training.history.epochs if r["step"] > begun and self.figure in r]
        if not rows:
            return False
        falls = self.figure.endswith(("loss", "mae", "mse"))
        values = [r[self.figure] if falls else -r[self.figure] for r in rows]
        return len(values) - 1 - values.index(min(values)) >= self.patience


class RecordEpochs(Callback):
    """Record figures of each epoch as metrics of the run, by epoch: what a sweep looks at.

    Args:
        figures: as the history names them.
    """

    def __init__(self, *figures: str) -> None:
        self.figures = figures or ("validation_loss",)

    def on_epoch(self, training: Training, row: dict[str, float]) -> None:
        """Record what the epoch came to."""
        for figure in self.figures:
            if figure not in row:
                known = ", ".join(name for name in row if name not in ("epoch", "step"))
                raise RequestError(
                    f"{figure!r} is to be recorded, this training has {known}: give the dataset a "
                    "validation split, or name one of these"
                )
            record(figure, row[figure], step=int(row["epoch"]))
