"""What is decided of a run once it has ended: whether it met its requirements, and who is told."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from workbench.errors import RunError
from workbench.home import write_json
from workbench.runs.index import list_runs
from workbench.runs.junit import write_junit
from workbench.runs.records import Run
from workbench.runs.requirements import Outcome, Requirement, last_good
from workbench.runs.webhooks import check_url, notify
from workbench.types import JSON

__all__ = ["Judge"]


@dataclass
class Judge:
    """What the nightly engineer has asked to be done with each run.

    Args:
        requirements: on the metrics, as a person writes them.
        junit: where a JUnit report of all runs goes, or None.
        webhook: what is told of a run that ended badly, or None.

    Raises:
        RequestError: a requirement is not understood, or the webhook is no URL.
    """

    requirements: Sequence[str] = ()
    junit: Path | None = None
    webhook: str | None = None
    _required: list[Requirement] = field(init=False, repr=False)
    _seen: list[tuple[JSON, list[Outcome]]] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        self._required = [Requirement.parse(text) for text in self.requirements]
        if self.webhook:
            check_url(self.webhook)

    def ended(self, folder: Path) -> None:
        """Judge the run in a folder, write down what was found, and tell who asked to be told.

        Raises:
            RunError: the run is done, and does not meet what is required of it.
        """
        run = Run.read(folder)
        outcomes = self._outcomes(run)
        if outcomes:
            run.record["requirements"] = [outcome.to_json() for outcome in outcomes]
            write_json(folder / "run.json", run.record)
        self._seen.append((run.record, outcomes))
        if self.junit:
            write_junit(self.junit, self._seen)
        failed = [outcome for outcome in outcomes if not outcome.holds]
        if self.webhook and (failed or run.state != "done"):
            problem = notify(self.webhook, run.record, folder)
            if problem:
                print(f"the webhook was not told: {problem}", file=sys.stderr)
        if failed and run.state == "done":
            lines = "\n".join(f"  {outcome.message}" for outcome in failed)
            raise RunError(
                f"run {run.id} is done, and does not meet what is required of it:\n{lines}",
                folder=folder,
            )

    def _outcomes(self, run: Run) -> list[Outcome]:
        if not self._required or run.state != "done":
            return []
        relative = any(required.change for required in self._required)
        last = last_good(run, list_runs()) if relative else None
        before = last.metrics if last else None
        return [required.check(run.metrics, before) for required in self._required]
