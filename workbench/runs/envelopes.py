"""The determinism envelope: what the kernel's environment fixes before anything is loaded.

Thread counts and instruction sets are read by libraries as they load, so they cannot be set in a
cell. A run records its envelope, and `workbench verify` runs in it again.
"""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Literal

import psutil

from workbench.errors import RequestError, UnknownNameError
from workbench.machines import processor_flags
from workbench.types import JSON

__all__ = ["Envelope", "Level", "make_envelope"]

Level = Literal["same-machine", "any-x86"]

_ALWAYS = {
    "PYTHONHASHSEED": "0",  # or the order of a set would differ from run to run
    "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
}
# What gives the same float32 numbers on Intel and AMD, each needed beside the others
# (FastSurfer#892). One thread, since another count adds in another order.
_ANY_X86 = {
    "OMP_NUM_THREADS": "1",
    "ATEN_CPU_CAPABILITY": "avx2",
    "ONEDNN_MAX_CPU_ISA": "AVX2",
    "MKL_CBWR": "COMPATIBLE",
    "OPENBLAS_CORETYPE": "Haswell",
    "NPY_DISABLE_CPU_FEATURES": "X86_V4 AVX512F AVX512CD AVX512_SKX AVX512_CLX AVX512_CNL"
    " AVX512_ICL AVX512_SPR",
}
_HEEDED = (  # by libraries as they load, where the user has set them
    *("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS", "ATEN_CPU_CAPABILITY"),
    *("ONEDNN_MAX_CPU_ISA", "DNNL_MAX_CPU_ISA", "MKL_CBWR", "MKL_ENABLE_INSTRUCTIONS"),
    *("OPENBLAS_CORETYPE", "NPY_DISABLE_CPU_FEATURES", "NPY_ENABLE_CPU_FEATURES"),
    *("NVIDIA_TF32_OVERRIDE", "TORCH_ALLOW_TF32_CUBLAS_OVERRIDE", "CUDA_VISIBLE_DEVICES"),
)
_NOTES: Mapping[str, str] = {
    "same-machine": "the same numbers are promised on the machine that made them",
    "any-x86": "instruction sets are capped to be the same on any x86 processor with AVX2; not "
    "verified across processors until `workbench verify` has run on another one",
}


@dataclass(frozen=True)
class Envelope:
    """What decides a run's numbers besides its code, its data and its parameters.

    Args:
        level: how far the numbers are promised to be the same.
        variables: of the kernel's environment.
        note: what the level promises, and what was not verified.
    """

    level: str
    variables: Mapping[str, str]
    note: str

    @property
    def threads(self) -> int | str:
        """How many threads a library may use, a number where it is one."""
        n = self.variables.get("OMP_NUM_THREADS", "")
        return int(n) if n.isdecimal() else n

    def around(self, environment: Mapping[str, str]) -> dict[str, str]:
        """Return an environment in which the envelope alone decides what it is about."""
        rest = {name: value for name, value in environment.items() if name not in _HEEDED}
        return {**rest, **self.variables}

    def to_json(self) -> JSON:
        """Return the envelope as the record of a run keeps it."""
        return {**asdict(self), "variables": dict(self.variables)}

    @classmethod
    def from_json(cls, data: JSON) -> Envelope:
        """Return the envelope that `to_json` wrote."""
        return cls(data["level"], data["variables"], data["note"])


def make_envelope(level: str = "same-machine", *, threads: int | None = None) -> Envelope:
    """Return the envelope of a run on this machine.

    The thread count is the number of physical cores, whatever else the machine is doing, since
    numbers depend on it; what the user has set in the environment counts for `"same-machine"`.

    Args:
        level: `"same-machine"`, or `"any-x86"` for one thread and capped instruction sets, which is
            slower.
        threads: that a library may use where the user has not said; by default one a physical
            core.

    Raises:
        UnknownNameError: there is no such level.
        RequestError: this machine is no x86 with AVX2.
    """
    if level not in _NOTES:
        raise UnknownNameError("level of determinism", level, _NOTES)
    cores = threads or psutil.cpu_count(logical=False) or os.cpu_count() or 1
    theirs = {name: os.environ[name] for name in _HEEDED if name in os.environ}
    variables = {"OMP_NUM_THREADS": str(cores), **theirs, **_ALWAYS}
    if level == "any-x86":
        _check_x86()
        variables = {**_ALWAYS, **_ANY_X86}
    return Envelope(level, variables, _NOTES[level])


def _check_x86() -> None:
    machine, flags = platform.machine(), processor_flags()
    if machine not in ("x86_64", "AMD64") or (flags and "avx2" not in flags):
        found = machine if "avx2" in flags or not flags else f"{machine} without AVX2"
        raise RequestError(
            f"deterministic='any-x86' is for x86 processors with AVX2, this is {found}: "
            "take 'same-machine'"
        )
