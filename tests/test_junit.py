"""Reports of runs in JUnit's XML, read back with another reader."""

from __future__ import annotations

import string
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from writing import write_notebook

from workbench.errors import RunError
from workbench.runs import list_runs, run
from workbench.runs.junit import junit_xml, write_junit
from workbench.runs.requirements import Outcome

GOOD = Outcome("x>=0.5", True, 0.7, 0.5, "x is 0.7, required >= 0.5")
BAD = Outcome("x>=0.9", False, 0.7, 0.9, "x is 0.7, required >= 0.9")


def cell(state: str, heading: str | None = None, **changes: Any) -> dict[str, Any]:
    return {"index": 0, "heading": heading, "state": state, "seconds": 1.25, **changes}


def record(*cells: dict[str, Any], **changes: Any) -> dict[str, Any]:
    return {
        **{"id": "20260101-000000-a-0001", "state": "done", "notebook": {"path": "/x/a.ipynb"}},
        **{"started": "2026-01-01T02:03:04.567+00:00", "seconds": 2.5, "cells": list(cells)},
        **{"error": None, "metrics": {}},
        **changes,
    }


def checked(text: str) -> list[ElementTree.Element]:
    """Return the suites of a report whose counts are those of its cases."""
    root = ElementTree.fromstring(text.encode())
    assert root.tag == "testsuites"
    assert {element.tag for element in root} <= {"testsuite"}
    for whole in (root, *root):
        assert int(whole.attrib["tests"]) == len(whole.findall(".//testcase"))
        for count, tag in (("failures", "failure"), ("errors", "error")):
            assert int(whole.attrib[count]) == len(whole.findall(f".//testcase/{tag}"))
        assert float(whole.attrib["time"]) >= 0
    for suite in root:
        assert int(suite.attrib["skipped"]) == len(suite.findall("testcase/skipped"))
    for case in root.iter("testcase"):
        assert set(case.attrib) == {"classname", "name", "time"}
        assert len(case) <= 1
    return list(root)


def verdicts(suite: ElementTree.Element) -> dict[str, str | None]:
    return {c.attrib["name"]: (c[0].tag if len(c) else None) for c in suite.iter("testcase")}


def test_a_suite_has_a_case_a_cell_and_a_case_a_requirement() -> None:
    cells = cell("done"), cell("done", "Train"), cell("skipped", "Train", seconds=None)
    (suite,) = checked(junit_xml(record(*cells), [GOOD, BAD]))
    assert verdicts(suite) == {
        **{"cell 1": None, "cell 2: Train": None, "cell 3: Train": "skipped"},
        **{"requires x>=0.5": None, "requires x>=0.9": "failure"},
    }
    assert {case.attrib["classname"] for case in suite.iter("testcase")} == {"a"}
    assert [case.attrib["time"] for case in suite.iter("testcase")][:3] == ["1.250"] * 2 + ["0.000"]
    about = suite.attrib["name"], suite.attrib["time"], suite.attrib["timestamp"]
    assert about == ("a", "2.500", "2026-01-01T02:03:04")
    assert "hostname" not in suite.attrib
    (failure,) = suite.iter("failure")
    assert failure.attrib == {"message": "x is 0.7, required >= 0.9"}


def test_a_failed_cell_has_its_traceback_without_what_xml_cannot_hold() -> None:
    error = {"cell": 1, "heading": "A < B", "name": "ValueError", "value": "no \x1b[31m<x>\x00 & y"}
    error["traceback"] = "----> 1 \x1b]8;;http://x\x07f\x1b]8;;\x1b\\()\x1b[0m\x08\ud800\ufffe\n2"
    cells = cell("failed", "A < B", error="ValueError: no"), cell("pending", seconds=None)
    (suite,) = checked(junit_xml(record(*cells, state="failed", error=error)))
    assert verdicts(suite) == {"cell 1: A < B": "failure", "cell 2": "skipped"}
    (failure,) = suite.iter("failure")
    assert failure.attrib == {"message": "ValueError: no <x> & y", "type": "ValueError"}
    assert failure.text == "----> 1 f()\n2"


