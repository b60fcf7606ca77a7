"""`Watch`: a thread that looks at a service over HTTP, so that nobody else waits for it."""

from __future__ import annotations

import json
import logging
import threading
import time
from collections import deque
from contextlib import suppress
from typing import Any
from urllib.parse import quote

from workbench.errors import WorkbenchError
from workbench.registry import ModelVersion
from workbench.registry.versions import look_through
from workbench.remote.wire import Wire
from workbench.types import JSON
from workbench.widgets.service_reach import row_example
from workbench.widgets.service_traffic import Counts, Traffic

__all__ = ["Watch"]

_EVERY = 0.5  # seconds between two looks at what is counted
_WHOLE = 5.0  # seconds between two looks at the rest, where nothing was counted
_LAST = 20  # answers that are shown
_SHOWN = 2  # figures of a version
_FAILURES = 10  # kinds of them that are shown


class Watch:
    """Looks at one model of a service, again and again between `start` and `end`.

    Args:
        wire: to the service.
        name: of the model.
    """

    def __init__(self, wire: Wire, name: str) -> None:
        self.name, self._wire = name, wire
        self.traffic = Traffic()
        self.row: Any = None  # that it takes, as people write it
        self.model: JSON = {}  # what V2 says of it
        self.vitals: JSON = {}  # its drift and live accuracy
        self.answers: list[JSON] = []  # newest first
        self.failures: deque[JSON] = deque(maxlen=_FAILURES)  # seen since, newest first
        self.versions: list[JSON] = []  # of this machine that could answer in its place
        self.trouble = ""  # why it could not be looked at
        self._due = 0.0
        self._ended, self._soon = threading.Event(), threading.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Look from now on; a second time does nothing."""
        if self._thread is None or not self._thread.is_alive() or self._ended.is_set():
            self._ended = threading.Event()
            self._thread = threading.Thread(
                target=self._run, args=(self._ended,), name="service-watch", daemon=True
            )
            self._thread.start()

    def end(self) -> None:
        """Look no more."""
        self._ended.set()
        self._soon.set()

    def hurry(self) -> None:
        """Look at everything soon, since it has changed."""
        self._due = 0.0
        self._soon.set()

    def look(self) -> None:
        """Look once, at everything where something was counted.

        Raises:
            WorkbenchError: the service does not answer, or refuses to.
        """
        text = self._wire.reply("GET", "/metrics").body.decode()
        counts, before = Counts.read(text, self.name), self.traffic.now
        self._note_failures(before, counts)
        self.traffic.add(counts, time.monotonic())
        if counts.requests != before.requests or time.monotonic() >= self._due:
            self._due = time.monotonic() + _WHOLE
            self._look_at_all()
        self.trouble = ""

    def _look_at_all(self) -> None:
        place = f"/models/{quote(self.name)}"
        if not self.model:  # of other versions in its place it is the same
            with suppress(WorkbenchError):
                self.row = row_example(self._wire, self.name)
        self.model = self._wire.ask("GET", f"/v2{place}")
        self.vitals = self._wire.ask("GET", f"{place}/monitor")
        self.answers = self._wire.ask("GET", f"{place}/answers?last={_LAST}")["answers"]
        self.versions = [_told(made) for made in reversed(look_through()[0]) if self._fits(made)]

    def _fits(self, version: ModelVersion) -> bool:
        """Return whether what goes in and comes out of a version in use is the same."""
        if version.retired:
            return False
        told = json.loads(json.dumps(version.signature.to_json()))
        return all(told[part] == self.model[part] for part in ("inputs", "outputs"))

    def _note_failures(self, before: Counts, now: Counts) -> None:
        """Note what was answered with an error since the last look; one line while it goes on."""
        if not self.model:
            return  # the first look: when those were nobody knows
        for status, count in (now.statuses - before.statuses).items():
            if status < "400":
                continue
            last = self.failures[0] if self.failures else {}
            if last.get("status") == status and time.time() - last["at"] < 2 * _EVERY + 1:
                self.failures[0] = {**last, "at": time.time(), "count": last["count"] + count}
            else:
                self.failures.appendleft({"at": time.time(), "status": status, "count": count})

    def _run(self, ended: threading.Event) -> None:
        while not ended.is_set():
            self._soon.clear()
            try:
                self.look()
            except WorkbenchError as error:
                self.trouble = str(error)
            except Exception as error:  # another kind of server, perhaps
                logging.getLogger(__name__).exception("service %s cannot be read", self.name)
                self.trouble = f"its answers are not understood: {type(error).__name__}: {error}"
            self._soon.wait(_EVERY)


def _told(version: ModelVersion) -> JSON:
    """Return a version as the page lists it: its reference, its aliases, its first figures."""
    figures = [f"{name} {value:.4g}" for name, value in list(version.metrics.items())[:_SHOWN]]
    return {"ref": version.ref, "aliases": list(version.aliases), "figures": ", ".join(figures)}
