"""Runs, trainings and sweeps removed: those that are named, or those that are old enough.

What goes is first moved, by one rename, into a folder `.trash-...` beside it, where no list looks,
and deleted there. Killed in between, it is still there whole, or gone but for that folder, which
`gc` sweeps.
"""

from __future__ import annotations

import contextlib
import math
import os
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Literal

from filelock import FileLock, Timeout

from workbench.errors import RequestError, TamperedError, UnknownNameError
from workbench.home import home, read_json
from workbench.runs.index import list_runs
from workbench.runs.records import ENDED, Run
from workbench.runs.requirements import to_compare_with

__all__ = ["GcResult", "Kind", "Removal", "discard", "gc", "named", "remove"]

Kind = Literal["run", "sweep", "training"]

_RECORDS: Mapping[Kind, str] = {
    **{"run": "run.json", "sweep": "sweep.json", "training": "training.json"}
}
_TRASH, _LOCK, _PIN = ".trash-", ".lock", "keep"
_MOMENT = 0.2  # seconds; whoever looks at a state takes its lock for less
_OLD = 3600.0  # seconds; no write takes as long, so an older temporary file has lost its writer


@dataclass(frozen=True)
class Removal:
    """Something that goes, or has gone, whole.

    Args:
        kind: what it is.
        folder: where it lies, or lay.
        size: in bytes.
        note: what one should know of it; empty if nothing.
    """

    kind: Kind
    folder: Path
    size: int
    note: str


@dataclass(frozen=True)
class GcResult:
    """What `gc` removed, or would.

    Args:
        runs: that no rule keeps.
        sweeps: whose runs all go.
        leftovers: what killed processes left: folders, temporary files, locks.
        kept: why a run that no rule keeps stays all the same, by id.
        size: of all that goes, in bytes.
    """

    runs: tuple[Removal, ...]
    sweeps: tuple[Removal, ...]
    leftovers: tuple[Path, ...]
    kept: Mapping[str, str]
    size: int


def remove(what: Sequence[str]) -> list[Path]:
    """Remove what is named, and return the folders that it was in.

    Args:
        what: as `named` takes it.

    Raises:
        RequestError: one of them is unknown, is not one, or is running; then nothing was removed.
    """
    return discard(named(what))


def named(what: Sequence[str]) -> list[Removal]:
    """Return what would go, a sweep before its runs; remove nothing.

    Args:
        what: ids of runs or unique prefixes of them, `last`, folders of runs, ids of sweeps, names
            of trainings of the home.

    Raises:
        RequestError: one of them is unknown, is not one, or is running.
        TamperedError: a folder was given and its run.json is not the record of a run.
    """
    meant = dict.fromkeys(pair for name in what for pair in _meant(name))
    removals = [_removal(kind, folder) for kind, folder in meant]
    _check_ended(*removals)
    return removals


def discard(removals: Sequence[Removal]) -> list[Path]:
    """Remove each, and return the folders; those that another process has removed are among them.

    Raises:
        RequestError: one has begun to run again, or may not be removed; those before it are gone.
    """
    trash = []
    try:
        for removal in removals:  # all by name first, since deleting takes its time
            trash += _moved(removal)
    finally:
        for folder in trash:
            shutil.rmtree(folder, ignore_errors=True)
        _mend_latest()
    left = [str(folder) for folder in trash if folder.exists()]
    if left:
        raise RequestError(
            f"what was removed is still in {', '.join(left)}, since it cannot all be deleted: see "
            "to its permissions, then run workbench gc"
        )
    return [removal.folder for removal in removals]


def gc(
    *,
    keep_days: float | None = None,
    keep_last: int | None = None,
    with_published: bool = False,
    dry_run: bool = False,
) -> GcResult:
    """Remove the runs of this home that no rule keeps, and what killed processes left behind.

    Never removed: what is queued or running, has a file called `keep` in its folder, is needed to
    compare later runs with, or published a model version that is still there. The runs of a sweep
    go together and with it, or stay together.

    Args:
        keep_days: keeps what began in that many days.
        keep_last: keeps that many of each notebook, the newest.
        with_published: whether those go too that published a version; the version stays.
        dry_run: whether to remove nothing and only say what would go.

    Raises:
        RequestError: there is no rule, or it is not a number from 0.
    """
    _check_rules(keep_days, keep_last)
    runs = list_runs()
    old = _old(runs, keep_days, keep_last)
    good = to_compare_with(runs)
    kept = {run.id: why for run in old if (why := _spared(run, good.get(run), with_published))}
    kept |= _bound(runs, {run for run in old if run.id not in kept})
    gone: list[Removal] = []
    for group in _groups(run for run in old if run.id not in kept):
        try:
            _check_ended(*group)  # before any of it goes
            gone += group if dry_run or discard(group) else []
        except RequestError as error:  # it was resumed a moment ago, or belongs to somebody else
            there = [removal for removal in group if removal.folder.exists()] or group
            kept |= {removal.folder.name: str(error) for removal in there if removal.kind == "run"}
            gone += [removal for removal in group if removal not in there]
    leftovers = {path: _size(path) for path in _leftovers()}
    for path in () if dry_run else leftovers:
        _sweep(path)
    if not dry_run:
        _mend_latest()
    size = sum(removal.size for removal in gone) + sum(leftovers.values())
    runs_gone, sweeps_gone = (tuple(r for r in gone if r.kind == kind) for kind in ("run", "sweep"))
    return GcResult(runs_gone, sweeps_gone, tuple(leftovers), kept, size)


