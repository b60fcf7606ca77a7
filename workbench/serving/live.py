"""The weights that a service answers by: those of one moment, or of a model that goes on changing.

A mirror never shows half of a step: while a model is trained, the training's own thread copies its
weights between two steps, which takes it a fiftieth of its time at most. Once it is paused or has
ended, whoever answers looks himself. Nothing here moves a weight of the model, or a random number.
"""

from __future__ import annotations

import copy
import threading
import time
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor, nn

from workbench.attached import attached, follow, lock_of
from workbench.datasets.splits import content_hash
from workbench.devices import device_of
from workbench.errors import RequestError, ServiceError
from workbench.modes import settled
from workbench.training.checkpoints import tensors_of
from workbench.types import JSON

__all__ = ["Mirror", "Still", "Weights", "snapshot_of"]

_SHARE = 50  # times what a copy took pass before the next, so that it costs 2 % at most
_TICK = 0.02  # seconds between two looks whether the first copy is there


class Weights(Protocol):
    """A model to answer by, which is nobody else's."""

    @property
    def device(self) -> torch.device:
        """Where `fresh` gave the model last."""

    def fresh(self) -> nn.Module:
        """Return the model as it is to answer now, in evaluation mode.

        It stays so until the next call; only the thread that answers calls it.
        """

    def apart(self) -> nn.Module:
        """Return the model as `fresh` does, to stay so for as long as it is held."""

    def told(self) -> JSON:
        """Return what `fresh` gave last: the `hash` of its weights and, where known, the `step`."""


@dataclass
class Still:
    """A model that nothing changes any more.

    Args:
        model: nobody else's; its modules are put into evaluation mode for good.
        step: of the training that it comes from, or None.
        hash: of its weights; None for not yet computed.
    """

    model: nn.Module
    step: int | None = None
    hash: str | None = None

    def __post_init__(self) -> None:
        self.device = device_of(self.model)
        for module in self.model.modules():
            module.training = False  # an exported program refuses eval()

    def fresh(self) -> nn.Module:
        """Return the model."""
        return self.model

    def apart(self) -> nn.Module:
        """Return the model."""
        return self.model

    def told(self) -> JSON:
        """Return the hash of the weights, computed once, and the step."""
        if self.hash is None:
            tensors = [v for v in self.model.state_dict().values() if isinstance(v, Tensor)]
            self.hash = content_hash(*(t.detach().cpu() for t in tensors))[:12]
        return {"hash": self.hash, "step": self.step}