@pytest.mark.parametrize("state", ["killed", "timed out", "interrupted", "running", "strange"])
def test_a_cell_that_was_stopped_is_an_error(state: str) -> None:
    found = record(cell(state, "Train"), cell("pending"), state=state)
    (suite,) = checked(junit_xml(found))
    assert verdicts(suite) == {"cell 1: Train": "error", "cell 2": "skipped"}
    assert suite.find(".//error[@type='" + state + "']") is not None


def test_a_cell_may_tell_its_error_itself() -> None:
    cells = cell("killed", error="MemoryLimit: too much"), cell("pending", error=None)
    (suite,) = checked(junit_xml(record(*cells, state="killed")))
    (error,) = suite.iter("error")
    assert error.attrib == {"message": "MemoryLimit: too much", "type": "killed"}


@pytest.mark.parametrize("cells", [[cell("pending", seconds=None)], [cell("done")], []])
def test_a_run_that_no_cell_tells_of_is_an_error_all_the_same(cells: list[dict[str, Any]]) -> None:
    error = {"name": "RuntimeError", "value": "Kernel died before replying", "traceback": "..."}
    (suite,) = checked(junit_xml(record(*cells, state="failed", error=error, seconds=None)))
    assert verdicts(suite)["the run"] == "error"
    (told,) = suite.iter("error")
    assert told.attrib["message"] == "RuntimeError: Kernel died before replying"
    assert (told.text, suite.attrib["time"]) == ("...", "0.000")


def test_a_run_that_never_began_is_an_error() -> None:
    found = record(cell("pending"), state="queued", started=None, queued="2026-01-01T00:00:00.1")
    (suite,) = checked(junit_xml(found))
    assert verdicts(suite) == {"cell 1": "skipped", "the run": "error"}
    assert suite.attrib["timestamp"] == "2026-01-01T00:00:00"


def test_several_runs_are_one_report(tmp_path: Path) -> None:
    other = record(cell("failed"), state="failed", notebook={"path": "/x/b c.ipynb"}, seconds=0.25)
    path = tmp_path / "made" / "night.xml"
    write_junit(path, [(record(cell("done")), [BAD]), (other, ())])
    suites = checked(path.read_text(encoding="utf-8"))
    assert [suite.attrib["name"] for suite in suites] == ["a", "b c"]
    root = ElementTree.parse(path).getroot()
    found = [root.attrib[key] for key in ("tests", "failures", "errors", "time")]
    assert found == ["3", "2", "0", "2.750"]
    assert [file.name for file in path.parent.iterdir()] == ["night.xml"]


@given(st.text(), st.text(string.printable))
def test_any_text_makes_a_report_that_can_be_read(heading: str, value: str) -> None:
    error = {"cell": 1, "heading": heading, "name": value, "value": heading, "traceback": value}
    (suite,) = checked(
        junit_xml(record(cell("failed", heading), state="failed", error=error), [BAD])
    )
    assert suite.attrib["failures"] == "2"


def test_the_record_of_a_real_run_makes_a_report(tmp_path: Path) -> None:
    cells = ["# Start", "x = 1", "# Divide", "x / 0", "print(2)"]
    with pytest.raises(RunError):
        run(write_notebook(tmp_path / "real.ipynb", *cells))
    (suite,) = checked(junit_xml(list_runs()["last"].record))
    expected = {"cell 1: Start": None, "cell 2: Divide": "failure", "cell 3: Divide": "skipped"}
    assert verdicts(suite) == expected
    (failure,) = suite.iter("failure")
    assert failure.attrib["message"] == "ZeroDivisionError: division by zero"
    assert "x / 0" in str(failure.text)
