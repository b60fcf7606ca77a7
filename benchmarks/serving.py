"""Serving one image: `wb.serve` beside FastAPI, LitServe, BentoML, MLServer and the KServe SDK.

    apt-get install wrk
    python benchmarks/serving.py --setup     # once: an environment for each peer, by pip
    python benchmarks/serving.py             # writes serving.json and serving.md beside itself
    python benchmarks/serving.py --rounds 1 --seconds 1 --out /tmp       # only to see that it works

The same net (62,006 parameters, one thread) and the same 16 images, asked in turn. In each round
every server is started, checked, asked as fast as it answers (wrk), then by clients who arrive when
they arrive (`arrivals.py`): half as many as it answers at its peak, and five times as many. It is
checked again and stopped, so that one serves at a time. Comparisons are medians of rounds' ratios.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import shlex
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arrivals import at_once, offer, poisson
from contestants import PEERS, SAME, SERVERS, Case, Running, Server, environment, running
from safetensors.torch import save_file
from serving_page import ALONE, OVERLOAD, Round, page

import workbench as wb
from workbench.devices import hardware
from workbench.home import write_json

HERE = Path(__file__).resolve().parent
ENVIRONMENTS = HERE / ".peers"
IMAGES = 16  # different ones, so that an answer to another request is seen
DEADLINE = 1.0  # seconds, in the open loop
SETTLING = 1.0  # seconds of the open loop before it counts: no queue is in its state sooner


def main() -> None:
    """Set up the peers, or measure all servers and write what came out."""
    told = _arguments()
    if told.setup:
        for peer, requirement in PEERS.items():
            _set_up(told.environments / peer, (*SAME, requirement))
        return
    servers = [one for one in SERVERS if not told.only or one.name in told.only]
    _check_ready(servers, told.environments)
    load, began, rounds = os.getloadavg()[0], time.monotonic(), []
    with tempfile.TemporaryDirectory(prefix="serving-") as name:
        for found in _rounds(servers, Path(name), told):
            rounds.append(found)
            _write(rounds, told, load=load, minutes=(time.monotonic() - began) / 60)


def _write(rounds: Sequence[Round], told: argparse.Namespace, **about: float) -> None:
    """Write what came of the rounds so far."""
    report = {
        "command": shlex.join(["python", "benchmarks/serving.py", *sys.argv[1:]]),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "minutes": round(about["minutes"], 1),
        "machine": hardware(),
        "load_before": about["load"],
        "python": platform.python_version(),
        "packages": {p: version(p) for p in ("torch", "uvicorn", "uvloop", "msgspec")},
        "peers": PEERS,
        "seconds": told.seconds,
        "rounds": rounds,
    }
    write_json(told.out / "serving.json", report)
    (told.out / "serving.md").write_text(page(report), encoding="utf-8")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--setup", action="store_true", help="make the peers' environments")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=2, help="of each measurement")
    parser.add_argument("--only", action="append", help="a server's name; again for more")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS, help="of the peers")
    parser.add_argument("--out", type=Path, default=HERE, help="where the two files go")
    return parser.parse_args()


def _set_up(folder: Path, requirements: Sequence[str]) -> None:
    """Make an environment and install what is required, at the versions above."""
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin" / "python"), "-m", "pip", "install", "--quiet"]
    subprocess.run([*pip, *requirements], check=True)


def _check_ready(servers: Iterable[Server], environments: Path) -> None:
    if shutil.which("wrk") is None:
        raise SystemExit("wrk is not installed: apt-get install wrk")
    missing = [one.peer for one in servers if one.peer and not (environments / one.peer).exists()]
    if missing:
        raise SystemExit(
            f"no environment for {', '.join(missing)} in {environments}: "
            "make them with python benchmarks/serving.py --setup"
        )


def _rounds(servers: Sequence[Server], folder: Path, told: argparse.Namespace) -> Iterator[Round]:
    """Yield what was found in each round; each begins with the next server."""
    images, expected = _task(folder)
    for number in range(told.rounds):
        found: Round = {ALONE: _alone(folder, told.seconds)}
        first = number % len(servers)
        for server in (*servers[first:], *servers[:first]):
            with running(server, told.environments, folder) as one:
                for case in server.cases:
                    answer = _measure(case, one, images, expected, folder, told.seconds)
                    key = f"{server.name}, {case.body.name}"
                    found[key] = answer | {"memory_mib": one.memory()}
                    _say(f"round {number + 1} of {told.rounds}: {key}", answer)
        yield found


def _task(folder: Path) -> tuple[np.ndarray, list[list[float]]]:
    """Write the net's weights; return the images and what the net says of them."""
    data = wb.dataset("images", train=(torch.zeros(10, 32, 32, 3).byte(), torch.arange(10)))
    net = wb.build("lenet", data, seed=0).eval()
    save_file(net.state_dict(), folder / "lenet.safetensors")
    images = np.random.default_rng(0).random((IMAGES, 3, 32, 32)).round(5).astype(np.float32)
    with torch.inference_mode():
        # One by one, as a request has them.
        expected = [net(torch.from_numpy(image)[None])[0].tolist() for image in images]
    return images, expected


