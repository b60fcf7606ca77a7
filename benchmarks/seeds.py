"""What another seed changes: the figures of notebooks 03 and 05 with three seeds each.

    python benchmarks/seeds.py     # writes seeds.json and seeds.md beside itself, and the table
                                   # notebooks/seeds.csv that the notebooks' last sections show

Each notebook is swept over the seeds at its defaults, one run at a time, on all cores, and beside a
table that is empty, so that no figure depends on those of the last time.
`--trial FOLDER --scale 0.02` tries the script in seconds, and writes into the folder alone.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import statistics
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import psutil

import workbench as wb
from workbench.devices import hardware
from workbench.home import write_file, write_json

HERE = Path(__file__).resolve().parent
NOTEBOOKS = HERE.parent / "notebooks"
SWEPT = ("03_image_mlp", "05_cifar10_cnn")
SEEDS = 3
COLUMNS = ["notebook", "metric", "mean", "sd", "low", "high", "runs"]


def main() -> None:
    """Sweep each notebook; write what came out."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--scale", type=float, default=1.0, help="of the notebooks")
    parser.add_argument("--trial", type=Path, help="the folder of a trial's files")
    told = parser.parse_args()
    if (told.scale == 1) != (told.trial is None):
        parser.error("--scale and --trial go together: what is committed is made at the defaults")
    cores = psutil.cpu_count(logical=False) or os.cpu_count() or 1
    os.environ.setdefault("OMP_NUM_THREADS", str(cores))  # a sweep's runs have one thread else
    with tempfile.TemporaryDirectory(prefix="seeds-") as name:
        os.environ["WORKBENCH_HOME"] = str(Path(name) / "home")
        copies = Path(name) / "notebooks"
        shutil.copytree(NOTEBOOKS, copies, ignore=shutil.ignore_patterns(".*", "pictures"))
        (copies / "seeds.csv").write_text(",".join(COLUMNS) + "\n")
        runs = [row for stem in SWEPT for row in sweep(copies / f"{stem}.ipynb", told.scale)]
    report = {
        "command": "python benchmarks/seeds.py",
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": hardware(),
        "threads": int(os.environ["OMP_NUM_THREADS"]),
        "python": platform.python_version(),
        "packages": {name: version(name) for name in ("torch", "numpy", "maas-workbench")},
        "scale": told.scale,
        "runs": runs,
    }
    write(report, told.trial or HERE, told.trial or NOTEBOOKS)


def sweep(notebook: Path, scale: float) -> list[dict[str, Any]]:
    """Return what each seed's run of a notebook took and recorded.

    Raises:
        SystemExit: a run did not end well.
    """
    made = wb.sweep(notebook, seeds=SEEDS, jobs=1, scale=scale)
    for run in made.runs:
        if run.state != "done":
            raise SystemExit(f"a run of {notebook.name} ended {run.state}: {run.record['error']}")
    return [
        {
            "notebook": notebook.stem,
            "seed": run.parameters["seed"],
            "seconds": round(run.record["seconds"], 1),
            "metrics": run.metrics,
        }
        for run in made.runs
    ]


def write(report: Mapping[str, Any], folder: Path, notebooks: Path) -> None:
    """Write the report and its page to a folder, and the table to that of the notebooks."""
    folder.mkdir(parents=True, exist_ok=True)
    table = spread(report["runs"])
    write_json(folder / "seeds.json", report)
    write_file(folder / "seeds.md", page(report, table).encode())
    write_file(notebooks / "seeds.csv", table.to_csv(index=False, float_format="%.6g").encode())


def spread(runs: list[dict[str, Any]]) -> pd.DataFrame:
    """Return mean, standard deviation between seeds, lowest and highest of each figure."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in runs:
        for metric, value in run["metrics"].items():
            found.setdefault((run["notebook"], metric), []).append(value)
    rows = [
        (*key, statistics.mean(v), statistics.stdev(v), min(v), max(v), len(v))
        for key, v in found.items()
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


def page(report: Mapping[str, Any], table: pd.DataFrame) -> str:
    """Return the report as Markdown."""
    machine, packages = report["machine"], report["packages"]
    scale = "" if report["scale"] == 1 else f" · **a trial at scale {report['scale']}**"
    lines = [
        "# What another seed changes\n",
        f"`{report['command']}` · {machine['processor']}, {machine['cores']} cores, "
        f"{machine['instruction_set']}, {report['threads']} threads · Python {report['python']}, "
        f"torch {packages['torch']} · seeds 0 to {SEEDS - 1}, one run at a time; the spread is the "
        f"standard deviation between seeds{scale}\n",
        "| notebook | figure | mean ± spread | lowest to highest | runs |",
        "|---|---|---|---|---|",
    ]
    for row in table.itertuples():
        lines.append(
            f"| {row.notebook} | {row.metric} | {row.mean:.4g} ± {row.sd:.2g} | "
            f"{row.low:.4g} to {row.high:.4g} | {row.runs} |"
        )
    lines += ["\n| notebook | seconds of each run, the kernel's start counted |", "|---|---|"]
    for name in dict.fromkeys(run["notebook"] for run in report["runs"]):
        seconds = [f"{run['seconds']:.0f}" for run in report["runs"] if run["notebook"] == name]
        lines.append(f"| {name} | {', '.join(seconds)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
