"""`fit`: plan, go on from a checkpoint if there is one, take the steps, remember."""

from __future__ import annotations

import contextlib
import math
import signal
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from typing import Any, Literal

from torch import nn
from torch.utils.data import DataLoader

from workbench import journal
from workbench.attached import attached
from workbench.datasets import Dataset
from workbench.determinism import check_seed
from workbench.errors import DivergedError, RequestError, let_go
from workbench.evaluation.losses import Loss
from workbench.modes import settled
from workbench.progress import is_live
from workbench.training.attempts import begin_anew, foreseen, is_another, left_over, longer
from workbench.training.augmentations import Augment
from workbench.training.averages import Average
from workbench.training.branching import Branch
from workbench.training.budgets import extended, measured_steps, whole_budget
from workbench.training.callbacks import Callback
from workbench.training.checkpoints import (
    Checkpoint,
    Checkpoints,
    Snapshot,
    copied,
    copy_into,
    read_checkpoint,
    tensors_of,
)
from workbench.training.checks import check_free, check_given, check_trainable
from workbench.training.folders import (
    check_same,
    claimed,
    environment,
    folder_of,
    kept_record,
    warn_of_changes,
)
from workbench.training.histories import HistoryFiles
from workbench.training.jobs import restore, weights_of
from workbench.training.live import begin
from workbench.training.loop import train
from workbench.training.optimizers import Maker
from workbench.training.pasts import Past
from workbench.training.phases import Phase, cut_short
from workbench.training.planning import Plan, lasting, make_plan, name_of, prepared, remember, taken
from workbench.training.pulses import Pulse
from workbench.training.rewinding import Given, history_until
from workbench.training.schedules import Schedule
from workbench.training.settings import Settings, number, one_budget
from workbench.training.trainings import Origin, Training
from workbench.types import JSON

__all__ = ["fit", "go_on"]


