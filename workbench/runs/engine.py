"""papermill's client with its bookkeeping replaced by ours: what happened to each cell, exactly.

papermill calls a cell that the kernel died in completed, and never saves in one piece. Here a cell
is done only once its reply says so, and every save is atomic.
"""

from __future__ import annotations

import ast
import json
import re
import signal
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from queue import Empty
from typing import Any, Literal

import zmq
from jupyter_core.utils import run_sync
from nbclient.exceptions import DeadKernelError
from nbformat.v4 import new_output
from papermill.clientwrap import PapermillNotebookClient
from papermill.engines import NotebookExecutionManager

from workbench import journal
from workbench.runs.floods import CUT_SHOWN, MOST_SHOWN, Told, print_into, shorten, size_of
from workbench.runs.kernels import KILL, LOG, Kernel
from workbench.runs.queueing import Limits
from workbench.types import JSON

__all__ = ["Client", "Reason", "Watch"]

Reason = Literal["interrupted", "timed out", "out of memory"]

_AUTOSAVE = 5  # seconds between two saves in the middle of a cell; papermill slows down if it must
_GRACE = 10.0  # seconds that an interrupted cell has to come to an end, for a last checkpoint
_ANSWER = 0.1  # seconds after which a kernel that comes up is asked again
_LEAVING = 2.5  # seconds that the notebook's threads have to end
_FAREWELL = 2.5  # seconds that it then has for what was registered for its end
_LOOK_EVERY = 0.2  # seconds between two looks at the memory
_SOON = 0.01  # seconds between two looks whether the kernel is gone
_ANSI = re.compile(r"\x1b\[[0-?]*[ -/]*[@-~]")

# What the kernel is told before the first cell and asked after the last, each in one expression;
# neither makes it import torch.
_BEGIN = "__import__('workbench.beginnings', fromlist=['begin']).begin({seed})"
# A kernel's own shutdown waits at times for a thread that waits for it (ipykernel 7.4), and takes
# apart every module of torch first. Leaving like this still does what was registered for the end.
_LEAVE = f"__import__('workbench.beginnings', fromlist=['leave']).leave({_LEAVING})"
_FACTS = "__import__('workbench.beginnings', fromlist=['facts']).facts()"


