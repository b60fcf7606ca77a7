"""Takes the pictures of views: `python docs/pictures.py [steered] [rewound] [viewed]`."""

from __future__ import annotations

import io
import os
import shutil
import sys
from pathlib import Path

from PIL import Image
from playwright.sync_api import Locator, expect

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from browser.lab import Lab, LabNotebook
from browser.scripts import own_lab
from browser.test_try_view import draw

HERE = Path(__file__).resolve().parent
NOTEBOOKS = HERE.parent / "notebooks"
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
TRAFFIC = "[len(service.predict(data.test.inputs[i % 350 :][: 1 + i % 9])) for i in range(400)][0]"
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


def viewed(lab: Lab) -> None:
    """Run the gallery, use each view as a person would, and take its picture."""
    for name in ("README.md", "01_linear_regression.ipynb"):
        shutil.copy(NOTEBOOKS / name, lab.folder)
    shutil.copytree(NOTEBOOKS / "pictures", lab.folder / "pictures")
    notebook = lab.open(NOTEBOOKS / "gallery.ipynb", name="gallery")
    page = notebook.page
    page.set_viewport_size({"width": 1180, "height": 1900})
    notebook.run_all()
    notebook.evaluate(TRAFFIC)
    (HERE / "views").mkdir(exist_ok=True)
    for name, use in USES.items():
        face = page.locator(f".wb-{name}").first
        face.scroll_into_view_if_needed()
        use(notebook, face)
        page.mouse.move(5, 5)
        shown = Image.open(io.BytesIO(face.screenshot())).convert("RGB")
        small = shown.quantize(COLOURS, dither=Image.Dither.NONE)
        small.save(HERE / "views" / f"{name}.png", optimize=True)


def press(face: Locator, name: str) -> None:
    """Press a button of a view."""
    face.get_by_role("button", name=name, exact=True).click()


def try_it(notebook: LabNotebook, face: Locator) -> None:
    """Draw a three."""
    draw(notebook, face.locator("canvas").first, "3")
    expect(face.get_by_text("a drawing")).to_be_visible()


def question(_: LabNotebook, face: Locator) -> None:
    """Open the rows of the pair of classes that is confused most."""
    press(face, "Confusion")
    face.locator(".wb-confused button").first.click()
    expect(face.locator(".wb-some img").first).to_be_visible()


def look_into(_: LabNotebook, face: Locator) -> None:
    """Open the first layer, whose filters can be looked at as pictures."""
    press(face, "layers.0")
    expect(face.locator("h3")).to_contain_text("layers.0")


def descend(notebook: LabNotebook, face: Locator) -> None:
    """Let the paths go on for forty steps."""
    press(face, "Play")
    notebook.page.wait_for_function("""() =>
        Number(document.querySelector(".wb-descent-step").textContent.split(" ")[1]) >= 40""")
    press(face, "Pause")


def sweep(_: LabNotebook, face: Locator) -> None:
    """Run a lesson at its small size and a little larger, by two learning rates."""
    press(face, "Several runs")
    expect(face.get_by_label("Seeds")).to_be_visible()
    for name, values in {"alpha": "0.005,0.01", "scale": "0.02,0.05"}.items():
        face.get_by_label(name, exact=True).fill(values)
    face.get_by_label("Seeds").fill("2")
    press(face, "Sweep")
    expect(face.locator(".wb-work .wb-state").first).to_have_text("done", timeout=200_000)


def wait(_: LabNotebook, face: Locator) -> None:
    """Wait for what a view is still about to show."""
    expect(face.locator("button:enabled").first).to_be_visible()
    expect(face.locator("tr .wb-state", has_text="running")).to_have_count(0)


USES = {
    "dataset": wait,
    "model": look_into,
    "evaluation": question,
    "try": try_it,
    "descent": descend,
    "service": wait,
    "form": sweep,
    "runs": wait,
    "home": wait,
}
COLOURS = 160  # of a picture's palette


def main(wanted: list[str]) -> None:
    """Open JupyterLab and take the pictures that are asked for, or all."""
    os.environ.pop("WORKBENCH_HEADLESS", None)
    places = [str(Path(sys.executable).parent), os.environ["PATH"]]
    os.environ["PATH"] = os.pathsep.join(places)  # so that commands are `workbench`, not a path
    with own_lab() as lab:
        for take in (steered, rewound, viewed):
            if not wanted or take.__name__ in wanted:
                take(lab)


if __name__ == "__main__":
    main(sys.argv[1:])
