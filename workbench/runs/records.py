"""The record of a run on disk, and the list of all of them.

`run.json` is ours and says what happened, whatever the executed notebook's metadata says. A process
that works on a run holds a lock in its folder, so a record that says running while nobody holds the
lock is that of a run that was killed.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, overload

from filelock import FileLock, Timeout

from workbench.errors import RequestError, TamperedError, UnknownNameError
from workbench.home import home, read_json
from workbench.journal import read_lines
from workbench.types import JSON

if TYPE_CHECKING:
    import pandas

__all__ = ["FORMAT", "Run", "RunList", "State", "list_runs", "remembered", "run_lock"]

FORMAT = 1
_KEYS = (
    *("format", "id", "state", "notebook", "parameters"),
    *("started", "seconds", "metrics", "published", "datasets"),
)
_TRIES, _PAUSE = 5, 0.02  # a look for a lock takes it for a moment, and two may look at once
State = Literal["running", "done", "failed", "interrupted", "killed"]


@dataclass(frozen=True)
class Run:
    """One execution of a notebook, as its record says.

    Args:
        folder: what the run left: `notebook.ipynb`, `run.json`, its journals and trainings.
        record: the content of `run.json`.
    """

    folder: Path
    record: JSON = field(repr=False, compare=False)

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Return the run in `folder`.

        Raises:
            RequestError: there is no run.
            TamperedError: its record cannot be read, or is of a format that this workbench does
                not read.
        """
        record = _record(folder)
        if record["state"] == "running" and not _is_locked(folder):
            record = _record(folder)  # it may have ended in between
            if record["state"] == "running":
                record["state"] = "killed"
        if record["state"] in ("running", "killed"):
            record.update(remembered(folder))
        return cls(folder, record)

    @property
    def id(self) -> str:
        """Its name: moment, notebook, four hexadecimal digits."""
        return str(self.record["id"])

    @property
    def state(self) -> State:
        """How it stands: running, done, failed, interrupted, or killed."""
        state: State = self.record["state"]
        return state

    @property
    def parameters(self) -> JSON:
        """Every parameter of the notebook with the value that it had."""
        return dict(self.record["parameters"])

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each recorded name."""
        return dict(self.record["metrics"])

    @property
    def published(self) -> list[str]:
        """The references of the model versions that it published, oldest first."""
        return list(self.record["published"])

    @property
    def notebook(self) -> Path:
        """The executed notebook."""
        return self.folder / "notebook.ipynb"

    def __repr__(self) -> str:
        metrics = "".join(f", {name} {value:.6g}" for name, value in self.metrics.items())
        seconds = self.record["seconds"]
        lasted = "" if seconds is None else f" after {seconds:.1f} s"
        return f"Run {self.id}: {self.state}{lasted}{metrics}"


class RunList(Sequence[Run]):
    """The runs of this home, oldest first, indexed by number, id, unique prefix, or `"last"`."""

    def __init__(self, runs: Sequence[Run]) -> None:
        self._runs = list(runs)

    def __len__(self) -> int:
        return len(self._runs)

    def __iter__(self) -> Iterator[Run]:
        return iter(self._runs)

    @overload
    def __getitem__(self, key: int | str) -> Run: ...
    @overload
    def __getitem__(self, key: slice) -> RunList: ...
    def __getitem__(self, key: int | str | slice) -> Run | RunList:
        if isinstance(key, slice):
            return RunList(self._runs[key])
        return self._runs[key] if isinstance(key, int) else self._named(key)

    def _named(self, name: str) -> Run:
        if name == "last" and self._runs:
            return self._runs[-1]
        found = [run for run in self._runs if name and run.id.startswith(name)]
        exact = [run for run in found if run.id == name]
        if len(exact or found) > 1:
            ids = ", ".join(run.id for run in found)
            raise RequestError(f"run {name!r} is not one run but {len(found)}: {ids}; say more")
        if not found:
            raise UnknownNameError("run", name, [run.id for run in self._runs])
        return (exact or found)[0]

    def table(self) -> pandas.DataFrame:
        """Return one row a run: state, notebook, start, duration, parameters and metrics."""
        import pandas

        rows = [
            {
                "state": run.state,
                "notebook": Path(run.record["notebook"]["path"]).stem,
                "started": run.record["started"],
                "seconds": run.record["seconds"],
                **{f"parameters.{name}": value for name, value in run.parameters.items()},
                **{f"metrics.{name}": value for name, value in run.metrics.items()},
            }
            for run in self._runs
        ]
        return pandas.DataFrame(rows, index=pandas.Index([run.id for run in self._runs], name="id"))

    def __repr__(self) -> str:
        return "\n".join(map(repr, self._runs)) or "no runs yet: workbench run NOTEBOOK makes one"


def list_runs() -> RunList:
    """Return the runs of this home, oldest first; of one that cannot be read, warn.

    A run that was given another folder is not among them; `Run.read(folder)` reads it.
    """
    folders = [path.parent for path in (home() / "runs").glob("*/run.json")]
    runs = []
    for folder in folders:
        try:
            runs.append(Run.read(folder))
        except TamperedError as error:  # one damaged record must not hide all the others
            warnings.warn(str(error), stacklevel=2)
    return RunList(sorted(runs, key=lambda run: (run.record["started"], run.id)))


def remembered(folder: Path) -> dict[str, Any]:
    """Return what the kernel has left in the journals: metrics, published versions, datasets."""
    events = read_lines(folder / "events.jsonl")
    loads = [(e["dataset"], e["fingerprint"]) for e in events if e["event"] == "load"]
    return {
        "metrics": {line["name"]: line["value"] for line in read_lines(folder / "metrics.jsonl")},
        "published": [line["ref"] for line in events if line["event"] == "publish"],
        "datasets": [{"name": n, "fingerprint": f} for n, f in dict.fromkeys(loads)],
    }


def run_lock(folder: Path) -> FileLock:
    """Return the lock that a living run holds; the system lets go of it when the process ends."""
    return FileLock(folder / ".lock", timeout=0)


def _is_locked(folder: Path) -> bool:
    """Return whether a living run holds its lock, and not another reader that looks as well."""
    for _ in range(_TRIES):
        try:
            with run_lock(folder):
                return False
        except Timeout:
            time.sleep(_PAUSE)
    return True


def _record(folder: Path) -> JSON:
    try:
        record: JSON = read_json(folder / "run.json")
    except FileNotFoundError:
        raise RequestError(f"no run in {str(folder)!r}: it holds no run.json") from None
    except (OSError, ValueError) as error:
        raise TamperedError(_damaged(folder, f"it cannot be read: {error}")) from None
    if not isinstance(record, dict):
        raise TamperedError(_damaged(folder, f"it holds a {type(record).__name__}"))
    if record.get("format") != FORMAT:
        raise TamperedError(
            f"{folder / 'run.json'} is of format {record.get('format')!r}, this workbench reads "
            f"format {FORMAT}: use the workbench that wrote it"
        )
    missing = [key for key in _KEYS if key not in record]
    if missing:
        raise TamperedError(_damaged(folder, f"it lacks {', '.join(missing)}"))
    return record


def _damaged(folder: Path, found: str) -> str:
    return (
        f"{folder / 'run.json'} is not the record of a run: {found}, expected the JSON that the "
        "run wrote; restore it, or move its folder elsewhere"
    )
