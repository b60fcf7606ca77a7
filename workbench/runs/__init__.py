"""Runs: one execution of a parameterized notebook, and the honest record of it."""

from __future__ import annotations

from workbench.runs.execution import execute, run
from workbench.runs.records import Run, RunList, list_runs

__all__ = ["Run", "RunList", "execute", "list_runs", "run"]
