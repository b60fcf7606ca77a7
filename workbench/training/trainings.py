"""`Training`: one call to `fit`, its settings, its history, its checkpoints and how it ended."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from workbench import journal
from workbench.errors import RequestError
from workbench.home import write_json
from workbench.training.checkpoints import Checkpoint, best_checkpoint, list_checkpoints
from workbench.training.histories import History
from workbench.training.settings import Settings
from workbench.types import JSON

__all__ = ["RECORD", "Training", "TrainingState"]

TrainingState = Literal["running", "paused", "done", "stopped", "failed", "interrupted"]

RECORD = "training.json"


@dataclass
class Training:
    """One call to `fit`: what it was told, what happened, how it ended, and where it is kept.

    Args:
        settings: everything that decides its numbers.
        folder: where its record and its checkpoints are.
        history: a loss a step, figures an epoch.
        state: `"running"`, `"paused"`, `"done"`, `"stopped"`, `"failed"` or `"interrupted"`.
        seconds: how long it took, pauses left out, what was done before an interruption included.
        environment: what its numbers depend on besides the settings.
    """

    settings: Settings
    folder: Path
    history: History = field(default_factory=History)
    state: TrainingState = "running"
    seconds: float = 0.0
    environment: JSON = field(default_factory=dict, repr=False)
    halted: bool = field(default=False, repr=False)  # the one thing that the loop reads each step
    interrupted: bool = field(default=False, repr=False)
    waited: float = field(default=0.0, repr=False)  # seconds of pauses
    _stopping: bool = field(default=False, repr=False)
    _going: threading.Event = field(default_factory=threading.Event, repr=False, compare=False)
    more: Callable[[JSON], None] | None = field(default=None, repr=False, compare=False)

    @property
    def name(self) -> str:
        """What it was called, or the id that it got."""
        return self.folder.name

    @property
    def checkpoint(self) -> Checkpoint | None:
        """The last checkpoint on disk; its `load(model)` puts the weights back."""
        found = self.checkpoints
        return found[-1] if found else None

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """Those on disk by step: the first, a ladder of some between, the last."""
        return list_checkpoints(self.folder / "checkpoints")

    @property
    def best(self) -> Checkpoint | None:
        """The checkpoint of the epoch with the lowest validation loss, or loss where none is."""
        return best_checkpoint(self.folder / "checkpoints")

    def wait(self) -> Training:
        """Return when the training has ended; `fit` waits itself, so that is at once."""
        return self

    def stop(self) -> None:
        """End the training after the step it is in; `extend` or `resume=True` goes on later."""
        self._stopping = self.halted = True
        self._going.set()

    def interrupt(self) -> None:
        """End it as `stop` does, with nothing more than a last checkpoint."""
        self.interrupted = True
        self.stop()

    def pause(self) -> None:
        """Hold the training after the step it is in, until `unpause` or `stop`."""
        self._going.clear()
        self.halted = True

    def unpause(self) -> None:
        """Let a paused training go on."""
        self._going.set()

    def renew(self) -> None:
        """Forget that it was stopped, before it is extended."""
        self._stopping = self.halted = self.interrupted = False

    def hold(self) -> bool:
        """Wait while the training is paused; return whether to stop. Called by the loop."""
        if not self._stopping:
            self.state, since = "paused", time.perf_counter()
            self._going.wait()
            self.waited += time.perf_counter() - since
            self.state = "running"
        self.halted = False
        self.halted = self._stopping or not self._going.is_set()  # said again in the meantime
        return self._stopping

    def extend(
        self,
        *,
        epochs: float | None = None,
        steps: int | None = None,
        minutes: float | None = None,
    ) -> Training:
        """Train on for more epochs, steps or minutes, the learning rate rising and falling anew.

        It goes on from the last checkpoint, whatever was done to the model's weights since.

        Args:
            epochs: passes over the training rows; may be a fraction; 1 where nothing is given.
            steps: updates.
            minutes: of time; the number of steps is measured first.

        Raises:
            RequestError: the training has not ended, failed, or its model is gone.
        """
        if self.more is None or self.state in ("running", "paused", "failed"):
            raise RequestError(
                f"a training that is {self.state} cannot be extended: "
                "wait until it has ended, or fit again"
            )
        self.more({"epochs": epochs, "steps": steps, "minutes": minutes})
        return self

    def write(self) -> None:
        """Write the record: settings, state and what the numbers depend on besides."""
        record = {
            "format": 1,
            "name": self.name,
            "state": self.state,
            "time": journal.now(),
            "seconds": self.seconds,
            "settings": self.settings.to_json(),
            "environment": self.environment,
        }
        write_json(self.folder / RECORD, record)

    def __repr__(self) -> str:
        s = self.settings
        last = self.history.epochs[-1] if self.history.epochs else {}
        figures = "".join(
            f", {name.replace('_', ' ')} {value:.4g}"
            for name, value in last.items()
            if name not in ("epoch", "step")
        )
        return (
            f"Training {self.state}: {s.model} on {s.data}, {len(self.history):,} of "
            f"{s.steps:,} steps in {self.seconds:.1f} s{figures}"
        )
