"""`workbench serve` as a process of its own, its workers, and clients that keep asking."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit

import psutil
import torch
from torch import Tensor, nn
from waiting import once

import workbench as wb
from workbench.serving import Listing, find_service

__all__ = [
    "ANGRY",
    "COMMAND",
    "SLOW",
    "Load",
    "Moody",
    "Serve",
    "ask",
    "publish",
    "serving",
]

COMMAND = [sys.executable, "-m", "workbench"]
SLOW = 1_000.0  # a row that begins so takes Moody a second
ANGRY = 2_000.0  # one that begins so is refused
_PATIENCE = 60  # seconds for what takes one


class Moody(nn.Module):
    """A model that takes its time, or raises, as its rows say; its version is its bias."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, rows: Tensor) -> Tensor:
        """Return each row's sum, and the bias."""
        if (rows[:, 0] == SLOW).any():
            time.sleep(1)
        if (rows[:, 0] == ANGRY).any():
            raise ArithmeticError("secret detail")
        return rows.sum(dim=1, keepdim=True) + self.bias


def publish(name: str, number: int) -> None:
    """Publish a Moody as the version of that number."""
    model = Moody()
    nn.init.constant_(model.bias, number)
    assert wb.publish(model, name, example=torch.zeros(1, 2)).version == number


@dataclass(frozen=True)
class Serve:
    """A `workbench serve`.

    Args:
        process: of the supervisor.
        log: the file that it and its workers write their stderr into.
    """

    process: subprocess.Popen[str]
    log: Path

    def service(self) -> Listing:
        """Return the service, once it is ready."""
        assert self.process.stdout is not None
        url, told = self.process.stdout.readline().strip(), self.process.stdout.readline()
        assert told, self.ended()
        found = find_service(told.rstrip().rpartition(" ")[2])
        assert told == f"{found.model}; its token: workbench token {found.name}\n"
        assert (found.url, found.pid, found.stands_alone) == (url, self.process.pid, True)
        assert found.client().is_ready()
        return found

    def workers(self) -> list[psutil.Process]:
        """Return its workers, the oldest first."""
        try:
            children = psutil.Process(self.process.pid).children()
            return [child for child in children if "spawn_main" in " ".join(child.cmdline())]
        except psutil.NoSuchProcess:
            return []

    def everything(self) -> list[psutil.Process]:
        """Return all its processes."""
        whole = psutil.Process(self.process.pid)
        return [whole, *whole.children(recursive=True)]

    def pids(self) -> set[int]:
        """Return the processes of its workers."""
        return {worker.pid for worker in self.workers()}

    def said(self) -> str:
        """Return what was said on stderr by now, besides the access log."""
        lines = self.log.read_text().splitlines(keepends=True)
        return "".join(line for line in lines if not line.startswith("{"))

    def ended(self) -> tuple[int, str]:
        """Return with which code it ended, and what it said."""
        return self.process.wait(_PATIENCE), self.said()

    def stop(self) -> str:
        """End it as systemd does, and return what it said."""
        self.process.send_signal(signal.SIGTERM)
        code, said = self.ended()
        assert code == 0
        return said


@contextmanager
def serving(
    *words: str, command: Sequence[str] = (*COMMAND, "serve"), is_read: bool = True
) -> Iterator[Serve]:
    """Give a `workbench serve` that is starting, its models' classes being importable.

    Args:
        words: of its command line.
        command: that they go to.
        is_read: whether what it says on stderr is kept, rather than left in a pipe.
    """
    path = [str(Path(__file__).parent), *filter(None, [os.environ.get("PYTHONPATH")])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path)}
    with TemporaryDirectory() as folder, (Path(folder) / "stderr").open("w") as log:
        process = subprocess.Popen(
            [*command, *words],
            stdout=subprocess.PIPE,
            stderr=log if is_read else subprocess.PIPE,
            text=True,
            env=environment,
        )
        with process:
            serve = Serve(process, Path(log.name))
            try:
                yield serve
            finally:
                left = serve.workers()
                process.kill()
                psutil.wait_procs(left, timeout=_PATIENCE)  # they end by themselves


class Load:
    """Clients that ask one request after the other, each over a connection that it keeps.

    Args:
        listing: of the service.
        clients: how many.
    """

    def __init__(self, listing: Listing, clients: int = 4) -> None:
        self.statuses: Counter[int] = Counter()
        self.versions: Counter[str] = Counter()
        self.lost: Counter[int] = Counter()  # by client, answers that did not come whole
        self._listing = listing
        self._where = urlsplit(listing.url).netloc
        self._done = threading.Event()
        self._threads = [threading.Thread(target=self._ask_on, args=(n,)) for n in range(clients)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._done.set()
        for thread in self._threads:
            thread.join()

    @property
    def answers(self) -> int:
        """How many requests were answered as they should."""
        return self.statuses[200]

    def more(self, n: int = 50) -> None:
        """Return once so many more have been answered."""
        goal = self.answers + n
        once(lambda: self.answers >= goal)

    def _ask_on(self, client: int) -> None:
        connection = http.client.HTTPConnection(self._where, timeout=20)
        while not self._done.is_set():
            try:
                status, version = ask(connection, self._listing)
            except (OSError, http.client.HTTPException):
                self.lost[client] += 1
                connection.close()
                time.sleep(0.01)
                continue
            self.statuses[status] += 1
            self.versions[version] += 1
        connection.close()


def ask(
    connection: http.client.HTTPConnection, listing: Listing, first: float = 0.0
) -> tuple[int, str]:
    """Ask for one row over a connection, and return the status and the version that answered.

    The answer itself is checked: it is the row's sum and the version's bias.
    """
    tensor = {"name": "input", "datatype": "FP32", "shape": [1, 2], "data": [first, 2.0]}
    sent = {"Authorization": f"Bearer {listing.token}"}
    body = json.dumps({"inputs": [tensor]})
    connection.request("POST", f"/v2/models/{listing.name}/infer", body, sent)
    answer = connection.getresponse()
    told = json.loads(answer.read())
    if answer.status != 200:
        return answer.status, ""
    assert told["outputs"][0]["data"] == [first + 2.0 + float(told["model_version"])]
    return 200, str(told["model_version"])
