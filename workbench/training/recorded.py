"""Trainings as their files tell: those of other processes, and those of the past."""

from __future__ import annotations

import threading
import time
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from workbench import journal
from workbench.errors import RequestError, TamperedError
from workbench.home import home
from workbench.listings import Listing
from workbench.training.fitting import go_on
from workbench.training.folders import kept_record
from workbench.training.histories import HistoryFiles
from workbench.training.live import handle_of
from workbench.training.pasts import Past
from workbench.training.reins import leave_word
from workbench.training.settings import Settings
from workbench.training.trainings import RECORD, Origin, Training
from workbench.types import JSON

if TYPE_CHECKING:
    import pandas

__all__ = ["RecordedTraining", "TrainingList", "list_trainings"]

_LOOK_EVERY = 0.5  # seconds


@dataclass(eq=False, repr=False)
class RecordedTraining(Training):
    """A training that another process runs, or that ran before; asked by a word in its folder."""

    _reading: threading.Lock = field(default_factory=threading.Lock)  # by views and cells at once

    @classmethod
    def read(cls, folder: Path) -> RecordedTraining:
        """Return the training in `folder` as it stands.

        Raises:
            RequestError: there is none.
            TamperedError: its record cannot be read.
        """
        record = kept_record(folder)
        if record is None:
            raise RequestError(f"no training in {str(folder)!r}: it holds no {RECORD}")
        try:
            found = cls(Settings.from_json(record["settings"]), folder, begun=record["begun"])
            origin = record.get("branched_from")
            found.branched_from = Origin(**origin) if origin else None
            found.past = Past(None, go_on)
            found._take_up(record)
        except (KeyError, TypeError) as error:
            raise TamperedError(
                f"record {folder / RECORD} is not that of a training: {error!r}; restore it, or "
                "move its folder elsewhere"
            ) from None
        return found

    def refresh(self) -> None:
        """Take up what its files have got since."""
        record = kept_record(self.folder)
        if record is not None:
            self._take_up(record)

    def _take_up(self, record: JSON) -> None:
        with self._reading:
            self.settings = Settings.from_json(record["settings"])
            self.environment, self.state = record["environment"], record["state"]
            files = HistoryFiles(self.folder)
            files.seconds = self.seconds
            files.read(self.history)
            over = not self.is_going and self.state != "killed"
            self.seconds = record["seconds"] if over else files.seconds

    def pause(self) -> None:
        """Ask its process to hold it."""
        self._ask("pause")

    def unpause(self) -> None:
        """Ask its process to let it go on."""
        self._ask("unpause")

    def stop(self) -> None:
        """Ask its process to end it after the step it is in."""
        self._ask("stop")

    def _ask(self, word: str) -> None:
        """Leave a word for its process.

        Raises:
            RequestError: no process runs it any more.
        """
        self.refresh()
        if not self.is_going:
            raise RequestError(
                f"training {self.name!r} is {self.state}: there is nothing to {word}"
            )
        leave_word(self.folder, word)

    def wait(self) -> Training:
        """Return when it has ended; ■ ends the waiting alone."""
        while self.is_going:
            time.sleep(_LOOK_EVERY)
            self.refresh()
        return self


class TrainingList(Listing[Training]):
    """Trainings, oldest first, indexed by number, name, unique prefix of one, or `"last"`."""

    kind = "training"

    def table(self) -> pandas.DataFrame:
        """Return one row a training: state, model, data, steps, seconds and its last figures."""
        import pandas

        rows = [
            {
                "state": t.state,
                "model": t.settings.model,
                "data": t.settings.data,
                "step": len(t.history),
                "steps": t.settings.steps,
                "seconds": t.seconds,
                **(t.history.epochs[-1] if t.history.epochs else {}),
            }
            for t in self
        ]
        names = pandas.Index([t.name for t in self], name="name")
        return pandas.DataFrame(rows, index=names)

    def __repr__(self) -> str:
        lines = (f"{t.name}: {t!r}" for t in self)
        return "\n".join(lines) or "no trainings yet: wb.fit makes one"


def list_trainings() -> TrainingList:
    """Return the trainings of this home, or of the current run, oldest first.

    Those of this process are the handles that `fit` returned; those of another can be watched,
    paused and stopped too.
    """
    found: list[Training] = []
    for path in ((journal.current_run() or home()) / "trainings").glob(f"*/{RECORD}"):
        ours = handle_of(path.parent)
        try:
            theirs = RecordedTraining.read(path.parent)
        except TamperedError as error:  # one damaged record must not hide all the others
            warnings.warn(str(error), stacklevel=2)
            continue
        found.append(ours if ours and (ours.is_going or not theirs.is_going) else theirs)
    return TrainingList(sorted(found, key=lambda t: (t.begun, t.name)))
