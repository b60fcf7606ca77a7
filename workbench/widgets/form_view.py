"""`FormView`: a notebook's parameters to be set by mouse, and the runs that they are for."""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

from workbench.errors import RequestError, UnknownNameError
from workbench.pictures import Picture
from workbench.progress import is_live
from workbench.runs import Run, Sweep
from workbench.runs.background import AT_ONCE, execute_later, start, stop
from workbench.runs.notebooks import read_notebook
from workbench.runs.parameters import Parameter, declared, help_text
from workbench.runs.queueing import secret_variable
from workbench.runs.records import ENDED
from workbench.runs.reports import said
from workbench.runs.spaces import make_points
from workbench.runs.sweeps import plan
from workbench.types import JSON
from workbench.widgets.faces import action, css, javascript
from workbench.widgets.form_fields import (
    alternatives_of,
    control_of,
    default_text,
    text_of,
    value_of,
)
from workbench.widgets.form_sweeps import SweepWatch, sweep_line
from workbench.widgets.links import served_root
from workbench.widgets.run_faces import RunFace

__all__ = ["FormView", "form"]

_SHOWN = 6  # runs and sweeps that are over
_CHECKED = 10_000  # points that are checked while one types; the rest as the sweep starts

_Mode = Literal["run", "sweep"]


def form(notebook: str | Path) -> FormView | Picture:
    """Return a form of a notebook's parameters, which starts runs; a picture where no page lives.

    Args:
        notebook: its path.

    Raises:
        RequestError: it is missing or no notebook, or its parameters cannot be read.
    """
    view = FormView(notebook)
    return view if is_live() else view.picture()


