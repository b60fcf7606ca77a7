"""Going back in a training by mouse and by keyboard; what it does is seen in the kernel."""

from __future__ import annotations

import re

import pytest
from kernels import SETUP
from playwright.sync_api import Locator, expect

from browser.lab import Lab, LabNotebook

PICTURES = """
# %%
import workbench as wb
data = wb.load("digits", validation=200)
# %%
model = wb.build("mlp", data, hidden=(32,), seed=0)
training = wb.fit(model, data, epochs=6, batch_size=32, lr=0.01, name="night")
# %%
training.wait().name
# %%
wb.list_trainings()["night"].show()
"""
SLOW = """
# %%
model = Net()
training = wb.fit(model, data, epochs=1000, batch_size=8, lr=0.05, name="long")
"""


@pytest.fixture
def done(lab: Lab) -> LabNotebook:
    """Open a notebook with a training that has ended."""
    notebook = lab.open(PICTURES)
    for cell in range(3):
        notebook.run(cell)
    expect(view(notebook).locator(".wb-state").first).to_have_text("done")
    settle(notebook)
    return notebook


def settle(notebook: LabNotebook) -> None:
    """Wait until Lab has drawn the output anew, because of the picture of what has ended."""
    while not notebook.messages().get("update_display_data"):
        notebook.page.wait_for_timeout(100)
    notebook.page.wait_for_timeout(600)


def view(notebook: LabNotebook, cell: int = 1) -> Locator:
    return notebook.output(cell).locator(".wb-training")


def rewind(notebook: LabNotebook, cell: int = 1) -> Locator:
    return view(notebook, cell).get_by_role("group", name="Rewind", exact=True)


def found(notebook: LabNotebook) -> Locator:
    return rewind(notebook).locator("[data-part=found]")


def choose(notebook: LabNotebook, step: int) -> None:
    field = rewind(notebook).get_by_role("spinbutton", name="to step")
    field.fill(str(step))
    field.press("Enter")
    expect(rewind(notebook).get_by_role("slider")).to_have_value(str(step))


def press(notebook: LabNotebook, name: str) -> None:
    rewind(notebook).get_by_role("button", name=name, exact=True).click()


def click_at(chart: Locator, step: int) -> None:
    """Click where the cursor of a chart reads a step."""
    canvas, tip, x = chart.locator("canvas"), chart.locator(".wb-tip small").first, 200.0
    for _ in range(20):
        canvas.hover(position={"x": x, "y": 60})
        expect(tip).to_contain_text("step ")
        canvas.page.wait_for_timeout(100)  # it is drawn with the next frame
        away = step - int(tip.inner_text().removeprefix("step "))
        if away == 0:
            return canvas.click(position={"x": x, "y": 60})
        x += max(1, abs(away)) * (1 if away > 0 else -1)
    raise AssertionError(f"step {step} was not found")


def chosen(notebook: LabNotebook) -> int:
    return int(rewind(notebook).get_by_role("slider").input_value())


def test_the_weights_of_a_step_are_scored_and_their_line_is_copied(done: LabNotebook) -> None:
    done.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    choose(done, 39)
    press(done, "Weights here")
    row = done.evaluate("training.history.epochs[0]")
    assert row["step"] == 39
    expect(found(done)).to_contain_text("night after step 39: validation loss ")
    expect(found(done)).to_contain_text(f"validation accuracy {row['validation_accuracy']:.3g}")
    rewind(done).get_by_role("button", name="Copy model = training.at(39)").click()
    expect(rewind(done).get_by_text("Copied")).to_be_visible()
    line = done.page.evaluate("navigator.clipboard.readText()")
    assert line == "model = training.at(39)"
    name, call = line.split(" = ")
    score = done.evaluate(f"float(wb.evaluate({call}, data.validation).loss)")
    assert (name, score) == ("model", pytest.approx(row["validation_loss"], rel=1e-5))


def test_a_click_at_a_spike_chooses_it_and_its_batch_is_shown(done: LabNotebook) -> None:
    losses = done.evaluate("training.history['loss']")
    spike = 1 + max(range(150, 220), key=losses.__getitem__)
    click_at(view(done).locator("figure").first, spike)
    assert chosen(done) == spike
    press(done, "Blame this step")
    expect(found(done)).to_contain_text(f"Step {spike}, epoch {-(-spike // 39)}: loss")
    rows = done.evaluate(f"[str(r) for r in training.blame({spike}, 10).hardest['row']]")
    cards = found(done).locator("li")
    expect(cards).to_have_count(10)
    for row, card in zip(rows, cards.all(), strict=True):
        expect(card).to_contain_text(f"row {row}")
    sizes = found(done).locator("img").evaluate_all("all => all.map(i => i.naturalWidth)")
    assert sizes == [8] * 10


