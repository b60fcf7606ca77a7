"""`Worker`: a process that answers, as its supervisor sees it and as it sees itself.

The supervisor asks each worker a few times a second how it is, through a pipe; the end of that pipe
is how a worker learns that there is no supervisor any more. torch is loaded in the process alone.
"""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from multiprocessing import resource_tracker
from pathlib import Path
from socket import socket
from typing import TYPE_CHECKING

from uvicorn.config import STARTUP_FAILURE, Config
from uvicorn.supervisors.multiprocess import Process

from workbench.errors import ServiceError, TamperedError, WorkbenchError
from workbench.supervision.stderr import never_wait

if TYPE_CHECKING:
    from workbench.serving.hosting import Server
    from workbench.serving.jobs import Jobs
    from workbench.serving.served import Served

__all__ = ["Plan", "Said", "Worker", "log_to_stderr"]

_HANGS = 10.0  # seconds after which silence is the end
_STUCK = 60.0  # the same of one that is still loading, which may hold all threads up for a while
_LOOK = 0.1  # seconds between two looks of a worker at whether it is to end

_log = logging.getLogger("workbench.serving")


@dataclass(frozen=True)
class Plan:
    """What every worker of a service is told; through a pipe, so that nobody else sees a token.

    Args:
        ref: of the version that answers, `"name@3"`, `"name@champion"` or `"name"`.
        host: address that is listened on.
        workers: how many there are.
        token: what requests carry.
        admin_token: what those carry that load and unload models; None lets nobody.
        alias: what a promotion moves, where none is named.
        allowed_hosts: names that it may be asked by besides its own.
        follows: whether another version answers once the reference means another.
        notebooks: that may be executed as jobs, by name.
    """

    ref: str
    host: str
    workers: int
    token: str = field(repr=False)
    admin_token: str | None = field(default=None, repr=False)
    alias: str = "champion"
    allowed_hosts: frozenset[str] = frozenset()
    follows: bool = False
    notebooks: Mapping[str, Path] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Of the service, and of its model."""
        return self.ref.partition("@")[0]


@dataclass(frozen=True)
class Said:
    """How a worker is.

    Args:
        model: what it answers with, once it has answered by itself; None before.
        failure: why it ends, if it ends by itself.
        exit_code: that goes with the failure.
    """

    model: str | None = None
    failure: str | None = None
    exit_code: int = 0


class Worker(Process):
    """A process that answers from a socket which it shares with others.

    Args:
        config: of the supervisor.
        sockets: the one that listens.
        plan: what it is to do.
    """

    def __init__(self, config: Config, sockets: list[socket], plan: Plan) -> None:
        self.plan, self.said = plan, Said()
        self.started = time.monotonic()
        self._is_asked, self._silence = False, 0.0  # seconds
        self._answering: Server | None = None  # in the process itself
        self._is_over = False
        super().__init__(config, sockets)

    # As the supervisor sees it

    @property
    def hangs(self) -> bool:
        """Whether it has said nothing for so long; the machine's own stalls do not count."""
        return self._silence > (_STUCK if self.said.model is None else _HANGS)

    def start(self) -> None:
        """Start the process; Ctrl-C in a terminal is for the supervisor alone."""
        with _without_interrupts():
            super().start()
        self.child_conn.close()

    def look(self, pause: float = 0.0) -> None:
        """Take what it has said meanwhile, and ask how it is.

        Args:
            pause: seconds since the last look, had the machine not stalled.
        """
        with contextlib.suppress(OSError, EOFError):  # it has ended
            while self.parent_conn.poll():
                said: Said = self.parent_conn.recv()
                self.said = said if self.said.failure is None else self.said
                self._is_asked, self._silence = False, 0.0
            if self._is_asked:
                self._silence += pause
            else:
                self.parent_conn.send(b"ping")
                self._is_asked = True

    # As it sees itself

    def target(self, sockets: list[socket] | None = None) -> None:
        """Answer until the supervisor says otherwise, or is gone: the process's whole life."""
        assert sockets is not None
        for name in {"SIGINT", "SIGHUP"} & {*dir(signal)}:  # for the supervisor alone
            signal.signal(signal.Signals[name], signal.SIG_IGN)
        log_to_stderr()
        self.parent_conn.close()
        threading.Thread(target=self.always_pong, name="workbench-pong", daemon=True).start()
        try:
            self._answer(sockets[0])
        except Exception as error:
            self._confess(error)
            sys.exit(STARTUP_FAILURE)

    def always_pong(self) -> None:
        """Say how it is as often as it is asked; with nobody there to ask, end."""
        with contextlib.suppress(OSError, EOFError):
            while True:
                self.pong()
        self._is_over = True
        if self._answering is None:  # nothing is under way
            os._exit(0)

    def pong(self) -> None:
        """Say once how it is; while the event loop is held up, nothing."""
        self.child_conn.recv()
        server = self._answering
        if server is None:
            self.child_conn.send(Said())
            return
        with contextlib.suppress(RuntimeError):  # it has stopped just now
            server.comes_round()
        here = server.shelf.versions(self.plan.name)
        self.child_conn.send(Said(here[0].model if here else ""))

    def _answer(self, listener: socket) -> None:
        import torch

        from workbench.supervision.following import Follower

        plan = self.plan
        if plan.workers > 1:  # each has its share of the cores
            torch.set_num_threads(max(1, torch.get_num_threads() // plan.workers))
        server = self._made(listener)
        server.shelf.put(_load(plan.ref, plan.name))
        with contextlib.suppress(ServiceError, TamperedError):  # a full disk: the next tick says so
            server.app.fleet.tick()  # what was ordered before it came, and that it has answered
        signal.signal(signal.SIGTERM, self._end)
        server.start()
        self._answering = server
        follower = Follower(server.shelf, plan.ref, name=plan.name, load=_load)
        if plan.follows:
            follower.start()
        while not self._is_over:
            time.sleep(_LOOK)
            if not server.is_running:
                raise ServiceError("its server ended by itself: stderr says why")
        follower.close()
        server.stop()

    def _made(self, listener: socket) -> Server:
        """Return the server of this process, which has no model yet."""
        from workbench.registry.ledgers import Ledger
        from workbench.serving.hosting import Server
        from workbench.serving.orders import Orders

        plan = self.plan
        return Server(
            host=plan.host,
            token=plan.token,
            admin_token=plan.admin_token,
            allowed_hosts=plan.allowed_hosts,
            listener=listener,
            access_log=sys.stderr,
            ledger=Ledger.of(plan.name),
            orders=lambda shelf: Orders(shelf, _load),
            jobs=_jobs_of(plan),
            alias=plan.alias,
            follows=plan.ref.partition("@")[2] if plan.follows else None,
        )

    def _end(self, *_: object) -> None:
        self._is_over = True

    def _confess(self, error: Exception) -> None:
        """Tell the supervisor why this ends."""
        if isinstance(error, WorkbenchError):
            said = Said(failure=str(error), exit_code=error.exit_code)
        else:
            _log.error("a worker of %s ends", self.plan.name, exc_info=error)
            said = Said(failure=f"{type(error).__name__}: {error}", exit_code=1)
        with contextlib.suppress(OSError):  # there is none any more
            self.child_conn.send(said)


def _load(ref: str, name: str | None) -> Served:
    """Return a version, and the engine that suits it here, having asked it once."""
    from workbench.serving.served import served_from

    return served_from(ref, name=name, probe=True)


def _jobs_of(plan: Plan) -> Jobs | None:
    """Return the jobs of the service; None where no notebook is listed."""
    if not plan.notebooks:
        return None
    from workbench.runs.jobs import JobQueue
    from workbench.serving.jobs import Jobs

    return Jobs(JobQueue.of(plan.name), plan.notebooks)


def log_to_stderr() -> None:
    """Let what a service logs be seen: nobody else's cell is there to be disturbed.

    Nothing waits until it is.
    """
    never_wait()
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("workbench.serving", "uvicorn"):
        logging.getLogger(name).addHandler(handler)


@contextlib.contextmanager
def _without_interrupts() -> Iterator[None]:
    """Hold Ctrl-C back for the while; a process that is started then never gets one."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    resource_tracker.ensure_running()  # its own start would let them through again
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
