"""Supervision: a service as a program of its own, which keeps its processes and its jobs going."""

from workbench.supervision.jobhost import JobHost
from workbench.supervision.supervising import Supervisor, supervise
from workbench.supervision.workers import Plan

__all__ = ["JobHost", "Plan", "Supervisor", "supervise"]