def fit(  # noqa: PLR0913 - each is a word that its field knows
    model: nn.Module,
    data: Dataset | DataLoader[Any],
    *,
    epochs: float | None = None,
    steps: int | None = None,
    minutes: float | None = None,
    batch_size: int | None = None,
    lr: float | Mapping[str, float] | None = None,
    optimizer: Literal["sgd", "nesterov", "adamw"] | Maker | None = None,
    momentum: float | None = None,
    weight_decay: float | None = None,
    schedule: str | Schedule | None = None,
    loss: Loss | None = None,
    label_smoothing: float | None = None,
    class_weights: Literal["balanced"] | Iterable[float] | None = None,
    augment: str | Augment | Sequence[str | Augment] | None = None,
    average: Literal["ema", "lookahead", "none"] | Average | None = None,
    clip: float | None = None,
    accumulate: int | None = None,
    precision: Literal["fp32", "bf16", "auto"] | None = None,
    compile: bool | None = None,
    device: str | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    name: str | None = None,
    resume: bool = False,
    checkpoint_every: float = 30.0,
) -> Training:
    """Train a model on a dataset's training split and return the training.

    On the CPU, with the same seed, data, settings and machine, the numbers are the same bit for
    bit, also when the training was killed and resumed on the way. What is not given is taken from
    the model's `recipe`, a dictionary of these arguments, where it has one; `fit` says so.

    In JupyterLab it returns after the first step and trains on in a thread of its own, in sight of
    a view; `wait()` for the end before you read a figure. Headless, or in a script, it blocks.

    Args:
        model: any module whose outputs are logits or values, shaped (rows, outputs).
        data: from `load` or `dataset`, its validation split being scored after each epoch; or a
            DataLoader of your own that gives pairs of tensors.
        epochs: passes over the training rows, 10 by default; may be a fraction.
        steps: updates, instead of epochs.
        minutes: of time, instead; some steps are timed on a copy first, and the schedule is sized
            to end on time, and sized anew on the way by the pace so far. What it came to is kept,
            and taken as it is when the training is resumed.
        batch_size: rows a step, 64 by default.
        lr: the peak learning rate, 0.001 by default. A mapping has peak rates of parts of the
            model by the start of their parameters' names, 0 to freeze one: `{"head": 0.01,
            "stem": 0}`; all else keeps the usual rate, or that of `""`.
        optimizer: `"adamw"` by default, `"sgd"` or `"nesterov"`; or a function from parameter
            groups to an optimizer of torch.
        momentum: of SGD, or the first beta of AdamW; 0.9 by default.
        weight_decay: as the optimizer takes it, 0 by default; biases and norms do not decay.
        schedule: `"triangle"` by default, `"constant"`, `"cosine"`, `"one_cycle"`, `"step_decay"`,
            or a function of progress from 0 to 1 to a share of the peak.
        loss: a function of (outputs, targets) to a scalar; by default the one that fits the task.
        label_smoothing: share of each target that is spread over the classes, 0 by default.
        class_weights: what a row of each class counts, or `"balanced"` for all classes alike.
        augment: `"mirror"`, `"shift"`, `"cutout"`, several of them, or functions of your own from
            raw images and `Draws` to images; `()` for none, where the recipe mirrors and left and
            right differ, as in digits.
        average: `"ema"` or `"lookahead"`, or one made with other parameters: the model ends with an
            average of its weights; `"none"` for none, where the recipe has one.
        clip: the largest norm of the gradient; None for no limit.
        accumulate: parts that the rows of a step go through the model in, 1 by default; more save
            memory; a loss that weighs its rows, as by `class_weights`, weighs them within each.
        precision: `"fp32"` by default; `"bf16"` for autocast; `"auto"` for what is fastest here.
        compile: whether torch compiles the forward pass, False by default; worth it for long
            trainings only.
        device: `"cpu"`, `"cuda"`, ...; by default a GPU where there is one.
        callbacks: see `Callback`.
        seed: of the order of rows, of augmentation and of dropout, 0 by default.
        name: to find it again; by default the time and the model.
        resume: go on from this name's last checkpoint, if there is one. A larger budget than it
            was begun with extends it; other settings are refused.
        checkpoint_every: seconds from one checkpoint to the next, 30 by default.

    Raises:
        RequestError: an argument cannot be, or the model does not fit the data.
        DivergedError: the loss stopped being a number, or exploded; the model is as it was before.
    """
    asked = {
        "batch_size": batch_size,
        "lr": lr,
        "optimizer": optimizer,
        "momentum": momentum,
        "weight_decay": weight_decay,
        "schedule": schedule,
        "loss": loss,
        "label_smoothing": label_smoothing,
        "class_weights": class_weights,
        "augment": augment,
        "average": average,
        "clip": clip,
        "accumulate": accumulate,
        "precision": precision,
        "compile": compile,
        "device": device,
        "seed": seed,
    }
    budget = {"epochs": epochs, "steps": steps, "minutes": minutes}
    every = number("checkpoint_every", checkpoint_every)
    try:
        asked = {key: lasting(value) for key, value in asked.items()}
        callbacks = lasting(callbacks)
        return _begin(model, data, asked, budget, callbacks, name, resume=resume, every=every)
    except BaseException as error:
        let_go(error)
        del model, data, asked, loss, callbacks  # this frame stays in the traceback
        raise


def _begin(
    model: nn.Module,
    data: Dataset | DataLoader[Any],
    asked: JSON,
    budget: JSON,
    callbacks: Sequence[Callback],
    name: str | None,
    *,
    resume: bool,
    every: float,
) -> Training:
    """Plan a training, or find the one that is to go on, and run it."""
    since = time.perf_counter()
    check_given(model, asked, callbacks)
    check_seed(asked["seed"])
    asked["seed"] = int(asked["seed"])
    given_budget = one_budget(budget)
    check_free(model)
    check_trainable(model)
    given, loader = taken("fit", data, model)
    folder = folder_of(name, name_of(model))
    left = left_over(folder, given_budget)
    record = left[0] if left else kept_record(folder)
    if record is not None and not (resume or left):
        raise RequestError(
            f"there is a training {name!r} already, {record['state']}: pass resume=True to go on "
            "with it, or take another name"
        )
    then: Settings | None
    if left:
        then = left[1]
    else:
        then = Settings.from_json(record["settings"]) if record else None
        then = longer(then, foreseen(folder, given_budget))
    planned = partial(make_plan, model, given, asked, loader=loader, callbacks=callbacks)
    plan = planned(then=then)
    if left and journal.is_edited() and is_another(left[1], plan.settings):
        begin_anew(folder)
        left = record = None
        plan = planned(then=None)
    training = Training(plan.settings, folder)
    if record and then is not None:
        check_same(folder.name, then, plan.settings)
        warn_of_changes(folder.name, record, given.fingerprint)
        training.settings, training.begun = then, record["begun"]
        origin = record.get("branched_from")
        training.branched_from = Origin(**origin) if origin else None
    if left and left[0]["state"] == "stopped":
        training.state = "stopped"  # by the notebook itself, so there it ended
    known = plan.job.preprocessing
    training.past = Past(Given.of(model, known, given, loader, asked, callbacks, every), go_on)
    training._model = weakref.ref(model)
    training._more = partial(_extend, plan, training, every)
    _forget_with(model, training)
    phases = partial(whole_budget, given_budget, then)
    _start(plan, training, partial(_run, plan, training, phases, every=every, since=since))
    return training


