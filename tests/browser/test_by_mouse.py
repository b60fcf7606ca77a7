"""All of it by the mouse alone, from the start page on, as `make lab` opens it."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs import opened_lab
from playwright.sync_api import Browser, Locator, Page, expect
from waiting import end_background, once

import workbench as wb

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
LONG = 120_000  # milliseconds, for what trains


@pytest.fixture
def page(browser: Browser, tmp_path: Path) -> Iterator[Page]:
    """The start page of a folder with a lesson and the gallery."""
    folder = tmp_path / "course"
    folder.mkdir()
    for name in ("README.md", "01_linear_regression.ipynb", "gallery.ipynb"):
        shutil.copy(NOTEBOOKS / name, folder)
    shutil.copytree(NOTEBOOKS / "pictures", folder / "pictures")
    with opened_lab(folder, tmp_path / "settings") as lab:
        with browser.new_context(viewport={"width": 1280, "height": 1100}) as context:
            opened = context.new_page()
            opened.goto(f"{lab.url}lab/tree/workbench.ipynb?token={lab.token}")
            yield opened
        end_background(folder)


def face(page: Page, name: str, which: int = 0) -> Locator:
    """Return a view of the notebook in front, once it is in sight."""
    found = page.locator(f".wb-{name}:visible").nth(which)
    found.scroll_into_view_if_needed(timeout=LONG)
    return found


def press(part: Locator, name: str) -> None:
    part.get_by_role("button", name=name, exact=True).click()


def open_the_gallery(page: Page) -> None:
    page.locator(".wb-home").get_by_role("link", name="Gallery").click()
    expect(page.get_by_role("heading", name="Gallery")).to_be_visible()
    page.get_by_role("menuitem", name="Run", exact=True).click()
    page.get_by_role("menuitem", name="Run All Cells", exact=True).click()
    expect(page.locator(".wb-runs")).to_have_count(1, timeout=LONG)


def run_with_parameters(page: Page) -> None:
    form = face(page, "form")
    form.get_by_label("n_steps", exact=True).fill("200")
    form.get_by_label("scale", exact=True).fill("0.02")
    press(form, "Run")
    expect(form.locator(".wb-work .wb-state").first).to_have_text("running", timeout=LONG)
    expect(form.locator(".wb-work .wb-state").first).to_have_text("done", timeout=LONG)
    run = wb.list_runs()["last"]
    assert (run.parameters["n_steps"], run.parameters["scale"]) == (200, 0.02)


def rewind_branch_and_stop(page: Page) -> None:
    training = face(page, "training")
    rewind = training.get_by_role("group", name="Rewind", exact=True)
    before = len(wb.list_trainings())
    rewind.get_by_label("Step to go back to").click()  # its middle
    press(rewind, "Branch from here")
    expect(training.locator(".wb-state")).to_have_text(["done", "done"], timeout=LONG)
    assert len(wb.list_trainings()) == before + 1
    row = training.locator(".wb-row").first
    row.get_by_label("Extend by epochs").fill("1000")
    press(row, "Extend")
    expect(row.locator(".wb-state")).to_have_text("running")
    press(row, "Stop")
    expect(row.locator(".wb-state")).to_have_text("stopped")


def open_a_mistake(page: Page) -> None:
    evaluation = face(page, "evaluation")
    press(evaluation, "Mistakes")
    evaluation.locator("img").first.click()
    expect(evaluation.get_by_text("loss").first).to_be_visible()


def draw(page: Page, which: int) -> None:
    """Draw a one, from top to bottom."""
    trial = face(page, "try", which)
    canvas = trial.locator("canvas").first
    canvas.scroll_into_view_if_needed()
    box = canvas.bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.2 * box["height"])
    page.mouse.down()
    for part in range(3, 9):
        page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 0.1 * part * box["height"])
    page.mouse.up()
    expect(trial.get_by_text("a drawing")).to_be_visible()


def see_traffic_and_promote(page: Page) -> None:
    service = face(page, "service")
    rows = service.locator(".wb-requests tbody tr")
    expect(rows).not_to_have_count(0)
    before = rows.count()
    draw(page, 2)  # what is asked over HTTP
    service = face(page, "service")
    once(lambda: rows.count() > before)
    service.get_by_label("Version").select_option(label=_option(service, "gallery-digits@2"))
    press(service, "Swap in")
    expect(service.get_by_text("answers with gallery-digits@2")).to_be_visible()
    service.get_by_label("Why").fill("better by mouse")
    press(service, "Promote")
    once(lambda: wb.version("gallery-digits@2").aliases == ("champion",))


def _option(service: Locator, ref: str) -> str:
    return next(
        text for text in service.locator("option").all_inner_texts() if text.startswith(ref)
    )


def stop_it_and_serve_the_champion_from_home(page: Page) -> None:
    service = face(page, "service")
    press(service, "Drain and stop")
    press(service, "Stop it")
    expect(service.locator(".wb-state").first).to_have_text("stopped", timeout=LONG)
    page.get_by_role("tab", name="workbench.ipynb").click()
    home = face(page, "home")
    press(home, "Serve gallery-digits")
    expect(home.locator(".wb-service .wb-state").first).to_have_text("running", timeout=LONG)
    expect(home.get_by_text("answers with gallery-digits@2")).to_be_visible()


def test_a_person_does_it_all_by_mouse(page: Page, tmp_path: Path) -> None:
    for deed in (
        open_the_gallery,
        run_with_parameters,
        rewind_branch_and_stop,
        open_a_mistake,
        see_traffic_and_promote,
        stop_it_and_serve_the_champion_from_home,
    ):
        deed(page)
        page.screenshot(path=tmp_path / f"{deed.__name__}.png")
