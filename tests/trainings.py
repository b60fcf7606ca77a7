"""Trainings that are killed: what is trained, and processes forked from one that has torch ready.

That one has imported torch and computed nothing, since the threads of a pool do not survive a fork.
What a training depends on must be in its checkpoint: the global generators stand elsewhere each
time, those of Python and NumPy from the first checkpoint on.
"""

from __future__ import annotations

import itertools
import json
import multiprocessing
import os
import random
import resource
import signal
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from workbench.attached import attached
from workbench.datasets import Dataset, dataset
from workbench.determinism import seed_everything
from workbench.home import read_json, write_json
from workbench.models import build
from workbench.training import Callback, Training, fit, loop
from workbench.training.checkpoints import (
    best_checkpoint,
    list_checkpoints,
    read_checkpoint,
    tensors_of,
)

Made = tuple[nn.Module, Dataset | DataLoader[Any], dict[str, Any]]

CLASSES = 3
READY = ("pytest", "sklearn", "torch._dynamo", "workbench.training.fitting", "workbench.registry")


def images(rows: int, side: int) -> tuple[Tensor, Tensor]:
    """Return images of noise, brighter for each class in another place."""
    draw = torch.Generator().manual_seed(1)
    targets = torch.arange(rows) % CLASSES
    pixels = torch.randint(0, 200, (rows, side, side, 3), generator=draw, dtype=torch.uint8)
    pixels[torch.arange(rows), targets] += 50
    return pixels, targets


def pictures(side: int = 8) -> Dataset:
    """Return 48 training images, 6 steps of 8, and 12 to validate."""
    return dataset("pictures", train=images(60, side), validation=12)


def points() -> Dataset:
    """Return 46 training rows of five numbers, the last batch smaller, and 14 to validate."""
    draw = torch.Generator().manual_seed(2)
    targets = torch.arange(60) % CLASSES
    rows = torch.randn(60, 5, generator=draw) + F.one_hot(targets, 5)
    return dataset("points", train=(rows, targets), validation=14)


class Varied(TorchDataset[tuple[Tensor, Tensor]]):
    """Rows that are another each time they are read.

    Args:
        everywhere: whether Python's and NumPy's generators are drawn from too.
    """

    def __init__(self, *, everywhere: bool = False) -> None:
        self._rows, self._everywhere = points().train, everywhere

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        noise = torch.rand(1, 5)
        if self._everywhere:
            noise = noise * random.random() + float(np.random.random())
        return self._rows.inputs[index] + noise, self._rows.targets[index]


def seeded(*layers: Callable[[], nn.Module]) -> nn.Sequential:
    """Return layers with always the same start."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(*(layer() for layer in layers))


def convolving(dropout: float = 0.2) -> nn.Module:
    """Return a net with everything that keeps a state or draws."""
    return seeded(
        lambda: nn.Conv2d(3, 6, 3, padding=1),
        lambda: nn.BatchNorm2d(6),
        nn.ReLU,
        lambda: nn.Dropout2d(dropout),
        nn.Flatten,
        lambda: nn.Dropout(dropout),
        lambda: nn.Linear(384, CLASSES),
    )


class Noisy(nn.Module):
    """Draws from the global generator, as nobody should."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.2, self.training)


def flat(noise: Callable[[], nn.Module] = nn.Dropout) -> nn.Module:
    """Return a net of two layers."""
    return seeded(
        lambda: nn.Linear(5, 12),
        lambda: nn.BatchNorm1d(12),
        nn.ReLU,
        noise,
        lambda: nn.Linear(12, 3),
    )


def shaped() -> nn.Module:
    """Return a net for what `Varied` gives, rows of one by five."""
    return nn.Sequential(nn.Flatten(), *flat())  # type: ignore[misc]


def _images() -> Made:
    return convolving(), pictures(), {
        "steps": 33, "batch_size": 8, "augment": ["mirror", "shift", "cutout"], "average": "ema",
        "optimizer": "adamw", "weight_decay": 0.1, "precision": "bf16", "schedule": "one_cycle",
        "label_smoothing": 0.1,
    }  # fmt: skip


def _parts() -> Made:
    return flat(), points(), {
        "steps": 36, "batch_size": 8, "average": "lookahead", "optimizer": "nesterov", "lr": 0.05,
        "accumulate": 3, "clip": 0.5, "schedule": "cosine", "class_weights": "balanced",
        "weight_decay": 0.01,
    }  # fmt: skip


def _noisy() -> Made:
    return flat(Noisy), points(), {
        "steps": 27, "batch_size": 8, "optimizer": "sgd", "lr": 0.05, "schedule": "triangle",
    }  # fmt: skip


def _built() -> Made:
    data = pictures(16)
    model = build("convnet", data, size="small")
    return model, data, {"steps": 7, "batch_size": 16}  # all else by its recipe


def _loader(workers: int, *, everywhere: bool = False) -> Made:
    data = Varied(everywhere=everywhere)
    loader = DataLoader(
        data, batch_size=8, shuffle=True, num_workers=workers,
        multiprocessing_context="fork" if workers else None,
    )  # fmt: skip
    return shaped(), loader, {"steps": 27, "optimizer": "adamw", "schedule": "step_decay"}


