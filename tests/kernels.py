"""A real Jupyter kernel for tests: run code as cells do, press ■, kill it, count its messages."""

from __future__ import annotations

import ast
import os
import time
from collections.abc import Mapping
from queue import Empty
from typing import Any

from jupyter_client.manager import KernelManager

__all__ = ["SETUP", "Kernel"]

# A net that takes a hundredth of a second a step, always with the same start.
SETUP = """
import threading, time
import torch
import workbench as wb
from torch import nn

draw = torch.Generator().manual_seed(1)
X = torch.randn(40, 4, generator=draw)
data = wb.dataset("points", train=(X, (X[:, 0] > 0).long()), validation=8)

class Net(nn.Sequential):
    def __init__(self, seconds=0.01):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            super().__init__(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 2))
        self.seconds = seconds
    def forward(self, x):
        if self.training:
            time.sleep(self.seconds)
        return super().forward(x)

def sums(model):
    return [float(p.double().sum()) for p in model.state_dict().values()]

def until(what):
    for _ in range(2000):
        if what():
            return
        time.sleep(0.01)
    raise TimeoutError
"""


class Kernel:
    """A kernel of its own.

    Args:
        environment: variables it gets besides this process's own; None as a value takes one away.
        name: of the kernelspec.
    """

    def __init__(self, environment: Mapping[str, str | None], name: str = "python3") -> None:
        given = {**os.environ, **environment}
        self._manager = KernelManager(kernel_name=name)
        self._manager.start_kernel(env={k: v for k, v in given.items() if v is not None})
        self.client = self._manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=60)

    def start(self, code: str) -> str:
        """Begin to run a cell; return the id of the request."""
        return str(self.client.execute(code, stop_on_error=False))

    def finish(self, request: str, seconds: float = 60) -> dict[str, Any]:
        """Wait for a cell's reply."""
        ends = time.monotonic() + seconds
        while True:
            reply = self.client.get_shell_msg(timeout=ends - time.monotonic())
            if reply["parent_header"].get("msg_id") == request:
                content: dict[str, Any] = reply["content"]
                return content

    def run(self, code: str) -> None:
        """Run a cell; raise where it raises."""
        reply = self.finish(self.start(code))
        assert reply["status"] == "ok", "\n".join(reply["traceback"])

    def error(self, code: str) -> str:
        """Run a cell that raises; return the error's name and text."""
        reply = self.finish(self.start(code))
        assert reply["status"] == "error"
        return f"{reply['ename']}: {reply['evalue']}"

    def value(self, expression: str) -> Any:
        """Return what an expression is in the kernel, by its repr."""
        request = self.client.execute("", user_expressions={"value": expression})
        found = self.finish(str(request))["user_expressions"]["value"]
        assert found["status"] == "ok", "\n".join(found.get("traceback", []))
        return ast.literal_eval(found["data"]["text/plain"])

    def told(self) -> list[dict[str, Any]]:
        """Return the messages that came on iopub since the last call."""
        found = []
        while True:
            try:
                found.append(self.client.get_iopub_msg(timeout=0.1))
            except Empty:
                return found

    def until_printed(self, text: str, seconds: float = 30) -> None:
        """Wait until a cell prints a text."""
        ends = time.monotonic() + seconds
        while True:
            message = self.client.get_iopub_msg(timeout=ends - time.monotonic())
            if text in message["content"].get("text", ""):
                return

    def interrupt(self) -> None:
        """Press ■."""
        self._manager.interrupt_kernel()

    def kill(self) -> None:
        """End it with SIGKILL."""
        self._manager.signal_kernel(9)

    def close(self) -> None:
        """Let it go."""
        self.client.stop_channels()
        self._manager.shutdown_kernel(now=True)
        self._manager.cleanup_resources()
        self.client.context.destroy()
