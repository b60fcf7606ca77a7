"""Aliases in runs: what a notebook reads by one stays what it was, whoever moves it later."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from writing import write_notebook

import workbench as wb
from workbench.registry import history
from workbench.runs import execute, verify

DATA = wb.dataset("points", train=(torch.linspace(-1, 1, 8)[:, None], torch.zeros(8)))
READ = """\
import workbench as wb
made = wb.version("m@champion")
wb.record("weight", float(next(made.load().parameters()).sum()))
made.ref, made.aliases"""


def published(*aliases: str) -> None:
    """Publish the next version of `m`, another each time, and promote it."""
    model = wb.build("linear", DATA, seed=len(aliases))
    made = wb.publish(model, "m")
    for alias in aliases:
        wb.promote(made.ref, alias)


@pytest.mark.usefixtures("forked")
def test_a_run_that_read_by_an_alias_is_identical_once_that_has_moved(
    tmp_path: Path, warm: str | None
) -> None:
    published("champion", "first")
    run = execute(write_notebook(tmp_path / "a.ipynb", READ), {}, warm=warm)
    published("champion")
    assert wb.version("m@champion").ref == "m@2"
    found = verify(run)
    assert (found.verdict, found.metrics, found.outputs) == ("identical", 1, 1), found


@pytest.mark.usefixtures("forked")
def test_verifying_a_run_that_promotes_moves_no_alias(tmp_path: Path, warm: str | None) -> None:
    published("champion")
    published()
    promote = 'wb.promote("m@2", "champion", why="better")\nwb.version("m@champion").ref'
    run = execute(write_notebook(tmp_path / "a.ipynb", READ, promote), {}, warm=warm)
    assert wb.version("m@champion").ref == "m@2"
    wb.promote("m@1", "champion")
    before = history("m")
    found = verify(run)
    assert (found.verdict, found.outputs) == ("identical", 2), found
    assert (wb.version("m@champion").ref, history("m")) == ("m@1", before)