CASES: dict[str, Callable[[], Made]] = {
    "images": _images,
    "parts": _parts,
    "noisy": _noisy,
    "built": _built,
    "loader": lambda: _loader(0),
    "everywhere": lambda: _loader(0, everywhere=True),
    "workers": lambda: _loader(2),
}


def combination(number: int) -> Made:
    """Return a training with everything drawn: model, data, and each of its settings."""
    draw = random.Random(number)
    steps = draw.randrange(20, 40)
    how: dict[str, Any] = {
        "steps": steps,
        "optimizer": draw.choice(["sgd", "nesterov", "adamw"]),
        "average": draw.choice([None, "ema", "lookahead"]),
        "schedule": draw.choice(["constant", "step_decay", "cosine", "one_cycle", "triangle"]),
        "precision": draw.choice(["fp32", "bf16"]),
        "accumulate": draw.choice([1, 1, 3]),
        "clip": draw.choice([None, 0.5]),
        "label_smoothing": draw.choice([0.0, 0.1]),
        "weight_decay": draw.choice([0.0, 0.05]),
        "lr": draw.choice([0.001, 0.01]),
        "seed": draw.randrange(100),
    }
    kind = draw.choice(["images", "images", "points", "noisy", "loader", "workers"])
    if kind in ("loader", "workers"):
        model, loader, _ = _loader(2 if kind == "workers" else 0)
        return model, loader, how
    how |= {"batch_size": draw.choice([7, 8]), "class_weights": draw.choice([None, "balanced"])}
    if kind != "images":
        return flat(Noisy if kind == "noisy" else nn.Dropout), points(), how
    names = ["mirror", "shift", "cutout"]
    return convolving(), pictures(), how | {"augment": draw.sample(names, draw.randrange(4))}


class Deadly(Callback):
    """Kills or stops the training after a step; at step -1 kills it when all is done but said."""

    def __init__(self, *, die_at: int, settle: float, stop_at: int, pace: float) -> None:
        self._die_at, self._settle = die_at, settle
        self._stop_at, self._pace = stop_at, pace

    def on_step(self, training: Training, step: int) -> None:
        if step == self._die_at:
            time.sleep(self._settle)
            os.kill(os.getpid(), signal.SIGKILL)
        if step == self._stop_at:
            training.stop()
        time.sleep(self._pace)

    def on_end(self, training: Training) -> None:
        if self._die_at == -1:
            os.kill(os.getpid(), signal.SIGKILL)


def die_writing(number: int) -> None:
    """Let this process be killed with the `number`-th file written and not yet in its place."""
    flush, count = os.fsync, itertools.count(1)

    def fsync(handle: Any) -> None:
        if next(count) == number:
            os.kill(os.getpid(), signal.SIGKILL)
        flush(handle)

    os.fsync = fsync  # type: ignore[assignment]


def work(
    case: str | int,
    home: Path,
    name: str,
    *,
    budget: dict[str, Any] | None = None,
    die_at: int = 0,
    settle: float = 0.0,
    die_in_write: int = 0,
    stop_at: int = 0,
    extend: int = 0,
    pace: float = 0.0,
    draws: int = 0,
) -> None:
    """Train under a name, going on where it was left; leave what came of it in its folder.

    Args:
        case: of `CASES`, or a number of a `combination`.
        home: where trainings are kept.
        name: of the training.
        budget: other than the case's.
        die_at: step after which the process kills itself; -1 when the training has ended.
        settle: seconds that it waits before, so that a checkpoint gets written.
        die_in_write: which file it kills itself over.
        stop_at: step after which the training is stopped.
        extend: steps that it is extended by.
        pace: seconds that each step takes longer.
        draws: how many numbers somebody else drew before.
    """
    settle_in(home, name, draws)
    model, data, how = combination(case) if isinstance(case, int) else CASES[case]()
    if budget is not None:
        how = {k: v for k, v in how.items() if k != "steps"} | budget
    if die_in_write:
        die_writing(die_in_write)
    deadly = Deadly(die_at=die_at, settle=settle, stop_at=stop_at, pace=pace)
    training = fit(
        model, data, name=name, resume=True, checkpoint_every=0, callbacks=[deadly], **how
    )
    if extend:
        training.extend(steps=extend)
    weights = {k: v.detach().contiguous() for k, v in tensors_of(model).items()}
    save_file(weights, training.folder / "model")
    write_json(training.folder / "history.json", [training.history.steps, training.history.epochs])


def settle_in(home: Path, name: str, draws: int) -> None:
    """Make this process one in which a training is tested, its random numbers a stranger's."""
    os.environ |= {"WORKBENCH_HOME": str(home), "WORKBENCH_HEADLESS": "1"}
    warnings.simplefilter("ignore")  # that a loader's data is unknown, that F.dropout draws
    loop._LOOK_EVERY = 0.0  # so that any step may have its checkpoint
    seed_everything(1 if list_checkpoints(home / "trainings" / name / "checkpoints") else 0)
    torch.rand(draws)


