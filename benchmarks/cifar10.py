"""How accurate `convnet` is on CIFAR-10, and after how long, over several seeds; prints Markdown.

python benchmarks/cifar10.py > benchmarks/cifar10.md
"""

import statistics

import torch

import workbench as wb
from workbench.devices import hardware

SEEDS = range(5)


def main() -> None:
    """Train with notebook 05's settings from each seed; seconds are those of `fit` alone."""
    data = wb.load("cifar10")
    scores, seconds = [], []
    for seed in SEEDS:
        model = wb.build("convnet", data, size="small", seed=seed)
        training = wb.fit(model, data, epochs=4, batch_size=128, lr=0.3, seed=seed)
        scores.append(100 * wb.evaluate(model, data.test).accuracy)
        seconds.append(training.seconds)
    machine = hardware()
    print("# CIFAR-10, `convnet` small, 4 epochs, batch 128, fp32\n")
    print(
        f"`python benchmarks/cifar10.py` · {machine['processor']}, {machine['cores']} cores, "
        f"{machine['threads']} threads, {machine['instruction_set']} · torch {torch.__version__}\n"
    )
    print("| | mean | lowest | highest | standard deviation |")
    print("|---|---|---|---|---|")
    for name, values in (("test accuracy, %", scores), ("seconds of `fit`", seconds)):
        figures = (statistics.mean(values), min(values), max(values), statistics.stdev(values))
        print(f"| {name} | " + " | ".join(f"{figure:.2f}" for figure in figures) + " |")
    print(f"\n{len(scores)} runs, seeds {SEEDS.start} to {SEEDS.stop - 1}.")


if __name__ == "__main__":
    main()
