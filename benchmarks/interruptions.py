"""Runs, kernels and sweeps killed at random moments, resumed, and compared with undisturbed ones.

    python benchmarks/interruptions.py     # writes interruptions.json and interruptions.md

Each notebook trains a model, publishes it, extends the training and records figures. It is killed
with SIGKILL once or twice, each time after a random part of the time that it takes, and resumed
until it is done. Compared, bit for bit, are the states of its trainings and every recorded number;
published is each version once.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import shlex
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import nbformat
import psutil
import torch
from nbformat.v4 import new_code_cell, new_notebook

from workbench.devices import hardware
from workbench.home import write_json
from workbench.journal import read_lines
from workbench.runs import Run, Sweep
from workbench.runs.verification import state_hash
from workbench.training.recorded import RecordedTraining

HERE = Path(__file__).resolve().parent
WORKBENCH = str(Path(sys.executable).parent / "workbench")
CELLS = (
    "import torch, time\nimport workbench as wb\n"
    "x = torch.linspace(-1, 1, 96)[:, None]\n"
    "data = wb.dataset('points', train=(x, torch.sin(3 * x)), validation=16)\n"
    "class Slow(wb.Callback):\n    def on_step(self, training, step): time.sleep(0.01)",
    "first = wb.build('linear', data, seed=seed)\n"
    "wb.fit(first, data, steps=30, callbacks=[Slow()], checkpoint_every=0.1)\n"
    "wb.publish(first, f'first-{seed}').ref",
    "model = wb.build('mlp', data, hidden=(16,), seed=seed)\n"
    "calls = [Slow(), wb.RecordEpochs('validation_loss')]\n"
    "how = {'batch_size': 16, 'callbacks': calls, 'checkpoint_every': 0.1}\n"
    "training = wb.fit(model, data, steps=60, **how)",
    "wb.record('before', wb.evaluate(model, data.validation).loss)\n"
    "training.extend(steps=20)\n"
    "wb.record('loss', wb.evaluate(model, data.train).loss)\n"
    "wb.publish(model, f'second-{seed}').ref",
)


def main() -> None:
    """Kill until it was often enough; write what came out, and fail where a number differs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--kills", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE)
    told = parser.parse_args()
    began, found = time.perf_counter(), list[Any]()
    with tempfile.TemporaryDirectory(prefix="interruptions-") as name:
        for one in storm(Path(name), random.Random(told.seed)):
            found.append(one)
            n = sum(len(each["kills"]) for each in found)
            print(f"{n} kills: {one}", file=sys.stderr)
            if n >= told.kills:
                break
    report = {
        "command": shlex.join(["python", "benchmarks/interruptions.py", *sys.argv[1:]]),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.perf_counter() - began),
        "machine": hardware(),
        "versions": f"torch {torch.__version__}, Python {platform.python_version()}",
        "found": found,
    }
    write_json(told.out / "interruptions.json", report)
    (told.out / "interruptions.md").write_text(page(report))
    if any(one["differences"] for one in found):
        sys.exit("a number differs")


def storm(folder: Path, draw: random.Random) -> Iterator[Any]:
    """Yield what became of one notebook after the other: which were killed how, what differs."""
    notebook = write(folder / "learn.ipynb")
    home = folder / "whole"
    whole = {seed: outcome(execute(notebook, home, seed)) for seed in range(3)}
    took = max(Run.read(home / "runs" / name).seconds or 0 for name in os.listdir(home / "runs"))
    for number in range(10_000):
        home = folder / f"home-{number}"
        target = ("run", "kernel", "sweep")[number % 3]
        if target == "sweep":
            kills, runs = kill_sweep(notebook, home, draw, 2 * took)
        else:
            kills, runs = kill_run(notebook, home, draw, target, took)
        differences = [
            line for run in runs for line in compared(outcome(run), whole[run.parameters["seed"]])
        ]
        versions = sorted(path.parent.name for path in (home / "models").glob("*/*/"))
        differences += [f"published {n} twice" for n, k in Counter(versions).items() if k > 1]
        yield {"target": target, "kills": kills, "differences": differences}


def execute(notebook: Path, home: Path, seed: int) -> Run:
    """Run the notebook undisturbed."""
    begin(home, "run", notebook, "-p", f"seed={seed}").wait()
    return Run.read((home / "latest").resolve())


