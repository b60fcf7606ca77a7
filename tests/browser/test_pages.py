"""Reports and comparisons in a browser: nothing runs, nothing is loaded, everybody can read."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import pytest
from axe_playwright_python.base import AXE_SCRIPT
from playwright.sync_api import Browser, Page, Route, expect
from writing import write_notebook

from workbench import build, fit, load
from workbench.runs.comparisons import compare
from workbench.runs.pages import Html, page
from workbench.runs.records import Run
from workbench.runs.reports import report

HOSTILE = """\
from IPython.display import HTML, SVG, Javascript, Markdown, display
mark = "document.documentElement.dataset.ran = 1"
display(HTML(f"<script>{mark}</script><img src=x onerror='{mark}'><p onclick='{mark}'>clicked</p>"))
display(HTML(f"<a href='javascript:{mark}'>followed</a><iframe srcdoc='<script>{mark}</script>'>"))
display(SVG(f"<svg onload='{mark}'><script>{mark}</script></svg>"))
display(Javascript(mark), Markdown(f"<script>{mark}</script> <img src=x onerror='{mark}'> told"))
display(HTML("<img src='https://a.example/a.png'><link rel=stylesheet href='https://a.example'>"))
print("x" * 400)
"""
PROSE = "# Hostile <img src=x onerror='document.documentElement.dataset.ran = 1'>\n\n$y = x^2$"
WIDE = """\
import pandas
pandas.DataFrame([range(40)], index=["row"], columns=[f"column {i}" for i in range(40)])
"""


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[Run]:
    """Two runs, the second failed, with a training in each."""
    # In a process of its own, since Playwright's loop runs in this one.
    found = []
    with pytest.MonkeyPatch.context() as patch:
        for seed, last in enumerate(["1", "1 / 0"]):
            folder = tmp_path_factory.mktemp("run")
            patch.setenv("WORKBENCH_HOME", str(folder / "home"))
            cells = [PROSE, HOSTILE, "# Wide", WIDE, last]
            notebook = write_notebook(folder / "a.ipynb", *cells, parameters="seed = 0")
            command = [sys.executable, "-m", "workbench", "run", str(notebook), f"--seed={seed}"]
            subprocess.run([*command, f"--out={folder}/out"], capture_output=True, check=False)
            patch.setenv("WORKBENCH_RUN", str(folder / "out"))
            data = load("digits", validation=100, train_limit=200)
            fit(build("linear", data, seed=seed), data, epochs=2, name="night")
            patch.delenv("WORKBENCH_RUN")
            found.append(Run.read(folder / "out"))
    return found


@pytest.fixture
def opened(browser: Browser) -> Iterator[Page]:
    """A page in a window of its own, which notes what it asks for and complains of."""
    with browser.new_context() as context:
        yield context.new_page()


def show(opened: Page, path: Path) -> list[str]:
    """Open a file and return what else it went for."""
    asked: list[str] = []

    def let(route: Route) -> None:
        asked.append(route.request.url)
        route.continue_()

    opened.route("**/*", let)
    opened.goto(path.as_uri())
    return asked[1:]


def check_accessibility(opened: Page) -> None:
    opened.evaluate(AXE_SCRIPT)
    found = opened.evaluate("axe.run()")
    wrong = [
        f"{rule['id']}: {rule['help']}\n    {node['html']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
    assert not wrong, "\n".join(["not accessible:", *wrong])


def has_run(opened: Page) -> bool:
    """Return whether the hostile code of the notebook has left its mark."""
    return bool(opened.evaluate("'ran' in document.documentElement.dataset"))


def test_nothing_in_a_report_runs_or_is_loaded(opened: Page, runs: list[Run]) -> None:
    assert show(opened, report(runs[0])) == []
    opened.get_by_text("clicked", exact=True).click()
    opened.get_by_text("followed", exact=True).click()
    expect(opened.get_by_text("told", exact=True)).to_be_visible()
    assert not has_run(opened)


def test_the_policy_alone_would_stop_it_too(opened: Page, tmp_path: Path) -> None:
    mark = "document.documentElement.dataset.ran = 1"
    script = f"<script>{mark}</script><img src=x onerror='{mark}'><b onclick='{mark}'>clicked</b>"
    content = page("a", header="", main=Html(f"{script}<link rel=stylesheet href=a.css>"))
    policed, free = tmp_path / "policed.html", tmp_path / "free.html"
    policed.write_bytes(content)
    free.write_bytes(content.replace(b"Content-Security-Policy", b"nothing"))
    assert show(opened, policed) == []
    opened.get_by_text("clicked").click()
    assert not has_run(opened)
    assert {url.rpartition("/")[2] for url in show(opened, free)} == {"x", "a.css"}
    assert has_run(opened)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_pages_are_accessible_and_fit(
    opened: Page, runs: list[Run], tmp_path: Path, scheme: Literal["light", "dark"], width: int
) -> None:
    opened.emulate_media(color_scheme=scheme)
    opened.set_viewport_size({"width": width, "height": 800})
    for path in (report(runs[1]), compare(runs).save(tmp_path / "compared.html")):
        show(opened, path)
        opened.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
        assert opened.evaluate("document.documentElement.scrollWidth") == width
        check_accessibility(opened)


def test_a_wide_table_is_scrolled_with_the_keyboard(opened: Page, runs: list[Run]) -> None:
    show(opened, report(runs[0]))
    wide = opened.locator(".scroll", has_text="column 39").last
    wide.focus()
    opened.keyboard.press("End")
    opened.keyboard.press("ArrowRight")
    expect(wide).to_be_focused()
    opened.wait_for_function("element => element.scrollLeft > 0", arg=wide.element_handle())


def test_code_unfolds_with_the_keyboard_and_without_scripts(
    browser: Browser, runs: list[Run]
) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        opened = context.new_page()
        opened.goto(report(runs[0]).as_uri())
        code = opened.locator("#cell-5 pre").first
        expect(code).to_be_hidden()
        opened.locator("#cell-5 summary").focus()
        opened.keyboard.press("Enter")
        expect(code).to_have_text("1")


def test_the_failed_cell_is_one_click_away(opened: Page, runs: list[Run]) -> None:
    show(opened, report(runs[1]))
    expect(opened.get_by_role("heading", name="The run failed in cell 5 of 5")).to_be_visible()
    opened.get_by_role("link", name="cell 5 of 5").click()
    expect(opened.get_by_text("ZeroDivisionError: division by zero").last).to_be_in_viewport()
