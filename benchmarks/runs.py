"""Running notebooks, beside plain papermill: one run, a sweep of 16, and lists of ten thousand.

    python benchmarks/runs.py      # writes runs.json and runs.md beside itself

The contestants take turns in rounds, so that a busy machine is busy for all of them, and each
comparison is the median of the rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import nbformat
from nbformat.v4 import new_code_cell, new_notebook

from workbench.devices import hardware
from workbench.home import write_json

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
RATES, WIDTHS = (0.01, 0.02, 0.05, 0.1), (50, 100, 200, 400)
MANY = 10_000  # runs in a list
KERNEL = {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"}

# Linear regression by gradient descent, as a notebook has it that knows nothing of the workbench.
LEARN = """\
import torch
import matplotlib.pyplot as plt
torch.manual_seed(0)
x = torch.linspace(-1, 1, 256)[:, None]
y = 3 * x + 1 + 0.1 * torch.randn_like(x)
model = torch.nn.Linear(1, 1)
optimizer = torch.optim.SGD(model.parameters(), lr=lr)
losses = []
for _ in range(steps):
    loss = torch.nn.functional.mse_loss(model(x), y)
    optimizer.zero_grad(); loss.backward(); optimizer.step()
    losses.append(loss.item())
plt.plot(losses); plt.show()
print(losses[-1])"""


def main() -> None:
    """Take the rounds; write what came out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5, help="of one run each")
    parser.add_argument("--sweeps", type=int, default=3, help="rounds of 16 runs each")
    told = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="runs-") as name:
        folder = Path(name)
        os.environ["WORKBENCH_HOME"] = str(folder / "home")
        one = write(folder / "one.ipynb", "print(1)")
        line = write(folder / "line.ipynb", LEARN, "lr = 0.1\nsteps = 100")
        once = rounds(told.rounds, single(one, folder))
        learned = rounds(told.rounds, single(line, folder))
        swept = rounds(told.sweeps, sweeps(line, folder))
        lists = rounds(told.rounds, listing(folder / "many"))
    report = {
        "command": "python benchmarks/runs.py",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": hardware(),
        "python": platform.python_version(),
        "packages": {p: version(p) for p in ("torch", "papermill", "nbclient", "ipykernel")},
        "seconds": {"one": once, "line": learned, "sweep": swept, "lists": lists},
    }
    write_json(HERE / "runs.json", report)
    (HERE / "runs.md").write_text(page(report))


def rounds(n: int, contestants: Mapping[str, Callable[[], object]]) -> dict[str, list[float]]:
    """Return the seconds that each contestant took in each round, after one that does not count."""
    found: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(n + 1):
        for name, act in contestants.items():
            began = time.perf_counter()
            act()
            if number:
                found[name].append(round(time.perf_counter() - began, 3))
        print({name: seconds[-1:] for name, seconds in found.items()}, file=sys.stderr)
    return found


def single(notebook: Path, folder: Path) -> dict[str, Callable[[], object]]:
    """Return one run by papermill and one by the workbench, each a command of its own."""
    made = folder / "made.ipynb"
    return {
        "papermill": lambda: call("papermill", notebook, made),
        "workbench run": lambda: call("workbench", "run", notebook),
    }


def sweeps(notebook: Path, folder: Path) -> dict[str, Callable[[], object]]:
    """Return 16 runs by papermill in a loop, and by a sweep."""
    points = [(lr, steps) for lr in RATES for steps in WIDTHS]

    def loop() -> None:
        for lr, steps in points:
            call("papermill", notebook, folder / "made.ipynb", "-p", "lr", lr, "-p", "steps", steps)

    lists = [f"{n}={','.join(map(str, v))}" for n, v in (("lr", RATES), ("steps", WIDTHS))]
    given = ["-p", lists[0], "-p", lists[1], "--jobs", 2]
    return {
        "papermill in a loop": loop,
        "workbench sweep": lambda: call("workbench", "sweep", notebook, *given),
        "workbench sweep --cold": lambda: call("workbench", "sweep", notebook, *given, "--cold"),
    }


