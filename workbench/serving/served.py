"""What a service answers with: a model version, or a snapshot of a live model."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from workbench.attached import attached
from workbench.datasets.splits import content_hash
from workbench.errors import RequestError
from workbench.evaluation import infer, preprocessing_of
from workbench.modes import settled
from workbench.preprocessing import Preprocessing
from workbench.registry import ModelVersion, signature_of, version
from workbench.serving.client import check_name
from workbench.types import Signature

__all__ = ["Served", "served_from"]

_DEFAULT_NAME = "model"
_LIVE = "0"  # the version of a live model; published ones count from 1


@dataclass(frozen=True)
class Served:
    """A model that nothing changes any more, with what a service says of it.

    Args:
        name: of the service, and of the model in requests.
        version: in digits; `"0"` for a snapshot of a live model.
        model: in words: the version's reference, or `live, weights <hash>`.
        signature: what goes in and comes out.
        preprocessing: raw rows to what `forward` takes.
        module: the model itself, nobody else's.
    """

    name: str
    version: str
    model: str
    signature: Signature
    preprocessing: Preprocessing
    module: nn.Module = field(repr=False)

    def answer(self, rows: Tensor) -> Tensor:
        """Return the outputs, shaped (rows, outputs), for raw rows: what `predict` says of them.

        Raises:
            RequestError: the rows are not what the model was trained on, or there are none.
        """
        return infer(self.module, self.preprocessing.batch(rows), self.preprocessing)


def served_from(
    model: nn.Module | ModelVersion | str, *, name: str | None = None, example: Any = None
) -> Served:
    """Return what a service answers with.

    Args:
        model: a live model, of which a snapshot is taken; a version; or a version's reference.
        name: of the service; by default the version's, else `"model"`.
        example: raw rows, shaped (rows, ...), for a live model that was neither built nor fitted.

    Raises:
        RequestError: there is no such version, nothing says what the model takes, it cannot be
            copied, or the name cannot be a service's.
    """
    if isinstance(model, str):
        model = version(model)
    if isinstance(model, ModelVersion):
        return _published(model, check_name(name or model.name))
    if not isinstance(model, nn.Module):
        raise RequestError(
            f"cannot serve {type(model).__name__}: expected a model (an nn.Module), a model "
            'version, or its reference, for instance "name@3"'
        )
    return _snapshot(model, check_name(name or _DEFAULT_NAME), example)


def _published(published: ModelVersion, name: str) -> Served:
    module = published.load()
    return Served(
        name,
        str(published.version),
        published.ref,
        published.signature,
        preprocessing_of(module, published.example),
        module,
    )


def _snapshot(model: nn.Module, name: str, example: Any) -> Served:
    rows = _rows(model, example)
    try:
        with settled(model):
            module = copy.deepcopy(model)
    except (RuntimeError, TypeError) as error:
        raise RequestError(
            f"{type(model).__name__} cannot be copied, and a service needs a snapshot of its own: "
            f"{str(error).splitlines()[0]}; publish the model and serve the version"
        ) from None
    # The training stays behind: it would keep the data alive for as long as the service.
    memory = replace(attached(model), training=None)
    attached(module).__dict__.update(memory.__dict__)
    signature = signature_of(module, rows)
    said = f"live, weights {_weights_hash(module)}"
    return Served(name, _LIVE, said, signature, preprocessing_of(module, rows), module)


def _rows(model: nn.Module, example: Any) -> Any:
    """Return rows that show what the model takes."""
    memory = attached(model)
    if example is not None:
        return example
    if memory.example is not None:
        return memory.example
    if memory.preprocessing is None:
        raise RequestError(
            f"{type(model).__name__} was never built or fitted by the workbench, so nothing says "
            "what it takes: pass example=, a batch as forward takes it"
        )
    known = memory.preprocessing
    return torch.zeros((1, *known.shape), dtype=getattr(torch, known.dtype))


def _weights_hash(model: nn.Module) -> str:
    tensors = [v for v in model.state_dict().values() if isinstance(v, Tensor)]
    return content_hash(*(t.detach().cpu() for t in tensors))[:12]
