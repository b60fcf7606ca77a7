"""Takes the README's pictures of trainings: `python docs/pictures.py [steered] [rewound]`."""

from __future__ import annotations

import os
import sys
import tempfile
from pathlib import Path

from playwright.sync_api import Locator, expect, sync_playwright

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from browser.conftest import chromium
from browser.lab import Lab
from browser.server import lab_server

HERE = Path(__file__).resolve().parent
STEERED = """
# %%
import workbench as wb

data = wb.load("cifar10")
model = wb.build("convnet", data, size="small")
# %%
training = wb.fit(model, data, epochs=6, name="evening")
# %%
training.state, wb.predict(model, data.test.inputs[:4]).labels, data.test.targets[:4].tolist()
"""
REWOUND = """
# %%
import workbench as wb

data = wb.load("cifar10", train_limit=4000, validation=1000)
# %%
model = wb.build("lenet", data, seed=1)
training = wb.fit(model, data, epochs=10, lr=0.006, batch_size=64, name="evening")
# %%
training.wait().name
"""
AROUND = 20  # steps on either side that a spike stands out from


def steered(lab: Lab) -> None:
    """Train, pause after two epochs, ask the model, and take the picture."""
    notebook = lab.open(STEERED, name="steered")
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


def rewound(lab: Lab) -> None:
    """Train, branch at step 240, blame the highest spike after it, and take the picture."""
    notebook = lab.open(REWOUND, name="rewound")
    notebook.page.set_viewport_size({"width": 1180, "height": 1400})
    for cell in range(3):
        notebook.run(cell, seconds=200)
    view = notebook.output(1).locator(".wb-training")
    rewind = view.get_by_role("group", name="Rewind", exact=True)
    choose(rewind, 240)
    rewind.get_by_label("with learning rate").fill("0.001")
    rewind.get_by_role("button", name="Branch from here").click()
    expect(view.locator(".wb-state").nth(1)).to_have_text("done", timeout=100_000)
    choose(rewind, spike(notebook.evaluate("training.history['loss']")))
    rewind.get_by_role("button", name="Blame this step").click()
    expect(rewind.locator("[data-part=found] li")).to_have_count(10, timeout=60_000)
    notebook.page.mouse.move(5, 5)
    view.screenshot(path=HERE / "rewind.png")


def choose(rewind: Locator, step: int) -> None:
    """Go back to a step."""
    field = rewind.get_by_role("spinbutton", name="to step")
    field.fill(str(step))
    field.press("Enter")


def spike(losses: list[float]) -> int:
    """Return the step after 250 whose loss stands out most from those around it."""

    def height(i: int) -> float:
        return losses[i] - sum(losses[i - AROUND : i + AROUND]) / (2 * AROUND)

    return 1 + max(range(250, len(losses) - AROUND), key=height)


def main(wanted: list[str]) -> None:
    """Open JupyterLab and take the pictures that are asked for, or both."""
    os.environ.pop("WORKBENCH_HEADLESS", None)
    with (
        tempfile.TemporaryDirectory() as place,
        lab_server(Path(place), Path(place) / "jupyter") as server,
        sync_playwright() as tool,
        tool.chromium.launch(executable_path=chromium()) as browser,
        Lab(browser, server, Path(place)) as lab,
    ):
        for take in (steered, rewound):
            if not wanted or take.__name__ in wanted:
                take(lab)


if __name__ == "__main__":
    main(sys.argv[1:])
