"""Who serves in `serving.py`: how each server is started, asked and stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil

__all__ = [
    "PEERS",
    "SAME",
    "SERVERS",
    "Body",
    "Case",
    "Running",
    "Server",
    "environment",
    "running",
]

HERE = Path(__file__).resolve().parent
TOKEN = "f" * 64  # as long as the workbench's own
PATIENCE = 90.0  # seconds until a server answers
SAME = ("torch==2.13.0", "numpy==2.4.6", "safetensors==0.8.0", "uvicorn[standard]==0.54.0")
PEERS = {
    "fastapi": "fastapi==0.165.0",
    "litserve": "litserve==0.2.19",
    "bentoml": "bentoml==1.4.40",
    "mlserver": "mlserver==1.7.1",
    "kserve": "kserve==0.21.0",
}


@dataclass(frozen=True)
class Body:
    """How one image is sent.

    Args:
        name: for the table.
        path: of the request.
        write: an image, shaped (3, 32, 32), to the body and its own headers.
    """

    name: str
    path: str
    write: Callable[[np.ndarray], tuple[bytes, dict[str, str]]]

    def request(self, image: np.ndarray, port: int) -> bytes:
        """Return the whole request as it goes over the wire."""
        body, more = self.write(image)
        headers = {
            "Host": f"127.0.0.1:{port}",
            "Authorization": f"Bearer {TOKEN}",
            "Content-Type": "application/json",
            "Content-Length": str(len(body)),
        } | more
        lines = [f"POST {self.path} HTTP/1.1", *(f"{key}: {headers[key]}" for key in headers)]
        return "\r\n".join([*lines, "", ""]).encode() + body


@dataclass(frozen=True)
class Case:
    """One kind of body that a server is asked with, and how hard.

    Args:
        body: the kind.
        connections: a run of wrk for each of these.
        open_loop: whether half load and overload are measured too.
        answers: whether there is an answer to check.
    """

    body: Body
    connections: tuple[int, ...] = (1, 32, 256)
    open_loop: bool = True
    answers: bool = True


@dataclass(frozen=True)
class Server:
    """One row of the table.

    Args:
        name: of the tool.
        command: its first word a program of its environment; `{port}` stands for the port.
        cases: what it is asked.
        peer: whose environment it runs in; ours where it is empty.
    """

    name: str
    command: tuple[str, ...]
    cases: tuple[Case, ...]
    peer: str = ""


def _written(**parts: object) -> bytes:
    return json.dumps(parts, separators=(",", ":")).encode()


def _tensor(image: np.ndarray, **more: object) -> dict[str, object]:
    return {"name": "input", "shape": [1, *image.shape], "datatype": "FP32", **more}


def _protocol(image: np.ndarray) -> tuple[bytes, dict[str, str]]:
    """Return a request of the Open Inference Protocol."""
    return _written(inputs=[_tensor(image, data=_numbers(image))]), {}


def _binary(image: np.ndarray) -> tuple[bytes, dict[str, str]]:
    """Return one with the image as raw bytes; the answer is asked for in JSON."""
    told = _tensor(image, parameters={"binary_data_size": image.nbytes})
    head = _written(inputs=[told])
    headers = {
        "Content-Type": "application/octet-stream",
        "Inference-Header-Content-Length": str(len(head)),
    }
    return head + image.tobytes(), headers


def _numbers(image: np.ndarray) -> list[float]:
    """Return the pixels, to the five digits that they have."""
    return [round(value, 5) for value in image.ravel().tolist()]


INFER = "/v2/models/lenet/infer"
JSON = Body("JSON", INFER, _protocol)
BINARY = Body("binary", INFER, _binary)
PIXELS = Body("JSON", "/predict", lambda image: (_written(pixels=_numbers(image)), {}))
IMAGES = Body("JSON", "/predict", lambda image: (_written(images=[_numbers(image)]), {}))
EMPTY = Body("nothing answered", "/empty", _protocol)

FASTAPI = ("uvicorn", "serving_fastapi:app", "--port={port}", "--no-access-log")

SERVERS = (
    Server("workbench", ("python", "-m", "serving_workbench"), (Case(JSON), Case(BINARY))),
    Server("FastAPI", FASTAPI, (Case(PIXELS),), "fastapi"),
    Server(
        "FastAPI by 2 processes",
        (*FASTAPI, "--workers=2"),
        (Case(PIXELS, (1, 32), open_loop=False),),
        "fastapi",
    ),
    Server("LitServe", ("python", "-m", "serving_litserve"), (Case(PIXELS),), "litserve"),
    Server(
        "BentoML",
        ("bentoml", "serve", "serving_bentoml:Lenet", "--host=127.0.0.1", "--port={port}"),
        (Case(IMAGES),),
        "bentoml",
    ),
    Server("MLServer", ("python", "-m", "serving_mlserver"), (Case(JSON),), "mlserver"),
    Server(
        "KServe",
        ("python", "-m", "serving_kserve"),
        (Case(JSON), Case(BINARY, (32,), open_loop=False)),
        "kserve",
    ),
    Server(
        "raw handler",
        ("python", "-m", "serving_raw"),
        (
            Case(JSON, (1, 32), open_loop=False),
            Case(BINARY, (1, 32), open_loop=False),
            Case(EMPTY, (1, 32), open_loop=False, answers=False),
        ),
    ),
)


def environment(folder: Path, port: int) -> dict[str, str]:
    """Return the environment of a server: the weights, the port, one thread for the model."""
    return os.environ | {
        "SERVING_WEIGHTS": str(folder / "lenet.safetensors"),
        "SERVING_PORT": str(port),
        "SERVING_TOKEN": TOKEN,
        "WORKBENCH_HOME": str(folder / "home"),
        "BENTOML_HOME": str(folder / "bentoml"),
        "BENTOML_DO_NOT_TRACK": "true",
        "PYTHONPATH": str(HERE / "peers"),
        "OMP_NUM_THREADS": "1",
        "MKL_NUM_THREADS": "1",
    }


@dataclass(frozen=True)
class Running:
    """A server that answers.

    Args:
        port: on this machine.
        process: the one that was started; it may have started others.
    """

    port: int
    process: psutil.Process

    def memory(self) -> float:
        """Return the MiB of all its processes; pages that they share count once."""
        return self._sum(lambda one: one.memory_full_info().pss) / 2**20

    def cpu_seconds(self) -> float:
        """Return the processor's time that its processes have taken so far."""
        return self._sum(lambda one: sum(one.cpu_times()[:2]))

    def _sum(self, figure: Callable[[psutil.Process], float]) -> float:
        total = 0.0
        for one in (self.process, *self.process.children(recursive=True)):
            with contextlib.suppress(psutil.NoSuchProcess):
                total += figure(one)
        return total


