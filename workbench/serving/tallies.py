"""What a service counts: of each model version its requests, rows, batches and where time went."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from workbench.types import JSON

__all__ = ["BatchTimes", "Tally"]


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

    def to_json(self) -> JSON:
        return {"count": self.count, "ns": round(self.seconds * 1e9)}


@dataclass
class Tally:
    """Counts for one version of a model; written by one thread, the event loop's.

    Args:
        rows: that were answered.
        batches: that the model was asked with.
        success: requests answered, and their seconds from acceptance to answer.
        fail: requests that the model, or their deadline, ended.
        cancelled: requests whose client left.
    """

    rows: int = 0
    batches: int = 0
    success: _Sum = field(default_factory=_Sum)
    fail: _Sum = field(default_factory=_Sum)
    cancelled: int = 0
    last: float | None = None
    _stages: dict[str, _Sum] = field(
        default_factory=lambda: {
            name: _Sum() for name in ("queue", "compute_input", "compute_infer", "compute_output")
        }
    )
    _sizes: dict[int, dict[str, _Sum]] = field(default_factory=dict)

    def answered(self, seconds: float, rows: int, waited: float) -> None:
        """Count a request that got its answer.

        Args:
            seconds: from acceptance to answer.
            rows: it had.
            waited: seconds of those until its first batch began.
        """
        self.success.add(seconds)
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

    def to_json(self, name: str, version: str) -> JSON:
        """Return the statistics of the protocol's extension for one version of a model."""
        nothing = _Sum().to_json()
        return {
            "name": name,
            "version": version,
            "last_inference": round((self.last or 0) * 1000),
            "inference_count": self.rows,
            "execution_count": self.batches,
            "inference_stats": {
                "success": self.success.to_json(),
                "fail": self.fail.to_json(),
                **{stage: spent.to_json() for stage, spent in self._stages.items()},
                "cache_hit": nothing,
                "cache_miss": nothing,
            },
            "batch_stats": [
                {"batch_size": size, **{k: spent.to_json() for k, spent in stages.items()}}
                for size, stages in sorted(self._sizes.items())
            ],
        }
