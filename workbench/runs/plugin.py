"""What `pytest --workbench` adds beside nbval: notebooks run whole, their numbers have tolerances.

pytest loads this file in all of its runs, so whatever is heavy is imported where it is used.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from workbench.errors import RequestError, RunError, RunInterruptedError, UnknownNameError

if TYPE_CHECKING:
    from workbench.runs.outputs import OutputDifference
    from workbench.types import JSON

__all__ = [
    "Metric",
    "NotebookFile",
    "NotebookItem",
    "pytest_addoption",
    "pytest_collect_file",
    "pytest_collection_modifyitems",
    "pytest_configure",
    "pytest_terminal_summary",
]

_RED, _GREEN = "rgb(220 60 50 / 30%)", "rgb(40 160 80 / 30%)"  # on light and on dark
_SHOWN = 5  # differences that a message names; the page has them all


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options."""
    add = parser.getgroup(
        "workbench", "notebooks, executed and compared to what they store"
    ).addoption
    add("--workbench", action="store_true", help="execute notebooks and compare them")
    add(
        "--workbench-parameters",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="set a parameter of the notebooks that have it; their numbers are then not compared",
    )
    add(
        "--workbench-failures",
        default=".failures",
        metavar="DIR",
        help="where to keep what differed, from rootdir (default: %(default)s)",
    )
    add(
        "--regen",
        action="store_true",
        help="accept numbers and outputs as they are now: store them",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Check the options against each other."""
    pairs = config.getoption("workbench_parameters")
    if not config.getoption("workbench"):
        if pairs or config.getoption("regen"):
            given = "--workbench-parameters" if pairs else "--regen"
            raise pytest.UsageError(f"{given} says how to execute notebooks: add --workbench")
        return
    for pair in pairs:
        if not pair.partition("=")[0].strip().isidentifier() or "=" not in pair:
            raise pytest.UsageError(
                f"--workbench-parameters {pair!r} is not an assignment: write NAME=VALUE"
            )


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    """Collect a notebook, but not what an earlier run kept of it."""
    asked = file_path.suffix == ".ipynb" and parent.config.getoption("workbench")
    if not asked or file_path.is_relative_to(_failures(parent.config)):
        return None
    file: pytest.Collector = NotebookFile.from_parent(parent, path=file_path)
    return file


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(session: pytest.Session, items: list[pytest.Item]) -> None:
    """Check the parameters against all the notebooks, before the first of them runs."""
    config = session.config
    if session.testsfailed or not config.getoption("workbench"):
        return
    notebooks = [item for item in items if isinstance(item, NotebookItem)]
    known = {name for item in notebooks for name in item.known}
    for pair in config.getoption("workbench_parameters"):
        name = pair.partition("=")[0].strip()
        if name not in known:
            raise pytest.UsageError(str(UnknownNameError("parameter", name, known)))
    changed = [item.changed for item in notebooks if item.changed]
    if changed and config.getoption("regen"):
        raise pytest.UsageError(
            f"--regen stores what a notebook gives at its defaults, and {changed[0]}: "
            "leave out --workbench-parameters"
        )


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say one line of each notebook."""
    reports = [r for kind in ("passed", "failed") for r in terminalreporter.getreports(kind)]
    lines = [
        f"{report.nodeid.rpartition('::')[0]}: {said}, {report.duration:.1f} s"
        for report in reports
        for name, said in report.user_properties
        if name == "workbench" and report.when == "call"
    ]
    if lines:
        terminalreporter.section("notebooks")
        terminalreporter.write("".join(f"{line}\n" for line in lines))


class NotebookFile(pytest.File):
    """A notebook, with one item in it."""

    def collect(self) -> Iterator[NotebookItem]:
        """Give the item, the notebook and its parameters checked."""
        from workbench.runs.notebooks import read_notebook
        from workbench.runs.parameters import bind, declared, parse_assignments

        notebook = read_notebook(self.path)
        if not self.config.getoption("regen"):
            _accepted(notebook, self.path)
        known = declared(notebook) or {}
        pairs = parse_assignments(self.config.getoption("workbench_parameters"), known)
        given = bind(known, {name: value for name, value in pairs.items() if name in known})
        defaults = {name: known[name].default for name in known if known[name].literal}
        given = {n: v for n, v in given.items() if n not in defaults or v != defaults[n]}
        yield NotebookItem.from_parent(self, name="run", given=given, known=list(known))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return what is wrong with the notebook or a parameter, without our own frames."""
        ours = isinstance(excinfo.value, RequestError)
        return str(excinfo.value) if ours else super().repr_failure(excinfo)


class NotebookItem(pytest.Item):
    """A notebook to execute, and to compare with what it stores.

    Args:
        given: the parameters that are not their defaults.
        known: the names of all its parameters.
    """

    def __init__(self, *, given: dict[str, Any], known: list[str], **others: Any) -> None:
        super().__init__(**others)
        self.given, self.known = given, known
        self.changed = f"another value is given for {', '.join(given)}" if given else ""
        root, path = self.config.rootpath, self.path
        place = path.relative_to(root) if path.is_relative_to(root) else Path(path.name)
        self.kept = _failures(self.config) / place.with_suffix("")

    def runtest(self) -> None:
        """Execute the notebook, then compare it, or accept it."""
        for name in ("notebook.ipynb", "kernel.log", "diff.html"):
            (self.kept / name).unlink(missing_ok=True)  # of an earlier run, no longer true
        stored = self.path.read_bytes()
        with (
            tempfile.TemporaryDirectory(prefix="workbench-", ignore_cleanup_errors=True) as scratch,
            pytest.MonkeyPatch.context() as patch,
        ):
            home = str(Path(scratch, "home"))
            patch.setenv("WORKBENCH_HOME", home)
            patch.setenv("WORKBENCH_HEADLESS", "1")
            # so that the command is called by its name, as a reader of the outputs would
            patch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)
            self._execute(Path(scratch, "run"))
            if self.config.getoption("regen"):
                self._accept(stored, Path(scratch, "run"), home)
            else:
                self._compare(stored, Path(scratch, "run"))

    def _execute(self, folder: Path) -> None:
        from workbench.runs.execution import execute

        try:
            execute(self.path, self.given, out=folder)
        except RunInterruptedError as error:
            raise KeyboardInterrupt from error  # all of the session is to stop
        except RunError as error:
            told = str(error).replace(str(folder), _shown(self.kept))
            self._say(f"the run failed: {_shown(self.kept / 'diff.html')}")
            self._keep(folder, _page(f"{_shown(self.path)} failed", told))
            raise _NotAsStoredError(told) from None

    def _compare(self, stored: bytes, folder: Path) -> None:
        """Raise if a number or an output is not as stored."""
        import nbformat

        from workbench.runs.outputs import compare_outputs

        before = nbformat.reads(stored.decode(), as_version=4)
        after = nbformat.read(folder / "notebook.ipynb", as_version=4)
        metrics = [] if self.changed else _metrics(_recorded(folder), _accepted(before, self.path))
        outputs = compare_outputs(before, after)
        wrong = [m.text for m in metrics if not m.agrees] + [output.text for output in outputs]
        note = f"numbers are not compared, since {self.changed}" if self.changed else ""
        if not wrong:
            numbers = f"{_count(len(metrics), 'number')} and " if metrics else ""
            self._say(f"{numbers}its outputs agree" + (f"; {note}" if note else ""))
            return
        name, page, executed = map(
            _shown, (self.path, self.kept / "diff.html", self.kept / "notebook.ipynb")
        )
        self._say(f"{_count(len(wrong), 'difference')}: {page}")
        self._keep(folder, _page(f"{name} is not as stored", note, metrics, outputs))
        more = [f"and {len(wrong) - _SHOWN} more"] if len(wrong) > _SHOWN else []
        advice = f"If it is right now, accept it: pytest --workbench --regen {name}"
        raise _NotAsStoredError(
            "\n".join([*wrong[:_SHOWN], *more])
            + f"\n\nSide by side in {page}, executed in {executed}.\n{note or advice}"
        )

    def _accept(self, stored: bytes, folder: Path, home: str) -> None:
        """Store what the run gave in the notebook, without the home that it alone had."""
        from workbench.home import write_file

        metrics = _recorded(folder)
        content = _regenerated(stored, folder / "notebook.ipynb", metrics)
        content = content.replace(f"WORKBENCH_HOME={home} ".encode(), b"")
        if self.path.read_bytes() != stored:
            raise _NotAsStoredError(
                f"{_shown(self.path)} was changed while it ran, so that nothing was accepted: "
                "run it again"
            )
        write_file(self.path.resolve(), content, mode=self.path.stat().st_mode & 0o777)
        self._say(f"accepted {_count(len(metrics), 'number')} and its outputs")

    def _keep(self, folder: Path, page: bytes) -> None:
        """Keep what explains a failure."""
        from workbench.home import write_file

        for name in ("notebook.ipynb", "kernel.log"):
            if (folder / name).exists():
                write_file(self.kept / name, (folder / name).read_bytes())
        write_file(self.kept / "diff.html", page)

    def _say(self, text: str) -> None:
        """Say it in the summary, also that of the process that gathers the reports of others."""
        self.user_properties.append(("workbench", text))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        """Return the message alone of a failure that is the notebook's."""
        ours = isinstance(excinfo.value, (_NotAsStoredError, RequestError))
        return str(excinfo.value) if ours else super().repr_failure(excinfo, style)

    def reportinfo(self) -> tuple[Path, None, str]:
        """Return what heads the report of a failure."""
        return self.path, None, _shown(self.path)


@dataclass(frozen=True)
class Metric:
    """A recorded number beside the accepted one.

    Args:
        name: what it is.
        found: what the run recorded, None if nothing.
        accepted: what the notebook's metadata says, None if nothing.
        tolerance: how far the two may be apart, in the unit of the value; None asks for equality.
    """

    name: str
    found: float | None
    accepted: float | None
    tolerance: float | None = None

    @property
    def agrees(self) -> bool:
        """Whether the number is as accepted."""
        if self.found is None or self.accepted is None:
            return False
        return abs(self.found - self.accepted) <= (self.tolerance or 0)

    @property
    def text(self) -> str:
        """What was found and what was accepted.

        >>> Metric("accuracy", 0.8, 0.9, 0.01).text
        'number accuracy: found 0.8, accepted is 0.9 ± 0.01'
        """
        found = "not recorded" if self.found is None else f"found {self.found!r}"
        if self.accepted is None:
            return f"number {self.name}: {found}, none is accepted"
        within = "" if self.tolerance is None else f" ± {self.tolerance!r}"
        return f"number {self.name}: {found}, accepted is {self.accepted!r}{within}"


class _NotAsStoredError(Exception):
    """A notebook is not as it is stored."""


def _failures(config: pytest.Config) -> Path:
    return config.rootpath / str(config.getoption("workbench_failures"))


def _shown(path: Path) -> str:
    """Return a path as one types it here."""
    here = Path.cwd()
    return str(path.relative_to(here) if path.is_relative_to(here) else path)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}" + ("" if number == 1 else "s")


