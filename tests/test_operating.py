"""docs/operating.md, the rules beside it and docs/serving.md name what a service really has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import yaml
from asking import ROWS, ask, small_model
from typer.testing import CliRunner

from workbench.cli import app
from workbench.serving import serve
from workbench.serving.jobpaths import job_paths

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


def test_the_table_of_watching_has_every_route_of_it() -> None:
    text = (DOCS / "serving.md").read_text(encoding="utf-8")
    with serve(small_model(), name="digits", example=ROWS) as service:
        paths = ask(service, "GET", "/openapi.json").json["paths"] | job_paths({})
    known = {
        f"{method.upper()} {path}".replace("{model}", "digits").replace("{id}", "ID")
        for path, methods in paths.items()
        for method, told in methods.items()
        if told["tags"][0] in ("Watching", "Jobs")
    }
    table = text.partition("## Watching\n")[2].partition("\n## ")[0]
    named = set(re.findall(r"`((?:GET|POST|PUT|DELETE) /[^`]*)`", table))
    assert named == known