def _meant(name: str) -> Iterator[tuple[Kind, Path]]:
    """Yield what a name or a folder stands for; of a sweep its runs too, which are still there."""
    path = Path(name).expanduser()
    if (path / _RECORDS["run"]).exists():
        yield "run", _checked(path.resolve())
        return
    if os.sep in name:
        raise RequestError(f"no run in {name!r}: expected the folder of one, which holds run.json")
    if name == "last":
        yield "run", list_runs()["last"].folder
        return
    there = [(kind, folder) for kind in _RECORDS for folder in _folders(kind)]
    exact = [(kind, folder) for kind, folder in there if folder.name == name]
    found = exact or [(k, f) for k, f in there if k == "run" and name and f.name.startswith(name)]
    if not found:
        known = {folder.name for _, folder in there}
        raise UnknownNameError("run, sweep or training", name, known)
    if len(found) > 1:
        listed = ", ".join(f"{kind} {folder.name}" for kind, folder in found)
        raise RequestError(f"{name!r} is not one thing but {len(found)}: {listed}; say more")
    yield found[0]
    if found[0][0] == "sweep":
        ids = _runs_of(found[0][1])
        yield from (("run", folder) for folder in _folders("run") if folder.name in ids)


def _checked(folder: Path) -> Path:
    """Return the folder that somebody gave, if nothing but a run is lost with it."""
    Run.read(folder)
    for place in (home(), Path.cwd()):
        if place.resolve().is_relative_to(folder):
            raise RequestError(f"run folder {str(folder)!r} holds {place} too: remove it by hand")
    return folder


def _folders(kind: Kind) -> list[Path]:
    """Return the folders of a kind that this home holds."""
    found = (path.parent for path in (home() / f"{kind}s").glob(f"*/{_RECORDS[kind]}"))
    return sorted(folder for folder in found if not folder.name.startswith("."))


def _runs_of(sweep: Path) -> set[str]:
    path = sweep / _RECORDS["sweep"]
    try:
        return {str(run) for run in read_json(path)["runs"]}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TamperedError(
            f"{path} does not say which runs are its own: {error!r}; remove them by id, and the "
            "folder by hand"
        ) from None


def _removal(kind: Kind, folder: Path) -> Removal:
    note = ""
    if kind == "run":
        try:
            published = ", ".join(Run.read(folder).published)
            note = f"its model versions stay: {published}" if published else ""
        except (RequestError, TamperedError):  # it is in the home, and it shall go
            note = "its record cannot be read"
    return Removal(kind, folder, _size(folder), note)


def _size(path: Path) -> int:
    """Return the bytes of a file, or of all files under a folder."""
    files = [os.path.join(root, name) for root, _, names in os.walk(path) for name in names]
    total = 0
    for file in files if path.is_dir() and not path.is_symlink() else [path]:
        with contextlib.suppress(OSError):  # somebody else sweeps too
            total += os.lstat(file).st_size
    return total


def _check_ended(*removals: Removal) -> None:
    """Check that nobody works on them, or on a training inside them."""
    for removal in removals:
        inner = removal.folder.glob(f"trainings/*/{_RECORDS['training']}")
        if not all(map(_is_free, (removal.folder / _LOCK, *(p.with_name(_LOCK) for p in inner)))):
            raise RequestError(
                f"{removal.kind} {removal.folder.name!r} is running: wait until it has ended, or "
                "stop it, and remove it then"
            )


def _is_free(lock: Path) -> bool:
    """Return whether nobody holds a lock, which is not made for that."""
    with contextlib.suppress(Timeout):
        if lock.exists():
            FileLock(lock, timeout=_MOMENT).acquire().lock.release()
        return True
    return False