def _recorded(folder: Path) -> JSON:
    """Return the last value of each recorded name, and its tolerance."""
    from workbench.journal import read_lines

    return {
        line["name"]: {"value": line["value"], "tolerance": line.get("tolerance")}
        for line in read_lines(folder / "metrics.jsonl")
    }


def _accepted(notebook: Any, path: Path) -> JSON:
    """Return the numbers that a notebook's metadata says were accepted."""
    metrics: JSON = notebook.metadata.get("workbench", {}).get("metrics", {})
    for name, said in metrics.items():
        entry = said if isinstance(said, Mapping) else {}
        number, tolerance = entry.get("value"), entry.get("tolerance") or 0
        if not (isinstance(number, int | float) and isinstance(tolerance, int | float)):
            raise RequestError(
                f"{path} accepts {json.dumps(said)} as {name!r} in its metadata, expected "
                '{"value": a number, "tolerance": a number or null}: write that, or use --regen'
            )
    return metrics


def _metrics(recorded: JSON, accepted: JSON) -> list[Metric]:
    both = [(n, recorded.get(n, {}), accepted.get(n, {})) for n in {**accepted, **recorded}]
    return [Metric(n, r.get("value"), a.get("value"), a.get("tolerance")) for n, r, a in both]


def _regenerated(stored: bytes, executed: Path, metrics: Mapping[str, Any]) -> bytes:
    """Return the notebook with the outputs of its execution, and with these numbers accepted."""
    import nbformat

    from workbench.runs.outputs import take_outputs

    notebook = nbformat.reads(stored.decode(), as_version=4)
    take_outputs(notebook, nbformat.read(executed, as_version=4))
    ours = {**notebook.metadata.pop("workbench", {}), "metrics": metrics}
    if not metrics:
        del ours["metrics"]
    if ours:
        notebook.metadata["workbench"] = ours
    return f"{nbformat.writes(notebook)}\n".encode()


