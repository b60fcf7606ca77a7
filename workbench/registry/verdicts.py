"""Whether a challenger is better than the champion, by labels that came later.

The rule is fixed before the first label: the first so many labels decide, and none that come later,
so looking meanwhile, or asking until the answer pleases, changes nothing. A challenger that is no
better is promoted by luck in at most `p` / 2 of all challenges: the tests have two sides, and one
promotes.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from workbench.errors import RequestError
from workbench.evaluation.significance import LEVEL, mcnemar, paired_t, wilson
from workbench.types import JSON

__all__ = ["Kind", "Rule", "Scores", "Verdict", "interval", "judge", "spread"]

Kind = Literal["accuracy", "error"]
_MOST_LABELS = 1_000_000


@dataclass(frozen=True)
class Rule:
    """When a challenger is promoted: better, with less than `p`, on the first `labels` labels.

    Args:
        p: of the two-sided test, above 0 and below 1.
        labels: that decide; where traffic is split, of each of the two.

    Raises:
        RequestError: these are no such numbers.
    """

    p: float = 0.05
    labels: int = 1000

    def __post_init__(self) -> None:
        if type(self.p) not in (int, float) or not 0 < self.p < 1:
            raise RequestError(f"p is {self.p!r:.40}, expected a number between 0 and 1: p=0.05")
        if type(self.labels) is not int or not 1 <= self.labels <= _MOST_LABELS:
            raise RequestError(
                f"labels is {self.labels!r:.40}, expected a whole number from 1 to "
                f"{_MOST_LABELS:,}: labels=1000"
            )


@dataclass(frozen=True)
class Scores:
    """How two versions did, label by label, in the order in which the labels came.

    Args:
        kind: `"accuracy"`: each score is 1 for right and 0 for wrong; `"error"`: how far off.
        mode: `"shadow"`: both were asked the same, so score and score belong together; `"split"`.
        champion: its scores.
        challenger: its scores; as many in shadow.
    """

    kind: Kind
    mode: str
    champion: Sequence[float]
    challenger: Sequence[float]


@dataclass(frozen=True)
class Verdict:
    """What comes of a comparison.

    Args:
        promote: whether the challenger is to be promoted.
        reason: why, or why not, in a sentence.
        evidence: the figures, as JSON.
    """

    promote: bool
    reason: str
    evidence: JSON = field(default_factory=dict)


def judge(rule: Rule, scores: Scores) -> Verdict:
    """Return whether the challenger is better by the rule.

    On the same requests by McNemar's exact test (of errors, by the paired t-test), on different
    ones by Fisher's exact test (by Welch's t-test); rows are taken to be independent.

    Args:
        rule: of promotion.
        scores: of the two.
    """
    sides = {"champion": scores.champion, "challenger": scores.challenger}
    first = {side: list(found[: rule.labels]) for side, found in sides.items()}
    counts = {side: len(found) for side, found in first.items()}
    unfit = {side: sum(not math.isfinite(x) for x in found) for side, found in first.items()}
    evidence: JSON = {"mode": scores.mode, "rule": {"p": rule.p, "labels": rule.labels}}
    if any(unfit.values()):
        evidence["not_numbers"] = unfit
        return Verdict(
            False,
            f"of {counts['champion']:,} values of the champion {unfit['champion']:,} are no "
            f"numbers, of {counts['challenger']:,} of the challenger {unfit['challenger']:,}: "
            "promote by hand what should be",
            evidence,
        )
    evidence |= {side: _figures(scores.kind, found) for side, found in first.items()}
    p = _p(scores, first["champion"], first["challenger"])
    evidence["p"] = p
    short = {side: rule.labels - n for side, n in counts.items() if n < rule.labels}
    if short:
        return Verdict(False, _too_few(scores.mode, rule, short), evidence)
    return _decided(rule, scores, p, evidence)


def interval(right: int, n: int) -> list[float]:
    """Return where a share lies with 95 % confidence, by Wilson.

    Args:
        right: how many were.
        n: of how many, one or more.
    """
    return [*wilson(right, n)]


def spread(total: float, squares: float, n: int) -> list[float] | None:
    """Return where a mean of values that are not negative lies with 95 % confidence, by Student.

    Args:
        total: of the values.
        squares: the total of their squares.
        n: how many values; of one alone nothing is known, nor of ever so great ones: None.
    """
    from scipy.special import stdtrit

    if n < 2 or not math.isfinite(squares):
        return None
    mean = total / n
    variance = max(0.0, squares - total * mean) / (n - 1)
    half = float(stdtrit(n - 1, 0.5 + LEVEL / 2)) * math.sqrt(variance / n)
    return [max(0.0, mean - half), mean + half]


def _decided(rule: Rule, scores: Scores, p: float, evidence: JSON) -> Verdict:
    kind, old, new = scores.kind, *(evidence[side] for side in ("champion", "challenger"))
    gain = new[kind] - old[kind] if kind == "accuracy" else old[kind] - new[kind]
    same = "the same " if scores.mode == "shadow" else ""
    each = "" if scores.mode == "shadow" else " each"
    figures = (
        f"{'accuracy' if kind == 'accuracy' else 'mean absolute error'} {new[kind]:.4g} against "
        f"{old[kind]:.4g} of the champion on {same}{rule.labels:,} labels{each}, p = {p:.2g}"
    )
    if p >= rule.p:
        return Verdict(False, f"not shown to be better: {figures}, not below {rule.p:g}", evidence)
    if gain <= 0:
        return Verdict(False, f"worse: {figures}", evidence)
    return Verdict(True, f"better: {figures}", evidence)


def _too_few(mode: str, rule: Rule, short: dict[str, int]) -> str:
    if mode == "shadow":
        missing = max(short.values())
        return f"too few labels: {missing:,} of {rule.labels:,} are missing"
    missing_of = " and ".join(f"{missing:,} of the {side}" for side, missing in short.items())
    return f"too few labels: {missing_of} are missing, of {rule.labels:,} each"


def _figures(kind: Kind, found: Sequence[float]) -> JSON:
    n = len(found)
    if n == 0:
        return {"labels": 0}
    if kind == "accuracy":
        return {"labels": n, "accuracy": sum(found) / n, "interval": interval(int(sum(found)), n)}
    total, squares = math.fsum(found), math.fsum(x * x for x in found)
    return {"labels": n, "error": total / n, "interval": spread(total, squares, n)}


def _p(scores: Scores, champion: Sequence[float], challenger: Sequence[float]) -> float:
    """Return how likely so large a difference is between two equal versions."""
    if min(len(champion), len(challenger)) < 2:
        return 1.0
    if scores.mode == "shadow" and scores.kind == "accuracy":
        pairs = list(zip(champion, challenger, strict=True))
        return mcnemar(pairs.count((1.0, 0.0)), pairs.count((0.0, 1.0)))
    if scores.mode == "shadow":
        return paired_t(champion, challenger)
    from scipy import stats

    if scores.kind == "accuracy":
        table = [[sum(side), len(side) - sum(side)] for side in (champion, challenger)]
        return float(stats.fisher_exact(table).pvalue)
    with warnings.catch_warnings(action="ignore"):  # of values without any spread
        found: Any = stats.ttest_ind(challenger, champion, equal_var=False)
    return 1.0 if math.isnan(found.pvalue) else float(found.pvalue)
