"""The record of a run on disk, and the list of all of them.

`run.json` is ours and says what happened, whatever the executed notebook's metadata says. A process
that works on a run holds a lock in its folder, so a record that says running while nobody holds the
lock is that of a run that was killed.
"""

from __future__ import annotations

import hashlib
import os
import signal
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from filelock import FileLock, Timeout

from workbench.errors import RequestError, TamperedError
from workbench.home import read_json
from workbench.journal import read_lines
from workbench.listings import Listing
from workbench.types import JSON

if TYPE_CHECKING:
    import pandas

    from workbench.registry import ModelVersion

__all__ = ["ENDED", "FORMAT", "Run", "RunList", "State", "brief_of", "remembered", "run_lock"]

FORMAT = 1
_KEYS = (
    *("format", "id", "state", "notebook", "parameters"),
    *("started", "seconds", "metrics", "published", "datasets"),
)
_BRIEF = (*_KEYS, "queued", "ended", "sweep", "requirements", "seed")
_TRIES, _PAUSE = 5, 0.02  # a look for a lock takes it for a moment, and two may look at once
State = Literal["queued", "running", "done", "failed", "interrupted", "killed", "timed out"]
ENDED = ("done", "failed", "interrupted", "killed", "timed out")


class Run:
    """One execution of a notebook, as its record says.

    Args:
        folder: what the run left: `notebook.ipynb`, `run.json`, its journals and trainings.
        brief: of the content of `run.json`, what lists show.
    """

    def __init__(self, folder: Path, brief: JSON) -> None:
        self.folder = folder
        self._brief = brief

    @classmethod
    def read(cls, folder: Path) -> Run:
        """Return the run in `folder`.

        Raises:
            RequestError: there is no run.
            TamperedError: its record cannot be read, or is of a format that this workbench does
                not read.
        """
        record = _true(folder, _record(folder))
        run = cls(folder, brief_of(record))
        run.record = record
        return run

    @cached_property
    def record(self) -> JSON:
        """The content of `run.json`."""
        return _true(self.folder, _record(self.folder))

    @property
    def id(self) -> str:
        """Its name: moment, notebook, four hexadecimal digits."""
        return str(self._brief["id"])

    @property
    def name(self) -> str:
        """Its id, by which it is found."""
        return self.id

    @property
    def state(self) -> State:
        """How it stands: queued, running, done, failed, interrupted, killed, or timed out."""
        state: State = self._brief["state"]
        return state

    @property
    def parameters(self) -> JSON:
        """Every parameter of the notebook with the value that it had."""
        return dict(self._brief["parameters"])

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each recorded name."""
        return dict(self._brief["metrics"])

    @property
    def published(self) -> list[str]:
        """The references of the model versions that it published, oldest first."""
        return list(self._brief["published"])

    @property
    def sweep(self) -> str | None:
        """The id of the sweep that it is of, or None."""
        sweep = self._brief.get("sweep")
        return str(sweep["id"]) if sweep else None

    @property
    def requirements(self) -> list[JSON]:
        """What was required of it, and whether it holds."""
        return list(self._brief.get("requirements") or ())

    @property
    def versions(self) -> list[ModelVersion]:
        """The model versions that it published, oldest first."""
        from workbench.registry import version

        return [version(ref) for ref in self.published]

    @property
    def notebook(self) -> Path:
        """The executed notebook."""
        return self.folder / "notebook.ipynb"

    @property
    def source(self) -> Path:
        """The notebook that was executed, where it was found."""
        return Path(self._brief["notebook"]["path"])

    @property
    def is_behind(self) -> bool:
        """Whether the notebook has changed since, or is gone."""
        try:
            found = hashlib.sha256(self.source.read_bytes()).hexdigest()
        except OSError:
            return True
        return bool(found != self._brief["notebook"]["sha256"])

    def stop(self) -> None:
        """Ask the process that executes it to end it, keeping what it has.

        Raises:
            RequestError: no process executes it.
        """
        if self.state != "running":
            raise RequestError(f"run {self.id} is {self.state}: there is nothing to stop")
        os.kill(int(self.record["pid"]), signal.SIGTERM)

    @property
    def began(self) -> str:
        """The moment that it is listed by, in UTC."""
        return str(self._brief["started"] or self._brief.get("queued") or "")

    @property
    def seconds(self) -> float | None:
        """How long its last attempt took; None of one that has not ended."""
        seconds: float | None = self._brief["seconds"]
        return seconds

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Run) and self.folder == other.folder

    def __hash__(self) -> int:
        return hash(self.folder)

    def __repr__(self) -> str:
        metrics = "".join(f", {name} {value:.6g}" for name, value in self.metrics.items())
        lasted = "" if self.seconds is None else f" after {self.seconds:.1f} s"
        return f"Run {self.id}: {self.state}{lasted}{metrics}"


class RunList(Listing[Run]):
    """The runs of this home, oldest first, indexed by number, id, unique prefix, or `"last"`."""

    kind = "run"

    def filter(self, keep: Callable[[Run], bool]) -> RunList:
        """Return those that `keep` is true of."""
        return RunList([run for run in self if keep(run)])

    def table(self) -> pandas.DataFrame:
        """Return one row a run: state, notebook, start, duration, parameters and metrics."""
        import pandas

        rows = [
            {
                "state": run.state,
                "notebook": run.source.stem,
                "started": run.began,
                "seconds": run.seconds,
                **{f"parameters.{name}": value for name, value in run.parameters.items()},
                **{f"metrics.{name}": value for name, value in run.metrics.items()},
            }
            for run in self
        ]
        return pandas.DataFrame(rows, index=pandas.Index([run.id for run in self], name="id"))

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "no runs yet: workbench run NOTEBOOK makes one"


def brief_of(record: JSON) -> JSON:
    """Return of a record what lists show, which is small."""
    return {key: record[key] for key in _BRIEF if key in record}


def remembered(folder: Path) -> dict[str, Any]:
    """Return what the kernel has left in the journals: metrics, published versions, datasets."""
    events, lines = read_lines(folder / "events.jsonl"), read_lines(folder / "metrics.jsonl")
    trained = {event.get("name") for event in events if event["event"] == "fit"}
    lines = [line for line in lines if not line.get("carried") or line["training"] in trained]
    loads = [(e["dataset"], e["fingerprint"]) for e in events if e["event"] == "load"]
    return {
        "metrics": {line["name"]: line["value"] for line in lines},
        "tolerances": {line["name"]: line.get("tolerance") for line in lines},
        "published": [line["ref"] for line in events if line["event"] == "publish"],
        "datasets": [{"name": n, "fingerprint": f} for n, f in dict.fromkeys(loads)],
    }


def run_lock(folder: Path) -> FileLock:
    """Return the lock that a living run holds; the system lets go of it when the process ends."""
    return FileLock(folder / ".lock", timeout=0)


def _true(folder: Path, record: JSON) -> JSON:
    """Return a record as it stands, though nobody may have lived to write that."""
    if record["state"] == "running" and not _is_locked(folder):
        record = _record(folder)  # it may have ended in between
        if record["state"] == "running":
            record["state"] = "killed"
    if record["state"] in ("running", "killed"):
        record.update(remembered(folder))
    return record


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
