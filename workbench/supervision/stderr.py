"""`never_wait`: what is said on stderr is written by a thread of its own, in each process.

Where nobody reads the pipe that stderr is, that thread alone waits, and not what answers.
"""

from __future__ import annotations

import io
import os
import sys
import threading
import time
from multiprocessing import util
from queue import SimpleQueue
from typing import Any

__all__ = ["Relay", "never_wait"]

_MOST = 4 * 2**20  # bytes that wait to be written
_LAST = 2.0  # seconds that the last ones may take


def never_wait() -> None:
    """Let whatever this process says on stderr from now on be said without waiting for a reader.

    When the process ends, what is left may take two seconds.
    """
    if sys.stderr is None:  # there is none, as of a service that was started without
        return
    relay = Relay(sys.stderr.fileno())
    sys.stderr = io.TextIOWrapper(
        relay, encoding="utf-8", errors="backslashreplace", write_through=True
    )
    util.Finalize(None, relay.finish, exitpriority=0)  # of a worker too, where atexit is not heard


class Relay(io.RawIOBase):
    """A stream that takes all at once; a thread writes it on, and what is too much is left out.

    Args:
        descriptor: of the file that is written to.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._parts: SimpleQueue[bytes] = SimpleQueue()
        self._lock = threading.RLock()  # a collector's warning may come in the middle
        self._waiting, self._left_out = 0, 0  # bytes
        threading.Thread(target=self._run, name="workbench-stderr", daemon=True).start()

    def writable(self) -> bool:
        """Return that it can be written to."""
        return True

    def fileno(self) -> int:
        """Return the file that is written to; a child may have it as its own."""
        return self._descriptor

    def isatty(self) -> bool:
        """Return whether a terminal shows it."""
        return os.isatty(self._descriptor)

    def write(self, part: Any, /) -> int:
        """Take some bytes, or leave them out where too many wait."""
        taken = bytes(part)
        with self._lock:
            if self._waiting + len(taken) > _MOST:
                self._left_out += len(taken)
            else:
                self._waiting += len(taken)
                self._parts.put(taken)
        return len(taken)

    def finish(self) -> None:
        """Return once everything is written, if that is soon."""
        until = time.monotonic() + _LAST
        while self._waiting and time.monotonic() < until:
            time.sleep(0.01)

    def _run(self) -> None:
        while True:
            part = self._parts.get()
            self._pass_on(part)
            with self._lock:
                self._waiting -= len(part)
                left_out = 0 if self._waiting else self._left_out
                self._left_out -= left_out
            if left_out:
                self._pass_on(b"... %d bytes that nobody read in time are left out\n" % left_out)

    def _pass_on(self, part: bytes) -> None:
        try:
            while part:
                part = part[os.write(self._descriptor, part) :]
        except OSError:  # its reader is gone, or the disk is full
            pass
