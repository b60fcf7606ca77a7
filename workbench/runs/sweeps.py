"""Sweeps: one notebook executed at many points, several at once, each a run of its own.

The folder of a sweep holds its plan, written once, and the notebook as it was then. What has
happened is in the records of its runs, so a sweep that was killed goes on without repeating one,
and comes to the same table whatever the number of workers.
"""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import shutil
import signal
import threading
import time
import warnings
from collections import Counter, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any

import psutil
from filelock import FileLock, Timeout

from workbench import journal
from workbench.errors import RequestError, RunError, RunInterruptedError, TamperedError
from workbench.home import home, read_json, write_json
from workbench.listings import Listing
from workbench.runs.envelopes import Envelope, make_envelope
from workbench.runs.executors import Executor, LocalExecutor
from workbench.runs.narration import SweepNarrator
from workbench.runs.notebooks import read_notebook
from workbench.runs.parameters import bind, declared, source_of, value_of
from workbench.runs.queueing import Limits, check_out, new_id, queue
from workbench.runs.records import Run
from workbench.runs.spaces import make_points
from workbench.runs.warm import WarmParent, can_fork
from workbench.types import JSON

if TYPE_CHECKING:
    import pandas

__all__ = ["Halving", "Sweep", "SweepList", "find_sweep", "go_on", "list_sweeps", "plan", "sweep"]

_FORMAT = 1
_FILE = "sweep.json"
_TRIES = 3  # at a run whose kernel dies; one in which a cell raises is not tried again
_LOOK_EVERY = 0.05  # seconds
_FALLS = ("loss", "mse", "mae", "rmse", "error")  # endings of figures of which less is better


@dataclass(frozen=True)
class Halving:
    """Successive halving: at steps `first`, 2 × `first`, ... the worse half is stopped.

    It is the synchronous kind (Jamieson and Talwalkar, 2016), so that who is stopped depends on the
    figures alone, and not on which run was faster.

    Args:
        metric: that the notebook records with `step=`, for instance by `wb.RecordEpochs`.
        first: the step of the first look, in the notebook's own unit.

    Raises:
        RequestError: the step is not a whole number from 1 up.
    """

    metric: str
    first: int

    def __post_init__(self) -> None:
        if not isinstance(self.first, int) or self.first < 1:
            raise RequestError(f"first look of halving is {self.first!r}, expected 1 or more")

    @classmethod
    def parse(cls, text: str) -> Halving:
        """Return the halving that `METRIC:STEP` says.

        Raises:
            RequestError: it says none.
        """
        metric, _, step = text.rpartition(":")
        if not metric or not step.isdecimal():
            raise RequestError(
                f"halving {text!r:.60} is not understood: expected a metric and the step of the "
                "first look, as in 'validation_loss:1'"
            )
        return cls(metric, int(step))

    def best(self, values: Mapping[str, float]) -> set[str]:
        """Return the better half of runs, rounded up; of equal ones, the first."""
        falls = self.metric.endswith(_FALLS)
        ranked = sorted(values, key=lambda run: values[run] if falls else -values[run])
        return set(ranked[: math.ceil(len(ranked) / 2)])


