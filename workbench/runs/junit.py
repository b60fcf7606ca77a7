"""What happened in runs, as the JUnit XML that continuous integration shows: a test case a cell."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal
from xml.etree.ElementTree import Element, SubElement, indent, tostring

from workbench.home import write_file
from workbench.runs.requirements import Outcome
from workbench.types import JSON

__all__ = ["junit_xml", "write_junit"]

_SEQUENCES = re.compile(r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[@-Z\\^_])")
_NO_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")
_Verdict = Literal["failure", "error", "skipped"]
_VERDICTS: Mapping[str, _Verdict | None] = {  # by the state of a cell; any other is an error
    **{"done": None, "failed": "failure", "pending": "skipped", "skipped": "skipped"},
}


@dataclass(frozen=True)
class _Case:
    """One line of the report.

    Args:
        name: of the cell or the requirement.
        seconds: that it took.
        verdict: None for a good one.
        message: why, in a line.
        kind: of the error.
        detail: the traceback, if there is one.
    """

    name: str
    seconds: float = 0.0
    verdict: _Verdict | None = None
    message: str = ""
    kind: str = ""
    detail: str = ""


def junit_xml(record: JSON, requirements: Sequence[Outcome] = ()) -> str:
    """Return the report of one run: a suite with a case a code cell and a case a requirement.

    A run that did not end well never reads as one that did: where no cell tells of it, a case of
    its own does.

    Args:
        record: of the run.
        requirements: what became of them.
    """
    return _document([(record, requirements)])


def write_junit(path: Path, runs: Sequence[tuple[JSON, Sequence[Outcome]]]) -> None:
    """Write the report of several runs, whole or not at all.

    Args:
        path: of the file; missing folders are made.
        runs: the record of each, with what became of its requirements.
    """
    write_file(path, _document(runs).encode())


def _document(runs: Sequence[tuple[JSON, Sequence[Outcome]]]) -> str:
    root = Element("testsuites")
    suites = [_suite(root, record, requirements) for record, requirements in runs]
    for count in ("tests", "failures", "errors"):  # Jenkins' schema has no more of them here
        root.set(count, str(sum(int(suite.get(count, "0")) for suite in suites)))
    root.set("time", f"{sum(float(suite.get('time', '0')) for suite in suites):.3f}")
    indent(root)
    text = tostring(root, encoding="unicode")
    return f'<?xml version="1.0" encoding="utf-8"?>\n{text}\n'


def _suite(root: Element, record: JSON, requirements: Sequence[Outcome]) -> Element:
    stem = _plain(Path(record["notebook"]["path"]).stem)
    cases = [*_cases(record), *map(_required, requirements)]
    suite = SubElement(root, "testsuite", name=stem, tests=str(len(cases)))
    for count, verdict in (("failures", "failure"), ("errors", "error"), ("skipped", "skipped")):
        suite.set(count, str(sum(case.verdict == verdict for case in cases)))
    suite.set("time", f"{record['seconds'] or 0:.3f}")
    suite.set("timestamp", str(record["started"] or record.get("queued"))[:19])  # UTC, no zone
    properties = SubElement(suite, "properties")
    SubElement(properties, "property", name="run", value=_plain(record["id"]))
    SubElement(properties, "property", name="state", value=record["state"])
    for case in cases:
        _add(suite, stem, case)
    return suite


def _add(suite: Element, classname: str, case: _Case) -> None:
    name = _plain(case.name)
    element = SubElement(suite, "testcase", classname=classname, name=name)
    element.set("time", f"{case.seconds:.3f}")
    if case.verdict:
        told = SubElement(element, case.verdict, message=_plain(case.message))
        if case.kind:
            told.set("type", _plain(case.kind))
        told.text = _plain(case.detail) or None


def _cases(record: JSON) -> Iterator[_Case]:
    """Yield a case a cell, then one for the run itself where no cell says what went wrong."""
    error, told = record.get("error") or {}, record["state"] == "done"
    for number, cell in enumerate(record.get("cells", ()), 1):
        verdict = _VERDICTS.get(cell["state"], "error")
        told = told or verdict in ("failure", "error")
        heading = f": {cell['heading']}" if cell["heading"] else ""
        told_by_cell = {"value": cell.get("error")}  # without a traceback
        why = error if error.get("cell") == number else told_by_cell
        yield _case(f"cell {number}{heading}", cell["seconds"], verdict, cell["state"], why)
    if not told:
        yield _case("the run", None, "error", record["state"], error)


def _case(
    name: str, seconds: float | None, verdict: _Verdict | None, state: str, error: JSON
) -> _Case:
    """Return a case that says of its error what there is to say, or else its state."""
    if verdict in (None, "skipped"):
        return _Case(name, seconds or 0.0, verdict, state if verdict else "")
    said = [str(error[key]) for key in ("name", "value") if error.get(key)]
    kind = error.get("name") or state
    return _Case(
        name, seconds or 0.0, verdict, ": ".join(said) or state, kind, error.get("traceback") or ""
    )


def _required(outcome: Outcome) -> _Case:
    verdict: _Verdict | None = None if outcome.holds else "failure"
    return _Case(f"requires {outcome.text}", verdict=verdict, message=outcome.message)


def _plain(text: str) -> str:
    """Return the text without colours and without what XML cannot hold."""
    return _NO_XML.sub("", _SEQUENCES.sub("", text))
