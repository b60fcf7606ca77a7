"""How close a training of some minutes comes to them: asked and taken, on CIFAR-10.

python benchmarks/minutes.py > benchmarks/minutes.md
"""

from __future__ import annotations

import time

import torch

import workbench as wb
from workbench.devices import hardware

ASKED = (0.25, 0.5)  # minutes
ROUNDS = 2


def taken(data: wb.Dataset, minutes: float, seed: int) -> tuple[float, int, float]:
    """Return the seconds that `fit` took, its steps, and its last learning rate's share."""
    model = wb.build("convnet", data, size="small", seed=seed)
    started = time.perf_counter()
    training = wb.fit(model, data, minutes=minutes, seed=seed)
    rates = training.history["lr"]
    return time.perf_counter() - started, len(training.history), rates[-1] / max(rates)


def main() -> None:
    """Train for each budget a few times after one short warm-up; print Markdown."""
    data = wb.load("cifar10")
    taken(data, 0.1, 0)
    machine = hardware()
    print("# Minutes asked for, and taken\n")
    print(
        f"`python benchmarks/minutes.py` · {machine['processor']}, {machine['cores']} cores, "
        f"{machine['instruction_set']} · torch {torch.__version__} · convnet small, scored on "
        "5,000 images after each epoch; the whole call to `fit` counts\n"
    )
    print("| asked, s | taken, s | off by | steps | last learning rate, of the peak |")
    print("|---|---|---|---|---|")
    for seed in range(ROUNDS):
        for minutes in ASKED:
            seconds, steps, last = taken(data, minutes, seed)
            off = seconds / (60 * minutes) - 1
            print(f"| {60 * minutes:.0f} | {seconds:.1f} | {off:+.1%} | {steps:,} | {last:.2%} |")


if __name__ == "__main__":
    main()
