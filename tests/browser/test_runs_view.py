"""The table of runs in JupyterLab: every control; live; reload and restart; both themes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from jobsites import long_notebook, tiny_notebook
from playwright.sync_api import Locator, expect
from test_runs_records import write
from test_runs_view import FIT
from writing import write_notebook

from browser.lab import Lab, LabNotebook
from workbench.home import home
from workbench.runs import execute
from workbench.runs.background import execute_later

SHOW = "# %%\nfrom workbench import widgets\nview = widgets.runs()\nview"


@pytest.fixture
def _many() -> None:
    """Write records of 45 runs of two notebooks."""
    for n in range(45):
        name = f"20260101-0000{n:02d}-{'ab'[n % 2]}-{n:04x}"
        parameters = {"lr": 10.0 ** -(n % 5), "opt": ["adam", "sgd"][n % 3 == 0]}
        state = "done" if n % 4 else "failed"
        metrics = {"accuracy": n / 45}
        write(name, parameters=parameters, metrics=metrics, state=state, error=None, cells=[])


def shown(lab: Lab) -> tuple[LabNotebook, Locator]:
    notebook = lab.open(SHOW)
    notebook.run(0)
    face = notebook.output(0).locator(".wb-runs")
    expect(face.locator(".wb-title")).to_have_text("Runs")
    return notebook, face


def button(face: Locator, name: str) -> Locator:
    return face.get_by_role("button", name=name, exact=True)


def ids(face: Locator) -> Locator:
    return face.locator(".wb-found tbody th")


@pytest.mark.usefixtures("_many")
def test_runs_are_found_sorted_and_turned_over(lab: Lab) -> None:
    notebook, face = shown(lab)
    expect(ids(face)).to_have_count(20)
    told = face.get_by_role("status").first
    told.evaluate("element => (element.isSame = true)")
    button(face, "Last").press("Enter")
    expect(ids(face)).to_have_count(5)
    expect(face.locator(":focus")).to_be_enabled()  # another one, since there is no next page
    button(face, "Sort by accuracy").press("Enter")
    expect(ids(face).first).to_have_text("002c")
    button(face, "Sort by accuracy").press("Enter")  # the keyboard stays on it
    expect(ids(face).first).to_have_text("0000")
    face.get_by_role("combobox", name="Notebook").select_option("b")
    face.get_by_role("combobox", name="State").select_option("failed")
    expect(face.get_by_text("No run is like that.")).to_be_visible()
    face.get_by_role("combobox", name="State").select_option("done")
    face.get_by_label("Where").fill("accuracy>=0.5, opt=sgd")
    face.get_by_label("Where").press("Enter")
    expect(told).to_have_text("3 found of 45")
    assert told.evaluate("element => element.isSame")  # so what has not changed is not said again
    face.get_by_label("Where").fill("accuracy")
    face.get_by_label("Where").press("Enter")
    expect(face.get_by_role("alert")).to_contain_text("condition 'accuracy' is not understood")
    kept = notebook.evaluate("[view.shown['found'], view.shown['where']]")
    assert kept == [3, "accuracy>=0.5, opt=sgd"]
    face.get_by_text("Columns").click()
    face.get_by_role("checkbox", name="opt", exact=True).uncheck()
    expect(button(face, "Sort by opt")).to_have_count(0)
    expect(face.get_by_role("checkbox", name="opt", exact=True)).to_be_visible()


@pytest.mark.usefixtures("_many")
def test_some_are_selected_compared_and_narrowed_down(lab: Lab) -> None:
    notebook, face = shown(lab)
    expect(face.locator(".wb-parallels path")).to_have_count(45)
    for run in ("a-002c", "b-002b", "a-0028"):  # faster than the kernel answers
        face.get_by_role("checkbox", name=run).check()
    expect(face.locator(".wb-parallels path")).to_have_count(3)
    expect(face.get_by_text("3 selected runs; drag along an axis")).to_be_visible()
    face.get_by_role("combobox", name="Colour").select_option("lr")
    assert notebook.evaluate("view.shown['selected']") == 3
    lab.check_accessibility(face)
    button(face, "Clear selection").click()
    expect(face.locator(".wb-parallels path")).to_have_count(45)
    face.locator(".wb-brush").last.scroll_into_view_if_needed()
    axis = face.locator(".wb-brush").last.bounding_box()
    assert axis is not None
    middle, mouse = axis["x"] + axis["width"] / 2, notebook.page.mouse
    mouse.move(middle, axis["y"] + 2)
    mouse.down()
    mouse.move(middle, axis["y"] + axis["height"] / 2, steps=4)
    mouse.up()
    expect(face.get_by_label("Where")).to_have_value(re.compile(r"accuracy>=0\.(4[6-9]|5)\d*"))
    expect(face.get_by_role("status").first).to_have_text(re.compile("2[1-4] found of 45"))
    button(face, "Select page").click()
    expect(face.get_by_text("20 selected", exact=True)).to_be_visible()
    notebook.save()
    notebook.reload()
    face = notebook.output(0).locator(".wb-runs")
    expect(face.locator(".wb-parallels path")).to_have_count(20)
    lab.check_accessibility(face)


@pytest.mark.usefixtures("_many")
def test_rows_stay_where_they_are_scrolled_to_and_show_what_is_open(lab: Lab) -> None:
    notebook, face = shown(lab)
    table = face.locator(".wb-found .wb-tables")
    table.evaluate("table => { table.style.width = '320px'; table.scrollLeft = 150; }")
    face.get_by_role("checkbox", name="a-002c").check()
    expect(face.get_by_text("1 selected", exact=True)).to_be_visible()
    assert table.evaluate("table => table.scrollLeft") == 150
    opener = button(face, "Open 002b of b")
    inside = "([one, other]) => one.getBoundingClientRect().x >= other.getBoundingClientRect().x"
    assert notebook.page.evaluate(inside, [opener.element_handle(), table.element_handle()])
    opener.press("Enter")
    expect(opener).to_have_attribute("aria-pressed", "true")
    expect(face.locator(".wb-id")).to_be_in_viewport()
    lab.check_accessibility(face)


def test_new_runs_appear_are_stopped_and_resumed(lab: Lab) -> None:
    notebook, face = shown(lab)
    run = execute_later(long_notebook(lab.folder), {})  # from elsewhere
    row = face.locator(".wb-found tbody tr").first
    expect(row.locator(".wb-state")).to_have_text("running", timeout=60_000)
    button(face, f"Open {run.id[-4:]} of long").click()
    button(face, f"Stop {run.id}").click()
    expect(row.locator(".wb-state")).to_have_text("interrupted")
    expect(face.locator(".wb-note")).to_contain_text("interrupted in cell 2 of 2")
    lab.check_accessibility(face)
    notebook.restart()
    notebook.run(0)
    face = notebook.output(0).locator(".wb-runs")
    button(face, f"Open {run.id[-4:]} of long").click()
    (lab.folder / "go.txt").touch()
    button(face, f"Resume {run.id}").click()
    expect(face.locator(".wb-found .wb-state").first).to_have_text("done", timeout=60_000)


def test_curves_lie_over_each_other(lab: Lab) -> None:
    notebook = write_notebook(lab.folder / "fit.ipynb", FIT, parameters="n: int = 30")
    recorded = execute(tiny_notebook(lab.folder), {})
    runs = [execute(notebook, {"n": n}) for n in (12, 30)]
    opened, face = shown(lab)
    button(face, "Curves").click()
    loss = face.locator("canvas").first
    expect(face.locator(".wb-legend li")).to_have_text(
        [f"{r.id[-4:]} training" for r in (*runs[::-1], recorded)]
    )
    loss.press("Home")
    expect(face.locator(".wb-tip").first).to_contain_text("step 1")
    face.get_by_label("Log scale").check()
    face.get_by_label("Smoothing").fill("0")
    face.get_by_role("checkbox", name=runs[0].id).check()
    expect(face.locator(".wb-legend li")).to_have_text(["training"])
    assert opened.evaluate("view.shown['part']['selected']") == 1
    face.get_by_role("checkbox", name=runs[0].id).uncheck()
    face.get_by_role("checkbox", name=recorded.id).check()
    expect(loss).to_have_attribute("aria-label", "Loss by step: training 0.5")
    lab.check_accessibility(face)


def test_a_run_is_opened_verified_reported_and_promoted(lab: Lab) -> None:
    run = execute(tiny_notebook(lab.folder), {"epochs": 3})
    notebook, face = shown(lab)
    button(face, f"Open {run.id[-4:]} of tiny").click()
    button(face, "Verify").click()
    expect(face.get_by_role("status").filter(has_text="Being verified")).to_be_visible()
    expect(face.locator(".wb-state", has_text="identical")).to_be_visible(timeout=90_000)
    face.get_by_role("textbox", name="Alias").fill("best")
    face.get_by_role("textbox", name="Why").fill("the only one")
    button(face, "Promote").click()
    expect(face.get_by_role("status").filter(has_text="tiny@best is tiny@1")).to_be_visible()
    assert notebook.evaluate("__import__('workbench').version('tiny@best').version") == 1
    button(face, "Show report").click()
    report = face.frame_locator("iframe")
    expect(report.get_by_role("heading", name="Provenance")).to_be_visible()
    lab.check_accessibility(face)
    button(face, "Close report").press("Enter")
    expect(face.locator("iframe")).to_have_count(0)
    expect(face.locator(":focus")).to_have_count(1)
    assert Path(face.get_by_label("the text").input_value()) == home() / "runs" / run.id
    face.get_by_role("link", name="Open notebook").click()
    expect(notebook.page.get_by_text("# Parameters of this run").first).to_be_visible()