def kill_run(
    notebook: Path, home: Path, draw: random.Random, target: str, took: float
) -> tuple[list[str], list[Run]]:
    """Kill a run, or its kernel, once or twice, and resume it until it is done."""
    kills: list[str] = []
    process = begin(home, "run", notebook, "-p", f"seed={draw.randrange(3)}")
    for _ in range(draw.randint(1, 2)):
        time.sleep(draw.uniform(0.3, took + 0.5))
        kills += [f"{target}: {sent}" for sent in kill(process, target)]
        process.wait()
        if not (home / "latest").exists():  # it was killed before there was anything
            process = begin(home, "run", notebook, "-p", "seed=0")
        else:
            process = begin(home, "resume", (home / "latest").resolve())
    process.wait()
    return kills, [finished(home, (home / "latest").resolve())]


def kill_sweep(
    notebook: Path, home: Path, draw: random.Random, took: float
) -> tuple[list[str], list[Run]]:
    """Kill a sweep of three runs once or twice, and resume it until it is done."""
    kills: list[str] = []
    process = begin(home, "sweep", notebook, "--seeds", "3", "--jobs", "2")
    for _ in range(draw.randint(1, 2)):
        time.sleep(draw.uniform(1.0, took + 4))
        kills += [f"sweep: {sent}" for sent in kill(process, "run")]
        process.wait()
        plans = list((home / "sweeps").glob("*/sweep.json"))
        again = ["resume", plans[0].parent] if plans else ["sweep", notebook, "--seeds", "3"]
        process = begin(home, *again)
    process.wait()
    return kills, Sweep.read(next((home / "sweeps").glob("*/sweep.json")).parent).runs


def kill(process: subprocess.Popen[bytes], target: str) -> list[str]:
    """Send SIGKILL to a process, or to the kernel that it has started; return what was hit."""
    try:
        itself = psutil.Process(process.pid)
        victims = [itself] if target == "run" else itself.children()
        for victim in victims[:1]:
            victim.send_signal(signal.SIGKILL)
            return [victim.name()] if process.poll() is None or target != "run" else []
    except psutil.NoSuchProcess:
        pass
    return []


def finished(home: Path, folder: Path) -> Run:
    """Return a run that is done, resumed once more where a kernel was killed last."""
    while Run.read(folder).state != "done":
        begin(home, "resume", folder).wait()
    return Run.read(folder)


def begin(home: Path, *command: object) -> subprocess.Popen[bytes]:
    """Start a command of the workbench in a home of its own."""
    environment = {**os.environ, "WORKBENCH_HOME": str(home), "OMP_NUM_THREADS": "1"}
    quiet: dict[str, Callable[..., Any] | int] = {
        "stdout": subprocess.DEVNULL,
        "stderr": subprocess.DEVNULL,
    }
    return subprocess.Popen([WORKBENCH, *map(str, command)], env=environment, **quiet)  # type: ignore[call-overload, no-any-return]


def outcome(run: Run) -> dict[str, Any]:
    """Return everything that has to be the same."""
    lines = read_lines(run.folder / "metrics.jsonl")
    trainings = sorted((run.folder / "trainings").iterdir())
    return {
        "state": run.state,
        "metrics": run.metrics,
        "curve": {f"{n['name']} {n.get('step')}": n["value"] for n in lines},
        "published": [ref.partition("@")[0] for ref in run.published],
        **{path.name: state_hash(RecordedTraining.read(path)) for path in trainings},
    }


def compared(found: dict[str, Any], whole: dict[str, Any]) -> list[str]:
    """Return what differs."""
    return [
        f"{name}: {found.get(name)}, not {whole[name]}"
        for name in whole
        if found.get(name) != whole[name]
    ]


def write(path: Path) -> Path:
    """Write the notebook."""
    tagged = new_code_cell("seed = 0", metadata={"tags": ["parameters"]})
    nbformat.write(new_notebook(cells=[tagged, *map(new_code_cell, CELLS)]), path)
    return path


def page(report: dict[str, Any]) -> str:
    """Return the report as Markdown."""
    kills = Counter(kill.partition(":")[0] for one in report["found"] for kill in one["kills"])
    same = sum(not one["differences"] for one in report["found"])
    machine, told = report["machine"], ", ".join(f"{n} of a {name}" for name, n in kills.items())
    return (
        "# Killed at random moments, and resumed\n\n"
        f"{sum(kills.values())} kills with SIGKILL ({told}), each followed by `workbench resume`: "
        f"**{same} of {len(report['found'])}** runs and sweeps came to the numbers, the states of "
        "trainings and the published versions of undisturbed ones, bit for bit. "
        f"{report['seconds']} s.\n\n`{report['command']}` · {machine['processor']}, "
        f"{machine['cores']} cores, {machine['instruction_set']} · {report['versions']}\n"
    )


if __name__ == "__main__":
    main()
