"""`wide` and `wide_nonlinear`: 1,000 inputs, one output, and the truth behind it known.

Both have the same inputs. All but the last step is arithmetic on whole numbers that float64 holds
exactly, so that every machine, whatever the order in which it sums, gives the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from workbench.datasets.splits import Card, Dataset, Split, content_hash
from workbench.determinism import generator

__all__ = ["NOISE", "weights", "wide", "wide_nonlinear"]

NOISE = 0.3  # standard deviation of what no model can know
_TRAIN, _TEST, _WIDTH = 5_000, 2_000, 1_000
_SEED = 0  # the rows are data, so no user's seed moves them
_REACH = 443  # integers from -443 to 443, uniform, over 256 have a standard deviation of 1.0003
_UNIT = 1024  # inputs are whole multiples of 1 / 1024, of at most 12 bits
_SLOPE, _SIGN = 2**13, 250  # what makes w·x of standard deviation 1 of whole weights


def wide() -> Dataset:
    """Return 7,000 rows of 1,000 float32 inputs with a linear target: w·x + noise."""
    inputs = _inputs()
    return _made("wide", inputs, inputs @ _slopes() / (_UNIT * _SLOPE), "w·x")


def wide_nonlinear() -> Dataset:
    """Return the rows of `wide` with a target that no line follows: 2·|w·x| + noise."""
    inputs = _inputs()
    along = inputs @ _signs() / (_UNIT * _SIGN)
    return _made("wide_nonlinear", inputs, 2 * along.abs(), "2·|w·x|")


def weights(name: str) -> Tensor:
    """Return the true w of one of the two, float64 shaped (1000,).

    Args:
        name: "wide" or "wide_nonlinear".

    >>> float(weights("wide_nonlinear").abs().max())
    0.004
    """
    return {"wide": _slopes() / _SLOPE, "wide_nonlinear": _signs() / _SIGN}[name]


def _made(name: str, inputs: Tensor, truth: Tensor, formula: str) -> Dataset:
    noise = _uniform("noise", len(truth), 4).sum(1) / 512  # the sum of four is nearly a bell
    x, y = (inputs / _UNIT).float(), (truth + NOISE * noise).float()
    card = Card(
        description=f"7,000 rows of 1,000 inputs, which share one hidden cause, and {formula} plus "
        f"noise of standard deviation {NOISE:g}: {NOISE**2:.2g} is the lowest MSE that any model "
        f"can expect. {_TEST:,} rows are the test split.",
        source="computed from a fixed seed",
        licence="none needed",
    )
    train, test = Split(x[:_TRAIN], y[:_TRAIN]), Split(x[_TRAIN:], y[_TRAIN:])
    return Dataset(name, train, None, test, content_hash(x, y), card)


def _inputs() -> Tensor:
    """Return the inputs in units of 1 / 1024: each one's own part, and a quarter of the cause.

    x is as likely as -x, so an even function of x has no covariance with it.
    """
    own, cause = _uniform("own", _TRAIN + _TEST, _WIDTH), _uniform("cause", _TRAIN + _TEST, 1)
    return 4 * own + cause * _signs()


def _slopes() -> Tensor:
    return _uniform("slopes", _WIDTH)


def _signs() -> Tensor:
    return 2 * (_uniform("signs", _WIDTH) > 0).double() - 1


def _uniform(purpose: str, *shape: int) -> Tensor:
    """Return whole numbers from -443 to 443 as float64, alike on every machine."""
    drawn = torch.randint(-_REACH, _REACH + 1, shape, generator=generator(_SEED, purpose))
    return drawn.double()
