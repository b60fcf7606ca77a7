"""Judging a model: `predict` answers rows, `evaluate` scores a split, others ask how sure that is.

The names are imported when they are first used: `significance` alone loads no torch.
"""

from typing import TYPE_CHECKING

import lazy_loader as lazy

if TYPE_CHECKING:
    from workbench.evaluation.comparing import Comparison
    from workbench.evaluation.corruptions import Robustness, robustness
    from workbench.evaluation.diagnosing import (
        Diagnosis,
        LearningCurve,
        diagnose,
        learning_curve,
    )
    from workbench.evaluation.evaluations import Evaluation, evaluate
    from workbench.evaluation.inference import Prediction, infer, predict, preprocessing_of

__all__ = [
    "Comparison",
    "Diagnosis",
    "Evaluation",
    "LearningCurve",
    "Prediction",
    "Robustness",
    "diagnose",
    "evaluate",
    "infer",
    "learning_curve",
    "predict",
    "preprocessing_of",
    "robustness",
]

__getattr__, __dir__, _ = lazy.attach(
    __name__,
    submod_attrs={
        "comparing": ["Comparison"],
        "corruptions": ["Robustness", "robustness"],
        "diagnosing": ["Diagnosis", "LearningCurve", "diagnose", "learning_curve"],
        "evaluations": ["Evaluation", "evaluate"],
        "inference": ["Prediction", "infer", "predict", "preprocessing_of"],
    },
)
