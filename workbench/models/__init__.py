"""Models: `build` one by name; `summary` of any."""

from workbench.models.catalogue import BUILDERS, build, construct
from workbench.models.summaries import Summary, summary

__all__ = ["BUILDERS", "Summary", "build", "construct", "summary"]
