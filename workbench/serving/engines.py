"""The engines that compute a version's answers, torch and ONNX Runtime, and what is kept of them.

Which of them is faster for a version on a machine is found once (`contests`) and kept in `engines/`
of the home, with the exported program where that won; the folder may be deleted at any time.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import msgspec
import numpy as np
import torch
from torch import Tensor, nn

from workbench.evaluation.calls import Array, array_of, rows_of
from workbench.home import new_folder, write_json
from workbench.registry import ModelVersion
from workbench.types import JSON

__all__ = [
    "SIZES",
    "Answer",
    "Engine",
    "Onnx",
    "Seconds",
    "keep",
    "kept",
    "rows_beyond",
    "rows_like",
    "timed",
]

Answer = Callable[[Array], Array]  # the output of raw rows
Seconds = dict[str, float]  # by number of rows

SIZES = (1, 32)  # rows that are timed: a lone request, and a batch under load
_KEPT = 16  # versions of which the probe is remembered
_FEW = 8  # rows of each kind beyond the example: all take about as long to answer as to time
_SPREADS = (1, 10, 100, 1e3, 1e6)  # times as far from the mean
_TIMES = (0, -1, 10, -10, 1e3, -1e3)  # times the example


@dataclass(frozen=True)
class Engine:
    """What computes the answers of a served version, and why.

    Args:
        name: `"torch"` or `"onnxruntime"`.
        reason: why it was chosen.
        seconds: that an answer took when it was probed, by engine and by number of rows.
    """

    name: Literal["torch", "onnxruntime"]
    reason: str
    seconds: dict[str, Seconds] = field(default_factory=dict)

    @property
    def platform(self) -> str:
        """Its name in the words of the Open Inference Protocol."""
        return "onnxruntime_onnx" if self.name == "onnxruntime" else "pytorch"

    def to_json(self) -> JSON:
        """Return what a service says of it."""
        return {"name": self.name, "reason": self.reason, "seconds": self.seconds}


@dataclass(frozen=True)
class _Kept:
    format: Literal["workbench-engine-1"]
    engine: Engine
    sha256: str | None  # of the program, where that won


class Onnx(nn.Module):
    """An exported version that ONNX Runtime computes, from raw rows to the output.

    Args:
        program: the bytes of the ONNX file.
        cores: that one answer may use.
    """

    def __init__(self, program: bytes, cores: int) -> None:
        super().__init__()
        import onnxruntime

        onnxruntime.set_default_logger_severity(4)
        told = onnxruntime.SessionOptions()
        told.log_severity_level = 4
        told.intra_op_num_threads, told.inter_op_num_threads = cores, 1
        # A thread that waits for work by going round in circles takes the core of those who read
        # the requests; and patterns of memory are kept for each number of rows ever asked.
        told.add_session_config_entry("session.intra_op.allow_spinning", "0")
        told.enable_mem_pattern = False
        self._session = onnxruntime.InferenceSession(
            program, told, providers=["CPUExecutionProvider"]
        )

    def forward(self, raw: Tensor) -> Tensor:
        """Return the output for raw rows, shaped (rows, ...)."""
        (output,) = self._session.run(None, {"input": raw.numpy()})
        return torch.from_numpy(output)

    def answer(self, rows: Array) -> Array:
        """Return the output for raw rows, as `Answer` has it."""
        return array_of(self(rows_of(rows)))


def kept(folder: Path) -> tuple[Engine, bytes | None] | None:
    """Return an engine and its program, or None where none is kept, or not what was written."""
    try:
        found = msgspec.json.decode((folder / "engine.json").read_bytes(), type=_Kept)
        if found.sha256 is None:
            return found.engine, None
        program = (folder / "model.onnx").read_bytes()
    except (OSError, msgspec.MsgspecError):
        return None
    is_whole = hashlib.sha256(program).hexdigest() == found.sha256
    return (found.engine, program) if is_whole else None


def keep(folder: Path, engine: Engine, program: bytes | None) -> None:
    """Keep what was found; the oldest of the same place goes where there are too many."""
    shutil.rmtree(folder, ignore_errors=True)
    digest = None if program is None else hashlib.sha256(program).hexdigest()
    told = msgspec.to_builtins(_Kept("workbench-engine-1", engine, digest))
    with new_folder(folder) as made:
        if program is not None:
            (made / "model.onnx").write_bytes(program)
        write_json(made / "engine.json", told)
    others = [path for path in folder.parent.iterdir() if path.is_dir()]
    for old in sorted(others, key=lambda path: path.stat().st_mtime, reverse=True)[_KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def rows_like(published: ModelVersion) -> Array:
    """Return raw rows to time with, as many as the largest size: its example, over and over."""
    return _example(published, SIZES[-1])


def rows_beyond(published: ModelVersion) -> dict[str, Array]:
    """Return raw rows that are unlike its example, by what they are; always the same ones.

    Of floats up to a million times as far from the mean as those that it was trained on, of
    integers the whole range of their datatype: what a service may be asked, and no example shows.

    Args:
        published: of one input with a preprocessing.
    """
    example, known = _example(published, _FEW), published.preprocessing
    assert known is not None
    if example.dtype.kind != "f":
        return {what: _fixed(rows) for what, rows in _integers(example).items()}
    scale = (np.array(known.mean), np.array(known.std)) if known.kind == "table" else None
    limits = np.finfo(example.dtype)
    return {
        what: _fixed(rows.clip(limits.min, limits.max).astype(example.dtype))
        for what, rows in _floats(example.astype(np.float64), scale).items()
    }


def timed(answer: Answer, rows: Array) -> float:
    """Return the seconds that an answer takes."""
    start = time.perf_counter()
    answer(rows)
    return time.perf_counter() - start


def _example(published: ModelVersion, rows: int) -> Array:
    assert published.preprocessing is not None
    example = array_of(published.preprocessing.batch(published.example))
    return _fixed(np.ascontiguousarray(example[np.arange(rows) % len(example)]))


def _fixed(rows: Array) -> Array:
    rows.flags.writeable = False  # a model that writes into what it is given gets a copy
    return rows


def _integers(example: Array) -> dict[str, Array]:
    """Return rows of integers, or of truths, from all over their datatype."""
    truths = example.dtype == np.bool_
    least, most = (0, 1) if truths else (np.iinfo(example.dtype).min, np.iinfo(example.dtype).max)
    seeded, shape, dtype = np.random.default_rng(0), example.shape, example.dtype
    ends, whole = f"{least} or {most}", f"{least} to {most}"
    return {
        "the example's values in another order": seeded.permuted(example.ravel()).reshape(shape),
        "the example's complement": np.invert(example),
        "zeros": np.zeros_like(example),
        f"rows of {least}": np.full_like(example, least),
        f"rows of {most}": np.full_like(example, most),
        f"rows of {ends}": seeded.choice(np.array([least, most], dtype), shape),
        f"rows of {whole}": seeded.integers(least, most, shape, dtype, endpoint=True),
    }


def _floats(example: Array, scale: tuple[Array, Array] | None) -> dict[str, Array]:
    """Return rows from near to far, by mean and standard deviation, else those of the example."""
    mean, std = scale or (example.mean(0), example.std(0))
    steps = np.asarray(np.random.default_rng(0).standard_normal(example.shape))
    steps[0], steps[1] = 1, -1  # all on one side, so that sums grow large
    far = std * steps if scale else np.where(std > 0, std, 1) * steps
    return {
        **{f"rows {times:g} times as far from the mean": mean + times * far for times in _SPREADS},
        **{f"the example times {times:g}": times * example for times in _TIMES},
    }
