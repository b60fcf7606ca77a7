"""`HomeView`: the notebooks of a folder, recent runs, models and running services, live."""

from __future__ import annotations

import base64
import io
import os
import time
from pathlib import Path
from typing import Any

import traitlets
from PIL import Image

from workbench.errors import RequestError, TamperedError, UnknownNameError
from workbench.pictures import Picture
from workbench.progress import is_live
from workbench.registry import version
from workbench.registry.versions import ModelVersion, look_through
from workbench.remote import connect
from workbench.runs import Run
from workbench.runs.index import RunWatch
from workbench.serving import Service, list_services, serve
from workbench.serving.client import find_service
from workbench.types import JSON
from workbench.widgets.faces import Face, action, css, javascript
from workbench.widgets.figures import plain
from workbench.widgets.form_view import FormView
from workbench.widgets.home_gallery import Entry, entries, thumbnail
from workbench.widgets.links import served_root
from workbench.widgets.runs_view import RunsView
from workbench.widgets.service_reach import Reached
from workbench.widgets.service_view import ServiceView

__all__ = ["HomeView", "home"]

_EVERY = 2.0  # seconds between two looks
_SHARE = 20  # of the time of a look that at least passes until the next one
_RUNS, _FIGURES = 8, 3  # the last runs, and how many figures of each
_MODELS = 30


def home(folder: str | os.PathLike[str] = ".") -> HomeView | Picture:
    """Return the start page of a folder's notebooks; a picture of it where no page lives.

    Raises:
        RequestError: there is no such folder.
    """
    view = HomeView(Path(folder))
    return view if is_live() else view.picture()


