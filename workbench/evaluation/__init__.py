"""Judging a model: `predict` answers rows, `evaluate` scores a split."""

from workbench.evaluation.evaluations import Evaluation, evaluate
from workbench.evaluation.inference import Prediction, infer, predict, preprocessing_of

__all__ = ["Evaluation", "Prediction", "evaluate", "infer", "predict", "preprocessing_of"]
