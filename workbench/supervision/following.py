"""`Follower`: keeps a name of a shelf on the version that its reference means, as an alias moves.

It looks at the log of the model, which costs a look at the file system where nothing has changed.
The version before answers until the one after it has answered once by itself, so no request is
dropped; a version that cannot be loaded changes nothing.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from workbench.errors import WorkbenchError
from workbench.registry import resolve
from workbench.serving.served import Served, served_from
from workbench.serving.shelf import Shelf

__all__ = ["Follower"]

_LOOK = 0.5  # seconds between two looks
_RESTS = 60  # looks at most before a version that could not be loaded is tried again

_log = logging.getLogger("workbench.serving")


class Follower:
    """Follows a reference, in a thread from `start` on.

    Args:
        shelf: of the server.
        ref: `"name@alias"`, or `"name"` for its newest version.
        name: that it has on the shelf.
        load: returns a version by its reference and the name it is to have, having asked it once.
    """

    def __init__(
        self,
        shelf: Shelf,
        ref: str,
        *,
        name: str,
        load: Callable[[str, str | None], Served] = lambda ref, name: served_from(ref, name=name),
    ) -> None:
        self.trouble: str | None = None  # why the version that is meant does not answer
        self._shelf, self._ref, self._name, self._load = shelf, ref, name, load
        self._failed, self._rest, self._left = "", 0, 0  # which, and the looks that it rests
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, name="workbench-follow", daemon=True)

    def start(self) -> None:
        """Begin to follow."""
        self._thread.start()

    def close(self) -> None:
        """Follow no more; a version that is being loaded comes to nothing."""
        self._ended.set()

    def look(self) -> None:
        """Put the version that is meant now in its place, unless it is there.

        A name that an administrator has taken off the shelf stays off.
        """
        meant = self._ref
        try:
            meant = "{}@{}".format(*resolve(self._ref))
            if self._is_resting(meant):
                return
            self._bring(meant)
            self.trouble, self._failed = None, ""
        except Exception as error:  # a model may raise anything; the one before answers
            self._fail(meant, error)

    def _run(self) -> None:
        while not self._ended.wait(_LOOK):
            self.look()

    def _bring(self, meant: str) -> None:
        here = {served.model: served for served in self._shelf.versions(self._name)}
        if not here or next(iter(here)) == meant:
            return
        served = here.get(meant) or self._load(meant, self._name)
        if not self._ended.is_set():
            self._shelf.put(served)
            _log.info("%s is %s from now on", self._ref, meant)

    def _is_resting(self, meant: str) -> bool:
        """Return whether it is too soon to try again what has just failed."""
        if meant != self._failed:
            return False
        self._left -= 1
        return self._left > 0

    def _fail(self, meant: str, error: Exception) -> None:
        """Say once why a version does not come, and let it rest twice as long each time."""
        self._rest = min(2 * self._rest, _RESTS) if meant == self._failed else 1
        self._failed, self._left = meant, self._rest
        known = isinstance(error, WorkbenchError)
        reason = str(error) if known else f"{type(error).__name__}: {error}"
        told = f"{meant} does not answer for {self._ref}, the version before does: {reason}"
        if told != self.trouble:
            _log.error("%s", told, exc_info=None if known else error)
        self.trouble = told
