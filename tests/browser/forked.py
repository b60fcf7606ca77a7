"""A kernel that a warm parent forks: `forked.py ADDRESS -f FILE`; it is there at once, with torch.

This process stands for it: it ends as the kernel ends, and the kernel ends with it.
"""

from __future__ import annotations

import os
import signal
import sys

from workbench.runs.warm import Forked


def main(address: str, *arguments: str) -> int:
    """Fork a kernel, hand on the interrupts that are meant for it, and return its exit code."""
    request = {"kind": "kernel", "arguments": arguments, "environment": dict(os.environ)}
    kernel = Forked(address, {**request, "folder": os.getcwd(), "log": os.devnull})
    signal.signal(signal.SIGINT, lambda number, _: kernel.send_signal(number))
    return kernel.wait()


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
