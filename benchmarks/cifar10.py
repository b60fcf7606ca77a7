"""How long CIFAR-10 takes to a test accuracy, from starting Python to the figure; prints progress.

    python benchmarks/cifar10.py                  # all goals and the baseline, about an hour
    python benchmarks/cifar10.py --goals 54 80    # some of them

Each run is a process of its own, timed from outside: imports, loading the cached data, building,
training and evaluation all count. The baseline is the classic tutorial as people write it
(`essay.py`), run before them. Results are added to `cifar10.json`; `cifar10.md` is made of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import torch

from workbench.devices import hardware
from workbench.probing import probe

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "cifar10.json"

GOALS: dict[int, dict[str, Any]] = {
    54: {
        "build": {"size": "small"},
        "fit": {"epochs": 0.2, "batch_size": 64, "lr": 0.15},
        "seeds": 5,
    },
    70: {"build": {"size": "small"}, "fit": {"epochs": 1.2}, "seeds": 5},
    80: {"build": {"size": "medium"}, "fit": {"epochs": 1.35}, "seeds": 5},
    84: {
        "build": {"size": "medium"},
        "fit": {"epochs": 2.4, "augment": "mirror"},
        "mirror": True,
        "seeds": 3,
    },
    90: {
        "build": {"size": "large", "widths": (64, 128, 256)},
        "fit": {"epochs": 4},
        "mirror": True,
        "seeds": 3,
    },
    94: {
        "build": {"size": "large"},
        "fit": {"epochs": 13, "batch_size": 1000, "lr": 1.46},
        "mirror": True,
        "seeds": 2,
    },
}


def train(goal: int, seed: int) -> dict[str, Any]:
    """Train and evaluate once, on all 50,000 training images; return what came of it."""
    import workbench as wb

    how = GOALS[goal]
    data = wb.load("cifar10", validation=0)
    model = wb.build("convnet", data, seed=seed, **how["build"])
    training = wb.fit(model, data, seed=seed, **how["fit"])
    evaluation = wb.evaluate(model, data.test, mirror=how.get("mirror", False))
    return {
        "test_accuracy": evaluation.accuracy,
        "seconds_of_fit": training.seconds,
        "settings": training.settings.to_json(),
    }


def timed(*command: str) -> dict[str, Any]:
    """Run a script in a process of its own; return what it printed, and the seconds it took."""
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, *command], check=True, stdout=subprocess.PIPE, text=True, cwd=HERE
    )
    seconds = time.perf_counter() - started
    return {**json.loads(done.stdout), "seconds": seconds}


def run(name: str, seed: int, *command: str) -> dict[str, Any]:
    """Run one contestant, add the result to the file, and say so."""
    found = {"name": name, "seed": seed, **timed(*command)}
    found |= {"torch": torch.__version__, "hardware": hardware()}
    results = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    RESULTS.write_text(json.dumps([*results, found], indent=1) + "\n")
    print(
        f"{name}, seed {seed}: {found['test_accuracy']:.2%} in {found['seconds']:.1f} s", flush=True
    )
    return found


def report(results: list[dict[str, Any]]) -> str:
    """Return the results as a page of Markdown."""
    machine = results[-1]["hardware"]
    baseline = [r["seconds"] for r in results if r["name"] == "tutorial"]
    lines = [
        "# CIFAR-10: seconds to a test accuracy\n",
        f"`python benchmarks/cifar10.py` · {machine['processor']}, {machine['cores']} cores, "
        f"{machine['instruction_set']} · torch {results[-1]['torch']} · {probe().sentence}\n",
        "Seconds are those of a whole process: imports, data (cached), build, fit and evaluation. "
        "All 50,000 training images are trained on; the 10,000 test images are asked once, at the "
        "end, in fp32.\n",
        "| goal | how | runs | test accuracy, %: mean (lowest to highest) | reached it | "
        "seconds: mean (lowest to highest) | share of the tutorial's time |",
        "|---|---|---|---|---|---|---|",
    ]
    ways = list(dict.fromkeys((r["name"], _how(r)) for r in results))
    for name, how in sorted(ways, key=lambda way: (way[0] != "tutorial", way[0])):
        mine = [r for r in results if (r["name"], _how(r)) == (name, how)]
        scores, seconds = ([r[key] for r in mine] for key in ("test_accuracy", "seconds"))
        goal = int(name) if name.isdigit() else None
        reached = sum(s >= goal / 100 for s in scores) if goal else None
        lines.append(
            f"| {f'{goal} %' if goal else 'the tutorial as written'} | {how} | "
            f"{len(mine)} | {_spread([100 * s for s in scores], 2)} | "
            f"{'' if goal is None else f'{reached} of {len(mine)}'} | {_spread(seconds, 1)} | "
            f"{statistics.mean(seconds) / statistics.mean(baseline):.3f} |"
        )
    return "\n".join(lines) + "\n"


def _how(found: dict[str, Any]) -> str:
    if "settings" not in found:
        return "LeNet, batch 4, DataLoader with 2 workers, SGD, 2 epochs"
    s, how = found["settings"], GOALS[int(found["name"])]
    asked = ", mirrored when asked" if how.get("mirror") else ""
    net = " ".join(str(value).replace(" ", "") for value in how["build"].values())
    return f"{net}, {s['epochs']:.3g} epochs, batch {s['batch_size']}, {s['precision']}{asked}"


def _spread(values: list[float], digits: int) -> str:
    mean, low, high = statistics.mean(values), min(values), max(values)
    return f"{mean:.{digits}f} ({low:.{digits}f} to {high:.{digits}f})"


def main() -> None:
    """Run the baseline and what was asked for; make the page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--goals", type=int, nargs="*", default=list(GOALS), choices=list(GOALS))
    parser.add_argument("--baseline", type=int, default=2, help="how many runs of the tutorial")
    parser.add_argument("--one", type=int, nargs=2, metavar=("GOAL", "SEED"))
    parser.add_argument("--report", action="store_true", help="only make the page anew")
    asked = parser.parse_args()
    if asked.one:
        print(json.dumps(train(*asked.one)))
        return
    if not asked.report:
        for seed in range(asked.baseline):
            run("tutorial", seed, str(HERE / "essay.py"), "--seed", str(seed))
        for goal in asked.goals:
            for seed in range(GOALS[goal]["seeds"]):
                run(str(goal), seed, __file__, "--one", str(goal), str(seed))
    (HERE / "cifar10.md").write_text(report(json.loads(RESULTS.read_text())))


if __name__ == "__main__":
    main()
