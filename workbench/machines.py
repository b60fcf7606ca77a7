"""What this machine is, as far as it can be told without torch."""

from __future__ import annotations

import platform

__all__ = ["processor", "processor_flags"]


def processor() -> str:
    """Return the name of the processor."""
    found = _cpuinfo("model name")
    return found if found else platform.processor()


def processor_flags() -> set[str]:
    """Return what the processor can do, in Linux's words; nothing where that is not told."""
    return set(_cpuinfo("flags").split())


def _cpuinfo(field: str) -> str:
    """Return what Linux says of the first processor; nothing elsewhere."""
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            lines = [line for line in file if line.startswith(field)]
    except OSError:
        return ""
    return lines[0].split(":", 1)[1].strip() if lines else ""
