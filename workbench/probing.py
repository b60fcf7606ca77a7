"""The probe: by timing, which precision, memory format and number of threads train fastest here.

A processor's data sheet does not tell: bf16 is several times as fast as fp32 where the processor
multiplies it, and up to 500 times slower where it does not (pytorch/pytorch#146508).
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import median
from typing import Any, Literal, NamedTuple

import msgspec
import psutil
import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.determinism import generator
from workbench.devices import choose_device, hardware, threads
from workbench.home import data_home, write_json

__all__ = ["Configuration", "Precision", "Probe", "choose", "probe"]

Precision = Literal["fp32", "bf16"]

_LIMIT = 0.8  # seconds after which no further step starts
_WORTH = 1.1  # as many times as fast must be what departs from the safe choice
_TASTE = 6  # rounds of tiny steps
_HOPELESS = 4.0  # as many times as long on a tiny step, and bf16 is not timed on a large one
_BUSY = (
    "; timings were few or uneven, as on a busy machine: `workbench doctor --fresh` takes others"
)
_ROWS_OF_GPU = 2048  # fewer would time the launching of kernels, which is alike in all
_CHANNELS, _ROWS, _SIDE = 64, 8, 16  # of the step: large enough for threads to be worth it


class Configuration(NamedTuple):
    """One way to take a training step."""

    precision: Precision
    channels_last: bool
    threads: int

    def __str__(self) -> str:
        layout = "channels_last" if self.channels_last else "contiguous"
        return f"{self.precision}, {layout} and {self.threads} thread{'s'[: self.threads - 1]}"


@dataclass(frozen=True)
class Probe:
    """How to train on this machine, and the timings that say so.

    Args:
        precision: of the forward pass: `"bf16"` by autocast, or `"fp32"`.
        channels_last: whether images lie channel by channel within a pixel.
        threads: of torch on the CPU.
        seconds: a step takes, by configuration; what was hopeless is not among them.
        sentence: what was chosen and why.
    """

    precision: Precision
    channels_last: bool
    threads: int
    seconds: dict[str, float]
    sentence: str


@dataclass(frozen=True)
class _Entry:
    machine: dict[str, Any]
    probe: Probe


@dataclass(frozen=True)
class _Kept:
    format: Literal["workbench-probe-1"]
    probes: list[_Entry]


def probe(device: str | torch.device | None = None, *, fresh: bool = False) -> Probe:
    """Return how to train here, timed within a second the first time, then remembered.

    It is remembered beside the datasets, by processor, instruction set, cores, threads, GPUs and
    version of torch: equal machines that share the folder share the answer. Timing leaves no trace,
    neither in the random numbers, nor in torch's threads, autocast or gradients.

    Args:
        device: to train on; None for the one that `fit` would choose.
        fresh: time again, whatever is remembered.

    Raises:
        RequestError: the device is not there.
    """
    on = choose_device(device)
    machine = {**hardware(), "torch": str(torch.__version__), "device": on.type}
    path = data_home() / "probe.json"
    kept = _read(path)
    if not fresh:
        for entry in kept:
            if entry.machine == machine:
                return entry.probe
    found = _measure(on)
    others = [entry for entry in kept if entry.machine != machine]
    _write(path, [*others, _Entry(machine, found)])
    return found


def choose(
    seconds: Mapping[Configuration, float], slower: float | None = None, *, busy: bool = False
) -> Probe:
    """Return what the timings say: the fastest, where it is enough faster than the safe choice.

    Memory formats compete on equal terms. bf16 must be 1.1 times as fast as fp32, which is safer;
    so must one thread against several, since most models gain more from threads than the step that
    is timed here. fp16 never competes: its narrow range needs scaled losses.

    Args:
        seconds: of a step; at least one of them in fp32.
        slower: how many times as long bf16 took where it was left out for that.
        busy: whether the timings were uneven: then all threads are taken, since it is several
            threads that a busy machine slows down most.

    Raises:
        ValueError: nothing was timed in fp32.

    >>> fast, slow = Configuration("bf16", True, 2), Configuration("fp32", True, 2)
    >>> choose({fast: 0.0019, slow: 0.0032}).sentence
    'bf16, channels_last and 2 threads: 1.7 times as fast as fp32 (1.9 ms against 3.2 ms a step)'
    """
    safe, rival = (_fastest(seconds, precision) for precision in ("fp32", "bf16"))
    if safe is None:
        raise ValueError(f"no timing in fp32 among {', '.join(map(str, seconds)) or 'none'}")
    gain = seconds[safe] / seconds[rival] if rival else 0.0
    chosen = rival if rival and gain >= _WORTH else safe
    if chosen is safe:
        told = f"{_ms(seconds[safe])} a step; {_refused(gain, slower)}"
    else:
        told = f"{_times(gain)} as fast as fp32 "
        told += f"({_ms(seconds[chosen])} against {_ms(seconds[safe])} a step)"
    if busy:
        chosen = chosen._replace(threads=max(configuration.threads for configuration in seconds))
        told += _BUSY
    table = {str(configuration): value for configuration, value in seconds.items()}
    return Probe(*chosen, seconds=table, sentence=f"{chosen}: {told}")


def _fastest(seconds: Mapping[Configuration, float], precision: str) -> Configuration | None:
    own = [configuration for configuration in seconds if configuration.precision == precision]
    most = max((configuration.threads for configuration in own), default=0)
    return min(own, key=lambda c: seconds[c] * (1 if c.threads == most else _WORTH), default=None)


def _refused(gain: float, slower: float | None) -> str:
    if slower is not None:
        return f"bf16 took {_times(slower)} as long on a tiny step"
    if gain == 0:
        return "bf16 was not timed"
    if gain < 1:
        return f"bf16 took {_times(1 / gain)} as long"
    return f"bf16 was only {gain:.2f} times as fast"


def _times(ratio: float) -> str:
    return f"{ratio:.1f} times" if ratio < 10 else f"{ratio:.0f} times"


def _ms(seconds: float) -> str:
    return f"{seconds * 1e3:.2g} ms" if seconds < 0.01 else f"{seconds * 1e3:.0f} ms"


def _measure(device: torch.device) -> Probe:
    end = time.perf_counter() + _LIMIT
    with torch.inference_mode(False), torch.enable_grad():
        slower = _slower(device, end)
        precisions: Sequence[Precision] = ("fp32", "bf16")
        if slower is None or slower > _HOPELESS:
            precisions = ("fp32",)
        contestants = list(_contestants(device, precisions))
        rows = _ROWS if device.type == "cpu" else _ROWS_OF_GPU
        rounds = _race(contestants, device, rows, _SIDE, end)
    hopeless = slower if slower and slower > _HOPELESS else None
    return choose(_typical(rounds), hopeless, busy=_disturbed(rounds))


def _slower(device: torch.device, end: float) -> float | None:
    """Return how many times as long bf16 takes on a step too small to lose much time by.

    The fastest steps are compared: a stall is long beside a tiny step, and only ever adds to it.
    """
    if device.type not in ("cpu", "cuda"):
        return None
    if device.type == "cuda" and not torch.cuda.is_bf16_supported():
        return None
    pair = [Configuration("fp32", True, 1), Configuration("bf16", True, 1)]
    rounds = _race(pair, device, 1, _SIDE // 2, end, most=_TASTE)
    fp32, bf16 = ([taken[one] for taken in rounds if one in taken] for one in pair)
    return min(bf16) / min(fp32) if bf16 else None


def _contestants(device: torch.device, precisions: Sequence[Precision]) -> Iterator[Configuration]:
    """Yield what is timed, that of one thread first: it is disturbed least by a busy machine."""
    here = torch.get_num_threads()
    most = min(psutil.cpu_count(logical=False) or here, here)
    counts = sorted({1, most}) if device.type == "cpu" else [here]
    for n, precision, layout in product(counts, precisions, (False, True)):
        yield Configuration(precision, layout, n)


def _race(
    contestants: Sequence[Configuration],
    device: torch.device,
    rows: int,
    side: int,
    end: float,
    *,
    most: int = 1000,
) -> list[dict[Configuration, float]]:
    """Time a step of each in turn, in rounds, so that a stall of the machine hits all alike.

    But for the first, no step starts that would not be done by `end`, going by the one before, or
    by the longest so far where there is none.
    """
    nets = {layout: _net(device, rows, side, layout) for layout in (False, True)}
    rounds: list[dict[Configuration, float]] = []
    last: dict[Configuration, float] = {}
    while len(rounds) < most:
        taken: dict[Configuration, float] = {}
        for one in contestants:
            expected = last.get(one, max(last.values(), default=0.0))
            if not last or time.perf_counter() + expected <= end:
                last[one] = taken[one] = _timed(one, nets[one.channels_last], device)
        if not taken:
            break
        rounds.append(taken)
    return rounds


def _typical(rounds: Sequence[Mapping[Configuration, float]]) -> dict[Configuration, float]:
    """Return the seconds of each: the median of its ratios to the first, times the first's median.

    The first round warms up and does not count, but for those that have no other.
    """
    first = next(iter(rounds[0]))
    unit = median([taken[first] for taken in rounds[1:] if first in taken] or [rounds[0][first]])

    def ratios(one: Configuration, among: Sequence[Mapping[Configuration, float]]) -> list[float]:
        return [taken[one] / taken[first] for taken in among if {one, first} <= taken.keys()]

    return {
        one: unit * median(ratios(one, rounds[1:]) or ratios(one, rounds[:1])) for one in rounds[0]
    }


def _disturbed(rounds: Sequence[Mapping[Configuration, float]]) -> bool:
    """Return whether one of them was timed less than three times, or very unevenly."""
    later = [[taken[one] for taken in rounds[1:] if one in taken] for one in rounds[0]]
    return any(len(taken) < 3 or median(taken) > 1.5 * min(taken) for taken in later)


class _Net(NamedTuple):
    inputs: Tensor
    weights: list[Tensor]
    biases: list[Tensor]


def _net(device: torch.device, rows: int, side: int, channels_last: bool) -> _Net:
    """Return two 3×3 convolutions and what goes in, drawn without the global generators."""
    layout = torch.channels_last if channels_last else torch.contiguous_format
    draws = generator(0, "probe")

    def tensor(*shape: int) -> Tensor:
        drawn = torch.randn(shape, generator=draws, dtype=torch.float32, device="cpu")
        return drawn.to(device, memory_format=layout)

    scale = (9 * _CHANNELS) ** -0.5
    kernels = [tensor(_CHANNELS, _CHANNELS, 3, 3).mul_(scale) for _ in range(2)]
    biases = [torch.zeros(_CHANNELS, dtype=torch.float32, device=device) for _ in range(2)]
    for leaf in (*kernels, *biases):
        leaf.requires_grad_()
    return _Net(tensor(rows, _CHANNELS, side, side), kernels, biases)


def _timed(one: Configuration, net: _Net, device: torch.device) -> float:
    with threads(one.threads):
        start = time.perf_counter()
        _step(net, device, bf16=one.precision == "bf16")
        if device.type != "cpu":
            torch.accelerator.synchronize(device)
        return time.perf_counter() - start


def _step(net: _Net, device: torch.device, *, bf16: bool) -> None:
    """Go forward and backward; without autocast's cache, which a caller's autocast would keep."""
    x = net.inputs
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16, cache_enabled=False):
        for kernel, bias in zip(net.weights, net.biases, strict=True):
            x = F.conv2d(x, kernel, padding=1)
            x = F.gelu(F.batch_norm(x, None, None, None, bias, training=True))
        loss = x.float().square().mean()
    torch.autograd.grad(loss, [*net.weights, *net.biases])


def _read(path: Path) -> list[_Entry]:
    """Return what is remembered; nothing where there is no file, or it is not what was written."""
    try:
        kept = msgspec.json.decode(path.read_bytes(), type=_Kept)
    except (OSError, msgspec.MsgspecError):
        return []
    return [entry for entry in kept.probes if entry.probe.threads >= 1]


def _write(path: Path, entries: Sequence[_Entry]) -> None:
    try:
        write_json(path, msgspec.to_builtins(_Kept("workbench-probe-1", list(entries))))
    except OSError as error:
        warnings.warn(
            f"the probe cannot be remembered in {path} ({error}), so it is taken each time anew: "
            "give write permission there, or set WORKBENCH_DATA to another folder",
            stacklevel=3,
        )
