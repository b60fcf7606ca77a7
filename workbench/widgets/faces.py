"""`Face`: a view whose page is told what is to be seen, and asks for something else by name."""

from __future__ import annotations

import base64
import logging
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import anywidget
import traitlets

from workbench.errors import RequestError, WorkbenchError
from workbench.pictures import Picture
from workbench.types import JSON
from workbench.widgets.pump import follow
from workbench.widgets.subshells import answer_where_asked

__all__ = ["Face", "action", "checked_place", "css", "javascript", "noted"]

_HERE = Path(__file__).parent
_ASKERS = 15  # outputs of one view, besides the one that asks, whose asks are remembered
_MIME = "application/vnd.jupyter.widget-view+json"

_F = TypeVar("_F", bound=Callable[..., None])


def javascript(*names: str) -> str:
    """Return the module of a face: what all share, and the files of its own, in this order."""
    return "\n".join(_read(f"{name}.js") for name in ("elements", "asking", *names))


def css(*names: str) -> str:
    """Return the style of a face: what all share, and the files of its own, for itself alone.

    These call the face's own element `:scope`; a rule that names it otherwise would never hold.

    Args:
        names: of files; the last one is the face's own name, after which its element is called.
    """
    shared, *own = (_read(f"{name}.css") for name in ("base", *names))
    inside = "\n".join(own)
    return f"{shared}\n@scope (.wb-{names[-1]}) to (:scope .wb-face) {{\n{inside}\n}}"


def _read(file: str) -> str:
    return (_HERE / file).read_text("utf-8")


def action(method: _F) -> _F:
    """Let the page ask for this method of a face by its name; whatever else it asks is refused."""
    method._is_asked_for = True  # type: ignore[attr-defined]
    return method


def checked_place(kind: str, place: int, n: int) -> int:
    """Return which of `n` things is meant, counted from 0.

    Args:
        kind: what they are, in the singular ("page", "row").
        place: of one of them.
        n: how many there are.

    Raises:
        RequestError: there is none such.
    """
    if not 0 <= place < n:
        raise RequestError(f"{kind} {place} is not there: there are {n:,}, from 0")
    return place


def noted(answered: Mapping[str, int], asker: str, number: int) -> dict[str, int]:
    """Return what was answered, with one ask more; who asked longest ago is forgotten.

    Args:
        answered: of each who asks, the number of its last ask.
        asker: an output of a view, which counts its asks.
        number: of this one.
    """
    others = [pair for pair in answered.items() if pair[0] != asker]
    return dict([*others[-_ASKERS:], (asker, number)])


class Face(anywidget.AnyWidget):
    """Shows one thing, `shown`, and lets the page ask for another by its methods marked `action`.

    What is shown is JSON of bounded size and stands in the kernel, so a page that is loaded anew
    has it at once. What an action raises as an error of the workbench is told beside it, and leaves
    what is shown as it was. The saved notebook keeps a picture and a line of text.
    """

    patience = 60.0  # seconds without a word of a page, after which nobody looks

    shown = traitlets.Dict().tag(sync=True)
    problem = traitlets.Unicode("").tag(sync=True)
    answered = traitlets.Dict().tag(sync=True)  # of each who asks, the number of its last ask

    def __init__(self, **traits: Any) -> None:
        super().__init__(**traits)
        answer_where_asked(self)
        self._lock = threading.RLock()  # the page asks in one thread, the pump looks in another
        self._png: str | None = None
        self._until = 0.0  # when nobody looks any more
        self._stuck = ""  # why it cannot be brought up to date
        self.on_msg(self._answer)

    def draw(self) -> JSON:
        """Return what is to be seen now; `title` names the face for those who do not see it."""
        raise NotImplementedError

    def picture(self) -> Picture | None:
        """Return what a saved notebook keeps where no page lives, or None for the text alone."""
        return None

    def refresh(self) -> None:
        """Show what is to be seen now; the page is told where that is something else."""
        with self._lock:
            self.shown = self.draw()

    def catch_up(self) -> bool:
        """Show what is new; return whether more may come, as long as the pump is to ask again."""
        self.refresh()
        return False

    def look(self) -> bool:
        """Catch up, unless something is being done for the page: other views wait for this thread.

        Why it fails, if it does, stands in the page until it does so no more.
        """
        if not self._lock.acquire(blocking=False):
            return True
        try:
            more = self.catch_up()
        except Exception as error:
            self._stuck = self.problem = f"{type(error).__name__}: {error}"
            raise
        else:
            self.problem = "" if self.problem == self._stuck else self.problem
            return more
        finally:
            self._lock.release()

    def follow(self) -> None:
        """Look a few times a second from now on, until `look` says that nothing more will come."""
        follow(self)

    def stay(self) -> None:
        """Look on, since a page shows it: without another word of it that ends after a while.

        What it may have missed it is told again: a server drops what is too much at a time. It is
        no action, since nobody has asked for something, and an error that is shown stays.
        """
        self._until = time.monotonic() + self.patience
        self._tell_all()
        self.follow()

    def close(self) -> None:
        """Be seen no more, nor kept by the kernel."""
        self._until = 0.0
        super().close()

    @property
    def is_seen(self) -> bool:
        """Whether a page has said of late that somebody sees it."""
        return time.monotonic() < self._until

    def do(self, name: str, **what: Any) -> None:
        """Do what the page asks for, and show what is to be seen then.

        Args:
            name: of a method that is marked `action`.
            what: its arguments.
        """
        with self._lock:
            wrong = self._attempt(name, lambda: self._obey(name, what))
            self.problem = self._attempt(name, self.refresh) or wrong

    def _obey(self, name: str, what: JSON) -> None:
        method = getattr(self, name, None)
        if not getattr(method, "_is_asked_for", False):
            raise WorkbenchError(f"{type(self).__name__} has no action {name!r}")
        assert method is not None
        method(**what)

    def _attempt(self, name: str, deed: Callable[[], None]) -> str:
        """Do something for the page; return what went wrong, in words, or nothing."""
        try:
            deed()
        except WorkbenchError as error:
            return str(error)
        except Exception as error:
            logging.getLogger(__name__).exception("%s failed at %s", type(self).__name__, name)
            return f"{type(error).__name__}: {error}"
        return ""

    def _answer(self, _: Any, content: JSON, buffers: Sequence[memoryview]) -> None:
        asked = dict(content)
        name, asker, number = (asked.pop(key) for key in ("ask", "asker", "number"))
        with self._lock:  # what is asked again may come in another thread while it is being done
            if number <= self.answered.get(asker, 0):
                self._tell_all()  # the answer got lost
                return
            with self.hold_sync():
                if name == "stay":
                    self.stay()
                else:
                    self.do(name, **asked)
                self.answered = noted(self.answered, asker, number)

    def _tell_all(self) -> None:
        """Tell the page all that may change, whatever it knows of it."""
        fixed = anywidget.AnyWidget.class_trait_names()
        self.send_state([n for n in self.traits(sync=True) if n not in fixed and n[0] != "_"])

    def _repr_mimebundle_(self, **_: Any) -> JSON:  # type: ignore[override]
        if self._png is None:
            picture = self.picture()
            png = picture._repr_png_() if picture else b""
            self._png = base64.b64encode(png).decode()
        bundle: JSON = {
            _MIME: {"version_major": 2, "version_minor": 1, "model_id": self.model_id},
            "text/plain": repr(self),
        }
        return {**bundle, "image/png": self._png} if self._png else bundle
