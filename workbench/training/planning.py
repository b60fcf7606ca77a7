"""What was asked for, what the model recommends and the defaults, made into settings and a job."""

from __future__ import annotations

import contextlib
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from workbench.attached import EXAMPLE_ROWS, attached, sample_of
from workbench.datasets import Card, Dataset, Split
from workbench.determinism import alone, generator, seed_everything, undisturbed
from workbench.devices import choose_device, cpp_compiler, threads
from workbench.errors import RequestError, UnknownNameError
from workbench.models import summary
from workbench.preprocessing import Preprocessing
from workbench.probing import probe
from workbench.training.augmentations import AUGMENTATIONS, Augment
from workbench.training.averages import AVERAGES, Average
from workbench.training.batches import Batches, LoaderBatches, TensorBatches, as_tensors
from workbench.training.callbacks import Callback
from workbench.training.jobs import Job
from workbench.training.objectives import check_targets, class_weights_of, objective, tried
from workbench.training.optimizers import Maker, frozen, make_optimizer
from workbench.training.schedules import SCHEDULES, Schedule
from workbench.training.settings import Settings, number, whole
from workbench.types import JSON

__all__ = [
    "ARGUMENTS",
    "Plan",
    "laid_out",
    "lasting",
    "make_plan",
    "name_of",
    "prepared",
    "remember",
    "taken",
]

_DEFAULTS: JSON = {
    "batch_size": 64,
    "lr": 1e-3,
    "optimizer": "adamw",
    "momentum": 0.9,
    "weight_decay": 0.0,
    "schedule": "triangle",
    "label_smoothing": 0.0,
    "augment": (),
    "average": "none",
    "precision": "fp32",
}
ARGUMENTS = (*_DEFAULTS, "loss", "class_weights", "clip", "accumulate", "compile", "device")
_LITTLE_WORK = 10_000_000  # multiply-adds a step; below it a second thread gains nothing
_FEW = 2  # rows that model, loss and data are tried with


@dataclass(frozen=True)
class Plan:
    """A training that has been decided on, but for how long.

    Args:
        job: what the loop works with.
        settings: all but the phases.
        maker: of an optimizer of the user's own, or None.
        data: what it learns from.
        followed: what the model's recipe decided.
        usual_lr: what the learning rate is when nobody says otherwise.
    """

    job: Job
    settings: Settings
    maker: Maker | None
    data: Dataset
    followed: JSON
    usual_lr: float


