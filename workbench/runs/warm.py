"""Warm start: a parent in which torch, NumPy, matplotlib and papermill are imported forks runs.

A fork is a process of its own that has nothing of other runs, and begins where a cold one would
have come to after seconds of imports. One parent serves one envelope, since libraries have read it
as they loaded. It lives as long as the `with` that started it, and its children no longer than it.
"""

from __future__ import annotations

import json
import os
import select
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from types import TracebackType

from workbench.errors import RunEnvironmentError
from workbench.runs.envelopes import Envelope
from workbench.types import JSON

__all__ = ["Forked", "WarmParent", "can_fork", "warm_parent"]

_PATIENCE = 120.0  # seconds that a parent on a busy machine has for its imports
_ANSWER = 30.0  # seconds that it has to fork
_NOT_UP = "the parent of warm runs did not come up, or has more threads than can be forked"


def can_fork() -> bool:
    """Return whether processes can be forked here: on Linux, where libraries bear it."""
    return sys.platform == "linux"


@contextmanager
def warm_parent(envelope: Envelope) -> Iterator[str | None]:
    """Give the address of a warm parent for the while, or None where runs have to start cold.

    That is where nothing can be forked, and where the parent did not come up, which is warned of.

    Args:
        envelope: of the runs.
    """
    address = None
    with ExitStack() as stack:
        try:
            if can_fork():
                address = stack.enter_context(WarmParent(envelope)).address
        except RunEnvironmentError:
            _warn_of_cold(_NOT_UP)
        except OSError as error:
            _warn_of_cold(f"the parent of warm runs could not be started ({error})")
        yield address


class WarmParent:
    """A process that forks others, started by `with` and ended with it.

    Args:
        envelope: what the environment of every fork decides alike.

    Raises:
        RunEnvironmentError: it did not come up.
    """

    def __init__(self, envelope: Envelope) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="workbench-warm-"))
        self.address = str(self._folder / "socket")
        environment = {**envelope.around(os.environ), "WORKBENCH_HEADLESS": "1"}
        self._process = subprocess.Popen(
            [sys.executable, "-m", "workbench.runs.forking", self.address],
            stdin=subprocess.PIPE,  # its end ends the parent, however this process dies
            stdout=subprocess.PIPE,
            env=environment,
            start_new_session=True,  # Ctrl-C is for whoever started it
        )

    def __enter__(self) -> WarmParent:
        try:
            self._wait()
        except BaseException:
            self._end()
            raise
        return self

    def _wait(self) -> None:
        said = self._process.stdout
        assert said is not None
        ready, _, _ = select.select([said], [], [], _PATIENCE)
        if not ready or said.readline().strip() != b"ready":
            raise RunEnvironmentError(f"{_NOT_UP}: run them cold, one process each, with --cold")

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._end()

    def _end(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            if pipe is not None:
                pipe.close()
        self._process.wait()
        shutil.rmtree(self._folder, ignore_errors=True)


class Forked:
    """A process that a warm parent forked, to be used as `subprocess.Popen` is.

    It is killed when this object's process ends, as a kernel must not outlive its run.

    Args:
        address: of the parent.
        request: what to become: `kind`, which is `"run"` (with the `file` that is its folder) or
            `"kernel"` (with its `arguments`), `environment`, the `folder` to work in, and a `log`
            for what is said on stdout and stderr.

    Raises:
        OSError: there is no such parent any more, or it cannot fork.
    """

    stdin = stdout = stderr = None

    def __init__(self, address: str, request: JSON) -> None:
        self.returncode: int | None = None
        self._line = socket.socket(socket.AF_UNIX)
        self._line.settimeout(_ANSWER)
        try:
            self._line.connect(address)
            self._line.sendall(json.dumps(request).encode() + b"\n")
            self._answers = self._line.makefile("rb")
            self.pid = int(self._answers.readline() or 0)
            if not self.pid:
                raise ConnectionError(f"the parent of warm runs at {address} is gone")
        except (OSError, ValueError):
            self._line.close()
            raise

    def poll(self) -> int | None:
        """Return the exit code, negative for a signal, or None while it lives."""
        if self.returncode is None and select.select([self._line], [], [], 0)[0]:
            said = self._answers.readline()
            self.returncode = int(said) if said else -9  # with the parent its children die
            self._answers.close()
            self._line.close()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Return the exit code once it has ended.

        Raises:
            subprocess.TimeoutExpired: it has not within so many seconds.
        """
        ends = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if ends is not None and time.monotonic() > ends:
                raise subprocess.TimeoutExpired(f"fork {self.pid}", timeout or 0.0)
            left = None if ends is None else max(0.0, ends - time.monotonic())
            select.select([self._line], [], [], left)
        return code

    def send_signal(self, number: int) -> None:
        """Send a signal to it, while it lives."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """End it with SIGKILL."""
        self.send_signal(9)

    def terminate(self) -> None:
        """Ask it to end, by SIGTERM."""
        self.send_signal(15)


def _warn_of_cold(why: str) -> None:
    warnings.warn(f"runs start cold, which takes longer: {why}", stacklevel=4)
