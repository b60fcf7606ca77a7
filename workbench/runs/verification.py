"""`verify`: run it again in its envelope, in a scratch home, and prove the numbers.

Compared are the states of its trainings by hash, then its metrics with their tolerances, then the
outputs of cells that are not tagged `nbval-ignore-output`. Where something differs, the first
cell, step and number are named, and the recorded facts that have changed since.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from workbench import journal
from workbench.errors import (
    RequestError,
    RunEnvironmentError,
    RunError,
    RunInterruptedError,
    TamperedError,
)
from workbench.home import home, read_json, write_file, write_json
from workbench.journal import read_lines
from workbench.runs.environment import changed_facts
from workbench.runs.execution import work
from workbench.runs.index import find_run
from workbench.runs.notebooks import code_cells, has_tag
from workbench.runs.outputs import compare_outputs
from workbench.runs.queueing import clear, first_cells, save
from workbench.runs.records import Run
from workbench.runs.redaction import Redaction
from workbench.types import JSON

__all__ = ["Difference", "Verification", "kept_verdict", "state_hash", "verify"]

_FORMAT = 1
_FILE = "verification.json"
_UNEXPLAINED = (
    "no recorded fact has changed: packages, processor, code, imported modules, and data that "
    "wb.load gave are alike; what a cell reads besides is not recorded"
)


@dataclass(frozen=True)
class Difference:
    """One thing that came out otherwise.

    Args:
        what: `"training"`, `"metric"`, `"output"`, or `"run"` where it did not come to its end.
        name: of the training or the metric; the heading of a cell.
        cell: its number among the code cells, from 1; None where that is not known.
        text: what was found, and what was there before.
    """

    what: Literal["run", "training", "metric", "output"]
    name: str
    cell: int | None
    text: str

    def __str__(self) -> str:
        where = f"cell {self.cell}, " if self.cell else ""
        return f"{where}{self.what} {self.name}: {self.text}"


@dataclass(frozen=True)
class Verification:
    """What came out when a run was run again.

    Args:
        run: that was verified.
        differences: the trainings' first, then the metrics', then the outputs', each in the order
            of the notebook.
        changed: recorded facts that are others now, such as a version, the processor or the data.
        processor: that it ran on this time.
        trainings: how many were compared bit for bit.
        metrics: how many were compared.
        outputs: of how many cells were compared.
    """

    run: Run
    differences: list[Difference]
    changed: list[str]
    processor: str
    trainings: int
    metrics: int
    outputs: int

    @property
    def verdict(self) -> Literal["identical", "differs"]:
        """Whether everything came out alike."""
        return "differs" if self.differences else "identical"

    def __repr__(self) -> str:
        compared = (
            f"{_many(self.trainings, 'training')} bit for bit, "
            f"{_many(self.metrics, 'metric')}, the outputs of {_many(self.outputs, 'cell')}"
        )
        lines = [f"Run {self.run.id}: {self.verdict} ({compared})"]
        lines += [f"  {found}" for found in self.differences]
        if self.run.record["envelope"]["level"] == "any-x86" and not self.differences:
            there = self.run.record["environment"]["hardware"].get("processor")
            same = self.processor == there
            on = f"one alone, {there}" if same else f"{there} and {self.processor}"
            lines.append(f"  verified on {'' if same else 'two processors, '}{on}")
        if self.changed:
            lines += ["changed since:", *(f"  {line}" for line in self.changed)]
        elif self.differences:
            lines.append(_UNEXPLAINED)
        if any(found.what == "output" for found in self.differences):
            lines.append("(a cell whose output may differ is tagged nbval-ignore-output)")
        return "\n".join(lines)


def verify(run: Run | str) -> Verification:
    """Run a run again and compare everything that it left; keep the verdict beside its record.

    Args:
        run: that is done, or what `find_run` finds it by; its own copy of the notebook is executed,
            in the notebook's folder.

    Raises:
        RequestError: it is not done, or lacks what it needs.
        TamperedError: its executed notebook is not what it wrote.
        RunInterruptedError: the second run was interrupted, so nothing was proven.
        RunEnvironmentError: its environment failed, so nothing was proven.
    """
    run = find_run(run) if isinstance(run, str) else run
    if run.state != "done":
        raise RequestError(
            f"run {run.id} is {run.state}, and only a run that is done can be verified: "
            f"`workbench resume {run.id}` brings it to its end"
        )
    _check_whole(run)
    with _scratch(run) as folder:
        try:
            again = work(folder, variables=_surroundings(run, folder))
        except (RunInterruptedError, RunEnvironmentError):
            raise  # it disproves nothing
        except RunError as error:
            again, failed = Run.read(folder), str(error)
        else:
            failed = ""
        found = _compared(run, again, failed)
    write_json(
        run.folder / _FILE,
        {
            "format": _FORMAT,
            "time": journal.now(),
            "verdict": found.verdict,
            "processor": found.processor,
            "differences": [vars(difference) for difference in found.differences],
            "changed": found.changed,
        },
    )
    return found


def kept_verdict(run: Run) -> JSON | None:
    """Return what `verify` has kept beside a run; None where nobody has verified it.

    That is its `verdict`, the `time`, and as `told` what differs and what has changed, a line each.

    Args:
        run: that may have been verified.

    Raises:
        TamperedError: the file is damaged, or of a newer format.
    """
    path = run.folder / _FILE
    try:
        kept = read_json(path)
        form = kept["format"]
        if form == _FORMAT:
            told = [str(Difference(**difference)) for difference in kept["differences"]]
            told += [f"changed since: {line}" for line in kept["changed"]]
            return {"verdict": kept["verdict"], "time": kept["time"], "told": told}
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TamperedError(
            f"verdict {path} cannot be read: {error!r}: `workbench verify {run.id}` writes it anew"
        ) from None
    raise TamperedError(
        f"verdict {path} has format {form}, expected {_FORMAT}: use the workbench that wrote it"
    )


def _compared(run: Run, again: Run, failed: str) -> Verification:
    import nbformat

    before, after = (nbformat.read(r.notebook, as_version=4) for r in (run, again))
    trainings = _trainings(run)
    differences = [Difference("run", again.state, None, failed)] if failed else []
    differences += [d for name in trainings if (d := _training(name, run, again))]
    differences += [d for name in run.metrics if (d := _metric(name, run, again))]
    cells = _cells(before)
    for found in compare_outputs(before, after):
        text = f"{found.what}{found.text.removeprefix(found.where)}"
        number = cells[found.cell - 1] if found.cell <= len(cells) else None
        differences.append(Difference("output", found.heading or "(no heading)", number, text))
    shown = [n for n in cells if not has_tag(_code(before)[n - 1], "nbval-ignore-output")]
    facts = changed_facts(run.record, again.record)
    processor = str(again.record["environment"]["hardware"].get("processor"))
    counts = len(trainings), len(run.metrics), len(shown)
    return Verification(run, differences, facts, processor, *counts)


def _code(notebook: Any) -> list[Any]:
    return [notebook.cells[place] for place in code_cells(notebook)]


def _cells(notebook: Any) -> list[int]:
    """Return the numbers, as the record has them, of the code cells that were not injected."""
    cells = enumerate(_code(notebook), 1)
    return [number for number, cell in cells if not has_tag(cell, "injected-parameters")]


def _trainings(run: Run) -> list[str]:
    """Return the names of the trainings that ended well, in their order."""
    events = journal.read_lines(run.folder / "events.jsonl")
    names = [e["name"] for e in events if e["event"] == "fit" and "name" in e]
    return [n for n in dict.fromkeys(names) if (run.folder / "trainings" / n).is_dir()]


def _training(name: str, run: Run, again: Run) -> Difference | None:
    """Return the first step of a training that came out otherwise, or None."""
    from workbench.training.recorded import RecordedTraining

    folders = [r.folder / "trainings" / name for r in (run, again)]
    cell = _cell_of(run, "fit", name)
    if not folders[1].is_dir():
        return Difference("training", name, cell, "was not trained again")
    before, after = (RecordedTraining.read(folder) for folder in folders)
    for figure in ("loss", "lr"):
        pairs = zip(before.history[figure], after.history[figure], strict=False)
        for step, (then, now) in enumerate(pairs, 1):
            if then != now:
                text = f"the {figure} of step {step:,} was {then!r}, now {now!r}"
                return Difference("training", name, cell, text)
    if len(before.history) != len(after.history):
        text = f"took {len(before.history):,} steps, now {len(after.history):,}"
        return Difference("training", name, cell, text)
    hashes = [state_hash(training) for training in (before, after)]
    if hashes[0] != hashes[1]:
        text = f"its state after the last step was {hashes[0]}, now {hashes[1]}"
        return Difference("training", name, cell, text)
    return None


def state_hash(training: Any) -> str:
    """Return the hash of every tensor of a training's last checkpoint, by name."""
    import torch

    from workbench.training.checkpoints import read_checkpoint

    last, digest = training.checkpoint, hashlib.sha256()
    if last is None:
        return "nothing"
    for name, tensor in sorted(read_checkpoint(last.path).tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _metric(name: str, run: Run, again: Run) -> Difference | None:
    """Return how a metric came out otherwise, or None."""
    then, now = run.metrics[name], again.metrics.get(name)
    tolerance = run.record["tolerances"].get(name)
    if now is not None and abs(now - then) <= (tolerance or 0.0):
        return None
    within = "" if tolerance is None else f", more than its tolerance of {tolerance:g} apart"
    text = f"was {then!r}, now {now!r}{within}" if now is not None else f"was {then!r}, now none"
    return Difference("metric", name, _cell_of(run, "metric", name), text)


def _cell_of(run: Run, kind: str, name: str) -> int | None:
    """Return the number of the cell that ran when a fit or a metric was noted, or None."""
    file = "metrics.jsonl" if kind == "metric" else "events.jsonl"
    lines = journal.read_lines(run.folder / file)
    times = [
        line["time"]
        for line in lines
        if line.get("name") == name and (kind == "metric" or line["event"] == kind)
    ]
    begun = [
        number
        for number, cell in enumerate(run.record["cells"], 1)
        if times and cell["started"] and cell["started"] <= times[-1]
    ]
    return begun[-1] if begun else None


def _check_whole(run: Run) -> None:
    """Raise where the executed notebook is not what the run wrote.

    Raises:
        TamperedError: its hash is another one.
    """
    expected = run.record["notebook"].get("executed_sha256")
    found = hashlib.sha256(run.notebook.read_bytes()).hexdigest()
    if expected and found != expected:
        raise TamperedError(
            f"{run.notebook} has SHA-256 {found[:12]}, the run wrote {expected[:12]}: it was "
            "changed or damaged, so there is nothing to prove; run the notebook again"
        )


@contextlib.contextmanager
def _scratch(run: Run) -> Iterator[Path]:
    """Give the folder of a run that waits to repeat `run`, in a home that is gone afterwards."""
    import nbformat

    place = Path(tempfile.mkdtemp(prefix="workbench-verify-"))
    try:
        folder = place / "runs" / run.id
        folder.mkdir(parents=True)
        _link_models(place / "models", run)
        document = nbformat.read(run.notebook, as_version=4)
        clear(document)
        fresh: JSON = {
            **run.record,
            **{"state": "queued", "started": None, "attempts": [], "cells": first_cells(document)},
        }
        save(folder, fresh, document, Redaction())
        yield folder
    finally:
        shutil.rmtree(place, ignore_errors=True)


def _link_models(models: Path, run: Run) -> None:
    """Let the scratch home know the versions that there were, so that the next has its number.

    Of what the run has published, those before its first; of all else, those before it began.
    """
    first: dict[str, int] = {}
    for ref in run.published:
        name, _, number = ref.partition("@")
        first[name] = min(int(number), first.get(name, int(number)))
    began = [*run.record["attempts"], run.record][0]["started"]
    for record in (home() / "models").glob("*/*/version.json"):
        name, number = record.parent.parent.name, record.parent.name
        with contextlib.suppress(OSError, ValueError, KeyError):
            there = int(number) < first[name] if name in first else _made(record) < began
            if there:
                (models / name).mkdir(parents=True, exist_ok=True)
                os.symlink(record.parent, models / name / number)
    for log in (home() / "models").glob("*/log.jsonl"):  # who has moved which alias
        lines = [line for line in read_lines(log) if line["when"] < began]
        if lines and (models / log.parent.name).is_dir():
            text = "".join(json.dumps(line) + "\n" for line in lines)
            write_file(models / log.parent.name / log.name, text.encode())


def _made(record: Path) -> str:
    return str(read_json(record)["created"])


def _surroundings(run: Run, folder: Path) -> dict[str, str]:
    return {"WORKBENCH_HOME": str(folder.parent.parent), "WORKBENCH_REPLAYED": str(run.folder)}


def _many(n: int, noun: str) -> str:
    return f"{n} {noun}" if n == 1 else f"{n} {noun}s"
