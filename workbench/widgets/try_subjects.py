"""What can be tried: a model here, a version, a service, each answering one row at a time."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

import numpy as np
import torch
from torch import Tensor, nn

from workbench.attached import attached
from workbench.datasets.overviews import column_names
from workbench.errors import RequestError, WorkbenchError
from workbench.evaluation import Prediction, infer
from workbench.preprocessing import Kind, Preprocessing
from workbench.registry import ModelVersion, Reference, version
from workbench.remote import RemoteService
from workbench.remote.wire import Wire
from workbench.serving import Service
from workbench.serving.live import Mirror, Still, Weights
from workbench.types import DATATYPES, JSON
from workbench.widgets.service_reach import one_of, row_example, wire_of

__all__ = ["Range", "Subject", "subject_of"]

_MAX_VALUES = 10_000  # of a row of numbers
_SPREAD = 3  # standard deviations from the mean, where only those are known
_STEPS = 200  # of a slider
_SLIP = 1e-4  # of a step: an edge just below a round number is that number

_Answer = tuple[str, JSON]  # who answered, and what it said of the row, in a service's words


@dataclass(frozen=True)
class Range:
    """From where to where the values of a feature go that a model knows, and in which steps."""

    low: float
    high: float
    step: float

    @classmethod
    def between(cls, low: float, high: float, *, whole: bool = False) -> Range | None:
        """Return a range that has both ends, of round numbers; None where all values are one.

        >>> Range.between(0.013, 1.98)
        Range(low=0.01, high=1.98, step=0.01)
        """
        apart = float(f"{high - low:.6g}")
        if not apart > 0:
            return None
        power: float = 10.0 ** np.floor(np.log10(apart / _STEPS))
        step = next(n for n in (1, 2, 5, 10) if n * power >= apart / _STEPS) * power
        step = 1.0 if whole else step
        ends = (np.floor(low / step + _SLIP) * step, np.ceil(high / step - _SLIP) * step, step)
        return cls(*(float(f"{value:.6g}") for value in ends))


@dataclass(frozen=True)
class Subject:
    """A model that answers rows that a person makes: an image, or numbers.

    Args:
        name: of it.
        way: how it is asked, in words.
        known: kind and shape of a row, the names of features and classes.
        rows: some raw rows that it knows, shaped (rows, ...); there may be none.
        ranges: of each number of a row, where they are known.
        answer: to one raw row.
        training: that moves its weights at the moment, or None.
    """

    name: str
    way: str
    known: Preprocessing
    rows: Tensor = field(repr=False)
    ranges: Sequence[Range | None] = field(repr=False)
    answer: Callable[[Tensor], _Answer] = field(repr=False)
    training: Any = field(default=None, repr=False)

    def __post_init__(self) -> None:
        shape, kind = self.known.shape, self.known.kind
        is_image = kind == "image" and (len(shape) == 2 or shape[2] in (1, 3, 4))
        if not is_image and (kind == "image" or len(shape) != 1 or shape[0] > _MAX_VALUES):
            raise _unsupported(self.name, f"rows of {shape}")

    @property
    def features(self) -> list[str]:
        """What the numbers of a row are called."""
        return column_names(self.known.features, self.known.shape[0])


def subject_of(asked: object, model: str | None = None) -> Subject:
    """Return what a person can try.

    Args:
        asked: a model, a version or its reference, a service, or what `connect` returned.
        model: which of those that a remote service has, where it has several.

    Raises:
        RequestError: it is none of these, or takes neither images nor numbers.
    """
    if isinstance(asked, str):
        asked = version(asked)
    if isinstance(asked, ModelVersion):
        return _of_version(asked)
    if isinstance(asked, nn.Module):
        return _of_model(asked)
    if isinstance(asked, Service):
        return _of_service(asked)
    if isinstance(asked, RemoteService):
        return _of_remote(asked, model)
    raise RequestError(
        f"cannot try a {type(asked).__name__}: expected a model (an nn.Module), a version or its "
        'reference, such as "name@champion", a service, or what connect() returned'
    )


def _of_model(model: nn.Module) -> Subject:
    memory = attached(model)
    if memory.preprocessing is None:
        raise RequestError(
            f"{type(model).__name__} was never built or fitted by the workbench, so nothing says "
            "what it takes: fit it first, or serve it with example= and pass the service"
        )
    rows = memory.sample if memory.sample is not None else memory.example
    known = memory.preprocessing
    raw = torch.empty((0, *known.shape)) if rows is None else known.batch(rows)
    return Subject(
        type(model).__name__,
        "in this kernel",
        known,
        raw,
        _ranges(known, raw if memory.sample is not None else None, None),
        _answering(Mirror(model), known, type(model).__name__),
        memory.training,
    )


def _of_version(made: ModelVersion) -> Subject:
    known = made.preprocessing
    if known is None:
        raise _unsupported(made.ref, _inputs(made.signature.to_json()["inputs"]))
    ranges = _ranges(known, None, made.reference)
    answer = _answering(Still(made.load()), known, made.ref)
    return Subject(made.ref, "in this kernel", known, known.batch(made.example), ranges, answer)


def _of_service(service: Service) -> Subject:
    served = service._served
    known = served.preprocessing
    if known is None:
        raise _unsupported(service.name, _inputs(served.signature.to_json()["inputs"]))
    (rows,) = served.example.values()
    ranges = _ranges(known, None, _reference_of(served.model))
    way = f"over HTTP, {service.url}"
    answer = _asking(wire_of(service), service.name)
    return Subject(service.name, way, known, known.batch(rows), ranges, answer)


def _of_remote(service: RemoteService, model: str | None) -> Subject:
    name, wire = one_of(service, model), wire_of(service)
    told = wire.ask("GET", f"/v2/models/{quote(name)}")
    example = row_example(wire, name)
    known = _known(name, told, example)
    rows = list(example.values()) if isinstance(example, Mapping) else example
    raw = torch.empty((0, *known.shape)) if rows is None else known.batch([rows])
    ranges = [None] * (known.shape[0] if known.kind != "image" else 0)
    return Subject(name, f"over HTTP, {service.url}", known, raw, ranges, _asking(wire, name))


def _known(name: str, told: JSON, example: Any) -> Preprocessing:
    """Return what is known of a remote model's rows."""
    (spec, *more) = told["inputs"]
    if more or spec["datatype"] in ("BYTES", "BOOL"):
        raise _unsupported(name, _inputs(told["inputs"]))
    shape, dtype = tuple(spec["shape"][1:]), {v: k for k, v in DATATYPES.items()}[spec["datatype"]]
    features = tuple(example) if isinstance(example, Mapping) else ()
    kind: Kind = "image" if dtype == "uint8" and len(shape) in (2, 3) else "tensor"
    classes = tuple(told.get("classes", ()))
    return Preprocessing(kind, shape, dtype, classes=classes, features=features)


