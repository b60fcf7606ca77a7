"""`ServiceView`: a service at work: traffic, drift, its last answers, and what steers it."""

from __future__ import annotations

import contextlib
import threading
import time
from typing import Any

from workbench.errors import UnknownNameError, WorkbenchError
from workbench.pictures import Picture
from workbench.progress import is_live
from workbench.registry import promote
from workbench.remote import RemoteService
from workbench.serving import Service
from workbench.types import JSON
from workbench.widgets.faces import Face, action, css, javascript
from workbench.widgets.service_reach import DEEDS, Reached
from workbench.widgets.service_watch import Watch

__all__ = ["ServiceView", "service"]

_LOST = 60.0  # seconds for which a service that does not answer is looked for
_FIGURES = 40  # of drift that are shown
_SAID = 3  # rows of an answer that are shown
_AGAIN = "It was served again: the notebook's variable has the one that stopped, take view.service"
_CHARACTERS = 4000  # of a traceback


def service(asked: Service | RemoteService, model: str | None = None) -> ServiceView | Picture:
    """Return a live view of a service; a picture of it where no page lives.

    Args:
        asked: a service of this kernel, or what `connect` returned.
        model: which of those that a remote service has, where it has several.

    Raises:
        RequestError: the remote service has no such model, or several and none is named.
        ServiceError: it does not answer.
    """
    view = ServiceView(Reached(asked, model))
    return view if is_live() else view.picture()


class ServiceView(Face):
    """Shows what a service is asked and answers while it does, and lets it be steered.

    What is told is the service's own word over HTTP, looked at twice a second by a thread of its
    own. What cannot be done from here is said with the reason.

    Args:
        reached: what is looked at.
    """

    _esm = javascript("faces", "plots", "service")
    _css = css("service")
    patience = 600.0

    def __init__(self, reached: Reached) -> None:
        super().__init__()
        self._reached, self._watch = reached, Watch(reached.wire, reached.name)
        self._ending, self._ended, self._served_again = False, False, False
        self._ref, self._command = "", ""  # of the version that answers, or did last
        self._heard = time.monotonic()
        if self._state() == "running":
            self._watch.look()
            self._remember()
        self.refresh()

    @property
    def service(self) -> Service | None:
        """The service of this kernel that is looked at, also one that was served again."""
        return self._reached.own

    def stay(self) -> None:
        """Look on, since a page shows it: without another word of it that ends in ten minutes."""
        self._heard = time.monotonic()
        if self._state() != "stopped":
            super().stay()

    @action
    def swap(self, ref: str) -> None:
        """Let another version answer from now on, at the same address; no request is dropped."""
        self._check("swap")
        known = [made["ref"] for made in self._watch.versions]
        if ref not in known:
            raise UnknownNameError("version that takes and answers the same", ref, known)
        self._reached.swap(ref)
        self._remember()
        self._watch.hurry()

    @action
    def promote(self, ref: str, alias: str, why: str = "") -> None:
        """Let an alias be on a version from now on, and say in its log why."""
        self._check("promote")
        promote(ref, alias, why=why)
        self._watch.hurry()

    @action
    def stop(self) -> None:
        """Take nothing more, answer what was accepted, and stop; the view says when it has."""
        self._check("stop")
        self._ending = True
        threading.Thread(target=self._end, name="service-end", daemon=True).start()
        self.follow()

    @action
    def again(self) -> None:
        """Serve the version again that answered last, at the same address, by the same token."""
        self._check("again")
        self._reached.again(self._ref)
        self._served_again = True
        self._watch = Watch(self._reached.wire, self._reached.name)
        self._watch.look()
        self._remember()
        self.stay()

    def follow(self) -> None:
        """Look a few times a second from now on, until the service has stopped."""
        self._watch.start()
        super().follow()

    def catch_up(self) -> bool:
        """Show what is new; return whether more may come."""
        going = self._is_going()
        if not going:
            self._watch.end()
        self._remember()
        self.refresh()
        return going

    def draw(self) -> JSON:
        """Return what is to be seen now."""
        state, watch, reached = self._state(), self._watch, self._reached
        traffic = watch.traffic.told(time.monotonic())
        return {
            "title": f"Service {reached.name}",
            "name": reached.name,
            "state": state,
            "model": self._model(),
            "ref": self._ref,
            "url": reached.url,
            "page": reached.page,
            "curl": self._command,
            "note": self._note(state),
            "cannot": {deed: reached.why_not(deed, state, self._ref) for deed in DEEDS},
            "versions": watch.versions,
            "traffic": traffic | {"rate": 0.0} if state == "stopped" else traffic,
            "drift": _drift(watch.vitals),
            "answers": [_answer(one) for one in watch.answers],
            "failures": list(watch.failures),
            "error": self._last_error(),
        }

    def picture(self) -> Picture:
        """Return how large batches were, and how far the rows have drifted."""
        return _picture(f"{self._reached.name}, {self._model()}", self.shown)

    def __repr__(self) -> str:
        reached, requests = self._reached, self._watch.traffic.now.requests
        told = f"{self._state()}, {self._model()}, {requests:,} requests"
        return f"Service {reached.name!r} at {reached.url}: {told}"

    def _is_going(self) -> bool:
        """Return whether the service may still change, and somebody may see it."""
        state, now = self._state(), time.monotonic()
        if not self._watch.trouble:
            self._heard = now
        lost = state == "not reached" and now - self._heard > _LOST
        return state != "stopped" and not lost and self.is_seen

    def _state(self) -> str:
        if self._ending:
            return "draining"
        if self.service is not None:
            return "running" if self.service.is_running else "stopped"
        if self._ended:
            return "stopped"
        return "not reached" if self._watch.trouble else "running"

    def _model(self) -> str:
        """Return what answers: a version, or a live model."""
        if self.service is not None:
            return self.service.model
        told = str(self._watch.vitals["model"])
        return "a live model" if told.endswith("@0") else told

    def _note(self, state: str) -> str:
        """Return what there is to say of a service beside its state."""
        waiting = self._watch.traffic.now.waiting
        log = self._watch.vitals.get("log") or {"dropped": 0, "trouble": None}
        again = [_AGAIN] if self._served_again else []
        lost = [f"{log['dropped']:,} answers were not written down"] if log["dropped"] else []
        return {
            "not reached": self._watch.trouble,
            "draining": f"It takes nothing more and answers what it has accepted: {waiting}.",
            "stopped": "The service is stopped: nothing answers at its address.",
            "running": ". ".join([*again, *lost, *([log["trouble"]] if log["trouble"] else [])]),
        }[state]

    def _remember(self) -> None:
        """Keep the command and the version, which can be asked for while it runs."""
        if self._state() != "running" or not self._watch.model:
            return
        with contextlib.suppress(WorkbenchError):  # it was stopped at this very moment
            model = self._model()
            if not self._command or (self.service and model != self._ref):  # of this kernel
                self._command = self._reached.command(self._watch.model, self._watch.row)
            self._ref = model if "@" in model else ""

    def _check(self, deed: str) -> None:
        self._reached.check(deed, self._state(), self._ref)

    def _end(self) -> None:
        """Stop the service, which takes as long as its last answers do."""
        problem = ""
        try:
            self._reached.stop()
        except WorkbenchError as error:
            problem = str(error)
        with self._lock:
            self._ending, self._ended, self.problem = False, not problem, problem
            self.refresh()

    def _last_error(self) -> str:
        return (self.service.last_error or "")[-_CHARACTERS:] if self.service else ""


