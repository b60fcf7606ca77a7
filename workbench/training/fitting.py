"""`fit`: settings resolved, checked and remembered, then the loop."""

from __future__ import annotations

import contextlib
import copy
import math
import time
from collections.abc import Iterator
from dataclasses import replace
from numbers import Integral, Real
from typing import Any, Literal

import torch
from torch import nn

from workbench import journal
from workbench.attached import EXAMPLE_ROWS, attached
from workbench.datasets import Dataset
from workbench.determinism import check_seed, generator
from workbench.devices import choose_device, threads
from workbench.errors import DivergedError, RequestError, UnknownNameError
from workbench.evaluation import infer
from workbench.evaluation.losses import Loss, check_outputs, task_loss
from workbench.models import summary
from workbench.modes import evaluating
from workbench.preprocessing import Preprocessing
from workbench.training.batches import Batches
from workbench.training.loop import train
from workbench.training.pulses import Pulse
from workbench.training.trainings import Settings, Training

__all__ = ["fit"]

_EPOCHS = 10
_DEFAULTS: dict[str, Any] = {
    "optimizer": "adamw",
    "lr": 1e-3,
    "batch_size": 64,
    "weight_decay": 0.0,
}
_LITTLE_WORK = 10_000_000  # multiply-adds a step; below it a second thread gains nothing


def fit(
    model: nn.Module,
    data: Dataset,
    *,
    epochs: float | None = None,
    steps: int | None = None,
    batch_size: int | None = None,
    lr: float | None = None,
    optimizer: Literal["sgd", "adamw"] | None = None,
    momentum: float = 0.9,
    weight_decay: float | None = None,
    loss: Loss | None = None,
    device: str | None = None,
    seed: int = 0,
) -> Training:
    """Train a model on a dataset's training split and return the finished training.

    The learning rate rises to `lr`, then falls towards zero over the budget. On the CPU, with the
    same seed, data, threads and machine, the numbers are the same bit for bit.

    Args:
        model: any module whose outputs are logits or values, shaped (rows, outputs).
        data: from `load` or `dataset`; its validation split is scored after each epoch.
        epochs: passes over the training rows, 10 by default; may be a fraction.
        steps: updates, instead of epochs.
        batch_size: rows a step; the model's own default, else 64.
        lr: the peak learning rate; the model's own default, else 0.001.
        optimizer: `"sgd"` or `"adamw"`; the model's own default, else `"adamw"`.
        momentum: of SGD, or the first beta of AdamW.
        weight_decay: as the optimizer takes it; the model's own default, else 0.
        loss: a function of (outputs, targets) to a scalar; by default the one that fits the task.
        device: `"cpu"`, `"cuda"`, ...; by default a GPU where there is one.
        seed: of the order of rows and of dropout.

    Raises:
        RequestError: an argument cannot be, or the model does not fit the data.
        DivergedError: the loss stopped being a number, or exploded; the model is as it was before.
    """
    if not isinstance(data, Dataset):
        raise RequestError(
            f"fit takes a Dataset, got {type(data).__name__}: make one with "
            "wb.dataset('mine', train=(X, y))"
        )
    check_seed(seed)
    _check_trainable(model)
    preprocessing = _preprocessing(model, data)
    where = choose_device(device)
    usual = {**_DEFAULTS, **getattr(model, "fit_defaults", {})}
    given = {
        "optimizer": optimizer,
        "lr": lr,
        "batch_size": batch_size,
        "weight_decay": weight_decay,
    }
    chosen = {**usual, **{name: value for name, value in given.items() if value is not None}}
    rows = _whole("batch_size", chosen["batch_size"])
    batches = Batches(data.train, rows, seed=seed, device=where)
    n_steps = _n_steps(epochs, steps, batches.steps_per_epoch)
    objective = _loss(model.to(where), data, preprocessing, loss)
    settings = Settings(
        model=_name(model),
        data=data.name,
        fingerprint=data.fingerprint,
        steps=n_steps,
        epochs=n_steps / batches.steps_per_epoch,
        batch_size=batches.batch_size,
        optimizer=chosen["optimizer"],
        lr=_number("lr", chosen["lr"]),
        momentum=_number("momentum", momentum),
        weight_decay=_number("weight_decay", chosen["weight_decay"]),
        schedule="triangle",
        seed=seed,
        device=str(where),
        threads=_n_threads(model, data, batches.batch_size),
    )
    stepper, training = _optimizer(model, settings), Training(settings)
    with (
        _kept(model, data, preprocessing, training, usual_lr=usual["lr"]),
        Pulse(settings) as pulse,
        threads(settings.threads),
        torch.random.fork_rng(),
    ):
        torch.manual_seed(generator(seed, "draws").initial_seed())
        train(
            model,
            batches,
            training=training,
            preprocessing=preprocessing,
            optimizer=stepper,
            loss=objective,
            validation=data.validation,
            pulse=pulse,
        )
    return training


