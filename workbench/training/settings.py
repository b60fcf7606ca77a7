"""`Settings`: everything that decides a training's numbers, checked where it is made."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass
from numbers import Integral, Real
from typing import Any

from workbench.errors import RequestError, UnknownNameError
from workbench.training.phases import Phase
from workbench.types import JSON

__all__ = ["Settings", "number", "one_budget", "planned_steps", "whole"]

_PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class Settings:
    """Everything that decides a training's numbers on one machine.

    Args:
        model: what was trained, in a word.
        data: the name of the dataset.
        fingerprint: of the dataset; empty where a DataLoader gives the rows.
        phases: the budget: a phase for `fit`, one for each extension, and one more wherever minutes
            were sized anew.
        steps_per_epoch: steps that one pass over the training rows takes.
        batch_size: rows a step.
        optimizer: `"sgd"`, `"nesterov"`, `"adamw"`, or the name of one of the user's own.
        lr: the peak learning rate.
        lr_of: peak rates of parts of the model by the start of their names; 0 is frozen.
        momentum: of SGD; the first beta of AdamW.
        weight_decay: as the optimizer takes it, of what is not a bias nor in a norm.
        schedule: of the learning rate, by its function's name.
        loss: by its function's name.
        label_smoothing: share of the target that is spread evenly over the classes.
        class_weights: what a row of each class counts; empty for all alike.
        augment: names of the augmentations, in order.
        average: of the weights, as it would be written.
        clip: the largest norm of the gradient, or None.
        accumulate: parts that the rows of a step go through the model in.
        precision: `"fp32"`, or `"bf16"` for autocast in the forward pass.
        channels_last: whether images lie channel by channel within a pixel.
        compile: whether the forward pass is compiled.
        seed: of the order of rows, of augmentation and of dropout.
        device: where it ran.
        threads: of torch on the CPU.

    Raises:
        RequestError: a value cannot be.
    """

    model: str
    data: str
    fingerprint: str
    phases: tuple[Phase, ...]
    steps_per_epoch: int
    batch_size: int
    optimizer: str
    lr: float
    lr_of: dict[str, float]
    momentum: float
    weight_decay: float
    schedule: str
    loss: str
    label_smoothing: float
    class_weights: tuple[float, ...]
    augment: tuple[str, ...]
    average: str
    clip: float | None
    accumulate: int
    precision: str
    channels_last: bool
    compile: bool
    seed: int
    device: str
    threads: int

    def __post_init__(self) -> None:
        _between("lr", self.lr, 0, math.inf, open_low=True)
        for name, rate in self.lr_of.items():
            _between(f"lr of {name!r}", rate, 0, math.inf)
        _between("momentum", self.momentum, 0, 1)
        _between("weight_decay", self.weight_decay, 0, math.inf)
        _between("label_smoothing", self.label_smoothing, 0, 1)
        if self.clip is not None:
            _between("clip", self.clip, 0, math.inf, open_low=True)
        whole("accumulate", self.accumulate)
        _known("precision", self.precision, _PRECISIONS)

    @property
    def steps(self) -> int:
        """Updates of the whole budget."""
        return sum(phase.steps for phase in self.phases)

    @property
    def epochs(self) -> float:
        """Passes over the training rows of the whole budget."""
        return self.steps / self.steps_per_epoch

    def to_json(self) -> JSON:
        """Return the settings, `steps` and `epochs` as a plain dictionary."""
        return {**asdict(self), "steps": self.steps, "epochs": self.epochs}

    @classmethod
    def from_json(cls, data: JSON) -> Settings:
        """Return the settings that `to_json` wrote."""
        own = {name: data[name] for name in cls.__dataclass_fields__}
        own |= {name: tuple(own[name]) for name in ("class_weights", "augment")}
        return cls(**{**own, "phases": tuple(Phase(**phase) for phase in data["phases"])})


def number(name: str, value: Any) -> float:
    """Return a real number as a float; raise a `RequestError` that names it for anything else."""
    if isinstance(value, bool) or not isinstance(value, Real):
        raise RequestError(f"{name} must be a number, got {type(value).__name__} {value!r:.60}")
    return float(value)


def whole(name: str, value: Any) -> int:
    """Return a whole number from 1 up; raise a `RequestError` that names it for anything else."""
    if isinstance(value, bool) or not isinstance(value, Integral) or value < 1:
        raise RequestError(f"{name} must be a whole number from 1 up, got {value!r}")
    return int(value)


def one_budget(given: Mapping[str, Any]) -> JSON:
    """Return the budget that was given, of which there can be one: epochs, steps or minutes.

    Raises:
        RequestError: there are several, or the minutes are no number, or not more than 0.
    """
    found = {name: value for name, value in given.items() if value is not None}
    if len(found) > 1:
        listed = ", ".join(f"{name}={value}" for name, value in found.items())
        raise RequestError(f"give epochs, steps or minutes, and one of them only: got {listed}")
    if "minutes" in found and not 0 < number("minutes", found["minutes"]) < math.inf:
        raise RequestError(f"minutes must be more than 0, got {found['minutes']}")
    return found


def planned_steps(
    epochs: float | None, steps: int | None, steps_per_epoch: int, *, default: float
) -> int:
    """Return how many steps a budget in epochs or steps comes to.

    Args:
        epochs: passes over the training rows; may be a fraction.
        steps: updates, instead.
        steps_per_epoch: steps of one pass.
        default: epochs, where neither is given.

    Raises:
        RequestError: it is no number, or not more than 0.
    """
    if steps is not None:
        return whole("steps", steps)
    amount = number("epochs", default if epochs is None else epochs)
    if not 0 < amount < math.inf:
        raise RequestError(f"epochs must be more than 0, got {amount}")
    return max(1, round(amount * steps_per_epoch))


def _between(name: str, value: float, low: float, high: float, *, open_low: bool = False) -> None:
    if low <= value < high and not (open_low and value == low):
        return
    if math.isinf(high):
        expected = f"more than {low}" if open_low else f"{low} or more"
    else:
        expected = f"from {low} to less than {high}"
    raise RequestError(f"{name} must be {expected}, got {value}")


def _known(kind: str, name: str, known: Collection[str]) -> None:
    if name not in known:
        raise UnknownNameError(kind, str(name), known)
