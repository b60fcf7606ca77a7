"""What `serving.py` found, as Markdown: the targets, the peaks and the open loop."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from statistics import median
from typing import Any

from contestants import SERVERS

__all__ = ["ALONE", "OVERLOAD", "Round", "page"]

OVERLOAD = 5  # times the peak
OURS, RAW, ALONE = "workbench", "raw handler", "the net alone"
_FIGURES = ("per_second", "p50_ms", "p99_ms")

Round = dict[str, Any]  # by "name, body": what wrk and the open loop found


@dataclass(frozen=True)
class Target:
    """What was to be reached.

    Args:
        title: in words.
        sign: ≥ or ≤.
        wanted: the figure.
        found: the same figure of one round.
    """

    title: str
    sign: str
    wanted: float
    found: Callable[[Round], float]

    def row(self, rounds: Iterable[Round]) -> str:
        """Return it beside what was found: the median of the rounds, and their range."""
        try:
            found = [self.found(one) for one in rounds]
        except (KeyError, ValueError, TypeError):
            return f"| {self.title} | {self.sign} {self.wanted:g} | not measured | |"
        middle = median(found)
        is_met = middle >= self.wanted if self.sign == "≥" else middle <= self.wanted
        shown = f"{middle:.2f} ({min(found):.2f} to {max(found):.2f})"
        return (
            f"| {self.title} | {self.sign} {self.wanted:g} | {shown} | {'✓' if is_met else '✗'} |"
        )


def page(report: Mapping[str, Any]) -> str:
    """Return the report as Markdown."""
    machine, rounds = report["machine"], report["rounds"]
    versions = [f"{name} {number}" for name, number in report["packages"].items()]
    versions += [requirement.replace("==", " ") for requirement in report["peers"].values()]
    lines = [
        "# Serving one image",
        "",
        f"`{report['command']}` · {machine['processor']}, {machine['cores']} cores, "
        f"{machine['instruction_set']} · Python {report['python']}, {', '.join(versions)} · "
        f"{len(rounds)} rounds in turns, {report['seconds']} s a measurement, "
        f"{report['minutes']} minutes · load before: {report['load_before']:.2f}",
        "",
        "| target | wanted | median of the rounds (lowest to highest) | |",
        "|---|---|---|---|",
        *(target.row(rounds) for target in _targets()),
        "",
        "## As fast as it answers",
        "",
        *_peaks(rounds),
        "",
        "## By clients who arrive when they arrive",
        "",
        *_open_loop(rounds),
        "",
    ]
    return "\n".join(lines)


def _targets() -> list[Target]:
    """Return what was to be reached; each ratio is taken within a round."""
    rows = [
        Target("JSON at 32 connections, × the best peer's", "≥", 3, lambda r: _faster(r, "JSON")),
        Target("binary, × the best peer's JSON", "≥", 5, lambda r: _faster(r, "binary")),
    ]
    for kind in ("JSON", "binary"):
        ours, raw = f"{OURS}, {kind}", f"{RAW}, {kind}"
        rows += [
            Target(
                f"{kind}: p50 at one connection, × a raw handler's",
                "≤",
                1.3,
                partial(_over, ours, raw),
            ),
            Target(f"{kind}: p99 at half the peak, × p50", "≤", 5, partial(_of, _spread, ours)),
            Target(
                f"{kind}: right answers in time at {OVERLOAD}× the peak, × the peak",
                "≥",
                0.9,
                partial(_of, _kept, ours),
            ),
            Target(f"{kind}: wrong answers", "≤", 0, partial(_of, _wrong, ours)),
        ]
    return rows


def _of(figure: Callable[[Any], float], key: str, found: Round) -> float:
    return figure(found[key])


def _over(ours: str, raw: str, found: Round) -> float:
    """Return our p50 at one connection over the raw handler's."""
    p50, other = (float(found[key]["wrk"]["1"]["p50_ms"]) for key in (ours, raw))
    return p50 / other


def _faster(found: Round, kind: str) -> float:
    """Return our requests a second at 32 connections, over those of the best peer in JSON."""
    rates = {key: found[key]["wrk"]["32"]["per_second"] for key in found if key != ALONE}
    peers = [
        rates[key] for key in rates if key.endswith("JSON") and not key.startswith((OURS, RAW))
    ]
    return float(rates[f"{OURS}, {kind}"] / max(peers))


def _spread(answer: Round) -> float:
    """Return the p99 at half load, over the p50."""
    half = answer["half"]
    return float(half["p99_ms"] / half["p50_ms"]) if half["good"] else math.inf


def _kept(answer: Round) -> float:
    """Return the right answers in time under overload, over the peak."""
    overload = answer["overload"]
    return float(overload["good"] / overload["seconds"] / answer["peak"])


def _wrong(answer: Round) -> int:
    """Return how many answers were wrong, wherever answers are checked."""
    runs = [*answer["checks"], *(answer[load] for load in ("half", "overload") if load in answer)]
    return sum(run["wrong"] for run in runs)


