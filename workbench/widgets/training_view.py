"""`TrainingView`: the curves, the progress and the controls of one training, or of several."""

from __future__ import annotations

import base64
import math
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Any
from uuid import uuid4

import anywidget
from IPython.display import display, update_display

from workbench.errors import RequestError, WorkbenchError
from workbench.pictures import Picture
from workbench.progress import is_live
from workbench.training import Training
from workbench.types import JSON
from workbench.widgets.curves import Curve, Rows
from workbench.widgets.faces import css, javascript, noted
from workbench.widgets.figures import plain_row
from workbench.widgets.pump import follow
from workbench.widgets.stills import still
from workbench.widgets.subshells import answer_where_asked
from workbench.widgets.training_rewind import ASKS, Rewind

__all__ = ["TrainingView", "view"]

_RECENT = 20  # looks over which the speed is taken: five seconds
_AWAITED = "a cell waits for the end: ■ ends the training and keeps it, buttons may act only then"
_ENDING = "it ends after the step it is in; ■ once more raises at once"
_NOTES = 3  # the last ones are shown
_MIME = "application/vnd.jupyter.widget-view+json"


def view(trainings: Sequence[Training]) -> TrainingView | Picture:
    """Return a live view of trainings; a picture of them where no page lives."""
    return TrainingView(trainings) if is_live() else still(trainings)


class TrainingView(anywidget.AnyWidget):
    """Shows trainings while they run and afterwards; steers them, and goes back in them.

    The page is told what is new, a few times a second, as binary buffers of bounded size; whoever
    missed something asks for everything. The saved notebook keeps a picture and a line of text.

    Args:
        trainings: drawn over each other.
    """

    _esm = javascript("charts", "training_rewind", "training")
    _css = css("charts", "training")

    def __init__(self, trainings: Sequence[Training]) -> None:
        super().__init__()
        answer_where_asked(self)
        self._sides = [_Side(training, self._join) for training in trainings]
        self._lock = threading.Lock()  # the page asks in one thread, the pump looks in another
        self._drawing, self._png = threading.Lock(), b""
        self._drawn: list[tuple[str, int]] = []  # how the trainings stood in the picture
        self._sequence = 0
        self._told: JSON = {}
        self._answered: dict[str, int] = {}  # of each who asks, the number of its last ask
        self._display_id: str | None = None
        self._going = True
        self.on_msg(self._answer)
        for training in trainings:
            training.views.append(self)
        follow(self)

    def look(self) -> bool:
        """Tell the page what is new; return whether more may come."""
        for side in self._sides:
            side.training.refresh()
        going = any(side.training.is_going for side in self._sides)
        self._tell()
        if self._going and not going:
            self.keep()
        self._going = going
        return going or any(side.rewind.is_busy for side in self._sides)

    def _join(self, branch: Training) -> None:
        """Draw a branch over the others from its first step on."""
        branch.views.append(self)
        with self._lock:
            self._sides = [*self._sides, _Side(branch, self._join)]
        self.follow()

    def follow(self) -> None:
        """Look again, since a training goes on."""
        self._going = True
        follow(self)

    def keep(self) -> None:
        """Put the picture as it is now into the notebook, beside the live view."""
        if self._display_id is not None:
            update_display(self._bundle(), display_id=self._display_id, raw=True)

    def _tell(self, *, everything: bool = False) -> None:
        with self._lock:
            buffers: list[bytes] = []
            news = [side.news(buffers, everything=everything) for side in self._sides]
            told = {"type": "update", "trainings": news, "answered": self._answered}
            if told == self._told and not buffers and not everything:
                return  # while it is paused, for instance
            self._sequence = 0 if everything else self._sequence + 1
            self.send({**told, "seq": self._sequence}, buffers)
            self._told = told

    def _answer(self, _: Any, content: JSON, buffers: Sequence[memoryview]) -> None:
        """Do what the page asks for."""
        if content["ask"] == "all" or not self._is_new(content):
            self._tell(everything=True)
            return
        side = self._sides[content["training"]]
        if content["ask"] in ASKS:
            side.rewind.do(content)
            follow(self)  # the training itself has not moved
            return
        try:
            side.do(content)
        except WorkbenchError as error:
            side.problem = str(error)
        self.follow()

    def _is_new(self, asked: JSON) -> bool:
        """Take note of an ask; return whether it is not one that is asked again."""
        asker, number = asked["asker"], asked["number"]
        with self._lock:
            if number <= self._answered.get(asker, 0):
                return False
            self._answered = noted(self._answered, asker, number)
        return True

    def _bundle(self) -> JSON:
        """Return what a cell's output holds: for a page that lives, and for one that does not."""
        trainings = [side.training for side in self._sides]
        bundle: JSON = {
            _MIME: {"version_major": 2, "version_minor": 1, "model_id": self.model_id},
            "text/plain": "\n".join(f"{t.name}: {t!r}" for t in trainings),
        }
        if any(len(t.history) for t in trainings) and not any(t.is_going for t in trainings):
            bundle["image/png"] = self._picture(trainings)
        return bundle

    def _picture(self, trainings: Sequence[Training]) -> str:
        """Return the picture of trainings that have ended, drawn once."""
        stand: list[tuple[str, int]] = [(t.state, len(t.history)) for t in trainings]
        with self._drawing:
            if stand != self._drawn:
                self._png, self._drawn = still(trainings)._repr_png_(), stand
            return base64.b64encode(self._png).decode()

    def _ipython_display_(self) -> None:
        """Be displayed under an id, so that the picture can be put in later."""
        if self._display_id is None:
            self._display_id = uuid4().hex
        display(self._bundle(), display_id=self._display_id, raw=True)

    def __repr__(self) -> str:
        return "\n".join(repr(side.training) for side in self._sides)