class Sweep:
    """One notebook executed at many points.

    Args:
        folder: of its plan.
        record: the content of `sweep.json`.
    """

    def __init__(self, folder: Path, record: JSON) -> None:
        self.folder, self.record = folder, record

    @classmethod
    def read(cls, folder: Path) -> Sweep:
        """Return the sweep in `folder`.

        Raises:
            RequestError: there is none.
            TamperedError: its plan cannot be read, or is of a newer format.
        """
        try:
            record = read_json(folder / _FILE)
            form, _ = record["format"], record["runs"]
        except FileNotFoundError:
            raise RequestError(f"no sweep in {str(folder)!r}: it holds no {_FILE}") from None
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise TamperedError(
                f"{folder / _FILE} is not the plan of a sweep: {error!r}; restore it, or move its "
                "folder elsewhere"
            ) from None
        if form != _FORMAT:
            raise TamperedError(
                f"{folder / _FILE} is of format {form!r}, this workbench reads format {_FORMAT}: "
                "use the workbench that wrote it"
            )
        return cls(folder, record)

    @property
    def id(self) -> str:
        """Its name: moment, notebook, four hexadecimal digits."""
        return str(self.record["id"])

    @property
    def name(self) -> str:
        """Its id, by which it is found."""
        return self.id

    @property
    def points(self) -> list[JSON]:
        """The values of the parameters that were swept, one mapping a run."""
        return [
            {name: value_of(source) for name, source in point.items()}
            for point in self.record["points"]
        ]

    @property
    def folders(self) -> list[Path]:
        """Where its runs are, in the order of the points."""
        return [Path(path) for path in self.record["folders"]]

    @property
    def runs(self) -> list[Run]:
        """Its runs as they stand, in the order of the points."""
        return [Run.read(folder) for folder in self.folders]

    @property
    def stopped(self) -> dict[str, str]:
        """Why halving has stopped a run, by its id."""
        return dict(self.record["stopped"])

    def table(self) -> pandas.DataFrame:
        """Return one row a point: its values, state, and metrics; of several seeds, mean ± spread.

        The spread is the standard deviation between seeds, in a column of its own.
        """
        import pandas

        names = [name for name in self.record["points"][0] if name != "seed" or not self._seeded]
        runs = self.runs
        rows = [
            {**{n: _hashable(p[n]) for n in names}, "state": _standing(self, r), **r.metrics}
            for p, r in zip(self.points, runs, strict=True)
        ]
        table = pandas.DataFrame(rows, index=pandas.Index([r.id for r in runs], name="id"))
        return _over_seeds(table, names) if self._seeded else table

    def best(self, metric: str) -> Run:
        """Return the run with the best last value of a metric; of a loss or an error, the least.

        Raises:
            RequestError: no run has recorded it.
        """
        found = {run.id: run for run in self.runs if metric in run.metrics and run.state == "done"}
        if not found:
            known = sorted({name for run in self.runs for name in run.metrics})
            raise RequestError(
                f"no run of sweep {self.id} that is done has recorded {metric!r}: "
                f"recorded were {', '.join(known) or 'none'}"
            )
        sign = 1 if metric.endswith(_FALLS) else -1
        return min(found.values(), key=lambda run: sign * run.metrics[metric])

    @property
    def _seeded(self) -> bool:
        return bool(self.record["seeds"])

    def __len__(self) -> int:
        return len(self.record["points"])

    def _repr_html_(self) -> str:
        html: str = self.table().to_html()
        return html

    def __repr__(self) -> str:
        return f"Sweep {self.id} of {len(self)} runs\n{self.table().to_string(max_rows=40)}"