def processes() -> Any:
    """Return how to start processes: forked from a server that computes nothing itself."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(READY))
    return context


def start(case: str | int, home: Path, name: str, **how: Any) -> BaseProcess:
    """Start `work` in a process of its own."""
    process = processes().Process(target=work, args=(case, home, name), kwargs=how)
    process.start()
    return cast("BaseProcess", process)


def outcome(process: BaseProcess) -> int:
    """Wait for a process; return its exit code, minus the signal that ended it."""
    process.join(60)
    code = process.exitcode
    if code is None:
        process.kill()
        raise TimeoutError(f"process {process.pid} did not end within a minute")
    process.close()
    return code


def left(folder: Path) -> dict[str, Any]:
    """Return everything a training left behind, all but how long it took, ready to compare."""
    last = read_checkpoint(list_checkpoints(folder / "checkpoints")[-1].path)
    best = best_checkpoint(folder / "checkpoints")
    assert best is not None
    found: dict[str, Any] = {f"last {name}": bits(value) for name, value in last.tensors.items()}
    found |= {f"rest {k}": repr(v) for k, v in last.rest.items() if k != "seconds"}
    kept = read_checkpoint(best.path)
    found |= {f"best {name}": bits(value) for name, value in kept.tensors.items()}
    found |= {f"model {name}": bits(value) for name, value in load_file(folder / "model").items()}
    return found | {
        "best step": best.step,
        "history": repr(read_json(folder / "history.json")),
        "state": read_json(folder / "training.json")["state"],
    }


def bits(tensor: Tensor) -> tuple[str, tuple[int, ...], bytes]:
    """Return type, shape and bytes, of which NaN and the sign of 0 are a part."""
    return str(tensor.dtype), tuple(tensor.shape), tensor.contiguous().numpy().tobytes()


def differences(ours: dict[str, Any], theirs: dict[str, Any]) -> Iterator[str]:
    """Yield the name of everything that is not the same, bit for bit."""
    for name in sorted({*ours, *theirs}):
        if name not in ours or name not in theirs or ours[name] != theirs[name]:
            yield name


class Meddling(Callback):
    """Does something to its process after a step."""

    def __init__(self, step: int, what: Callable[[], None]) -> None:
        self._step, self._what = step, what

    def on_step(self, training: Training, step: int) -> None:
        time.sleep(0.01)  # so that there is time for a checkpoint or two
        if step == self._step:
            self._what()


def meddled(home: Path, name: str, step: int, what: Callable[[], None]) -> None:
    """Train the case "images" and do something to the process after a step; leave what was said."""
    settle_in(home, name, 0)
    model, data, how = _images()
    meddling, ended = Meddling(step, what), "quietly"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            fit(
                model, data, name=name, resume=True, checkpoint_every=0, callbacks=[meddling], **how
            )
        except KeyboardInterrupt:
            ended = "by KeyboardInterrupt"
    training = attached(model).training
    assert training is not None
    story = {
        "ended": ended,
        "state": training.state,
        "steps": len(training.history),
        "checkpoints": [one.step for one in training.checkpoints],
        "said": [str(one.message) for one in said],
        "weights": {key: value.tolist() for key, value in tensors_of(model).items()},
    }
    make_room()
    (home / f"{name}.json").write_text(json.dumps(story))


def fill_disk() -> None:
    """Let no file of this process grow beyond 4 kB: a record fits, a checkpoint does not."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (4_000, resource.RLIM_INFINITY))


def make_room() -> None:
    """Undo `fill_disk`."""
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def press_ctrl_c() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def press_ctrl_c_twice() -> None:
    press_ctrl_c()
    press_ctrl_c()


def trained(name: str | None = None, **how: Any) -> Training:
    """Train a small net on a few points, 6 steps an epoch."""
    options = {"batch_size": 8, "checkpoint_every": 0, "steps": 9} | how
    return fit(options.pop("model", flat()), options.pop("data", points()), name=name, **options)


class Each(Callback):
    """Calls a function after each step, and counts the steps that were taken."""

    def __init__(self, what: Callable[[Training, int], None] = lambda training, step: None) -> None:
        self.what, self.taken = what, 0

    def on_step(self, training: Training, step: int) -> None:
        self.taken += 1
        self.what(training, step)


def held_at(step: int, until: threading.Event) -> Each:
    """Hold a training after a step until somebody says so."""

    def hold(_: Training, taken: int) -> None:
        if taken == step:
            until.wait(60)

    return Each(hold)


def stop_at(last: int) -> Each:
    return Each(lambda training, step: training.stop() if step == last else None)


def meddle(folder: Path, name: str, step: int, what: Callable[[], None]) -> dict[str, Any]:
    """Train in a process of its own, do something to it after a step; return what it left."""
    process = processes().Process(target=meddled, args=(folder, name, step, what))
    process.start()
    assert outcome(process) == 0
    story: dict[str, Any] = read_json(folder / f"{name}.json")
    return story
