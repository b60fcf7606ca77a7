"""A training in JupyterLab: watched, paused, asked, stopped, extended, left and found again."""

from __future__ import annotations

import base64
import io
import json
import re
import shutil
from pathlib import Path
from typing import Any

import nbformat
import pytest
from kernels import SETUP
from PIL import Image
from playwright.sync_api import Locator, expect

from browser.lab import Lab, LabNotebook
from workbench import fit

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
TRAINING = """
# %%
model = Net()
training = wb.fit(model, data, {how}, batch_size=8, lr=0.05)
"""


def started(lab: Lab, how: str, kernel: str | None = None) -> LabNotebook:
    """Open a notebook and start a training in its second cell."""
    notebook = lab.open("# %%" + SETUP + TRAINING.format(how=how), kernel=kernel)
    notebook.run(0)
    notebook.run(1)
    expect(view(notebook)).to_be_visible()
    return notebook


def view(notebook: LabNotebook, cell: int = 1) -> Locator:
    return notebook.output(cell).locator(".wb-training")


def press(notebook: LabNotebook, name: str, cell: int = 1) -> None:
    view(notebook, cell).get_by_role("button", name=name, exact=True).click()


def undisturbed(**how: Any) -> list[float]:
    """Return the sums of the weights that nobody ever touched."""
    space: dict[str, Any] = {}
    exec(SETUP, space)
    model = space["Net"](0)
    fit(model, space["data"], batch_size=8, lr=0.05, **how)
    sums: list[float] = space["sums"](model)
    return sums


def test_paused_it_stands_still_answers_and_loses_nothing(lab: Lab, kernel: str) -> None:
    notebook = started(lab, "epochs=60", kernel)
    press(notebook, "Pause")
    expect(view(notebook).locator(".wb-state")).to_have_text("paused")
    step = notebook.evaluate("len(training.history)")
    assert 0 < step < 240
    assert notebook.evaluate("wb.evaluate(model, data.train).confusion.sum().item()") == 32
    notebook.page.wait_for_timeout(500)
    assert notebook.evaluate("(training.state, len(training.history))") == ["paused", step]
    expect(view(notebook).locator(".wb-line")).to_contain_text(f"step {step} of 240")
    press(notebook, "Unpause")
    expect(view(notebook).locator(".wb-state")).to_have_text("done")
    assert notebook.evaluate("sums(model)") == undisturbed(epochs=60)


def test_stopped_it_keeps_the_best_weights_and_is_extended(lab: Lab) -> None:
    notebook = started(lab, "epochs=1000")
    expect(view(notebook).locator(".wb-line")).to_contain_text("best validation loss")
    press(notebook, "Stop")
    expect(view(notebook).locator(".wb-state")).to_have_text("stopped")
    notebook.evaluate("training.best.load(model)")
    rows = notebook.evaluate("training.history.epochs")
    least = min(row["validation_loss"] for row in rows if row["step"] % 4 == 0)
    found = notebook.evaluate("float(wb.evaluate(model, data.validation).loss)")
    assert found == pytest.approx(least, rel=1e-5)
    step = notebook.evaluate("len(training.history)")
    view(notebook).get_by_role("spinbutton", name="Extend by epochs").fill("2")
    press(notebook, "Extend")
    expect(view(notebook).locator(".wb-state")).to_have_text("done")
    assert notebook.evaluate("len(training.history)") == step + 8


def test_the_page_is_left_and_found_again(lab: Lab) -> None:
    notebook = started(lab, "epochs=1000")
    notebook.save()
    notebook.leave()
    before = notebook.evaluate("len(training.history)")
    notebook.reload()
    expect(view(notebook).locator(".wb-line")).to_contain_text("of 4,000")
    progress = view(notebook).get_by_role("progressbar")
    assert float(progress.get_attribute("value") or 0) >= before
    press(notebook, "Stop")
    expect(view(notebook).locator(".wb-state")).to_have_text("stopped")


def test_after_a_killed_kernel_the_curve_goes_on(lab: Lab) -> None:
    how = "epochs=60, name='night', resume=True, checkpoint_every=0.2"
    notebook = started(lab, how)
    expect(view(notebook).locator(".wb-line")).to_contain_text("best validation loss")
    notebook.kill()
    notebook.run(0)
    notebook.run(1)
    expect(view(notebook).locator(".wb-state")).to_have_text("done", timeout=20_000)
    assert notebook.evaluate("sums(model)") == undisturbed(epochs=60)
    view(notebook).get_by_text("Table").click()
    expect(view(notebook).locator("tbody tr")).to_have_count(60)


