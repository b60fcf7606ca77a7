"""Runs: one execution of a parameterized notebook, and the honest record of it."""

from __future__ import annotations

from workbench.runs.execution import execute, run
from workbench.runs.index import find_run, list_runs
from workbench.runs.records import Run, RunList
from workbench.runs.spaces import LogUniform, Uniform
from workbench.runs.sweeps import Halving, Sweep, list_sweeps, sweep
from workbench.runs.verification import Verification, verify

__all__ = [
    "Halving",
    "LogUniform",
    "Run",
    "RunList",
    "Sweep",
    "Uniform",
    "Verification",
    "execute",
    "find_run",
    "list_runs",
    "list_sweeps",
    "run",
    "sweep",
    "verify",
]
