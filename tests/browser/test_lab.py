"""The harness itself: what it clicks, reads, breaks and keeps."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from playwright.sync_api import expect

from browser.conftest import chromium
from browser.lab import Lab, cells_of, set_theme
from workbench.home import home

BUTTON = """
    # %%
    import ipywidgets
    clicks = 0
    def count(button):
        global clicks
        clicks += 1
        button.description = f"Pressed {clicks}"
    button = ipywidgets.Button(description="Press")
    button.on_click(count)
    # %%
    button
"""


def test_a_text_is_divided_into_cells() -> None:
    assert cells_of("\n  # %%\n  a = 1\n  if a:\n    b = 2\n  # %% then\n  # note\n  # %%") == [
        "a = 1\nif a:\n  b = 2",
        "# note",
    ]


def test_a_click_reaches_each_kernel(lab: Lab, kernel: str) -> None:
    notebook = lab.open(BUTTON, kernel=kernel)
    notebook.run_all()
    notebook.output(1).get_by_role("button", name="Press").click()
    expect(notebook.output(1).get_by_role("button")).to_have_text("Pressed 1")
    assert notebook.evaluate("clicks") == 1
    assert notebook.messages()["comm_msg"] >= 1
    version = notebook.evaluate("__import__('ipykernel').__version__")
    assert kernel in ("python3", "ipykernel-" + version.rpartition(".")[0])


def test_a_widget_outlives_its_page(lab: Lab) -> None:
    notebook = lab.open("""
        # %%
        import ipywidgets
        slider = ipywidgets.IntSlider(3, max=10)
        slider
    """)
    notebook.run(0)
    notebook.save()
    notebook.leave()
    assert notebook.evaluate("setattr(slider, 'value', 7)") is None
    notebook.reload()
    expect(notebook.output(0).get_by_role("slider")).to_have_attribute("aria-valuetext", "7")
    notebook.output(0).get_by_role("slider").press("ArrowRight")
    expect(notebook.output(0).locator(".widget-readout")).to_have_text("8")
    assert notebook.evaluate("slider.value") == 8


def test_a_new_kernel_has_forgotten(lab: Lab) -> None:
    notebook = lab.open("# %%\nx = 1")
    for lose in (notebook.restart, notebook.kill):
        notebook.run(0)
        assert notebook.evaluate("x") == 1
        lose()
        assert notebook.evaluate("'x' in globals()") is False


def test_a_cell_is_started_and_interrupted(lab: Lab) -> None:
    notebook = lab.open("""
        # %%
        import time
        print("begun", flush=True)
        time.sleep(100)
        # %%
        print(1 / 0)
        # %%
        print("fine")
    """)
    notebook.start(0)
    expect(notebook.output(0)).to_have_text("begun")
    with pytest.raises(AssertionError, match=r"not cells ended within 0\.1 s"):
        notebook.wait(seconds=0.1)
    with pytest.raises(TimeoutError, match=r"the kernel said nothing to '1' within 0\.1 s"):
        notebook.evaluate("1", seconds=0.1)
    notebook.interrupt()
    notebook.wait()
    expect(notebook.output(0)).to_contain_text(["begun", "KeyboardInterrupt"])
    with pytest.raises(AssertionError, match="ZeroDivisionError: division by zero"):
        notebook.run(1)
    notebook.run(2)
    expect(notebook.output(2)).to_have_text("fine")


def test_a_notebook_is_saved_and_copied(lab: Lab) -> None:
    first = lab.open("# %%\nprint(6 * 7)\n# %%\nimport os\nprint(os.getcwd())", name="first")
    first.run_all()
    saved = first.save()
    assert [cell.outputs[0].text for cell in saved.cells] == ["42\n", f"{lab.folder}\n"]
    second = lab.open(first.path, name="second")
    expect(second.output(0)).to_have_text("42")
    assert second.evaluate("'os' in globals()") is False


def test_a_kernel_finds_the_home_of_its_test(lab: Lab) -> None:
    notebook = lab.open("# %%\nimport os\nfrom workbench.home import home")
    notebook.run(0)
    assert notebook.evaluate("str(home())") == str(home())
    assert notebook.evaluate("os.environ.get('WORKBENCH_HEADLESS')") is None
    with pytest.raises(AssertionError, match="missing: NameError: name 'missing' is not defined"):
        notebook.evaluate("missing")


def test_a_test_sets_the_theme_for_itself_alone(lab: Lab) -> None:
    notebook = lab.open("# %%\n1")
    theme = notebook.page.locator("body")
    expect(theme).to_have_attribute("data-jp-theme-name", "JupyterLab Light")
    set_theme(notebook.page, "dark")
    expect(theme).to_have_attribute("data-jp-theme-name", "JupyterLab Dark")
    lab.server.reset()
    notebook.reload()
    expect(theme).to_have_attribute("data-jp-theme-name", "JupyterLab Light")


def test_what_a_screen_reader_cannot_name_is_found(lab: Lab) -> None:
    notebook = lab.open("""
        # %%
        from IPython.display import HTML
        HTML("<div id='good'><button>Go</button></div><div id='bad'><button></button></div>")
    """)
    notebook.run(0)
    lab.check_accessibility(notebook.output(0).locator("#good"))
    said = r"not accessible, dark:\nbutton-name: Buttons must have [\s\S]*<button>"
    with pytest.raises(AssertionError, match=said):
        lab.check_accessibility(notebook.output(0).locator("#bad"))


@pytest.mark.usefixtures("browser")
def test_a_failure_keeps_what_was_seen(tmp_path: Path) -> None:
    (tmp_path / "test_it.py").write_text(
        "def test_it(lab):\n"
        "    notebook = lab.open('# %%\\nprint(1)')\n"
        "    notebook.page.evaluate('console.log(\"so it was\")')\n"
        "    notebook.run(0)\n"
        "    assert False\n"
    )
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-p",
        "conftest",
        "-p",
        "browser.conftest",
        "-c",
        os.devnull,
    ]
    done = subprocess.run(
        [*command, tmp_path / "test_it.py"],
        env=os.environ | {"PYTHONPATH": str(Path(__file__).parent.parent)},
        capture_output=True,
        text=True,
        check=False,
    )
    kept = tmp_path / ".failures" / "test_it"
    assert f"what it showed is kept in {kept}" in done.stdout
    assert (kept / "page-0.png").read_bytes().startswith(b"\x89PNG")
    assert "log: so it was" in (kept / "console.txt").read_text()
    assert "Kernel started" in (kept / "server.txt").read_text()


def test_without_a_browser_the_way_to_one_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    monkeypatch.delenv("WORKBENCH_CHROMIUM", raising=False)
    monkeypatch.delenv("WORKBENCH_BROWSER", raising=False)
    told = "no Chromium found: install it .* or set WORKBENCH_CHROMIUM"
    with pytest.raises(pytest.skip.Exception, match=told):
        chromium()
    monkeypatch.setenv("WORKBENCH_BROWSER", "required")
    with pytest.raises(pytest.fail.Exception, match=told):
        chromium()
    monkeypatch.setenv("WORKBENCH_CHROMIUM", "/one/of/my/own")
    assert chromium() == "/one/of/my/own"
