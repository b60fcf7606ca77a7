"""`fit`: plan, go on from a checkpoint if there is one, take the steps, remember."""

from __future__ import annotations

import contextlib
import copy
import math
import signal
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Literal

import torch
from torch import nn
from torch.utils.data import DataLoader

from workbench import journal
from workbench.attached import EXAMPLE_ROWS, attached
from workbench.datasets import Dataset
from workbench.determinism import check_seed, generator
from workbench.devices import threads
from workbench.errors import DivergedError, RequestError
from workbench.evaluation.losses import Loss
from workbench.modes import evaluating
from workbench.training.augmentations import Augment
from workbench.training.averages import Average
from workbench.training.budgets import all_rates, cut_short, measured_steps, planned_steps
from workbench.training.callbacks import Callback
from workbench.training.checkpoints import Checkpoint, Checkpoints, copy_into, read_checkpoint
from workbench.training.folders import (
    check_same,
    claimed,
    environment,
    folder_of,
    kept_record,
    warn_of_changes,
)
from workbench.training.jobs import restore, weights_of
from workbench.training.loop import train
from workbench.training.optimizers import Maker, frozen
from workbench.training.planning import Plan, make_plan, name_of, taken
from workbench.training.pulses import Pulse
from workbench.training.schedules import Schedule
from workbench.training.settings import Phase, Settings, number
from workbench.training.trainings import Training
from workbench.types import JSON

__all__ = ["fit"]

