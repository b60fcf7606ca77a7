"""A service that stands on its own: its processes, a swap under load, what watching it costs.

    apt-get install wrk
    python benchmarks/operate.py        # writes operate.json and operate.md beside itself
    python benchmarks/operate.py --rounds 1 --seconds 1 --out /tmp       # only to see that it works

The classic net (62,006 parameters) on images of 32 × 32 bytes, one thread for each model. In each
round every contestant is started, asked as fast as it answers by wrk at 32 connections, and
stopped, one at a time; comparisons are medians of rounds' ratios. Then a version is promoted while
clients arrive when they arrive (`arrivals.py`), at half of what the service answers at its peak.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import platform
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil
import torch
from arrivals import at_once, offer, poisson
from contestants import TOKEN, Body, Running, environment

import workbench as wb
from workbench.devices import hardware
from workbench.home import read_json, write_json

HERE = Path(__file__).resolve().parent
BIN = Path(sys.executable).parent
IMAGES = 16  # different ones, so that an answer to another request is seen
CONNECTIONS = 32
DEADLINE = 1.0  # seconds, in the open loop
WINDOW = 3.0  # seconds before a promotion, and after its version answers
PATIENCE = 60.0  # seconds until a promoted version answers

# Each ratio is taken within a round: first over second, of requests a second.
COMPARED = (
    ("workers 2", "workers 1", "two processes over one"),
    ("watched", "unwatched", "watched over unwatched"),
    ("unwatched", "by torch", "the probed engine over torch"),
)
CONTESTANTS: Mapping[str, Sequence[str]] = {
    "workers 1": ("workbench", "serve", "lenet@1"),
    "workers 2": ("workbench", "serve", "lenet@1", "--workers=2"),
    "watched": ("python", "-m", "operate_service", "lenet@1"),
    "unwatched": ("python", "-m", "operate_service", "lenet@1", "--unwatched"),
    "by torch": ("python", "-m", "operate_service", "lenet@1", "--unwatched", "--torch"),
}
FOLLOWING = ("workbench", "serve", "lenet@champion", "--workers=2", "--reload")

Found = dict[str, Any]


def main() -> None:
    """Measure and write what came out."""
    told = _arguments()
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    load, began, rounds = os.getloadavg()[0], time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="operate-") as name:
        task = Task(Path(name))
        for number in range(told.rounds):
            rounds.append(_round(task, number, told.seconds))
            report = {
                "command": shlex.join(["python", "benchmarks/operate.py", *sys.argv[1:]]),
                "finished": datetime.now(UTC).isoformat(timespec="seconds"),
                "minutes": round((time.monotonic() - began) / 60, 1),
                "machine": hardware(),
                "load_before": load,
                "python": platform.python_version(),
                "packages": {p: version(p) for p in ("torch", "onnxruntime", "uvicorn")},
                "seconds": told.seconds,
                "rounds": rounds,
            }
            write_json(told.out / "operate.json", report)
            (told.out / "operate.md").write_text(page(report), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=4, help="of each run of wrk")
    parser.add_argument("--out", type=Path, default=HERE, help="where the two files go")
    return parser.parse_args()


class Task:
    """A published net, images to ask it, and what it says of them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        os.environ["WORKBENCH_HOME"] = str(folder / "home")
        os.environ["WORKBENCH_HEADLESS"] = "1"
        draws = torch.Generator().manual_seed(0)
        pixels = torch.randint(0, 256, (512, 32, 32, 3), dtype=torch.uint8, generator=draws)
        data = wb.dataset("images", train=(pixels, torch.arange(512) % 10))
        self.model = wb.build("lenet", data, seed=0)
        wb.fit(self.model, data, steps=20, seed=0)  # so that there is a reference to watch by
        self.images = pixels[:IMAGES].numpy()
        self.expected = [wb.predict(self.model, image).output[0].tolist() for image in self.images]
        wb.promote(self.publish(), "champion")

    def publish(self) -> str:
        """Return another version of the same net, so that its answers can be checked alike."""
        return wb.publish(self.model, "lenet").ref

    def requests(self, port: int, token: str) -> list[bytes]:
        """Return a whole request for each image."""
        body = Body("binary", "/v2/models/lenet/infer", _binary)
        asked = [body.request(image, port) for image in self.images]
        return [request.replace(TOKEN.encode(), token.encode(), 1) for request in asked]


