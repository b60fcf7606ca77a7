"""`build`: a model by name, sized to a dataset."""

from __future__ import annotations

import inspect
import math
from collections.abc import Mapping, Sequence
from numbers import Integral
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from workbench.attached import EXAMPLE_ROWS, attached
from workbench.determinism import check_seed
from workbench.errors import RequestError, UnknownNameError
from workbench.models.convnet import SIZES, ConvNet
from workbench.models.lenet import LeNet
from workbench.models.linear import Linear
from workbench.models.mlp import MLP
from workbench.preprocessing import Preprocessing, check_several
from workbench.types import JSON

if TYPE_CHECKING:
    from workbench.datasets import Dataset

__all__ = ["BUILDERS", "build", "construct"]

BUILDERS: Mapping[str, type[nn.Module]] = {
    "linear": Linear,
    "mlp": MLP,
    "lenet": LeNet,
    "convnet": ConvNet,
}

_SIZES: Mapping[str, Mapping[str, JSON]] = {"convnet": SIZES}

_IMAGES_ONLY = ("lenet", "convnet")


def build(
    name: str, data: Dataset, *, size: str | None = None, seed: int = 0, **sizes: Any
) -> nn.Module:
    """Return an untrained model for a dataset, ending in logits, or in values for a regression.

    Args:
        name: `"linear"`, `"mlp"`, `"lenet"` or `"convnet"`.
        data: decides how many inputs and outputs; two classes share one logit.
        size: of a convnet: `"small"` (the default), `"medium"` or `"large"`.
        seed: of the random start.
        sizes: the model's own, for instance `hidden=(10,)` of an mlp, `widths=` of a convnet.

    Raises:
        RequestError: there is no such model, size or argument, an argument or the seed is not
            what it should be, the model cannot take such rows, or they are of one class alone.

    >>> from workbench.datasets import load
    >>> build("mlp", load("digits"), hidden=(16,)).layers
    Sequential(
      (0): Linear(in_features=64, out_features=16, bias=True)
      (1): ReLU()
      (2): Linear(in_features=16, out_features=10, bias=True)
    )
    """
    if name not in BUILDERS:
        raise UnknownNameError("model", name, BUILDERS)
    check_seed(seed)
    check_several("build", data.classes)
    own = _checked_sizes(name, sizes)
    preprocessing = Preprocessing.fitted(data.train.inputs, data.classes, data.features)
    example = data.train.inputs[:EXAMPLE_ROWS].clone()
    chosen = {
        "inputs": list(preprocessing(example).shape[1:]),
        "outputs": _n_outputs(data),
        **_named_size(name, size),
        **own,
    }
    if name in _IMAGES_ONLY and len(chosen["inputs"]) != 3:
        raise RequestError(
            f"{name} takes images, got rows of {tuple(chosen['inputs'])} from {data.name!r}: "
            "use 'mlp' or 'linear'"
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = construct({"builder": name, "sizes": chosen})
    if isinstance(model, ConvNet):
        model.prepare(preprocessing(data.train.inputs[:5_000]))
    memory = attached(model)
    memory.preprocessing, memory.example = preprocessing, example
    return model


def construct(architecture: JSON) -> nn.Module:
    """Return a model as its architecture says, with whatever weights it starts with.

    Args:
        architecture: `{"builder": name, "sizes": {...}}`, as `build` leaves it with a model.

    Raises:
        RequestError: there is no such builder, or it does not take these sizes.
    """
    name, sizes = architecture["builder"], architecture.get("sizes", {})
    if not (isinstance(name, str) and name in BUILDERS):
        raise UnknownNameError("model builder", str(name), BUILDERS)
    try:
        model = BUILDERS[name](**sizes)
    except RequestError:
        raise
    except (TypeError, ValueError, RuntimeError) as error:
        raise RequestError(f"{name} cannot be built with {sizes}: {error}") from None
    attached(model).architecture = architecture
    return model


def _n_outputs(data: Dataset) -> int:
    if data.task == "regression":
        return math.prod(data.train.targets.shape[1:])
    return 1 if len(data.classes) == 2 else len(data.classes)


def _named_size(name: str, size: str | None) -> JSON:
    known = _SIZES.get(name, {})
    if size is None:
        return dict(known.get("small", {}))
    if size not in known:
        if not known:
            raise RequestError(f"{name} has no sizes, got size={size!r}: leave it out")
        raise UnknownNameError(f"size of {name}", size, known)
    return dict(known[size])


def _checked_sizes(name: str, sizes: Mapping[str, Any]) -> JSON:
    """Return the model's own arguments as plain data; refuse those it does not have."""
    parameters = inspect.signature(BUILDERS[name]).parameters
    known = {key: p.default for key, p in parameters.items() if key not in ("inputs", "outputs")}
    for key in sizes:
        if key not in known and not known:
            raise RequestError(f"{name} has no arguments of its own, got {key}=: leave it out")
        if key not in known:
            raise UnknownNameError(f"argument of {name}", key, known)
    return {key: _plain(name, key, value, known[key]) for key, value in sizes.items()}


def _plain(name: str, key: str, value: Any, default: Any) -> int | list[int]:
    """Return a width as an integer, or several as a list; which of them, the default shows."""
    if not isinstance(default, tuple) and _is_width(value):
        return int(value)
    if isinstance(default, tuple) and isinstance(value, Sequence) and all(map(_is_width, value)):
        return [int(item) for item in value]
    expected = "several whole numbers" if isinstance(default, tuple) else "a whole number"
    raise RequestError(
        f"{key} of {name} is {value!r:.80}, expected {expected} from 1 up: "
        f"for instance {key}={default!r}"
    )


def _is_width(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool) and int(value) >= 1