def _moved(removal: Removal) -> list[Path]:
    """Return the trash that it lies in from now on; none where another process was faster."""
    trash = None
    _check_ended(removal)
    try:
        trash = Path(tempfile.mkdtemp(prefix=_TRASH, dir=removal.folder.parent))
        os.rename(removal.folder, trash / removal.folder.name)
    except OSError as error:
        if trash is not None:
            trash.rmdir()
        if not removal.folder.exists():
            return []
        raise RequestError(
            f"{removal.kind} {str(removal.folder)!r} cannot be removed: {error.strerror}"
        ) from None
    return [trash]


def _mend_latest() -> None:
    """Let `latest` lead to the newest run there is, where it leads nowhere."""
    link = home() / "latest"
    if not link.is_symlink() or link.exists():
        return
    new = link.with_name(f".latest-{os.getpid()}")
    with contextlib.suppress(OSError, RequestError):  # there may be no run
        link.unlink()
        new.symlink_to(list_runs()["last"].folder)
        os.replace(new, link)


def _check_rules(keep_days: float | None, keep_last: int | None) -> None:
    if keep_days is None and keep_last is None:
        raise RequestError(
            "gc has no rule of what to keep: pass keep_days, keep_last or both, as in "
            "workbench gc --keep-days 30 --keep-last 5"
        )
    for name, value in (("keep_days", keep_days), ("keep_last", keep_last)):
        if value is not None and not 0 <= value < math.inf:
            raise RequestError(f"{name} is {value}, expected a number from 0")


def _old(runs: Sequence[Run], keep_days: float | None, keep_last: int | None) -> list[Run]:
    """Return the ended runs that no rule keeps, newest first."""
    old, newer = [], Counter[Path]()
    for run in reversed(runs):
        if run.state not in ENDED:
            continue
        among_last = keep_last is not None and newer[run.source] < keep_last
        newer[run.source] += 1
        if not among_last and (keep_days is None or _days(run.began) >= keep_days):
            old.append(run)
    return old


def _days(moment: str) -> float:
    """Return how many days ago that was; 0 where it cannot be read, so that nothing is lost."""
    try:
        return (datetime.now(UTC) - datetime.fromisoformat(moment)).total_seconds() / 86_400
    except (ValueError, TypeError):
        return 0.0


def _bound(runs: Sequence[Run], doomed: set[Run]) -> dict[str, str]:
    """Return which doomed runs stay for the sake of their sweep, and why."""
    stays = {run.sweep: "of which not all would go" for run in runs if run not in doomed}
    for folder in _folders("sweep"):
        if not _is_free(folder / _LOCK):
            stays[folder.name] = "which is going on"
    return {
        run.id: f"it belongs to sweep {run.sweep}, {stays[run.sweep]}"
        for run in doomed
        if run.sweep and run.sweep in stays
    }


def _groups(runs: Iterable[Run]) -> list[list[Removal]]:
    """Return what goes together: each run, or a sweep, first of all, and its runs."""
    sweeps, groups = _folders("sweep"), dict[str, list[Removal]]()
    for run in runs:
        name = run.sweep or run.id
        if name not in groups:
            groups[name] = [_removal("sweep", folder) for folder in sweeps if folder.name == name]
        groups[name].append(_removal("run", run.folder))
    return list(groups.values())


def _spared(run: Run, good: str | None, with_published: bool) -> str:
    """Return why a run stays that no rule keeps; nothing if it goes."""
    if (run.folder / _PIN).exists():
        return "it has a file called keep"
    if good:
        return f"it is {good}"
    there = [ref for ref in run.published if _is_published(ref)]
    return f"it published {', '.join(there)}" if there and not with_published else ""


def _is_published(ref: str) -> bool:
    name, _, number = ref.partition("@")
    return (home() / "models" / name / number / "version.json").exists()


def _leftovers() -> Iterator[Path]:
    """Yield what no living process needs."""
    for kind in _RECORDS:
        trash = (home() / f"{kind}s").glob(f"{_TRASH}*")
        yield from (t for t in trash if _size(t) or _is_old(t))  # an empty one may be filled yet
    for name in ("run.json", "notebook.ipynb"):
        yield from filter(_is_old, (home() / "runs").glob(f"*/.{name}.*"))
    yield from filter(_is_old, (home() / "models").glob("*/.[0-9]*.*"))  # of killed publishers
    for places in ("runs/*/.lock", "trainings/*/.lock", "locks/*.lock"):
        yield from (lock for lock in home().glob(places) if _is_left(lock))


def _is_left(lock: Path) -> bool:
    return not lock.stat().st_size and _is_free(lock)


def _is_old(path: Path) -> bool:
    return time.time() - path.stat().st_mtime > _OLD


def _sweep(path: Path) -> None:
    """Delete a leftover; what somebody takes up again in this moment stays."""
    with contextlib.suppress(OSError, Timeout):
        if path.name.endswith(_LOCK):
            with FileLock(path, timeout=0):
                path.unlink()
        elif path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink()
