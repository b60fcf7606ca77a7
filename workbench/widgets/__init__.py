"""Widgets: thin views over objects that exist without them."""

from workbench.widgets.stills import still
from workbench.widgets.training_view import TrainingView, view

__all__ = ["TrainingView", "still", "view"]
