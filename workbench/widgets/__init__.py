"""Widgets: thin views over objects that exist without them."""

from workbench.widgets.dataset_view import DatasetView, dataset
from workbench.widgets.descent_view import DescentView, descent
from workbench.widgets.model_view import ModelView, model
from workbench.widgets.stills import still
from workbench.widgets.training_view import TrainingView, view

__all__ = [
    "DatasetView",
    "DescentView",
    "ModelView",
    "TrainingView",
    "dataset",
    "descent",
    "model",
    "still",
    "view",
]
