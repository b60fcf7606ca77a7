"""The dataset browser in JupyterLab: every control, by mouse and keyboard; reload; both themes."""

from __future__ import annotations

from playwright.sync_api import Locator, expect

from browser.lab import Lab, LabNotebook

SHOW = "# %%\nimport workbench as wb\nview = wb.load('{name}').show()\nview"


def shown(lab: Lab, name: str) -> tuple[LabNotebook, Locator]:
    notebook = lab.open(SHOW.format(name=name))
    notebook.run(0)
    face = notebook.output(0).locator(".wb-dataset")
    expect(face.locator(".wb-title")).to_have_text(name)
    return notebook, face


def test_images_are_found_and_turned_over(lab: Lab) -> None:
    notebook, face = shown(lab, "digits")
    expect(face.locator("img")).to_have_count(60)
    face.get_by_role("button", name="Next").click()
    expect(face.get_by_role("status").first).to_have_text("page 2 of 24 · 1,437 rows found")
    face.get_by_role("button", name="Next").press("Enter")  # the keyboard stays on it
    expect(face.get_by_role("status").first).to_contain_text("page 3 of 24")
    expect(face.get_by_role("button", name="Next")).to_be_focused()
    face.locator(".wb-images button").first.click()
    expect(face.locator(".wb-one img")).to_be_visible()
    lab.check_accessibility(face)
    face.get_by_role("button", name="Close row").press("Enter")
    expect(face.locator(".wb-one")).to_have_count(0)
    assert face.evaluate("face => face.contains(document.activeElement)")  # the keyboard stays here
    face.get_by_label("Class").select_option("4")
    face.get_by_label("Split").select_option("test")
    expect(face.locator("li span").first).to_have_text("4")
    face.get_by_label("Search").fill("5")
    face.get_by_label("Search").press("Enter")
    expect(face.locator(".wb-part")).to_have_text("No row is like that.")
    face.get_by_label("Search").fill("hello")
    face.get_by_label("Search").press("Enter")
    expect(face.get_by_role("alert")).to_contain_text("nothing is called 'hello'")
    assert notebook.evaluate("[view.shown['split'], view.shown['of']]") == ["test", "4"]


def test_augmentation_and_statistics_of_images(lab: Lab) -> None:
    notebook, face = shown(lab, "digits")
    face.get_by_role("button", name="Balance").click()
    expect(face.locator("tbody tr")).to_have_count(10)
    face.get_by_role("button", name="Statistics").click()
    expect(face.get_by_alt_text("mean of 7")).to_be_visible()
    face.get_by_role("button", name="Augmentation").click()
    face.get_by_label("cutout").check()
    expect(face.locator("code")).to_have_text('wb.fit(model, data, augment=("cutout", "mirror"))')
    assert notebook.evaluate("view.shown['augment']") == ["cutout", "mirror"]


def test_a_column_of_very_many_is_called_by_its_name(lab: Lab) -> None:
    notebook = lab.open(
        "# %%\nimport torch\nimport workbench as wb\nrows = torch.rand(20, 300)\n"
        "view = wb.dataset('many', train=(rows, torch.arange(20) % 2)).show()\nview"
    )
    notebook.run(0)
    face = notebook.output(0).locator(".wb-dataset")
    face.get_by_role("button", name="Statistics").click()
    expect(face.locator("caption")).to_have_text("The first 100 of 300 columns")
    face.get_by_role("searchbox", name="Column").fill("x222")
    face.get_by_role("searchbox", name="Column").press("Enter")
    expect(face.locator("figcaption").first).to_contain_text("Values of x222")
    lab.check_accessibility(face)


def test_a_table_in_both_themes_and_after_a_reload(lab: Lab) -> None:
    notebook, face = shown(lab, "breast_cancer")
    face.get_by_role("button", name="Statistics").click()
    face.get_by_role("button", name="mean texture").click()
    expect(face.locator("figcaption")).to_contain_text(["Values of mean texture, malignant"])
    lab.check_accessibility(face)
    notebook.save()
    notebook.reload()
    face = notebook.output(0).locator(".wb-dataset")
    expect(face.locator("figcaption").first).to_contain_text("Values of mean texture")
    face.get_by_role("button", name="Rows").click()
    expect(face.locator("tbody tr")).to_have_count(20)
    lab.check_accessibility(face)


def test_after_a_restart_the_cell_shows_it_again(lab: Lab) -> None:
    notebook, face = shown(lab, "diabetes")
    notebook.restart()
    notebook.run(0)
    face = notebook.output(0).locator(".wb-dataset")
    face.get_by_role("button", name="Balance").click()
    expect(face.locator("svg")).to_have_count(2)


def test_two_outputs_of_one_view_are_both_heard(lab: Lab) -> None:
    notebook = lab.open(SHOW.format(name="digits") + "\n# %%\nview")
    for cell in range(2):
        notebook.run(cell)
    first, second = (notebook.output(cell).locator(".wb-dataset") for cell in range(2))
    for face in (first, second):  # the second time nothing changes
        face.get_by_role("button", name="Balance").click()
        expect(face.locator("tbody tr")).to_have_count(10)
    second.get_by_role("button", name="Rows").click()
    for face in (first, second):
        expect(face.locator("img")).to_have_count(60)
    assert notebook.evaluate("sum(view.answered.values())") == 3
