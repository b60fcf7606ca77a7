"""Sweeping: the runs of a sweep executed, several at once, until none is left."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import threading
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
from filelock import FileLock, Timeout

from workbench.errors import RequestError, RunError, RunInterruptedError
from workbench.runs.envelopes import Envelope, make_envelope
from workbench.runs.executors import Executor, LocalExecutor
from workbench.runs.halving import Halving, value_at
from workbench.runs.narration import SweepNarrator
from workbench.runs.queueing import Limits, queue
from workbench.runs.records import Run
from workbench.runs.spaces import make_points
from workbench.runs.sweeps import Sweep, plan
from workbench.runs.warm import warm_parent

__all__ = ["go_on", "sweep"]

_TRIES = 3  # at a run whose kernel dies; one in which a cell raises is not tried again
_LOOK_EVERY = 0.05  # seconds


def sweep(
    notebook: str | Path,
    /,
    *,
    samples: int | None = None,
    seeds: int | None = None,
    jobs: int | None = None,
    halving: Halving | str | None = None,
    deterministic: str = "same-machine",
    out: str | Path | None = None,
    **space: Any,
) -> Sweep:
    """Execute a notebook at every point of a space, several at once, and return the sweep.

    Args:
        notebook: its path; it is only read.
        samples: how many values to draw from ranges for each combination of the rest.
        seeds: how many seeds, from 0, every point is run with.
        jobs: how many at once; by default as many as there are physical cores. It changes no
            number: a run has one thread, unless `OMP_NUM_THREADS` says otherwise.
        halving: stops hopeless runs, when asked; `"validation_loss:1"` is read by `Halving.parse`.
        deterministic: as `run` takes it.
        out: the folder of the sweep and its runs, absent or empty; by default in the home.
        space: by the names of parameters, a list of alternatives, `wb.Uniform`, `wb.LogUniform`,
            or a single value.

    Raises:
        RequestError: the notebook, a parameter or a value cannot be used; nothing was started.
        RunInterruptedError: Ctrl-C or SIGTERM; `workbench resume` goes on.
    """
    halving = Halving.parse(halving) if isinstance(halving, str) else halving
    points = make_points(space, samples=samples, seeds=seeds)
    envelope = make_envelope(deterministic, threads=1)
    made = plan(notebook, points, envelope=envelope, halving=halving, seeds=seeds, out=out)
    return go_on(made, jobs=jobs)


def go_on(made: Sweep, *, jobs: int | None = None, cold: bool = False) -> Sweep:
    """Execute the runs of a sweep that are left, and return it.

    Args:
        made: a sweep, new or begun.
        jobs: how many at once; by default as many as there are physical cores.
        cold: start every process afresh rather than fork it from a warm parent.

    Raises:
        RequestError: another process works at it.
        RunInterruptedError: Ctrl-C or SIGTERM.
    """
    jobs = jobs or psutil.cpu_count(logical=False) or os.cpu_count() or 1
    envelope = Envelope.from_json(made.record["envelope"])
    lock = FileLock(made.folder / ".lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        raise RequestError(
            f"sweep {made.id} is going on in another process: wait until it has ended"
        ) from None
    with ExitStack() as stack:
        stack.callback(lock.release)
        _queue_missing(made, envelope)
        if not all(_is_over(run) for run in made.runs):
            tell = stack.enter_context(SweepNarrator(made.id, made.points))
            warm = None if cold else stack.enter_context(warm_parent(envelope))
            executor = stack.enter_context(contextlib.closing(LocalExecutor(warm)))
            stack.enter_context(_interruptible())
            _Work(made, executor, jobs, tell).all()
    return Sweep.read(made.folder)


class _Work:
    """What is done to bring a sweep to its end.

    Args:
        made: the sweep.
        executor: of its runs.
        jobs: how many at once.
        tell: who tells about the runs.
    """

    def __init__(self, made: Sweep, executor: Executor, jobs: int, tell: SweepNarrator) -> None:
        self._made, self._executor, self._jobs, self._tell = made, executor, jobs, tell
        self._number = {folder: i for i, folder in enumerate(made.folders)}

    def all(self) -> None:
        """Execute every run, up to looks of halving where that is asked for."""
        asked = self._made.record["halving"]
        if asked:
            self._halve(Halving(**asked))
        self._execute(self._alive(), _is_over, {})

    def _alive(self) -> list[Path]:
        """Return the runs that halving has not stopped."""
        stopped = self._made.record["stopped"]
        return [
            folder
            for folder, run in zip(self._made.folders, self._made.record["runs"], strict=True)
            if run not in stopped
        ]

    def _halve(self, halving: Halving) -> None:
        """Execute up to each look, and stop the worse half there, until one is left.

        Raises:
            RequestError: no run has recorded the metric by step.
        """
        metric, step = halving.metric, 2 * self._made.record["looked_at"] or halving.first
        while len(alive := self._alive()) > 1:
            limit = {"WORKBENCH_STOP_AT": f"{metric}:{step}"}
            self._execute(alive, partial(_has_come, metric=metric, step=step), limit)
            runs = [Run.read(folder) for folder in alive]
            found = {run.id: value_at(run, metric, step) for run in runs}
            values = {run: value for run, value in found.items() if value is not None}
            if not values:
                known = sorted({name for run in runs for name in run.metrics})
                raise RequestError(
                    f"no run has recorded {metric!r} with step=, so none can be stopped by it: "
                    f"recorded were {', '.join(known) or 'none'}"
                )
            waiting = {run.id for run in runs if not _is_over(run)}
            if not waiting:
                return  # all have ended before this look
            worse = waiting - halving.best(values)
            self._made.stop(worse, f"among the worse half of {metric} at step {step}", step)
            step *= 2

    def _execute(
        self,
        folders: Sequence[Path],
        is_over: Callable[[Run], bool],
        variables: Mapping[str, str],
    ) -> None:
        """Execute runs until each is over, at most so many at once."""
        waiting, going, tries = deque(folders), set[Path](), Counter[Path]()
        try:
            while waiting or going:
                for _ in range(len(waiting)):
                    if len(going) >= self._jobs:
                        break
                    folder = waiting.popleft()
                    if self._begin(folder, is_over, variables):
                        going.add(folder)
                        tries[folder] += 1
                    elif not is_over(Run.read(folder)):
                        waiting.append(folder)  # another process is at it
                for folder in self._executor.poll():
                    going.remove(folder)
                    run = self._ended(folder)
                    if _died(run) and not is_over(run) and tries[folder] < _TRIES:
                        waiting.append(folder)
                time.sleep(_LOOK_EVERY)
        except (KeyboardInterrupt, RunError) as error:
            self._end(going)
            if isinstance(error, RunError):
                raise
            raise RunInterruptedError(
                f"sweep {self._made.id} is interrupted: `workbench resume {self._made.id}` goes on",
                folder=self._made.folder,
            ) from None

    def _begin(
        self, folder: Path, is_over: Callable[[Run], bool], variables: Mapping[str, str]
    ) -> bool:
        """Start a run, and return whether that was needed, and nobody else executes it."""
        run = Run.read(folder)
        needed = not is_over(run) and run.state != "running"
        if needed:
            self._executor.submit(folder, variables)
        self._tell(self._number[folder], run, going=needed)
        return needed

    def _ended(self, folder: Path) -> Run:
        """Return a run whose process has ended.

        Raises:
            RunError: it left no word in the record.
        """
        run = Run.read(folder)
        self._tell(self._number[folder], run, going=False)
        if run.state == "queued":
            raise RunError(
                f"the process of the run in {folder} ended without a word in its record: "
                f"{self._executor.logs(folder)[-2000:]}",
                folder=folder,
            )
        return run

    def _end(self, going: set[Path]) -> None:
        """Let the runs that go on keep what they have."""
        for folder in going:
            self._executor.cancel(folder)
        while going:
            going -= self._executor.poll().keys()
            time.sleep(_LOOK_EVERY)


def _queue_missing(made: Sweep, envelope: Envelope) -> None:
    """Make the folders of runs that are not there yet."""
    record = made.record
    rows = zip(record["runs"], made.folders, made.points, strict=True)
    for number, (identity, folder, point) in enumerate(rows):
        if (folder / "run.json").exists():
            continue
        shutil.rmtree(folder, ignore_errors=True)  # what a killed sweep had begun to make
        queue(
            record["notebook"],
            point,
            out=folder,
            copy=made.folder / "notebook.ipynb",
            envelope=envelope,
            limits=Limits(**record["limits"]),
            identity=identity,
            sweep={"id": made.id, "point": number},
        )


def _is_over(run: Run) -> bool:
    """Return whether a run has come to an end of its own."""
    return run.state not in ("queued", "running", "interrupted", "killed")


def _died(run: Run) -> bool:
    """Return whether it was not the notebook that ended a run, so that it may be tried again."""
    told = run.record["error"] or {}
    return run.state == "killed" and told.get("name") != "MemoryLimit"


def _has_come(run: Run, *, metric: str, step: int) -> bool:
    """Return whether a run has ended, or come as far as a look of halving."""
    return _is_over(run) or (run.state == "interrupted" and value_at(run, metric, step) is not None)


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Let SIGTERM interrupt as Ctrl-C does, for the while; only in the main thread."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