def _answer(told: JSON) -> JSON:
    """Return an answered request as the page lists it."""
    said = told["said"] or []
    words = [one if isinstance(one, str) else f"{one:.4g}" for one in said[:_SAID]]
    more = [f"and {told['rows'] - _SAID:,} more"] if told["rows"] > _SAID and words else []
    return {
        "at": round(told["at"], 3),
        "rows": told["rows"],
        "said": ", ".join([*words, *more]) or "not kept",
        "ms": float(f"{1000 * told['seconds']:.3g}"),
        "version": told["version"],
    }


def _drift(vitals: JSON) -> JSON | None:
    """Return the drift of the last window, the figures nearest to their alarm first."""
    if not vitals:
        return None
    window, looking = vitals["drift"], vitals["looking"]
    told: JSON = {"looking": looking, "figures": [], "more": 0, "alarms": 0}
    if window is None:
        return told
    figures = sorted(window["figures"], key=lambda one: -one["psi"] / one["threshold"])
    return {
        **told,
        "rows": window["rows"],
        "last": window["last"],
        "alarms": len(window["alarm"]),
        "figures": figures[:_FIGURES],
        "more": max(0, len(figures) - _FIGURES),
    }


def _picture(title: str, shown: JSON) -> Picture:
    figure = Picture(7, 2.6)
    left: Any
    right: Any
    left, right = figure.subplots(1, 2)
    sizes, drift = shown["traffic"]["sizes"], shown["drift"]
    left.bar([words for words, _ in sizes], [n for _, n in sizes], color="C0")
    left.set(xlabel="rows a batch", ylabel="batches")
    left.tick_params(axis="x", rotation=30)
    left.set_title(f"{title}: {shown['traffic']['requests']:,} requests", fontsize=9)
    figures = (drift["figures"] if drift else [])[:8][::-1]
    if figures:
        colours = ["C3" if one["alarm"] else "C0" for one in figures]
        right.barh([o["figure"] for o in figures], [o["psi"] for o in figures], color=colours)
        right.axvline(figures[0]["threshold"], color="grey", linewidth=1)
    right.set_xlabel("population stability index")
    right.set_title("drift" if figures else "drift is not known yet", fontsize=9)
    return figure