class FormView(RunFace):
    """Shows the parameters of a notebook as controls, and the runs and sweeps of it as they go.

    Args:
        notebook: its path.

    Raises:
        RequestError: it is missing or no notebook, or its parameters cannot be read.
    """

    _esm = javascript("faces", "links", "run_lines", "form_controls", "form")
    _css = css("run_lines", "form")

    def __init__(self, notebook: str | Path) -> None:
        self._given, self._path = str(notebook), Path(notebook).expanduser().absolute()
        self._stamp, self._declared = self._read()
        super().__init__()
        self._mode: _Mode = "run"
        self._texts: dict[_Mode, dict[str, str]] = {"run": {}, "sweep": {}}
        self._counts = {"samples": "", "seeds": ""}
        self._secrets: dict[str, str] = {}  # in this process alone
        self._begun = 0  # runs and sweeps
        self._sweeps = SweepWatch(self._path)
        self.refresh()

    @action
    def open_mode(self, mode: _Mode) -> None:
        """Show the fields of one run, or those of a sweep; what was changed is taken along."""
        self._check(mode)
        if (mode, self._mode) == ("sweep", "run"):
            for parameter, text in list(self._changed()):
                told = text
                with suppress(RequestError):
                    told = text_of(parameter, value_of(parameter, text), sweeps=True)
                self._texts["sweep"].setdefault(parameter.name, told)
        self._mode = mode

    @action
    def fill(
        self, mode: _Mode, texts: Mapping[str, str], counts: Mapping[str, str] | None = None
    ) -> None:
        """Take what stands in the fields.

        Args:
            mode: whose fields they are, which another one may have taken the place of meanwhile.
            texts: by parameter, as one would write them after `-p name=`.
            counts: `samples` and `seeds` of a sweep; empty for none.
        """
        self._check(mode)
        for name in texts:
            self._parameter(name)
        self._texts[mode] = {n: text for n, text in texts.items() if text != self._default(n, mode)}
        self._counts.update(counts or {})

    @action
    def keep(self, secret: str, text: str) -> None:
        """Take a secret that was typed, which is never shown; an empty text leaves it as it is."""
        self._parameter(secret)
        if text:
            self._secrets[secret] = text

    @action
    def reset(self, parameter: str = "") -> None:
        """Put the field of a parameter back to its default, or all of them."""
        for texts in (self._texts[self._mode], self._secrets):
            for name in [parameter] if parameter else list(texts):
                texts.pop(name, None)
        if not parameter:
            self._counts = dict.fromkeys(self._counts, "")

    @action
    def begin(self, begun: int | None = None) -> None:
        """Start the run or the sweep in the background, unless a field is wrong.

        Args:
            begun: how many the page knew to have begun; a second press of a double one knows none
                more than the first.
        """
        asked = self._asked()
        if any(asked["problems"].values()) or begun not in (None, self._begun):
            return  # what is wrong is said beside the field
        if self._mode == "run":
            execute_later(self._path, asked["values"])
        else:
            points = asked["points"]
            made = plan(self._path, points, seeds=_count(self._counts, "seeds"))
            variables = {secret_variable(name): text for name, text in self._secrets.items()}
            start("sweep", made.folder, variables=variables)
        self._begun += 1
        self.take_stock()

    @action
    def stop_sweep(self, sweep: str) -> None:
        """End a sweep, which `resume_sweep` goes on with."""
        task = self.task_of(self._sweeps.find(sweep).folder, "sweep")
        if task is None:
            raise RequestError(f"sweep {sweep} is not going on here: stop it where it was begun")
        stop(task)
        self._ending.add(task.folder)
        self.take_stock()

    @action
    def resume_sweep(self, sweep: str) -> None:
        """Go on with a sweep that was interrupted; no run that is done is repeated."""
        start("sweep", self._sweeps.find(sweep).folder)
        self.take_stock()

    def take_stock(self) -> bool:
        """Take note of how all runs stand, and of the notebook, should it have changed."""
        is_new = super().take_stock()
        with suppress(OSError, RequestError):  # what there was of it stays, until one starts a run
            if self._path.stat().st_mtime_ns != self._stamp:
                self._stamp, self._declared = self._read()
                is_new = True
        return is_new or any(work["state"] == "running" for work in self.shown.get("works", ()))

    def draw(self) -> JSON:
        """Return what is to be seen now."""
        asked, sweeps = self._asked(), self._mode == "sweep"
        fields = [
            self._field(parameter, asked["problems"].get(name, ""))
            for name, parameter in self._known.items()
        ]
        return {
            "title": f"Form of {self._path.name}",
            "name": self._path.name,
            "mode": self._mode,
            "fields": fields,
            "counts": dict(self._counts),
            "problems": {n: asked["problems"].get(n, "") for n in ("samples", "seeds", "")},
            "points": len(asked["points"]) if sweeps and asked["points"] else None,
            "begun": self._begun,
            "ready": not any(asked["problems"].values()),
            "command": self._command(),
            "at_once": AT_ONCE,
            "served": served_root(),
            "works": self._works(),
        }

    def picture(self) -> Picture:
        """Return the parameters as a table."""
        text = repr(self)
        lines = text.splitlines()
        figure = Picture(0.085 * max(map(len, lines)) + 0.3, 0.19 * len(lines) + 0.3)
        figure.text(0.01, 0.98, text, family="monospace", fontsize=9, va="top")
        return figure

    def __repr__(self) -> str:
        return help_text(self._declared, self._path.name)

    @property
    def _known(self) -> dict[str, Parameter]:
        return self._declared or {}

    def _read(self) -> tuple[int, dict[str, Parameter] | None]:
        stamp = self._path.stat().st_mtime_ns if self._path.exists() else 0
        return stamp, declared(read_notebook(self._path))

    def _check(self, mode: str) -> None:
        if mode not in self._texts:
            raise UnknownNameError("mode", mode, self._texts)

    def _parameter(self, name: str) -> Parameter:
        if name not in self._known:
            raise UnknownNameError("parameter", name, self._known)
        return self._known[name]

    def _default(self, name: str, mode: _Mode) -> str:
        return default_text(self._known[name], sweeps=mode == "sweep")

    def _field(self, parameter: Parameter, problem: str) -> JSON:
        default = self._default(parameter.name, self._mode)
        told = [parameter.help, parameter.limit.text, parameter.type]
        return {
            "name": parameter.name,
            "about": " · ".join(text for text in told if text),
            "control": control_of(parameter, sweeps=self._mode == "sweep"),
            "default": default,
            "text": self._texts[self._mode].get(parameter.name, default),
            "set": parameter.name in self._secrets,
            "problem": problem,
        }

    def _changed(self) -> Iterator[tuple[Parameter, str]]:
        """Yield the parameters whose texts are not those of their defaults."""
        for name, text in self._texts[self._mode].items():
            if name in self._known:  # an edited notebook may have it no more
                yield self._known[name], text

    def _asked(self) -> JSON:
        """Return what the fields ask for, and by field what is wrong with it."""
        values: JSON = {}
        problems: dict[str, str] = {}
        sweeps = self._mode == "sweep"
        secrets = [] if sweeps else [(self._known[n], t) for n, t in self._secrets.items()]
        for parameter, text in [*self._changed(), *secrets]:
            try:
                value = (alternatives_of if sweeps else value_of)(parameter, text)
                default = [parameter.default] if sweeps else parameter.default
                if not parameter.literal or repr(value) != repr(default):
                    values[parameter.name] = value
            except RequestError as error:
                problems[parameter.name] = str(error)
        points = self._points(values, problems) if sweeps and not problems else []
        return {"values": values, "points": [] if problems else points, "problems": problems}

    def _points(self, space: JSON, problems: dict[str, str]) -> list[JSON]:
        """Return the points of a sweep; into `problems` goes what is wrong with them."""
        try:
            samples, seeds = (_count(self._counts, name) for name in ("samples", "seeds"))
            if seeds is not None and "seed" not in self._known:
                raise UnknownNameError("parameter", "seed", self._known)
            points = make_points(space, samples=samples, seeds=seeds)
        except RequestError as error:
            problems[_place(str(error))] = str(error)
            return []
        for point in points[:_CHECKED]:
            for name in point.keys() - problems.keys():
                try:
                    self._known[name].check(point[name])
                except RequestError as error:
                    problems[name] = str(error)
        return points

    def _command(self) -> str:
        """Return what one would write to the same effect."""
        words = ["workbench", self._mode, self._given]
        for parameter, text in self._changed():
            words += ["-p", f"{parameter.name}={text}"]
        if self._mode == "sweep":
            for name, text in self._counts.items():
                words += [f"--{name}", text] if text else []
        return shlex.join(words)

    def _works(self) -> list[JSON]:
        """Return the runs and sweeps of this notebook: what goes on, and the last that are over."""
        ours = [run for run in self._runs if run.source == self._path]
        alone = [run for run in ours[::-1] if run.sweep is None]
        over = [run for run in alone if run.state in ENDED and not self.task_of(run.folder)]
        runs = [self._run(run) for run in alone if run not in over[_SHOWN:]]
        sweeps = [self._sweep(sweep, ours) for sweep in self._sweeps.look()]
        both = sorted([*runs, *sweeps], key=lambda work: str(work["asked"]), reverse=True)
        ended = [work for work in both if work["state"] not in ("queued", "running")]
        return [work for work in both if work not in ended[_SHOWN:]]

    def _run(self, run: Run) -> JSON:
        given = {name: said(run.parameters.get(name)) for name in run.record.get("given") or ()}
        return self.line_of(run) | {"kind": "run", "given": given}

    def _sweep(self, sweep: Sweep, runs: Sequence[Run]) -> JSON:
        task = self.task_of(sweep.folder, "sweep")
        place, ending = self.place_of(task), sweep.folder in self._ending
        line = sweep_line(sweep, runs, is_going=task is not None) | {"place": place}
        known = {run.id: run for run in runs}
        for row in line["rows"]:
            row["notebook"] = self.notebook_of(known[row["id"]]) if row["id"] in known else None
        state = "queued" if task is not None and task.waits else line["state"]
        can = ["stop"] * (task is not None) + ["resume"] * (state == "interrupted")
        return line | {"kind": "sweep", "state": state, "ending": ending, "can": can}


def _count(counts: Mapping[str, str], name: str) -> int | None:
    """Return how many samples or seeds are asked for.

    Raises:
        RequestError: it is no whole number.
    """
    text = counts[name].strip()
    if not text:
        return None
    if not text.removeprefix("-").isdecimal():
        raise RequestError(f"{name}={text}, but it must be 1 or more")
    return int(text)


def _place(problem: str) -> str:
    """Return beside which field of a sweep a problem of all of it belongs."""
    if problem.startswith(("seeds=", "unknown parameter 'seed'")):
        return "seeds"
    return "samples" if "samples=" in problem else ""