def _peaks(rounds: Sequence[Round]) -> list[str]:
    """Return the table of wrk's figures."""
    lines = [
        "| | body | 1 connection: requests/s | p50, ms | p99, ms | 32 connections: requests/s "
        "| p50, ms | p99, ms | processor, µs | 256 connections: requests/s | p50, ms | p99, ms "
        "| errors | memory, MiB |",
        "|---|---|" + "---:|" * 12,
    ]
    for key in _servers(rounds):
        answers = [found[key] for found in rounds]
        cells = [
            *_wrk_cells(answers, "1", *_FIGURES),
            *_wrk_cells(answers, "32", *_FIGURES, "server_cpu_us"),
            *_wrk_cells(answers, "256", *_FIGURES),
        ]
        runs = [run for answer in answers for run in answer["wrk"].values()]
        errors = sum(run["refused"] + run["lost"] for run in runs)
        memory = median(answer["memory_mib"] for answer in answers)
        lines.append(_line(key, [*cells, f"{errors:,.0f}", f"{memory:,.0f}"]))
    one, many = (median(found[ALONE][rows] for found in rounds) for rows in ("1", "32"))
    runs = [
        run for found in rounds for key in _servers(rounds) for run in found[key]["wrk"].values()
    ]
    busy = [run["client_cpu"] for run in runs]
    lines += [
        "",
        f"The net alone, on one thread and without a server, answers {one:,.0f} images a second "
        f"one by one and {many:,.0f} by 32. `nothing answered` reads the JSON body and says "
        "`{}`, on the same uvicorn with uvloop and httptools. The processor's time is what all "
        "processes of a server took, for an answer: a busy machine changes it least. wrk runs "
        f"beside the server on the same cores and took {min(busy):.2f} to {max(busy):.2f} of one. "
        "Errors are answers other than 200 and broken connections, of all rounds. Memory is taken "
        "after the load; what processes share counts once.",
    ]
    return lines


def _wrk_cells(answers: Sequence[Round], connections: str, *figures: str) -> list[str]:
    if connections not in answers[0]["wrk"]:
        return [""] * len(figures)
    medians = [median(answer["wrk"][connections][name] for answer in answers) for name in figures]
    return [f"{value:,.0f}" if value >= 100 else f"{value:.2f}" for value in medians]


def _open_loop(rounds: Sequence[Round]) -> list[str]:
    """Return the table of the open loop's figures."""
    keys = [key for key in _servers(rounds) if "half" in rounds[0][key]]
    runs = [found[key][load] for found in rounds for key in keys for load in ("half", "overload")]
    if not runs:
        return ["Not measured."]
    lines = [
        "| | body | half the peak: requests/s | p50, ms | p99, ms | × p50 | missed "
        f"| client's share of a core | {OVERLOAD}× the peak: requests/s | right in time, /s "
        "| of the peak | refused | late or lost | unsent | client's share of a core "
        "| wrong answers |",
        "|---|---|" + "---:|" * 14,
    ]
    for key in keys:
        answers = [found[key] for found in rounds]
        lines.append(_line(key, [*_half_cells(answers), *_overload_cells(answers)]))
    lag = max(run["client_lag_ms"] for run in runs)
    lines += [
        "",
        "Arrivals are a Poisson process, drawn before; latency counts from the moment at which a "
        "request was to arrive. The first second does not count. A client leaves after 1 s, and "
        "who finds 1,000 connections busy is turned away unsent. Every answer is held against "
        "torch's, here and before and after all load, 16 at once. The client is a Python program "
        "on the server's cores; in the worst of its runs, 99 % of the requests were sent within "
        f"{lag:.1f} ms of their moments.",
    ]
    return lines


def _half_cells(answers: Sequence[Round]) -> list[str]:
    runs = [answer["half"] for answer in answers]
    p50, p99 = (median(run[name] or math.inf for run in runs) for name in ("p50_ms", "p99_ms"))
    return [
        f"{median(run['asked'] / run['seconds'] for run in runs):,.0f}",
        *(f"{p50:.2f}", f"{p99:.2f}", f"{median(map(_spread, answers)):.1f}"),
        f"{sum(run['asked'] - run['good'] for run in runs):,}",
        f"{median(run['client_cpu'] for run in runs):.2f}",
    ]


def _overload_cells(answers: Sequence[Round]) -> list[str]:
    runs = [answer["overload"] for answer in answers]
    shares = [
        median(sum(run[one] for one in how) / run["asked"] for run in runs)
        for how in (("refused",), ("late", "lost"), ("unsent",))
    ]
    return [
        f"{median(run['asked'] / run['seconds'] for run in runs):,.0f}",
        f"{median(run['good'] / run['seconds'] for run in runs):,.0f}",
        f"{median(map(_kept, answers)):.0%}",
        *(f"{share:.0%}" for share in shares),
        f"{median(run['client_cpu'] for run in runs):.2f}",
        f"{sum(map(_wrong, answers)):,}",
    ]


def _servers(rounds: Sequence[Round]) -> list[str]:
    """Return the keys of what served, in the order of the table."""
    order = [f"{server.name}, {case.body.name}" for server in SERVERS for case in server.cases]
    return [key for key in order if key in rounds[0]]


def _line(key: str, cells: Iterable[str]) -> str:
    name, body = key.split(", ")
    return f"| {name} | {body} | {' | '.join(cells)} |"
