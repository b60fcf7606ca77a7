"""How smooth the gradient-descent playground is: frames a second while it plays and is dragged.

    python benchmarks/frames.py > benchmarks/frames.md

A headless Chromium without a graphics card shows it in JupyterLab; each frame that the page gets is
counted, as long as the paths play, the start is dragged, or the learning rate is.
"""

from __future__ import annotations

import itertools
import statistics
import sys
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

from playwright.sync_api import FloatRect, Locator, Page

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from browser.scripts import own_lab

from workbench.devices import hardware

ROUNDS = 5
MOVES = 120  # of the mouse in a drag
GOAL = 30  # frames a second
SHOW = "# %%\nimport workbench as wb\nwb.widgets.descent()"
COUNT = """() => {
    const times = window.times = [];
    const count = now => times.push(now) && window.times === times && requestAnimationFrame(count);
    requestAnimationFrame(count);
}"""
READ = "() => { const times = window.times; window.times = null; return times; }"


def play(page: Page, face: Locator) -> None:
    """Let the paths go on for three seconds, from the start."""
    face.get_by_role("button", name="Reset", exact=True).click()
    face.get_by_role("button", name="Play").click()
    page.wait_for_timeout(3000)
    face.get_by_role("button", name="Pause").click()


def drag_start(page: Page, face: Locator) -> None:
    """Drag the start across the surface; all four paths are computed anew at each place."""
    drag(page, face.get_by_role("slider", name="Start"), 0.25 * boxed(face)["width"])


def drag_rate(page: Page, face: Locator) -> None:
    """Drag the learning rate."""
    slider = face.get_by_label("Learning rate")
    drag(page, slider, 0.4 * boxed(slider)["width"])


def drag(page: Page, handle: Locator, far: float) -> None:
    """Drag from a handle's middle to the right and back."""
    box = boxed(handle)
    x, y = box["x"] + box["width"] / 2, box["y"] + box["height"] / 2
    page.mouse.move(x, y)
    page.mouse.down()
    for to in (x + far, x):
        page.mouse.move(to, y, steps=MOVES)
    page.mouse.up()


def boxed(element: Locator) -> FloatRect:
    """Return where an element is."""
    box = element.bounding_box()
    assert box
    return box


def measure(page: Page, face: Locator, act: Callable[[Page, Locator], None]) -> tuple[float, float]:
    """Return frames a second during an act, and the longest time between two, in milliseconds."""
    page.evaluate(COUNT)
    act(page, face)
    times = page.evaluate(READ)
    gaps = [after - before for before, after in itertools.pairwise(times)]
    return 1000 / statistics.mean(gaps), max(gaps)


def main() -> None:
    """Use the playground in rounds; print Markdown."""
    machine = hardware()
    with own_lab() as lab:
        notebook = lab.open(SHOW)
        notebook.run(0)
        face = notebook.output(0).locator(".wb-descent")
        face.scroll_into_view_if_needed()
        browser = notebook.page.context.browser
        print(
            "# How smooth the playground is\n\n"
            f"`python benchmarks/frames.py` · {machine['processor']}, {machine['cores']} cores, no "
            f"graphics card · Chromium {browser.version if browser else '?'}, JupyterLab "
            f"{version('jupyterlab')} · {ROUNDS} rounds in turns · goal: {GOAL} frames a second\n\n"
            "| while | frames/s: median (lowest to highest) | longest frame, ms: median (longest) |"
            "\n|---|---|---|"
        )
        acts = {"it plays": play, "the start is dragged": drag_start, "the rate is": drag_rate}
        rounds = [
            [measure(notebook.page, face, act) for act in acts.values()] for _ in range(ROUNDS)
        ]
    for name, found in zip(acts, zip(*rounds, strict=True), strict=True):
        (rates, longest) = (sorted(side) for side in zip(*found, strict=True))
        print(
            f"| {name} | {statistics.median(rates):.0f} ({rates[0]:.0f} to {rates[-1]:.0f}) | "
            f"{statistics.median(longest):.0f} ({longest[-1]:.0f}) |"
        )


if __name__ == "__main__":
    main()
