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

__all__ = ["SIZES", "Answer", "Engine", "Onnx", "Seconds", "keep", "kept", "rows_like", "timed"]

Answer = Callable[[Array], Array]  # the output of raw rows
Seconds = dict[str, float]  # by number of rows

SIZES = (1, 32)  # rows that are timed: a lone request, and a batch under load
_KEPT = 16  # versions of which the probe is remembered


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
    assert published.preprocessing is not None
    example = array_of(published.preprocessing.batch(published.example))
    rows = np.ascontiguousarray(example[np.arange(SIZES[-1]) % len(example)])
    rows.flags.writeable = False  # a model that writes into what it is given gets a copy
    return rows


def timed(answer: Answer, rows: Array) -> float:
    """Return the seconds that an answer takes."""
    start = time.perf_counter()
    answer(rows)
    return time.perf_counter() - start
