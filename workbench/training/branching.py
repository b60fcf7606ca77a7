"""Branches: another training that begins where one was after a step, with something changed."""

from __future__ import annotations

import itertools
import math
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from weakref import ref

from torch import Tensor, nn

from workbench.determinism import check_seed
from workbench.errors import RequestError, UnknownNameError
from workbench.training.attempts import begin_anew, is_left_over
from workbench.training.averages import floating
from workbench.training.batches import Batches, Watched
from workbench.training.checkpoints import Snapshot, copied, read_checkpoint, write_checkpoint
from workbench.training.checks import check_given
from workbench.training.folders import claimed, folder_of, kept_record
from workbench.training.jobs import Job, group_state, snapshot, weights_of
from workbench.training.optimizers import frozen
from workbench.training.phases import Phase
from workbench.training.planning import Plan, lasting, make_plan
from workbench.training.rewinding import Given, Told, checked_step, history_until, replayed
from workbench.training.settings import Settings, number, one_budget, planned_steps
from workbench.training.trainings import Origin, Training
from workbench.types import JSON

__all__ = ["CHANGES", "Branch", "branched"]

_OF_OPTIMIZER = ("lr", "optimizer", "momentum", "weight_decay")
_BUDGET = ("epochs", "steps")
_BESIDE = ("callbacks", "checkpoint_every")
CHANGES = (
    *(*_OF_OPTIMIZER, "schedule", "loss", "label_smoothing", "class_weights", "augment", "clip"),
    *("accumulate", "precision", "seed", *_BUDGET, *_BESIDE),
)
_LONGEST = 100  # letters of a name


@dataclass(frozen=True)
class Branch:
    """A branch that is ready to take its steps: its first checkpoint is on disk.

    Args:
        training: as which it goes on.
        plan: what it is to do.
        given: what to go back in it with.
    """

    training: Training
    plan: Plan
    given: Given


def branched(
    parent: Training,
    given: Given,
    step: int,
    name: str | None,
    changes: Mapping[str, Any],
    *,
    told: Told | None = None,
) -> Branch:
    """Return a branch of a training, ready to take its steps; see `Training.branch`."""
    for change in changes:
        if change not in CHANGES:
            raise UnknownNameError("change of a branch", change, CHANGES)
    step = checked_step(parent, step)
    phases = _phases(parent.settings, step, changes)
    folder = folder_of(name or _free_name(parent, step), parent.settings.model)
    _check_new(folder)
    state, model, best = _taken_back(parent, given, step, told)
    own = _own(given, changes, model)
    plan = make_plan(
        model,
        own.data,
        own.asked,
        loader=own.loader,
        callbacks=own.callbacks,
        then=parent.settings,
    )
    settings = replace(plan.settings, phases=phases)
    start = _start(state, plan, changes, best)
    with claimed(folder):
        shutil.rmtree(folder / "checkpoints", ignore_errors=True)  # of one that never began
        write_checkpoint(folder / "checkpoints", start, best)
    training = Training(settings, folder, branched_from=Origin(parent.name, step))
    training.history = history_until(parent.history, step)
    training.keep_model(model)
    return Branch(training, plan, own)


def _own(given: Given, changes: Mapping[str, Any], model: nn.Module) -> Given:
    """Return what the parent was given, with the changes."""
    asked: JSON = {**given.asked}
    asked |= {key: lasting(v) for key, v in changes.items() if key not in (*_BUDGET, *_BESIDE)}
    check_seed(asked["seed"])
    asked["seed"] = int(asked["seed"])
    callbacks = lasting(changes.get("callbacks", given.callbacks))
    check_given(model, asked, callbacks)
    every = number("checkpoint_every", changes.get("checkpoint_every", given.every))
    return replace(given, model=ref(model), asked=asked, callbacks=callbacks, every=every)


def _phases(parent: Settings, step: int, changes: Mapping[str, Any]) -> tuple[Phase, ...]:
    """Return the budget: the parent's, or a course of its own after the step."""
    budget = one_budget({name: changes.get(name) for name in _BUDGET})
    left = parent.steps - step
    if budget:
        left = planned_steps(
            budget.get("epochs"), budget.get("steps"), parent.steps_per_epoch, default=1
        )
    elif not left:
        raise RequestError(
            f"nothing is left to do after step {step:,}, the last: give the branch epochs= or "
            "steps=, or an earlier step"
        )
    elif "schedule" not in changes:
        return tuple(replace(phase, minutes=None) for phase in parent.phases)
    before = (Phase(step, step),) if step else ()
    return (*before, Phase(left, left))