class _StoppedError(Exception):
    """The run was told to stop while no cell was running."""


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
        self.stopping: Reason | None = None
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
        known.update(state="running", started=journal.now())
        self._tell(known)
        self.save()
        self.running, self._started = known, time.perf_counter()
        if self.stopping:  # a signal that came since the first look has interrupted nothing
            raise _StoppedError

    def cell_done(self, cell: Any) -> None:
        """Note that the kernel has answered that the cell is done, though it may have raised."""
        if self.running:
            self.running.update(state="done", error=_raised(cell))

    def cell_exception(self, cell: Any, cell_index: int, *, exception: Any, **_: Any) -> None:
        """Note that a cell has raised."""
        known = self._cells[cell_index]
        known.update(state="failed", error=f"{exception.ename}: {exception.evalue}")
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
    """papermill's client, which can also be told to stop, and asks the kernel what it ran on.

    Args:
        watch: what hears of the cells.
        km: the kernel, which may still be coming up.
        seed: of every global random number in the kernel.
        limits: of time and memory.
        widgets: whether the notebook keeps the state of its widgets.
    """

    def __init__(
        self, watch: Watch, km: Kernel, *, seed: int, limits: Limits, widgets: bool
    ) -> None:
        super().__init__(
            watch,
            km=km,
            log=LOG,
            record_timing=False,
            store_widget_state=widgets,
            iopub_timeout=60,  # seconds; on a busy machine a large output is late, not lost
        )
        self.watch, self.kernel = watch, km
        self.facts: JSON = {}
        self.kernel_died = False
        self.ended_with: int | None = None
        self._seed, self._limits, self._idle = seed, limits, False
        self._told: dict[int | str, Told] = {}  # by cell, or by widget that takes the outputs

    def work(self) -> Exception | None:
        """Run the notebook to its end, its first failure, or a signal; return what went wrong.

        What a cell raises is not an error here: the watch knows of it.
        """
        try:
            with self._stopping_on(signal.SIGINT, signal.SIGTERM), self._limited():
                self.execute(cleanup_kc=True)
        except _StoppedError:
            return None
        except Exception as error:  # the record tells of any, and papermill has no root error
            return error
        return None

    def execute_cell(self, cell: Any, cell_index: int, **options: Any) -> Any:
        """Run one cell and note that it is done, if it is."""
        executed = super().execute_cell(cell, cell_index, **options)
        self.watch.cell_done(cell)
        return executed

    def papermill_execute_cells(self) -> None:
        """Settle the kernel, run the cells up to the first that raises, ask for the facts."""
        try:
            self.wait_for_reply(self.kc.execute(_BEGIN.format(seed=self._seed), silent=True))
            super().papermill_execute_cells()
        except DeadKernelError:
            self.kernel_died, self.ended_with = True, self.kernel.exit_code()
            raise
        reply = self.wait_for_reply(
            self.kc.execute("", silent=True, user_expressions={"facts": _FACTS})
        )
        said = ((reply or {}).get("content", {}).get("user_expressions") or {}).get("facts", {})
        if said.get("status") == "ok":
            self.facts = json.loads(ast.literal_eval(said["data"]["text/plain"]))
        self._idle = True

    async def _async_check_alive(self) -> None:
        """Look every second whether the kernel lives, and whether a message waits unseen.

        What nbclient sends for a widget goes past the socket's own bookkeeping, so that the sign of
        a reply that comes in this moment is lost; to ask the sockets brings it back.
        """
        for channel in (self.kc.shell_channel, self.kc.iopub_channel):
            channel.socket.get(zmq.EVENTS)
        await super()._async_check_alive()

    def start_new_kernel_client(self) -> None:
        """Connect to the kernel, and return when it answers and is heard."""
        self.kc = self.km.client()
        self.kc.start_channels()
        self.kc.allow_stdin = False
        try:
            run_sync(self._heard)()
        except Exception:
            self._cleanup_kernel()
            raise

    async def _heard(self) -> None:
        """Wait until the kernel has answered on both channels.

        jupyter_client does so too, and then waits a fifth of a second for nothing.

        Raises:
            RuntimeError: the kernel died, or took too long.
        """
        ends = time.monotonic() + self.startup_timeout
        while time.monotonic() < ends:
            request = self.kc.kernel_info()
            try:
                await self._idle_after(request)
            except Empty:
                if not await self.km.is_alive():
                    raise RuntimeError("Kernel died before replying to kernel_info") from None
            else:
                return
        raise RuntimeError(f"Kernel didn't respond in {self.startup_timeout} seconds")

    async def _idle_after(self, request: str) -> None:
        """Wait until the kernel says that it is done with a request; raise Empty if not soon."""
        while True:
            message = await self.kc.iopub_channel.get_msg(timeout=_ANSWER)
            mine = message["parent_header"].get("msg_id") == request
            if mine and message["content"].get("execution_state") == "idle":
                return

    def _cleanup_kernel(self) -> None:
        """Let the kernel leave, or shut it down."""
        if self._idle:
            self.kc.execute(_LEAVE, silent=True)
            ends = time.monotonic() + _LEAVING + _FAREWELL
            while self.kernel.exit_code() is None and time.monotonic() < ends:
                time.sleep(_SOON)
        super()._cleanup_kernel()

    def output(self, outs: list[Any], msg: Any, display_id: str | None, cell_index: int) -> Any:
        """Take an output into the notebook, or of it what the cell may still say.

        An error always is, and the last of what is shown that fits.
        """
        kind, content = msg["msg_type"], msg["content"]
        told, into = self._said(outs, msg, cell_index)
        take = partial(super().output, outs, msg, display_id, cell_index)
        if told.clears:
            del into[:]
            told.forget()
        if kind == "stream":
            return print_into(content, told, into, outs, take)
        if kind == "error":
            shorten(content)
        elif told.shown + size_of(content) <= MOST_SHOWN:
            told.shown += size_of(content)
        elif not self._make_room(size_of(content), told, into, outs, cell_index):
            return None
        return take()

    def clear_output(self, outs: list[Any], msg: Any, cell_index: int) -> None:
        """Let a cell say as much again as what it has cleared."""
        told, _ = self._said(outs, msg, cell_index)
        super().clear_output(outs, msg, cell_index)
        if msg["content"].get("wait"):
            told.clears = True
        else:
            told.forget()

    def reset_execution_trackers(self) -> None:
        """Begin anew; nbclient's output widgets write their state down, whether asked or not."""
        super().reset_execution_trackers()
        self.widget_state: dict[str, JSON] = defaultdict(dict)

    def set_widgets_metadata(self) -> None:
        """Keep the state of widgets where that was asked for."""
        if self.store_widget_state:
            super().set_widgets_metadata()

    def _said(self, outs: list[Any], msg: Any, cell_index: int) -> tuple[Told, list[Any]]:
        """Return what is held by the cell, or by the widget that takes its outputs, and where."""
        hooks = self.output_hook_stack[msg["parent_header"].get("msg_id")]
        place = hooks[-1].comm_id if hooks else cell_index
        return self._told.setdefault(place, Told()), hooks[-1].outputs if hooks else outs

    def _make_room(
        self, size: int, told: Told, into: list[Any], outs: list[Any], cell_index: int
    ) -> bool:
        """Take out the last that was shown beyond the limit, for another, if that fits."""
        if not told.full:
            outs.append(new_output("stream", name="stderr", text=CUT_SHOWN))
            told.full = True
        if size > MOST_SHOWN:
            return False
        if told.last is not None:
            del into[told.last]
            for cells in self._display_id_map.values() if into is outs else ():
                places = cells.get(cell_index, [])
                places[:] = [n - (n > told.last) for n in places if n != told.last]
        told.last = len(into)
        return True

    def stop(self, reason: Reason) -> None:
        """Interrupt the cell, so that it can keep what it has; a second time kill the kernel."""
        first = self.watch.stopping is None
        self.watch.stopping = self.watch.stopping or reason
        if not first or reason == "out of memory":
            self.kernel.signal(KILL)
        elif self.watch.running:
            self.kernel.signal(signal.SIGINT)
            _later(_GRACE, lambda: self.kernel.signal(KILL))

    @contextmanager
    def _stopping_on(self, *numbers: signal.Signals) -> Iterator[None]:
        """Let these signals stop the run, while in the context; only in the main thread."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {n: signal.signal(n, lambda *_: self.stop("interrupted")) for n in numbers}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    @contextmanager
    def _limited(self) -> Iterator[None]:
        """Let the limits of time and memory stop the run, while in the context."""
        over = threading.Event()
        seconds, memory = self._limits.seconds, self._limits.memory_gb
        timer = _later(seconds, lambda: self.stop("timed out")) if seconds else None
        if memory:
            threading.Thread(target=self._look_at_memory, args=(memory, over), daemon=True).start()
        try:
            yield
        finally:
            over.set()
            if timer:
                timer.cancel()

    def _look_at_memory(self, most_gb: float, over: threading.Event) -> None:
        while not over.wait(_LOOK_EVERY):
            if self.kernel.memory(most_gb * 1e9) > most_gb * 1e9:
                self.stop("out of memory")
                return


def _later(seconds: float, act: Callable[[], None]) -> threading.Timer:
    timer = threading.Timer(seconds, act)
    timer.daemon = True
    timer.start()
    return timer


def _raised(cell: Any) -> str | None:
    """Return what a cell raised that was allowed to, or None."""
    found = [out for out in cell.outputs if out.output_type == "error"]
    return f"{found[-1].ename}: {found[-1].evalue}" if found else None
