"""Killed with SIGKILL and resumed: the same bits as a training that was never killed."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from trainings import differences, left, outcome, start

if not hasattr(os, "fork"):
    pytest.skip("processes are forked here", allow_module_level=True)

KILLED = -signal.SIGKILL


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give one home to all, so that the machine is probed once and every training decides alike."""
    return tmp_path_factory.mktemp("home")


def run(case: str, home: Path, name: str, **how: Any) -> int:
    return outcome(start(case, home, name, **how))


def folder(home: Path, name: str) -> Path:
    return home / "trainings" / name


def unlike(home: Path, ours: str, theirs: str) -> list[str]:
    """Return what the two trainings differ in."""
    return list(differences(left(folder(home, ours)), left(folder(home, theirs))))


@pytest.mark.parametrize(
    ("case", "steps"),
    [("images", (9, 26)), ("parts", (14, 30)), ("noisy", (5, 20)), ("built", (4,)),
     ("loader", (3, 19)), ("everywhere", (7, 12)), ("workers", (16,))],
)  # fmt: skip
def test_killed_at_a_step_and_resumed(home: Path, case: str, steps: tuple[int, ...]) -> None:
    assert run(case, home, f"{case}-whole") == 0
    for i, step in enumerate(steps):
        assert run(case, home, f"{case}-killed", die_at=step, draws=i) == KILLED
    assert run(case, home, f"{case}-killed", draws=9) == 0
    assert unlike(home, f"{case}-killed", f"{case}-whole") == []


@pytest.mark.parametrize(
    ("case", "steps"), [("everywhere", (6, 8)), ("noisy", (26,)), ("parts", (1, 12, 33))]
)
def test_stopped_and_resumed(home: Path, case: str, steps: tuple[int, ...]) -> None:
    whole, stopped = f"{case}-unstopped", f"{case}-stopped"
    assert run(case, home, whole) == 0
    for step in steps:
        assert run(case, home, stopped, stop_at=step) == 0
    assert run(case, home, stopped) == 0
    assert unlike(home, stopped, whole) == []


@pytest.mark.parametrize("last", [27, -1])
def test_killed_between_the_last_step_and_the_end(home: Path, last: int) -> None:
    """Its last epoch is a part of one, whose row the history must have."""
    assert run("noisy", home, f"to-{last}") == 0
    assert run("noisy", home, f"at-{last}", die_at=last, settle=0.2, pace=0.03) == KILLED
    assert run("noisy", home, f"at-{last}") == 0
    assert unlike(home, f"at-{last}", f"to-{last}") == []


@pytest.mark.parametrize("number", range(1, 5))
def test_killed_over_a_file(home: Path, number: int) -> None:
    """The record, the first checkpoint, the best one, and one on the way."""
    assert run("images", home, f"file-{number}", die_in_write=number) == KILLED
    assert run("images", home, f"file-{number}", die_in_write=number + 3) == KILLED
    assert run("images", home, f"file-{number}") == 0
    if not folder(home, "unbroken").exists():
        assert run("images", home, "unbroken") == 0
    assert unlike(home, f"file-{number}", "unbroken") == []


def test_extended_and_killed(home: Path) -> None:
    for name, deaths in (("long", ()), ("long-killed", (25, 40))):
        assert run("parts", home, name, budget={"steps": 20}) == 0
        for step in deaths:
            assert run("parts", home, name, budget={"steps": 44}, die_at=step) == KILLED
        assert run("parts", home, name, budget={"steps": 44}) == 0
    assert unlike(home, "long-killed", "long") == []


def test_stopped_then_extended_and_killed(home: Path) -> None:
    assert run("images", home, "more", stop_at=14, extend=12) == 0
    assert run("images", home, "more-killed", stop_at=14, extend=12, die_at=21) == KILLED
    assert run("images", home, "more-killed", budget={}) == 0
    assert unlike(home, "more-killed", "more") == []


def test_killed_from_outside_at_random(home: Path) -> None:
    draw, kills = random.Random(0), 0
    assert run("images", home, "calm", pace=0.01) == 0
    for delay in [draw.uniform(0.1, 0.6) for _ in range(3)]:
        process = start("images", home, "random", pace=0.03)
        time.sleep(delay)
        process.kill()
        kills += outcome(process) == KILLED
    assert kills
    assert run("images", home, "random") == 0
    assert unlike(home, "random", "calm") == []


@pytest.mark.full
def test_a_storm_of_kills(tmp_path: Path) -> None:
    script = Path(__file__).resolve().parents[1] / "benchmarks" / "kills.py"
    subprocess.run([sys.executable, str(script), f"--out={tmp_path}"], check=True, timeout=1800)
    report = json.loads((tmp_path / "kills.json").read_text())
    assert sum(report["kills"].values()) >= 200
    assert [one for one in report["trainings"] if one["differences"]] == []