def make_plan(
    model: nn.Module,
    data: Dataset,
    asked: Mapping[str, Any],
    *,
    loader: DataLoader[Any] | None,
    callbacks: Sequence[Callback],
    then: Settings | None,
) -> Plan:
    """Return what to do for what was asked; where nothing was, the model's recipe, then defaults.

    Args:
        model: moved to the device.
        data: gives rows, classes and the validation split.
        asked: `fit`'s arguments by name, None where the caller gave none.
        loader: gives the training rows instead of `data`, or None.
        callbacks: code of the user's own.
        then: settings of a training that goes on; what was chosen for it stays chosen.

    Raises:
        RequestError: something that was asked for cannot be, or model and data do not fit.
    """
    for name in ("train", "validation"):
        split = getattr(data, name)
        if split is not None:
            check_targets(name, split)
    preprocessing = _preprocessing(model, data, as_it_is=loader is not None)
    recipe = _recipe(model, raw_images=preprocessing.kind == "image" and loader is None)
    before = then.device if then else recipe.get("device")
    device = choose_device(asked.get("device") or before)
    given = {name: value for name, value in asked.items() if value is not None}
    chosen, usual_lr = {**_DEFAULTS, **recipe, **given}, {**_DEFAULTS, **recipe}["lr"]
    augment = [_augment(a) for a in _several(chosen["augment"])]
    _check_whole(data, preprocessing, loader, augment, chosen.get("class_weights"))
    lr, lr_of = _rates(chosen["lr"], usual_lr)
    batches = _batches(data, loader, chosen, augment, preprocessing, device)
    weights = class_weights_of(chosen.get("class_weights"), data.train)
    with frozen(model.to(device), lr_of):
        loss = objective(
            model,
            _few(data.train),
            preprocessing,
            loss=chosen.get("loss"),
            label_smoothing=number("label_smoothing", chosen["label_smoothing"]),
            class_weights=weights,
        )
        average = _average(chosen["average"])
        schedule = _schedule(chosen["schedule"])
        maker = chosen["optimizer"] if callable(chosen["optimizer"]) else None
        settings = Settings(
            model=name_of(model),
            data=data.name,
            fingerprint=data.fingerprint,
            phases=(),
            steps_per_epoch=batches.steps_per_epoch,
            batch_size=batches.batch_size,
            optimizer=_called(chosen["optimizer"]),
            lr=lr,
            lr_of=lr_of,
            momentum=number("momentum", chosen["momentum"]),
            weight_decay=number("weight_decay", chosen["weight_decay"]),
            schedule=_called(schedule),
            loss=_called(chosen.get("loss") or ("mse" if not data.classes else "cross_entropy")),
            label_smoothing=float(chosen["label_smoothing"]),
            class_weights=weights,
            augment=tuple(_called(a) for a in augment),
            average=repr(average) if average else "",
            clip=None if chosen.get("clip") is None else number("clip", chosen["clip"]),
            accumulate=whole("accumulate", chosen.get("accumulate", 1)),
            compile=_compile(chosen.get("compile"), device),
            seed=chosen["seed"],
            device=str(device),
            **_choices(model, data, batches.batch_size, given, chosen, then, device),
        )
        job = Job(
            model_ref=weakref.ref(model),
            batches=batches,
            preprocessing=preprocessing,
            loss=loss,
            optimizer=make_optimizer(model, settings, maker),
            rates=[],
            ends=[],
            schedule=schedule,
            validation=data.validation,
            average=average,
            callbacks=callbacks,
        )
    followed = {name: value for name, value in recipe.items() if name not in given}
    return Plan(job, settings, maker, data, followed, usual_lr)


@contextlib.contextmanager
def prepared(model: nn.Module, settings: Settings) -> Iterator[None]:
    """Put model, threads and random numbers as a training has them, for the while.

    The global generators are seeded in the main thread alone: in another one, cells run meanwhile.

    Args:
        model: moved to the device; frozen where its rate is 0, laid out as the settings say.
        settings: of the training.
    """
    model.to(settings.device)
    with (
        frozen(model, settings.lr_of),
        laid_out(model, channels_last=settings.channels_last),
        threads(settings.threads),
        undisturbed() if alone() else contextlib.nullcontext(),
    ):
        if alone():
            seed_everything(generator(settings.seed, "draws").initial_seed() % 2**32)
        yield


@contextlib.contextmanager
def laid_out(model: nn.Module, *, channels_last: bool) -> Iterator[None]:
    """Lay the model's images out for the while as the training has it."""
    if channels_last:
        model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    try:
        yield
    finally:
        if channels_last:
            model.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]


def remember(plan: Plan) -> None:
    """Leave beside the model of a plan what `publish`, `predict` and `serve` need."""
    memory, held = attached(plan.job.model), plan.data.validation
    memory.preprocessing = plan.job.preprocessing
    memory.example = plan.data.train.inputs[:EXAMPLE_ROWS].clone()
    # a model is surer of rows that it was trained on than of those that a service is asked about
    memory.sample = sample_of((held or plan.data.train).inputs)
    memory.sample_split = "validation" if held else "train"


def lasting(argument: Any) -> Any:
    """Return an argument of `fit` that its giver cannot change, and that is not spent by a look."""
    if isinstance(argument, Tensor):
        return argument.clone()
    if isinstance(argument, Mapping):
        return dict(argument)
    if isinstance(argument, str) or callable(argument) or not isinstance(argument, Iterable):
        return argument
    return list(argument)


def _few(split: Split) -> Split:
    """Return rows to try with: the first, and one of the last class, which not every loss takes."""
    rows = torch.arange(min(_FEW, len(split)))
    if split.classes and len(rows) == _FEW:
        rows[-1] = int(split.targets.argmax()) or 1
    return split.rows(rows)