class Mirror:
    """Copies of a model that follow its weights and keep it from nobody.

    The front one answers, the back one is written by the training, and they change places. Weights
    that a training averages are shown averaged, as `evaluate` sees them while it is paused. Changed
    by hand, a model is followed at once; where a change goes unseen by autograd (`.data`, NumPy, a
    fused optimizer), after as long as fifty comparisons of all weights take.

    Args:
        model: followed for as long as someone else holds it.

    Raises:
        RequestError: it cannot be copied.
    """

    def __init__(self, model: nn.Module) -> None:
        self._source = weakref.ref(model)
        self._preprocessing = attached(model).preprocessing
        self._lock = threading.Lock()  # of the copies; taken after the model's own, never before
        self._back: Still | None = None
        self._waits = False  # whether the back one is the newer
        self._failure: str | None = None  # what kept it from being copied
        self._marks: list[tuple[int, int]] | None = None  # of the model's tensors, last seen
        self._due = 0.0
        self._front = self._first(model)

    def __call__(self, model: nn.Module, held: Mapping[str, Tensor], step: int | None) -> None:
        """Take up the weights of a model in training, between two of its steps.

        Args:
            model: whose lock the caller holds.
            held: averages of weights, by name.
            step: how many are done, where that is known.
        """
        if time.perf_counter() < self._due or not self._lock.acquire(blocking=False):
            return  # the next look comes soon
        started = time.thread_time()
        self._waits = False  # nobody takes what is half written
        try:
            self._back = _copied(self._back, model, held, step)
            self._waits, self._failure = True, None
        except Exception as error:  # a training never fails of who looks on
            self._failure = _first_line(error)
        finally:
            self._marks = None
            self._lock.release()
            self._due = _next(started)

    @property
    def device(self) -> torch.device:
        """Where the copy is."""
        return self._front.device

    def fresh(self) -> nn.Module:
        """Return the copy to answer by now, whole as of a moment between two steps.

        Raises:
            ServiceError: the model was fitted to other inputs, or cannot be copied any more.
        """
        model = self._source()
        if model is not None:
            self._check(model)
            lock = lock_of(model)
            if lock.acquire(blocking=False):
                try:
                    self._look(model)
                finally:
                    lock.release()
            if self._failure is not None:
                raise ServiceError(str(_uncopied(model, self._failure)))
        with self._lock:
            if self._waits and self._back is not None:
                self._front, self._back, self._waits = self._back, self._front, False
            return self._front.model

    def apart(self) -> nn.Module:
        """Return a copy of the copy, which follows nothing."""
        return copy.deepcopy(self.fresh())

    def told(self) -> JSON:
        """Return the hash of the weights that `fresh` gave last, and the step they are of."""
        with self._lock:
            return self._front.told()

    def _first(self, model: nn.Module) -> Still:
        """Return the first copy, made by whoever may: this thread, or that of a training."""
        follow(model, self)
        lock = lock_of(model)
        while self._back is None and self._failure is None:
            if lock.acquire(timeout=_TICK):
                try:
                    self(model, {}, _steps(model))
                finally:
                    lock.release()
        if self._back is None:
            raise _uncopied(model, self._failure or "")
        with self._lock:
            front, self._back, self._waits = self._back, None, False
        return front

    def _look(self, model: nn.Module) -> None:
        """Take up what changed in a model that is not being trained."""
        started = time.thread_time()
        marks = [_mark(tensor) for tensor in tensors_of(model).values()]
        if marks == self._marks:
            if time.perf_counter() < self._due:
                return
            if _same(self._front.model, model):
                self._due = _next(started)
                return
        with self._lock:
            try:
                self._front = _copied(self._front, model, {}, _steps(model))
                self._waits, self._marks, self._failure = False, marks, None
            except Exception as error:
                self._failure = _first_line(error)
        self._due = _next(started)

    def _check(self, model: nn.Module) -> None:
        known = attached(model).preprocessing
        if known is not self._preprocessing and known != self._preprocessing:
            raise ServiceError(
                f"{type(model).__name__} was fitted to other inputs since it was served: "
                "run serve(...) again"
            )


def snapshot_of(model: nn.Module) -> Still:
    """Return a copy of a model as it is once no training moves it.

    Raises:
        RequestError: it cannot be copied.
    """
    with settled(model):
        try:
            return Still(copy.deepcopy(model), _steps(model))
        except (RuntimeError, TypeError) as error:
            raise _uncopied(model, _first_line(error)) from None


@torch.no_grad()
def _copied(
    known: Still | None, model: nn.Module, held: Mapping[str, Tensor], step: int | None
) -> Still:
    """Return `known` with the weights of the model, or a new copy where that has other tensors."""
    values = {**tensors_of(model), **held}
    own = tensors_of(known.model) if known is not None else {}
    if known is None or _shapes(own) != _shapes(values):
        known = Still(copy.deepcopy(model))
        own, values = tensors_of(known.model), dict(held)
    for name, value in values.items():
        own[name].copy_(value)
    known.step, known.hash = step, None
    return known


def _next(started: float) -> float:
    """Return when to do again what this thread began at `started` of its own time, and has done."""
    return time.perf_counter() + _SHARE * (time.thread_time() - started)


def _same(copy: nn.Module, model: nn.Module) -> bool:
    own, others = tensors_of(copy), tensors_of(model)
    return all(torch.equal(own[name], value.to(own[name].device)) for name, value in others.items())


def _shapes(tensors: Mapping[str, Tensor]) -> list[tuple[str, torch.Size, torch.dtype]]:
    return [(name, tensor.shape, tensor.dtype) for name, tensor in tensors.items()]


def _mark(tensor: Tensor) -> tuple[int, int]:
    """Return what tells a tensor from another one, and from itself after a change in place."""
    return tensor.data_ptr(), -1 if tensor.is_inference() else tensor._version


def _steps(model: nn.Module) -> int | None:
    """Return how many steps the model's training has done, or None where it has none."""
    training = attached(model).training
    return None if training is None else len(training.history)


def _first_line(error: Exception) -> str:
    """Return what an error says; itself it would keep the model alive."""
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _uncopied(model: nn.Module, reason: str) -> RequestError:
    return RequestError(
        f"{type(model).__name__} cannot be copied, and a service needs a copy of its own: "
        f"{reason}; publish the model and serve the version"
    )
