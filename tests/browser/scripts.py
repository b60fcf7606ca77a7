"""JupyterLab for a script that is no test: a benchmark, or what takes the pictures."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import sync_playwright

from browser.conftest import chromium
from browser.lab import Lab
from browser.server import lab_server

__all__ = ["own_lab"]


@contextmanager
def own_lab() -> Iterator[Lab]:
    """Open JupyterLab in a folder that is there for the while."""
    with (
        tempfile.TemporaryDirectory() as place,
        lab_server(Path(place), Path(place) / "jupyter") as server,
        sync_playwright() as tool,
        tool.chromium.launch(executable_path=chromium()) as browser,
        Lab(browser, server, Path(place)) as lab,
    ):
        yield lab
