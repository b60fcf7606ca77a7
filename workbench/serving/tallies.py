"""What a service counts: of each model version its requests, rows, batches and where time went."""

from __future__ import annotations

import time
from bisect import bisect_left
from collections.abc import Mapping
from dataclasses import dataclass, field

from workbench.types import JSON

__all__ = ["BOUNDS", "BatchTimes", "Tally", "added", "statistics"]

BOUNDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)  # seconds
_STAGES = ("queue", "compute_input", "compute_infer", "compute_output")
_MOST = ("last", "oldest")  # of several processes the greatest counts, not their sum


@dataclass(frozen=True, slots=True)
class BatchTimes:
    """When a batch went through its stages, in seconds of one clock.

    Args:
        begun: its rows were taken together.
        ready: they lay as the model wants them.
        answered: the model had answered.
        ended: the answers were cut apart.
    """

    begun: float
    ready: float
    answered: float
    ended: float


@dataclass
class _Sum:
    count: int = 0
    seconds: float = 0.0

    def add(self, seconds: float, count: int = 1) -> None:
        self.count += count
        self.seconds += seconds

    def counts(self) -> JSON:
        return {"count": self.count, "seconds": self.seconds}


@dataclass
class Tally:
    """Counts for one version of a model; written by one thread, the event loop's.

    Args:
        rows: that were answered.
        batches: that the model was asked with.
        success: requests answered, and their seconds from acceptance to answer.
        fail: requests that the model, or their deadline, ended.
        cancelled: requests whose client left.
        latency: requests answered within each of `BOUNDS` and no earlier one, and beyond the last.
    """

    rows: int = 0
    batches: int = 0
    success: _Sum = field(default_factory=_Sum)
    fail: _Sum = field(default_factory=_Sum)
    cancelled: int = 0
    last: float = 0.0
    latency: list[int] = field(default_factory=lambda: [0] * (len(BOUNDS) + 1))
    _stages: dict[str, _Sum] = field(default_factory=lambda: {name: _Sum() for name in _STAGES})
    _sizes: dict[int, dict[str, _Sum]] = field(default_factory=dict)

    def answered(self, seconds: float, rows: int, waited: float) -> None:
        """Count a request that got its answer.

        Args:
            seconds: from acceptance to answer.
            rows: it had.
            waited: seconds of those until its first batch began.
        """
        self.success.add(seconds)
        self.latency[bisect_left(BOUNDS, seconds)] += 1
        self.rows += rows
        self._stages["queue"].add(waited)
        self.last = time.time()

    def batch(self, size: int, times: BatchTimes) -> None:
        """Count a batch of `size` rows."""
        self.batches += 1
        spent = {
            "compute_input": times.ready - times.begun,
            "compute_infer": times.answered - times.ready,
            "compute_output": times.ended - times.answered,
        }
        stages = self._sizes.setdefault(size, {name: _Sum() for name in spent})
        for name, seconds in spent.items():
            self._stages[name].add(seconds)
            stages[name].add(seconds)

    def counts(self) -> JSON:
        """Return all of it as JSON that `added` adds up with that of other processes."""
        return {
            "rows": self.rows,
            "batches": self.batches,
            "success": self.success.counts(),
            "fail": self.fail.counts(),
            "cancelled": self.cancelled,
            "last": self.last,
            "latency": list(self.latency),
            "stages": {name: spent.counts() for name, spent in self._stages.items()},
            "sizes": {
                str(size): {name: spent.counts() for name, spent in stages.items()}
                for size, stages in list(self._sizes.items())
            },
        }


def added(one: JSON, other: JSON) -> JSON:
    """Return the counts of two processes as those of one.

    >>> added({"rows": 2, "latency": [1, 0]}, {"rows": 3, "latency": [0, 4], "batches": 1})
    {'rows': 5, 'latency': [1, 4], 'batches': 1}
    """
    whole = dict(one)
    for key, value in other.items():
        known = whole.get(key)
        if known is None:
            whole[key] = value
        elif isinstance(value, Mapping):
            whole[key] = added(known, dict(value))
        elif isinstance(value, list):
            whole[key] = [a + b for a, b in zip(known, value, strict=True)]
        else:
            whole[key] = max(known, value) if key in _MOST else known + value
    return whole


def statistics(name: str, version: str, counts: JSON) -> JSON:
    """Return the statistics of the protocol's extension for one version of a model.

    Args:
        name: of the model.
        version: in digits.
        counts: as `Tally.counts` returns them.
    """
    stages = {stage: _spent(sum_) for stage, sum_ in counts["stages"].items()}
    nothing = {"count": 0, "ns": 0}
    return {
        "name": name,
        "version": version,
        "last_inference": round(counts["last"] * 1000),
        "inference_count": counts["rows"],
        "execution_count": counts["batches"],
        "inference_stats": {
            "success": _spent(counts["success"]),
            "fail": _spent(counts["fail"]),
            **stages,
            "cache_hit": nothing,
            "cache_miss": nothing,
        },
        "batch_stats": [
            {"batch_size": int(size), **{stage: _spent(sum_) for stage, sum_ in spent.items()}}
            for size, spent in sorted(counts["sizes"].items(), key=lambda item: int(item[0]))
        ],
    }


def _spent(sum_: JSON) -> JSON:
    return {"count": sum_["count"], "ns": round(sum_["seconds"] * 1e9)}