def _binary(image: np.ndarray) -> tuple[bytes, dict[str, str]]:
    """Return a request with the image as raw bytes; the answer is asked for in JSON."""
    size = {"binary_data_size": image.nbytes}
    told = {"name": "input", "shape": [1, *image.shape], "datatype": "UINT8", "parameters": size}
    head = json.dumps({"inputs": [told]}, separators=(",", ":")).encode()
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    return head + image.tobytes(), headers


class Service:
    """A service that answers, in processes of its own.

    Args:
        port: on this machine.
        process: that was started.
        task: what it is asked.
    """

    def __init__(self, port: int, process: subprocess.Popen[str], task: Task) -> None:
        self.port, self.task = port, task
        self.running = Running(port, psutil.Process(process.pid))
        kept = task.folder / "home" / "services" / "lenet.json"
        token = read_json(kept)["token"] if kept.exists() else TOKEN
        self.requests = task.requests(port, token)
        for number, request in enumerate(self.requests):
            (task.folder / str(number)).write_bytes(request)

    def offered(self, moments: Sequence[float], **more: float) -> Found:
        """Return what became of clients who arrive at these moments."""
        return asdict(offer(self.port, self.requests, self.task.expected, moments, **more))

    def check(self) -> None:
        """Raise where an answer is not what the model says."""
        found = self.offered(at_once(IMAGES), deadline=30.0)
        if found["good"] < IMAGES:
            raise SystemExit(f"the answers are not right: {found}")

    def hurried(self, seconds: float) -> Found:
        """Return what wrk says of it, the processor's time for an answer, and the memory."""
        command = [
            *("wrk", "--threads=1", f"--connections={CONNECTIONS}", f"--duration={seconds}s"),
            *(f"--script={HERE / 'serving.lua'}", f"http://127.0.0.1:{self.port}/"),
            *("--", str(self.task.folder), str(IMAGES)),
        ]
        before = self.running.cpu_seconds()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        said: Found = json.loads(done.stderr.splitlines()[-1])
        worked = self.running.cpu_seconds() - before
        return said | {
            "per_second": (said["answers"] - said["refused"]) / said["seconds"],
            "cpu_us": 1e6 * worked / max(said["answers"], 1),
            "memory_mib": self.running.memory(),
        }

    @property
    def model(self) -> str:
        """What answers, as its listing has it."""
        found: str = read_json(self.task.folder / "home" / "services" / "lenet.json")["model"]
        return found


@contextlib.contextmanager
def serving(command: Sequence[str], task: Task) -> Iterator[Service]:
    """Start a service, wait until it says that it answers, and stop it in the end."""
    with (task.folder / "service.log").open("w") as log:
        process = subprocess.Popen(
            [str(BIN / command[0]), *command[1:]],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment(task.folder, 0),
            start_new_session=True,
        )
    assert process.stdout is not None
    try:
        url = process.stdout.readline().strip()  # printed once it answers
        if not url:
            said = (task.folder / "service.log").read_text(errors="replace")[-4000:]
            raise SystemExit(f"{shlex.join(command)} did not answer; its last words:\n{said}")
        yield Service(urlsplit(url).port or 0, process, task)
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(60)
        process.stdout.close()


def _round(task: Task, number: int, seconds: int) -> Found:
    """Return what was found in one round; each begins with the next contestant."""
    names = list(CONTESTANTS)
    first = number % len(names)
    found: Found = {}
    for name in (*names[first:], *names[:first]):
        with serving(CONTESTANTS[name], task) as service:
            service.check()
            service.hurried(1)  # warms up, and does not count
            found[name] = service.hurried(seconds)
            service.check()
        print(f"{name}: {found[name]['per_second']:,.0f}/s", file=sys.stderr)
    found["swaps"] = _swaps(task, seconds)
    return found


def _swaps(task: Task, seconds: int) -> Found:
    """Return what clients at half the peak saw of nothing, of a new version, of a known one."""
    wb.promote("lenet@1", "champion")
    with serving(FOLLOWING, task) as service:
        service.hurried(1)
        rate = service.hurried(seconds)["per_second"] / 2
        known, new = "lenet@1", task.publish()
        quiet = service.offered(poisson(rate, 3 * WINDOW), deadline=DEADLINE, settling=WINDOW)
        return {
            "rate": rate,
            "nothing": quiet,
            "a version never served here": _swap(service, rate, new),
            "a version served before": _swap(service, rate, known),
        }