def listing(home: Path) -> dict[str, Callable[[], object]]:
    """Return lists of very many runs, and the help, of which nothing is loaded."""
    for number in range(MANY):
        name = f"20260101-{number:06d}-line-{number:04x}"
        cells = [{"index": i, "heading": "x", "state": "done", "seconds": 1.0} for i in range(20)]
        record = {
            **{"format": 1, "id": name, "state": "done", "notebook": {"path": "/x/line.ipynb"}},
            **{"started": f"{number:06d}", "seconds": 1.5, "parameters": {"lr": 0.1, "n": number}},
            **{"metrics": {"loss": 1 / (number + 1)}, "published": [], "datasets": []},
            "cells": cells,
        }
        folder = home / "runs" / name
        folder.mkdir(parents=True)
        (folder / "run.json").write_text(json.dumps(record, indent=2))
    where = ["--where", "loss<0.001", "--sort", "loss", "--last", 20]

    def ask(*command: object) -> Callable[[], object]:
        return lambda: call("workbench", *command, environment={"WORKBENCH_HOME": str(home)})

    return {
        "workbench runs": ask("runs"),
        "workbench runs, filtered and sorted": ask("runs", *where),
        "workbench --help": ask("--help"),
    }


def call(program: str, *arguments: object, environment: Mapping[str, str] | None = None) -> None:
    """Run a command of this environment to its end."""
    subprocess.run(
        [str(BIN / program), *map(str, arguments)],
        check=True,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        env={**os.environ, **(environment or {})},
    )


def write(path: Path, cell: str, parameters: str = "") -> Path:
    """Write a notebook of one cell and its parameters."""
    tagged = new_code_cell(parameters, metadata={"tags": ["parameters"]})
    made = new_notebook(cells=[tagged, new_code_cell(cell)], metadata={"kernelspec": KERNEL})
    nbformat.write(made, path)
    return path


def page(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    machine, packages, seconds = (report[key] for key in ("machine", "packages", "seconds"))
    versions = ", ".join(f"{name} {number}" for name, number in packages.items())
    lines = [
        "# Running notebooks, beside plain papermill\n",
        f"`{report['command']}` · {machine['processor']}, {machine['cores']} cores, "
        f"{machine['instruction_set']} · Python {report['python']}, {versions} · the contestants "
        "take turns; seconds are medians (lowest to highest), ratios medians of the rounds'\n",
        "| what | seconds | rounds | of papermill's time |",
        "|---|---|---|---|",
    ]
    titles = {"one": "one cell, `print(1)`", "line": "a linear regression", "sweep": "16 of them"}
    for kind, title in titles.items():
        first, *_ = seconds[kind].values()
        for name, found in seconds[kind].items():
            pairs = zip(found, first, strict=True)
            share = statistics.median(ours / theirs for ours, theirs in pairs)
            lines.append(f"| {title}: {name} | {shown(found)} | {len(found)} | {share:.2f} |")
    one = statistics.median(seconds["line"]["papermill"])
    each = [sweep / 16 for sweep in seconds["sweep"]["workbench sweep"]]
    lines.append(
        f"\nOf the sweep each run takes {shown(each)} s, two at once and the parent's imports "
        f"counted: {statistics.median(each) / one:.2f} of a run by papermill.\n"
    )
    lines += [f"| {MANY:,} runs in the home | seconds |", "|---|---|"]
    lines += [f"| `{name}` | {shown(found)} |" for name, found in seconds["lists"].items()]
    return "\n".join(lines) + "\n"


def shown(found: Sequence[float]) -> str:
    """Return a median with its spread."""
    return f"{statistics.median(found):.2f} ({min(found):.2f} to {max(found):.2f})"


if __name__ == "__main__":
    main()
