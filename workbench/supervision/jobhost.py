"""`JobHost` executes the jobs of a service, one after the other, beside the workers that answer.

A run is a process of its own in a session of its own, so it outlives a host that is killed. Another
host finds it by the lock in its folder, and waits for it.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Collection
from pathlib import Path

from filelock import Timeout

from workbench.errors import RequestError, ServiceError, TamperedError
from workbench.runs.executors import Executor, LocalExecutor
from workbench.runs.jobs import Job, JobQueue, JobState, withdraw
from workbench.runs.records import Run, State, run_lock

__all__ = ["JobHost"]

_TRIES = 2  # at a run that is killed; one in which a cell raises is not tried again
_LEAVE = 20.0  # seconds that a run has to end when the host does; a cell has 10 of them
_LOOK_EVERY = 0.05  # seconds between two looks meanwhile
_GONE = "the record of its run is gone or damaged"
_LAST = 500  # characters of what a process said that left nothing else

_log = logging.getLogger("workbench.serving")
_log.addHandler(logging.NullHandler())


class JobHost:
    """Executes what waits in a queue; one run at a time, since there is one machine.

    Args:
        queue: of the service.
        listed: names of the notebooks that may be executed.
        executor: that starts runs; by default each in a process of its own on this machine.
    """

    def __init__(
        self, queue: JobQueue, listed: Collection[str], *, executor: Executor | None = None
    ) -> None:
        self._queue, self._listed = queue, frozenset(listed)
        self._executor = executor or LocalExecutor(None)
        self._trouble = ""
        self._mine: set[Path] = set()  # runs whose processes this host has started
        self._asked: set[str] = set()  # ids of those that were asked to end; twice would kill

    def tick(self) -> None:
        """Do what there is to do now, without waiting; a full disk or a busy ledger waits."""
        try:
            self._look()
            waits = self._queue.waiting() > 0 and not self._queue.running()
            job = self._queue.take(self._listed) if waits else None  # which locks the ledger
            if job is not None:
                self._begin(job)
            self._trouble = ""
        except (ServiceError, TamperedError, OSError) as error:
            if str(error) != self._trouble:  # said once, not four times a second
                _log.warning("jobs wait: %s", error)
            self._trouble = str(error)

    def close(self) -> None:
        """Interrupt what runs, so that the next host goes on with it."""
        with contextlib.suppress(ServiceError, TamperedError, OSError):
            ends, left = time.monotonic() + _LEAVE, self._queue.running()
            while left and time.monotonic() < ends:
                for job in left:
                    self._ask_to_end(job)
                time.sleep(_LOOK_EVERY)
                left = [job for job in left if self._lives(job.folder)]
            self._executor.close()
            for job in self._queue.running():
                self._settle(job, is_closing=True)
        self._executor.close()

    def _look(self) -> None:
        """See what has become of the jobs that run."""
        for job in self._queue.running():
            if not self._lives(job.folder):
                self._settle(job)
            elif job.is_cancelled:
                self._ask_to_end(job)

    def _begin(self, job: Job) -> None:
        self._asked.discard(job.id)
        if not (job.folder / "run.json").exists():
            return self._queue.settle(job, "failed", _GONE)
        try:
            self._executor.submit(job.folder, {})
        except OSError as error:  # the disk is full, or there are too many processes
            return self._queue.settle(job, "failed", f"its run could not be started: {error}")
        return self._mine.add(job.folder)

    def _lives(self, folder: Path) -> bool:
        """Return whether a process executes a run, be it of this host or of one before."""
        self._mine -= self._executor.poll().keys()
        return folder in self._mine or _is_locked(folder)

    def _ask_to_end(self, job: Job) -> None:
        if job.id in self._asked:
            return
        if job.folder in self._mine:
            self._executor.cancel(job.folder)
        else:
            try:
                Run.read(job.folder).stop()
            except (RequestError, TamperedError, OSError):  # it ends by itself, or begins just now
                return
        self._asked.add(job.id)

    def _settle(self, job: Job, *, is_closing: bool = False) -> None:
        """Say how a job ended whose process has, or let it wait for another try.

        Args:
            job: that was taken.
            is_closing: whether this host has ended it.
        """
        try:
            state = Run.read(job.folder).state
        except (RequestError, TamperedError) as error:
            _log.error("job %s: %s", job.id, error)
            return self._queue.settle(job, "failed", _GONE)
        job = self._queue.find(job.id)  # it may have been cancelled in between
        ends = _end(job, state, is_closing=is_closing)
        if ends == "queued":
            return self._queue.put_back(job, counted=not is_closing)
        if ends == "cancelled":
            withdraw(job.folder)
        said = self._executor.logs(job.folder)[-_LAST:].strip()
        wordless = state == "queued" and ends == "failed"
        why = f"its process ended before it began: {said}" if wordless else None
        return None if ends == "running" else self._queue.settle(job, ends, why)


def _end(job: Job, state: State, *, is_closing: bool) -> JobState:
    """Return how a job stands whose process has ended.

    Args:
        job: as it stood.
        state: of its run.
        is_closing: whether the host has ended it, so that the next one goes on.
    """
    if state in ("done", "failed", "timed out"):
        return state
    if job.is_cancelled:
        return "cancelled"
    if is_closing:
        return "queued"
    if state in ("interrupted", "running"):  # somebody else has begun it a moment ago
        return state
    if job.tries < _TRIES:
        return "queued"
    return "killed" if state == "killed" else "failed"


def _is_locked(folder: Path) -> bool:
    """Return whether a process holds the lock of a run."""
    if not folder.is_dir():
        return False
    try:
        with run_lock(folder):
            return False
    except Timeout:
        return True
