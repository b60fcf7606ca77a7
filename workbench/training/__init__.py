"""Training: `fit` a model to a dataset, and get a history and checkpoints to go on from."""

from workbench.training.averages import EMA, Lookahead
from workbench.training.callbacks import Callback, EarlyStopping, RecordEpochs
from workbench.training.checkpoints import Checkpoint
from workbench.training.finding import LearningRates, find_lr
from workbench.training.fitting import fit
from workbench.training.histories import History
from workbench.training.recorded import list_trainings
from workbench.training.settings import Settings
from workbench.training.trainings import Training

__all__ = [
    "EMA",
    "Callback",
    "Checkpoint",
    "EarlyStopping",
    "History",
    "LearningRates",
    "Lookahead",
    "RecordEpochs",
    "Settings",
    "Training",
    "find_lr",
    "fit",
    "list_trainings",
]