def go_on(branch: Branch, since: float) -> None:
    """Let a branch take its steps, as `fit` would; it has its first checkpoint.

    Args:
        branch: that was made.
        since: when the user began to wait.
    """
    plan, training, every = branch.plan, branch.training, branch.given.every
    training._more = partial(_extend, plan, training, every)
    _forget_with(plan.job.model, training)
    planned = training.settings.phases
    _start(
        plan, training, partial(_run, plan, training, lambda *_: planned, every=every, since=since)
    )


def _extend(plan: Plan, training: Training, every: float, budget: JSON) -> None:
    """Extend a training: what it did not take of its budget is left, and more comes after."""
    since, more = time.perf_counter(), one_budget(budget)
    check_free(plan.job.model)
    if training.checkpoint is None:
        raise RequestError(f"training {training.name!r} has no checkpoint to go on from: fit again")
    had = cut_short(training.settings.phases, len(training.history))
    training.reins.renew()
    phases = partial(extended, more, had)
    _start(plan, training, partial(_run, plan, training, phases, every=every, since=since))


def _start(plan: Plan, training: Training, work: Callable[[Callable[[], None]], None]) -> None:
    """Do the work, in a thread of its own where somebody watches in a notebook."""
    if is_live():
        begin(training, work)
        return
    try:
        work(lambda: None)  # nobody waits for the first step
    except BaseException as error:
        training.fail(error)
        raise
    if training.reins.interrupted:
        raise KeyboardInterrupt(
            f"training {training.name!r} is kept as it was after step {plan.job.step:,}: "
            f"fit(..., name={training.name!r}, resume=True) goes on"
        )


def _forget_with(model: nn.Module, training: Training) -> None:
    """Let go of data and optimizer when the model dies, though a view may keep the training."""
    handle = weakref.ref(training)

    def forget() -> None:
        kept = handle()
        if kept is not None:
            kept._more = None
            if kept.past is not None:
                kept.past.forget()

    weakref.finalize(model, forget).atexit = False


def _run(
    plan: Plan,
    training: Training,
    phases: Callable[[Callable[[float], int], int], tuple[Phase, ...]],
    begun: Callable[[], None],
    *,
    every: float,
    since: float,
) -> None:
    """Take the steps that are left to take.

    Args:
        plan: what was decided.
        training: new, or one that goes on: with a checkpoint, and phases in its settings.
        phases: from a way to measure minutes and steps an epoch, to the whole budget.
        begun: called when the first step is done.
        every: seconds between checkpoints.
        since: when the user began to wait.
    """
    job, model = plan.job, plan.job.model
    stopped = training.state == "stopped" and not training.history
    settings = replace(plan.settings, phases=training.settings.phases)
    training.environment = environment()
    with claimed(training.folder), settled(model), prepared(model, settings):
        job.held = job.average.start(model) if job.average else {}
        measure = partial(measured_steps, job, settings, since=since, maker=plan.maker)
        budget = phases(measure, settings.steps_per_epoch)
        training.settings = replace(settings, phases=budget)
        job.follow(training.settings)
        last = training.checkpoint
        if last is not None:
            restore(job, training, read_checkpoint(last.path), str(last.path))
        with _kept(plan, training), journal.within(training.name):
            if stopped:
                training.state = "stopped"
            elif job.step < training.settings.steps:
                _take_steps(plan, training, every, begun)
            else:
                training.state = "done"
            copy_into(model, weights_of(job), str(training.folder))


