"""`supervise`: a service of several processes, from its start to its end; loads no torch.

One process, the supervisor, holds the socket that listens, the file of the service and the jobs; it
answers nothing itself. It starts the workers, which do, and puts another into the place of one that
has died or hangs. The socket stays open meanwhile, so only what that worker had accepted is lost.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from socket import socket
from typing import Protocol

from uvicorn.config import Config
from uvicorn.supervisors.multiprocess import SIGNALS, Multiprocess

from workbench.errors import RequestError, ServiceError, SourceError, WorkbenchError
from workbench.serving.client import Listing, check_name, remove_listing, starting, write_listing
from workbench.serving.listening import DRAIN, START, listen, url_of
from workbench.supervision.workers import Plan, Worker

__all__ = ["Supervisor", "supervise"]

_LOOK = 0.25  # seconds between two looks at the workers
_FIRST_LOOK = 0.05  # until all of them answer
_END = 15.0  # seconds more than the answers under way have, before a worker is killed
_STEADY = 60.0  # seconds after which a worker has not died of its start
_LONGEST = 30.0  # seconds that a place stays empty at most
_ENDING = {n for n in SIGNALS if SIGNALS[n] in ("INT", "TERM", "HUP", "BREAK")}

_log = logging.getLogger("workbench.serving")
_log.addHandler(logging.NullHandler())


class _Host(Protocol):
    """What executes jobs beside the workers."""

    def tick(self) -> None:
        """Do what there is to do now."""

    def close(self) -> None:
        """Interrupt what runs."""


def supervise(
    plan: Plan,
    *,
    port: int,
    ready: Callable[[Listing], None],
    jobs: Callable[[], _Host] | None = None,
) -> bool:
    """Serve until a signal; return whether that was Ctrl-C.

    Args:
        plan: what the workers do.
        port: to listen on; 0 for one that is free.
        ready: called once, when each worker has answered by itself.
        jobs: makes what executes jobs; None for a service without.

    Raises:
        RequestError: the port or the model is none.
        ServiceError: the address cannot be listened on, the name is served, or no worker answered.
    """
    with contextlib.ExitStack() as end, contextlib.ExitStack() as start:
        start.enter_context(starting(check_name(plan.name), timeout=START + DRAIN))
        listener = listen(plan.host, port)
        listing = _listing_of(plan, listener)

        def begun(model: str) -> None:
            write_listing(replace(listing, model=model))
            start.close()
            ready(replace(listing, model=model))

        _forget(plan)
        host, changed = jobs() if jobs else None, partial(_change, listing)
        supervisor = Supervisor(plan, listener, begun=begun, changed=changed, jobs=host)
        end.callback(remove_listing, listing)
        supervisor.run()
        return supervisor.interrupted


class Supervisor(Multiprocess):
    """Keeps the workers of a service alive until a signal.

    Args:
        plan: what they do.
        listener: the socket that they share.
        begun: called with what they answer with, once each has answered by itself.
        changed: called whenever they all answer with something else.
        jobs: what executes jobs; None for a service without.
    """

    processes: list[Worker]  # type: ignore[assignment]

    def __init__(
        self,
        plan: Plan,
        listener: socket,
        *,
        begun: Callable[[str], None],
        changed: Callable[[str], None],
        jobs: _Host | None = None,
    ) -> None:
        before = {number: signal.getsignal(number) for number in SIGNALS}
        super().__init__(Config("workbench", workers=plan.workers, log_config=None), [listener])
        for number, handler in before.items():  # the others keep their meaning
            if number not in _ENDING or handler is signal.SIG_IGN:
                signal.signal(number, handler)
        self.interrupted = False
        self._plan, self._begun, self._changed, self._jobs = plan, begun, changed, jobs
        self._model: str | None = None  # that all answer with, once they do
        self._deaths = [0] * plan.workers  # in a row, of each place
        self._trouble: str | None = None  # of the jobs, so that it is said once
        self._empty: dict[int, float] = {}  # places, and when each gets another worker

    def run(self) -> None:
        """Start the workers, and look after them until a signal.

        Raises:
            WorkbenchError: a worker ended before all of them answered.
        """
        try:
            self.init_processes()
            while not self.should_exit.wait(self._pause):
                self.handle_signals()
                self.keep_subprocess_alive()
                self._see_to_jobs()
        finally:
            self._finish()

    def init_processes(self) -> None:
        """Start as many workers as there are to be."""
        self.processes = [self._new() for _ in range(self.processes_num)]

    def keep_subprocess_alive(self) -> None:
        """Look at each worker, and put another into the place of one that died or hangs.

        Raises:
            WorkbenchError: it ended before all of them answered.
        """
        for place, worker in enumerate(self.processes):
            worker.look(self._pause)
            if place in self._empty:
                self._fill(place)
            elif worker.hangs or not worker.process.is_alive():
                self._lose(place, worker)
        self._compare()

    def join_all(self) -> None:
        """Wait for what is under way; kill what hangs, and at another signal everything."""
        until = time.monotonic() + DRAIN + _END
        for worker in self.processes:
            while worker.process.is_alive():
                if self.signal_queue or time.monotonic() > until:
                    worker.kill()
                worker.process.join(_LOOK)

    def handle_int(self) -> None:
        """End, since somebody pressed Ctrl-C."""
        self.interrupted = True
        super().handle_int()

    def handle_hup(self) -> None:
        """End, since the terminal is gone."""
        self.handle_term()

    @property
    def _pause(self) -> float:
        """Seconds between two looks."""
        return _FIRST_LOOK if self._model is None else _LOOK

    def _see_to_jobs(self) -> None:
        """Let jobs go on; whatever becomes of them, the workers answer."""
        try:
            if self._jobs is not None:
                self._jobs.tick()
            self._trouble = None
        except Exception as error:
            if repr(error) != self._trouble:
                _log.error("jobs do not go on", exc_info=error)
            self._trouble = repr(error)

    def _finish(self) -> None:
        self.terminate_all()
        for listener in self.sockets:  # who comes now is refused rather than left waiting
            listener.close()
        try:
            if self._jobs is not None:
                self._jobs.close()
        finally:
            self.join_all()

    def _new(self) -> Worker:
        worker = Worker(self.config, self.sockets, self._plan)
        worker.start()
        return worker

    def _fill(self, place: int) -> None:
        """Put a worker into an empty place, once it is time."""
        if time.monotonic() < self._empty[place]:
            return
        try:
            self.processes[place] = self._new()
            del self._empty[place]
        except OSError as error:  # no memory, or too many processes: the others answer
            _log.error("a worker of %r could not be started: %s", self._plan.name, error)
            self._empty[place] = time.monotonic() + _LONGEST

    def _lose(self, place: int, worker: Worker) -> None:
        """Give up a worker that hangs or is dead."""
        worker.look()  # its last words
        how = "hung and was killed" if worker.process.is_alive() else _end_of(worker)
        worker.kill()
        worker.join()
        if self._model is None:
            raise _error_of(worker, how)
        is_steady = time.monotonic() - worker.started > _STEADY
        self._deaths[place] = 1 if is_steady else self._deaths[place] + 1
        pause = 0.0 if self._deaths[place] == 1 else min(_LONGEST, 2.0 ** (self._deaths[place] - 2))
        self._empty[place] = time.monotonic() + pause
        _log.warning(
            "worker %s of %r %s: another takes its place in %g s",
            worker.pid,
            self._plan.name,
            how,
            pause,
        )

    def _compare(self) -> None:
        """See what the workers answer with, and say so where all of them agree on something new."""
        first = self.processes[0].said.model
        if self._model is None and first and not self._plan.follows:
            self._settle(first)
        models = {w.said.model for n, w in enumerate(self.processes) if n not in self._empty}
        if models != {first} or first is None or first == self._model:
            return
        tell = self._changed if self._model is not None else self._begun
        self._model = first
        tell(first)

    def _settle(self, model: str) -> None:
        """Let all workers, and those that come later, answer with what the first one found."""
        self._plan = replace(self._plan, ref=model)
        for place, worker in enumerate(self.processes):
            if worker.said.model not in (None, model):  # the alias has moved while they started
                worker.kill()
                worker.join()
                self.processes[place] = self._new()


def _listing_of(plan: Plan, listener: socket) -> Listing:
    """Return what the file of a service says while it starts."""
    url = url_of(plan.host, listener.getsockname()[1])
    return Listing(plan.name, url, plan.token, os.getpid(), plan.ref, stands_alone=True)


def _change(listing: Listing, model: str) -> None:
    """Let the file of a service say what answers now."""
    with contextlib.suppress(OSError):  # a full disk is no reason to stop answering
        write_listing(replace(listing, model=model))


def _forget(plan: Plan) -> None:
    """Begin another life in the ledger: what workers before were told does not count any more."""
    from workbench.registry.ledgers import Ledger

    try:
        with contextlib.closing(Ledger.of(plan.name)) as ledger:
            ledger.begin(plan.workers)
    except ServiceError as error:  # a full disk is no reason not to answer
        _log.error("the ledger of %r cannot be written: %s", plan.name, error)


def _end_of(worker: Worker) -> str:
    """Return how a process ended, in words."""
    if worker.said.failure is not None:
        return f"failed ({worker.said.failure})"
    code = worker.exitcode or 0
    return f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with {code}"


def _error_of(worker: Worker, how: str) -> WorkbenchError:
    """Return why a worker never answered."""
    said = worker.said
    if said.failure is None:
        return ServiceError(
            f"a worker of {worker.plan.name!r} {how} before it had answered once: stderr may say "
            "why; SIGKILL is what the system sends where memory runs out"
        )
    kinds: tuple[type[WorkbenchError], ...] = (RequestError, SourceError, ServiceError)
    kind = next((kind for kind in kinds if kind.exit_code == said.exit_code), ServiceError)
    return kind(said.failure)
