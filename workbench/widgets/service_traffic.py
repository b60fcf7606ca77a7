"""What a service counts, read from its own /metrics, and how that changed in the last minutes."""

from __future__ import annotations

import math
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from workbench.types import JSON

__all__ = ["Counts", "Traffic", "within"]

_SLOT, _SLOTS = 2, 90  # seconds, and how many of them are drawn: three minutes
_RECENT = 10.0  # seconds over which requests a second are told
_MINUTE = 60.0  # over which latencies are, where anything was answered in it
_PERCENTS = (50, 95, 99)
_READ = frozenset(
    ("requests_total", "refused_total", "answer_seconds_bucket", "batch_rows_bucket", "rows_total",
     "batch_rows_sum", "requests_waiting")
)  # fmt: skip
_LINE = re.compile(r"^workbench_(\w+?)(?:\{(.*)\})? (\S+)$", re.MULTILINE)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"')

_Buckets = tuple[tuple[float, int], ...]  # bounds, and how many lie within each and all before


@dataclass(frozen=True)
class Counts:
    """What was counted of a name since its service began, by all versions together.

    Args:
        statuses: requests by the status of their answer.
        refused: of these, by reason: `full`, `stopping`, `late`.
        latency: answers by seconds.
        batches: batches by rows.
        rows: that were answered.
        batched: rows that all batches had together.
        waiting: requests of the whole server in the line or being answered.
    """

    statuses: Counter[str] = field(default_factory=Counter)
    refused: Counter[str] = field(default_factory=Counter)
    latency: _Buckets = ()
    batches: _Buckets = ()
    rows: int = 0
    batched: int = 0
    waiting: int = 0

    @classmethod
    def read(cls, text: str, name: str) -> Counts:
        """Return what `GET /metrics` says of a name."""
        found = [line for line in _lines(text) if line[1].get("model", name) == name]

        def by(metric: str, label: str) -> Counter[str]:
            counted = Counter[str]()
            for said, labels, value in found:
                if said == metric:
                    counted[labels.get(label, "")] += value
            return counted

        return cls(
            +by("requests_total", "status"),
            +by("refused_total", "reason"),
            _buckets(by("answer_seconds_bucket", "le")),
            _buckets(by("batch_rows_bucket", "le")),
            by("rows_total", "").total(),
            by("batch_rows_sum", "").total(),
            by("requests_waiting", "").total(),
        )

    @property
    def requests(self) -> int:
        """How many there were."""
        return self.statuses.total()


class Traffic:
    """What was counted at each look, and what that comes to."""

    def __init__(self) -> None:
        self._looks: deque[tuple[float, Counts]] = deque()
        self._slots = Counter[int]()  # requests by the number of the slot that they came in

    @property
    def now(self) -> Counts:
        """What was counted at the last look."""
        return self._looks[-1][1] if self._looks else Counts()

    def add(self, counts: Counts, at: float) -> None:
        """Take what was counted by a moment, in seconds of one clock."""
        before = self.now
        if counts.requests < before.requests:  # it was begun anew
            self._looks.clear()
            self._slots.clear()
        elif self._looks:
            self._slots[int(at // _SLOT)] += counts.requests - before.requests
        self._looks.append((at, counts))
        while len(self._looks) > 1 and self._looks[1][0] <= at - _MINUTE:
            self._looks.popleft()
        self._slots = Counter({k: n for k, n in self._slots.items() if k >= at // _SLOT - _SLOTS})

    def told(self, at: float) -> JSON:
        """Return the figures as the page draws them, at a moment of the same clock."""
        counts, slot = self.now, int(at // _SLOT)
        recent, since = self._latency()
        total = counts.batches[-1][1] if counts.batches else 0
        return {
            "requests": counts.requests,
            "rate": round(self._rate(at), 2),
            "apart": _SLOT,
            "rates": [self._slots[k] / _SLOT for k in range(slot - _SLOTS, slot)],
            "latency": {f"p{p}": _milliseconds(within(recent, p / 100)) for p in _PERCENTS},
            "since": since,
            "sizes": _apart(counts.batches),
            "batches": total,
            "rows": counts.rows,
            "mean_rows": round(counts.batched / total, 2) if total else None,
            "statuses": dict(sorted(counts.statuses.items())),
            "refused": dict(counts.refused),
            "waiting": counts.waiting,
        }

    def _rate(self, at: float) -> float:
        """Return the requests a second of the last seconds."""
        early = [look for look in self._looks if look[0] <= at - _RECENT]
        first = early[-1] if early else self._looks[0] if self._looks else (at, Counts())
        seconds = min(_RECENT, at - first[0])
        return (self.now.requests - first[1].requests) / seconds if seconds > 0.5 else 0.0

    def _latency(self) -> tuple[_Buckets, str]:
        """Return the answers of the last minute by seconds; where there were none, all."""
        if not self._looks:
            return (), ""
        before = dict(self._looks[0][1].latency)
        recent = tuple((bound, n - before.get(bound, 0)) for bound, n in self.now.latency)
        if recent and recent[-1][1]:
            return recent, "in the last minute"
        return self.now.latency, "since it began"


def within(buckets: Sequence[tuple[float, int]], share: float) -> float | None:
    """Return the seconds within which a share of the answers came; None where there are none.

    It is where the share lies in its bucket, the bucket's answers being evenly spread, as the
    service's page has it; beyond the last bound it is infinite.

    >>> within([(0.1, 50), (0.2, 100), (float("inf"), 100)], 0.75)
    0.15
    """
    if not buckets or not buckets[-1][1]:
        return None
    wanted, low, fewer = share * buckets[-1][1], 0.0, 0
    for bound, many in buckets:
        if many >= wanted and many > fewer:
            inside = (wanted - fewer) / (many - fewer)
            return bound if math.isinf(bound) else round(low + (bound - low) * inside, 9)
        low, fewer = bound, many
    return math.inf


def _milliseconds(seconds: float | None) -> float | str | None:
    """Return milliseconds in two digits, which is what buckets can say."""
    if seconds is None:
        return None
    return "over 10,000" if math.isinf(seconds) else float(f"{1000 * seconds:.2g}")


def _apart(buckets: _Buckets) -> list[tuple[str, int]]:
    """Return how many lie in each bucket alone, by its bounds in words, up to the last one used."""
    found, low, fewer = [], 0.0, 0
    for bound, many in buckets:
        words = f"over {low:g}" if math.isinf(bound) else f"{bound:g}"
        if bound > low + 1 and not math.isinf(bound):
            words = f"{low + 1:g} to {bound:g}"
        found.append((words, many - fewer))
        low, fewer = bound, many
    while found and not found[-1][1]:
        found.pop()
    return found


def _buckets(counted: Counter[str]) -> _Buckets:
    return tuple(sorted((float(bound), n) for bound, n in counted.items()))


def _lines(text: str) -> Iterator[tuple[str, dict[str, str], int]]:
    """Yield each count that is read here: its name, its labels, and how many."""
    for metric, labels, value in _LINE.findall(text):
        if metric in _READ:
            yield metric, dict(_LABEL.findall(labels)), int(float(value))
