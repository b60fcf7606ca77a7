"""Checkpoints: everything a training needs to go on as if it had never stopped, one file each.

A file is safetensors: tensors under `model.`, `optimizer.` and `average.`, and in its header, as
JSON, the rest. It appears whole or not at all, written by a thread of its own.
"""

from __future__ import annotations

import contextlib
import json
import time
import warnings
from collections.abc import Callable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from workbench.errors import RequestError, TamperedError
from workbench.home import write_file
from workbench.modes import settled
from workbench.types import JSON

__all__ = [
    "Checkpoint",
    "Checkpoints",
    "Snapshot",
    "best_checkpoint",
    "copied",
    "copy_into",
    "list_checkpoints",
    "read_checkpoint",
    "tensors_of",
    "write_checkpoint",
]

_FORMAT = 1
_BETWEEN = 8  # rungs of the ladder between the first checkpoint and the last
_SOON = 5.0  # seconds after which the first is due, whatever is asked: little is lost so early
_BEST = "best.safetensors"


@dataclass(frozen=True)
class Snapshot:
    """What is written: tensors by name, and the rest as plain data.

    Args:
        tensors: copies on the CPU that nobody writes into any more.
        rest: anything JSON can hold; has `step`.
    """

    tensors: Mapping[str, Tensor]
    rest: JSON

    @property
    def step(self) -> int:
        """How many steps were done."""
        return int(self.rest["step"])

    def part(self, name: str) -> dict[str, Tensor]:
        """Return the tensors under `name.`, by the rest of their names."""
        start = f"{name}."
        return {k[len(start) :]: v for k, v in self.tensors.items() if k.startswith(start)}


@dataclass(frozen=True)
class Checkpoint:
    """A moment of a training, on disk.

    Args:
        path: the file.
        step: how many steps were done.
        figures: of the last epoch that had ended.
    """

    path: Path
    step: int
    figures: dict[str, float]

    def load(self, model: nn.Module) -> None:
        """Put its weights into a model: their average, where the training kept one.

        Raises:
            RequestError: the model is another one; the message names the first tensor that differs.
            TamperedError: the file is damaged.
        """
        state = read_checkpoint(self.path)
        with settled(model):
            copy_into(model, {**state.part("model"), **state.part("average")}, str(self.path))


class Checkpoints:
    """The checkpoints of one training: which are due, which are kept, and the thread that writes.

    Kept are the first, the last, the best, and a ladder of at most eight between, which is thinned
    where its rungs are closest when it has more.

    Args:
        folder: theirs alone; made when the first is written.
        every: seconds from one to the next; the first is due after five at most.
        told: called with each checkpoint once it is on disk, at the next look.
        say: called with a line about one that could not be written.
    """

    def __init__(
        self,
        folder: Path,
        every: float,
        told: Callable[[Checkpoint], None],
        say: Callable[[str], None] = warnings.warn,
    ) -> None:
        self._folder, self._every, self._told, self._say = folder, every, told, say
        self._next = time.perf_counter() + min(every, _SOON)
        self._pool = ThreadPoolExecutor(max_workers=1, thread_name_prefix="checkpoint")
        for half in folder.glob(".*.safetensors.*"):  # left by a process that was killed over it
            half.unlink()
        self._writing: Future[Checkpoint] | None = None
        self._owed: Snapshot | None = None  # the best, until it is written

    def due(self) -> bool:
        """Return whether it is time for the next one; collect the one before, if it is written."""
        if self._writing is not None and self._writing.done():
            self._collect()
        return time.perf_counter() >= self._next and self._writing is None

    def save(self, state: Snapshot, best: Snapshot | None = None) -> None:
        """Write a state, and before it the best one where that is new; return before it is done."""
        self._collect()
        self._owed = best or self._owed
        self._next = time.perf_counter() + (self._every if state.step else min(self._every, _SOON))
        try:
            self._writing = self._pool.submit(self._write, state, self._owed)
        except RuntimeError:  # Python is ending and starts no more threads: the last word counts
            self._writing = Future()
            self._writing.set_result(self._write(state, self._owed))

    def close(self) -> None:
        """Wait until everything is written."""
        try:
            self._collect()
        finally:
            self._pool.shutdown()

    def _write(self, state: Snapshot, best: Snapshot | None) -> Checkpoint:
        written = write_checkpoint(self._folder, state, best)
        _thin(self._folder)
        return written

    def _collect(self) -> None:
        """Wait for what is being written; say so where it could not be."""
        writing, self._writing = self._writing, None
        if writing is None:
            return
        try:
            checkpoint = writing.result()
        except OSError as error:
            last = list_checkpoints(self._folder)
            saved = f"that of step {last[-1].step:,} is the last" if last else "there is none yet"
            self._say(
                f"a checkpoint could not be written to {self._folder}: "
                f"{error.strerror or error}; {saved}, and the training goes on: make room there"
            )
        else:
            self._owed = None
            self._told(checkpoint)