def _answering(weights: Weights, known: Preprocessing, who: str) -> Callable[[Tensor], _Answer]:
    """Return what asks a model of this kernel, one in training as of its last step."""

    def answer(row: Tensor) -> _Answer:
        model = weights.fresh()
        said = Prediction.of(infer(model, known.batch(row[None]), known), known)
        step = weights.told()["step"] if isinstance(weights, Mirror) else None
        return who if step is None else f"{who} at step {step:,}", _said(said, known.classes)

    return answer


def _asking(wire: Wire, name: str) -> Callable[[Tensor], _Answer]:
    """Return what asks a service over HTTP."""

    def answer(row: Tensor) -> _Answer:
        told = wire.ask("POST", f"/models/{quote(name)}/predict", [row.tolist()])
        return str(told["model"]), told["rows"][0]

    return answer


def _said(prediction: Prediction, classes: Sequence[str]) -> JSON:
    """Return what was said of one row, in the words of a service."""
    output, chances = prediction.output[0], prediction.probabilities
    if chances is None or prediction.labels is None or output.ndim != 1:
        values = output.reshape(-1).tolist()
        return {"value": values[0]} if len(values) == 1 else {"output": values}
    shares = chances[0].tolist()
    shares = [1 - shares[0], shares[0]] if len(shares) == 1 else shares
    return {"label": prediction.labels[0], "probabilities": dict(zip(classes, shares, strict=True))}


def _ranges(
    known: Preprocessing, sample: Tensor | None, reference: Reference | None
) -> list[Range | None]:
    """Return from where to where each number of a row goes, by the best that is known of it."""
    if known.kind == "image" or len(known.shape) != 1:
        return []
    if sample is not None and len(sample):
        return [_of_values(column) for column in sample.T]
    if reference is not None and known.kind == "table":
        names = known.features or [f"feature_{i}" for i in range(known.shape[0])]
        edges = [getattr(reference.inputs.get(name), "edges", (0.0,)) for name in names]
        return [_of_values(torch.tensor(found)) for found in edges]
    if not known.mean:
        return [None] * known.shape[0]
    ends = zip(known.mean, known.std, strict=True)
    return [Range.between(m - _SPREAD * s, m + _SPREAD * s) for m, s in ends]


def _of_values(values: Tensor) -> Range | None:
    """Return the range of values; an edge just below a whole number counts as one."""
    rounded = values.double().round()
    whole = bool((rounded - values.double()).abs().max() < 1e-6)
    return Range.between(float(values.min()), float(values.max()), whole=whole)


def _reference_of(model: str) -> Reference | None:
    """Return the reference of a version that this machine has; a live model has none."""
    try:
        return version(model).reference if "@" in model else None
    except WorkbenchError:  # it is gone, and answers still
        return None


def _inputs(specs: Sequence[JSON]) -> str:
    if [spec["datatype"] for spec in specs] == ["BYTES"]:
        return "texts"
    return "its inputs by name, " + ", ".join(str(spec["name"]) for spec in specs)


def _unsupported(name: str, takes: str) -> RequestError:
    return RequestError(
        f"{name} takes {takes}: what can be tried are models of images (uint8, height × width, "
        f"with 1, 3 or 4 channels) and of up to {_MAX_VALUES:,} numbers a row; ask this one by "
        "predict(...) or infer(...)"
    )
