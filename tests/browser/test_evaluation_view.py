"""The evaluation view in JupyterLab: every control, by mouse and keyboard; reload; both themes."""

from __future__ import annotations

import re
from typing import Any

import pytest
from playwright.sync_api import Locator, expect

from browser.lab import Lab, LabNotebook

SHOW = """
# %%
import workbench as wb
data = wb.load("{name}")
def judged(seed):
    model = wb.build("linear", data, seed=seed)
    wb.fit(model, data, epochs=3, seed=seed).wait()
    return wb.evaluate(model, data.test)
evaluation, other = judged(0), judged(1)
# %%
view = evaluation.show({other})
view
"""


MANY = """
# %%
import torch
import workbench as wb
draw = torch.Generator().manual_seed(0)
targets = torch.randint({n}, ({rows},), generator=draw)
names = [f"class {{i}}" for i in range({n})]
data = wb.dataset("many", train=(torch.rand({rows}, 4, generator=draw), targets), classes=names)
chances = torch.randn({rows}, {n}, generator=draw)
chances[torch.arange({rows}), targets] += 3
evaluation = wb.evaluation.Evaluation.of(data.train, probabilities=chances.softmax(1))
# %%
view = evaluation.show()
view
"""


def shown(lab: Lab, name: str, other: str = "") -> tuple[LabNotebook, Locator]:
    notebook = lab.open(SHOW.format(name=name, other=other))
    notebook.run(0)
    notebook.run(1)
    return notebook, face_of(notebook)


def face_of(notebook: LabNotebook) -> Locator:
    face = notebook.output(1).locator(".wb-evaluation")
    expect(face.locator(".wb-title")).to_contain_text("Evaluation of")
    return face


def part(face: Locator, name: str) -> None:
    parts = face.get_by_role("group", name="Parts")
    parts.get_by_role("button", name=name, exact=True).click()


def rows(face: Locator) -> Locator:
    return face.get_by_role("button", name=re.compile(r"^row \d"))


def opened(notebook: LabNotebook) -> Any:
    """Return what the kernel says is open: its kind, of what, and how many rows."""
    return notebook.evaluate("[view.shown['open'][name] for name in ('kind', 'of', 'found')]")


def test_a_cell_opens_its_rows_by_mouse_and_keyboard(lab: Lab) -> None:
    notebook, face = shown(lab, "digits")
    counts = notebook.evaluate("evaluation.confusion.tolist()")
    face.locator("[data-cell='3 3']").click()
    expect(face.locator(".wb-some b")).to_have_text("3, rightly said: the surest first")
    assert opened(notebook) == ["cell", [3, 3], counts[3][3]]
    face.locator("[data-cell='3 3']").press("ArrowUp")
    above = face.locator("[data-cell]:focus")
    expect(above).to_have_attribute("tabindex", "0")
    i, j = map(int, str(above.get_attribute("data-cell")).split())
    assert i < 3
    above.press("Enter")  # the keyboard stays on it
    expect(face.locator(f"[data-cell='{i} {j}']")).to_be_focused()
    expect(face.locator("[data-cell][aria-pressed=true]")).to_have_attribute(
        "data-cell", f"{i} {j}"
    )
    assert opened(notebook) == ["cell", [i, j], counts[i][j]]
    above.press("Enter")
    expect(face.locator(".wb-some")).to_have_count(0)
    face.locator(".wb-confused button").first.click()
    expect(face.locator(".wb-some img").first).to_be_visible()
    i, j, n = notebook.evaluate("view.shown['pairs'][0]")
    assert opened(notebook) == ["cell", [i, j], n]
    face.get_by_role("button", name="Close rows").click()
    expect(face.locator(".wb-some")).to_have_count(0)


def test_mistakes_are_turned_over_and_looked_at(lab: Lab) -> None:
    notebook, face = shown(lab, "digits")
    part(face, "Mistakes")
    wrong = notebook.evaluate("evaluation.mistakes['row'].tolist()")
    expect(rows(face)).to_have_count(min(24, len(wrong)))
    rows(face).nth(1).click()
    expect(face.locator(".wb-one b")).to_contain_text(f"Row {wrong[1]}: ")
    expect(face.locator(".wb-one tbody tr")).to_have_count(10)
    assert notebook.evaluate("view.shown['alone']['row']") == wrong[1]
    face.get_by_role("button", name="Close row").click()
    expect(face.locator(".wb-one")).to_have_count(0)
    rows(face).first.press("Enter")
    expect(rows(face).first).to_have_attribute("aria-pressed", "true")
    expect(rows(face).first).to_be_focused()


