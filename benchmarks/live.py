"""What the live view costs a training: the same one with and without it, in turns.

    python benchmarks/live.py > benchmarks/live.md

Both run in a kernel, in a thread; one is shown, and followed by a client that reads every message.
"""

from __future__ import annotations

import statistics
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from kernels import Kernel

from workbench.devices import hardware

ROUNDS = 7
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
    wb.fit(model, data, steps=steps, batch_size=32).wait()
    return time.perf_counter() - started

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
        "| training | steps | seconds, unseen | seconds, shown | cost: median (lowest to highest) |"
    )
    print("|---|---|---|---|---|")
    for name, (hidden, steps) in CASES.items():
        pairs = []
        for _ in range(ROUNDS):
            unseen, shown = (
                kernel.value(f"train({which}, {hidden}, {steps})") for which in (False, True)
            )
            kernel.told()
            pairs.append((unseen, shown))
        costs = sorted(shown / unseen - 1 for unseen, shown in pairs)
        times = [statistics.median(side) for side in zip(*pairs, strict=True)]
        print(
            f"| {name} | {steps:,} | {times[0]:.2f} | {times[1]:.2f} | "
            f"{statistics.median(costs):+.2%} ({costs[0]:+.2%} to {costs[-1]:+.2%}) |"
        )
    kernel.close()


if __name__ == "__main__":
    main()
