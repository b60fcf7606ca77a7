"""`workbench lab` as a person starts it, in folders of the test's own."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from browser.server import FOLDERS, write_settings

__all__ = ["OpenedLab", "opened_lab"]

ADDRESS = re.compile(r"(http://127\.0\.0\.1:\d+/)lab/tree/workbench\.ipynb\?token=(\w+)")


class OpenedLab:
    """A `workbench lab` that answers.

    Args:
        process: it runs in.
        url: root of the server.
        token: that it wants to be shown.
    """

    def __init__(self, process: subprocess.Popen[bytes], url: str, token: str) -> None:
        self.process, self.url, self.token = process, url, token

    def interrupt(self) -> int:
        """Press Ctrl-C, and return the exit code."""
        self.process.send_signal(signal.SIGINT)
        return self.process.wait(60)


@contextmanager
def opened_lab(folder: Path, settings: Path) -> Iterator[OpenedLab]:
    """Run it on a folder for the while; Jupyter's own settings and files lie in `settings`."""
    write_settings(settings)
    places = {name: str(settings / place) for name, place in FOLDERS.items()}
    kept = {k: v for k, v in os.environ.items() if not k.startswith("JUPYTER")}
    kept.pop("WORKBENCH_HEADLESS", None)
    command = [sys.executable, "-m", "workbench", "lab", str(folder), "--no-browser"]
    log = settings / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            [*command, "--allow-root", "--port=0", "--ip=127.0.0.1"],
            env=kept | places, stdin=subprocess.DEVNULL, stdout=said, stderr=said,
        )  # fmt: skip
    with process:
        try:
            yield OpenedLab(process, *_address(process, log))
        finally:
            process.terminate()
            with suppress(subprocess.TimeoutExpired):
                process.wait(30)
            process.kill()


def _address(process: subprocess.Popen[bytes], log: Path) -> tuple[str, str]:
    """Return where it answers, and the token, as it says itself."""
    until = time.monotonic() + 60
    while time.monotonic() < until and process.poll() is None:
        if found := ADDRESS.search(log.read_text()):
            return found[1], found[2]
        time.sleep(0.05)
    raise RuntimeError(f"JupyterLab did not start:\n{log.read_text()[-3000:]}")