def test_a_branch_is_drawn_over_it_and_is_one_to_work_with(done: LabNotebook) -> None:
    choose(done, 120)
    rewind(done).get_by_label("with learning rate").fill("0.1")
    press(done, "Branch from here")
    expect(view(done).locator(".wb-name")).to_have_text(["night", "night-at-120"])
    expect(view(done).locator(".wb-state")).to_have_text(["done", "done"])
    expect(view(done).locator(".wb-legend")).to_contain_text("night-at-120 training")
    code = found(done).locator("code").inner_text()
    assert code == "branch = wb.list_trainings()['night-at-120']"
    call = code.removeprefix("branch = ")
    assert done.evaluate(f"[{call}.settings.lr, len({call}.history)]") == [0.1, 234]
    assert done.evaluate(f"{call}.history['loss'][:120] == training.history['loss'][:120]")
    assert done.evaluate(f"wb.evaluate({call}.model, data.validation).accuracy") > 0.5
    rewind(done).get_by_label("Training to go back in").select_option("night-at-120")
    field = rewind(done).get_by_role("spinbutton", name="to step")
    field.fill("3")
    field.press("Enter")
    assert chosen(done) == 120  # it has no step before its first


def test_it_is_done_by_the_keyboard_alone(done: LabNotebook) -> None:
    chart, slider = view(done).locator("[data-chart=loss]"), rewind(done).get_by_role("slider")
    expect(chart).to_have_attribute("aria-label", re.compile("training"))
    chart.press("Home")
    chart.press("Enter")
    assert chosen(done) == 1
    slider.press("ArrowRight")
    slider.press("ArrowRight")
    assert chosen(done) == 3
    expect(rewind(done).get_by_role("spinbutton", name="to step")).to_have_value("3")
    for _ in range(2):
        done.page.keyboard.press("Tab")  # over the field to the first button
    done.page.keyboard.press("Enter")
    expect(found(done)).to_contain_text("night after step 3: validation loss")
    expect(rewind(done).get_by_role("button", name="Weights here")).to_be_focused()


def test_while_it_trains_cells_run_and_a_long_way_is_cancelled(lab: Lab, kernel: str) -> None:
    notebook = lab.open("# %%" + SETUP + SLOW, kernel=kernel)
    notebook.run(0)
    notebook.run(1)
    expect(view(notebook).locator(".wb-line")).to_contain_text("best validation loss")
    while notebook.evaluate("len(training.history)") < 150:
        notebook.page.wait_for_timeout(100)
    choose(notebook, 140)
    notebook.evaluate("setattr(model, 'seconds', 0.2)")  # a copy is as slow: half a minute
    press(notebook, "Weights here")
    expect(rewind(notebook).get_by_role("status").first).to_contain_text("of 140 to take again")
    press(notebook, "Cancel")
    expect(rewind(notebook).get_by_role("button", name="Cancel")).to_be_hidden()
    expect(found(notebook)).to_be_empty()
    assert notebook.evaluate("training.state") == "running"
    notebook.evaluate("setattr(model, 'seconds', 0.01)")
    choose(notebook, 5)
    press(notebook, "Weights here")
    expect(found(notebook)).to_contain_text("long after step 5: validation loss")
    assert notebook.evaluate("training.state") == "running"
    view(notebook).get_by_role("button", name="Stop", exact=True).click()
    expect(view(notebook).locator(".wb-state")).to_have_text("stopped")


def test_the_choice_survives_a_reload_and_after_a_restart_it_says_what_to_write(
    done: LabNotebook,
) -> None:
    choose(done, 77)
    press(done, "Blame this step")
    expect(found(done).locator("li")).to_have_count(10)
    done.save()
    done.reload()
    expect(found(done).locator("li")).to_have_count(10)
    done.restart()
    done.run(0)
    done.run(3)
    expect(view(done, 3).locator(".wb-name")).to_have_text("night")
    line = "wb.list_trainings()['night'].at(step, model=..., data=...)"
    expect(rewind(done, 3)).to_contain_text(line)
    expect(rewind(done, 3).get_by_role("button", name="Weights here")).to_be_disabled()


def test_what_cannot_be_is_said_beside_it(done: LabNotebook) -> None:
    choose(done, 234)
    press(done, "Branch from here")
    expect(rewind(done).get_by_role("alert")).to_contain_text("nothing is left to do after step 23")
    choose(done, 0)
    expect(rewind(done).get_by_role("button", name="Blame this step")).to_be_disabled()


def test_it_is_accessible(lab: Lab, done: LabNotebook) -> None:
    choose(done, 77)
    press(done, "Blame this step")
    expect(found(done).locator("li")).to_have_count(10)
    lab.check_accessibility(view(done))
    press(done, "Branch from here")
    expect(view(done).locator(".wb-state")).to_have_text(["done", "done"])
    lab.check_accessibility(view(done))
