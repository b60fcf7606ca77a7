"""torch against ONNX Runtime: `python -m workbench.serving.contests NAME@3 FOLDER CORES`.

Exports a version, asks both and keeps in the folder what is to answer. A process of its own, since
what exports takes hundreds of megabytes, says much on the way and may never end; it gives way to
everyone else, and ends with whoever began it.
"""

from __future__ import annotations

import os
import sys
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from statistics import median

import numpy as np
import torch
from torch import Tensor, nn

from workbench.evaluation.calls import array_of
from workbench.evaluation.inference import decide, probabilities
from workbench.preprocessing import Preprocessing
from workbench.registry import ModelVersion, version
from workbench.serving.engines import (
    SIZES,
    Answer,
    Engine,
    Onnx,
    Seconds,
    keep,
    rows_beyond,
    rows_like,
    timed,
)
from workbench.serving.served import served_from
from workbench.serving.tensors import Array

__all__ = ["choose", "contest", "main"]

_WORTH = 1.1  # as many times as fast must be what departs from torch, over both sizes
_WORSE = 0.9  # as many times as fast must it be at each of them
_LIMIT = 0.5  # seconds after which no further round starts
_ROUNDS = 3  # are timed at least
_AGREED = 1e-5  # of the largest magnitude
_TOGETHER = (1, 2, 3, SIZES[-1])  # rows that are compared at once


class _Whole(nn.Module):
    """A model with what comes before it, from raw rows on, as a service asks it."""

    def __init__(self, model: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.model, self.preprocessing = model, preprocessing

    def forward(self, raw: Tensor) -> Tensor:
        output: Tensor = self.model(self.preprocessing(raw))
        return output.float()


def main(arguments: Sequence[str]) -> None:
    """Keep in a folder which engine is to answer for a version by so many cores."""
    ref, folder, cores = arguments
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "nice"):
        os.nice(10)  # the version before may be answering meanwhile
    torch.set_num_threads(int(cores))
    keep(Path(folder), *contest(version(ref), int(cores)))


def contest(published: ModelVersion, cores: int) -> tuple[Engine, bytes | None]:
    """Return the engine that is to answer for a version, and its program where it is not torch.

    Args:
        published: of one input with a preprocessing, and one output.
        cores: that one answer may use.
    """
    try:
        program = _exported(published)
    except Exception as error:  # torch raises many kinds, and will again the next time
        return Engine("torch", f"it cannot be exported to ONNX, {_first_line(error)}"), None
    served = served_from(published)
    rows = rows_like(published)

    def answer(raw: Array) -> Array:
        return served.answer({"input": raw})["output"]

    try:
        onnx = Onnx(program, cores)
        beyond = rows_beyond(published)
        reason = _differs(answer, onnx.answer, rows, beyond, served.classes)
        if reason:
            return Engine("torch", reason), None
        engine = choose(_race({"torch": answer, "onnxruntime": onnx.answer}, rows))
    except Exception as error:  # and so does ONNX Runtime
        return Engine("torch", f"ONNX Runtime cannot run it, {_first_line(error)}"), None
    return engine, program if engine.name == "onnxruntime" else None


def choose(seconds: Mapping[str, Seconds]) -> Engine:
    """Return the engine that the timings speak for: ONNX Runtime where it is clearly faster.

    That is at least 1.1 times as fast over all sizes (by their geometric mean), and at none of
    them below 0.9 times.

    Args:
        seconds: of an answer, by engine and by number of rows, the same for both.

    >>> choose({"torch": {"1": 0.002, "32": 0.03}, "onnxruntime": {"1": 0.001, "32": 0.02}}).reason
    'ONNX Runtime is 2.00 times as fast as torch for 1 row, 1.50 times for 32'
    """
    theirs, ours = seconds["torch"], seconds["onnxruntime"]
    gains = {size: theirs[size] / ours[size] for size in theirs}
    wins = prod(gains.values()) >= _WORTH ** len(gains) and min(gains.values()) >= _WORSE
    (one, first), *more = gains.items()
    reason = f"ONNX Runtime is {first:.2f} times as fast as torch for {one} row"
    reason += "".join(f", {gain:.2f} times for {size}" for size, gain in more)
    reason += "" if wins else ": not clearly faster"
    return Engine("onnxruntime" if wins else "torch", reason, dict(seconds))


