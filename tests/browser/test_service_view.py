"""The view of a service in JupyterLab: traffic arrives, a version is swapped in, it stops."""

from __future__ import annotations

import re

from playwright.sync_api import Locator, expect

from browser.lab import Lab, LabNotebook

CELLS = """
# %%
import workbench as wb
data = wb.load("diabetes")
model = wb.build("linear", data, seed=0)
wb.fit(model, data, epochs=1).wait()
for _ in range(2):
    wb.publish(model, "sick")
service = wb.serve("sick@1")
rows = data.test.inputs
# %%
view = service.show()
view
# %%
said = [service.predict(rows[i % 80 : i % 80 + 3]) for i in range(200)]
# %%
remote = wb.connect(service.url, service.token).show()
remote
"""
NOTHING = "Requests a second in the last 3 minutes: 0 now, 0 at most"


def opened(lab: Lab) -> tuple[LabNotebook, Locator]:
    notebook = lab.open(CELLS)
    for index in (0, 1):
        notebook.run(index)
    face = notebook.output(1).locator(".wb-service")
    expect(face.locator(".wb-state")).to_have_text("running")
    return notebook, face


def fact(face: Locator, name: str) -> Locator:
    return face.locator(".wb-facts > div", has_text=name).locator("b").first


def test_traffic_arrives(lab: Lab) -> None:
    notebook, face = opened(lab)
    expect(face.locator(".wb-requests")).to_have_text("No request has been answered yet.")
    notebook.run(2)
    expect(fact(face, "600 rows")).to_have_text("200")
    expect(face.locator(".wb-requests tbody tr")).to_have_count(20)
    line = "svg[aria-label^='Requests a second']"
    expect(face.locator(line)).not_to_have_attribute("aria-label", NOTHING)
    expect(face.get_by_role("group", name="Drift by feature")).to_be_visible()
    drift = face.get_by_text(re.compile(r"the alarm in the \d+ rows"))  # 500, or what came at once
    expect(drift).to_be_visible()
    notebook.run(3)
    other = notebook.output(3).locator(".wb-service")
    expect(fact(other, "600 rows")).to_have_text("200")
    expect(other.get_by_role("button", name="Swap in")).to_be_disabled()
    expect(other.get_by_text("do it there").first).to_be_visible()
    lab.check_accessibility(other)
    assert notebook.evaluate("view.shown['traffic']['requests']") == 200


def test_it_is_silent_while_nothing_comes(lab: Lab) -> None:
    notebook, face = opened(lab)
    notebook.page.wait_for_timeout(1500)
    before = notebook.messages().get("comm_msg", 0)
    notebook.page.wait_for_timeout(3000)
    assert notebook.messages().get("comm_msg", 0) == before
    expect(fact(face, "0 rows")).to_have_text("0")


def test_a_version_is_swapped_promoted_and_stopped(lab: Lab) -> None:
    notebook, face = opened(lab)
    face.get_by_label("Version").select_option("sick@2")
    face.get_by_role("button", name="Swap in").press("Enter")
    expect(face.get_by_text("answers with sick@2")).to_be_visible()
    assert notebook.evaluate("service.model") == "sick@2"
    face.get_by_label("Version").select_option("sick@2")
    face.get_by_label("Alias").fill("best")
    face.get_by_label("Why").fill("a try")
    face.get_by_role("button", name="Promote").click()
    expect(face.locator("option", has_text="best")).to_have_count(1)
    assert notebook.evaluate("wb.version('sick@best').ref") == "sick@2"
    lab.check_accessibility(face)
    face.get_by_role("button", name="Drain and stop").press("Enter")
    expect(face.get_by_role("button", name="Stop it")).to_be_focused()
    lab.check_accessibility(face)
    face.get_by_role("button", name="Keep it").click()
    assert notebook.evaluate("service.is_running")
    face.get_by_role("button", name="Drain and stop").click()
    face.get_by_role("button", name="Stop it").click()
    expect(face.locator(".wb-state")).to_have_text("stopped")
    assert not notebook.evaluate("service.is_running")
    face.get_by_role("button", name="Serve again").click()
    expect(face.locator(".wb-state")).to_have_text("running")
    assert notebook.evaluate("[view.service.url == service.url, view.service.model]") == [
        True,
        "sick@2",
    ]


def test_the_command_is_copied_and_a_reload_finds_it(lab: Lab) -> None:
    notebook, face = opened(lab)
    notebook.page.context.grant_permissions(["clipboard-read", "clipboard-write"])
    face.get_by_role("button", name="Copy command").click()
    expect(face.get_by_role("button", name="Copy command")).to_have_text("Copied")
    copied = notebook.page.evaluate("navigator.clipboard.readText()")
    assert copied == notebook.evaluate("service._curl()")
    saved = notebook.save()
    assert notebook.evaluate("service.token") not in str(saved)
    assert "image/png" in saved.cells[1].outputs[0].data
    notebook.reload()
    face = notebook.output(1).locator(".wb-service")
    expect(face.locator(".wb-state")).to_have_text("running")
    notebook.run(2)
    expect(fact(face, "600 rows")).to_have_text("200")
    notebook.restart()
    notebook.run(0)
    notebook.run(1)
    expect(notebook.output(1).locator(".wb-state")).to_have_text("running")
