"""`Training`: one call to `fit`, its settings, its history and how it ended."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Literal

from workbench.training.histories import History
from workbench.types import JSON

__all__ = ["Settings", "State", "Training"]

State = Literal["running", "done", "failed", "interrupted"]


@dataclass(frozen=True)
class Settings:
    """Everything that decides a training's numbers on one machine.

    Args:
        model: what was trained, in a word.
        data: the name of the dataset.
        fingerprint: of the dataset.
        steps: how many updates.
        epochs: passes over the training rows that they came to.
        batch_size: rows a step.
        optimizer: `"sgd"` or `"adamw"`.
        lr: the peak learning rate.
        momentum: of SGD; the first beta of AdamW.
        weight_decay: as the optimizer takes it.
        schedule: of the learning rate.
        seed: of the order of rows and of dropout.
        device: where it ran.
        threads: of torch on the CPU.
    """

    model: str
    data: str
    fingerprint: str
    steps: int
    epochs: float
    batch_size: int
    optimizer: str
    lr: float
    momentum: float
    weight_decay: float
    schedule: str
    seed: int
    device: str
    threads: int

    def to_json(self) -> JSON:
        """Return the settings as a plain dictionary."""
        return asdict(self)


@dataclass
class Training:
    """One call to `fit`: what it was told, what happened, how it ended.

    Args:
        settings: everything that decides its numbers.
        history: a loss a step, figures an epoch.
        state: `"running"`, `"done"`, `"failed"` or `"interrupted"`.
        seconds: how long it took.
    """

    settings: Settings
    history: History = field(default_factory=History)
    state: State = "running"
    seconds: float = 0.0

    def wait(self) -> Training:
        """Return when the training has ended; `fit` waits itself, so that is at once."""
        return self

    def __repr__(self) -> str:
        s = self.settings
        last = self.history.epochs[-1] if self.history.epochs else {}
        figures = "".join(
            f", {name.replace('_', ' ')} {value:.4g}"
            for name, value in last.items()
            if name not in ("epoch", "step")
        )
        return (
            f"Training {self.state}: {s.model} on {s.data}, {len(self.history):,} of "
            f"{s.steps:,} steps in {self.seconds:.1f} s{figures}"
        )