def _recipe(model: nn.Module, *, raw_images: bool) -> JSON:
    """Return what the model recommends, but for augmentation where there is nothing to augment."""
    recipe = dict(getattr(model, "recipe", {}))
    for entry in recipe:
        if entry not in ARGUMENTS:
            raise UnknownNameError("argument in the model's recipe", str(entry), ARGUMENTS)
    if not raw_images:
        recipe.pop("augment", None)
    return recipe


def _check_whole(
    data: Dataset,
    preprocessing: Preprocessing,
    loader: DataLoader[Any] | None,
    augment: Sequence[Augment],
    class_weights: Any,
) -> None:
    """Raise where something is asked for that needs raw images, or all rows at hand."""
    if augment and (preprocessing.kind != "image" or loader is not None):
        what = "a DataLoader's batches" if loader is not None else f"rows of {data.name!r}"
        raise RequestError(f"augment works on raw images (uint8), not on {what}: leave it out")
    if loader is not None and isinstance(class_weights, str):
        raise RequestError(
            "class_weights='balanced' counts all rows, of which a DataLoader shows one batch: give "
            "a number for each class"
        )


def taken(taker: str, data: Any, model: nn.Module) -> tuple[Dataset, DataLoader[Any] | None]:
    """Return a dataset, and the DataLoader that it was described from, if it was.

    Args:
        taker: the function that was given `data`, for the message.
        data: a dataset or a DataLoader.
        model: that is to learn from it.

    Raises:
        RequestError: it is neither.
    """
    if isinstance(data, DataLoader):
        return _described(data, model), data
    if isinstance(data, Dataset):
        return data, None
    raise RequestError(
        f"{taker} takes a Dataset, got {type(data).__name__}: make one with "
        "wb.dataset('mine', train=(X, y))"
    )


def _described(loader: DataLoader[Any], model: nn.Module) -> Dataset:
    """Return what a DataLoader shows of its data: its first batch, and names for the classes.

    Raises:
        RequestError: it does not give pairs of tensors, or has no batch.
    """
    with undisturbed():
        first = next(iter(loader), None)
    pair = isinstance(first, (tuple, list)) and len(first) == 2
    if first is None or not pair or not all(isinstance(part, Tensor) for part in first):
        found = "no batch" if first is None else f"a {type(first).__name__}"
        raise RequestError(f"the DataLoader gives {found}, expected pairs (inputs, targets)")
    inputs, targets = as_tensors(first)
    source = loader.dataset
    classes: tuple[str, ...] = ()
    if not targets.is_floating_point():
        known = attached(model).preprocessing or _unchanged(inputs)
        n = max(2, tried(model, inputs, known).shape[-1])
        names = getattr(source, "classes", known.classes or range(n))
        classes = tuple(map(str, names))
    name = type(source).__name__
    return Dataset(
        name=name,
        train=Split(inputs, targets, classes),
        validation=None,
        test=None,
        fingerprint="",
        card=Card(description=f"{name}, given by a DataLoader"),
    )


def name_of(model: nn.Module) -> str:
    """Return what a model is, in a word: its builder, or its class."""
    architecture = attached(model).architecture or {}
    return str(architecture.get("builder", type(model).__name__))


def _unchanged(inputs: Tensor, classes: tuple[str, ...] = ()) -> Preprocessing:
    return Preprocessing("tensor", tuple(inputs.shape[1:]), str(inputs.dtype)[6:], classes=classes)


def _preprocessing(model: nn.Module, data: Dataset, *, as_it_is: bool) -> Preprocessing:
    """Return what the model was built with, else what fits the training rows.

    Args:
        model: built, fitted, or new.
        data: has the training rows.
        as_it_is: whether a new model takes its rows unchanged: one batch of a DataLoader does not
            show what would standardize all of them.
    """
    known = attached(model).preprocessing
    if known is None and as_it_is:
        return _unchanged(data.train.inputs, data.classes)
    if known is None:
        return Preprocessing.fitted(data.train.inputs, data.classes, data.features)
    known.batch(data.train.inputs[:1])  # raises where the rows are of another shape
    if known.classes != data.classes:
        raise RequestError(
            f"the model was made for the classes {known.classes[:3]}..., "
            f"{data.name!r} has {data.classes[:3]}...: build a model for this dataset"
        )
    return known