class HomeView(Face):
    """Shows a folder's notebooks as cards that open them, and what was run, published and serves.

    While a page shows it, it looks every two seconds.

    Args:
        folder: where the notebooks are.

    Raises:
        RequestError: there is no such folder.
    """

    _esm = javascript("faces", "links", "home")
    _css = css("home")

    path: traitlets.List[JSON] = traitlets.List().tag(sync=True)  # apart from what often changes
    panel = traitlets.Unicode("").tag(sync=True)  # the widget of a view that was opened

    def __init__(self, folder: Path) -> None:
        if not folder.is_dir():
            raise RequestError(f"no folder {str(folder)!r}: pass one in which notebooks are")
        super().__init__()
        self._folder, self._runs = folder.resolve(), RunWatch()
        self._next = 0.0
        self._mine: dict[str, Service] = {}  # those that were served by a click
        self._view: Face | None = None  # in the panel
        self.refresh()

    @action
    def serve(self, model: str) -> None:
        """Serve a model's champion, or its newest version, from this kernel, and watch it."""
        service = serve(_meant(model).ref)
        self._mine[service.name] = service
        self.watch(service.name)

    @action
    def watch(self, service: str) -> None:
        """Show the panel of a service that runs on this machine."""
        mine = self._mine.get(service)
        if mine is None or not mine.is_running:
            found = find_service(service)
            self._open(ServiceView(Reached(connect(found.url, found.token), service)))
        else:
            self._open(ServiceView(Reached(mine)))

    @action
    def set_up(self, file: str) -> None:
        """Show the form of a notebook's parameters, which starts runs of it."""
        files = [entry.file for entry in entries(self._folder)]
        if file not in files:
            raise UnknownNameError("notebook", file, files)
        self._open(FormView(self._folder / file))

    @action
    def open_runs(self, run: str = "") -> None:
        """Show the runs, one of them opened if it is named."""
        view = RunsView()
        if run:
            view.open_run(run)
            view.refresh()
        self._open(view)

    @action
    def close_panel(self) -> None:
        """Show no other view any more."""
        self._open(None)

    def _open(self, view: Face | None) -> None:
        """Show another view below the lists, instead of the one that is shown there."""
        before, self._view = self._view, view
        self.panel = view.model_id or "" if view is not None else ""
        if before is not None:
            before.close()

    def catch_up(self) -> bool:
        """Show what is new, every two seconds; return whether a page still shows it."""
        began = time.monotonic()
        if began >= self._next:
            self.refresh()
            ended = time.monotonic()
            self._next = ended + max(_EVERY, _SHARE * (ended - began))
        return self.is_seen

    def draw(self) -> JSON:
        """Return the runs, models and services; the notebooks are in `path`."""
        self.path = [self._card(entry) for entry in entries(self._folder)]
        versions, problems = look_through()
        models = _models(versions, problems)
        runs = self._runs.look()
        return {
            "title": "Workbench",
            "folder": str(self._folder),
            "served": served_root(),
            "runs": [_run(run) for run in reversed(runs[-_RUNS:])],
            "all_runs": len(runs),
            "models": models[:_MODELS],
            "services": [{"name": s.name, "url": s.url, "model": s.model} for s in list_services()],
            "problems": problems,
        }

    def picture(self) -> Picture:
        """Return the pictures of the notebooks, each with its title and minutes."""
        found = entries(self._folder)
        figure = Picture(6.6, 2.0 * max(1, -(-len(found) // 3)))
        for place, entry in enumerate(found):
            _draw(figure.add_subplot(-(-len(found) // 3), 3, place + 1), entry)
        if not found:
            figure.text(0.5, 0.5, f"no notebook in {self._folder.name}", ha="center")
        return figure

    def _card(self, entry: Entry) -> JSON:
        return {
            "file": entry.file,
            "path": str(self._folder / entry.file),
            "title": entry.title,
            "about": entry.about,
            "minutes": entry.minutes,
            "result": entry.result,
            "src": thumbnail(entry.picture) if entry.picture else None,
            "alt": entry.alt,
        }

    def __repr__(self) -> str:
        shown = self.shown
        models, services = len(shown["models"]), len(shown["services"])
        return (
            f"workbench at {self._folder}: {len(self.path)} notebooks, {shown['all_runs']} runs, "
            f"{models} models, {services} services"
        )


def _meant(model: str) -> ModelVersion:
    """Return the champion of a model, else its newest version.

    Raises:
        UnknownNameError: there is no such model.
    """
    try:
        return version(f"{model}@champion")
    except UnknownNameError:
        return version(model)


def _run(run: Run) -> JSON:
    return {
        "id": run.id,
        "notebook": run.source.stem,
        "state": run.state,
        "began": run.began,
        "seconds": run.seconds,
        "figures": _figures(list(run.metrics.items())[-_FIGURES:]),  # the last ones sum it up
    }


def _figures(metrics: list[tuple[str, float]]) -> list[list[Any]]:
    """Return figures as JSON has them: without numbers that are none."""
    return [[name, plain(value)] for name, value in metrics]


def _models(versions: list[ModelVersion], problems: list[str]) -> list[JSON]:
    """Return each model with its champion, or its newest version, the youngest first.

    Of one whose log is damaged, the reason is added to the problems.
    """
    by_name: dict[str, list[ModelVersion]] = {}
    for known in versions:
        by_name.setdefault(known.name, []).append(known)
    found = []
    for name, own in by_name.items():
        try:
            champion = next((v for v in own if "champion" in v.aliases), None)
        except TamperedError as error:
            champion = None
            problems.append(str(error))
        shown = champion or own[-1]
        found.append(
            {
                "name": name,
                "versions": len(own),
                "champion": champion.version if champion else None,
                "newest": own[-1].version,
                "created": own[-1].record["created"],
                "figures": _figures(list(shown.metrics.items())[:_FIGURES]),
            }
        )
    return sorted(found, key=lambda model: str(model["created"]), reverse=True)


def _draw(axes: Any, entry: Entry) -> None:
    """Draw a card."""
    axes.axis("off")
    minutes = f"{entry.minutes} min" if entry.minutes else ""
    axes.set_title("\n".join(filter(None, [entry.title, minutes])), fontsize=8, wrap=True)
    address = thumbnail(entry.picture) if entry.picture else None
    if address:
        axes.imshow(Image.open(io.BytesIO(base64.b64decode(address.partition(",")[2]))))
