"""Takes the README's picture of a training that is steered: `python docs/pictures.py`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import expect, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from browser.conftest import chromium
from browser.lab import Lab
from browser.server import lab_server

HERE = Path(__file__).resolve().parent
NOTEBOOK = """
# %%
import workbench as wb

data = wb.load("cifar10")
model = wb.build("convnet", data, size="small")
# %%
training = wb.fit(model, data, epochs=6, name="evening")
# %%
training.state, wb.predict(model, data.test.inputs[:4]).labels, data.test.targets[:4].tolist()
"""


def main() -> None:
    """Train, pause after two epochs, ask the model, and take the picture."""
    os.environ.pop("WORKBENCH_HEADLESS", None)
    with (
        tempfile.TemporaryDirectory() as place,
        lab_server(Path(place), Path(place) / "jupyter") as server,
        sync_playwright() as tool,
        tool.chromium.launch(executable_path=chromium()) as browser,
        Lab(browser, server, Path(place)) as lab,
    ):
        notebook = lab.open(NOTEBOOK)
        notebook.page.set_viewport_size({"width": 1180, "height": 1000})
        notebook.run(0)
        notebook.run(1)
        view = notebook.output(1).locator(".wb-training")
        expect(view.locator(".wb-line")).to_contain_text("epoch 3", timeout=120_000)
        view.get_by_role("button", name="Pause").click()
        expect(view.locator(".wb-state")).to_have_text("paused")
        notebook.run(2)
        panel = notebook.page.locator(".jp-NotebookPanel-notebook")
        notebook.cell(1).scroll_into_view_if_needed()
        panel.screenshot(path=HERE / "live.png")


if __name__ == "__main__":
    main()
