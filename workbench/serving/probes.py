"""`Probed`: a version that torch answers for, until a probe has found something faster.

The probe is a process of its own, taken while torch answers already. Nothing here ever keeps a
version from being served, or delays it: whatever fails, torch goes on, and the engine says why.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import subprocess
import sys
import threading
from importlib.metadata import version as version_of
from pathlib import Path

import torch
from filelock import FileLock
from torch import nn

from workbench.devices import hardware, threads
from workbench.home import home
from workbench.registry import ModelVersion
from workbench.serving.engines import SIZES, Answer, Engine, Onnx, kept, rows_like, timed
from workbench.serving.live import Still
from workbench.types import JSON

__all__ = ["Probed"]

_EXTRA = ("onnx", "onnxscript", "onnxruntime")
_NOTICED = 2e-4  # seconds for a batch; below, its 32 requests cost fifty times as much anyway
_LARGEST = 512 * 2**20  # bytes of weights; to export takes several times as much memory
_PATIENCE = 300  # seconds after which a probe is given up
_CONTEST = ("-m", "workbench.serving.contests")  # what Python is started with


class Probed:
    """A version's model to answer by: torch's, until a probe has found a faster one.

    Args:
        published: the version.
        model: torch's, let go once another answers.
        answer: gives torch's output for raw rows, as the service asks for it.
        cores: that one answer may use; None for as many as torch uses here.
    """

    def __init__(
        self, published: ModelVersion, model: nn.Module, answer: Answer, cores: int | None = None
    ) -> None:
        self.engine = Engine("torch", "the probe has not ended yet")
        self._model = Still(model)
        self._published, self._cores = published, cores or torch.get_num_threads()
        self._thread = threading.Thread(target=self._probe, name="workbench-probe", daemon=True)
        try:
            reason = _unfit(published, model) or self._is_quick(answer)
            if reason:
                self.engine = Engine("torch", reason)
            elif not self._take_kept():
                self._thread.start()
        except Exception as error:  # a service without a faster engine is better than none
            self._give_up(error)

    @property
    def device(self) -> torch.device:
        """Where the model is."""
        return self._model.device

    def fresh(self) -> nn.Module:
        """Return the model to answer by now; an `Onnx` takes raw rows."""
        return self._model.fresh()

    def apart(self) -> nn.Module:
        """Return the model."""
        return self._model.apart()

    def told(self) -> JSON:
        """Return nothing, for a version's weights never change."""
        return {}

    def wait(self, seconds: float | None = None) -> Engine:
        """Return the engine once the probe has ended, or so many seconds have passed."""
        if self._thread.is_alive():
            self._thread.join(seconds)
        return self.engine

    def _is_quick(self, answer: Answer) -> str | None:
        """Return why no engine is worth the while, or None where one may be."""
        rows = rows_like(self._published)
        with threads(self._cores):
            for size in SIZES:
                least = min(timed(answer, rows[:size]) for _ in range(5))
                if least >= _NOTICED:
                    return None
        return f"torch answers {size} rows in {least * 1e3:.2f} ms: faster would not be noticed"

    def _probe(self) -> None:
        """Find what is faster, in a process of its own, unless another one finds it just now."""
        try:
            folder = self._folder()
            folder.parent.mkdir(parents=True, exist_ok=True)
            with FileLock(folder.parent / ".lock"):
                if self._take_kept():
                    return
                _contest(self._published.ref, folder, self._cores)
            if not self._take_kept():
                raise OSError(f"nothing is in {folder}")
        except Exception as error:
            self._give_up(error)

    def _take_kept(self) -> bool:
        """Take up what was found before; return whether anything was."""
        found = kept(self._folder())
        if found is None:
            return False
        engine, program = found
        if program is not None:
            onnx = Onnx(program, self._cores)
            onnx.answer(rows_like(self._published))  # a first answer takes longer, and may fail
            self._model = Still(onnx)
        self.engine = engine
        return True

    def _give_up(self, error: Exception) -> None:
        self.engine = Engine("torch", f"the probe failed: {type(error).__name__}: {error}")

    def _folder(self) -> Path:
        return home() / "engines" / _key(self._published, self._cores)


def _unfit(published: ModelVersion, model: nn.Module) -> str | None:
    """Return why a version stays with torch without a probe, or None."""
    if published.preprocessing is None:
        return "the model is called by name, with several inputs, texts or an exact datatype"
    if len(published.signature.outputs) != 1:
        return "the model has several outputs"
    if callable(getattr(model, "stream", None)):
        return "the model streams"
    missing = [name for name in _EXTRA if importlib.util.find_spec(name) is None]
    if missing:
        return f"{missing[0]} is not installed: pip install 'maas-workbench[export]'"
    size = sum(file.stat().st_size for file in published.folder.iterdir())
    if size > _LARGEST:
        most = _LARGEST // 2**20
        return f"the version has {size / 2**20:,.0f} MiB, and no more than {most} are exported"
    return None


def _key(published: ModelVersion, cores: int) -> str:
    """Return what names a version on a machine with what is installed there."""
    told = {
        "seal": published.record["seal"],
        "machine": {**hardware(), "threads": cores},
        "packages": {name: version_of(name) for name in ("torch", "maas-workbench", *_EXTRA)},
    }
    return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()


def _contest(ref: str, folder: Path, cores: int) -> None:
    """Let a process find the faster engine, and wait for it.

    Raises:
        OSError: it ended without having found one.
    """
    # The paths of this process, since the model's class may lie in any of them.
    told = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(
        [sys.executable, *_CONTEST, ref, str(folder), str(cores)],
        env=told,
        stdin=subprocess.PIPE,  # by whose end it learns that nobody waits any more
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        code = process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        raise TimeoutError(f"it took more than {_PATIENCE} s") from None
    finally:
        process.kill()
        process.wait()
        if process.stdin is not None:
            process.stdin.close()
    if code != 0:
        raise OSError(f"its process ended with {code}")