def test_classes_are_sorted_and_bins_opened(lab: Lab) -> None:
    notebook, face = shown(lab, "digits")
    part(face, "Classes")
    face.get_by_role("button", name="sort by recall").click()
    expect(face.locator("[aria-sort=descending]")).to_have_text("recall")
    best = notebook.evaluate("evaluation.per_class['recall'].idxmax()")
    expect(face.locator("tbody th").first).to_have_text(best)
    face.get_by_role("button", name="sort by recall").press("Enter")
    expect(face.locator("[aria-sort=ascending]")).to_have_text("recall")
    expect(face.get_by_role("button", name="sort by recall")).to_be_focused()
    assert notebook.evaluate("[view.shown['by'], view.shown['falling']]") == ["recall", False]
    part(face, "Calibration")
    face.get_by_role("combobox").select_option("5")
    expect(face.locator("tbody tr")).to_have_count(5)
    face.get_by_role("button", name="0.8 – 1").click()
    expect(face.locator(".wb-some")).to_be_visible()
    n = notebook.evaluate("int(evaluation.calibration(5)['rows'][4])")
    assert opened(notebook) == ["bin", [4, 5], n]
    face.get_by_role("button", name="0.8 – 1").press("Enter")
    expect(face.locator(".wb-some")).to_have_count(0)


def test_each_class_has_its_curves(lab: Lab) -> None:
    notebook, face = shown(lab, "digits")
    part(face, "Curves")
    face.get_by_role("combobox").select_option("8")
    area = notebook.evaluate("evaluation.roc_auc('8')")
    expect(face.get_by_role("img", name="ROC curve of 8: area")).to_have_attribute(
        "aria-label", f"ROC curve of 8: area {area:.3g}"
    )
    face.get_by_role("button", name="3", exact=True).press("Enter")
    expect(face.get_by_role("img", name="ROC curve of 3")).to_be_visible()
    expect(face.get_by_role("combobox")).to_have_value("3")
    assert notebook.evaluate("view.shown['of']") == "3"


def test_of_many_classes_a_part_is_shown_and_every_one_is_found(lab: Lab) -> None:
    notebook = lab.open(MANY.format(n=120, rows=4000))
    notebook.run_all()
    face = face_of(notebook)
    expect(face.locator("figcaption")).to_contain_text(
        "The 30 of 120 classes that are confused most"
    )
    expect(face.locator(".wb-matrix tbody tr")).to_have_count(30)
    i, j, n = notebook.evaluate("view.shown['pairs'][0]")
    face.locator(f"[data-cell='{i} {j}']").click()
    assert opened(notebook) == ["cell", [i, j], n]
    face.locator(f"[data-cell='{i} {j}']").press("ArrowLeft")
    expect(face.locator("[data-cell]:focus")).to_have_attribute("data-cell", re.compile(f"^{i} "))
    lab.check_accessibility(face)
    part(face, "Classes")
    expect(face.locator("caption")).to_have_text("Scores of each class · page 1 of 2 · 120 classes")
    face.get_by_role("button", name="Next").press("Enter")
    expect(face.locator("tbody th").last).to_have_text("class 119")
    part(face, "Curves")
    face.get_by_role("combobox").select_option("class 77")
    area = notebook.evaluate("evaluation.roc_auc('class 77')")
    expect(face.get_by_role("img", name=f"ROC curve of class 77: area {area:.3g}")).to_be_visible()
    lab.check_accessibility(face)


