"""The form of a notebook's parameters in JupyterLab: every control, runs and sweeps for real."""

from __future__ import annotations

from typing import Any

from jobsites import long_notebook
from playwright.sync_api import Locator, expect
from test_form_view import CELL, PARAMETERS
from writing import write_notebook

from browser.lab import Lab, LabNotebook

SHOW = "# %%\nfrom workbench import widgets\nview = widgets.form('{name}.ipynb')\nview"
TEXTS = "{field['name']: field['text'] for field in view.shown['fields']}"


def shown(lab: Lab, name: str) -> tuple[LabNotebook, Locator]:
    notebook = lab.open(SHOW.format(name=name))
    notebook.run(0)
    face = notebook.output(0).locator(".wb-form")
    expect(face.locator(".wb-title")).to_have_text(f"{name}.ipynb")
    return notebook, face


def tiny(lab: Lab) -> tuple[LabNotebook, Locator]:
    write_notebook(lab.folder / "tiny.ipynb", "# Count", CELL, parameters=PARAMETERS)
    return shown(lab, "tiny")


def field(face: Locator, name: str) -> Locator:
    return face.get_by_label(name, exact=True)


def button(face: Locator, name: str) -> Locator:
    return face.get_by_role("button", name=name, exact=True)


def begun(face: Locator, state: str, which: int = 0) -> Locator:
    """Return one of the runs, the newest first, once it stands so."""
    work = face.locator(".wb-work").nth(which)
    expect(work.locator(".wb-state").first).to_have_text(state, timeout=90_000)
    return work


def test_every_control_sets_its_parameter_and_a_run_has_them(lab: Lab) -> None:
    notebook, face = tiny(lab)
    field(face, "flag").uncheck()
    field(face, "kind").select_option("sgd")
    field(face, "n, by dragging").press("ArrowRight")
    expect(field(face, "n")).to_have_value("4")
    field(face, "steps").fill("7")
    field(face, "size").select_option("large")
    field(face, "lr").fill("0.1")
    field(face, "scale").fill("0.5")
    field(face, "limit").fill("9")
    field(face, "clip").fill("2.5")
    field(face, "place").fill("elsewhere")
    field(face, "half").fill("1.5")
    field(face, "word").fill("x, y")
    field(face, "widths").fill("(1, 2)")
    field(face, "api_token").fill("tell-nobody")
    field(face, "seed").fill("3")
    expect(face.locator("code")).to_contain_text("-p half=1.5 -p seed=3")
    texts: dict[str, Any] = notebook.evaluate(TEXTS)
    assert (texts["flag"], texts["kind"], texts["n"], texts["steps"]) == ("False", "sgd", "4", "7")
    assert (texts["word"], texts["widths"], texts["seed"]) == ("x, y", "(1, 2)", "3")
    assert (texts["size"], texts["lr"], texts["scale"]) == ("large", "0.1", "0.5")
    assert [texts[n] for n in ("limit", "clip", "place", "half")] == [
        "9",
        "2.5",
        "elsewhere",
        "1.5",
    ]
    button(face, "Run").click()
    work = begun(face, "done")
    expect(work).to_contain_text("twice 8 · seen 11")
    assert "tell-nobody" not in str(notebook.evaluate("view.shown"))
    link = work.get_by_role("link", name="Open notebook")
    link.click()
    tab = notebook.page.locator(".lm-TabBar-tab.lm-mod-current", has_text="notebook.ipynb")
    expect(tab).to_have_count(1)
    expect(notebook.page.get_by_text("# Parameters of this run").first).to_be_visible()


def test_what_is_wrong_is_said_beside_its_field(lab: Lab) -> None:
    notebook, face = tiny(lab)
    field(face, "word").fill("kept")
    field(face, "n").fill("12")
    wrong = face.get_by_role("alert").filter(has_text="parameter")
    expect(wrong).to_have_text("parameter 'n' got int 12, expected 1 <= n <= 9")
    expect(field(face, "n")).to_have_attribute("aria-invalid", "true")
    expect(button(face, "Run")).to_be_disabled()
    field(face, "n").press_sequentially("3")  # typed on while the kernel answers
    expect(wrong).to_have_text("parameter 'n' got int 123, expected 1 <= n <= 9")
    lab.check_accessibility(face)
    button(face, "Reset n").click()
    expect(field(face, "n")).to_have_value("3")
    expect(field(face, "word")).to_have_value("kept")
    expect(button(face, "Run")).to_be_enabled()
    button(face, "Reset all").click()
    expect(field(face, "word")).to_have_value("a, b")
    assert notebook.evaluate("[len(view.shown['works']), view.problem]") == [0, ""]


def test_a_sweep_says_how_many_and_shows_each(lab: Lab) -> None:
    notebook, face = tiny(lab)
    button(face, "Several runs").click()
    field(face, "size large").check()
    field(face, "n").fill("1,2")
    field(face, "lr").fill("0.1..0.5")
    expect(face.get_by_role("alert").filter(has_text="lr is a range")).to_be_visible()
    face.get_by_label("Samples").fill("1")
    face.get_by_label("Seeds").fill("1")
    expect(face.get_by_role("status").filter(has_text="4 runs;")).to_be_visible()
    button(face, "Sweep").click()
    work = begun(face, "done")
    expect(work.locator("tbody tr")).to_have_count(4)
    expect(work.get_by_role("link", name="Open notebook")).to_have_count(4)
    assert notebook.evaluate("view.shown['works'][0]['counts']") == {"done": 4}
    lab.check_accessibility(face)


def test_a_run_is_stopped_and_resumed_by_mouse(lab: Lab) -> None:
    long_notebook(lab.folder)
    notebook, face = shown(lab, "long")
    button(face, "Run").click()
    work = begun(face, "running")
    expect(work).to_contain_text("cell 2 of 2")
    lab.check_accessibility(face)
    notebook.save()
    notebook.reload()
    face = notebook.output(0).locator(".wb-form")
    work = begun(face, "running")
    work.get_by_role("button", name="Stop").press("Enter")
    work = begun(face, "interrupted")
    expect(work.locator(".wb-note")).to_contain_text("interrupted in cell 2 of 2")
    (lab.folder / "go.txt").touch()
    work.get_by_role("button", name="Resume").click()
    begun(face, "done")
    lab.check_accessibility(face)


def test_a_run_outlives_the_kernel_and_is_found_again(lab: Lab) -> None:
    long_notebook(lab.folder)
    notebook, face = shown(lab, "long")
    for n in range(3):  # of which two go at once
        button(face, "Run").click()
        expect(face.locator(".wb-work")).to_have_count(n + 1)
    begun(face, "queued · 1st in line")
    begun(face, "running", which=2)
    notebook.restart()
    notebook.run(0)
    face = notebook.output(0).locator(".wb-form")
    begun(face, "queued · 1st in line")
    begun(face, "running", which=1)
    (lab.folder / "go.txt").touch()
    for which in range(3):
        begun(face, "done", which)
