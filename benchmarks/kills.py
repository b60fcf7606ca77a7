"""200 kills at random, and whether what was resumed is bit-equal to what was never killed.

    python benchmarks/kills.py     # writes kills.json and kills.md beside itself

Each combination of model, data and settings is drawn, and trained once undisturbed; then twice
more, each killed twice with SIGKILL, by itself after a random step, over a file that it writes, or
from outside after a random time, and every time resumed in a fresh process. Compared, bit for bit,
are the model, its buffers, averages, the optimizer's state, the history, the best checkpoint and
the states of the random generators.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import random
import shlex
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from workbench.devices import hardware
from workbench.home import read_json

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from trainings import differences, left, outcome, start  # noqa: E402 - lies with the tests

WAYS = ("at a step", "over a file", "from outside")
PACE = 0.005  # seconds that a step takes longer, so that a kill from outside finds one
FILES = 15  # that a training writes at least
AGAIN = 2  # trainings of a combination, and kills of a training


def main() -> None:
    """Kill until it was often enough; write what came out, and fail where a bit differs."""
    told = _arguments()
    began, trainings = time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="kills-") as folder:
        for one in _storm(Path(folder), random.Random(told.seed)):
            trainings.append(one)
            n = sum(len(one["kills"]) for one in trainings)
            print(f"{n} kills, {one['differences'] or 'all equal'}", file=sys.stderr)
            if n >= told.kills:
                break
    report = {
        "command": shlex.join(["python", "benchmarks/kills.py", *sys.argv[1:]]),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": hardware(),
        "versions": {"torch": str(torch.__version__), "python": platform.python_version()},
        "seed": told.seed,
        "seconds": round(time.perf_counter() - began),
        "kills": dict(Counter(kill for one in trainings for kill in one["kills"])),
        "trainings": trainings,
    }
    text = json.dumps(report, indent=1) + "\n"
    (told.out / "kills.json").write_text(text, encoding="utf-8")
    (told.out / "kills.md").write_text(_markdown(report), encoding="utf-8")
    if any(one["differences"] for one in trainings):
        raise SystemExit("not all are bit-equal: see kills.json")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=HERE, help="where the two files go")
    return parser.parse_args()


def _storm(home: Path, draw: random.Random) -> Iterator[dict[str, Any]]:
    """Yield one training after another, how it was killed and what then differed."""
    for number in itertools.count():
        whole = f"{number}-whole"
        before = time.perf_counter()
        _finish(number, home, whole)
        takes = time.perf_counter() - before
        record = read_json(home / "trainings" / whole / "training.json")["settings"]
        expected = left(home / "trainings" / whole)
        for i in range(AGAIN):
            name = f"{number}-killed-{i}"
            kills = [_kill(number, home, name, record["steps"], takes, draw) for _ in range(AGAIN)]
            _finish(number, home, name)
            yield {
                "combination": number,
                "settings": _told(record),
                "kills": [kill for kill in kills if kill],
                "differences": list(differences(left(home / "trainings" / name), expected)),
            }


def _finish(number: int, home: Path, name: str) -> None:
    code = outcome(start(number, home, name, pace=PACE))
    if code != 0:
        raise SystemExit(f"training {name} ended with code {code}: see above")


def _kill(
    number: int, home: Path, name: str, steps: int, takes: float, draw: random.Random
) -> str | None:
    """Kill a training once; return how, or None where it came to its end before."""
    way = draw.choice(WAYS)
    how = {
        "at a step": {"die_at": draw.randint(1, steps)},
        "over a file": {"die_in_write": draw.randint(1, FILES)},
        "from outside": {},
    }[way]
    process = start(number, home, name, pace=PACE, draws=draw.randrange(100), **how)
    if way == "from outside":
        time.sleep(draw.uniform(0, takes))
        process.kill()
    code = outcome(process)
    if code not in (0, -signal.SIGKILL):
        raise SystemExit(f"training {name} ended with code {code}: see above")
    return way if code else None


def _told(record: dict[str, Any]) -> str:
    """Return what a training was, in a line."""
    names = ("data", "optimizer", "schedule", "precision", "average", "accumulate", "clip")
    more = ("label_smoothing", "weight_decay", "augment", "class_weights", "steps")
    return ", ".join(f"{name} {record[name]}" for name in (*names, *more) if record[name])


def _markdown(report: dict[str, Any]) -> str:
    machine, trainings, kills = report["machine"], report["trainings"], report["kills"]
    equal = sum(not one["differences"] for one in trainings)
    ways = ", ".join(f"{kills[way]} {way}" for way in WAYS if way in kills)
    n = len({one["combination"] for one in trainings})
    return (
        "# Killed and resumed, bit for bit\n\n"
        f"{sum(kills.values())} kills with SIGKILL ({ways}) of {len(trainings)} trainings in {n} "
        f"combinations of settings: **{equal} of {len(trainings)} bit-equal** to trainings that "
        f"were never killed. {report['seconds']:,} s.\n\n"
        f"`{report['command']}` · seed {report['seed']} · {machine['processor']}, "
        f"{machine['cores']} cores, {machine['instruction_set']} · "
        f"torch {report['versions']['torch']}, Python {report['versions']['python']}\n"
    )


if __name__ == "__main__":
    main()
