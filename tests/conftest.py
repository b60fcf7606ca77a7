"""What every test starts with: a home of its own, nobody watching, the same random numbers."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from workbench.determinism import seed_everything

if TYPE_CHECKING:
    from workbench.serving import Service


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WORKBENCH_HEADLESS", "1")
    monkeypatch.delenv("WORKBENCH_RUN", raising=False)
    seed_everything(0)


@pytest.fixture
def own_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the test a folder of datasets of its own, where the probe is remembered too."""
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str, str], None]:
    """Give a way to put a shell script on PATH, on which there is nothing else."""
    (tmp_path / "bin").mkdir()
    monkeypatch.setenv("PATH", str(tmp_path / "bin"))

    def write(name: str, lines: str) -> None:
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{lines}\n")
        path.chmod(0o755)

    return write


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a probe in this process take as little time as it can."""
    monkeypatch.setattr("workbench.probing._LIMIT", 0.05)


@pytest.fixture
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let a checkpoint be due after any step, rather than every quarter of a second."""
    monkeypatch.setattr("workbench.training.loop._LOOK_EVERY", 0.0)


@pytest.fixture
def ended(tmp_path: Path) -> Iterator[None]:
    """End what a test leaves in the background."""
    from waiting import end_background

    yield
    end_background(tmp_path)


@pytest.fixture
def live(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let trainings have a thread, as in a notebook, and show nothing; wait for their end."""
    monkeypatch.setattr("workbench.training.fitting.is_live", lambda: True)
    monkeypatch.setattr("workbench.training.live._show", lambda training: None)
    yield
    for thread in threading.enumerate():
        if thread.name.startswith("training "):
            thread.join(20)


def _parent(threads: int | None) -> Iterator[str | None]:
    from workbench.runs.envelopes import make_envelope
    from workbench.runs.warm import WarmParent, can_fork

    if not can_fork():
        yield None
        return
    with WarmParent(make_envelope(threads=threads)) as parent:
        yield parent.address


@pytest.fixture(scope="session")
def warm() -> Iterator[str | None]:
    """Give the address of a warm parent, by which a kernel is there in a third of a second."""
    yield from _parent(None)


@pytest.fixture(scope="session")
def warm_single() -> Iterator[str | None]:
    """Give the same for runs of one thread, such as those of a sweep."""
    yield from _parent(1)


@pytest.fixture
def forked(monkeypatch: pytest.MonkeyPatch, warm: str | None) -> None:
    """Let `verify` and commands in this process fork their kernels too, which start cold else."""
    from workbench.runs import kernels

    start = kernels.kernel
    monkeypatch.setattr(kernels, "kernel", lambda address=None: start(address or warm))


@pytest.fixture(scope="module")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serve a small model to all tests of one file."""
    from asking import ROWS, small_model

    from workbench.serving import serve

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(tmp_path_factory.mktemp("home")))
        with serve(small_model(), name="small", example=ROWS) as running:
            yield running