def sweep(
    notebook: str | Path,
    /,
    *,
    samples: int | None = None,
    seeds: int | None = None,
    jobs: int | None = None,
    halving: Halving | None = None,
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
        halving: stops hopeless runs, when asked.
        deterministic: as `run` takes it.
        out: the folder of the sweep and its runs, absent or empty; by default in the home.
        space: by the names of parameters, a list of alternatives, `wb.Uniform`, `wb.LogUniform`,
            or a single value.

    Raises:
        RequestError: the notebook, a parameter or a value cannot be used; nothing was started.
        RunInterruptedError: Ctrl-C or SIGTERM; `workbench resume` goes on.
    """
    points = make_points(space, samples=samples, seeds=seeds)
    envelope = make_envelope(deterministic, threads=1)
    made = plan(notebook, points, envelope=envelope, halving=halving, seeds=seeds, out=out)
    return go_on(made, jobs=jobs)


def plan(
    notebook: str | Path,
    points: Sequence[Mapping[str, Any]],
    *,
    envelope: Envelope | None = None,
    limits: Limits | None = None,
    halving: Halving | None = None,
    seeds: int | None = None,
    out: str | Path | None = None,
) -> Sweep:
    """Return a sweep that has not begun, kept on disk; every point has been checked.

    Args:
        notebook: its path.
        points: values by parameter, one mapping a run.
        envelope: of all runs; by default that of this machine with one thread.
        limits: of each run.
        halving: stops hopeless runs.
        seeds: how many runs of one point, one a seed, stand side by side in `points`.
        out: the folder of the sweep and its runs.

    Raises:
        RequestError: the notebook or a point cannot be used.
    """
    path = Path(notebook).expanduser().absolute()
    known = declared(read_notebook(path))
    bound = [bind(known, point) for point in points]
    identity = f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{path.stem}-{secrets.token_hex(2)}"
    if out is not None:
        check_out(Path(out))
    folder = Path(out).expanduser().absolute() if out else home() / "sweeps" / identity
    ids: list[str] = []
    for _ in points:
        ids.append(new_id(path, ids))
    width = len(str(len(ids)))
    places = [
        folder / f"{n:0{width}d}" if out else home() / "runs" / run for n, run in enumerate(ids, 1)
    ]
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy2(path, folder / "notebook.ipynb")
    record = {
        "format": _FORMAT,
        "id": identity,
        "created": journal.now(),
        "notebook": str(path),
        "points": [{n: source_of(v) for n, v in point.items()} for point in bound],
        "seeds": seeds,
        "runs": ids,
        "folders": [str(place) for place in places],
        "envelope": (envelope or make_envelope(threads=1)).to_json(),
        "limits": (limits or Limits()).to_json(),
        "halving": vars(halving) if halving else None,
        "stopped": {},
        "looked_at": 0,
    }
    write_json(folder / _FILE, record)
    return Sweep(folder, record)


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
        if any(_is_left(run) for run in made.runs):
            tell = stack.enter_context(SweepNarrator(made.id, made.points))
            warm = can_fork() and not cold
            parent = stack.enter_context(WarmParent(envelope)) if warm else None
            executor = stack.enter_context(contextlib.closing(LocalExecutor(parent)))
            stack.enter_context(_interruptible())
            _Work(made, executor, jobs, tell).all()
    return Sweep.read(made.folder)


class _Work:
    """What is done to bring a sweep to its end.

    Args:
        made: the sweep.
        executor: of its runs.
        jobs: how many at once.
        tell: called with the number of a run from 0, its state and its metrics.
    """

    def __init__(
        self, made: Sweep, executor: Executor, jobs: int, tell: Callable[[int, Run], None]
    ) -> None:
        self._made, self._executor, self._jobs, self._tell = made, executor, jobs, tell
        self._number = {folder: i for i, folder in enumerate(made.folders)}

    def all(self) -> None:
        """Execute every run, up to looks of halving where that is asked for."""
        asked = self._made.record["halving"]
        if asked:
            self._halve(Halving(**asked))
        self._execute(self._alive(), lambda run: not _is_left(run), {})

    def _alive(self) -> list[Path]:
        """Return the runs that halving has not stopped."""
        stopped = self._made.record["stopped"]
        return [
            folder
            for folder, run in zip(self._made.folders, self._made.record["runs"], strict=True)
            if run not in stopped
        ]

    def _halve(self, halving: Halving) -> None:
        """Execute up to each look, and stop the worse half there, until one is left."""
        step = 2 * self._made.record["looked_at"] or halving.first
        while len(alive := self._alive()) > 1:
            limit = {"WORKBENCH_STOP_AT": f"{halving.metric}:{step}"}
            has_come = partial(_has_come, metric=halving.metric, step=step)
            self._execute(alive, has_come, limit)
            runs = [Run.read(folder) for folder in alive]
            values = {
                run.id: value
                for run in runs
                if (value := _value_at(run, halving.metric, step)) is not None
            }
            if all(run.state != "interrupted" for run in runs):
                return  # all have ended before this look
            self._stop({run.id for run in runs if _is_left(run)} - halving.best(values), step)
            step *= 2

    def _stop(self, worse: set[str], step: int) -> None:
        metric = self._made.record["halving"]["metric"]
        reasons = {run: f"among the worse half of {metric} at step {step}" for run in worse}
        self._made.record["stopped"] |= reasons
        self._made.record["looked_at"] = step
        write_json(self._made.folder / _FILE, self._made.record)

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
                    folder = waiting.popleft()
                    if len(going) < self._jobs and self._begin(folder, is_over, variables):
                        going.add(folder)
                        tries[folder] += 1
                    elif not is_over(Run.read(folder)):
                        waiting.append(folder)
                for folder in self._executor.poll():
                    going.remove(folder)
                    if not is_over(self._ended(folder)) and tries[folder] < _TRIES:
                        waiting.append(folder)
                time.sleep(_LOOK_EVERY)
        except KeyboardInterrupt:
            self._end(going)
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
        self._tell(self._number[folder], run)
        return needed

    def _ended(self, folder: Path) -> Run:
        """Return a run whose process has ended.

        Raises:
            RunError: it left no word in the record.
        """
        run = Run.read(folder)
        self._tell(self._number[folder], run)
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


class SweepList(Listing[Sweep]):
    """The sweeps of this home, oldest first, indexed by number, id, unique prefix, or `"last"`."""

    kind = "sweep"

    def __repr__(self) -> str:
        lines = (f"Sweep {s.id}: {len(s)} runs of {s.record['notebook']}" for s in self)
        return "\n".join(lines) or "no sweeps yet: workbench sweep NOTEBOOK makes one"


def list_sweeps() -> SweepList:
    """Return the sweeps of this home, oldest first; of one that cannot be read, warn."""
    found = []
    for path in (home() / "sweeps").glob(f"*/{_FILE}"):
        try:
            found.append(Sweep.read(path.parent))
        except TamperedError as error:  # one damaged plan must not hide all the others
            warnings.warn(str(error), stacklevel=2)
    return SweepList(sorted(found, key=lambda made: str(made.record["created"])))


def find_sweep(name: str) -> Sweep | None:
    """Return a sweep by its id, a unique prefix of one, or its folder; None where there is none."""
    path = Path(name).expanduser()
    if (path / _FILE).exists():
        return Sweep.read(path.absolute())
    found = [made for made in list_sweeps() if name and made.id.startswith(name)]
    return found[0] if len(found) == 1 else None


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


def _is_left(run: Run) -> bool:
    """Return whether a run has not come to an end of its own."""
    return run.state in ("queued", "running", "interrupted", "killed")


def _has_come(run: Run, *, metric: str, step: int) -> bool:
    """Return whether a run has ended, or come as far as a look of halving."""
    if not _is_left(run):
        return True
    return run.state == "interrupted" and _value_at(run, metric, step) is not None


def _value_at(run: Run, metric: str, step: int) -> float | None:
    """Return a metric at the first step from `step` on that it was recorded at; else the last."""
    lines = [
        line
        for line in journal.read_lines(run.folder / "metrics.jsonl")
        if line["name"] == metric and "step" in line
    ]
    values = [line["value"] for line in lines if line["step"] >= step]
    if values:
        return float(values[0])
    return float(lines[-1]["value"]) if lines and run.state == "done" else None


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


def _standing(made: Sweep, run: Run) -> str:
    return "stopped" if run.id in made.record["stopped"] else run.state


def _hashable(value: Any) -> Any:
    try:
        hash(value)
    except TypeError:
        return repr(value)
    return value


def _over_seeds(table: pandas.DataFrame, names: list[str]) -> pandas.DataFrame:
    """Return a row a point in place of one a seed: how many are done, mean and spread."""
    import pandas

    metrics = [c for c in table.columns if c not in (*names, "state")]
    rows = []
    groups = table.groupby(names, sort=False, dropna=False) if names else [((), table)]
    for key, group in groups:
        done = group[group["state"] == "done"]
        row: JSON = dict(zip(names, key if isinstance(key, tuple) else (key,), strict=True))
        row["done"] = f"{len(done)} of {len(group)}"
        for metric in metrics:
            row[metric] = done[metric].mean()
            row[f"{metric} ±"] = done[metric].std()
        rows.append(row)
    return pandas.DataFrame(rows)