def _batches(
    data: Dataset,
    loader: DataLoader[Any] | None,
    chosen: JSON,
    augment: Sequence[Augment],
    preprocessing: Preprocessing,
    device: torch.device,
) -> Batches:
    if loader is not None:
        return LoaderBatches(
            loader,
            seed=chosen["seed"],
            device=device,
            preprocessing=preprocessing,
            batch_size=len(data.train),
        )
    return TensorBatches(
        data.train,
        whole("batch_size", chosen["batch_size"]),
        seed=chosen["seed"],
        device=device,
        preprocessing=preprocessing,
        augment=augment,
    )


def _choices(
    model: nn.Module,
    data: Dataset,
    batch_size: int,
    given: Mapping[str, Any],
    chosen: JSON,
    then: Settings | None,
    device: torch.device,
) -> JSON:
    """Return precision, memory format and threads: as asked, as before, or as is fastest here.

    Decided by the work and by a probe that is taken once a machine, so that a second training
    decides the same.
    """
    if then is not None:
        precision = given.get("precision", then.precision)
        precision = then.precision if precision == "auto" else precision
        return {
            "precision": precision,
            "channels_last": then.channels_last,
            "threads": then.threads,
        }
    precision, channels_last = chosen["precision"], False
    most = torch.get_num_threads()
    convolves = any(isinstance(module, nn.Conv2d) for module in model.modules())
    if precision == "auto" or convolves:
        found = probe(device)
        most = found.threads
        channels_last = convolves and found.channels_last
        precision = found.precision if precision == "auto" else precision
    work = summary(model, data).multiply_adds * batch_size
    n_threads = 1 if work < _LITTLE_WORK else most
    return {"precision": precision, "channels_last": channels_last, "threads": n_threads}


def _rates(asked: Any, usual: float) -> tuple[float, dict[str, float]]:
    """Return the peak rate, and those of parts of the model."""
    if not isinstance(asked, Mapping):
        return number("lr", asked), {}
    parts = {str(part): number(f"lr of {part!r}", rate) for part, rate in asked.items()}
    return parts.pop("", usual), parts


def _augment(asked: Any) -> Augment:
    if callable(asked):
        return asked  # type: ignore[no-any-return]
    if asked not in AUGMENTATIONS:
        raise UnknownNameError("augmentation", str(asked), AUGMENTATIONS)
    return AUGMENTATIONS[asked]


def _average(asked: Any) -> Average | None:
    if isinstance(asked, Average):
        return asked
    if asked not in AVERAGES:
        raise UnknownNameError("average", str(asked), AVERAGES)
    return AVERAGES[asked]


def _schedule(asked: Any) -> Schedule:
    if callable(asked):
        return asked  # type: ignore[no-any-return]
    if asked not in SCHEDULES:
        raise UnknownNameError("schedule", str(asked), SCHEDULES)
    return SCHEDULES[asked]


def _compile(asked: Any, device: torch.device) -> bool:
    if asked and device.type == "cpu" and cpp_compiler() is None:
        raise RequestError(
            "compile=True needs a C++ compiler on the CPU, found none of g++, clang++ and c++: "
            "install one, or leave compile out"
        )
    return bool(asked)


def _several(asked: Any) -> Sequence[Any]:
    return [asked] if isinstance(asked, str) or callable(asked) else asked


def _called(thing: str | Callable[..., Any]) -> str:
    """Return the name of a function, with what it is given where that is partial."""
    if isinstance(thing, str):
        return thing
    if isinstance(thing, partial):
        given = [*map(repr, thing.args), *(f"{k}={v!r}" for k, v in thing.keywords.items())]
        return f"{_called(thing.func)}({', '.join(given)})"
    return str(getattr(thing, "__qualname__", type(thing).__name__))