class _Side:
    """One training of a view: what the page knows of it already, and what is new.

    Args:
        training: live, or as its files tell.
        join: called with a branch of it that is to be shown too.
    """

    def __init__(self, training: Training, join: Callable[[Training], None]) -> None:
        self.training, self.rewind = training, Rewind(training, join)
        self.problem = ""
        self._start_anew()
        self._recent: deque[tuple[float, int]] = deque(maxlen=_RECENT)

    def _start_anew(self) -> None:
        self._curves, self._rows = {"loss": Curve(), "lr": Curve()}, Rows()

    def do(self, asked: JSON) -> None:
        """Do what a button asks for."""
        self.problem = ""
        if asked["ask"] == "extend":
            self.training.extend(epochs=_epochs(asked["epochs"]))
        elif asked["ask"] in self._can():
            getattr(self.training, asked["ask"])()

    def news(self, buffers: list[bytes], *, everything: bool) -> JSON:
        """Return what the page has not been told, or everything; numbers go into `buffers`."""
        if everything:
            self._start_anew()
        t, history, settings = self.training, self.training.history, self.training.settings
        step = len(history)
        rate = self._steps_a_second(step)
        return {
            "name": t.name,
            "model": settings.model,
            "data": settings.data,
            "state": t.state,
            "note": self._note(),
            "step": step,
            "steps": settings.steps,
            "epoch": step / settings.steps_per_epoch,
            "epochs": settings.epochs,
            "seconds": t.seconds,
            "left": (settings.steps - step) / rate if rate and t.is_going else None,
            "rate": rate * settings.batch_size if rate else None,
            "best": _best(history.epochs),
            "can": self._can(),
            "curves": [c for name in ("loss", "lr") if (c := self._curve(name, buffers))],
            "rows": self._new_rows(history.epochs),
            "rewind": self.rewind.news(everything=everything),
        }

    def _note(self) -> str:
        t = self.training
        if self.problem or t.error:
            return self.problem or str(t.error)
        awaited = t.awaited and t.is_going
        ending = [_ENDING if t.reins.interrupted else _AWAITED] if awaited else []
        return "\n".join([*t.notes[-_NOTES:], *ending])

    def _curve(self, name: str, buffers: list[bytes]) -> JSON | None:
        values, curve = self.training.history.steps[name], self._curves[name]
        n = len(values)
        if n == curve.n:
            return None
        first = curve.update(values, n)
        buffers.append(curve.table[first:].tobytes())
        return {"name": name, "bucket": curve.bucket, "from": first, "buffer": len(buffers) - 1}

    def _new_rows(self, rows: Sequence[Mapping[str, float]]) -> JSON:
        n, shown = len(rows), self._rows
        first = len(shown.shown) if n == shown.n else shown.update(rows, n)
        return {"from": first, "rows": [plain_row(row) for row in shown.shown[first:]]}

    def _can(self) -> list[str]:
        t = self.training
        ours = t.can_extend
        if t.state == "running":
            return ["pause", "stop", *(["extend"] if ours else [])]
        if t.state == "paused":
            return ["unpause", "stop", *(["extend"] if ours else [])]
        return ["extend"] if ours else []

    def _steps_a_second(self, step: int) -> float | None:
        """Return the speed over the last looks, or None where nothing moves."""
        if self.training.state != "running":
            self._recent.clear()
            return None
        self._recent.append((time.perf_counter(), step))
        (then, before), (now, after) = self._recent[0], self._recent[-1]
        return (after - before) / (now - then) if after > before else None


def _epochs(text: str) -> float:
    """Return how many epochs are meant.

    Raises:
        RequestError: it is no number above 0.
    """
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 < found < math.inf:
        raise RequestError(f"extend by {text or 'nothing'}: expected more than 0 epochs")
    return found


def _best(rows: Sequence[Mapping[str, float]]) -> JSON | None:
    """Return the epoch with the lowest validation loss, or loss where none is."""
    for name in ("validation_loss", "loss"):
        found = [row for row in rows if math.isfinite(row.get(name, math.nan))]
        if found:
            best = min(found, key=lambda row: row[name])
            return {"step": best["step"], "name": name.replace("_", " "), "value": best[name]}
    return None
