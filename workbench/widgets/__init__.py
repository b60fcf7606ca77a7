"""Widgets: thin views over objects that exist without them."""

from workbench.widgets.dataset_view import DatasetView, dataset
from workbench.widgets.descent_view import DescentView, descent
from workbench.widgets.evaluation_view import EvaluationView, evaluation
from workbench.widgets.form_view import FormView, form
from workbench.widgets.home_view import HomeView, home
from workbench.widgets.model_view import ModelView, model
from workbench.widgets.runs_view import RunsView, runs
from workbench.widgets.service_view import ServiceView, service
from workbench.widgets.stills import still
from workbench.widgets.training_view import TrainingView, view
from workbench.widgets.try_view import TryView, try_it

__all__ = [
    "DatasetView",
    "DescentView",
    "EvaluationView",
    "FormView",
    "HomeView",
    "ModelView",
    "RunsView",
    "ServiceView",
    "TrainingView",
    "TryView",
    "dataset",
    "descent",
    "evaluation",
    "form",
    "home",
    "model",
    "runs",
    "service",
    "still",
    "try_it",
    "view",
]
