"""The device a model works on, and what this machine is, for the record."""

from __future__ import annotations

import contextlib
import os
import platform
import shutil
from collections.abc import Iterator

import torch
from torch import nn

from workbench.errors import RequestError
from workbench.machines import processor
from workbench.types import JSON

__all__ = ["choose_device", "cpp_compiler", "device_of", "hardware", "threads"]


def choose_device(device: str | torch.device | None = None) -> torch.device:
    """Return the device to work on: the one named, else a GPU where there is one, else the CPU.

    Args:
        device: `"cpu"`, `"cuda"`, `"cuda:1"`, `"mps"`, or None to choose.

    Raises:
        RequestError: the device is not one, or is not there.
    """
    if device is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        chosen = torch.device(device)
        torch.empty(0, device=chosen)
    except (RuntimeError, AssertionError) as error:
        raise RequestError(
            f"device {str(device)!r} cannot be used here: {str(error).splitlines()[0]}. "
            "Pass device='cpu', or None to let the workbench choose."
        ) from None
    return chosen


def device_of(model: nn.Module) -> torch.device:
    """Return the device that the model's parameters are on; the CPU where it has none."""
    return next((p.device for p in model.parameters()), torch.device("cpu"))


def cpp_compiler() -> str | None:
    """Return the C++ compiler that `torch.compile` would use on the CPU, or None."""
    names = (os.environ.get("CXX"), "g++", "clang++", "c++", "cl")
    return next((found for name in names if name and (found := shutil.which(name))), None)


@contextlib.contextmanager
def threads(n: int) -> Iterator[None]:
    """Let torch use `n` threads on the CPU for the while; how many decides the last digits."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def hardware() -> JSON:
    """Return what decides numbers and speed here: processor, instruction set, threads, GPUs."""
    return {
        "machine": platform.machine(),
        "processor": processor(),
        "instruction_set": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
    }