def _swap(service: Service, rate: float, ref: str) -> Found:
    """Return what clients saw from a promotion until a while after its version answers.

    Arrivals are made for as long as a swap may take, and those after it are left out.
    """
    done: Found = {}

    def promote() -> None:
        time.sleep(WINDOW)
        began = time.monotonic()
        wb.promote(ref, "champion")
        while service.model != ref and time.monotonic() - began < PATIENCE:
            time.sleep(0.05)
        done["seconds_to_swap"] = time.monotonic() - began

    thread = threading.Thread(target=promote)
    thread.start()
    parts: list[Found] = []
    while thread.is_alive() or len(parts) < 2:  # one more once it is over
        settling = WINDOW if not parts else 0.0
        moments = poisson(rate, settling + WINDOW, seed=len(parts))
        parts.append(service.offered(moments, deadline=DEADLINE, settling=settling))
    thread.join()
    service.check()
    return done | {"parts": parts}


def page(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    machine, rounds = report["machine"], report["rounds"]
    packages = ", ".join(f"{name} {number}" for name, number in report["packages"].items())
    return "\n".join(
        [
            "# A service that stands on its own",
            "",
            f"`{report['command']}` · {machine['processor']}, {machine['cores']} cores, "
            f"{machine['instruction_set']} · Python {report['python']}, {packages} · "
            f"{len(rounds)} rounds in turns, {report['seconds']} s a measurement, "
            f"{report['minutes']} minutes · load before: {report['load_before']:.2f}",
            "",
            "| compared, of requests a second | median of the rounds (lowest to highest) |",
            "|---|---|",
            *(_ratio(rounds, *names) for names in COMPARED),
            "",
            f"## As fast as it answers, at {CONNECTIONS} connections",
            "",
            "| | requests/s | p50, ms | p99, ms | processor, µs | memory, MiB | errors |",
            "|---|---:|---:|---:|---:|---:|---:|",
            *(_peak(rounds, name) for name in CONTESTANTS),
            "",
            "`watched` and `unwatched` are one process each, alike but for the ledger, the drift "
            "and the access log; both answer by the engine that the probe chose, `by torch` is "
            "unwatched too. wrk runs beside them on the same cores.",
            "",
            "## A swap under load",
            "",
            "| two processes at half their peak, and promoted is | requests | dropped | wrong "
            "| p50, ms | p99, ms | seconds until it answers |",
            "|---|---:|---:|---:|---:|---:|---:|",
            *(_swapped(rounds, name) for name in list(rounds[0]["swaps"])[1:]),
            "",
            "Dropped is what was refused, lost, not answered within a second, or could not be "
            "sent, from the promotion on, of all rounds; p99 is the highest of any part of "
            f"{WINDOW:g} s, the median of the rounds. Of a version never served here the engine is "
            "probed meanwhile, by a process that gives way to the others.",
            "",
        ]
    )


def _ratio(rounds: Sequence[Found], one: str, other: str, title: str) -> str:
    found = [r[one]["per_second"] / r[other]["per_second"] for r in rounds]
    return f"| {title} | {median(found):.3f} ({min(found):.3f} to {max(found):.3f}) |"


def _peak(rounds: Sequence[Found], name: str) -> str:
    figures = ("per_second", "p50_ms", "p99_ms", "cpu_us", "memory_mib")
    middle = [median(r[name][figure] for r in rounds) for figure in figures]
    cells = [f"{value:,.0f}" if value >= 100 else f"{value:.2f}" for value in middle]
    errors = sum(r[name]["refused"] + r[name]["lost"] for r in rounds)
    return f"| {name} | {' | '.join(cells)} | {errors:,.0f} |"


def _swapped(rounds: Sequence[Found], name: str) -> str:
    found = [r["swaps"][name] for r in rounds]
    each = [one.get("parts", [one]) for one in found]
    parts = [part for run in each for part in run]
    lost = sum(part[how] for part in parts for how in ("late", "refused", "lost", "unsent"))
    p50, p99 = (median(_most(run, figure) for run in each) for figure in ("p50_ms", "p99_ms"))
    took = [one["seconds_to_swap"] for one in found if "seconds_to_swap" in one]
    cells = [
        f"{sum(part['asked'] for part in parts):,.0f}",
        *(f"{lost:,.0f}", f"{sum(part['wrong'] for part in parts):,.0f}"),
        *(f"{p50:.2f}", f"{p99:.2f}", f"{median(took):.1f}" if took else ""),
    ]
    return f"| {name} | {' | '.join(cells)} |"


def _most(parts: Sequence[Found], figure: str) -> float:
    """Return the highest of the parts; infinite where nothing was answered right and in time."""
    return max(math.inf if part[figure] is None else part[figure] for part in parts)


if __name__ == "__main__":
    main()
