"""`Reins`: what steers a training from outside; the loop reads one flag of them after each step."""

from __future__ import annotations

import threading
import time
from pathlib import Path

from workbench.errors import RequestError
from workbench.home import write_file

__all__ = ["Reins", "leave_word"]

_WORD = "asked.txt"  # what another process asks of a training, in its folder
_WORDS = ("pause", "unpause", "stop")
_LOOK_EVERY = 0.25  # seconds between two looks for a word while the training is paused


class Reins:
    """Pause, unpause and stop, from any thread, or by a word that another process left.

    Attributes:
        halted: whether the loop is to come to `settle` after this step.
        stopping: whether it is to end.
        interrupted: whether it is to end with nothing more than a last checkpoint.
        waited: seconds of all pauses.
    """

    def __init__(self) -> None:
        self.halted = self.stopping = self.interrupted = False
        self.waited = 0.0
        self._going = threading.Event()
        self._going.set()
        self._lock = threading.Lock()
        self._asked: list[int] = []
        self._closed = False

    @property
    def paused(self) -> bool:
        """Whether the training is to hold still."""
        return not self.stopping and not self._going.is_set()

    def pause(self) -> None:
        """Hold the training after the step it is in."""
        self._going.clear()
        self.halted = True

    def unpause(self) -> None:
        """Let it go on."""
        self._going.set()

    def stop(self, *, interrupted: bool = False) -> None:
        """End it after the step it is in."""
        self.interrupted = self.interrupted or interrupted
        self.stopping = self.halted = True
        self._going.set()

    def renew(self) -> None:
        """Forget that it was stopped, before it goes on."""
        self.halted = self.stopping = self.interrupted = self._closed = False
        self._asked = []
        self._going.set()

    def extend(self, steps: int) -> bool:
        """Ask for more steps; return False where the training is ending, and takes no more."""
        with self._lock:
            if self._closed or self.stopping:
                return False
            self._asked.append(steps)
            return True

    def asked(self) -> list[int]:
        """Return how many more steps were asked for since the last call, an extension each."""
        with self._lock:
            asked, self._asked = self._asked, []
            return asked

    def close(self) -> bool:
        """Take no more steps from now on, unless some were just asked for; return whether so."""
        with self._lock:
            self._closed = not self._asked
            return self._closed

    def wait(self, folder: Path) -> None:
        """Return when it is no longer paused. Called by the training's own thread."""
        since = time.perf_counter()
        while not self._going.wait(_LOOK_EVERY):
            self.obey(folder)
        self.waited += time.perf_counter() - since

    def settle(self) -> bool:
        """Return whether to stop; else take the flag back, unless something was said since."""
        self.halted = False
        if self.stopping or self.paused:
            self.halted = True
        return self.stopping

    @staticmethod
    def drop_word(folder: Path) -> None:
        """Forget what another process asked of a training that had ended by then."""
        (folder / _WORD).unlink(missing_ok=True)

    def obey(self, folder: Path) -> None:
        """Do what another process asked by a word in the folder; an unknown word is dropped."""
        path = folder / _WORD
        try:
            word = path.read_text(encoding="utf-8")
            path.unlink()
        except OSError:
            return
        if word in _WORDS:
            getattr(self, word)()


def leave_word(folder: Path, word: str) -> None:
    """Ask a training that another process runs to pause, unpause or stop.

    Raises:
        RequestError: its folder cannot be written.
    """
    try:
        write_file(folder / _WORD, word.encode())
    except OSError as error:
        raise RequestError(
            f"training {folder.name!r} cannot be asked to {word}: {folder} cannot be written: "
            f"{error.strerror}"
        ) from None
