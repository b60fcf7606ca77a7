"""Seconds from starting Python to the end of the first training step, with the data cached.

python benchmarks/start.py > benchmarks/start.md
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import time

import torch

from workbench.devices import hardware

ROUNDS = 7
PROGRAM = """
import os, sys, time
import workbench as wb

class First(wb.Callback):
    def on_step(self, training, step):
        print(time.time(), flush=True)

data = wb.load("cifar10")
model = wb.build("convnet", data, size="small")
wb.fit(model, data, steps=1, callbacks=[First()])
"""


def seconds() -> float:
    """Return how long one process takes to its first step."""
    started = time.time()
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], check=True, capture_output=True, text=True
    )
    return float(done.stdout.split()[-1]) - started


def main() -> None:
    """Measure a few processes after one that warms the disk's cache; print Markdown."""
    seconds()
    found = [seconds() for _ in range(ROUNDS)]
    machine = hardware()
    print("# From `import workbench` to the first step on CIFAR-10\n")
    print(
        f"`python benchmarks/start.py` · {machine['processor']}, {machine['cores']} cores, "
        f"{machine['instruction_set']} · torch {torch.__version__}\n"
    )
    print(
        f"{statistics.median(found):.2f} s, the median of {ROUNDS} processes "
        f"({min(found):.2f} to {max(found):.2f}), Python's own start included."
    )


if __name__ == "__main__":
    main()
