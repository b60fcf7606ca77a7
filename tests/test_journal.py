"""What a run's journals keep."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from workbench import journal
from workbench.errors import RequestError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("WORKBENCH_RUN", str(tmp_path))
    return tmp_path


def metrics(folder: Path) -> list[dict[str, Any]]:
    return journal.read_lines(folder / "metrics.jsonl")


def test_outside_a_run_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    journal.record("accuracy", 0.5)
    journal.note("load", dataset="line")
    assert journal.current_run() is None
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (0.5, 0.5),
        (3, 3),
        (True, 1.0),
        (np.float32(0.5), 0.5),
        (np.int64(2**60), 2**60),
        (torch.tensor(0.25), 0.25),
        (torch.tensor([7]), 7),
    ],
)
def test_a_scalar_is_kept_as_the_number_it_is(folder: Path, value: Any, kept: float) -> None:
    journal.record("x", value)
    (line,) = metrics(folder)
    assert (line["name"], line["value"], type(line["value"])) == ("x", kept, type(kept))
    assert line["time"].endswith("+00:00")
    assert "tolerance" not in line


def test_a_tolerance_is_kept_with_its_value(folder: Path) -> None:
    journal.record("accuracy", 0.5, tolerance=0.01)
    assert metrics(folder)[0]["tolerance"] == 0.01


@pytest.mark.parametrize("value", [float("nan"), float("inf"), torch.tensor(-torch.inf)])
def test_a_metric_that_is_not_finite_is_refused(folder: Path, value: Any) -> None:
    with pytest.raises(RequestError, match=r"metric 'x' is (nan|inf|-inf); a metric must be f"):
        journal.record("x", value)
    assert metrics(folder) == []


@pytest.mark.parametrize("value", ["high", None, [1, 2], torch.zeros(2)])
def test_a_metric_that_is_no_number_is_refused(value: Any) -> None:
    kind = type(value).__name__
    with pytest.raises(RequestError, match=f"metric 'x' must be one number, got {kind}: "):
        journal.record("x", value)


def test_a_metric_without_a_name_is_refused() -> None:
    with pytest.raises(RequestError, match="a metric needs a name, got ''"):
        journal.record("", 1)


def test_events_keep_their_fields_in_order(folder: Path) -> None:
    journal.note("load", dataset="línea", fingerprint="ab")
    journal.note("publish", ref="m@1")
    read = journal.read_lines(folder / "events.jsonl")
    assert [line["event"] for line in read] == ["load", "publish"]
    assert (read[0]["dataset"], read[1]["ref"]) == ("línea", "m@1")


def test_a_last_line_cut_off_by_a_kill_is_left_out(folder: Path) -> None:
    journal.record("x", 1)
    journal.record("x", 2)
    file = folder / "metrics.jsonl"
    whole = file.read_bytes()
    second = whole.index(b"\n") + 1
    for end in range(second, len(whole)):
        file.write_bytes(whole[:end])
        assert [line["value"] for line in metrics(folder)] == [1]
    assert journal.read_lines(folder / "nothing.jsonl") == []


def test_damaged_lines_are_left_out_and_what_follows_is_kept(folder: Path) -> None:
    file = folder / "metrics.jsonl"
    file.write_bytes(b'{"name": "x", "val\n\0\0\0\0\n[1]\n3\n\xff\n\n{"name": "to')
    journal.record("x", 1)
    journal.record("x", 2)
    assert [line["value"] for line in metrics(folder)] == [1, 2]
    assert file.read_bytes().count(b"\n") == 9  # no empty line where nothing was torn


def test_a_line_that_is_written_in_parts_is_whole(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda handle, data: write(handle, data[:7]))
    journal.record("x", 1)
    journal.record("y", 2)
    assert [line["name"] for line in metrics(folder)] == ["x", "y"]


def test_a_full_disk_is_told_and_costs_only_its_line(folder: Path) -> None:
    code = (
        "import resource, signal; from workbench.journal import record\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN); record('x', 1)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100, resource.RLIM_INFINITY)); record('x', 2)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "OSError: [Errno 27] File too large" in done.stderr
    assert (folder / "metrics.jsonl").stat().st_size == 100
    journal.record("x", 3)
    assert [line["value"] for line in metrics(folder)] == [1, 3]


def test_a_step_is_kept_with_its_value(folder: Path) -> None:
    journal.record("loss", 0.5, step=int(np.int64(3)))
    assert metrics(folder)[0]["step"] == 3


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"tolerance": -1}, "tolerance of 'loss' is -1, expected 0 or more"),
        ({"tolerance": "x"}, "metric 'tolerance of loss' must be one number, got str"),
        ({"step": -1}, "step of 'loss' is -1, expected a whole number from 0 up"),
        ({"step": 1.5}, "step of 'loss' is 1.5, expected a whole number"),
        ({"step": True}, "step of 'loss' is True, expected a whole number"),
    ],
)
def test_a_tolerance_or_step_that_is_none_is_refused(
    folder: Path, how: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        journal.record("loss", 0.5, **how)
    assert metrics(folder) == []


def test_a_sweep_interrupts_where_it_wants_to_look(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_STOP_AT", "a:loss:2")
    journal.record("a:loss", 1, step=1)
    journal.record("loss", 1, step=5)
    journal.record("a:loss", 1)
    with pytest.raises(KeyboardInterrupt):
        journal.record("a:loss", 1, step=2)
    assert len(metrics(folder)) == 4


def test_a_run_is_told_apart_by_its_record(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert journal.run_id() == folder.name
    (folder / "run.json").write_text('{"id": "20260101-000000-a-0001"}')
    assert journal.run_id() == "20260101-000000-a-0001"
    assert not journal.is_resumed()
    monkeypatch.setenv("WORKBENCH_RESUMED", "1")
    assert journal.is_resumed()
    monkeypatch.delenv("WORKBENCH_RUN")
    assert (journal.is_resumed(), journal.run_id(), journal.replayed_run()) == (False, None, None)


def test_the_same_kind_is_counted_on() -> None:
    first = journal.count("a kind of this test")
    assert [journal.count("a kind of this test") for _ in range(2)] == [first + 1, first + 2]
