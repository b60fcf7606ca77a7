"""The start page in JupyterLab, and `workbench lab`: its tile, its cards, what is new at once."""

from __future__ import annotations

import shutil
from pathlib import Path

from labs import opened_lab
from playwright.sync_api import Browser, Page, expect
from writing import write_notebook

from browser.lab import Lab

HIDDEN = """
# %%
import os
import workbench as wb
os.environ["WORKBENCH_HOME"] = os.path.abspath(".home")  # which Jupyter does not serve
wb.widgets.home()
"""
LESSONS = Path(__file__).parents[2] / "notebooks"
SHOW = """
# %%
import workbench as wb
view = wb.widgets.home()
view
# %%
import torch
data = wb.dataset("points", train=(torch.randn(12, 4), torch.arange(12) % 3))
model = wb.build("linear", data, seed=0)
wb.fit(model, data, steps=1).wait()
wb.promote(wb.publish(model, "net").ref, "champion")
service = wb.serve("net@champion")
"""


def test_what_is_published_and_served_is_there_soon(lab: Lab) -> None:
    shutil.copy(LESSONS / "README.md", lab.folder)
    shutil.copytree(LESSONS / "pictures", lab.folder / "pictures")
    shutil.copy(LESSONS / "01_linear_regression.ipynb", lab.folder)
    notebook = lab.open(SHOW)
    notebook.run(0)
    face = notebook.output(0).locator(".wb-home")
    card = face.get_by_role("listitem").filter(has_text="1 · Linear regression")
    expect(card).to_contain_text("½ min")
    expect(card.get_by_role("img")).to_be_visible()
    expect(face.get_by_role("region", name="Models")).to_contain_text("Nothing was published yet")
    notebook.run(1)
    expect(face.get_by_role("region", name="Models").get_by_role("row").last).to_contain_text("@1")
    address = face.get_by_role("region", name="Services").get_by_role("link")
    expect(address).to_have_attribute("href", notebook.evaluate("service.url"))
    lab.check_accessibility(face)
    notebook.save()
    notebook.reload()
    face = notebook.output(0).locator(".wb-home")
    expect(face.get_by_role("region", name="Models").get_by_role("row").last).to_contain_text("@1")
    notebook.evaluate("service.stop()")
    expect(face.get_by_role("region", name="Services")).to_contain_text("No service runs")
    face.get_by_role("link", name="1 · Linear regression").press("Enter")
    opened = notebook.page.get_by_role("tab", name="01_linear_regression.ipynb")
    expect(opened).to_have_attribute("aria-selected", "true")


def test_a_model_is_served_by_a_click_and_watched(lab: Lab) -> None:
    notebook = lab.open(SHOW.replace('service = wb.serve("net@champion")', ""))
    notebook.run(0)
    notebook.run(1)
    face = notebook.output(0).locator(".wb-home")
    face.get_by_role("button", name="Serve net").click()
    panel = face.locator(".wb-service")
    expect(panel.locator(".wb-state")).to_have_text("running")
    asked = "wb.connect(s.url, s.token).predict(torch.zeros(3, 4)).labels"
    notebook.evaluate(
        "globals().update(s=__import__('workbench.serving').serving.list_services()[0])"
    )
    assert len(notebook.evaluate(asked)) == 3
    expect(panel.locator(".wb-requests tbody tr")).to_have_count(1)
    face.get_by_role("button", name="Close the panel").click()
    expect(panel).to_have_count(0)
    face.get_by_role("button", name="Watch net").press("Enter")
    expect(panel.locator(".wb-state")).to_have_text("running")
    lab.check_accessibility(face)


def test_a_notebook_is_set_up_run_and_opened_from_home(lab: Lab) -> None:
    write_notebook(lab.folder / "tiny.ipynb", "import workbench as wb\nwb.record('twice', 2 * n)",
                   parameters="n: int = 3  # 1 <= n <= 9")  # fmt: skip
    notebook = lab.open(HIDDEN)
    notebook.run(0)
    face = notebook.output(0).locator(".wb-home")
    face.get_by_role("button", name="Run tiny").click()
    form = face.locator(".wb-form")
    form.get_by_label("n", exact=True).fill("5")
    form.get_by_role("button", name="Run", exact=True).dblclick()
    expect(form.locator(".wb-work")).to_have_count(1)
    expect(form.locator(".wb-work .wb-state")).to_have_text("done", timeout=60_000)
    recent = face.get_by_role("region", name="Recent runs")
    expect(recent).to_contain_text("twice 10")
    recent.get_by_role("button", name="Open run").click()
    expect(form).to_have_count(0)
    runs = face.locator(".wb-runs")
    expect(runs.get_by_role("button", name="Verify")).to_be_visible()
    lab.check_accessibility(face)
    name = notebook.evaluate("wb.list_runs()[0].id") + ".ipynb"
    runs.get_by_role("button", name="Open a copy").click()
    selected(notebook.page, name)
    assert (lab.folder / "runs" / name).exists()


def test_workbench_lab_opens_home_and_has_a_tile(browser: Browser, tmp_path: Path) -> None:
    folder = tmp_path / "course"
    folder.mkdir()
    shutil.copy(LESSONS / "README.md", folder)
    shutil.copy(LESSONS / "02_binary_classifier.ipynb", folder)
    with opened_lab(folder, tmp_path) as lab, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{lab.url}lab/tree/workbench.ipynb?token={lab.token}")
        expect(page.locator(".wb-home")).to_be_visible(timeout=60_000)  # its cell ran by itself
        assert page.evaluate("window.jupyterapp") is None  # a plain JupyterLab
        page.get_by_role("link", name="2 · A binary classifier").click()
        selected(page, "02_binary_classifier.ipynb")
        page.get_by_role("tab", name="workbench.ipynb").locator(".lm-TabBar-tabCloseIcon").click()
        page.get_by_role("button", name="Discard").click(timeout=5_000)
        page.keyboard.press("Control+Shift+L")
        page.locator(".jp-LauncherCard", has_text="Home").click()
        selected(page, "workbench.ipynb")
        expect(page.locator(".wb-home")).to_be_visible()
        write_notebook(folder / "workbench.ipynb", "# Theirs", "open('ran.txt', 'w').close()")
        page.reload()
        expect(page.locator(".jp-Notebook:visible h1")).to_contain_text("Theirs")
        idle = page.locator(".jp-Notebook-ExecutionIndicator:visible[data-status=idle]")
        expect(idle).to_have_count(1)  # by then ours would have been run
        assert not (folder / "ran.txt").exists()


def selected(page: Page, name: str) -> None:
    tab = page.get_by_role("tab", name=name)
    expect(tab).to_have_attribute("aria-selected", "true")