def test_two_views_show_one_training(lab: Lab) -> None:
    cells = TRAINING.format(how="epochs=1000") + "\n# %%\ntraining.show()"
    notebook = lab.open("# %%" + SETUP + cells)
    for cell in range(3):
        notebook.run(cell)
    press(notebook, "Pause", cell=1)
    for cell in (1, 2):
        expect(view(notebook, cell).locator(".wb-state")).to_have_text("paused")
    press(notebook, "Stop", cell=2)
    for cell in (1, 2):
        expect(view(notebook, cell).locator(".wb-state")).to_have_text("stopped")


def test_while_a_cell_waits_the_interrupt_ends_the_training(lab: Lab, kernel: str) -> None:
    cells = TRAINING.format(how="epochs=1000") + "\n# %%\ntraining.wait()"
    notebook = lab.open("# %%" + SETUP + cells, kernel=kernel)
    notebook.run(0)
    notebook.run(1)
    notebook.interrupt()  # while no cell runs, it ends nothing
    notebook.start(2)
    expect(view(notebook).locator(".wb-note")).to_contain_text("■ ends the training and keeps it")
    notebook.interrupt()
    expect(view(notebook).locator(".wb-state")).to_have_text("interrupted")
    notebook.wait()
    assert notebook.evaluate("training.checkpoint.step == len(training.history)")


def test_a_training_of_another_process_is_watched_and_stopped(lab: Lab) -> None:
    far = started(lab, "epochs=1000, name='far'")
    near = lab.open("# %%\nimport workbench as wb\nwb.list_trainings()['far'].show()", name="near")
    near.run(0)
    expect(view(near, 0).locator(".wb-state")).to_have_text("running")
    press(near, "Stop", cell=0)
    expect(view(near, 0).locator(".wb-state")).to_have_text("stopped")
    assert far.evaluate("training.state") == "stopped"


def test_the_saved_notebook_keeps_a_picture_and_a_line(lab: Lab) -> None:
    notebook = started(lab, "epochs=5")
    expect(view(notebook).locator(".wb-state")).to_have_text("done")
    notebook.page.wait_for_timeout(500)
    kept = notebook.save()
    (output,) = kept.cells[1].outputs
    content = base64.b64decode(output.data["image/png"])
    assert Image.open(io.BytesIO(content)).size == (720, 256)
    assert "Training done: Net on points, 20 of 20 steps" in output.data["text/plain"]
    assert len(json.dumps(kept)) < 120_000
    assert "widgets" not in kept.metadata


def test_it_is_accessible(lab: Lab) -> None:
    notebook = started(lab, "epochs=3")
    expect(view(notebook).locator(".wb-state")).to_have_text("done")
    view(notebook).get_by_text("Table").click()
    lab.check_accessibility(view(notebook))


def test_values_are_read_by_keyboard(lab: Lab) -> None:
    notebook = started(lab, "epochs=3")
    expect(view(notebook).locator(".wb-state")).to_have_text("done")
    chart = view(notebook).locator("[data-chart=loss]")
    while not notebook.messages().get("update_display_data"):
        notebook.page.wait_for_timeout(100)
    notebook.page.wait_for_timeout(500)  # the picture makes Lab draw the output anew, unfocused
    expect(chart).to_have_attribute("aria-label", re.compile("training"))  # it is drawn
    chart.press("End")
    last = notebook.evaluate("training.history['loss'][-1]")
    said = view(notebook).locator("[data-live=values]")
    expect(said).to_contain_text("12")
    expect(said).to_contain_text(f"{last:.3f}"[:4])


@pytest.mark.full  # the gallery runs whole in `make test`
def test_notebook_05_runs_whole(lab: Lab, tmp_path: Path) -> None:
    small = nbformat.read(NOTEBOOKS / "05_cifar10_cnn.ipynb", as_version=4)
    cell = next(c for c in small.cells if "parameters" in c.metadata.get("tags", ()))
    cell.source += "\nscale = 0.02"
    nbformat.write(small, tmp_path / "small.ipynb")
    shutil.copy(NOTEBOOKS / "seeds.csv", tmp_path)  # which it reads
    notebook = lab.open(tmp_path / "small.ipynb")
    notebook.run_all(seconds=300)
    assert notebook.page.locator(".wb-training").count() >= 2
    expect(notebook.page.locator(".wb-state").last).to_have_text("done")
