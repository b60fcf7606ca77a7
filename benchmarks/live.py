"""What the live view costs a training: the same one with and without it, in turns.

    python benchmarks/live.py > benchmarks/live.md

Both run in a kernel, in a thread; one is shown. Timed are the training, from its first step to its
last, and the whole cell: with the view's display, and the picture that the notebook keeps.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from kernels import Kernel

from workbench.devices import hardware

ROUNDS = 9
SETUP = """
import time
import workbench as wb
from workbench.training import live

data = wb.load("digits")
show = live._show

def train(shown, hidden, steps):
    live._show = show if shown else lambda training: False
    model = wb.build("mlp", data, hidden=hidden)
    started = time.perf_counter()
    training = wb.fit(model, data, steps=steps, batch_size=32).wait()
    return training.seconds, time.perf_counter() - started

train(True, (64,), 500)
"""
CASES = {"mlp 64": ("(64,)", 20_000), "mlp 2048, 2048": ("(2048, 2048)", 300)}


def main() -> None:
    """Train in turns; print Markdown."""
    kernel = Kernel({"WORKBENCH_HEADLESS": None})
    kernel.run(SETUP)
    machine = hardware()
    print("# What the live view costs\n")
    print(
        f"`python benchmarks/live.py` · {machine['processor']}, {machine['cores']} cores, "
        f"{machine['instruction_set']} · torch {torch.__version__} · {ROUNDS} rounds in turns\n"
    )
    print(
        "| net | steps | training: seconds unseen | shown | cost: median (lowest to highest) | "
        "the whole cell: seconds more |"
    )
    print("|---|---|---|---|---|---|")
    for name, (hidden, steps) in CASES.items():
        pairs = []
        for _ in range(ROUNDS):
            unseen, shown = (
                kernel.value(f"train({which}, {hidden}, {steps})") for which in (False, True)
            )
            kernel.told()
            pairs.append((unseen, shown))
        costs = sorted(shown[0] / unseen[0] - 1 for unseen, shown in pairs)
        times = [statistics.median(side[0] for side in sides) for sides in zip(*pairs, strict=True)]
        more = statistics.median(shown[1] - unseen[1] for unseen, shown in pairs)
        print(
            f"| {name} | {steps:,} | {times[0]:.2f} | {times[1]:.2f} | "
            f"{statistics.median(costs):+.2%} ({costs[0]:+.2%} to {costs[-1]:+.2%}) | {more:.2f} |"
        )
    kernel.close()


if __name__ == "__main__":
    main()
