"""The curves of runs, of bounded length: what their trainings and their cells recorded by step."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import zip_longest
from pathlib import Path

from workbench.errors import RequestError, TamperedError
from workbench.journal import read_lines
from workbench.runs import Run
from workbench.training.recorded import RecordedTraining
from workbench.types import JSON
from workbench.widgets.curves import Curve, Rows
from workbench.widgets.figures import plain, plain_row

__all__ = ["MOST", "CurveShelf"]

MOST = 6  # curves, since so many colours are told apart
_BUCKETS, _ROWS = 250, 200


class CurveShelf:
    """Keeps what was read of the trainings of runs, and reads what they have got since."""

    def __init__(self) -> None:
        self._trainings: dict[Path, tuple[RecordedTraining, Curve, Rows]] = {}
        self._recorded: dict[Path, tuple[int, JSON]] = {}

    def of(self, runs: Sequence[Run]) -> list[JSON]:
        """Return the curves of runs, as the page draws them; at most `MOST`.

        Of runs with several trainings each, first comes the first of every run, and so on.
        """
        turns = zip_longest(*(list(self._of(run)) for run in runs[:MOST]))
        return [curve for turn in turns for curve in turn if curve is not None][:MOST]

    def _of(self, run: Run) -> Iterator[JSON]:
        folders = sorted((run.folder / "trainings").glob("*/"))
        trained = [(folder.name, told) for folder in folders if (told := self._training(folder))]
        for name, told in trained:
            more = f" {name}" if len(trained) > 1 else ""
            yield told | {"name": run.id[-4:] + more, "run": run.id}
        if not trained and (told := self._record(run)):
            yield told | {"name": run.id[-4:], "run": run.id}

    def _training(self, folder: Path) -> JSON | None:
        """Return the curves of a training, or None where it has none."""
        try:
            if folder not in self._trainings:
                curves = Curve(_BUCKETS), Rows(_ROWS)
                self._trainings[folder] = (RecordedTraining.read(folder), *curves)
            training, curve, rows = self._trainings[folder]
            training.refresh()
        except (RequestError, TamperedError):
            return None
        losses, epochs = training.history.steps["loss"], training.history.epochs
        curve.update(losses, len(losses))
        if epochs:
            rows.update(epochs, len(epochs))
        values = [plain(float(f"{value:.5g}")) for value in curve.table.reshape(-1).tolist()]
        loss = {"loss": {"bucket": curve.bucket, "values": values}} if values else {}
        return {
            "step": len(losses),
            "steps": training.settings.steps,
            "curves": loss,
            "rows": [plain_row(row) for row in rows.shown],
        }

    def _record(self, run: Run) -> JSON | None:
        """Return what the cells of a run recorded by step, or None where they did not."""
        path = run.folder / "metrics.jsonl"
        stamp = path.stat().st_mtime_ns if path.exists() else 0
        known = self._recorded.get(path)
        if known is None or known[0] != stamp:
            by_step: dict[int, dict[str, float]] = {}
            for line in read_lines(path):
                if "step" in line and "training" not in line:
                    row = by_step.setdefault(line["step"], {"step": line["step"]})
                    row[line["name"]] = line["value"]
            rows, ordered = Rows(_ROWS), [by_step[step] for step in sorted(by_step)]
            if ordered:
                rows.update(ordered, len(ordered))
            told = [plain_row(row) for row in rows.shown]
            last = int(ordered[-1]["step"]) if ordered else 0
            known = stamp, {"step": last, "steps": last, "curves": {}, "rows": told}
            self._recorded[path] = known
        return known[1] if known[1]["rows"] else None
