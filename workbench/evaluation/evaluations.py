"""`evaluate`: everything there is to know of a model on a split, from one pass over it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from torch import Tensor, nn

from workbench.datasets import Split
from workbench.errors import RequestError
from workbench.evaluation import calibration, curves
from workbench.evaluation.answers import Answers, checked_split
from workbench.evaluation.examples import classified, regressed
from workbench.evaluation.inference import infer, preprocessing_of
from workbench.evaluation.losses import check_outputs, task_loss
from workbench.evaluation.metrics import class_scores, confusion_matrix, r_squared

if TYPE_CHECKING:
    from workbench.evaluation.comparing import Comparison
    from workbench.pictures import Picture
    from workbench.widgets import EvaluationView

__all__ = ["Evaluation", "evaluate"]


def evaluate(
    model: nn.Module, split: Split | None, *, batch_size: int = 512, mirror: bool = False
) -> Evaluation:
    """Return how well the model answers a split, from one pass over it.

    Args:
        model: any module whose outputs are logits or values, shaped (rows, outputs).
        split: `data.test`, `data.validation` or `data.train`.
        batch_size: how many rows go through the model at once.
        mirror: whether each image is asked together with its mirror image and the outputs are
            averaged: twice the work, for images whose left and right mean the same (test-time
            augmentation).

    Raises:
        RequestError: `split` is not a split or has one class alone, its rows or classes are not the
            model's, or `mirror` is asked of rows that are no images.
    """
    split = checked_split("evaluate", split)
    preprocessing = preprocessing_of(model, split.inputs)
    if preprocessing.classes and preprocessing.classes != split.classes:
        raise RequestError(
            f"the model was made for the classes {preprocessing.classes[:3]}..., the split has "
            f"{split.classes[:3]}...: evaluate it on data of its own classes"
        )
    raw = preprocessing.batch(split.inputs)
    outputs = infer(
        model, raw, preprocessing, batch_size=batch_size, mirror=mirror, label="evaluating"
    )
    check_outputs(outputs, split.targets, split.classes)
    return Evaluation(split=split, outputs=outputs)


@dataclass(frozen=True, eq=False, repr=False)
class Evaluation(Answers):
    """How well a model answers a split; every figure is computed when it is asked for.

    Figures of classes raise RequestError of a regression, and the other way round; those of
    probabilities where only labels are known, or an output is not finite.
    """

    @cached_property
    def loss(self) -> float:
        """The mean loss over the rows: cross-entropy in nats, or mean squared error."""
        if self.form != "outputs":
            self._check_graded("loss")
            return float(self._row_losses().mean())
        targets = self.targets if self.classes else self.targets.to(self.outputs.dtype)
        return float(task_loss(self.classes, outputs=self.outputs)(self.outputs, targets))

    @cached_property
    def accuracy(self) -> float:
        """The share of rows whose said class is the true one."""
        self._check_classes("accuracy")
        return float((self.predicted == self.targets).double().mean())

    @cached_property
    def confusion(self) -> Tensor:
        """Counts shaped (classes, classes), indexed [true, predicted]."""
        self._check_classes("confusion")
        return confusion_matrix(self.targets, self.predicted, len(self.classes))

    @cached_property
    def per_class(self) -> pd.DataFrame:
        """Precision, recall, F1 and support, a row a class."""
        self._check_classes("per_class")
        return class_scores(self.confusion, self.classes)

    @property
    def precision(self) -> float:
        """The mean of the classes' precisions (macro average)."""
        return float(self.per_class["precision"].mean())

    @property
    def recall(self) -> float:
        """The mean of the classes' recalls (macro average)."""
        return float(self.per_class["recall"].mean())

    @property
    def f1(self) -> float:
        """The mean of the classes' F1 scores (macro average)."""
        return float(self.per_class["f1"].mean())

    def top_k(self, k: int) -> float:
        """Return the share of rows whose true class is among the `k` likeliest.

        Raises:
            RequestError: `k` is no whole number from 1 to the number of classes.
        """
        return curves.top_k_share(self._chances("top_k"), self.targets.numpy(), k)

    def roc(self, positive: str | None = None) -> pd.DataFrame:
        """Return the ROC curve: threshold, false_positive_rate, true_positive_rate.

        Each row has the rates of saying the class where its probability is above the threshold, as
        `at(threshold)` does. NaN where the rows a rate is a share of are none, as in scikit-learn.

        Args:
            positive: a class, against all others; of two classes the second by default.
        """
        return curves.roc_curve(*self._against_rest("roc", positive))

    def roc_auc(self, positive: str | None = None) -> float:
        """Return the area under the ROC curve; NaN where a class has no rows, or all of them.

        Args:
            positive: a class, against all others; by default the second of two, or of several the
                mean over each.
        """
        names = self._positives("roc_auc", positive)
        return float(np.mean([curves.area(self.roc(name)) for name in names]))

    def precision_recall(self, positive: str | None = None) -> pd.DataFrame:
        """Return the curve of precision against recall: threshold, precision, recall.

        Each row has those of saying the class where its probability is above the threshold; the
        first says it never, with a precision of 1. Of a class without rows recall is 1 in all
        others, as in scikit-learn.

        Args:
            positive: a class, against all others; of two classes the second by default.
        """
        return curves.precision_recall_curve(*self._against_rest("precision_recall", positive))

    def average_precision(self, positive: str | None = None) -> float:
        """Return the mean precision over the recalls; 0 of a class without rows.

        Args:
            positive: a class, against all others; by default the second of two, or of several the
                mean over each.
        """
        names = self._positives("average_precision", positive)
        tables = [self.precision_recall(name) for name in names]
        return float(np.mean([curves.average_precision(table) for table in tables]))

    def calibration(self, bins: int = 10) -> pd.DataFrame:
        """Return how sure and how often right the rows of each bin of confidence were.

        Columns: from, to, rows, confidence (the mean probability of what was said), accuracy; the
        last two are NaN in an empty bin.

        Args:
            bins: how many, as wide as each other.
        """
        chances, said = self._chances("calibration"), self.predicted.numpy()
        confidence = np.take_along_axis(chances, said[:, None], axis=1)[:, 0]
        return calibration.calibration_bins(confidence, said == self.targets.numpy(), bins)

    def calibration_error(self, bins: int = 10) -> float:
        """Return the mean gap of confidence and accuracy over bins (ECE; Guo et al., 2017).

        Args:
            bins: how many; each counts by its rows.
        """
        return calibration.expected_error(self.calibration(bins))

    @property
    def brier(self) -> float:
        """The mean squared error of the probabilities, 0 to 1; of several classes summed, 0 to 2.

        Brier, 1950; both as in scikit-learn.
        """
        return calibration.brier_score(self._chances("brier"), self.targets.numpy())

    def temperature(self) -> float:
        """Return what the logits are to be divided by for the lowest loss of these rows.

        Ask it of the validation split, and judge `scaled(temperature)` of the test split (Guo et
        al., 2017). From 0.05, which rows that are all right come to, to 20.
        """
        self._chances("temperature")
        return calibration.best_temperature(self._every_logit.numpy(), self.targets.numpy())

    @cached_property
    def residuals(self) -> Tensor:
        """What is left of the truth, true - predicted: (rows, outputs) in double precision."""
        return self._residuals("residuals")

    @cached_property
    def mse(self) -> float:
        """The mean squared error, in the target's unit squared."""
        return float(self._residuals("mse").square().mean())

    @cached_property
    def mae(self) -> float:
        """The mean absolute error, in the target's unit."""
        return float(self._residuals("mae").abs().mean())

    @cached_property
    def r2(self) -> float:
        """The share of the targets' variance that is explained; 0 for always saying the mean."""
        self._residuals("r2")
        return r_squared(self.targets, self.outputs)

    @property
    def metrics(self) -> dict[str, float]:
        """The headline figures by name."""
        scores = ["accuracy", "precision", "recall", "f1"] if self.classes else ["mse", "mae", "r2"]
        losses = [] if self.form == "labels" else ["loss"]
        return {name: getattr(self, name) for name in (*losses, *scores)}

    @cached_property
    def examples(self) -> pd.DataFrame:
        """What was said of each row of the split, in its order.

        Of classes: row, true, predicted, p_true, p_predicted, loss (nats), right; where only labels
        are known, without probabilities and loss. Of a regression: row, true, predicted, residual
        (true - predicted); of several outputs `true_0` and so on.
        """
        if not self.classes:
            return regressed(self.targets, self.outputs)
        graded = self.form != "labels"
        losses = self._row_losses() if graded else None
        chances = self._every_chance if graded else None
        return classified(self.targets, self.predicted, self.classes, chances, losses)

    @cached_property
    def mistakes(self) -> pd.DataFrame:
        """The examples that were answered wrongly, the most surely wrong first."""
        self._check_classes("mistakes")
        wrong = self.examples[~self.examples["right"]].drop(columns="right")
        if "loss" in wrong:
            wrong = wrong.sort_values("loss", ascending=False, kind="stable")
        return wrong.reset_index(drop=True)

    def interval(
        self,
        figure: str | None = None,
        *,
        level: float = 0.95,
        resamples: int = 1000,
        seed: int = 0,
    ) -> tuple[float, float]:
        """Return where a figure would lie on other such rows: the bootstrap's middle `level`.

        Args:
            figure: one of `metrics`; by default accuracy, or mse of a regression.
            level: above 0 and below 1.
            resamples: how often the rows are drawn anew.
            seed: of the draws.
        """
        from workbench.evaluation.intervals import interval

        return interval(self, figure, level, resamples, seed)

    def margin(self, level: float = 0.9) -> float:
        """Return how far from a new row's output its true value lies at most, with chance `level`.

        Args:
            level: above 0; ask it of the validation split, and use it on others.
        """
        from workbench.evaluation.intervals import margin

        return margin(self, level)

    def slices(self, by: Any) -> pd.DataFrame:
        """Return how well each part of the rows was answered, a row a part, with an interval.

        Args:
            by: a name for each row of the split, in its order.
        """
        from workbench.evaluation.slicing import slices

        return slices(self, by)

    def against(self, other: Evaluation) -> Comparison:
        """Return how this differs from another's answers to the same rows, and if by chance."""
        from workbench.evaluation.comparing import compare_evaluations

        return compare_evaluations(self, other)

    def show(self, other: Evaluation | None = None) -> EvaluationView | Picture:
        """Return a view to look into: what was confused, mistakes, calibration, curves, residuals.

        Where no page lives, headless or in a script, it is a picture.

        Args:
            other: another's answers to the same rows, to be compared with these row by row.
        """
        from workbench.widgets import evaluation

        return evaluation(self, other)

    def plot_confusion(self) -> Picture:
        """Return a picture of the confusion matrix, each row as shares of its true class."""
        from workbench.evaluation.plots import confusion_figure

        return confusion_figure(self.confusion, self.classes)

    def plot_per_class(self) -> Picture:
        """Return a picture of each class's precision, recall and F1, the lowest F1 last."""
        from workbench.evaluation.plots import per_class_figure

        return per_class_figure(self.per_class)

    def plot_mistakes(self, n: int = 10) -> Picture:
        """Return a picture of the `n` most surely wrong images, each with what it is and was said.

        Raises:
            RequestError: the split holds no images.
        """
        from workbench.evaluation.plots import mistakes_figure

        return mistakes_figure(self.split, self.mistakes.head(n))

    def plot_roc(self) -> Picture:
        """Return a picture of the ROC curve; of several classes, each against all others."""
        from workbench.evaluation.curve_plots import roc_figure

        return roc_figure(self, self._positives("roc", None))

    def plot_precision_recall(self) -> Picture:
        """Return a picture of precision by recall; of several classes, each against all others."""
        from workbench.evaluation.curve_plots import precision_recall_figure

        return precision_recall_figure(self, self._positives("precision_recall", None))

    def plot_calibration(self, bins: int = 10) -> Picture:
        """Return a picture of accuracy by confidence, beside what it should be."""
        from workbench.evaluation.curve_plots import calibration_figure

        return calibration_figure(self.calibration(bins), self.calibration_error(bins))

    def plot_interval(self, figure: str | None = None, *, level: float = 0.95) -> Picture:
        """Return a picture of the figure on rows drawn anew, with its `interval`.

        Args:
            figure: one of `metrics`; by default accuracy, or mse of a regression.
            level: above 0 and below 1.
        """
        from workbench.evaluation.intervals import headline, resampled
        from workbench.evaluation.panels import interval_figure

        name = headline(self) if figure is None else figure
        return interval_figure(resampled(self, name), name, self.metrics[name], level)

    def plot_slices(self, by: Any) -> Picture:
        """Return a picture of the figure of each part of the rows, with its interval.

        Args:
            by: a name for each row of the split, in its order.
        """
        from workbench.evaluation.panels import slices_figure

        return slices_figure(self.slices(by))

    def plot_residuals(self) -> Picture:
        """Return a picture of predicted by true values, and of what is left over."""
        from workbench.evaluation.plots import residuals_figure

        self._residuals("plot_residuals")
        return residuals_figure(self.examples, self.outputs.shape[1])

    def __repr__(self) -> str:
        figures = ", ".join(f"{name} {value:.4g}" for name, value in self.metrics.items())
        return f"Evaluation of {len(self):,} rows: {figures}"

    def _positives(self, what: str, positive: str | None) -> tuple[str, ...]:
        self._check_classes(what)
        return curves.positives(self.classes, positive)

    def _against_rest(self, what: str, positive: str | None) -> tuple[Any, Any]:
        """Return the probability of one class, and which rows are of it."""
        chances, names = self._chances(what), self._positives(what, positive)
        if len(names) > 1:
            raise RequestError(
                f"{what} of {len(names)} classes is of one against all others: pass "
                f"{what}({names[0]!r}), or another"
            )
        index = self.classes.index(names[0])
        return chances[:, index], self.targets.numpy() == index

    def _residuals(self, what: str) -> Tensor:
        if self.classes:
            raise RequestError(f"a classification has no {what}: ask for accuracy, precision or f1")
        return self.targets.double().reshape(self.outputs.shape) - self.outputs.double()
