"""What happened during a training: a loss a step, figures an epoch; in memory, and in two files.

The files are appended to while the training runs, so that it can be watched from elsewhere and is
found again: `steps.f64` with three numbers a step (loss, learning rate, seconds since the start),
and `epochs.jsonl` with a line an epoch.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TYPE_CHECKING

import numpy as np
import pandas as pd

from workbench.errors import UnknownNameError

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from workbench.pictures import Picture

__all__ = ["History", "HistoryFiles"]

_STEPS, _EPOCHS = "steps.f64", "epochs.jsonl"
_A_STEP = 24  # bytes: three numbers of 8


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
        top = self.draw_losses(axes, "C0", "C1", "")
        axes.set(xlim=(0, len(self) + 1), ylim=(0, top))
        axes.legend(frameon=False)
        return figure

    def draw_losses(self, axes: Axes, colour: str, held: str, name: str) -> float:
        """Draw the losses by step, and as dots those of the validation; return where to end.

        Args:
            axes: where to.
            colour: of the training's losses, raw and smoothed.
            held: colour of the validation's.
            name: of the training, for the legend; may be empty.
        """
        loss = pd.Series(self["loss"], index=range(1, len(self) + 1))
        axes.plot(loss, alpha=0.25, color=colour, linewidth=1)
        smooth = loss.ewm(span=max(len(loss) / 25, 1)).mean()
        axes.plot(smooth, color=colour, label=f"{name} training (smoothed)".strip())
        self.draw_dots(axes, "validation_loss", held, f"{name} validation".strip())
        axes.set(xlabel="step", ylabel="loss")
        top = 1.05 * float(smooth.max())  # spikes may leave the picture
        return top if top > 0 else 1.0  # NaN too

    def draw_dots(self, axes: Axes, figure: str, colour: str, label: str | None) -> None:
        """Draw a figure of the epochs by the steps they ended on, where there is one."""
        rows = [row for row in self.epochs if figure in row]
        if rows:
            steps, values = [row["step"] for row in rows], [row[figure] for row in rows]
            axes.plot(steps, values, "o-", color=colour, markersize=4, label=label)


class HistoryFiles:
    """The history of one training on disk, as far as it was looked at: losing a last bit is fine.

    What counts for going on is in the checkpoints; so nothing here waits for the disk.

    Args:
        folder: of the training.
    """

    def __init__(self, folder: Path) -> None:
        self._paths = folder / _STEPS, folder / _EPOCHS
        self._files: list[IO[bytes]] = []
        self._written = [0, 0]
        self.seconds = 0.0  # of the last step that was read

    def begin(self, history: History) -> None:
        """Write what a training begins with; what the files had beyond it was lost on the way."""
        self._written = [min(len(history), self._kept_steps()), 0]
        self._files = [path.open("ab", buffering=0) for path in self._paths]
        self._files[0].truncate(_A_STEP * self._written[0])
        self._files[1].truncate(0)
        self.append(history, 0.0)

    def append(self, history: History, seconds: float) -> None:
        """Add the steps and epochs that are new; a full disk loses these, and is told elsewhere."""
        first, row = self._written
        n = len(history)
        if len(history.epochs) < row:  # the row of a part of an epoch that goes on
            self._files[1].truncate(0)
            row = 0
        new = np.empty((n - first, 3))
        new[:, 0], new[:, 1] = history["loss"][first:n], history["lr"][first:n]
        new[:, 2] = seconds
        lines = "".join(json.dumps(r) + "\n" for r in history.epochs[row:])
        with contextlib.suppress(OSError):
            if n > first and self._files[0].write(new.tobytes()) < new.nbytes:
                self._files[0].truncate(_A_STEP * first)
                return
            if lines:
                self._files[1].write(lines.encode())
            self._written = [n, row + lines.count("\n")]

    def close(self) -> None:
        """Close both files."""
        for file in self._files:
            file.close()

    def read(self, history: History) -> None:
        """Take up what is in the files and not in `history` yet; start anew where they shrank."""
        if self._kept_steps() < len(history):
            history.steps, history.epochs = History().steps, []
        with contextlib.suppress(FileNotFoundError), self._paths[0].open("rb") as file:
            file.seek(_A_STEP * len(history))
            content = file.read()
            new = np.frombuffer(content[: len(content) // _A_STEP * _A_STEP]).reshape(-1, 3)
            history.steps["loss"] += new[:, 0].tolist()
            history.steps["lr"] += new[:, 1].tolist()
            if len(new):
                self.seconds = float(new[-1, 2])
        with contextlib.suppress(FileNotFoundError):
            lines = self._paths[1].read_bytes().split(b"\n")[:-1]
            history.epochs = [json.loads(line) for line in lines]

    def _kept_steps(self) -> int:
        try:
            return os.path.getsize(self._paths[0]) // _A_STEP
        except OSError:
            return 0
