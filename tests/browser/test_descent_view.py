"""The gradient-descent playground in JupyterLab: mouse, keyboard, reload, and the right numbers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Locator, expect
from test_descent_view import torch_path

from browser.lab import Lab, LabNotebook
from workbench.widgets.descent_paths import METHODS, paths, surfaces

SHOW = "# %%\nimport workbench as wb\nview = wb.widgets.descent()\nview"


def shown(lab: Lab) -> tuple[LabNotebook, Locator]:
    notebook = lab.open(SHOW)
    notebook.run(0)
    face = notebook.output(0).locator(".wb-descent")
    expect(face.locator("tbody tr")).to_have_count(4)
    return notebook, face


def settings(notebook: LabNotebook, known: Callable[[Any], bool]) -> Any:
    """Return what the kernel has been told, as soon as it is that."""
    for _ in range(100):
        told = notebook.evaluate("{**view.shown['settings'], 'reached': view.shown['reached']}")
        if known(told):
            return told
        notebook.page.wait_for_timeout(100)
    raise AssertionError(f"the kernel has never been told so: {told}")


def step_of(face: Locator) -> int:
    said = re.match(r"step ([\d,]+) of", face.locator(".wb-descent-step").inner_text())
    assert said
    return int(said[1].replace(",", ""))


def test_the_page_computes_what_numpy_and_torch_compute(lab: Lab) -> None:
    notebook, face = shown(lab)
    how: Any = {"rate": 0.02, "batch": 3, "steps": 150}
    for name, surface in surfaces().items():
        for uphill in (False, True):
            face.get_by_role("combobox", name="Surface").select_option(name)
            face.get_by_label("Sign error").set_checked(uphill)
            settings(notebook, lambda told: (told["surface"], told["uphill"]) == (name, uphill))  # noqa: B023
            notebook.evaluate("view.do('keep', rate=0.02, batch=3, step=149)")
            expect(face.locator(".wb-descent-step")).to_have_text("step 149 of 1,000")
            face.get_by_role("button", name="Step").click()
            told = settings(notebook, lambda told: told["step"] == 150 and bool(told["reached"]))
            found = paths(surface, tuple(told["start"]), **how, uphill=uphill)
            for method in METHODS:
                *theta, loss = told["reached"][method]
                assert np.allclose(theta, found[method][-1], rtol=1e-6, atol=1e-9)
                assert loss == pytest.approx(surface.loss(found[method][-1]), rel=1e-6)
                own = torch_path(surface, method, surface.start, **how)
                assert uphill or np.allclose(theta, own[-1], rtol=1e-6, atol=1e-9)


def test_it_plays_pauses_and_is_found_again_after_a_reload(lab: Lab) -> None:
    notebook, face = shown(lab)
    face.get_by_role("button", name="Play").click()
    face.get_by_role("button", name="Pause").wait_for()
    notebook.page.wait_for_function("""() => {
        const step = document.querySelector(".wb-descent-step").textContent;
        return Number(step.split(" ")[1]) >= 20;
    }""")
    face.get_by_role("button", name="Pause").click()
    told = settings(notebook, lambda told: told["step"] >= 20)
    expect(face.locator(".wb-descent-step")).to_have_text(f"step {told['step']} of 1,000")
    rows = face.locator("tbody").inner_text()
    notebook.save()
    notebook.reload()
    face = notebook.output(0).locator(".wb-descent")
    expect(face.locator(".wb-descent-step")).to_have_text(f"step {told['step']} of 1,000")
    assert face.locator("tbody").inner_text() == rows
    face.get_by_role("button", name="Reset").click()
    settings(notebook, lambda told: told["step"] == 0)


def test_the_start_is_dragged_and_moved_by_the_keyboard(lab: Lab) -> None:
    notebook, face = shown(lab)
    box = face.locator(".wb-descent-view").bounding_box()
    handle = face.get_by_role("slider", name="Start")
    at = handle.bounding_box()
    assert box
    assert at
    mouse = notebook.page.mouse
    mouse.move(at["x"] + 8, at["y"] + 8)
    mouse.down()
    mouse.move(box["x"] + 38 + (box["width"] - 46) / 2, box["y"] + 8 + (box["height"] - 40) / 2)
    mouse.up()  # in the middle of the picture
    told = settings(notebook, lambda told: told["start"] != [-1.4, 2.6])
    assert told["start"] == pytest.approx([1, 1], abs=0.02)
    expect(handle).to_be_focused()
    handle.press("ArrowRight")
    handle.press("Shift+ArrowDown")
    moved = settings(notebook, lambda now: now["start"] != told["start"] and now["start"][1] < 0.9)
    assert np.subtract(moved["start"], told["start"]).round(3).tolist() == [0.06, -0.4]
    expect(handle).to_have_attribute("aria-valuetext", re.compile(r"θ₀ = 1\.0\d, θ₁ = 0\.[56]"))


def test_what_diverges_says_why(lab: Lab) -> None:
    notebook, face = shown(lab)
    face.get_by_role("combobox", name="Surface").select_option("five points of y = x")
    face.get_by_label("Learning rate").fill("-1")  # its power of ten
    expect(face.locator(".wb-note")).to_contain_text("above 2/λmax = 0.0845: it does")
    face.get_by_label("Batch size").fill("4")
    settings(notebook, lambda told: (told["rate"], told["batch"]) == (0.1, 4))
    notebook.evaluate("view.do('keep', step=300)")
    rows = face.locator("tbody tr")
    expect(rows.nth(0)).to_contain_text("α above 2/λmax = 0.0845")
    expect(rows.nth(1)).to_contain_text("α above 2/λmax = 0.0694 of the steepest batch")
    expect(rows.nth(3)).not_to_contain_text("diverged")
    face.get_by_label("Sign error").check()
    expect(rows.nth(0)).to_contain_text("diverged at step 5: the sign is wrong")
    expect(rows.nth(3)).to_contain_text("climbs: the sign is wrong")


def test_where_moving_pictures_are_not_wanted_it_leaps(lab: Lab) -> None:
    notebook, face = shown(lab)
    notebook.page.emulate_media(reduced_motion="reduce")
    face.get_by_role("button", name="Play").click()
    notebook.page.wait_for_function("""() => {
        const step = document.querySelector(".wb-descent-step").textContent.split(" ")[1];
        (window.seen ??= new Set()).add(step);
        return Number(step) >= 40;
    }""")
    assert len(notebook.page.evaluate("[...window.seen]")) <= 4  # 0, 15, 30, 45


def test_it_is_accessible_in_both_themes(lab: Lab) -> None:
    _, face = shown(lab)
    face.get_by_role("button", name="Step").click()
    seen = face.get_by_role("img").first
    expect(seen).to_have_attribute("aria-label", re.compile("step 1: .*Adam"))
    lab.check_accessibility(face)
