"""Training: `fit` a model to a dataset and get its history."""

from workbench.training.fitting import fit
from workbench.training.histories import History
from workbench.training.trainings import Settings, Training

__all__ = ["History", "Settings", "Training", "fit"]