@contextlib.contextmanager
def _kept(
    model: nn.Module,
    data: Dataset,
    preprocessing: Preprocessing,
    training: Training,
    *,
    usual_lr: float,
) -> Iterator[None]:
    """Remember the training with its model and in the run; undo everything after a divergence."""
    memory, before = attached(model), copy.deepcopy(model.state_dict())
    known = replace(memory)
    memory.preprocessing, memory.training = preprocessing, training
    memory.example = data.train.inputs[:EXAMPLE_ROWS].clone()
    started = time.perf_counter()
    try:
        yield
        training.state = "done"
    except DivergedError as error:
        training.state = "failed"
        model.load_state_dict(before)
        memory.preprocessing, memory.example = known.preprocessing, known.example
        memory.training = known.training  # the one that the weights come from
        advice = _advice(training, usual_lr)
        raise DivergedError(f"{error}: {advice}. The model is as it was before this fit.") from None
    except BaseException as error:
        training.state = "interrupted" if isinstance(error, KeyboardInterrupt) else "failed"
        raise
    finally:
        training.seconds = time.perf_counter() - started
        model.eval()
        last = training.history.epochs[-1] if training.history.epochs else {}
        last = {name: value for name, value in last.items() if math.isfinite(value)}
        journal.note("fit", state=training.state, settings=training.settings.to_json(), last=last)


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


def _number(name: str, number: Any) -> float:
    if isinstance(number, bool) or not isinstance(number, Real):
        raise RequestError(f"{name} must be a number, got {type(number).__name__} {number!r:.60}")
    return float(number)


def _whole(name: str, number: Any) -> int:
    if isinstance(number, bool) or not isinstance(number, Integral) or number < 1:
        raise RequestError(f"{name} must be a whole number from 1 up, got {number!r}")
    return int(number)


def _preprocessing(model: nn.Module, data: Dataset) -> Preprocessing:
    """Return what the model was built with, else what fits the training rows."""
    known = attached(model).preprocessing
    if known is None:
        return Preprocessing.fitted(data.train.inputs, data.classes, data.features)
    known.batch(data.train.inputs[:1])  # raises where the rows are of another shape
    if known.classes != data.classes:
        raise RequestError(
            f"the model was made for the classes {known.classes[:3]}..., "
            f"{data.name!r} has {data.classes[:3]}...: build a model for this dataset"
        )
    return known


def _n_steps(epochs: float | None, steps: int | None, steps_per_epoch: int) -> int:
    if epochs is not None and steps is not None:
        raise RequestError(f"give epochs or steps, not both: got epochs={epochs}, steps={steps}")
    if steps is not None:
        return _whole("steps", steps)
    amount = _number("epochs", _EPOCHS if epochs is None else epochs)
    if not 0 < amount < math.inf:
        raise RequestError(f"epochs must be more than 0, got {amount}")
    return max(1, round(amount * steps_per_epoch))


def _n_threads(model: nn.Module, data: Dataset, batch_size: int) -> int:
    """Return how many threads a step is worth: one where threads would mostly wait for each other.

    Decided by the work alone, never by a clock, so that a second fit decides the same.
    """
    work = summary(model, data).multiply_adds * batch_size
    return 1 if work < _LITTLE_WORK else torch.get_num_threads()


def _optimizer(model: nn.Module, settings: Settings) -> torch.optim.Optimizer:
    trainable = [p for p in model.parameters() if p.requires_grad]
    if not trainable:
        raise RequestError(f"{settings.model} has no parameter to train: all are frozen")
    options: Any = {"lr": settings.lr, "weight_decay": settings.weight_decay}
    if not 0 < settings.lr < math.inf:
        raise RequestError(f"lr must be more than 0, got {settings.lr}")
    if not 0 <= settings.momentum < 1:
        raise RequestError(f"momentum must be from 0 to less than 1, got {settings.momentum}")
    if not 0 <= settings.weight_decay < math.inf:
        raise RequestError(f"weight_decay must be 0 or more, got {settings.weight_decay}")
    if settings.optimizer == "sgd":
        return torch.optim.SGD(trainable, momentum=settings.momentum, **options)
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(trainable, betas=(settings.momentum, 0.999), **options)
    raise UnknownNameError("optimizer", settings.optimizer, ("sgd", "adamw"))


def _loss(
    model: nn.Module, data: Dataset, preprocessing: Preprocessing, given: Loss | None
) -> Loss:
    """Return the loss to minimize, after one look at what the model answers.

    Targets of a regression take the outputs' shape first: (rows,) beside (rows, 1) would otherwise
    broadcast to (rows, rows), and every loss accept it.
    """
    few = data.train.rows(torch.arange(min(2, len(data.train))))
    try:
        outputs = infer(model, preprocessing.batch(few.inputs), preprocessing)
    except (RuntimeError, TypeError) as error:
        first = str(error).splitlines()[0]
        taken = tuple(preprocessing(few.inputs).shape)
        raise RequestError(f"{_name(model)} cannot take a batch shaped {taken}: {first}") from error
    check_outputs(outputs, few.targets, data.classes)
    if given is None:
        return task_loss(data.classes, outputs=outputs)
    if data.classes:
        return given
    return lambda y_hat, y: given(y_hat, y.reshape(y_hat.shape))


def _advice(training: Training, usual: float) -> str:
    """Return what to try after a divergence; `usual` is the model's own learning rate."""
    if not math.isfinite(training.history["loss"][0]):
        return "look for NaN in the model's weights, or in a loss of your own"
    lr = training.settings.lr
    smaller = min(lr / 10, usual)
    return (
        f"try a smaller lr, for instance {smaller:g} instead of {lr:g}, and look for inputs or "
        "targets that are far larger than the rest"
    )


def _name(model: nn.Module) -> str:
    architecture = attached(model).architecture or {}
    return str(architecture.get("builder", type(model).__name__))
