"""What every test starts with: a home of its own, nobody watching, the same random numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from workbench.determinism import seed_everything


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("WORKBENCH_HEADLESS", "1")
    monkeypatch.delenv("WORKBENCH_RUN", raising=False)
    seed_everything(0)
