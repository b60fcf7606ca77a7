"""What a step costs beyond a bare loop: a DataLoader loop, skorch, Lightning, Keras and `wb.fit`.

    python benchmarks/overhead.py --setup     # once: an environment for each peer, by pip
    python benchmarks/overhead.py             # writes overhead.json and overhead.md beside itself

The same net (62,006 parameters), rows (CIFAR-10, in memory, batch 4), optimizer (SGD 0.001,
momentum 0.9), loss, one thread, fp32; no validation, no checkpoints. In each round every contestant
trains once, in a process and a terminal of its own, so that bars are drawn as a user gets them.
"""

from __future__ import annotations

import argparse
import errno
import json
import os
import pty
import shlex
import statistics
import subprocess
import sys
import tempfile
import termios
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import workbench as wb
from workbench.datasets.store import stored_file
from workbench.devices import hardware

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / ".peers"
SAME = ("torch==2.13.0", "numpy==2.4.6")  # in every environment
PEERS = {"skorch": "skorch==1.4.0", "lightning": "lightning==2.6.6", "keras": "keras==3.15.1"}
ROWS = 16_000  # an epoch of 4,000 steps of 4
WARMUP, SHORT = 300, 1_000  # steps


@dataclass(frozen=True)
class Contestant:
    """One row of the table.

    Args:
        name: of the tool.
        settings: a word that the script knows.
        script: in `peers/`.
        what: the settings, for a reader.
        peer: whose environment it runs in; ours where it is empty.
    """

    name: str
    settings: str
    script: str
    what: str
    peer: str = ""

    @property
    def python(self) -> Path:
        """The interpreter of its environment."""
        if not self.peer:
            return Path(sys.executable)
        return ENVIRONMENTS / self.peer / "bin" / "python"


BARE = Contestant("bare loop", "shuffled", "bare.py", "rows gathered by a shuffled index")
CONTESTANTS = (
    BARE,
    Contestant("bare loop", "again", "bare.py", "the same again: what noise looks like"),
    Contestant("bare loop", "slices", "bare.py", "rows in their order, not shuffled"),
    Contestant("bare loop", "fused", "bare.py", "shuffled, torch's fused SGD"),
    Contestant("DataLoader loop", "default", "loader.py", "shuffle=True, a running loss"),
    Contestant("DataLoader loop", "lean", "loader.py", "__getitems__, no loss read"),
    Contestant("skorch", "default", "skorch_fit.py", "printed table", "skorch"),
    Contestant(
        "skorch",
        "lean",
        "skorch_fit.py",
        "callbacks='disable', verbose=0, __getitems__",
        "skorch",
    ),
    Contestant(
        "Lightning", "default", "lightning_fit.py", "bar, CSV logger, self.log", "lightning"
    ),
    Contestant(
        "Lightning", "lean", "lightning_fit.py", "barebones=True, __getitems__", "lightning"
    ),
    Contestant("Keras", "layers", "keras_fit.py", "its own layers, bar, accuracy", "keras"),
    Contestant("Keras", "layers-lean", "keras_fit.py", "its own layers, verbose=0", "keras"),
    Contestant("Keras", "module", "keras_fit.py", "TorchModuleWrapper, bar, accuracy", "keras"),
    Contestant("Keras", "module-lean", "keras_fit.py", "TorchModuleWrapper, verbose=0", "keras"),
    Contestant("wb.fit", "images", "workbench_fit.py", "uint8 images, bar, accuracy"),
    Contestant("wb.fit", "images-lean", "workbench_fit.py", "uint8 images, accuracy, headless"),
    Contestant("wb.fit", "floats", "workbench_fit.py", "float tensors, bar, accuracy"),
    Contestant("wb.fit", "floats-lean", "workbench_fit.py", "float tensors, accuracy, headless"),
)


