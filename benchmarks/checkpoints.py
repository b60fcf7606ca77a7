"""What checkpoints cost: seconds of training lost to each, and what share of 30 seconds that is.

    python benchmarks/checkpoints.py     # writes checkpoints.json and checkpoints.md beside itself

The hot path, copying the state between two steps, is timed at each checkpoint. What the thread that
writes takes from the training besides is in a difference: in each round the same training runs
twice, with a checkpoint every second and with none on the way, in turns the one or the other first;
what the first takes longer, over the checkpoints that it writes more, is all that one costs. That
needs a quiet machine.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import shlex
import statistics
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor

import workbench as wb
from workbench.datasets import Dataset
from workbench.datasets.store import stored_file
from workbench.devices import hardware
from workbench.training.watchers import Watcher

HERE = Path(__file__).resolve().parent
USUAL = 30.0  # seconds between checkpoints, unless told otherwise
OFTEN = 1.0
ROWS = 16_000


@dataclass(frozen=True)
class Contestant:
    """One row of the table.

    Args:
        name: of it.
        builder: of the model.
        sizes: for `build`.
        how: arguments of `fit`.
    """

    name: str
    builder: str
    sizes: dict[str, Any]
    how: dict[str, Any]


CONTESTANTS = (
    Contestant("convnet, medium", "convnet", {"size": "medium"}, {}),
    Contestant(
        "lenet, batch 4",
        "lenet",
        {},
        {"batch_size": 4, "lr": 0.001, "optimizer": "sgd", "schedule": "constant"},
    ),
)


def main() -> None:
    """Measure all contestants and write what came out."""
    told = _arguments()
    load_before = os.getloadavg()[0]
    data, source = _rows()
    rows = []
    with tempfile.TemporaryDirectory(prefix="checkpoints-") as folder:
        os.environ |= {"WORKBENCH_HOME": folder, "WORKBENCH_HEADLESS": "1"}
        for one in CONTESTANTS:
            rows.append(_measured(one, data, told.rounds, told.seconds))
    report = {
        "command": shlex.join(["python", "benchmarks/checkpoints.py", *sys.argv[1:]]),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": hardware(),
        "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
        "load_before": load_before,
        "data": source,
        "rounds": told.rounds,
        "contestants": rows,
    }
    text = json.dumps(report, indent=2) + "\n"
    (told.out / "checkpoints.json").write_text(text, encoding="utf-8")
    (told.out / "checkpoints.md").write_text(_markdown(report), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=20.0, help="that a training takes")
    parser.add_argument("--out", type=Path, default=HERE, help="where the two files go")
    return parser.parse_args()


def _rows() -> tuple[Dataset, str]:
    """Return CIFAR-10 where it is cached, else rows of its shape; without a validation split."""
    images, targets, told = _images()
    return wb.dataset("cifar10-head", train=(images, targets)), told


def _images() -> tuple[Tensor, Tensor, str]:
    if stored_file("cifar10").exists():
        train = wb.load("cifar10", train_limit=ROWS).train
        return train.inputs, train.targets, f"CIFAR-10, {ROWS:,} training rows"
    source = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (ROWS, 32, 32, 3), generator=source, dtype=torch.uint8)
    return images, torch.arange(ROWS) % 10, f"{ROWS:,} seeded rows shaped as CIFAR-10's"


def _measured(one: Contestant, data: Dataset, rounds: int, seconds: float) -> dict[str, Any]:
    """Return what checkpoints cost one contestant, by round."""
    trial = _train(one, data, steps=30, every=math.inf)
    steps = max(60, round(30 * seconds / trial["seconds"]))
    lost, pairs = [], []
    for number in range(rounds):
        order = (OFTEN, math.inf) if number % 2 else (math.inf, OFTEN)
        found = {every: _train(one, data, steps=steps, every=every) for every in order}
        more = len(found[OFTEN]["kept"]) - len(found[math.inf]["kept"])
        lost.append((found[OFTEN]["seconds"] - found[math.inf]["seconds"]) / more)
        pairs.append([found[OFTEN], found[math.inf]])
        print(f"{one.name}, round {number + 1}: {1e3 * lost[-1]:.1f} ms", file=sys.stderr)
    return {
        "name": one.name,
        "bytes": pairs[0][0]["bytes"],
        "steps": steps,
        "hot_path_ms": _spread([1e3 * value for pair in pairs for value in pair[0]["kept"]]),
        "hot_path_share_of_30_s": _spread(
            [value / USUAL for pair in pairs for value in pair[0]["kept"]]
        ),
        "lost_ms": _spread([1e3 * value for value in lost]),
        "share_of_30_s": _spread([value / USUAL for value in lost]),
        "often_and_never": pairs,
    }


@contextlib.contextmanager
def _timed() -> Iterator[list[float]]:
    """Give a list of the seconds that each checkpoint takes between two steps."""
    seconds: list[float] = []
    keep = Watcher._keep

    def timed(watcher: Watcher) -> None:
        started = time.perf_counter()
        keep(watcher)
        seconds.append(time.perf_counter() - started)

    with mock.patch.object(Watcher, "_keep", timed):
        yield seconds


def _train(one: Contestant, data: Dataset, *, steps: int, every: float) -> dict[str, Any]:
    model = wb.build(one.builder, data, seed=0, **one.sizes)
    with _timed() as kept:
        training = wb.fit(model, data, steps=steps, checkpoint_every=every, **one.how)
    assert training.checkpoint is not None
    return {
        "seconds": training.seconds,
        "kept": kept,
        "bytes": training.checkpoint.path.stat().st_size,
    }


def _spread(values: Sequence[float]) -> dict[str, float]:
    return {"median": statistics.median(values), "low": min(values), "high": max(values)}


def _markdown(report: dict[str, Any]) -> str:
    machine, versions = report["machine"], report["versions"]
    lines = [
        "# What checkpoints cost",
        "",
        f"`{report['command']}` · {machine['processor']}, {machine['cores']} cores, "
        f"{machine['instruction_set']} · torch {versions['torch']}, Python {versions['python']} · "
        f"load before: {report['load_before']:.2f}",
        "",
        "| | a checkpoint, MB | hot path, ms | lowest to highest | share of 30 s "
        "| all it costs, ms | lowest to highest | share of 30 s |",
        "|---|---:|---:|---:|---:|---:|---:|---:|",
        *(_line(row) for row in report["contestants"]),
        "",
        f"{report['data']}. {report['rounds']} rounds; in each, the same training with a "
        f"checkpoint every {OFTEN:g} s and with none between its first and its last. All it costs "
        "is their difference in seconds over their difference in checkpoints, the writing thread "
        "included; below zero is noise. Medians of all checkpoints, and of all rounds.",
        "",
    ]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    hot, lost = row["hot_path_ms"], row["lost_ms"]
    return (
        f"| {row['name']} | {row['bytes'] / 1e6:.2f} | {hot['median']:.2f} "
        f"| {hot['low']:.2f} to {hot['high']:.2f} | {row['hot_path_share_of_30_s']['median']:.4%} "
        f"| {lost['median']:.1f} | {lost['low']:.1f} to {lost['high']:.1f} "
        f"| {row['share_of_30_s']['median']:.3%} |"
    )


if __name__ == "__main__":
    main()