_EPOCHS = 10


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
    class_weights: Literal["balanced"] | Sequence[float] | None = None,
    augment: str | Augment | Sequence[str | Augment] | None = None,
    average: Literal["ema", "lookahead"] | Average | None = None,
    clip: float | None = None,
    accumulate: int = 1,
    precision: Literal["fp32", "bf16", "auto"] | None = None,
    compile: bool = False,
    device: str | None = None,
    callbacks: Sequence[Callback] = (),
    seed: int = 0,
    name: str | None = None,
    resume: bool = False,
    checkpoint_every: float = 30.0,
) -> Training:
    """Train a model on a dataset's training split and return the finished training.

    On the CPU, with the same seed, data, settings and machine, the numbers are the same bit for
    bit, also when the training was killed and resumed on the way. What is not given is taken from
    the model's `recipe`, a dictionary of these arguments, where it has one; `fit` says so.

    Args:
        model: any module whose outputs are logits or values, shaped (rows, outputs).
        data: from `load` or `dataset`, its validation split being scored after each epoch; or a
            DataLoader of your own that gives pairs of tensors.
        epochs: passes over the training rows, 10 by default; may be a fraction.
        steps: updates, instead of epochs.
        minutes: of time, instead; some steps are timed on a copy first, and the schedule is sized
            to end on time.
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
            raw images and `Draws` to images.
        average: `"ema"` or `"lookahead"`, or one made with other parameters: the model ends with an
            average of its weights.
        clip: the largest norm of the gradient; None for no limit.
        accumulate: parts that the rows of a step go through the model in, to save memory.
        precision: `"fp32"` by default; `"bf16"` for autocast; `"auto"` for what is fastest here.
        compile: whether torch compiles the forward pass; worth it for long trainings only.
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
    since = time.perf_counter()
    check_seed(seed)
    budget = _budget(epochs=epochs, steps=steps, minutes=minutes)
    _check_trainable(model)
    given, loader = taken("fit", data, model)
    folder = folder_of(name, name_of(model))
    record = kept_record(folder)
    if record is not None and not resume:
        raise RequestError(
            f"there is a training {name!r} already, {record['state']}: pass resume=True to go on "
            "with it, or take another name"
        )
    then = Settings.from_json(record["settings"]) if record else None
    plan = make_plan(
        model,
        given,
        {
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
            "seed": int(seed),
        },
        loader=loader,
        callbacks=callbacks,
        then=then,
    )
    training = Training(plan.settings, folder)
    if record and then:
        check_same(folder.name, then, plan.settings)
        warn_of_changes(folder.name, record, given.fingerprint)
        training.settings = then
    every = number("checkpoint_every", checkpoint_every)
    _run(plan, training, partial(_wanted, budget, then), every=every, since=since)
    training.more = partial(_go_on, plan, training, every)
    return training


def _go_on(plan: Plan, training: Training, every: float, budget: JSON) -> None:
    """Extend a training: what it did not take of its budget is left, and more comes after."""
    since = time.perf_counter()
    taken = cut_short(training.settings.phases, len(training.history))
    training.settings = replace(training.settings, phases=taken)
    training.renew()
    _run(plan, training, partial(_added, _budget(**budget), taken), every=every, since=since)


_Sized = Callable[[Callable[[float], int], int], tuple[Phase, ...]]


def _run(plan: Plan, training: Training, phases: _Sized, *, every: float, since: float) -> None:
    """Take the steps that are left to take.

    Args:
        plan: what was decided.
        training: new, or one that goes on: with a checkpoint, and phases in its settings.
        phases: from a way to measure minutes and steps an epoch, to the whole budget.
        every: seconds between checkpoints.
        since: when the user began to wait.
    """
    job, model, where = plan.job, plan.job.model, environment()
    settings = replace(plan.settings, phases=training.settings.phases)
    with (
        claimed(training.folder),
        frozen(model, settings.lr_of),
        _laid_out(model, channels_last=settings.channels_last),
        threads(settings.threads),
        torch.random.fork_rng(),
    ):
        torch.manual_seed(generator(settings.seed, "draws").initial_seed())
        job.held = job.average.start(model) if job.average else {}
        measure = partial(measured_steps, job, settings, since=since, maker=plan.maker)
        budget = phases(measure, settings.steps_per_epoch)
        training.settings = replace(settings, phases=budget)
        job.rates = all_rates(budget, plan.schedule, settings.lr)
        last = training.checkpoint
        if last is not None:
            restore(job, training, read_checkpoint(last.path), str(last.path))
        with _kept(plan, training, where):
            if job.step < training.settings.steps:
                _take_steps(plan, training, every)
            else:
                training.state = "done"
            copy_into(model, weights_of(job), str(training.folder))
    if training.interrupted:
        raise KeyboardInterrupt


def _take_steps(plan: Plan, training: Training, every: float) -> None:
    job = plan.job
    told = job.hooks("on_checkpoint")

    def tell(checkpoint: Checkpoint) -> None:
        for hook in told:
            hook(training, checkpoint)

    checkpoints = Checkpoints(training.folder / "checkpoints", every, tell)
    with (
        Pulse(training.settings) as pulse,
        contextlib.closing(checkpoints),
        _interruptible(training),
    ):
        if plan.followed:
            pulse.say(_said(plan))
        for hook in job.hooks("on_start"):
            hook(training)
        train(job, training, pulse=pulse, checkpoints=checkpoints)
    if training.interrupted:
        training.state = "interrupted"
    elif job.step < training.settings.steps:
        training.state = "stopped"
    else:
        training.state = "done"


@contextlib.contextmanager
def _kept(plan: Plan, training: Training, where: JSON) -> Iterator[None]:
    """Remember the training with its model and in the run; undo everything after a divergence."""
    model, settings = plan.job.model, training.settings
    memory, before = attached(model), copy.deepcopy(model.state_dict())
    known = replace(memory)
    memory.preprocessing, memory.training = plan.job.preprocessing, training
    memory.example = plan.data.train.inputs[:EXAMPLE_ROWS].clone()
    training.state, begun = "running", plan.job.step
    training.write(where)
    try:
        yield
    except DivergedError as error:
        training.state = "failed"
        model.load_state_dict(before)
        memory.preprocessing, memory.example = known.preprocessing, known.example
        memory.training = known.training  # the one that the weights come from
        advice = _advice(training, plan.usual_lr)
        where_to = f"at step {begun:,}" if begun else "before this fit"
        raise DivergedError(f"{error}: {advice}. The model is as it was {where_to}.") from None
    except BaseException as error:
        training.state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        _let_go(error)
        raise
    finally:
        for hook in plan.job.hooks("on_end"):
            hook(training)
        model.eval()
        plan.job.optimizer.zero_grad()
        training.write(where)
        last = training.history.epochs[-1] if training.history.epochs else {}
        last = {key: value for key, value in last.items() if math.isfinite(value)}
        journal.note("fit", state=training.state, settings=settings.to_json(), last=last)


def _let_go(error: BaseException | None) -> None:
    """Empty the frames of a traceback, so that it does not keep tensors in memory."""
    while error is not None:
        traceback.clear_frames(error.__traceback__)
        error = error.__cause__ or error.__context__


@contextlib.contextmanager
def _interruptible(training: Training) -> Iterator[None]:
    """Let a first Ctrl-C finish the step and keep a checkpoint; a second one raises at once."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGINT)

    def interrupt(number: int, frame: Any) -> None:
        signal.signal(signal.SIGINT, before)
        training.interrupt()

    if before is not None:
        signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        if before is not None:
            signal.signal(signal.SIGINT, before)


