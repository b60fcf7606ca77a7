"""The view of a model in JupyterLab: every control, by mouse and keyboard; reload; both themes."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, expect

from browser.lab import Lab, LabNotebook

FITTED = """
# %%
import workbench as wb
data = wb.load("digits")
model = wb.build("mlp", data, hidden=(40, 16), seed=0)
training = wb.fit(model, data, steps=30, name="short").wait()
# %%
view = wb.widgets.model(model, data)
view
"""
CONVOLVES = """
# %%
import torch
import workbench as wb
images = torch.randint(0, 256, (60, 32, 32, 3), dtype=torch.uint8)
photographs = wb.dataset("photographs", train=(images, torch.arange(60) % 3))
model = wb.build("lenet", photographs, seed=0)
# %%
view = wb.widgets.model(model, photographs)
view
"""


def shown(lab: Lab, cells: str, name: str) -> tuple[LabNotebook, Locator]:
    notebook = lab.open(cells)
    notebook.run(0, seconds=120)
    notebook.run(1, seconds=120)
    face = notebook.output(1).locator(".wb-model")
    expect(face.locator(".wb-title")).to_have_text(name)
    return notebook, face


def status(face: Locator) -> Locator:
    return face.locator(".wb-row").get_by_role("status")


def press(face: Locator, name: str) -> None:
    face.get_by_role("button", name=name, exact=True).click()


def test_layers_are_opened_and_rows_chosen(lab: Lab) -> None:
    notebook, face = shown(lab, FITTED, "mlp")
    expect(face.locator("h3")).to_contain_text("layers.0 Linear")
    expect(face.locator(".wb-layers tbody tr")).to_have_count(5)
    press(face, "layers.2")
    expect(face.locator("h3")).to_contain_text("layers.2")
    expect(face.get_by_alt_text("heat map of weight")).to_be_visible()
    face.get_by_role("button", name="layers.4").press("Enter")
    expect(face.locator("h3")).to_contain_text("layers.4")
    expect(face.get_by_role("button", name="layers.4")).to_be_focused()
    expect(face.get_by_role("button", name="layers.4")).to_have_attribute("aria-pressed", "true")
    face.get_by_label("Class").select_option("7")
    expect(status(face)).to_contain_text("class 7")
    press(face, "Next row")
    expect(status(face)).to_contain_text("row 2 of")
    expect(face.get_by_alt_text("the row: class 7")).to_be_visible()
    face.get_by_role("button", name="Previous row").press("Space")
    expect(status(face)).to_contain_text("row 1 of")
    expect(face.get_by_role("button", name="Previous row")).to_be_disabled()
    told = notebook.evaluate("[view.shown['layer']['name'], view.shown['of'], view.shown['row']]")
    assert told == ["layers.4", "7", 0]


def test_filters_are_turned_over(lab: Lab) -> None:
    notebook, face = shown(lab, FITTED, "mlp")
    expect(face.get_by_alt_text("filter 31")).to_be_visible()
    press(face, "Next units")
    expect(face.get_by_alt_text("filter 39")).to_be_visible()
    expect(face.get_by_role("button", name="Next units")).to_be_disabled()
    assert notebook.evaluate("view.shown['first']") == 32
    face.get_by_role("button", name="Previous units").press("Enter")
    expect(face.get_by_alt_text("filter 0", exact=True)).to_be_visible()


def test_after_more_training_one_looks_again(lab: Lab) -> None:
    notebook, face = shown(lab, FITTED, "mlp")
    expect(face).to_contain_text("Seen on 256 rows of train of digits, after step 30 of training")
    press(face, "Gradient flow")
    expect(face.locator(".wb-flow tbody tr")).to_have_count(3)
    expect(face).to_contain_text("rows of step 30 of training 'short'")
    face.get_by_text("Every parameter").click()
    expect(face.get_by_role("row", name=re.compile(r"^layers\.4\.bias"))).to_be_visible()
    notebook.evaluate("training.extend(steps=20).wait().state")
    press(face, "Look again")
    expect(face).to_contain_text("rows of step 50 of training 'short'")
    assert notebook.evaluate("view.shown['is_stale']") is False
    press(face, "Layers")
    expect(face.locator("h3")).to_contain_text("layers.0")


def test_a_net_that_convolves_in_both_themes_and_after_a_reload(lab: Lab) -> None:
    notebook, face = shown(lab, CONVOLVES, "lenet")
    expect(face.get_by_alt_text("channel 5")).to_be_visible()
    press(face, "relu after fc1")
    expect(face.locator("h3")).to_contain_text("relu after fc1")
    lab.check_accessibility(face)
    press(face, "conv2")
    expect(face.get_by_alt_text("filter 15")).to_be_visible()
    lab.check_accessibility(face)
    press(face, "Gradient flow")
    expect(face.locator(".wb-flow tbody tr")).to_have_count(5)
    lab.check_accessibility(face)
    notebook.save()
    notebook.reload()
    face = notebook.output(1).locator(".wb-model")
    expect(face.locator(".wb-flow tbody tr")).to_have_count(5)
    press(face, "Layers")
    expect(face.locator("h3")).to_contain_text("conv2")


def test_while_it_learns_it_is_seen_between_two_steps(lab: Lab) -> None:
    cells = FITTED.replace('steps=30, name="short").wait()', 'epochs=5000, name="long")')
    notebook, face = shown(lab, cells, "mlp")
    expect(face).to_contain_text("It has learned on since.")
    before = face.locator("span", has_text="Seen on").inner_text()
    press(face, "Look again")
    expect(face.locator("span", has_text="Seen on")).not_to_have_text(before)
    press(face, "layers.2")
    expect(face.locator("h3")).to_contain_text("layers.2")
    assert notebook.evaluate("training.state") == "running"
    notebook.evaluate("training.stop()")


def test_after_a_restart_the_cells_show_it_again(lab: Lab) -> None:
    notebook, _ = shown(lab, CONVOLVES, "lenet")
    notebook.restart()
    notebook.run(0, seconds=120)
    notebook.run(1, seconds=120)
    face = notebook.output(1).locator(".wb-model")
    press(face, "fc3")
    expect(face.locator("h3")).to_contain_text("fc3")
    (output,) = notebook.save().cells[1].outputs
    assert output.data["text/plain"].startswith("Model lenet: 61,411 parameters")
    assert "image/png" in output.data
