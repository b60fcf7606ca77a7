"""The gallery in Jupyter: every view by one click, accessible, of bounded size and chatter."""

from __future__ import annotations

import re
import shutil
import time
from pathlib import Path

import pytest
from playwright.sync_api import Locator, expect

from browser.lab import Lab, LabNotebook

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
FACES = ("dataset", "training", "model", "evaluation", "try", "descent", "service", "form", "runs",
         "home")  # fmt: skip


def gallery(lab: Lab, *, alone: bool = False) -> LabNotebook:
    """Open the gallery beside the notebook that its form is of, and run it."""
    shutil.copy(NOTEBOOKS / "01_linear_regression.ipynb", lab.folder)
    notebook = lab.open(NOTEBOOKS / "gallery.ipynb", name="gallery", alone=alone)
    notebook.run_all()
    return notebook


def faces_of(notebook: LabNotebook) -> list[Locator]:
    """Return all views, each of which was seen and had nothing to complain of."""
    faces = [face for name in FACES for face in notebook.page.locator(f".wb-{name}").all()]
    for face in faces:
        face.scroll_into_view_if_needed()
        expect(face).to_be_visible()
        expect(face.locator(".wb-problem:not(:empty)")).to_have_count(0)
    assert len(faces) >= len(FACES)
    return faces


def test_every_view_is_accessible_saved_small_and_shown_again(lab: Lab) -> None:
    notebook = gallery(lab)
    lab.check_accessibility(*faces_of(notebook))
    notebook.save()
    assert notebook.path.stat().st_size < 1_000_000
    notebook.reload()
    face = notebook.page.locator(".wb-dataset").first
    face.get_by_role("button", name="Balance").click()
    expect(face.locator("tbody tr")).to_have_count(10)
    notebook.restart()
    notebook.run_all()
    for name in FACES:
        face = notebook.page.locator(f".wb-{name}").first
        face.scroll_into_view_if_needed()
        expect(face.locator("button:enabled").first).to_be_visible()


@pytest.mark.matrix
def test_notebook_7_shows_every_view_and_opens_notebooks_as_pages(lab: Lab) -> None:
    notebook = gallery(lab, alone=True)
    page = notebook.page
    lab.check_accessibility(*faces_of(notebook))
    notebook.save()
    page.reload()
    face = page.locator(".wb-dataset").first
    face.get_by_role("button", name="Balance").click()
    expect(face.locator("tbody tr")).to_have_count(10)
    with page.expect_popup() as opened:
        page.locator(".wb-home-card").first.click()
    expect(opened.value).to_have_url(re.compile(r"/notebooks/.*01_linear_regression\.ipynb"))


def test_sixty_asks_a_second_are_at_most_ten_messages(lab: Lab) -> None:
    """One message says both what is to be seen and that it was asked."""
    notebook = lab.open("# %%\nimport workbench as wb\nview = wb.load('digits').show()\nview")
    notebook.run(0)
    face = notebook.output(0).locator(".wb-dataset")
    since = time.monotonic()
    before = notebook.messages().get("comm_msg", 0)
    face.get_by_label("Search").evaluate("""async (field) => {
        for (let i = 0; i < 120; i += 1) {
            field.value = String(i);
            field.dispatchEvent(new Event("change"));
            await new Promise((next) => setTimeout(next, 1000 / 60));
        }
    }""")
    expect(face.get_by_alt_text("row 119:")).to_have_count(1)  # the last one is never lost
    told = notebook.messages()["comm_msg"] - before
    assert 2 <= told <= 10 * (time.monotonic() - since)


def test_an_ask_that_gets_lost_is_asked_again(lab: Lab) -> None:
    notebook = lab.open("# %%\nimport workbench as wb\nview = wb.load('digits').show()\nview")
    notebook.run(0)
    face = notebook.output(0).locator(".wb-dataset")
    notebook.evaluate("view.on_msg(view._answer, remove=True)")
    face.get_by_role("button", name="Balance").click()
    busy = face.get_by_text("The kernel is busy with a cell, or gone")
    expect(busy).to_be_visible()
    notebook.evaluate("view.on_msg(view._answer)")
    expect(face.locator("tbody tr")).to_have_count(10)
    expect(busy).to_have_count(0)


def test_after_a_restart_a_click_says_that_the_kernel_is_gone(lab: Lab) -> None:
    notebook = lab.open(
        "# %%\nimport workbench as wb\ndata = wb.load('digits')\ndata.show()\n"
        "# %%\nmodel = wb.build('mlp', data)\nwb.fit(model, data, steps=50).wait()"
    )
    notebook.run_all()
    views = [notebook.output(i).locator(f".wb-{name}") for i, name in enumerate(FACES[:2])]
    expect(views[1].locator(".wb-state")).to_have_text("done")
    notebook.restart()
    for view, name in zip(views, ("Balance", "Weights here"), strict=True):
        view.get_by_role("button", name=name).click()
        expect(view.get_by_text("if it is gone, run the cell again")).to_be_visible()
