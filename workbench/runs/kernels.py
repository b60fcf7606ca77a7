"""The kernel of a run: a fresh process of this very Python, cold or forked from a warm parent."""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil
from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from jupyter_core.utils import run_sync

from workbench.runs.warm import Forked

__all__ = ["KILL", "LOG", "Kernel", "kernel"]

KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
LOG = logging.getLogger("workbench.runs")
LOG.addHandler(logging.NullHandler())  # else what nbclient logs goes to stderr, unasked


class Kernel(AsyncKernelManager):
    """A kernel of this very Python, whatever kernel the notebook was saved with.

    So the packages in the record are those that ran. Its sockets are files where they can be.
    """

    warm: str | None = None  # the address of the parent that forks it

    @property
    def kernel_spec(self) -> KernelSpec:
        """The specification that ipykernel gives of itself."""
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())

    def begin(self, environment: Mapping[str, str], folder: Path, log: IO[bytes]) -> None:
        """Start it, and return while it comes up.

        Args:
            environment: its variables.
            folder: that it works in.
            log: for what its process itself says.
        """
        start = run_sync(self._async_start_kernel)
        start(
            extra_arguments=["--HistoryManager.hist_file=:memory:"],
            env=dict(environment),
            cwd=str(folder),
            stdout=log,
            stderr=log,
        )

    async def _async_launch_kernel(self, kernel_cmd: list[str], **how: Any) -> None:
        """Fork the kernel where there is a warm parent, else start it."""
        if self.warm:
            with contextlib.suppress(OSError):  # the parent is gone: a cold start does the same
                self._fork(self.warm, kernel_cmd, how)
                return
        self.warm = None
        await super()._async_launch_kernel(kernel_cmd, **how)

    def _fork(self, address: str, kernel_cmd: list[str], how: Any) -> None:
        provisioner: Any = self.provisioner
        request = {
            **{"kind": "kernel", "arguments": kernel_cmd[kernel_cmd.index("-f") :]},
            **{"folder": how["cwd"], "environment": how["env"], "log": how["stdout"].name},
        }
        provisioner.process = Forked(address, request)
        provisioner.pid = provisioner.pgid = provisioner.process.pid
        self._reconcile_connection_info(provisioner.connection_info)

    async def _async_interrupt_kernel(self) -> None:
        """Send nothing: before it shuts a kernel down, jupyter_client would interrupt it.

        Ours is idle by then, and ipykernel reports the interrupt as an error on stderr.
        """

    @property
    def process(self) -> Any:
        """The process of the kernel, or None."""
        return getattr(self.provisioner, "process", None)

    def signal(self, number: int) -> None:
        """Send a signal to the kernel and to the processes that it started."""
        if not self.has_kernel:
            return
        group = getattr(self.provisioner, "pgid", None)
        with contextlib.suppress(ProcessLookupError):
            if group:
                os.killpg(group, number)
            else:  # on Windows, which has no such groups, nor a signal that a cell would notice
                self.process.kill()

    def exit_code(self) -> int | None:
        """Return the code that its process ended with, negative for a signal; None if unknown."""
        code: int | None = self.process.poll() if self.process else None
        return code

    def memory(self, limit: float) -> int:
        """Return the bytes of memory that it and the processes that it started take.

        What processes share counts once, but is told apart only where the sum is over the limit
        otherwise, since that takes longer.

        Args:
            limit: bytes up to which the answer may be too high.
        """
        if not self.process:
            return 0
        try:
            itself = psutil.Process(self.process.pid)
            processes = [itself, *itself.children(recursive=True)]
        except psutil.NoSuchProcess:
            return 0
        resident = sum(map(_resident, processes))
        return resident if resident <= limit else sum(map(_proportional, processes))


@contextmanager
def kernel(warm: str | None = None) -> Iterator[Kernel]:
    """Give a kernel to start; its connection file and sockets are gone afterwards.

    Args:
        warm: the address of a parent that forks it; None for a cold one.
    """
    folder = Path(tempfile.mkdtemp(prefix="workbench-"))
    fits = len(os.fsencode(folder)) < 80  # bytes; the path of a socket may have about 100
    transport = "ipc" if fits and os.name != "nt" else "tcp"
    made = Kernel(connection_file=str(folder / "kernel.json"), transport=transport, log=LOG)
    made.warm = warm
    try:
        yield made
    finally:
        made.signal(KILL)  # where nobody came to shut it down
        shutil.rmtree(folder, ignore_errors=True)


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.NoSuchProcess:
        return 0


def _proportional(process: psutil.Process) -> int:
    """Return its memory, of which a page counts by as much as it is of those who share it."""
    try:
        share = getattr(process.memory_full_info(), "pss", 0)  # Linux alone has it
    except psutil.AccessDenied:
        share = 0
    except psutil.NoSuchProcess:
        return 0
    return int(share) or _resident(process)