def write_checkpoint(folder: Path, state: Snapshot, best: Snapshot | None = None) -> Checkpoint:
    """Write a state into a folder of checkpoints, and before it the best one where that is new."""
    if best is not None:
        write_file(folder / _BEST, _content(best))
    path = folder / f"{state.step:09d}.safetensors"
    write_file(path, _content(state))
    return _described(path)


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Return the checkpoints in a folder by step, the best one apart."""
    found = []
    for path in sorted(folder.glob("[0-9]*.safetensors")):
        with contextlib.suppress(FileNotFoundError):  # thinned out since the folder was read
            found.append(_described(path))
    return found


def best_checkpoint(folder: Path) -> Checkpoint | None:
    """Return the best checkpoint in a folder, or None before the first epoch has ended."""
    path = folder / _BEST
    return _described(path) if path.exists() else None


def tensors_of(model: nn.Module) -> dict[str, Tensor]:
    """Return all parameters and buffers by name, those that a state dict leaves out too."""
    return {**dict(model.named_parameters()), **dict(model.named_buffers())}


def copied(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    """Return copies on the CPU, named `prefix.name`."""
    return {f"{prefix}.{k}": v.detach().to("cpu", copy=True) for k, v in tensors.items()}


@torch.no_grad()
def copy_into(model: nn.Module, tensors: Mapping[str, Tensor], source: str) -> None:
    """Copy tensors into the model's own of the same names, all or none.

    Raises:
        RequestError: a name is missing on either side, or a shape differs.
    """
    own = tensors_of(model)
    for name in [*own, *tensors]:  # the model's order comes first
        theirs, ours = (_shown(side.get(name)) for side in (tensors, own))
        if theirs != ours:
            raise RequestError(
                f"{source} is of another model: {name} is {theirs} there and {ours} in this "
                f"{type(model).__name__}: build the model as it was, or train under another name"
            )
    for name, value in tensors.items():
        own[name].copy_(value)


def read_checkpoint(path: Path) -> Snapshot:
    """Return what a checkpoint holds.

    Raises:
        RequestError: the file is not there any more.
        TamperedError: the file is damaged, or of a newer format.
    """
    try:
        return _read(path, whole=True)
    except FileNotFoundError:
        raise RequestError(
            f"checkpoint {path} is not there any more: take another of training.checkpoints, "
            "which are thinned while a training goes on"
        ) from None


def _read(path: Path, *, whole: bool) -> Snapshot:
    """Return what a file holds, or its header alone; raise `FileNotFoundError` where it is gone."""
    try:
        with safe_open(path, "pt") as file:
            rest = json.loads(file.metadata()["workbench"])
            names = file.keys() if whole else ()
            tensors = {name: file.get_tensor(name) for name in names}
            form, _ = rest["format"], rest["step"]
    except FileNotFoundError:
        raise
    except (SafetensorError, KeyError, TypeError, ValueError, OSError) as error:
        raise TamperedError(
            f"checkpoint {path} cannot be read: {error}: delete it to go on from the one before"
        ) from None
    if form != _FORMAT:
        raise TamperedError(
            f"checkpoint {path} has format {form}, expected {_FORMAT}: "
            "use the workbench that wrote it"
        )
    return Snapshot(tensors, rest)


def _content(state: Snapshot) -> bytes:
    tensors = {name: value.contiguous() for name, value in state.tensors.items()}
    return save_tensors(tensors, {"workbench": json.dumps({"format": _FORMAT, **state.rest})})


def _described(path: Path) -> Checkpoint:
    state = _read(path, whole=False)
    epochs = state.rest.get("epochs") or [{}]
    return Checkpoint(path, state.step, dict(epochs[-1]))


def _thin(folder: Path) -> None:
    """Delete checkpoints between the first and the last where there are many, the closest first."""
    paths = sorted(folder.glob("[0-9]*.safetensors"))
    while len(paths) - 2 > _BETWEEN:
        steps = [int(path.stem) for path in paths]
        gaps = [after - before for before, after in zip(steps, steps[2:], strict=False)]
        paths.pop(1 + gaps.index(min(gaps))).unlink()


def _shown(tensor: Tensor | None) -> str:
    return "missing" if tensor is None else f"{str(tensor.dtype)[6:]} {tuple(tensor.shape)}"
