"""The view to try a model in, in JupyterLab: draw, drop, move, by mouse and by keyboard."""

from __future__ import annotations

import base64
import time

import pytest
from playwright.sync_api import Locator, expect
from test_try_view import DIGITS, png, strokes

from browser.lab import Lab, LabNotebook

DIGITS_CELLS = """
# %%
import workbench as wb
data = wb.load("digits")
model = wb.build("mlp", data, hidden=(64,), seed=0)
wb.fit(model, data, epochs=20).wait()
# %%
view = wb.widgets.try_it(model)
view
"""
PATIENTS_CELLS = """
# %%
import workbench as wb
data = wb.load("diabetes")
model = wb.build("linear", data, seed=0)
wb.fit(model, data, epochs=2).wait()
service = wb.serve(model, name="sick")
# %%
view = wb.widgets.try_it(service)
view
"""
DROP = """(place, data) => {
    const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], "a.png", { type: "image/png" }));
    const event = new DragEvent("drop", { dataTransfer: files, bubbles: true, cancelable: true });
    place.dispatchEvent(event);
}"""


def opened(lab: Lab, cells: str) -> tuple[LabNotebook, Locator]:
    notebook = lab.open(cells)
    notebook.run_all()
    face = notebook.output(1).locator(".wb-try")
    expect(face.locator(".wb-answer p").first).not_to_have_text("")
    return notebook, face


def draw(notebook: LabNotebook, canvas: Locator, digit: str) -> None:
    """Draw a digit with the mouse, in sixty small moves."""
    canvas.scroll_into_view_if_needed()
    box, mouse = canvas.bounding_box(), notebook.page.mouse
    assert box is not None
    first, *rest = [(box["x"] + x, box["y"] + y) for x, y in DIGITS[digit]]
    mouse.move(*first)
    mouse.down()
    for place in rest:
        mouse.move(*place, steps=60 // len(rest))
    mouse.up()


def test_digits_are_drawn_with_the_mouse(lab: Lab) -> None:
    notebook, face = opened(lab, DIGITS_CELLS)
    label, canvas = face.locator(".wb-label"), face.locator("canvas")
    started, asked = time.monotonic(), notebook.evaluate("sum(view.answered.values())")
    for digit in "742":  # the first over an example that nobody has chosen
        draw(notebook, canvas, digit)
        expect(label).to_have_text(digit)
        assert notebook.evaluate("[view.shown['answer']['label'], view.shown['origin']]") == [
            digit,
            "a drawing",
        ]
        if digit != "2":
            face.get_by_role("button", name="Clear").click()
            expect(label).to_be_hidden()  # with all that was said
    asks = notebook.evaluate("sum(view.answered.values())") - asked
    assert 3 <= asks <= 7 * (time.monotonic() - started) + 1
    best = face.locator(".wb-best .wb-of")
    expect(best).to_have_text("2")
    face.get_by_label("scale and centre").uncheck()
    expect(face.locator(".wb-seen img")).not_to_have_attribute("src", "")
    notebook.save()
    notebook.reload()
    face = notebook.output(1).locator(".wb-try")
    expect(face.locator(".wb-seen p")).to_have_text("a drawing")
    face.get_by_role("button", name="Example 4").click()
    expect(face.locator(".wb-seen p")).to_have_text("example 4")


def test_a_digit_is_drawn_by_keyboard(lab: Lab) -> None:
    notebook, face = opened(lab, DIGITS_CELLS)
    canvas = face.locator("canvas")
    canvas.press("Space")
    expect(face.locator(".wb-nib")).to_be_visible()
    for key in ["ArrowDown"] * 10:
        canvas.press(key)
    expect(face.locator(".wb-label")).to_have_text("1")  # a straight line downwards
    canvas.press("Space")
    canvas.press("ArrowUp")
    assert notebook.evaluate("view.shown['origin']") == "a drawing"
    canvas.press("Delete")
    pixels = "canvas => [...canvas.getContext('2d').getImageData(0, 0, 280, 280).data]"
    assert set(canvas.evaluate(pixels)) == {0, 255}  # 255 alone is opaque
    assert canvas.evaluate(pixels)[0::4] == [0] * 280**2


def test_pictures_are_chosen_and_dropped(lab: Lab) -> None:
    notebook, face = opened(lab, DIGITS_CELLS)
    content = png(strokes(DIGITS["7"]).crop((40, 30, 220, 250)))
    chooser = face.locator("input[type=file]")
    chooser.set_input_files(
        {"name": "seven.png", "mimeType": "image/png", "buffer": base64.b64decode(content)}
    )
    expect(face.locator(".wb-seen p")).to_have_text("seven.png, resized from 180 × 220")
    expect(face.locator(".wb-label")).to_have_text("7")
    face.locator(".wb-drop").evaluate(DROP, png(strokes(DIGITS["0"])))
    expect(face.locator(".wb-seen p")).to_have_text("a.png, resized from 280 × 280")
    chooser.set_input_files({"name": "x.png", "mimeType": "image/png", "buffer": b"no picture"})
    expect(face.get_by_role("alert").filter(has_text="neither a PNG nor a JPEG")).to_be_visible()
    large = {"name": "large.png", "mimeType": "image/png", "buffer": bytes(7 * 2**20)}
    chooser.set_input_files(large)  # type: ignore[arg-type]
    expect(face.get_by_role("alert").filter(has_text="large.png has 7.0 MiB")).to_be_visible()
    assert notebook.evaluate("view.shown['origin']") == "a.png, resized from 280 × 280"


def test_numbers_are_moved_by_keyboard(lab: Lab) -> None:
    notebook, face = opened(lab, PATIENTS_CELLS)
    field, slider = face.get_by_label("bmi", exact=True), face.get_by_label("bmi, slider")
    before = face.locator(".wb-label").inner_text()
    slider.press("End")
    expect(field).to_have_value(slider.evaluate("slider => slider.max"))
    expect(face.locator(".wb-label")).not_to_have_text(before)
    before = face.locator(".wb-label").inner_text()
    field.fill("25")
    field.press("Tab")
    expect(slider).to_have_js_property("value", "25")
    expect(face.locator(".wb-label")).not_to_have_text(before)
    said = "[float(service.predict([view.shown['values']]).output), view.shown['values'][2]]"
    value, bmi = notebook.evaluate(said)
    assert bmi == 25
    assert float(face.locator(".wb-label").inner_text()) == pytest.approx(value, rel=1e-4)
    field.fill("")
    expect(face.get_by_role("alert")).to_have_text("bmi has no value: give it a number")
    face.get_by_role("button", name="Example 1").click()
    expect(field).not_to_have_value("")
    lab.check_accessibility(face)
    notebook.evaluate("service.stop()")
    slider.press("Home")
    expect(face.get_by_role("alert")).to_contain_text("does not answer")


def test_images_are_accessible_in_both_themes(lab: Lab) -> None:
    notebook, face = opened(lab, DIGITS_CELLS)
    lab.check_accessibility(face)
    notebook.restart()
    notebook.run_all()
    expect(notebook.output(1).locator(".wb-try .wb-label")).to_have_text("0")
