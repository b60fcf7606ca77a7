"""A sweep on disk: one notebook executed at many points, each a run of its own.

Its folder holds its plan and the notebook as it was then. What has happened is in the records of
its runs, so a sweep that was killed goes on without repeating one, and comes to the same table
whatever the number of workers.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench import journal
from workbench.errors import RequestError, TamperedError
from workbench.home import home, read_json, write_json
from workbench.listings import Listing
from workbench.runs.envelopes import Envelope, make_envelope
from workbench.runs.halving import Goal, Halving, goal_of
from workbench.runs.notebooks import read_notebook
from workbench.runs.parameters import bind, declared, source_of, value_of
from workbench.runs.queueing import Limits, check_out, new_id, secret_variable
from workbench.runs.records import Run
from workbench.types import JSON

if TYPE_CHECKING:
    import pandas

__all__ = ["Sweep", "SweepList", "find_sweep", "list_sweeps", "plan"]

_FORMAT = 1
_FILE = "sweep.json"


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
        """Its runs as they stand, in the order of the points; without those that were removed."""
        return [run for _, run in self._rows()]

    def _rows(self) -> Iterator[tuple[JSON, Run]]:
        for point, folder in zip(self.points, self.folders, strict=True):
            if (folder / "run.json").exists():
                yield point, Run.read(folder)

    @property
    def stopped(self) -> dict[str, str]:
        """Why halving has stopped a run, by its id."""
        return dict(self.record["stopped"])

    def table(self) -> pandas.DataFrame:
        """Return one row a point: its values, state, and metrics; of several seeds, mean ± spread.

        The spread is the standard deviation between seeds, in a column of its own.
        """
        import pandas

        named = dict.fromkeys(name for point in self.record["points"] for name in point)
        names = [name for name in named if name != "seed" or not self._seeded]
        found = list(self._rows())
        rows = [
            {
                **{name: _hashable(point.get(name)) for name in names},
                "state": "stopped" if run.id in self.record["stopped"] else run.state,
                **{f"metrics.{m}" if m in named else m: v for m, v in run.metrics.items()},
            }
            for point, run in found
        ]
        table = pandas.DataFrame(rows, index=pandas.Index([run.id for _, run in found], name="id"))
        return _over_seeds(table, names) if self._seeded and rows else table

    def best(self, metric: str, goal: Goal | None = None) -> Run:
        """Return the run that is done with the best last value of a metric.

        Args:
            metric: a recorded name.
            goal: `"min"` or `"max"`, what of it is better; None where its name says so.

        Raises:
            RequestError: no run has recorded it, or what is better is not known.
        """
        sign = 1 if goal_of(metric, goal) == "min" else -1
        found = [run for run in self.runs if metric in run.metrics and run.state == "done"]
        if not found:
            known = sorted({name for run in self.runs for name in run.metrics})
            raise RequestError(
                f"no run of sweep {self.id} that is done has recorded {metric!r}: "
                f"recorded were {', '.join(known) or 'none'}"
            )
        return min(found, key=lambda run: sign * run.metrics[metric])

    @property
    def _seeded(self) -> bool:
        return bool(self.record["seeds"])

    def stop(self, worse: Iterable[str], reason: str, step: int) -> None:
        """Write down which runs a look of halving has stopped.

        Args:
            worse: their ids.
            reason: why.
            step: of the look.
        """
        self.record["stopped"] |= dict.fromkeys(worse, reason)
        self.record["looked_at"] = step
        write_json(self.folder / _FILE, self.record)

    def __len__(self) -> int:
        return len(self.record["points"])

    def _repr_html_(self) -> str:
        html: str = self.table().to_html()
        return html

    def __repr__(self) -> str:
        return f"Sweep {self.id} of {len(self)} runs\n{self.table().to_string(max_rows=40)}"


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
    for name in {name for point in bound for name in point if (known or {})[name].is_secret}:
        raise RequestError(
            f"parameter {name!r} is a secret, which the plan of a sweep would keep: set the "
            f"environment variable {secret_variable(name)} for all its runs instead"
        )
    identity = new_id(path)
    if out is not None:
        check_out(Path(out))
    folder = Path(out).expanduser().absolute() if out else home() / "sweeps" / identity
    ids: dict[str, None] = {}  # a set that keeps its order
    for _ in points:
        ids[new_id(path, ids)] = None
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
        "runs": list(ids),
        "folders": [str(place) for place in places],
        "envelope": (envelope or make_envelope(threads=1)).to_json(),
        "limits": (limits or Limits()).to_json(),
        "halving": vars(halving) if halving else None,
        "stopped": {},
        "looked_at": 0,
    }
    write_json(folder / _FILE, record)
    return Sweep(folder, record)


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
    """Return a sweep by its folder, its id, or a prefix that fits one sweep; None without one.

    Raises:
        RequestError: the prefix fits several sweeps, or runs too.
    """
    path = Path(name).expanduser()
    if (path / _FILE).exists():
        return Sweep.read(path.absolute())
    sweeps = list_sweeps()
    found = [made.id for made in sweeps if name and made.id.startswith(name)]
    if not found or name in found:
        return sweeps[name] if found else None
    also = [folder.name for folder in (home() / "runs").glob(f"{name}*/")]
    if len(found) + len(also) > 1:
        listed = ", ".join([*found, *also][:5])
        raise RequestError(f"{name!r} is not one sweep or run but several: {listed}; say more")
    return sweeps[found[0]]


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
