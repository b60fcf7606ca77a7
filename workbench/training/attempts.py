"""What an earlier attempt at a run has left of a training, and how far it counts in the next.

A notebook that is resumed executes from the top, so `fit` is to leave what it left the first time:
what `extend` added afterwards is added again when the notebook comes to it.
"""

from __future__ import annotations

import shutil
from dataclasses import replace
from itertools import accumulate
from pathlib import Path

from workbench import journal
from workbench.training.checkpoints import best_checkpoint, list_checkpoints
from workbench.training.folders import kept_record
from workbench.training.settings import Settings, planned_steps
from workbench.training.trainings import RECORD
from workbench.types import JSON

__all__ = ["left_over", "replayed_settings"]

_begun: set[Path] = set()  # the folders that this process has trained into


def left_over(folder: Path, budget: JSON) -> tuple[JSON, Settings] | None:
    """Return the training that an earlier attempt at this run had in a folder: record, settings.

    It has been taken back to the end of this `fit`. None where no run is resumed, where there was
    no such training, or it cannot be taken back or had failed: then it is done again from the
    start.

    Args:
        folder: of the training.
        budget: what `fit` was given of epochs, steps and minutes.
    """
    first = folder not in _begun
    _begun.add(folder)
    record = kept_record(folder) if journal.is_resumed() and first else None
    if record is None:
        return None
    settings = _of_fit(record, budget)
    best = best_checkpoint(folder / "checkpoints")
    if record["state"] == "failed" or (best is not None and best.step > settings.steps):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)
        (folder / RECORD).unlink()
        return None
    for checkpoint in list_checkpoints(folder / "checkpoints"):
        if checkpoint.step > settings.steps:
            checkpoint.path.unlink()
    return record, settings


def replayed_settings(name: str, budget: JSON) -> Settings | None:
    """Return what the run that is verified has chosen for its training of a name, if it has."""
    run = journal.replayed_run()
    record = kept_record(run / "trainings" / name) if run else None
    return _of_fit(record, budget) if record else None


def _of_fit(record: JSON, budget: JSON) -> Settings:
    """Return the settings that one `fit` had, without what was added after it."""
    settings = Settings.from_json(record["settings"])
    phases = [p for p in settings.phases if not p.added]
    if "epochs" in budget or "steps" in budget:
        wanted = planned_steps(
            budget.get("epochs"), budget.get("steps"), settings.steps_per_epoch, default=0
        )
        before = accumulate((p.planned for p in phases), initial=0)
        phases = [p for p, planned in zip(phases, before, strict=False) if planned < wanted]
    return replace(settings, phases=tuple(phases))
