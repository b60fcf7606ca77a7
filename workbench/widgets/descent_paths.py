"""Four kinds of descent on the loss surface of a model with two weights, in NumPy.

`descent_paths.js` computes the same paths in the page; tests hold both to each other and to torch.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from workbench.datasets import load
from workbench.types import JSON

__all__ = ["BETA", "METHODS", "MOST_STEPS", "Numbers", "Surface", "order", "paths", "surfaces"]

METHODS = ("gradient descent", "SGD", "momentum", "Adam")
MOST_STEPS = 1000
BETA = 0.9  # what momentum and the mean of Adam keep of the step before
_SQUARES, _EPSILON = 0.999, 1e-8  # of Adam, as torch has them
_LOST = 1e6  # a loss above which a path ends
_32_BITS = 0xFFFFFFFF

Numbers: TypeAlias = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Surface:
    """The mean squared error of a model with two weights on a few points.

    Args:
        name: in the list of surfaces.
        formula: of the model, to be read.
        kind: `"line"`, θ₀ + θ₁x; or `"neuron"`, θ₁ tanh(θ₀x).
        x: inputs, shaped (points,).
        y: targets, shaped (points,).
        low: θ₀ and θ₁ at the lower left of the picture.
        high: θ₀ and θ₁ at its upper right.
        start: where the descents begin.
        minima: where the loss is least.
    """

    name: str
    formula: str
    kind: str
    x: Numbers
    y: Numbers
    low: tuple[float, float]
    high: tuple[float, float]
    start: tuple[float, float]
    minima: Numbers

    def loss(self, theta: Numbers) -> Numbers:
        """Return the loss of weights shaped (..., 2), shaped (...)."""
        first, second = theta[..., :1], theta[..., 1:]
        line = self.kind == "line"
        predicted = first + second * self.x if line else second * np.tanh(first * self.x)
        squares: Numbers = (predicted - self.y) ** 2
        return np.asarray(squares.mean(-1))

    def gradient(self, theta: Numbers, rows: npt.NDArray[np.int64]) -> Numbers:
        """Return the gradient of the loss of some of the points, shaped (2,)."""
        x, y = self.x[rows], self.y[rows]
        if self.kind == "line":
            wrong = theta[0] + theta[1] * x - y
            return 2 * np.array([wrong.mean(), (wrong * x).mean()])
        bent = np.tanh(theta[0] * x)
        wrong = theta[1] * bent - y
        return 2 * np.array([(wrong * theta[1] * x * (1 - bent**2)).mean(), (wrong * bent).mean()])

    def limits(self) -> list[float]:
        """Return 2/λmax by batch size, from 1 on: the least of all batches; none of a neuron.

        Steps of gradient descent with a larger learning rate leave a quadratic bowl. Of batches of
        one size the one with the largest inputs is the steepest, since no input is negative.
        """
        if self.kind != "line":
            return []
        found = []
        for size in range(1, len(self.x) + 1):
            x = np.sort(self.x)[-size:]
            curvature = 2 * np.array([[1, x.mean()], [x.mean(), (x**2).mean()]])
            found.append(float(2 / np.linalg.eigvalsh(curvature)[-1]))
        return found

    def to_json(self) -> JSON:
        """Return all that a page needs to compute and draw it."""
        plain = {"name": self.name, "formula": self.formula, "kind": self.kind}
        places = {"low": self.low, "high": self.high, "start": self.start}
        figures = {"x": self.x.tolist(), "y": self.y.tolist(), "minima": self.minima.tolist()}
        lists = {name: list(value) for name, value in places.items()}
        return {**plain, **lists, **figures, "limits": self.limits()}


@cache
def surfaces() -> dict[str, Surface]:
    """Return the surfaces by name: a line with noise, the five points of `line`, one neuron."""
    rng = np.random.default_rng(0)
    five = load("line").train
    x = np.linspace(0.2, 4, 20).round(2)
    noisy = (1 + 0.5 * x + rng.normal(0, 0.4, len(x))).round(2)
    both = np.linspace(-2, 2, 12).round(2)
    bent = (1.5 * np.tanh(1.2 * both) + rng.normal(0, 0.1, len(both))).round(2)
    found = (
        _of_line("noisy line", x, noisy, ((-2, -1), (4, 3), (-1.4, 2.6))),
        _of_line("five points of y = x", five.inputs.double().numpy()[:, 0],
                 five.targets.double().numpy(), ((-4, -1), (4, 3), (-3, 2.6))),
        _of_neuron("one neuron", both, bent, ((-3, -3), (3, 3), (-0.3, 2.4))),
    )  # fmt: skip
    return {surface.name: surface for surface in found}


_Corners: TypeAlias = tuple[tuple[float, float], tuple[float, float], tuple[float, float]]


def _of_line(name: str, x: Numbers, y: Numbers, corners: _Corners) -> Surface:
    design = np.stack([np.ones_like(x), x], 1)
    best = np.asarray(np.linalg.lstsq(design, y, rcond=None)[0], np.float64)
    return Surface(name, "ŷ = θ₀ + θ₁x", "line", x, y, *corners, np.array([best]))


def _of_neuron(name: str, x: Numbers, y: Numbers, corners: _Corners) -> Surface:
    """Return the surface with two minima, since −θ predicts what θ predicts."""
    from scipy.optimize import least_squares

    best: Numbers = least_squares(lambda theta: theta[1] * np.tanh(theta[0] * x) - y, (1.0, 1.0)).x
    return Surface(name, "ŷ = θ₁ tanh(θ₀x)", "neuron", x, y, *corners, np.array([best, -best]))


def paths(
    surface: Surface,
    start: tuple[float, float],
    *,
    rate: float,
    batch: int,
    steps: int,
    uphill: bool = False,
) -> dict[str, Numbers]:
    """Return the path of each method, shaped (up to `steps` + 1, 2), its start included.

    Gradient descent takes all points at every step, the others the same batches. A path ends where
    its loss is above 10⁶.

    Args:
        surface: to go down on.
        start: θ₀ and θ₁.
        rate: learning rate α.
        batch: points a step; with all of them SGD is gradient descent.
        steps: to take.
        uphill: whether the sign is wrong: θ ← θ + α∇L.
    """
    every = np.arange(len(surface.x))
    sign = 1.0 if uphill else -1.0
    found = {}
    for method in METHODS:
        theta, memory = np.array(start, float), np.zeros((2, 2))
        path, batches = [theta], _batches(len(every), batch)
        for step in range(1, steps + 1):
            if not surface.loss(theta) <= _LOST:
                break
            rows = every if method == "gradient descent" else next(batches)
            gradient = surface.gradient(theta, rows)
            theta = theta + sign * rate * _direction(method, memory, gradient, step)
            path.append(theta)
        found[method] = np.stack(path)
    return found


def _direction(method: str, memory: Numbers, gradient: Numbers, step: int) -> Numbers:
    """Return what the learning rate is multiplied with; `memory` is brought up to date."""
    if method == "momentum":
        memory[0] = BETA * memory[0] + gradient
        return np.array(memory[0])
    if method == "Adam":
        memory[0] = BETA * memory[0] + (1 - BETA) * gradient
        memory[1] = _SQUARES * memory[1] + (1 - _SQUARES) * gradient**2
        mean, square = memory[0] / (1 - BETA**step), memory[1] / (1 - _SQUARES**step)
        return np.asarray(mean / (np.sqrt(square) + _EPSILON))
    return gradient


def _batches(count: int, size: int) -> Iterator[npt.NDArray[np.int64]]:
    """Yield the rows of batch after batch; what is left of an epoch is a smaller one."""
    epoch = 0
    while True:
        rows = np.array(order(count, epoch))
        yield from (rows[first : first + size] for first in range(0, count, size))
        epoch += 1


@cache
def order(count: int, epoch: int) -> tuple[int, ...]:
    """Return the rows in the order of an epoch: shuffled by Fisher and Yates, as in the page."""
    rows, draws = list(range(count)), _mulberry(epoch)
    for last in range(count - 1, 0, -1):
        other = int(next(draws) * (last + 1))
        rows[last], rows[other] = rows[other], rows[last]
    return tuple(rows)


def _mulberry(seed: int) -> Iterator[float]:
    """Yield uniform numbers of the generator Mulberry32, which takes a line in JavaScript too."""
    state = seed
    while True:
        state = (state + 0x6D2B79F5) & _32_BITS
        mixed = ((state ^ state >> 15) * (state | 1)) & _32_BITS
        mixed ^= (mixed + (mixed ^ mixed >> 7) * (mixed | 61)) & _32_BITS
        yield (mixed ^ mixed >> 14) / 2**32
