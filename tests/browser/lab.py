"""JupyterLab as a person uses it: open a notebook, run a cell, look at what came out, click."""

from __future__ import annotations

import os
import re
import shutil
import signal
import textwrap
import uuid
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

import nbformat
from axe_playwright_python.base import AXE_SCRIPT
from nbformat.v4 import new_code_cell, new_notebook
from playwright.sync_api import Browser, Error, Locator, Page, ViewportSize, expect
from playwright.sync_api import TimeoutError as TookTooLong

from browser.server import LabServer

__all__ = ["Lab", "LabNotebook", "cells_of", "set_theme"]

VIEWPORT = ViewportSize(width=1280, height=960)
HERE = "const app = window.jupyterapp, panel = app?.shell.currentWidget;"


class Lab:
    """JupyterLab, each notebook in a tab of its own.

    Args:
        browser: that shows it.
        server: that it comes from.
        folder: where notebooks are written, and kernels work.
        kernel: name of the kernelspec that notebooks have unless they say otherwise.
    """

    def __init__(
        self, browser: Browser, server: LabServer, folder: Path, *, kernel: str = "python3"
    ) -> None:
        self.server, self.folder, self._kernel = server, folder, kernel
        self.console: list[str] = []
        self._free: Page | None = None
        self._context = browser.new_context(viewport=VIEWPORT)
        self._context.on("console", lambda told: self.console.append(f"{told.type}: {told.text}"))
        self._context.on("weberror", lambda told: self.console.append(f"thrown: {told.error}"))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        self._context.close()

    def open(
        self,
        source: str | Path,
        *,
        kernel: str | None = None,
        name: str = "notebook",
        alone: bool = False,
    ) -> LabNotebook:
        """Open a notebook and wait until its kernel is there.

        Args:
            source: cells, each begun by a line `# %%`; or a notebook, which is copied.
            kernel: name of a kernelspec; of a notebook that is copied, its own counts.
            name: of the file, without `.ipynb`.
            alone: show it in Notebook 7, whose pages have one notebook each.
        """
        kernel = kernel or self._kernel
        path = self.folder / f"{name}.ipynb"
        if isinstance(source, Path):
            shutil.copy(source, path)
        else:
            spec = {"name": kernel, "display_name": kernel, "language": "python"}
            cells = [new_code_cell(cell) for cell in cells_of(source)]
            nbformat.write(new_notebook(cells=cells, metadata={"kernelspec": spec}), path)
        place = path.relative_to(self.server.files).as_posix()
        if alone:
            return LabNotebook(self._load(f"notebooks/{place}"), self.server, path)
        page, self._free = self._free or self._load(), None
        page.evaluate(
            """async path => {
                await jupyterapp.serviceManager.kernelspecs.refreshSpecs();
                await jupyterapp.commands.execute("docmanager:open", {path});
            }""",
            place,
        )
        return LabNotebook(page, self.server, path)

    def _load(self, place: str = "") -> Page:
        """Return a new page at a place of the server; as a rule one with Lab and no notebook."""
        page = self._context.new_page()
        address = f"{self.server.url}{place or f'lab/workspaces/{uuid.uuid4()}'}"
        page.goto(f"{address}?token={self.server.token}")
        page.wait_for_function("window.jupyterapp")
        stays = "async stays => { await jupyterapp.restored; window.stays = stays; }"
        page.evaluate(stays, not place)
        return page

    def clear(self) -> None:
        """Close all that is open and end every kernel; one page stays, with Lab in it.

        To load Lab takes longer than most of what is done in it. A page that was loaded anew with a
        notebook does not stay: Lab may still be about to open that notebook.
        """
        self._free = None
        with suppress(Error):  # a page that is not as it should be is closed too
            self._free = next(map(self._cleared, self._context.pages), None)
        for page in self._context.pages:
            if page is not self._free:
                page.close()
        self._context.clear_permissions()
        self.server.reset()
        self.console.clear()

    def _cleared(self, page: Page) -> Page | None:
        page.emulate_media(reduced_motion="no-preference")
        page.set_viewport_size(VIEWPORT)
        clean = page.evaluate("""async () => {
            const app = window.jupyterapp;
            for (const panel of [...app.shell.widgets('main')]) panel.dispose();
            return window.stays && !document.querySelector('.jp-Dialog');
        }""")
        set_theme(page, "light")
        return page if clean else None

    def check_accessibility(self, *parts: Locator) -> None:
        """Fail with what axe-core finds wrong in parts of a page, in dark and then in light."""
        page = parts[0].page
        page.evaluate(AXE_SCRIPT)
        for theme in ("dark", "light"):
            set_theme(page, theme)
            found = [part.evaluate("part => axe.run(part)")["violations"] for part in parts]
            wrong = [
                f"{rule['id']}: {rule['help']}\n    {node['html']}"
                for rules in found
                for rule in rules
                for node in rule["nodes"]
            ]
            assert not wrong, "\n".join([f"not accessible, {theme}:", *wrong])

    def keep(self, folder: Path) -> None:
        """Write what can be seen now, and what the page and the server have said; close it all."""
        (folder / "console.txt").write_text("\n".join(self.console))
        (folder / "server.txt").write_text(self.server.log)
        (folder / "kernels.txt").write_text(self.server.kernels)
        for number, page in enumerate(self._context.pages):
            page.screenshot(path=folder / f"page-{number}.png")
            page.close()