def _start(
    state: Snapshot, plan: Plan, changes: Mapping[str, Any], best: Snapshot | None
) -> Snapshot:
    """Return what the branch goes on from: the parent's state, where it still means something."""
    tensors, rest = dict(state.tensors), dict(state.rest)
    rest["best"] = math.inf if best is None else _score(best.rest["epochs"][-1])
    if any(name in changes for name in _OF_OPTIMIZER):
        fresh = group_state(plan.job)
        kept = rest["groups"] if len(rest["groups"]) == len(fresh) else [{}] * len(fresh)
        rest["groups"] = [{**old, **new} for old, new in zip(kept, fresh, strict=True)]
    if changes.get("optimizer") is not None:
        rest |= {"optimizer": {}, "groups": group_state(plan.job)}
        tensors = {k: v for k, v in tensors.items() if not k.startswith("optimizer.")}
    model = plan.job.model
    with frozen(model, plan.settings.lr_of):
        learned = {f"average.{name}" for name in floating(model)}
    tensors = {k: v for k, v in tensors.items() if not k.startswith("average.") or k in learned}
    return Snapshot(tensors, rest)


def _taken_back(
    parent: Training, given: Given, step: int, told: Told | None
) -> tuple[Snapshot, nn.Module, Snapshot | None]:
    """Return the parent's state after a step, a model that has it, and the best epoch up to it."""
    row = _best_row(parent, step)
    best = _kept(parent, row) if row else None
    sought = int(row["step"]) if row and best is None else None  # it is taken on the way
    weights: dict[str, Tensor] = {}

    def take(job: Job, done: int) -> None:
        if done == sought:
            weights.update(copied(weights_of(job), "model"))

    def through(job: Job, batches: Batches) -> Batches:
        return Watched(batches, lambda number, *_: take(job, number - 1))

    with replayed(parent, given, step, start=sought, through=through, told=told) as replay:
        take(replay.job, step)
        state = snapshot(replay.job, replay.training)
    if sought is not None:
        best = Snapshot(weights, {"step": sought, "epochs": [row]})
    return state, replay.model, best


def _best_row(parent: Training, step: int) -> dict[str, float] | None:
    """Return the row of the best epoch up to a step, or None before the first has ended."""
    rows = [row for row in history_until(parent.history, step).epochs if _counts(parent, row)]
    rows = [row for row in rows if math.isfinite(_score(row))]
    return min(rows, key=_score, default=None)


def _kept(parent: Training, row: Mapping[str, float]) -> Snapshot | None:
    """Return the parent's best checkpoint where it is of that row; one that runs may be on."""
    kept = parent.best
    state = None if kept is None else read_checkpoint(kept.path)
    return state if state is not None and state.step == row["step"] else None


def _counts(parent: Training, row: Mapping[str, float]) -> bool:
    """Return whether a row is of a whole epoch, or of the end: not of one that was held midway."""
    whole = row["step"] % parent.settings.steps_per_epoch == 0
    return whole or row["step"] == parent.settings.steps


def _score(row: Mapping[str, float]) -> float:
    return row.get("validation_loss", row["loss"])


def _free_name(parent: Training, step: int) -> str:
    """Return the parent's name with the step, and a number where there is one already."""
    ends = itertools.chain([""], (f"-{n}" for n in itertools.count(2)))
    names = (parent.name[: _LONGEST - len(end) - 12] + f"-at-{step}{end}" for end in ends)
    folders = (folder_of(name, "") for name in names)
    return next(f.name for f in folders if kept_record(f) is None or is_left_over(f))


def _check_new(folder: Path) -> None:
    """Forget what an earlier attempt at this run has left; raise where another training is."""
    if is_left_over(folder):
        begin_anew(folder)
    record = kept_record(folder)
    if record is not None:
        raise RequestError(
            f"there is a training {folder.name!r} already, {record['state']}: give the branch "
            "another name"
        )
