"""GET /metrics: what a service has counted, in the words of Prometheus.

The registry is made for each scrape and belongs to nobody else: a cell that is run again registers
nothing twice, and what the kernel's other libraries count is not told.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    InfoMetricFamily,
    Metric,
)
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from workbench.serving.served import Served
from workbench.serving.tallies import BOUNDS
from workbench.types import JSON

__all__ = ["exposition"]

_ROWS = (1, 2, 4, 8, 16, 32, 64, 128, 256)  # bounds of a batch's rows
_REASONS = {"429": "full", "503": "stopping", "504": "late"}
_VERSION = ("model", "version")


def exposition(
    counts: JSON, models: Sequence[Served], watched: Mapping[str, JSON], accept: str
) -> tuple[bytes, str]:
    """Return the metrics of a service and their media type.

    Args:
        counts: of all its processes, as `Fleet.counts` returns them.
        models: that it has now, a name's default first.
        watched: by name what is known of drift and of live accuracy, as GET /models/NAME/monitor
            tells it.
        accept: the scraper's Accept header.
    """
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Told([*_line(counts), *_names(counts), *_versions(counts)]))
    registry.register(_Told([_info(models), *_watched(watched)]))
    encoder, media_type = choose_encoder(accept)
    return encoder(registry), media_type


class _Told(Collector):
    def __init__(self, families: Iterable[Metric]) -> None:
        self._families = list(families)

    def collect(self) -> Iterable[Metric]:
        return self._families


def _line(counts: JSON) -> Iterator[Metric]:
    line = counts["line"]
    yield GaugeMetricFamily("workbench_workers", "Processes that answer.", value=counts["workers"])
    yield GaugeMetricFamily(
        "workbench_requests_waiting", "Requests in the line or being answered.", line["waiting"]
    )
    yield GaugeMetricFamily(
        "workbench_oldest_request_seconds", "How long the oldest has waited.", line["oldest"]
    )
    yield CounterMetricFamily(
        "workbench_inference_busy_seconds",
        "Seconds that the inference threads have worked; its rate by workbench_workers is their "
        "busy share.",
        line["busy_seconds"],
    )
    yield CounterMetricFamily(
        "workbench_answers_not_logged", "Answers that could not be written down.", line["dropped"]
    )


def _names(counts: JSON) -> Iterator[Metric]:
    asked = CounterMetricFamily(
        "workbench_requests", "Requests for an inference.", labels=("model", "status")
    )
    refused = CounterMetricFamily(
        "workbench_refused", "Requests that were not taken.", labels=("model", "reason")
    )
    for name, told in counts["names"].items():
        for status, count in told["statuses"].items():
            asked.add_metric((name, status), count)
        for status, reason in _REASONS.items():
            refused.add_metric((name, reason), told["refused"].get(status, 0))
    yield asked
    yield refused


def _versions(counts: JSON) -> Iterator[Metric]:
    rows = CounterMetricFamily("workbench_rows", "Rows that were answered.", labels=_VERSION)
    seconds = HistogramMetricFamily(
        "workbench_answer_seconds", "From acceptance to answer.", labels=_VERSION
    )
    batches = HistogramMetricFamily(
        "workbench_batch_rows", "Rows that a model was asked with at once.", labels=_VERSION
    )
    for name, versions in counts["models"].items():
        for number, tally in versions.items():
            label, success = (name, number), tally["success"]
            rows.add_metric(label, tally["rows"])
            seconds.add_metric(label, _buckets(BOUNDS, tally["latency"]), success["seconds"])
            sizes = {int(size): stages for size, stages in tally["sizes"].items()}
            counted = {size: stages["compute_infer"]["count"] for size, stages in sizes.items()}
            total = sum(size * count for size, count in counted.items())
            batches.add_metric(label, _buckets(_ROWS, _sorted(counted)), total)
    yield from (rows, seconds, batches)


def _info(models: Sequence[Served]) -> Metric:
    family = InfoMetricFamily(
        "workbench_model", "A version that answers, and the run it came from.", labels=_VERSION
    )
    first = dict[str, Served]()
    for served in models:
        default = first.setdefault(served.name, served) is served
        run = (served.card.get("lineage") or {}).get("run") or ""
        told = {"ref": served.ref, "run": str(run), "default": str(default).lower()}
        family.add_metric((served.name, served.version), told)
    return family


def _watched(watched: Mapping[str, JSON]) -> Iterator[Metric]:
    psi = GaugeMetricFamily(
        "workbench_drift_psi",
        "Population stability index of the last full window.",
        labels=(*_VERSION, "figure"),
    )
    alarm = GaugeMetricFamily(
        "workbench_drift_alarm", "Whether that window gave the alarm.", labels=_VERSION
    )
    labels = GaugeMetricFamily(
        "workbench_labels", "Answers whose label came later.", labels=_VERSION
    )
    right = GaugeMetricFamily(
        "workbench_live_accuracy", "Share of those that were right.", labels=_VERSION
    )
    for name, told in watched.items():
        version, drift, accuracy = told["version"], told["drift"], told["accuracy"]
        if drift is not None:
            for figure in drift["figures"]:
                psi.add_metric((name, version, figure["figure"]), figure["psi"])
            alarm.add_metric((name, version), float(bool(drift["alarm"])))
        labels.add_metric((name, version), accuracy["labels"])
        if accuracy.get("accuracy") is not None:
            right.add_metric((name, version), accuracy["accuracy"])
    yield from (psi, alarm, labels, right)


def _sorted(counted: Mapping[int, int]) -> list[int]:
    """Return how many batches have at most as many rows as each bound, and no fewer bound."""
    bins = [0] * (len(_ROWS) + 1)
    for size, count in counted.items():
        bins[next((i for i, bound in enumerate(_ROWS) if size <= bound), len(_ROWS))] += count
    return bins


def _buckets(bounds: Sequence[float], counts: Sequence[int]) -> list[tuple[str, float]]:
    names = [*(str(float(bound)) for bound in bounds), "+Inf"]
    return list(zip(names, map(float, accumulate(counts)), strict=True))
