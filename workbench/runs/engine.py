"""papermill's client with its bookkeeping replaced by ours: what happened to each cell, exactly.

papermill calls a cell that the kernel died in completed, and never saves in one piece. Here a cell
is done only once its reply says so, and every save is atomic.
"""

from __future__ import annotations

import ast
import json
import logging
import os
import re
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient.exceptions import DeadKernelError
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NotebookExecutionManager

from workbench.types import JSON

__all__ = ["Client", "Kernel", "Watch", "kernel"]

_AUTOSAVE = 5  # seconds between two saves in the middle of a cell; papermill slows down if it must
_GRACE = 10.0  # seconds that an interrupted cell has to come to an end, for a last checkpoint
_KILL = getattr(signal, "SIGKILL", signal.SIGTERM)
_LOG = logging.getLogger("workbench.runs")
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")
_LOG.addHandler(logging.NullHandler())  # else what nbclient logs goes to stderr, unasked

# What the kernel is asked at the end, in one expression; it is never made to import torch for it.
_HARDWARE = (
    "__import__('json').dumps(__import__('workbench.devices', fromlist=['x']).hardware()"
    " if 'torch' in __import__('sys').modules else None)"
)


class _StoppedError(Exception):
    """The run was told to stop while no cell was running."""


class Kernel(AsyncKernelManager):
    """A kernel of this very Python, whatever kernel the notebook was saved with.

    So the packages in the record are those that ran. Its sockets are files where they can be.
    """

    @property
    def kernel_spec(self) -> KernelSpec:
        """The specification that ipykernel gives of itself."""
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())

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
        if group:
            os.killpg(group, number)
        else:  # on Windows, which has no such groups, nor a signal that a cell would notice
            self.process.kill()

    def exit_code(self) -> int | None:
        """Return the code that its process ended with, negative for a signal; None if unknown."""
        code: int | None = self.process.poll() if self.process else None
        return code


@contextmanager
def kernel() -> Iterator[Kernel]:
    """Give a kernel to start; its connection file and sockets are gone afterwards."""
    folder = Path(tempfile.mkdtemp(prefix="workbench-"))
    fits = len(os.fsencode(folder)) < 80  # bytes; the path of a socket may have about 100
    transport = "ipc" if fits and os.name != "nt" else "tcp"
    try:
        yield Kernel(connection_file=str(folder / "kernel.json"), transport=transport, log=_LOG)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


class Watch(NotebookExecutionManager):  # type: ignore[misc]
    """What papermill reports the cells to.

    Args:
        notebook: what is executed; its outputs are filled in as they come.
        cells: the record's, one a code cell in order; their states are kept here.
        save: called whenever there is something new to keep.
        tell: called with each cell of the record when it starts and when it ends.
    """

    def __init__(
        self,
        notebook: Any,
        cells: list[JSON],
        *,
        save: Callable[[], None],
        tell: Callable[[JSON], None],
    ) -> None:
        super().__init__(notebook, progress_bar=False, autosave_cell_every=_AUTOSAVE)
        self._cells = {cell["index"]: cell for cell in cells}
        self._save, self._tell = save, tell
        self._started = 0.0
        self.stopping = False
        self.running: JSON | None = None
        self.error: JSON | None = None

    def save(self, **_: Any) -> None:
        """Keep the outputs so far."""
        self._save()
        self.last_save_time = self.now()

    def cell_start(self, cell: Any, cell_index: int, **_: Any) -> None:
        """Note that a cell starts, or that there is nothing in it to run."""
        if self.stopping:
            raise _StoppedError
        known = self._cells.get(cell_index)
        if known is None:
            return
        if not cell.source.strip() or "skip-execution" in cell.metadata.get("tags", []):
            known["state"] = "skipped"
            return
        known["state"] = "running"
        self._tell(known)
        self.save()
        self.running, self._started = known, time.perf_counter()
        if self.stopping:  # a signal that came since the first look has interrupted nothing
            raise _StoppedError

    def cell_done(self) -> None:
        """Note that the kernel has answered that the cell is done."""
        if self.running:
            self.running["state"] = "done"

    def cell_exception(self, cell: Any, cell_index: int, *, exception: Any, **_: Any) -> None:
        """Note that a cell has raised."""
        self._cells[cell_index]["state"] = "interrupted" if self.stopping else "failed"
        traceback = [out.traceback for out in cell.outputs if out.output_type == "error"]
        lines = traceback[-1] if traceback else []
        self.error = {
            "name": exception.ename,
            "value": exception.evalue,
            "traceback": _ANSI.sub("", "\n".join(lines)),
        }

    def cell_complete(self, cell: Any, **_: Any) -> None:
        """Note how long a cell took; one whose kernel died still counts as running."""
        known, self.running = self.running, None
        if known is None:
            return
        known["seconds"] = round(time.perf_counter() - self._started, 3)
        self._tell(known)
        self.save()

    def cleanup_pbar(self) -> None:
        """Do nothing: there is no bar of papermill's."""


class Client(PapermillNotebookClient):  # type: ignore[misc]
    """papermill's client, which can also be told to stop, and asks the kernel what it ran on."""

    def __init__(self, watch: Watch, km: Kernel) -> None:
        super().__init__(
            watch,
            km=km,
            log=_LOG,
            store_widget_state=False,
            iopub_timeout=60,  # seconds; on a busy machine a large output is late, not lost
        )
        self.watch, self.kernel = watch, km
        self.hardware: JSON | None = None
        self.kernel_died = False
        self.ended_with: int | None = None

    def work(self, variables: dict[str, str], folder: Path, log: Path) -> Exception | None:
        """Run the notebook to its end, its first failure, or a signal; return what went wrong.

        What a cell raises is not an error here: the watch knows of it.

        Args:
            variables: the environment of the kernel.
            folder: which it works in.
            log: for what the kernel's process itself says, mostly as it crashes.
        """
        try:
            with self.stopping_on(signal.SIGINT, signal.SIGTERM), log.open("wb") as said:
                start = {"env": variables, "cwd": str(folder), "stdout": said, "stderr": said}
                self.execute(**start, cleanup_kc=True)
        except _StoppedError:
            return None
        except Exception as error:  # the record tells of any, and papermill has no root error
            return error
        return None

    def execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        """Run one cell and note that it is done, if it is."""
        executed = super().execute_cell(cell, cell_index, **options)
        self.watch.cell_done()
        return executed

    def papermill_execute_cells(self) -> None:
        """Run the cells up to the first that raises, then ask for the hardware."""
        try:
            super().papermill_execute_cells()
        except DeadKernelError:
            self.kernel_died, self.ended_with = True, self.kernel.exit_code()
            raise
        reply = self.wait_for_reply(
            self.kc.execute("", silent=True, user_expressions={"hardware": _HARDWARE})
        )
        said = ((reply or {}).get("content", {}).get("user_expressions") or {}).get("hardware", {})
        if said.get("status") == "ok":
            self.hardware = json.loads(ast.literal_eval(said["data"]["text/plain"]))

    @contextmanager
    def stopping_on(self, *numbers: signal.Signals) -> Iterator[None]:
        """Let these signals stop the run, while in the context; only in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, *_: Any) -> None:
        """Interrupt the cell, so that it can keep what it has; a second time kill the kernel."""
        first, self.watch.stopping = not self.watch.stopping, True
        if first and self.watch.running:
            self.kernel.signal(signal.SIGINT)
            timer = threading.Timer(_GRACE, self.kernel.signal, [_KILL])
            timer.daemon = True
            timer.start()
        elif not first:
            self.kernel.signal(_KILL)
