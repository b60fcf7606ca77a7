"""`Clock`: keeps a training within the minutes it was given, however fast the machine turns out."""

from __future__ import annotations

from dataclasses import dataclass, replace

from workbench.training.phases import sized_anew
from workbench.training.trainings import Training

__all__ = ["Clock", "Pace"]

_CLOSE_ENOUGH = 0.01  # of the steps that are left: sized so well, they stay
_SHORT = 1.0  # seconds that are left; in less, little can go wrong


@dataclass(frozen=True)
class Pace:
    """How long a training's steps and scores take.

    Args:
        step: seconds of a step.
        score: seconds of scoring the validation split, after each epoch and at the end.
        per_epoch: steps an epoch.
    """

    step: float
    score: float
    per_epoch: int

    def steps_in(self, seconds: float, after: int = 0) -> int:
        """Return how many steps, and the scores among them, fit into some seconds.

        Args:
            seconds: what is left.
            after: steps that were done before.

        >>> pace = Pace(step=0.1, score=1.0, per_epoch=10)
        >>> pace.steps_in(4.05), pace.steps_in(4.05, after=9), pace.steps_in(0.5)
        (20, 11, 0)
        """
        steps = max(0, int(seconds / (self.step + self.score / self.per_epoch)))
        while steps and self._seconds(steps, after) > seconds:
            steps -= 1
        return steps

    def _seconds(self, steps: int, after: int) -> float:
        scores = -(-(after + steps) // self.per_epoch) - after // self.per_epoch
        return steps * self.step + scores * self.score


class Clock:
    """Sizes the last phase of a training anew whenever half of what was left of it has passed.

    Machines change their pace, above all shared ones: what a few steps took in the beginning says
    little about the end, what the last half took says much about the next quarter.

    Args:
        pace: as it was on trial.
        seconds: that the last phase may take; pauses do not count.
    """

    def __init__(self, pace: Pace, seconds: float) -> None:
        self._pace, self._seconds = pace, seconds
        self._ends: float | None = None  # once the phase has begun
        self._seen = (0.0, 0)  # seconds and steps when it was last sized
        self._due = (0.0, 0)
        self._scored: list[float] = []

    def scored(self, seconds: float) -> None:
        """Take note of how long it took to score the validation split."""
        self._scored.append(seconds)

    def look(self, training: Training, step: int) -> bool:
        """Size what is left anew, if that is due and would change it; return whether it did.

        Args:
            training: whose phases are changed, in its record too.
            step: how many steps are done.
        """
        settings, now = training.settings, training.seconds
        begins = settings.steps - settings.phases[-1].steps
        if self._ends is None and step >= begins:
            self._ends = now + self._seconds - (step - begins) * self._pace.step
            self._begin(now, step, settings.steps)
        seconds, steps = self._due
        if self._ends is None or step in (self._seen[1], settings.steps):
            return False
        if now < seconds and step < steps:
            return False
        pace = self._measured(now, step)
        left = max(1, pace.steps_in(self._ends - now, after=step))
        kept = abs(left - (settings.steps - step)) <= _CLOSE_ENOUGH * left
        changed = not kept and _resize(training, step, left)
        self._begin(now, step, training.settings.steps)
        return changed

    def _begin(self, now: float, step: int, steps: int) -> None:
        """Begin a stretch that is half of what is left, by time or by steps."""
        assert self._ends is not None
        self._seen, self._scored = (now, step), []
        if self._ends - now < _SHORT:
            self._due = (float("inf"), steps)
        else:
            self._due = ((now + self._ends) / 2, (step + steps + 1) // 2)

    def _measured(self, now: float, step: int) -> Pace:
        """Return the pace since it was last sized."""
        before, first = self._seen
        a_step = (now - before - sum(self._scored)) / (step - first)
        last = self._scored[-1] if self._scored else self._pace.score
        self._pace = replace(self._pace, step=a_step, score=last)
        return self._pace


def _resize(training: Training, step: int, left: int) -> bool:
    """Change the phases, in the record first; leave all as it is where that cannot be written."""
    before = training.settings
    training.settings = replace(before, phases=sized_anew(before.phases, step, left))
    try:
        training.write()
    except OSError:
        training.settings = before
        return False
    return True
