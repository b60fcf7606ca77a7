"""A training in a thread of its own, so that cells go on while the model learns."""

from __future__ import annotations

import atexit
import threading
from collections.abc import Callable
from pathlib import Path
from weakref import WeakValueDictionary

import torch

from workbench.determinism import apart
from workbench.training.trainings import Training

__all__ = ["begin", "handle_of", "is_busy"]

_PATIENCE = 0.5  # seconds; a first step that takes longer is waited for in sight
_LAST_WORD = 3.0  # seconds that trainings have to keep a checkpoint when the kernel ends

_trainings: WeakValueDictionary[Path, Training] = WeakValueDictionary()


def handle_of(folder: Path) -> Training | None:
    """Return the last handle that this process has made for the training in a folder."""
    return _trainings.get(folder)


def is_busy() -> bool:
    """Return whether a training goes on in a thread of this process."""
    return any(training.is_going for training in list(_trainings.values()))


def begin(training: Training, work: Callable[[Callable[[], None]], None]) -> None:
    """Let `work` go on in a thread of its own, and show it; return when its first step is done.

    Args:
        training: that is worked at.
        work: trains; is given what it has to call after its first step.

    Raises:
        BaseException: what kept it from coming that far.
    """
    begun, failed = threading.Event(), threading.Event()
    usual = torch.get_num_threads()

    def live() -> None:
        torch.set_num_threads(usual)  # a new thread begins with what any thread set last
        try:
            with apart():
                work(begun.set)
        except BaseException as error:
            training.fail(error)
            if not begun.is_set():
                failed.set()
        finally:
            training._over.set()
            begun.set()

    beside = [other.name for other in _trainings.values() if other.is_going]
    if beside:
        training.notes.append(f"beside it {', '.join(beside)} trains in this kernel: slower, both")
    training.error = None
    training._over.clear()
    training._thread = threading.Thread(target=live, name=f"training {training.name}", daemon=True)
    _trainings[training.folder] = training
    training._thread.start()
    try:
        if not begun.wait(_PATIENCE) and not training.views:
            _show(training)
        begun.wait()
    except KeyboardInterrupt:
        training.reins.stop(interrupted=True)
        raise
    if failed.is_set() and training.error is not None:
        error, training.error = training.error, None
        training.notes.append(str(error))
        raise error
    if not training.views:
        _show(training)
    for view in training.views:
        view.follow()


def _show(training: Training) -> None:
    from IPython.display import display

    display(training.show())


@atexit.register
def _end() -> None:
    """Let every training keep a last checkpoint before the process goes."""
    trainings = list(_trainings.values())
    for training in trainings:
        training.reins.stop(interrupted=True)
    for training in trainings:
        training._over.wait(_LAST_WORD)