@contextlib.contextmanager
def running(server: Server, environments: Path, folder: Path) -> Iterator[Running]:
    """Start a server, wait until it answers, and stop it in the end with all that it started.

    Args:
        server: which.
        environments: where those of the peers are.
        folder: for its log and whatever it writes.

    Raises:
        SystemExit: it did not answer in time.
    """
    port, log = _free_port(), folder / "server.log"
    programs = environments / server.peer / "bin" if server.peer else Path(sys.executable).parent
    program, *rest = server.command
    with log.open("wb") as output:
        process = subprocess.Popen(
            [str(programs / program), *(part.format(port=port) for part in rest)],
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            cwd=folder,
            env=environment(folder, port),
            start_new_session=True,
        )
    family = psutil.Process(process.pid)
    try:
        _await_answer(server, port, process, log)
        yield Running(port, family)
    finally:
        children = family.children(recursive=True) if process.poll() is None else []
        _stop(process, children)


def _free_port() -> int:
    """Return a port that is free with the next two, below those that clients are given."""
    while True:
        port = random.randrange(20_000, 30_000)
        try:
            for number in range(port, port + 3):
                socket.create_server(("127.0.0.1", number)).close()
        except OSError:
            continue
        return port


def _await_answer(server: Server, port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    """Ask until the first answer with status 200."""
    body = server.cases[0].body
    content, more = body.write(np.zeros((3, 32, 32), np.float32))
    headers = {"Authorization": f"Bearer {TOKEN}", "Content-Type": "application/json"} | more
    until = time.monotonic() + PATIENCE
    while time.monotonic() < until and process.poll() is None:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=PATIENCE)
        with (
            contextlib.suppress(OSError, http.client.HTTPException),
            contextlib.closing(connection),
        ):
            connection.request("POST", body.path, content, headers)
            if connection.getresponse().status == 200:
                return
        time.sleep(0.1)
    said = log.read_text(errors="replace")[-4000:]
    raise SystemExit(f"{server.name} did not answer; its last words:\n{said}")


def _stop(process: subprocess.Popen[bytes], children: Sequence[psutil.Process]) -> None:
    """Ask a server to stop, and end what is left of it after a while."""
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    _, alive = psutil.wait_procs([psutil.Process(process.pid)] if process.poll() is None else [], 3)
    for one in (*alive, *children):
        with contextlib.suppress(psutil.NoSuchProcess):
            one.kill()
    process.wait()
