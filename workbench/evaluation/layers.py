"""`Layer`: what is known of one layer of a model, summed up over its outputs part by part."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from workbench.evaluation.activations import Activation

__all__ = ["Layer", "Tally"]

_KEPT = 2**15  # outputs of a layer that are kept to see how they spread
_BINS = 40
_ENDS = {"sigmoid": (0.0, 1.0), "hardsigmoid": (0.0, 1.0), "tanh": (-1.0, 1.0)}
_NEAR = 0.01  # an output so near to an end of its range is saturated
_LISTED = 20  # units that are named
_MANY = 0.5  # share of saturated outputs that is worth a warning
_PASSING = {  # what only hands on the zeros of the layer before: they are counted there
    f"torch.nn.modules.{name}"
    for name in ("pooling", "dropout", "flatten", "padding", "upsampling", "pixelshuffle")
}


@dataclass(frozen=True)
class Layer:
    """One call of a layer, or of an activation function between layers, on fixed rows.

    Args:
        name: as the model calls it, `relu after conv1` for a function; unique in a survey.
        kind: class of the layer, or name of the function; empty for what is in no layer.
        output: shape of one row's output, units first; empty where nothing could be seen.
        parameters: how many numbers it holds itself; a layer that is called again counts no more.
        multiply_adds: of one row.
        units: how many channels or features it answers with.
        mean: of all outputs, as are `std`, `low` and `high`, the smallest and largest.
        zeros: share of the outputs that are 0.
        dead: units that are 0 for every row and place; None where a layer only hands on.
        saturated: share of the outputs within 0.01 of an end of their range; None without ends.
        stuck: units that are so for every row and place.
        weight_norm: Euclidean norm of its parameters, biases left out; None without any.
        spread: how many of its outputs lie in each of 40 bins of equal width from `low` to `high`;
            of more than 32,768 outputs, as many are picked evenly.
    """

    name: str
    kind: str
    output: str = ""
    parameters: int = 0
    multiply_adds: int = 0
    units: int = 0
    mean: float = math.nan
    std: float = math.nan
    low: float = math.nan
    high: float = math.nan
    zeros: float = math.nan
    dead: tuple[int, ...] | None = None
    saturated: float | None = None
    stuck: tuple[int, ...] = ()
    weight_norm: float | None = None
    spread: tuple[int, ...] = field(default=(), repr=False)

    @property
    def is_seen(self) -> bool:
        """Whether its outputs could be seen."""
        return bool(self.output)

    @property
    def warning(self) -> str:
        """What is wrong with it, in words; empty where nothing is."""
        if self.is_seen and not math.isfinite(self.mean):
            return "NaN or infinite outputs"
        if self.dead:
            return f"{len(self.dead):,} of {self.units:,} units dead"
        if self.saturated is not None and self.saturated >= _MANY:
            return f"{100 * self.saturated:.0f} % of outputs saturated"
        return ""

    @property
    def words(self) -> list[str]:
        """What is known of it, in sentences."""
        said = []
        if self.is_seen:
            zeros = f"{100 * self.zeros:.3g} % of them are" if self.zeros else "none of them is"
            said.append(
                f"Outputs: mean {self.mean:.3g}, standard deviation {self.std:.3g}, from "
                f"{self.low:.3g} to {self.high:.3g}; {zeros} 0."
            )
            said.append(self._said_of_dead())
        if self.saturated is not None:
            always = f", always so: {_listed(self.stuck)}" if self.stuck else ""
            said.append(
                f"Saturated, within {_NEAR} of an end of their range: {100 * self.saturated:.3g} % "
                f"of the outputs{always}."
            )
        if self.weight_norm is not None:
            said.append(f"Weights of norm {self.weight_norm:.4g}.")
        return said

    def _said_of_dead(self) -> str:
        if self.dead is None:
            return "It hands on what it is given: dead units are counted in the layer before."
        if not self.dead:
            return "No unit is dead: each is other than 0 for some row."
        return f"Dead, which is 0 for every row and place: {_listed(self.dead)}."


class Tally:
    """Sums over the outputs of one layer, part after part.

    Args:
        seen: the first part, which is not counted yet.
        rows: how many there will be.
    """

    def __init__(self, seen: Activation, rows: int) -> None:
        self._seen_as = seen.name, seen.kind, seen.shape
        self._layer = seen.layer
        self._ends = _ENDS.get(seen.kind.lower())
        self._n = self._zeros = self._near = 0
        self._mean = self._squares = 0.0
        self._low, self._high = math.inf, -math.inf
        units = seen.values.shape[1]
        self._alive = torch.zeros(units, dtype=torch.bool)
        self._free = torch.zeros(units, dtype=torch.bool)  # ever away from the ends
        self._share = min(1.0, _KEPT / max(1, seen.values[:1].numel() * rows))
        self._kept: list[Tensor] = []

    def add(self, values: Tensor) -> None:
        """Count the outputs of a part, shaped (rows, units, places)."""
        if values.numel() == 0:
            return
        self._add_moments(values)
        self._low = min(self._low, float(values.amin()))
        self._high = max(self._high, float(values.amax()))
        other = values != 0
        self._zeros += values.numel() - int(other.sum())
        self._alive = _also(self._alive, other)
        if self._ends is not None:
            low, high = self._ends
            near = (values < low + _NEAR) | (values > high - _NEAR)
            self._near += int(near.sum())
            self._free = _also(self._free, ~near)
        n = math.ceil(self._share * values.numel())
        picked = torch.linspace(0, values.numel() - 1, n, dtype=torch.float64).long()
        self._kept.append(values.flatten()[picked.to(values.device)].cpu())

    def _add_moments(self, values: Tensor) -> None:
        """Join mean and squares with those so far, as Chan, Golub and LeVeque do (1979)."""
        n = values.numel()
        std, mean = (float(figure) for figure in torch.std_mean(values, correction=0))
        off, self._n = mean - self._mean, self._n + n
        self._mean += off * n / self._n
        self._squares += n * std**2 + off**2 * n * (self._n - n) / self._n

    def layer(self, parameters: int, multiply_adds: int) -> Layer:
        """Return what was found, beside what the layer holds and costs."""
        name, kind, shape = self._seen_as
        n = max(self._n, 1)
        return Layer(
            name,
            kind,
            output="×".join(map(str, shape)),
            parameters=parameters,
            multiply_adds=multiply_adds,
            units=shape[0],
            mean=self._mean,
            std=math.sqrt(self._squares / n),
            low=self._low,
            high=self._high,
            zeros=self._zeros / n,
            dead=None if _hands_on(self._layer) else _where(~self._alive),
            saturated=None if self._ends is None else self._near / n,
            stuck=() if self._ends is None else _where(~self._free),
            weight_norm=_weight_norm(self._layer),
            spread=_spread(self._kept, self._low, self._high),
        )


def _spread(kept: Sequence[Tensor], low: float, high: float) -> tuple[int, ...]:
    """Count values in bins of equal width, the largest in the last one."""
    values = torch.cat([*kept, torch.empty(0)]).double()
    values = values[values.isfinite()]
    if not math.isfinite(high - low):
        return ()
    places = (values - low) * (_BINS / (high - low)) if high > low else torch.zeros_like(values)
    return tuple(torch.bincount(places.long().clamp(0, _BINS - 1), minlength=_BINS).tolist())


def _also(so_far: Tensor, now: Tensor) -> Tensor:
    """Return in which units something was ever true; None of a layer whose units vary."""
    found = now.any(2).any(0).cpu()
    return so_far | found if so_far.shape == found.shape else torch.ones_like(so_far)


def _where(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero().flatten().tolist())


def _hands_on(layer: nn.Module | None) -> bool:
    return isinstance(layer, nn.Identity) or type(layer).__module__ in _PASSING


def _weight_norm(layer: nn.Module | None) -> float | None:
    """Return the norm of all weights of a layer itself, or None where it has none."""
    if layer is None:
        return None
    own = layer.named_parameters(recurse=False)
    weights = [p.detach().double().square().sum() for name, p in own if "bias" not in name]
    return math.sqrt(float(torch.stack(weights).sum())) if weights else None


def _listed(units: tuple[int, ...]) -> str:
    more = f" and {len(units) - _LISTED:,} more" if len(units) > _LISTED else ""
    return f"unit{'s'[: len(units) - 1]} {', '.join(map(str, units[:_LISTED]))}{more}"
