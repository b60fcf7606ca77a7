"""Models: `build` one by name; `summary` of any; tricks that work on any net's layers."""

from workbench.models.catalogue import BUILDERS, build, construct
from workbench.models.norms import FastBiasNorm
from workbench.models.starts import dirac, whiten
from workbench.models.summaries import Summary, summary

__all__ = [
    "BUILDERS",
    "FastBiasNorm",
    "Summary",
    "build",
    "construct",
    "dirac",
    "summary",
    "whiten",
]
