"""What every contestant shares: the net, the data, the clock and the answer.

Each script beside this one trains that net on those rows with one tool, in an environment where
that tool is installed; this file needs nothing but torch.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

__all__ = [
    "BATCH_SIZE",
    "LR",
    "MOMENTUM",
    "Ask",
    "Net",
    "Prepare",
    "Rows",
    "Task",
    "asking",
    "collated",
    "compete",
    "fast_loader",
    "plain_loader",
]

BATCH_SIZE = 4
LR = 0.001
MOMENTUM = 0.9
_ASKED = 500  # the loss is taken of the rows of so many steps


class Net(nn.Module):
    """The classic CIFAR-10 tutorial's net, 62,006 parameters; the names are those of `lenet`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 5)
        self.conv2 = nn.Conv2d(6, 16, 5)
        self.fc1 = nn.Linear(400, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits shaped (rows, 10) for images shaped (rows, 3, 32, 32)."""
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = torch.flatten(x, 1)
        x = F.relu(self.fc1(x))
        x = F.relu(self.fc2(x))
        y: Tensor = self.fc3(x)
        return y


@dataclass(frozen=True, eq=False)
class Task:
    """Rows to train on for one epoch, and the weights to start from.

    Args:
        images: uint8, shaped (rows, 32, 32, 3).
        inputs: the same as float32 from -1 to 1, shaped (rows, 3, 32, 32).
        targets: int64 class indices, shaped (rows,).
        weights: of the net at the start, by name.
    """

    images: Tensor
    inputs: Tensor
    targets: Tensor
    weights: Mapping[str, Tensor]

    @classmethod
    def read(cls, file: Path) -> Task:
        """Return the task that the driver wrote."""
        stored = torch.load(file, weights_only=True)
        inputs = (stored["images"].permute(0, 3, 1, 2).float() / 127.5 - 1).contiguous()
        return cls(stored["images"], inputs, stored["targets"], stored["weights"])

    @property
    def steps(self) -> int:
        """How many steps one epoch takes."""
        return len(self.targets) // BATCH_SIZE

    def first(self, steps: int) -> Task:
        """Return the task of the first rows, as many as `steps` steps take."""
        if steps > self.steps:
            raise SystemExit(f"the data have rows for {self.steps:,} steps, {steps:,} were asked")
        rows = steps * BATCH_SIZE
        return replace(
            self,
            images=self.images[:rows],
            inputs=self.inputs[:rows],
            targets=self.targets[:rows],
        )

    def net(self) -> Net:
        """Return a net with the weights to start from."""
        net = Net()
        net.load_state_dict(self.weights)
        return net


Ask = Callable[[Task], Tensor]  # the trained net's logits for the task's rows
Prepare = Callable[[Task], Callable[[], Ask]]  # off the clock; what it returns is on it


def asking(net: Callable[[Tensor], Tensor]) -> Ask:
    """Return how to ask a net that takes the float rows."""
    return lambda task: net(task.inputs)


def plain_loader(task: Task) -> DataLoader[tuple[Tensor, ...]]:
    """Return the rows as PyTorch's tutorials load them: one at a time, then collated."""
    rows = TensorDataset(task.inputs, task.targets)
    return DataLoader(rows, batch_size=BATCH_SIZE, shuffle=True)


class Rows(TensorDataset):
    """Rows that a `DataLoader` reads a batch at once: by `__getitems__`, as torch documents it.

    Of the documented ways this was the fastest here, before `batch_size=None` with a
    `BatchSampler`.
    """

    def __getitems__(self, indices: list[int]) -> tuple[Tensor, ...]:
        """Return the rows at `indices` as a batch that needs no collating."""
        rows = torch.tensor(indices)
        return tuple(tensor.index_select(0, rows) for tensor in self.tensors)


def collated(batch: Any) -> Any:
    """Return a batch of `Rows` as it is."""
    return batch


def fast_loader(task: Task) -> DataLoader[tuple[Tensor, ...]]:
    """Return the rows as fast as a `DataLoader` in one process has them."""
    rows = Rows(task.inputs, task.targets)
    return DataLoader(rows, batch_size=BATCH_SIZE, shuffle=True, collate_fn=collated)


def compete(name: str, version: str, prepare: Mapping[str, Prepare]) -> None:
    """Time one contestant as the command line says, and print its answer as JSON.

    Args:
        name: of the tool.
        version: of the tool.
        prepare: by settings, what makes everything ready and returns the call to be timed.
    """
    told = _arguments(sorted(prepare))
    torch.set_num_threads(1)
    torch.manual_seed(0)
    task = Task.read(told.task)
    ready = prepare[told.settings]
    ready(task.first(told.warmup))()
    short, long = task.first(told.short), task.first(told.short + told.steps)
    spent = []
    for _ in range(told.rounds):
        brief, _ = _timed(ready, short)
        whole, trained = _timed(ready, long)
        spent.append([(b - a) / told.steps for a, b in zip(brief, whole, strict=True)])
    answer = {
        "name": name,
        "version": version,
        "settings": told.settings,
        "steps": told.steps,
        "seconds_per_step": [wall for wall, _ in spent],
        "cpu_seconds_per_step": [cpu for _, cpu in spent],
        "loss_before": _loss(asking(task.net()), task),
        "loss_after": _loss(trained, task),
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    if told.result is None:
        print(json.dumps(answer))
    else:
        told.result.write_text(json.dumps(answer), encoding="utf-8")


def _arguments(settings: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    parser.add_argument("--task", type=Path, required=True, help="the file that the driver wrote")
    parser.add_argument("--settings", choices=settings, required=True)
    parser.add_argument("--steps", type=int, default=3_000, help="between the two lengths")
    parser.add_argument("--short", type=int, default=1_000, help="steps of the shorter length")
    parser.add_argument("--warmup", type=int, default=300, help="steps before the clock runs")
    parser.add_argument("--rounds", type=int, default=1)
    parser.add_argument("--result", type=Path, help="a file for the answer; else it is printed")
    return parser.parse_args()


def _timed(ready: Prepare, task: Task) -> tuple[tuple[float, float], Ask]:
    """Return the seconds of one training, those of the processor too, and the trained net.

    Two lengths are timed, and their difference counts: set-up and clearing up are in both. The
    processor's seconds, of all threads, show how much of the clock's was spent waiting.
    """
    go = ready(task)
    gc.collect()
    cpu, wall = time.process_time(), time.perf_counter()
    ask = go()
    return (time.perf_counter() - wall, time.process_time() - cpu), ask


def _loss(ask: Ask, task: Task) -> float:
    asked = task.first(min(_ASKED, task.steps))
    with torch.no_grad():
        return float(F.cross_entropy(ask(asked), asked.targets))