def main() -> None:
    """Set up the peers, or measure all contestants and write what came out."""
    told = _arguments()
    if told.setup:
        for peer, requirement in PEERS.items():
            _set_up(ENVIRONMENTS / peer, (*SAME, requirement))
        return
    chosen = [one for one in CONTESTANTS if one is BARE or not told.only or one.name in told.only]
    _check_ready(chosen)
    load_before = os.getloadavg()[0]
    with tempfile.TemporaryDirectory(prefix="overhead-") as folder:
        data = _write_task(Path(folder) / "task.pt")
        answers = _rounds(chosen, Path(folder), told.rounds, told.steps)
    report = {
        "command": shlex.join(["python", "benchmarks/overhead.py", *sys.argv[1:]]),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": hardware() | {"threads": 1},
        "load_before": load_before,
        "data": data,
        "rounds": told.rounds,
        "steps": told.steps,
        "short": SHORT,
        "warmup": WARMUP,
        "contestants": _figures(answers),
    }
    text = json.dumps(report, indent=2) + "\n"
    (told.out / "overhead.json").write_text(text, encoding="utf-8")
    (told.out / "overhead.md").write_text(_markdown(report), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--setup", action="store_true", help="make the peers' environments")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--steps", type=int, default=3_000, help="that are timed in each round")
    parser.add_argument("--only", action="append", help="a tool's name; again for more")
    parser.add_argument("--out", type=Path, default=HERE, help="where the two files go")
    return parser.parse_args()


def _set_up(folder: Path, requirements: Sequence[str]) -> None:
    """Make an environment and install what is required, at the versions above."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *requirements], check=True)


def _check_ready(chosen: Iterable[Contestant]) -> None:
    missing = sorted({one.peer for one in chosen if not one.python.exists()})
    if missing:
        raise SystemExit(
            f"no environment for {', '.join(missing)} in {ENVIRONMENTS}: "
            "make them with python benchmarks/overhead.py --setup"
        )


def _write_task(file: Path) -> str:
    """Write the rows and the weights to start from; return what the rows are."""
    images, targets, told = _rows()
    data = wb.dataset("cifar10-head", train=(images, targets))
    weights = wb.build("lenet", data, seed=0).state_dict()
    torch.save({"images": images, "targets": targets, "weights": dict(weights)}, file)
    return told


def _rows() -> tuple[Tensor, Tensor, str]:
    """Return CIFAR-10 where it is cached, else rows of its shape that a net can learn."""
    if stored_file("cifar10").exists():
        train = wb.load("cifar10", train_limit=ROWS).train
        return train.inputs.clone(), train.targets.clone(), f"CIFAR-10, {ROWS:,} training rows"
    source = torch.Generator().manual_seed(0)
    targets = torch.arange(ROWS) % 10
    means = torch.randint(64, 192, (10, 1, 1, 3), generator=source)
    noise = torch.randint(-64, 64, (ROWS, 32, 32, 3), generator=source)
    return (means[targets] + noise).byte(), targets, f"{ROWS:,} seeded rows shaped as CIFAR-10's"


def _rounds(
    chosen: Sequence[Contestant], folder: Path, rounds: int, steps: int
) -> dict[Contestant, list[dict[str, Any]]]:
    """Return each contestant's answers by round; each round begins with the next contestant."""
    answers: dict[Contestant, list[dict[str, Any]]] = defaultdict(list)
    for number in range(rounds):
        first = number % len(chosen)
        for one in (*chosen[first:], *chosen[:first]):
            answer = _ask(one, folder, steps)
            answers[one].append(answer)
            print(
                f"round {number + 1} of {rounds}: {one.name}, {one.settings}: "
                f"{1e6 * answer['seconds_per_step'][0]:,.1f} µs a step",
                file=sys.stderr,
            )
    return {one: answers[one] for one in chosen}


def _ask(one: Contestant, folder: Path, steps: int) -> dict[str, Any]:
    """Let one contestant train once; return its answer.

    Raises:
        SystemExit: it failed, or did not learn.
    """
    result = folder / "answer.json"
    options = {
        "task": folder / "task.pt",
        "settings": one.settings,
        "steps": steps,
        "short": SHORT,
        "warmup": WARMUP,
        "result": result,
    }
    command = [str(one.python), str(HERE / "peers" / one.script)]
    command += [f"--{name}={value}" for name, value in options.items()]
    result.unlink(missing_ok=True)
    code, screen = _in_terminal(command, folder)
    if code != 0:
        raise SystemExit(f"{one.name}, {one.settings}, failed ({code}); its last words:\n{screen}")
    answer: dict[str, Any] = json.loads(result.read_text(encoding="utf-8"))
    if not answer["loss_after"] < answer["loss_before"]:
        raise SystemExit(
            f"{one.name}, {one.settings}, did not learn: its loss went from "
            f"{answer['loss_before']:.4f} to {answer['loss_after']:.4f}"
        )
    return answer


def _in_terminal(command: Sequence[str], folder: Path) -> tuple[int, str]:
    """Run a command with a terminal of 80 columns for its output; return its code and the end."""
    environment = os.environ | {
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
        "WORKBENCH_HOME": str(folder / "home"),
        "KERAS_HOME": str(folder / "keras"),
        "TERM": "xterm",
    }
    ours, theirs = pty.openpty()
    try:
        termios.tcsetwinsize(theirs, (24, 80))
        with subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=theirs,
            stderr=theirs,
            cwd=folder,
            env=environment,
        ) as process:
            os.close(theirs)
            screen = _read_to_end(ours)
        return process.returncode, screen
    finally:
        os.close(ours)


