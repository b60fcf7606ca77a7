"""docs/operating.md and the rules beside it name what a service really has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from asking import ROWS, ask, small_model
from typer.testing import CliRunner

from workbench.cli import app
from workbench.serving import serve

DOCS = Path(__file__).parents[1] / "docs"
_PARTS = r"(_bucket|_count|_sum)?$"  # of a histogram


@pytest.mark.parametrize("name", ["operating.md", "alerts.yml"])
def test_every_metric_that_is_named_is_told(name: str) -> None:
    named = set(re.findall(r"\bworkbench_[a-z_]+", (DOCS / name).read_text(encoding="utf-8")))
    with serve(small_model(), name="m", example=ROWS) as service:
        text = ask(service, "GET", "/metrics").body.decode()
    told = set(re.findall(r"^# TYPE (\w+)", text, flags=re.MULTILINE))
    assert len(named) >= 7
    assert {re.sub(_PARTS, "", one) for one in named} <= told


def test_every_rule_says_what_is_wrong() -> None:
    [group] = yaml.safe_load((DOCS / "alerts.yml").read_text(encoding="utf-8"))["groups"]
    assert len(group["rules"]) == 9  # as operating.md says
    assert all(rule["annotations"]["summary"] for rule in group["rules"])


@pytest.mark.parametrize("name", ["operating.md", "workbench.service", "Containerfile"])
def test_every_option_of_serve_that_is_named_is_one(name: str) -> None:
    said = CliRunner().invoke(app, ["serve", "--help"], env={"COLUMNS": "200"}).stdout
    text = (DOCS / name).read_text(encoding="utf-8")
    lines = re.findall(
        r"workbench serve .*|^.*OPTIONS=.*|^\| `--.*|ENTRYPOINT.*", text, re.MULTILINE
    )
    named = set(re.findall(r"--[a-z]+(?:-[a-z]+)*", " ".join(lines)))
    assert named
    assert {option for option in named if option not in said} == set()
