"""`Past`: what a training goes back by, and what stands in for it where only its files are left."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import ref

from torch import nn

from workbench.attached import attached
from workbench.errors import RequestError
from workbench.progress import is_live
from workbench.training.augmentations import AUGMENTATIONS
from workbench.training.averages import EMA, Lookahead
from workbench.training.blaming import Blame, blamed
from workbench.training.branching import Branch, branched
from workbench.training.optimizers import OPTIMIZERS
from workbench.training.planning import taken
from workbench.training.rewinding import Given, Told, figures_at, no_model, weights_at
from workbench.training.schedules import SCHEDULES
from workbench.training.settings import Settings
from workbench.training.trainings import Training
from workbench.types import JSON

__all__ = ["Past", "given_again"]

_LOSSES = ("cross_entropy", "mse")


@dataclass
class Past:
    """Goes back in a training.

    Args:
        given: what `fit` was given; None where this process has it no more.
        go_on: lets a branch take its steps; is given it, and when the user began to wait.
    """

    given: Given | None
    go_on: Callable[[Branch, float], None]

    def forget(self) -> None:
        """Let go of the data, since nobody holds the model any more."""
        self.given = None

    def at(
        self,
        training: Training,
        step: int,
        model: nn.Module | None = None,
        data: Any = None,
        *,
        told: Told | None = None,
    ) -> nn.Module:
        """See `Training.at`; `told` is called after each step, instead of a bar."""
        given = self._with(training, model, data)
        found = weights_at(training, given, step, told=told)
        remembered = attached(found).training
        assert remembered is not None
        remembered.past = Past(replace(given, model=ref(found)), self.go_on)
        return found

    def figures(
        self, training: Training, step: int, *, told: Told | None = None
    ) -> dict[str, float]:
        """Return what the weights after a step come to on the validation split, by name."""
        return figures_at(training, self._with(training, None, None), step, told=told)

    def blame(
        self,
        training: Training,
        step: int,
        n: int,
        model: nn.Module | None = None,
        data: Any = None,
        *,
        told: Told | None = None,
    ) -> Blame:
        """See `Training.blame`; `told` is called after each step, instead of a bar."""
        return blamed(training, self._with(training, model, data), step, n, told=told)

    def branch(
        self,
        training: Training,
        step: int,
        name: str | None,
        model: nn.Module | None,
        data: Any,
        changes: Mapping[str, Any],
        *,
        told: Told | None = None,
        made: Callable[[Training], None] | None = None,
    ) -> Training:
        """See `Training.branch`.

        Args:
            training: to go back in.
            step: after which.
            name: of the branch, or None.
            model: as `fit` was given it, or None.
            data: likewise.
            changes: arguments of `fit`.
            told: called after each step that is taken again, instead of a bar.
            made: called before the branch's own first step, instead of showing both.
        """
        since, given = time.perf_counter(), self._with(training, model, data)
        branch = branched(training, given, step, name, changes, told=told)
        branch.training.past = Past(branch.given, self.go_on)
        if made is not None:
            made(branch.training)
        elif is_live():
            from IPython.display import display

            display(training.show(branch.training))
        self.go_on(branch, since)
        return branch.training

    def _with(self, training: Training, model: nn.Module | None, data: Any) -> Given:
        if model is not None and data is not None:
            return given_again(training, model, data)
        if self.given is None:
            raise no_model(training)
        return self.given


def given_again(training: Training, model: nn.Module, data: Any) -> Given:
    """Return what `fit` was given, from the record of a training and what that cannot hold.

    Args:
        training: whose settings say the rest.
        model: as it was given to `fit`, with any weights; left alone.
        data: likewise.

    Raises:
        RequestError: it was other data, or a function of the user's own decided something.
    """
    if not isinstance(model, nn.Module):
        raise RequestError(f"model= takes a model, got {type(model).__name__}")
    described, loader = taken("going back", data, model)
    then = training.settings.fingerprint
    if then and then != described.fingerprint:
        raise RequestError(
            f"training {training.name!r} learned from {training.settings.data!r} "
            f"({then[:12]}), got {described.name!r} ({described.fingerprint[:12] or 'unknown'}): "
            "pass the data that it had"
        )
    asked = _asked(training.name, training.settings)
    return Given.of(model, attached(model).preprocessing, described, loader, asked)


def _asked(name: str, settings: Settings) -> JSON:
    """Return the arguments of `fit` that come to some settings."""
    _check_named(name, "optimizer", settings.optimizer, OPTIMIZERS)
    _check_named(name, "schedule", settings.schedule, SCHEDULES)
    _check_named(name, "loss", settings.loss, _LOSSES)
    for augment in settings.augment:
        _check_named(name, "augment", augment, AUGMENTATIONS)
    same = ("batch_size", "optimizer", "momentum", "weight_decay", "schedule", "label_smoothing")
    also = ("augment", "clip", "accumulate", "precision", "compile", "device", "seed")
    return {
        **{key: getattr(settings, key) for key in (*same, *also)},
        "lr": {"": settings.lr, **settings.lr_of} if settings.lr_of else settings.lr,
        "loss": None,
        "class_weights": settings.class_weights or None,
        "average": _average(name, settings.average),
    }


def _average(name: str, written: str) -> Any:
    """Return the average that is written so."""
    if not written:
        return "none"
    known = {kind.__name__: kind for kind in (EMA, Lookahead)}
    kind = written.partition("(")[0]
    _check_named(name, "average", kind, known)
    call = ast.parse(written, mode="eval").body
    assert isinstance(call, ast.Call)
    values = {str(k.arg): ast.literal_eval(k.value) for k in call.keywords}
    return known[kind](**values)


def _check_named(training: str, what: str, name: str, known: Any) -> None:
    if name not in known:
        raise RequestError(
            f"training {training!r} was given {what}={name}, a function of somebody's own, of "
            f"which its record has the name alone: fit(model, data, {what}=..., "
            f"name={training!r}, resume=True) takes it up again, and then it goes back"
        )
