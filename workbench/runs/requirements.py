"""What a run's metrics must reach, said as a person writes it: `test_accuracy>=last-0.01`."""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from decimal import Decimal

from workbench.errors import RequestError
from workbench.runs.records import Run
from workbench.types import JSON

__all__ = ["Outcome", "Requirement", "is_good", "last_good", "to_compare_with"]

_NUMBER = r"[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d{1,3})?"
_FORM = re.compile(
    rf"""\s*(?P<metric>[^\s<>=!](?:[^<>=!]*[^\s<>=!])?)
    \s*(?P<sign><=|>=|==|<|>)
    \s*(?:(?P<number>{_NUMBER})|last(?:\s*(?P<change>[-+*])\s*(?P<by>{_NUMBER}))?)\s*""",
    re.VERBOSE,
)
_HOLDS: Mapping[str, Callable[[Decimal, Decimal], bool]] = {
    **{"<=": operator.le, ">=": operator.ge, "==": operator.eq},
    **{"<": operator.lt, ">": operator.gt},
}
_CHANGED: Mapping[str, Callable[[Decimal, Decimal], Decimal]] = {
    **{"+": operator.add, "-": operator.sub, "*": operator.mul},
}


@dataclass(frozen=True)
class Outcome:
    """What became of a requirement.

    Args:
        text: the requirement as it was written.
        holds: whether the run meets it.
        found: the metric's value; None where it was not recorded or is not finite.
        wanted: the number that it was compared with; None where there was none.
        message: the same in a line.
    """

    text: str
    holds: bool
    found: float | None
    wanted: float | None
    message: str

    def to_json(self) -> JSON:
        """Return the outcome as the record of a run keeps it."""
        return asdict(self)


@dataclass(frozen=True)
class Requirement:
    """A bound that a metric has to keep.

    Args:
        text: as it was written.
        metric: the recorded name.
        sign: `<=`, `>=`, `<`, `>` or `==`.
        change: None for a bound that is a number; else how it comes from the last good run's
            value: `+`, `-` or `*`.
        by: the number, or what the last value is changed by.
    """

    text: str
    metric: str
    sign: str
    change: str | None
    by: Decimal

    @classmethod
    def parse(cls, text: str) -> Requirement:
        """Return the requirement that `text` says.

        Raises:
            RequestError: it says none.

        >>> Requirement.parse("test_accuracy >= last*0.98").check(
        ...     {"test_accuracy": 0.70}, {"test_accuracy": 0.75}
        ... ).message
        'test_accuracy is 0.7, required >= 0.735 (last was 0.75)'
        """
        found = _FORM.fullmatch(text)
        amount = float(found["number"] or found["by"] or 0) if found else math.inf
        if found is None or not math.isfinite(amount):
            raise RequestError(
                f"requirement {text!r:.100} is not understood: expected a metric, one of "
                f"{', '.join(_HOLDS)}, and a number, or last for the last good run's value, as in "
                "'test_accuracy>=0.75' or 'test_accuracy>=last-0.01'"
            )
        change = None if found["number"] else found["change"] or "+"
        return cls(text, found["metric"], found["sign"], change, _decimal(amount))

    def check(self, metrics: Mapping[str, float], last: Mapping[str, float] | None) -> Outcome:
        """Return whether a run with these metrics keeps the bound.

        Decimals are compared as they are written, so 0.7 is not below 0.8 - 0.1.

        Args:
            metrics: of the run.
            last: those of the last good run of the same notebook; None without one.
        """
        found = metrics.get(self.metric)
        if found is None:
            recorded = ", ".join(sorted(metrics)) or "none"
            return self._outcome(False, None, None, f"was not recorded; recorded are: {recorded}")
        if math.isnan(found):
            return self._outcome(False, None, None, "is not a number")
        value = found if math.isfinite(found) else None
        if self.change is None:
            return self._compared(found, value, self.by, "")
        before = (last or {}).get(self.metric, math.nan)
        if not math.isfinite(before):
            what = "no earlier run" if last is None else "no value of it in the last good run"
            return self._outcome(True, value, None, f"is {found:.10g}, {what} to compare with")
        wanted = _CHANGED[self.change](_decimal(before), self.by)
        return self._compared(found, value, wanted, f" (last was {before:.10g})")

    def _compared(self, found: float, value: float | None, wanted: Decimal, why: str) -> Outcome:
        holds = _HOLDS[self.sign](_decimal(found), wanted)
        said = f"is {found:.10g}, required {self.sign} {float(wanted):.10g}{why}"
        return self._outcome(holds, value, float(wanted), said)

    def _outcome(
        self, holds: bool, found: float | None, wanted: float | None, said: str
    ) -> Outcome:
        return Outcome(self.text, holds, found, wanted, f"{self.metric} {said}")


def last_good(run: Run, runs: Sequence[Run]) -> Run | None:
    """Return the newest run to compare one with: as asked for, done, and met all its requirements.

    A run of the same notebook with other parameters, such as a quick try, is none to compare with.

    Args:
        run: that is to be compared.
        runs: to look among, oldest first.
    """
    alike = (
        other
        for other in reversed(runs)
        if other != run and other.source == run.source and other.parameters == run.parameters
    )
    return next(filter(is_good, alike), None)


def to_compare_with(runs: Sequence[Run]) -> dict[Run, str]:
    """Return the runs that later ones need, and what each is: the newest good one of a notebook.

    A run that was judged is also needed by the next with its parameters, which `last_good` looks
    for. One that was not, such as a quick try or a point of a sweep, is needed by none.

    Args:
        runs: to look among, oldest first.
    """
    good = [run for run in runs if is_good(run)]
    newest = {run.source: run for run in good}
    judged = {
        (run.source, json.dumps(run.parameters, sort_keys=True)): run
        for run in good
        if run.requirements
    }
    return {
        **dict.fromkeys(judged.values(), "the last good run with its parameters"),
        **dict.fromkeys(newest.values(), "the last good run of its notebook"),
    }


def is_good(run: Run) -> bool:
    """Return whether a run is done and met all that was required of it."""
    return run.state == "done" and all(outcome["holds"] for outcome in run.requirements)


def _decimal(number: float) -> Decimal:
    """Return a number as it is written."""
    return Decimal(str(number))