class LabNotebook:
    """A notebook in its tab; cells are counted from 0.

    Args:
        page: the tab.
        server: that the notebook comes from.
        path: of the notebook's file.
    """

    def __init__(self, page: Page, server: LabServer, path: Path) -> None:
        self.page, self.path, self._server = page, path, server
        self._attend()

    @property
    def _place(self) -> str:
        """Where its file is, as Jupyter says it."""
        return self.path.relative_to(self._server.files).as_posix()

    def cell(self, index: int) -> Locator:
        """Return a cell."""
        return self.page.locator(".jp-Notebook-cell").nth(index)

    def output(self, index: int) -> Locator:
        """Return what came out of a cell, without the prompt; as many as there are outputs."""
        return self.cell(index).locator(".jp-OutputArea-output")

    def run(self, index: int, *, seconds: float = 60) -> None:
        """Run a cell to its end; fail if it raises."""
        self.start(index)
        self.wait(seconds=seconds)
        self._check([index])

    def run_all(self, *, seconds: float = 300) -> None:
        """Run all cells to the end; fail if one raises."""
        self._start("notebook:run-all-cells")
        self.wait(seconds=seconds)
        self._check(range(self.page.locator(".jp-Notebook-cell").count()))

    def start(self, index: int) -> None:
        """Run a cell, and go on at once."""
        self._do("panel.content.deselectAll(); panel.content.activeCellIndex = given", index)
        self._start("notebook:run-cell")

    def wait(self, *, seconds: float = 60) -> None:
        """Wait until every cell that was started since the page was loaded has ended."""
        self._until("cells ended", "!panel.running", seconds)

    def evaluate(self, expression: str, *, seconds: float = 60) -> Any:
        """Return the value of an expression in the kernel, whatever the page does; JSON's types.

        It is asked over a connection of its own and waits, like a cell, for the one that runs.
        """
        return self._server.evaluate(self.path, expression, seconds)

    def messages(self) -> dict[str, int]:
        """Return how many messages of each type the kernel has published since the last load."""
        return dict(self._do("return panel.messages"))

    def interrupt(self) -> None:
        """Press ■."""
        self._do("await app.commands.execute('notebook:interrupt-kernel')")

    def restart(self) -> None:
        """Restart the kernel and wait until it is back."""
        self._do("await app.commands.execute('notebook:restart-kernel')")
        self._wait_for_kernel()

    def kill(self) -> None:
        """Kill the kernel, as a lack of memory does, and wait until the server starts another."""
        told = self.page.locator(".jp-Dialog", has_text="appears to have died")
        self.page.remove_locator_handler(told)  # of an earlier test
        os.kill(self.evaluate("__import__('os').getpid()"), signal.SIGKILL)
        told.first.wait_for()
        self.page.add_locator_handler(
            told, lambda dialog: dialog.press("Enter")
        )  # it may come twice
        self._wait_for_kernel()

    def leave(self) -> None:
        """Go elsewhere, as if the laptop was closed; the kernel stays, and `reload` comes back."""
        self.page.goto("about:blank")

    def reload(self) -> None:
        """Load the page anew, with the kernel that is running and the notebook as last saved."""
        workspace = re.sub(r"\W+", "-", self._place)  # its own, or it shows what others opened
        address = f"{self._server.url}lab/workspaces/{workspace}/tree/{self._place}"
        self.page.goto(f"{address}?token={self._server.token}")
        self._attend()

    def _attend(self) -> None:
        """Wait until its kernel is there, and count from then on what it publishes."""
        self._wait_for_kernel()
        self._do("""
            await app.restored;
            const counts = panel.messages = {};
            panel.sessionContext.iopubMessage.connect((_, {header: {msg_type}}) => {
                counts[msg_type] = (counts[msg_type] ?? 0) + 1;
            });
        """)

    def save(self) -> Any:
        """Save the notebook and return it as read from the disk."""
        self._do("await panel.context.save()")
        return nbformat.read(self.path, as_version=4)

    def _start(self, command: str) -> None:
        self._do(
            """
            const ended = app.commands.execute(given).catch(() => {});
            const running = panel.running = Promise.all([panel.running, ended]).then(() => {
                if (panel.running === running) panel.running = null;
            });
            """,
            command,
        )

    def _check(self, cells: Iterable[int]) -> None:
        every = self._do("return panel.content.model.toJSON().cells")
        for output in (output for index in cells for output in every[index].get("outputs", [])):
            if output["output_type"] == "error":
                raise AssertionError(re.sub(r"\x1b\[[\d;]*m", "", "\n".join(output["traceback"])))

    def _wait_for_kernel(self) -> None:
        kernel = "panel?.sessionContext?.session?.kernel"
        ready = f"['idle', 'busy'].includes({kernel}?.status)"
        self._until("kernel ready", f"{ready} && {kernel}.connectionStatus === 'connected'", 60)

    def _do(self, script: str, given: Any = None) -> Any:
        """Run JavaScript that knows Lab as `app` and the notebook's panel as `panel`."""
        return self.page.evaluate(f"async given => {{ {HERE} {script} }}", given)

    def _until(self, what: str, condition: str, seconds: float) -> None:
        try:
            script = f"() => {{ {HERE} return {condition} }}"
            self.page.wait_for_function(script, timeout=seconds * 1000)
        except TookTooLong:
            raise AssertionError(f"{self.path.name}: not {what} within {seconds:g} s") from None


def set_theme(page: Page, theme: str) -> None:
    """Change the colours of all of Lab to those of its theme `light` or `dark`."""
    change = "name => jupyterapp.commands.execute('apputils:change-theme', {theme: name})"
    page.evaluate(change, f"JupyterLab {theme.title()}")
    light = str(theme == "light").lower()
    expect(page.locator("body")).to_have_attribute("data-jp-theme-light", light)


def cells_of(source: str) -> list[str]:
    """Return the cells of a text, each begun by a line `# %%`."""
    parts = re.split(r"(?m)^# %%.*$", textwrap.dedent(source))
    return [part.strip() for part in parts if part.strip()]
