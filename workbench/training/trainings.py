"""`Training`: one call to `fit`, its settings, its history, its checkpoints and how it ended."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, ParamSpec, TypeVar
from weakref import ReferenceType

from workbench import journal
from workbench.errors import RequestError, let_go
from workbench.home import write_json
from workbench.training.checkpoints import Checkpoint, best_checkpoint, list_checkpoints
from workbench.training.histories import History
from workbench.training.reins import Reins
from workbench.training.settings import Settings, one_budget, planned_steps
from workbench.types import JSON

if TYPE_CHECKING:
    from torch import nn

    from workbench.pictures import Picture
    from workbench.training.blaming import Blame
    from workbench.training.pasts import Past
    from workbench.widgets import TrainingView

__all__ = ["GOING", "RECORD", "Origin", "Training", "TrainingState"]

_P = ParamSpec("_P")
_R = TypeVar("_R")

TrainingState = Literal["running", "paused", "done", "stopped", "failed", "interrupted", "killed"]

GOING = ("running", "paused")
RECORD = "training.json"
_TICK = 0.1  # seconds after which a wait looks whether it was interrupted


def _letting_go(method: Callable[_P, _R]) -> Callable[_P, _R]:
    """Let what a method raises keep nothing alive that it was called with, or has made."""

    @wraps(method)
    def guarded(*args: _P.args, **kwargs: _P.kwargs) -> _R:
        try:
            return method(*args, **kwargs)
        except BaseException as error:
            let_go(error)
            del args, kwargs  # this frame stays in the traceback
            raise

    return guarded


@dataclass(frozen=True)
class Origin:
    """Where a branch comes from.

    Args:
        name: of the training that it was branched from.
        step: after which.
    """

    name: str
    step: int


@dataclass(eq=False)
class Training:
    """One call to `fit`: what it was told, what happened, how it ended, and where it is kept.

    In JupyterLab it is a live handle: the training goes on in a thread of its own while cells run.

    Args:
        settings: everything that decides its numbers.
        folder: where its record, its history and its checkpoints are.
        history: a loss a step, figures an epoch.
        state: `"running"`, `"paused"`, `"done"`, `"stopped"`, `"failed"`, `"interrupted"` or, read
            from the files of a process that is gone, `"killed"`.
        seconds: how long it took, pauses left out, what was done before an interruption included.
        environment: what its numbers depend on besides the settings.
        error: what a failed one failed of.
        notes: what was said on the way, where nobody could be told.
        reins: what steers it.
        views: that show it live.
        awaited: whether a cell waits for its end, so that buttons may not reach the kernel.
        begun: when, in UTC.
        branched_from: of a branch, the training and the step that it goes on from.
        past: what goes back to its steps, or None.
    """

    settings: Settings
    folder: Path
    history: History = field(default_factory=History)
    state: TrainingState = "running"
    seconds: float = 0.0
    environment: JSON = field(default_factory=dict, repr=False)
    error: BaseException | None = field(default=None, repr=False)
    notes: list[str] = field(default_factory=list, repr=False)
    reins: Reins = field(default_factory=Reins, repr=False)
    views: list[Any] = field(default_factory=list, repr=False)
    awaited: bool = field(default=False, repr=False)
    begun: str = field(default_factory=journal.now, repr=False)
    branched_from: Origin | None = None
    past: Past | None = field(default=None, repr=False)
    _model: nn.Module | ReferenceType[nn.Module] | None = field(default=None, repr=False)
    _more: Callable[[JSON], None] | None = field(default=None, repr=False)
    _thread: threading.Thread | None = field(default=None, repr=False)
    _over: threading.Event = field(default_factory=threading.Event, repr=False)

    @property
    def name(self) -> str:
        """What it was called, or the id that it got."""
        return self.folder.name

    @property
    def model(self) -> nn.Module:
        """The model that it trains: a branch keeps its own, of others somebody has to hold it.

        Raises:
            RequestError: nobody does, or another process trains it.
        """
        found = self._model() if isinstance(self._model, ReferenceType) else self._model
        if found is None:
            raise RequestError(
                f"the model of training {self.name!r} is not in this process, or nobody holds it: "
                "build it anew, and training.checkpoint.load(model) puts its weights back"
            )
        return found

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

    @property
    def is_going(self) -> bool:
        """Whether it is running or paused."""
        return self.state in GOING

    def keep_model(self, model: nn.Module) -> None:
        """Hold the model, as only a branch does; of other trainings the user holds it."""
        self._model = model

    @property
    def keeps_model(self) -> bool:
        """Whether the model lives as long as this does."""
        return self._model is not None and not isinstance(self._model, ReferenceType)

    @property
    def has_thread(self) -> bool:
        """Whether it goes on, or has gone on, in a thread of its own."""
        return self._thread is not None

    def pause(self) -> None:
        """Hold the training after the step it is in; until `unpause` the model can be used."""
        self.reins.pause()

    def unpause(self) -> None:
        """Let a paused training go on."""
        self.reins.unpause()

    def stop(self) -> None:
        """End the training after the step it is in; `extend` or `resume=True` goes on later."""
        self.reins.stop()

    def wait(self) -> Training:
        """Return when the training has ended, with everything that it left.

        While it waits, ■ (or Ctrl-C) ends the training after the step it is in, and keeps a
        checkpoint to go on from; a second ■ raises `KeyboardInterrupt` at once.

        Raises:
            WorkbenchError: what the training failed of.
        """
        if self._thread is not None:
            self.awaited = True
            try:
                self._wait()
            finally:
                self.awaited = False
        for view in self.views:
            view.keep()  # by this cell, so that whoever executes the notebook hears of it
        if self.error is not None:
            raise self.error
        return self

    def _wait(self) -> None:
        try:
            self._join()
        except KeyboardInterrupt:
            if self.reins.interrupted:
                raise
            self.reins.stop(interrupted=True)
            self._join()

    def _join(self) -> None:
        if threading.current_thread() is self._thread:
            raise RequestError(
                f"training {self.name!r} cannot wait for itself: call this from a cell, not from a "
                "callback"
            )
        while not self._over.wait(_TICK):  # Thread.join, interrupted, takes it for ended
            pass

    def extend(
        self,
        *,
        epochs: float | None = None,
        steps: int | None = None,
        minutes: float | None = None,
    ) -> Training:
        """Train on for more epochs, steps or minutes, the learning rate rising and falling anew.

        One that is running is given more to do. One that has ended goes on from its last
        checkpoint, whatever was done to the model's weights since.

        Args:
            epochs: passes over the training rows; may be a fraction; 1 where nothing is given.
            steps: updates.
            minutes: of time; the number of steps is measured first, so the training must have
                ended.

        Raises:
            RequestError: the training failed, its model is gone, or it is running and minutes are
                asked for.
        """
        more = self._more
        if self.state == "failed":
            raise RequestError("a training that is failed cannot be extended: fit again")
        if more is None:
            raise RequestError(
                f"there is no model to go on with: keep that of training {self.name!r} in a "
                f"variable, or fit(model, data, ..., name={self.name!r}, resume=True) with a "
                "larger budget"
            )
        budget = {"epochs": epochs, "steps": steps, "minutes": minutes}
        if self.is_going and minutes is not None:
            raise RequestError(
                "a training that is running is extended by epochs or steps: wait until it has "
                "ended, and minutes can be measured"
            )
        if self.is_going:
            one_budget(budget)
            n = planned_steps(epochs, steps, self.settings.steps_per_epoch, default=1)
            if self.reins.extend(n):
                return self
        if self._thread is not None:
            self._join()
        more(budget)
        return self

    @_letting_go
    def at(self, step: int, *, model: nn.Module | None = None, data: Any = None) -> nn.Module:
        """Return a copy of the model with the weights that the training had after a step, exactly.

        It starts from the nearest checkpoint before and takes the steps between again, on the copy,
        while the training may run on; nothing is written, and no callback is called. Each step that
        is taken again has to come to the loss that it had, bit for bit, or it is refused: so it is
        where the model, its loss or a callback draws from the global generators (`F.dropout`),
        where a callback changes the model, where data or machine have changed since, and mostly on
        a GPU, which adds up in no fixed order. Checkpoints themselves are exact everywhere.

        Where an average of the weights is kept, it is the average, as `Checkpoint.load` gives it.
        All but the weights is copied from the model as it is now, its hooks too: those that are
        plain functions are called while steps are taken again.

        Args:
            step: how many steps were done; 0 for the weights that it began with.
            model: as it was given to `fit`, with any weights; needed, as `data` is, only where this
                process has it no more, for instance after the kernel was restarted.
            data: likewise.

        Raises:
            RequestError: it has not come to that step, or cannot be taken back to it exactly.
        """
        return self._go_back().at(self, step, model, data)

    @_letting_go
    def branch(
        self,
        step: int,
        *,
        name: str | None = None,
        model: nn.Module | None = None,
        data: Any = None,
        **changes: Any,
    ) -> Training:
        """Go on from a step as another training, with something changed; return that training.

        It learns with a copy, `branch.model`; this training is not touched. It begins with this
        one's history, its weights, its average and its optimizer's state, takes the steps that were
        left, and ends, where nothing is changed, in the same bits: `training.show(branch)` draws
        both. Another optimizer begins without a state. With another `lr` the rate keeps its course;
        another schedule or budget begins a course of its own.

        Args:
            step: how many steps were done; see `at`, which says what cannot be taken back.
            name: to find it again; by default this one's with the step.
            model: see `at`.
            data: see `at`.
            changes: arguments of `fit` by keyword, all but those that decide the order of rows, the
                device and the average: `lr=0.01`, `schedule="cosine"`, `steps=500` (more, after the
                step). What is not given stays, callbacks too.

        Raises:
            RequestError: an argument cannot be changed, there is nothing left to do, or the
                training cannot be taken back to the step.
        """
        return self._go_back().branch(self, step, name, model, data, changes)

    @_letting_go
    def blame(
        self, step: int, n: int = 5, *, model: nn.Module | None = None, data: Any = None
    ) -> Blame:
        """Return the batch behind a step: its rows, the loss of each as the step saw it, in order.

        The step is taken again on a copy, as in `at`: augmented, and with its dropout.

        Args:
            step: counted from 1, as in the curves.
            n: how many rows count as the hardest.
            model: see `at`.
            data: see `at`.

        Raises:
            RequestError: see `at`; or the loss cannot take a row alone.
        """
        return self._go_back().blame(self, step, n, model, data)

    def _go_back(self) -> Past:
        if self.past is None:
            raise RequestError(
                f"training {self.name!r} does not know what it was given: "
                f"wb.list_trainings()[{self.name!r}] goes back, with model= and data= as fit had "
                "them"
            )
        self.refresh()
        return self.past

    def show(self, *others: Training) -> TrainingView | Picture:
        """Return a view of the training, live while it runs: its curves, progress and controls.

        Where no page lives, headless or in a script, it is a picture.

        Args:
            others: to be drawn over it.
        """
        from workbench.widgets import view

        return view([self, *others])

    @property
    def can_go_back(self) -> bool:
        """Whether `at`, `branch` and `blame` need nothing but a step."""
        return self.past is not None and self.past.given is not None

    @property
    def can_extend(self) -> bool:
        """Whether `extend` has a model to go on with."""
        return self._more is not None and self.state != "failed"

    def fail(self, error: BaseException) -> None:
        """Take note of what it failed of, and of the state where that was not done yet."""
        let_go(error)
        self.error = error
        if self.is_going:
            self.state = "failed"

    def refresh(self) -> None:
        """Take up what has happened since; of a training of this process that is always done."""

    def say(self, text: str) -> None:
        """Warn; where the training has a thread of its own, which never prints, leave a note."""
        if threading.current_thread() is self._thread:
            self.notes.append(text)
        else:
            warnings.warn(text, stacklevel=3)

    def write(self) -> None:
        """Write the record: settings, state and what the numbers depend on besides."""
        record = {
            "format": 1,
            "name": self.name,
            "state": self.state,
            "begun": self.begun,
            "time": journal.now(),
            "seconds": self.seconds,
            "settings": self.settings.to_json(),
            "environment": self.environment,
        }
        if self.branched_from is not None:
            record["branched_from"] = asdict(self.branched_from)
        write_json(self.folder / RECORD, record)

    def __repr__(self) -> str:
        s = self.settings
        last = self.history.epochs[-1] if self.history.epochs else {}
        figures = "".join(
            f", {name.replace('_', ' ')} {value:.4g}"
            for name, value in last.items()
            if name not in ("epoch", "step")
        )
        figures += f"; {self.error}" if self.error is not None else ""
        origin = self.branched_from
        source = f", branched from {origin.name} at step {origin.step:,}" if origin else ""
        return (
            f"Training {self.state}: {s.model} on {s.data}{source}, {len(self.history):,} of "
            f"{s.steps:,} steps in {self.seconds:.1f} s{figures}"
        )