@contextlib.contextmanager
def _laid_out(model: nn.Module, *, channels_last: bool) -> Iterator[None]:
    """Lay the model's images out for the while as the training has it."""
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield
    finally:
        if channels_last:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def _budget(**given: float | None) -> dict[str, float]:
    """Return the budget that was given, of which there can be one."""
    found = {name: value for name, value in given.items() if value is not None}
    if len(found) > 1:
        listed = ", ".join(f"{name}={value}" for name, value in found.items())
        raise RequestError(f"give epochs, steps or minutes, and one of them only: got {listed}")
    if "minutes" in found and not 0 < number("minutes", found["minutes"]) < math.inf:
        raise RequestError(f"minutes must be more than 0, got {found['minutes']}")
    return found


def _wanted(
    budget: Mapping[str, Any],
    then: Settings | None,
    measure: Callable[[float], int],
    steps_per_epoch: int,
) -> tuple[Phase, ...]:
    """Return the phases of a whole budget, of which a training that goes on has had some."""
    had = then.phases if then else ()
    if had and not budget:
        return had
    if "minutes" in budget:
        spent = sum(phase.minutes or 0.0 for phase in had)
        more = float(budget["minutes"]) - spent
        if had and (more < 0 or any(phase.minutes is None for phase in had)):
            raise RequestError(
                f"minutes={budget['minutes']:g} is not a larger budget than the training was begun "
                f"with, {_told(had)}: pass that, more, or none to finish it"
            )
        return had if had and more == 0 else (*had, _in_minutes(more, measure))
    total = planned_steps(
        budget.get("epochs"), budget.get("steps"), steps_per_epoch, default=_EPOCHS
    )
    more_steps = total - sum(phase.steps for phase in had)
    if more_steps < 0:
        raise RequestError(
            f"a budget of {total:,} steps is less than the training was begun with, {_told(had)}: "
            "pass that, more, or none to finish it"
        )
    return (*had, Phase(more_steps, more_steps)) if more_steps else had


def _added(
    budget: Mapping[str, Any],
    had: tuple[Phase, ...],
    measure: Callable[[float], int],
    steps_per_epoch: int,
) -> tuple[Phase, ...]:
    """Return the phases of a training that is extended by a budget."""
    if "minutes" in budget:
        return (*had, _in_minutes(float(budget["minutes"]), measure))
    steps = planned_steps(budget.get("epochs"), budget.get("steps"), steps_per_epoch, default=1)
    return (*had, Phase(steps, steps))


def _in_minutes(minutes: float, measure: Callable[[float], int]) -> Phase:
    steps = measure(minutes)
    return Phase(steps, steps, minutes)


def _told(phases: Sequence[Phase]) -> str:
    return " and ".join(
        f"minutes={p.minutes:g}" if p.minutes is not None else f"{p.steps:,} steps" for p in phases
    )


def _check_trainable(model: nn.Module) -> None:
    try:
        with evaluating(model):  # gives every flag back, whatever is refused after this
            model.train()
    except NotImplementedError:  # what torch raises for an exported program
        name = attached(model).version or type(model).__name__
        raise RequestError(
            f"{name} is kept as a program, which can be asked and served, not trained: "
            "fit a model made from its class"
        ) from None


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
