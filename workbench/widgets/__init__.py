"""Widgets: thin views over objects that exist without them."""

from workbench.widgets.dataset_view import DatasetView, dataset
from workbench.widgets.descent_view import DescentView, descent
from workbench.widgets.home_view import HomeView, home
from workbench.widgets.model_view import ModelView, model
from workbench.widgets.stills import still
from workbench.widgets.training_view import TrainingView, view

__all__ = [
    "DatasetView",
    "DescentView",
    "HomeView",
    "ModelView",
    "TrainingView",
    "dataset",
    "descent",
    "home",
    "model",
    "still",
    "view",
]
