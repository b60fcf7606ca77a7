"""JupyterLab in a headless Chromium: `lab` opens notebooks, `kernel` runs a test once a version."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Generator, Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, expect, sync_playwright
from waiting import end_background

from browser.kernels import VERSIONS, kernel_folder
from browser.lab import Lab
from browser.server import LabServer, lab_server


def chromium() -> str:
    """Return the browser's program, or skip the test; where one is required, fail."""
    names = ("chromium", "chromium-browser", "google-chrome")
    found = [os.environ.get("WORKBENCH_CHROMIUM"), *map(shutil.which, names)]
    if not any(found):
        leave = pytest.fail if os.environ.get("WORKBENCH_BROWSER") == "required" else pytest.skip
        leave("no Chromium found: install it (apt install chromium) or set WORKBENCH_CHROMIUM")
    return next(filter(None, found))


# These last as long as the folder's tests: while Playwright runs, asyncio sees a running loop.
@pytest.fixture(scope="package")
def browser() -> Iterator[Browser]:
    program = chromium()
    expect.set_options(timeout=20_000)  # milliseconds, for what a person would wait for
    with sync_playwright() as tool, tool.chromium.launch(executable_path=program) as started:
        yield started


@pytest.fixture(scope="package")
def server(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[LabServer]:
    """Serve every test's `tmp_path`."""
    folder = tmp_path_factory.mktemp("jupyter")
    with lab_server(tmp_path_factory.getbasetemp(), folder) as running:
        yield running


@pytest.fixture(scope="package")
def _lab(browser: Browser, server: LabServer, warm: str | None) -> Iterator[Lab]:
    """JupyterLab for all tests; where kernels can be forked, they are, unless a test has others."""
    if warm:
        server.add_forked("forked", warm)
    with Lab(browser, server, server.files, kernel="forked" if warm else "python3") as opened:
        yield opened


@pytest.fixture
def lab(_lab: Lab, tmp_path: Path) -> Iterator[Lab]:
    """JupyterLab, with nothing open."""
    _lab.folder = tmp_path
    yield _lab
    _lab.clear()
    end_background(tmp_path)


@pytest.fixture(params=["python3", *(pytest.param(v, marks=pytest.mark.matrix) for v in VERSIONS)])
def kernel(request: pytest.FixtureRequest, server: LabServer) -> str:
    """Run the test with the environment's own kernel, and in `make matrix` with each of three.

    It is the name that `lab.open` takes.
    """
    if request.param == "python3":
        return "python3"
    name = f"ipykernel-{request.param}"
    server.add_kernel(name, kernel_folder(request.param))
    return name


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Function, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Keep what the browser showed when a test failed, beside the test's file."""
    report = yield
    lab = getattr(item, "funcargs", {}).get("lab")
    if report.failed and call.when != "teardown" and isinstance(lab, Lab):
        failures = item.path.parent / ".failures"
        folder = failures / re.sub(r"[^\w.-]+", "-", item.name)
        folder.mkdir(parents=True, exist_ok=True)
        (failures / ".gitignore").write_text("*\n")
        with suppress(Error):  # the browser itself may be what failed
            lab.keep(folder)
        for said in sorted(folder.glob("*.txt")):  # the folder does not outlive a machine of CI
            report.sections.append((said.stem, said.read_text()[-3000:]))
        report.sections.append(("browser", f"what it showed is kept in {folder}"))
    return report


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Try a browser's test a second time before it counts as failed; the summary lists those.

    On a slow machine JupyterLab has missed the reply of a kernel that was never seen to do so
    elsewhere, also under load; why was not found.
    """
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.flaky(reruns=1))
