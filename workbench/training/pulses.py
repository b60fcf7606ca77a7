"""How a training shows that it lives; the loop calls it by time and at the end of each epoch."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import TextIO

from workbench.determinism import alone
from workbench.journal import current_run
from workbench.progress import in_notebook, is_headless, progress
from workbench.training.trainings import Training

__all__ = ["Pulse"]


class Pulse:
    """A live line where somebody watches, else a printed line for some of the epochs.

    Printed are the last epoch, and before it at most twenty, a second or more apart. A training in
    a thread of its own is silent: what it does is seen in its view.
    """

    def __init__(self, training: Training, begun: Callable[[], None]) -> None:
        self._training, self._begun = training, begun
        self._silent = not alone()
        bar = not is_headless() and (in_notebook() or sys.stderr.isatty()) and not self._silent
        self._bar = progress(training.settings.steps, "training", unit="step") if bar else None
        self._printed = time.perf_counter()

    def __enter__(self) -> Pulse:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()

    def say(self, text: str) -> None:
        """Print a line about what was decided."""
        if self._silent:
            self._training.notes.append(text)
            return
        stream = self._stream()
        if self._bar is not None and stream is sys.stderr:
            self._bar.write(text, file=stream)
        else:
            print(text, file=stream, flush=True)

    def look(self, step: int, loss: float) -> None:
        """Show that `step` steps are done; `loss` is the mean since the last look."""
        self._begun()
        if self._bar is not None:
            self._bar.total = self._training.settings.steps  # minutes are sized anew on the way
            self._bar.set_postfix_str(f"loss {loss:.4f}", refresh=False)
            self._bar.update(step - self._bar.n)

    def epoch(self, row: dict[str, float]) -> None:
        """Show the figures of an epoch that just ended, as `History.epochs` has them."""
        text = ", ".join(f"{k.replace('_', ' ')} {v:.4g}" for k, v in row.items() if k != "step")
        if self._bar is not None:
            self._bar.set_postfix_str(text, refresh=False)
            self._bar.update(int(row["step"]) - self._bar.n)
        elif self._silent:
            return
        elif row["step"] == self._training.settings.steps or self._is_time(int(row["epoch"])):
            self._printed = time.perf_counter()
            print(text, file=self._stream(), flush=True)

    def _stream(self) -> TextIO:
        """Return where lines go: in a run to stderr, which its verification does not compare."""
        return sys.stdout if in_notebook() and current_run() is None else sys.stderr

    def _is_time(self, epoch: int) -> bool:
        epochs = math.ceil(self._training.settings.epochs)
        share, before = (20 * e // epochs for e in (epoch, epoch - 1))
        return share > before and time.perf_counter() - self._printed >= 1