def test_a_threshold_is_dragged_typed_and_taken_back(lab: Lab) -> None:
    notebook, face = shown(lab, "breast_cancer")
    part(face, "Curves")
    slider = face.get_by_role("slider")
    box = slider.bounding_box()
    assert box is not None
    mouse, middle = notebook.page.mouse, box["y"] + box["height"] / 2
    before = notebook.messages().get("comm_msg", 0)
    mouse.move(box["x"] + box["width"] / 2, middle)
    mouse.down()
    for step in range(60):
        mouse.move(box["x"] + box["width"] * (0.5 + step / 150), middle)
        notebook.page.wait_for_timeout(16)  # a second of it
    mouse.up()
    expect(slider).not_to_have_value("0.5")
    value = float(slider.input_value())
    expect(face.get_by_text("is said where")).to_contain_text(f"above {value:g}")
    assert notebook.messages().get("comm_msg", 0) - before <= 25  # ten a second, and some to spare
    assert notebook.evaluate("view.evaluation.threshold") == value
    slider.press("ArrowLeft")
    expect(face.get_by_text("is said where")).to_contain_text(f"above {value - 0.005:.3g}")
    face.get_by_label("exactly").fill("0.61")
    face.get_by_label("exactly").press("Enter")
    expect(face.get_by_text("is said where")).to_contain_text("above 0.61")
    counts = notebook.evaluate("evaluation.at(0.61).confusion.tolist()")
    expect(face.locator("[data-cell='1 1']")).to_contain_text(str(counts[1][1]))
    scores = notebook.evaluate("evaluation.at(0.61).per_class.loc['benign'].tolist()")
    expect(face.locator(".wb-threshold p")).to_contain_text(f"recall {scores[1]:.3g}"[:10])
    face.locator("[data-cell='1 1']").click()
    expect(face.locator(".wb-some tbody tr")).to_have_count(20)
    face.get_by_role("button", name="Next").click()
    expect(face.locator(".wb-some").get_by_role("status")).to_contain_text("page 2 of")
    face.get_by_role("button", name="Decide as before").click()
    expect(face.get_by_text("is said where")).to_have_count(0)
    assert notebook.evaluate("view.evaluation is evaluation")


def test_a_dot_opens_its_row(lab: Lab) -> None:
    notebook, face = shown(lab, "diabetes")
    dot = face.get_by_role("img", name="Residuals").locator("circle").nth(17)
    dot.scroll_into_view_if_needed()
    box = dot.bounding_box()
    assert box is not None
    notebook.page.mouse.click(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(face.locator(".wb-one b")).to_be_visible()
    row = notebook.evaluate("view.shown['alone']['row']")
    place = "[view.shown['dots'][i][2] for i in (17, {})]"
    one, two = notebook.evaluate(place.format(row))
    assert one == pytest.approx(two, abs=20)  # it, or one that lies over it
    rows(face).nth(2).press("Enter")
    largest = notebook.evaluate("int(evaluation.residuals[:, 0].abs().argsort(descending=True)[2])")
    expect(face.locator(".wb-one b")).to_contain_text(f"Row {largest}: ")
    expect(face.locator("circle title", has_text=f"row {largest} is open")).to_have_count(2)


def test_two_are_compared_example_by_example(lab: Lab) -> None:
    notebook, face = shown(lab, "digits", "other")
    found = notebook.evaluate(
        "(lambda c: [repr(c), c.both_right, c.only_first, c.only_second, c.both_wrong])"
        "(evaluation.against(other))"
    )
    expect(face.locator(".wb-verdict")).to_have_text(found[0])
    groups = face.get_by_role("group", name="Groups of rows").get_by_role("button")
    for i, name in enumerate(("Both right", "Only first", "Only second", "Both wrong")):
        expect(groups.nth(i)).to_contain_text(f"{name}: {found[1 + i]} row")
    groups.nth(1).press("Enter")
    expect(face.locator(".wb-some b")).to_have_text("Only first")
    assert opened(notebook) == ["group", ["only_first"], found[2]]
    rows(face).first.click()
    expect(face.locator(".wb-one thead th")).to_have_text(["class", "p, first", "p, second"])
    lab.check_accessibility(face)


def test_every_part_in_both_themes_and_after_a_reload(lab: Lab) -> None:
    notebook, face = shown(lab, "breast_cancer")
    face.locator("[data-cell]").first.click()
    rows(face).first.click()
    expect(face.locator(".wb-one")).to_be_visible()
    lab.check_accessibility(face)
    for name in ("Mistakes", "Classes", "Calibration", "Curves"):
        part(face, name)
        expect(face.locator("button[aria-pressed=true]").first).to_have_text(name)
        lab.check_accessibility(face)
    face.get_by_label("exactly").fill("0.7")
    face.get_by_label("exactly").press("Enter")
    expect(face.get_by_text("is said where")).to_contain_text("above 0.7")
    saved = notebook.save()
    assert "image/png" in saved.cells[1].outputs[0].data
    notebook.reload()
    face = face_of(notebook)
    expect(face.get_by_label("exactly")).to_have_value("0.7")
    part(face, "Confusion")
    expect(face.locator(".wb-one")).to_have_count(0)
    expect(face.locator(".wb-some")).to_be_visible()  # what was open still is
    lab.check_accessibility(face)


def test_after_a_restart_the_cells_show_it_again(lab: Lab) -> None:
    notebook, face = shown(lab, "diabetes")
    notebook.restart()
    notebook.run(0)
    notebook.run(1)
    face = face_of(notebook)
    rows(face).first.click()
    expect(face.locator(".wb-one")).to_be_visible()