def _page(
    title: str, note: str, metrics: Sequence[Metric] = (), outputs: Sequence[OutputDifference] = ()
) -> bytes:
    """Return the page of a failure: what is to be said of it, its numbers, and its outputs."""
    from workbench.runs.pages import join, page, table, tag

    parts = [tag("pre", note)] if note else []
    if metrics:
        head = ["number", "accepted", "found", "tolerance", ""]
        parts += [tag("h2", "Numbers"), table(head, [_row(m) for m in metrics], "numbers")]
    for output in outputs:
        rows = list(_side_by_side(output))
        parts += [
            tag("h2", output.where),
            table(["line", "stored", "executed"], rows, output.where),
        ]
    whole: bytes = page(title, header=tag("h1", title), main=join(*parts))
    return whole


def _row(metric: Metric) -> list[str]:
    numbers = (metric.accepted, metric.found, metric.tolerance)
    said = ["none" if number is None else repr(number) for number in numbers]
    return [metric.name, *said, "agrees" if metric.agrees else "differs"]


def _side_by_side(difference: OutputDifference) -> Iterator[list[str]]:
    """Yield the rows of a difference, with what is only in one line of a pair marked."""
    from workbench.runs.outputs import parted
    from workbench.runs.pages import tag

    for number, *pair in difference.lines():
        begin, old, new, end = parted(*pair)
        marked = [
            tag(kind, text, style=f"background: {colour}") if text else None
            for kind, text, colour in (("del", old, _RED), ("ins", new, _GREEN))
        ]
        codes = (tag("code", begin, mark, end, style="white-space: pre-wrap") for mark in marked)
        yield [str(number), *codes]