def _alone(folder: Path, seconds: int) -> dict[str, float]:
    """Return images a second without a server, by batch size."""
    script = HERE / "peers" / "serving_alone.py"
    told = environment(folder, 0) | {"SERVING_SECONDS": str(seconds / 2)}
    done = subprocess.run([sys.executable, script], env=told, check=True, capture_output=True)
    rates: dict[str, float] = json.loads(done.stdout)
    return rates


def _measure(
    case: Case,
    server: Running,
    images: np.ndarray,
    expected: Sequence[Sequence[float]],
    folder: Path,
    seconds: int,
) -> dict[str, Any]:
    """Return what one server did with one kind of body."""
    requests = [case.body.request(image, server.port) for image in images]
    for number, request in enumerate(requests):
        (folder / str(number)).write_bytes(request)

    def offered(moments: Sequence[float], **more: float) -> dict[str, Any]:
        return asdict(offer(server.port, requests, expected, moments, **more))

    def checked() -> dict[str, Any]:
        return offered(at_once(IMAGES), deadline=30.0)

    checks = [checked()] if case.answers else []
    if any(check["good"] < IMAGES for check in checks):
        raise SystemExit(f"{case.body.name} to {case.body.path} is not answered right: {checks}")
    _wrk(server, folder, 32, 1)  # warms up, and does not count
    found: dict[str, Any] = {
        "wrk": {str(n): _wrk(server, folder, n, seconds) for n in case.connections}
    }
    peak = max(run["per_second"] for run in found["wrk"].values())
    if case.open_loop:
        for load, factor in (("half", 0.5), ("overload", OVERLOAD)):
            moments = poisson(factor * peak, SETTLING + seconds)
            found[load] = offered(moments, deadline=DEADLINE, settling=SETTLING)
    if case.answers:
        checks.append(checked())
    return found | {"peak": peak, "checks": checks}


def _wrk(server: Running, folder: Path, connections: int, seconds: int) -> dict[str, float]:
    """Return what wrk says of so many connections, and the processor's time it all took."""
    command = [
        *("wrk", "--threads=1", f"--connections={connections}", f"--duration={seconds}s"),
        *("--timeout=10s", f"--script={HERE / 'serving.lua'}", f"http://127.0.0.1:{server.port}/"),
        *("--", str(folder), str(IMAGES)),
    ]
    before, theirs = resource.getrusage(resource.RUSAGE_CHILDREN), server.cpu_seconds()
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    after, theirs = resource.getrusage(resource.RUSAGE_CHILDREN), server.cpu_seconds() - theirs
    said: dict[str, float] = json.loads(done.stderr.splitlines()[-1])
    worked = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    per_second = (said["answers"] - said["refused"]) / said["seconds"]
    return said | {
        "per_second": per_second,
        "server_cpu_us": 1e6 * theirs / max(said["answers"], 1),
        "client_cpu": worked / said["seconds"],
    }


def _say(what: str, answer: Mapping[str, Any]) -> None:
    """Tell how it goes, on stderr."""
    peaks = ", ".join(f"{n}: {run['per_second']:,.0f}/s" for n, run in answer["wrk"].items())
    print(f"{what}: {peaks}", file=sys.stderr)


if __name__ == "__main__":
    main()