def _read_to_end(terminal: int) -> str:
    """Return the last of what was written, when nobody is left to write."""
    tail = b""
    while True:
        try:
            said = os.read(terminal, 65_536)
        except OSError as error:
            if error.errno != errno.EIO:  # how Linux says that the other end is closed
                raise
            said = b""
        if not said:
            return tail.decode(errors="replace")
        tail = (tail + said)[-4_000:]


@dataclass(frozen=True)
class _Spread:
    """A figure's median, lowest and highest over the rounds."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> _Spread:
        return cls(statistics.median(values), min(values), max(values))


def _figures(answers: dict[Contestant, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Return a row for each contestant; differences and ratios are taken within a round."""
    base, cpu_base = _seconds(answers[BARE]), _seconds(answers[BARE], "cpu_")
    rows = []
    for one, given in answers.items():
        seconds, busy = _seconds(given), _seconds(given, "cpu_")
        pairs = list(zip(seconds, base, strict=True))
        cpu = [1e6 * (s - b) for s, b in zip(busy, cpu_base, strict=True)]
        rows.append(
            {
                "name": one.name,
                "settings": one.settings,
                "what": one.what,
                "version": given[-1]["version"],
                "python": given[-1]["python"],
                "torch": given[-1]["torch"],
                "seconds_per_step": seconds,
                "cpu_seconds_per_step": busy,
                "step_us": asdict(_Spread.of([1e6 * s for s in seconds])),
                "overhead_us": asdict(_Spread.of([1e6 * (s - b) for s, b in pairs])),
                "cpu_overhead_us": asdict(_Spread.of(cpu)),
                "ratio": asdict(_Spread.of([s / b for s, b in pairs])),
                "loss_after": statistics.median(answer["loss_after"] for answer in given),
            }
        )
    return rows


def _seconds(given: Iterable[dict[str, Any]], kind: str = "") -> list[float]:
    """Return a contestant's seconds a step by round: the clock's, or the processor's (`cpu_`)."""
    return [answer[f"{kind}seconds_per_step"][0] for answer in given]


def _markdown(report: dict[str, Any]) -> str:
    machine, rows = report["machine"], report["contestants"]
    versions = sorted({f"torch {row['torch']}, Python {row['python']}" for row in rows})
    lines = [
        "# What a step costs beyond a bare loop",
        "",
        f"`{report['command']}` · {machine['processor']}, {machine['cores']} cores, 1 thread used, "
        f"{machine['instruction_set']} · {'; '.join(versions)} · load before: "
        f"{report['load_before']:.2f}",
        "",
        "| | settings | a step, µs | overhead, µs | lowest to highest | × bare | "
        "lowest to highest | processor's overhead, µs | loss |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
        *(_line(row) for row in rows),
        "",
        f"{report['data']}, batch 4, the tutorial's net of 62,006 parameters, SGD 0.001 with "
        "momentum 0.9, cross-entropy, fp32, eager; validation and checkpoints off. "
        f"{report['rounds']} rounds; in each, all contestants take turns, every one in a process "
        f"and an 80-column terminal of its own, after {report['warmup']} steps of warm-up. "
        f"A step is (t({report['short'] + report['steps']:,} steps) − t({report['short']:,} steps))"
        f" / {report['steps']:,}, so what is paid once drops out. Overhead and ratio are taken "
        "against the bare loop of the same round; the table has their medians over the rounds. "
        "The processor's overhead counts its time alone, of all threads: where it differs from the "
        "clock's, somebody waited. `loss` is that of the first 2,000 rows at the end.",
        "",
    ]
    return "\n".join(lines)


def _line(row: dict[str, Any]) -> str:
    over, ratio = row["overhead_us"], row["ratio"]
    tool = row["name"] if row["name"] == BARE.name else f"{row['name']} {row['version']}"
    return (
        f"| {tool} | {row['what']} | {row['step_us']['median']:,.1f} | {over['median']:+,.1f} "
        f"| {over['low']:+,.1f} to {over['high']:+,.1f} | {ratio['median']:.2f} "
        f"| {ratio['low']:.2f} to {ratio['high']:.2f} "
        f"| {row['cpu_overhead_us']['median']:+,.1f} | {row['loss_after']:.2f} |"
    )


if __name__ == "__main__":
    main()
