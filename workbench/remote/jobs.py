"""`RemoteJob`: a run of a notebook on the machine of a service, followed and ended from here."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

from workbench.errors import RunError, ServiceError, WorkbenchError
from workbench.listings import Listing
from workbench.progress import progress
from workbench.remote.wire import Heard, Wire
from workbench.types import JSON

__all__ = ["JobListing", "RemoteJob"]

_GOING_ON = ("queued", "running")
_LOOK_EVERY = 0.5  # seconds
_SHOW_AFTER = 2.0  # seconds
_PATIENCE = 60.0  # seconds in which a service may be away: started again, or its network


class RemoteJob:
    """A job of a service. Made by `train`, or one of `jobs`.

    Args:
        wire: to the service.
        told: what it said of the job.
    """

    def __init__(self, wire: Wire, told: JSON) -> None:
        self._wire, self._told = wire, told
        self.id: str = told["id"]
        self.notebook: str = told["notebook"]
        self._path = f"/jobs/{quote(self.id, safe='')}"

    @property
    def name(self) -> str:
        """Its id, by which a list finds it."""
        return self.id

    @property
    def state(self) -> str:
        """`queued` or `running`; at its end `done`, `failed`, `interrupted`, `killed`,
        `timed out` or `cancelled`.
        """
        return str(self._now()["state"])

    @property
    def parameters(self) -> JSON:
        """All parameters of the notebook, with their values."""
        return dict(self._told["parameters"])

    @property
    def metrics(self) -> dict[str, float]:
        """The last value of each metric that it has recorded."""
        return dict(self._now()["metrics"])

    @property
    def published(self) -> list[str]:
        """References of the versions that it has published."""
        return list(self._now()["published"])

    @property
    def error(self) -> str | None:
        """Why it did not end well; None otherwise."""
        found: str | None = self._now()["error"]
        return found

    def follow(self) -> Iterator[Heard]:
        """Yield what happens as it does, from the beginning to the end of the job.

        The kinds are `state` (the data is the job), `metric` (a value as it was recorded) and `log`
        (a cell's number and a text that it has printed). Where the connection breaks off, or the
        service is started again, it goes on with what was not heard yet.

        Raises:
            ServiceError: the service is away for over a minute.
        """
        heard: str | None = None
        away = _Away()
        while True:
            with away.borne():
                events = self._wire.events(f"{self._path}/events", heard)
                if events is None:
                    return
                for event in events:
                    if event.kind == "":  # the stream cannot go on; another one can
                        raise ServiceError(f"job {self.id}: {event.data['error']}")
                    heard = event.id or heard
                    away.is_over()
                    if event.kind == "state":
                        self._told = event.data
                    yield event
                    if event.kind == "state" and event.data["state"] not in _GOING_ON:
                        return
            time.sleep(_LOOK_EVERY)

    def wait(self, timeout: float | None = None) -> RemoteJob:
        """Return the job once it is done; ■ (or Ctrl-C) ends the waiting, not the job.

        Args:
            timeout: seconds to wait at most.

        Raises:
            RunError: it has ended otherwise.
            TimeoutError: it goes on still.
            ServiceError: the service is away for over a minute.
        """
        until, away = math.inf if timeout is None else time.monotonic() + timeout, _Away()
        with _Progress(self.notebook) as shown:
            while True:
                with away.borne():
                    shown.show(self._now())
                    away.is_over()
                if self._told["state"] not in _GOING_ON:
                    break
                left = until - time.monotonic()
                if left <= 0:
                    raise _StillGoingError(
                        f"job {self.id} is {self._told['state']} still after {timeout:g} s: wait "
                        "again, or cancel() it"
                    )
                time.sleep(min(_LOOK_EVERY, left))
        if self._told["state"] != "done":
            why = self._told["error"] or "`follow` has what it printed"
            raise RunError(f"job {self.id} is {self._told['state']}: {why}")
        return self

    def cancel(self) -> None:
        """Take it out of the queue, or end it; of one that is over nothing changes."""
        self._told = self._wire.ask("POST", f"{self._path}/cancel")

    def __repr__(self) -> str:
        return f"Job {self.id}: {_standing(self._told)}"

    def _repr_pretty_(self, printer: Any, cycle: bool) -> None:
        """Show in a notebook how it stands now, not how it did when it was asked last."""
        with contextlib.suppress(WorkbenchError):
            self._now()
        printer.text(repr(self))

    def _now(self) -> JSON:
        if self._told["state"] in _GOING_ON:
            self._told = self._wire.ask("GET", self._path)
        return self._told


class JobListing(Listing[RemoteJob]):
    """Jobs of a service, oldest first, found by number, id, a part of one, or `"last"`."""

    kind = "job"

    def __repr__(self) -> str:
        return "\n".join(map(repr, self)) or "no jobs yet"


class _StillGoingError(ServiceError, TimeoutError):
    """A job that is not over in the time that was to be waited."""


class _Away:
    """For how long a service was not reached."""

    def __init__(self) -> None:
        self._since: float | None = None

    def is_over(self) -> None:
        """Note that it has answered."""
        self._since = None

    @contextlib.contextmanager
    def borne(self) -> Iterator[None]:
        """Bear that it does not answer, unless that takes too long."""
        try:
            yield
        except ServiceError:
            now = time.monotonic()
            self._since = now if self._since is None else self._since
            if now - self._since > _PATIENCE:
                raise


class _Progress:
    """The cells of a job as a line of progress, from its third second on."""

    def __init__(self, label: str) -> None:
        self._label, self._begun = label, time.monotonic()
        self._bar: Any = None

    def show(self, told: Mapping[str, Any]) -> None:
        """Say which cell runs, or that all are done."""
        cell = told["cell"]
        if self._bar is not None and told["state"] == "done":
            self._bar.update(self._bar.total - self._bar.n)
        if cell is None or time.monotonic() - self._begun < _SHOW_AFTER:
            return
        if self._bar is None:
            self._bar = progress(cell["of"], self._label, unit="cell")
        self._bar.set_description(cell["heading"] or self._label, refresh=False)
        self._bar.update(cell["number"] - 1 - self._bar.n)

    def __enter__(self) -> _Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def _standing(told: JSON) -> str:
    """Return in words how a job stands."""
    state, cell = told["state"], told["cell"]
    if told["place"] is not None:
        return f"{state}, number {told['place']} in the queue"
    if state == "running" and cell is not None:
        heading = f", {cell['heading']}" if cell["heading"] else ""
        return f"{state}, cell {cell['number']} of {cell['of']}{heading}"
    published = f", published {', '.join(told['published'])}" if told["published"] else ""
    return f"{state}{published}" + (f": {told['error']}" if told["error"] else "")
