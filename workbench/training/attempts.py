"""What an earlier attempt at a run has left of a training, and how far it counts in the next.

A notebook that is resumed executes from the top, so `fit` is to leave what it left the first time:
what `extend` added afterwards is added again when the notebook comes to it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

from workbench import journal
from workbench.errors import RequestError
from workbench.training.budgets import EPOCHS
from workbench.training.checkpoints import best_checkpoint, list_checkpoints
from workbench.training.folders import check_same, kept_record
from workbench.training.phases import Phase
from workbench.training.settings import Settings, planned_steps
from workbench.training.trainings import RECORD
from workbench.types import JSON

__all__ = ["begin_anew", "foreseen", "is_another", "is_left_over", "left_over", "longer"]

_begun: set[Path] = set()  # the folders that this process has trained into
_earlier: dict[Path, JSON] = {}  # the records that were there of an earlier attempt


def left_over(folder: Path, budget: JSON) -> tuple[JSON, Settings] | None:
    """Return the training that an earlier attempt at this run had in a folder: record, settings.

    It has been taken back to the end of this `fit`; to the start where it had failed, or its best
    checkpoint came later. None where no run is resumed, or there was no such training.

    Args:
        folder: of the training.
        budget: what `fit` was given of epochs, steps and minutes.
    """
    first = folder not in _begun
    _begun.add(folder)
    record = kept_record(folder) if journal.is_resumed() and first else None
    if record is None:
        return None
    _earlier[folder] = record
    settings = _of_fit(record, budget)
    best = best_checkpoint(folder / "checkpoints")
    if record["state"] == "failed" or (best is not None and best.step > settings.steps):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    for checkpoint in list_checkpoints(folder / "checkpoints"):
        if checkpoint.step > settings.steps:
            checkpoint.path.unlink()
    return record, settings


def is_left_over(folder: Path) -> bool:
    """Return whether an earlier attempt at this run has left a folder, and this one has not yet."""
    return journal.is_resumed() and folder not in _begun and folder.exists()


def foreseen(folder: Path, budget: JSON) -> Settings | None:
    """Return what an earlier attempt, or the run that is verified, has chosen for this `fit`.

    So the steps that minutes came to are not measured anew. None where neither has such a training.
    """
    run = journal.replayed_run()
    record = _earlier.get(folder) or (kept_record(run / "trainings" / folder.name) if run else None)
    return _of_fit(record, budget) if record else None


def longer(then: Settings | None, foreseen: Settings | None) -> Settings | None:
    """Return what was foreseen, where that goes on from what a training has had so far."""
    had = then.phases if then else ()
    goes_on = foreseen is not None and foreseen.phases[: len(had)] == had
    return foreseen if goes_on else then


def begin_anew(folder: Path) -> None:
    """Forget what an earlier attempt has left in a training's folder."""
    _begun.add(folder)
    shutil.rmtree(folder / "checkpoints", ignore_errors=True)
    (folder / RECORD).unlink(missing_ok=True)
    _earlier.pop(folder, None)


def is_another(then: Settings, now: Settings) -> bool:
    """Return whether a training would not go on with the settings that it was begun with."""
    try:
        check_same("", then, now)
    except RequestError:
        return True
    return False


def _of_fit(record: JSON, budget: JSON) -> Settings:
    """Return the settings that one `fit` had, without what was given beyond its budget."""
    settings = Settings.from_json(record["settings"])
    minutes, per_epoch = budget.get("minutes"), settings.steps_per_epoch
    wanted: float = minutes or planned_steps(
        budget.get("epochs"), budget.get("steps"), per_epoch, default=EPOCHS
    )
    phases: list[Phase] = []
    had = 0.0
    for phase in settings.phases:
        if not phase.start:  # else it is the rest of the one before, sized anew
            if phase.added or had >= wanted:
                break
            had += (phase.minutes or 0.0) if minutes else phase.planned
        phases.append(phase)
    return replace(settings, phases=tuple(phases))