def _exported(published: ModelVersion) -> bytes:
    """Return a version as one ONNX program for any number of raw rows."""
    preprocessing = published.preprocessing
    assert preprocessing is not None
    whole = _Whole(published.load(), preprocessing)
    for module in whole.modules():
        module.training = False  # an exported program refuses eval()
    rows = preprocessing.batch(published.example)
    with torch.no_grad():
        program = torch.onnx.export(
            whole,
            (torch.cat([rows, rows])[:2],),  # torch.export takes one row for a constant
            dynamo=True,
            verbose=False,
            input_names=["input"],
            output_names=["output"],
            dynamic_shapes=({0: torch.export.Dim("rows", min=1)},),
        )
    assert program is not None
    with tempfile.TemporaryDirectory(prefix="workbench-") as folder:
        file = Path(folder) / "model.onnx"
        program.save(file)
        return file.read_bytes()


def _differs(
    answer: Answer,
    other: Answer,
    rows: Array,
    beyond: Mapping[str, Array],
    classes: tuple[str, ...] = (),
) -> str | None:
    """Return where another engine's answers are not torch's, or not the same alone and together.

    An exported program often has another formula than torch, which shows only far from the example:
    the logarithm of a sigmoid, say, or of a sum of exponentials, where they are infinite.

    Args:
        answer: torch's.
        other: the other engine's.
        rows: like the example.
        beyond: unlike it, by what they are.
        classes: that an answer decides between, if any.
    """
    whole = other(rows)
    for size in _TOGETHER:
        how = _apart(whole[:size], other(rows[:size]), classes)
        if how:
            return f"ONNX Runtime is out: {how} for {size} rows alone and in a batch"
    like = {f"{size} rows like the example": rows[:size] for size in _TOGETHER}
    for what, some in {**like, **beyond}.items():
        how = _apart(_asked(answer, some), _asked(other, some), classes)
        if how:
            return f"ONNX Runtime is out: {how} for {what}"
    return None


def _asked(answer: Answer, rows: Array) -> Array | None:
    """Return the answer, or None where rows are refused: numbers of words that there are not."""
    try:
        return answer(rows)
    except Exception:
        return None


def _apart(expected: Array | None, found: Array | None, classes: tuple[str, ...]) -> str | None:
    """Return how two answers differ, or None where they are the same but for rounding."""
    if expected is None or found is None:
        return None if expected is found else "only one of the two answers"
    if expected.shape != found.shape:
        return f"the answers have the shapes {expected.shape} and {found.shape}"
    with np.errstate(all="ignore"):
        same = (expected == found) | (np.isnan(expected) & np.isnan(found))
        off = np.where(same, 0, np.abs(expected - found))
    share = _share(off, expected)
    if not share <= _AGREED:  # also where one of them is no number
        return f"the answers differ by {share:.1g} of the largest, over {_AGREED:g}"
    for row in np.flatnonzero(_labels(expected, classes) != _labels(found, classes)):
        if not _share(off[row], expected[row]) <= _AGREED:  # else it is as good as a tie
            return "the labels differ"
    return None


def _share(off: Array, expected: Array) -> float:
    """Return the largest difference as a share of the largest finite magnitude (at least 1)."""
    largest = np.abs(expected[np.isfinite(expected)]).max(initial=1)
    return float(off.max(initial=0) / largest)


def _labels(output: Array, classes: tuple[str, ...]) -> Array:
    chances = probabilities(torch.from_numpy(output), classes) if output.ndim == 2 else None
    return np.zeros(len(output)) if chances is None else array_of(decide(chances))


def _race(answers: Mapping[str, Answer], rows: Array) -> dict[str, Seconds]:
    """Time both in turns, so that a stall of the machine hits both; return the medians."""
    taken: dict[tuple[str, int], list[float]] = {
        (name, size): [] for name in answers for size in SIZES
    }
    end, rounds = time.perf_counter() + _LIMIT, 0
    while rounds < _ROUNDS or time.perf_counter() < end:
        for (name, size), times in taken.items():
            times.append(timed(answers[name], rows[:size]))
        rounds += 1
    return {
        name: {str(size): round(median(taken[name, size]), 7) for size in SIZES} for name in answers
    }


def _end_with_parent() -> None:
    os.read(sys.stdin.fileno(), 1)  # unbuffered: Python aborts where a thread holds a buffer
    os._exit(1)


def _first_line(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {lines[0]:.200}"


if __name__ == "__main__":
    main(sys.argv[1:])
