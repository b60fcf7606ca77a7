"""The pump: the one thread that tells the page what happened, a few times a second."""

from __future__ import annotations

import logging
import threading
import time
from typing import Protocol

__all__ = ["View", "follow"]

_EVERY = 0.25  # seconds, as often as a training looks at itself
_REST = 1.0, 300.0  # seconds after which a view that failed looks again: at first, and at most


class View(Protocol):
    """What can be followed."""

    def look(self) -> bool:
        """Tell the page what is new; return whether more may come."""


_views: dict[View, bool] = {}  # and whether somebody has asked again since the last look
_failed: dict[View, tuple[float, float]] = {}  # when each looks again, and how long it rested
_lock = threading.Lock()
_thread: threading.Thread | None = None


def follow(view: View) -> None:
    """Let a view look again and again until it says that nothing more will come."""
    global _thread  # noqa: PLW0603 - there is one in a process
    with _lock:
        _views[view] = True
        if _thread is None:
            _thread = threading.Thread(target=_run, name="views", daemon=True)
            _thread.start()


def _run() -> None:
    global _thread  # noqa: PLW0603
    while True:
        time.sleep(_EVERY)
        with _lock:
            _views.update(dict.fromkeys(_views, False))
            views = list(_views)
        over = [view for view in views if not _more_may_come(view)]
        with _lock:
            for view in over:
                if not _views[view]:
                    del _views[view]
            if not _views:
                _thread = None
                return


def _more_may_come(view: View) -> bool:
    """Let one view look; one that cannot must not stop the others, and rests ever longer."""
    due, rest = _failed.get(view, (0.0, 0.0))
    if time.monotonic() < due:
        return True
    try:
        more = view.look()
    except Exception:
        logging.getLogger(__name__).exception("a view could not be brought up to date")
        rest = min(max(2 * rest, _REST[0]), _REST[1])
        _failed[view] = time.monotonic() + rest, rest
        return True
    _failed.pop(view, None)
    return more