def _take_steps(plan: Plan, training: Training, every: float, begun: Callable[[], None]) -> None:
    job = plan.job
    told = job.hooks("on_checkpoint")

    def tell(checkpoint: Checkpoint) -> None:
        for hook in told:
            hook(training, checkpoint)

    folder = training.folder / "checkpoints"
    with (
        Pulse(training, begun) as pulse,
        contextlib.closing(Checkpoints(folder, every, tell, training.say)) as checkpoints,
        contextlib.closing(HistoryFiles(training.folder)) as files,
        _interruptible(training),
    ):
        training.reins.drop_word(training.folder)
        origin = training.branched_from
        if origin is not None and job.step == origin.step:
            pulse.say(f"branched from {origin.name!r} at step {origin.step:,}")
        elif job.step:
            pulse.say(f"going on from step {job.step:,} of {training.settings.steps:,}")
        elif plan.followed:
            pulse.say(_said(plan))
        for hook in job.hooks("on_start"):
            hook(training)
        train(job, training, pulse=pulse, checkpoints=checkpoints, files=files)
    if training.reins.interrupted:
        training.state = "interrupted"
    elif job.step < training.settings.steps:
        training.state = "stopped"
    else:
        training.state = "done"


@contextlib.contextmanager
def _kept(plan: Plan, training: Training) -> Iterator[None]:
    """Remember the training with its model and in the run; undo everything after a divergence."""
    model = plan.job.model
    memory, before = attached(model), copied(tensors_of(model), "model")
    known = replace(memory)
    memory.training = training
    remember(plan)
    training.state, begun = "running", plan.job.step
    training.write()
    try:
        yield
    except DivergedError as error:
        training.state = "failed"
        copy_into(model, Snapshot(before, {}).part("model"), training.name)
        memory.preprocessing, memory.example = known.preprocessing, known.example
        memory.sample, memory.sample_split = known.sample, known.sample_split
        memory.training = known.training  # the one that the weights come from
        advice = _advice(training, plan.usual_lr)
        where_to = f"at step {begun:,}" if begun else "before this fit"
        raise DivergedError(f"{error}: {advice}. The model is as it was {where_to}.") from None
    except BaseException as error:
        training.state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        raise
    finally:
        model.eval()
        plan.job.let_go()
        _write(training)
        last = training.history.epochs[-1] if training.history.epochs else {}
        last = {key: value for key, value in last.items() if math.isfinite(value)}
        if training.keeps_model and memory.training is training:  # else each would keep the other
            memory.training = _as_remembered(training)
        origin = training.branched_from
        journal.note(
            "fit",
            name=training.name,
            state=training.state,
            begun_at=0 if origin and begun == origin.step else begun,
            **({"branched_from": asdict(origin)} if origin else {}),
            settings=training.settings.to_json(),
            last=last,
        )
        for hook in plan.job.hooks("on_end") if begun < len(plan.job.rates) else ():
            hook(training)


def _as_remembered(training: Training) -> Training:
    """Return a training as its model remembers it: what it was, and nothing that could go on."""
    same = ("settings", "folder", "state", "seconds", "environment", "begun", "branched_from")
    told = Training(**{name: getattr(training, name) for name in (*same, "past")})
    told.history = history_until(training.history, len(training.history))
    return told


def _write(training: Training) -> None:
    try:
        training.write()
    except OSError as error:
        training.say(
            f"the record of training {training.name!r} could not be written to {training.folder}: "
            f"{error.strerror}; its checkpoints so far are there: make room"
        )


@contextlib.contextmanager
def _interruptible(training: Training) -> Iterator[None]:
    """Let a first Ctrl-C finish the step and keep a checkpoint; a second one raises at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        training.reins.stop(interrupted=True)

    if before is not None:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


def _advice(training: Training, usual: float) -> str:
    """Return what to try after a divergence; `usual` is the model's own learning rate."""
    if not math.isfinite(training.history["loss"][0]):
        return "look for NaN in the model's weights, or in a loss of your own"
    lr = training.settings.lr
    smaller = min(lr / 10, usual)
    text = (
        f"try a smaller lr, for instance {smaller:g} instead of {lr:g}, or clip=1, and look for "
        "inputs or targets that are far larger than the rest"
    )
    good = training.checkpoint
    if good is not None and good.step:
        text += f". The last good checkpoint is of step {good.step:,}, {good.path}"
    return text


def _said(plan: Plan) -> str:
    recipe = ", ".join(f"{name} {value}" for name, value in plan.followed.items())
    return f"following the recipe of {plan.settings.model}: {recipe}"
