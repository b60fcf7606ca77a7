"""What a service answers with: a model version, a snapshot of a live model, or the live model."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor, nn

from workbench.attached import attached
from workbench.errors import RequestError, UnknownNameError
from workbench.evaluation.calls import (
    Rows,
    array_for,
    array_of,
    named_outputs,
    named_rows,
    passed,
    rows_of,
)
from workbench.evaluation.inference import preprocessing_of
from workbench.preprocessing import Preprocessing, check_finite
from workbench.registry import ModelVersion, signature_of, version
from workbench.serving.client import check_name
from workbench.serving.engines import Engine, Onnx
from workbench.serving.live import Mirror, Still, Weights, snapshot_of
from workbench.serving.probes import Probed
from workbench.serving.tensors import Array
from workbench.types import JSON, Signature

__all__ = ["Served", "served_from"]

_DEFAULT_NAME = "model"
_LIVE = "0"  # the version of a live model; published ones count from 1
_SHOWN = 2  # rows of the example
_END = object()


@dataclass(frozen=True, eq=False)
class Served:
    """A model with what a service says of it.

    Args:
        name: of the service, and of the model in requests.
        version: in digits; `"0"` for a live model.
        model: in words: the version's reference, `live, weights <hash>`, or `live, as it changes`.
        signature: what goes in and comes out, by name.
        preprocessing: raw rows to what `forward` takes; None for a model that is called by name.
        card: what a person should know of it.
        example: one or two rows by the names of the inputs.
        source: gives the model to answer by.
        can_stream: whether the model has a method `stream`, a generator of answers.
    """

    name: str
    version: str
    model: str
    signature: Signature
    preprocessing: Preprocessing | None
    card: JSON = field(repr=False)
    example: dict[str, Array] = field(repr=False)
    source: Weights = field(repr=False)
    can_stream: bool = False

    @property
    def engine(self) -> Engine | None:
        """What computes the answers now; None of what was not to be probed."""
        return self.source.engine if isinstance(self.source, Probed) else None

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes in the order of the outputs; none for a regression."""
        return self.preprocessing.classes if self.preprocessing else ()

    @property
    def features(self) -> tuple[str, ...]:
        """Names of a table's columns, where it has any."""
        return self.preprocessing.features if self.preprocessing else ()

    @property
    def ref(self) -> str:
        """The version's reference, `name@3`; `name@0` of a live model."""
        return f"{self.name}@0" if self.version == _LIVE else self.model

    @property
    def takes_images(self) -> bool:
        """Whether its rows are pictures, which may come as PNG or JPEG."""
        return self.preprocessing is not None and self.preprocessing.kind == "image"

    def weights(self) -> JSON:
        """Return the `hash` of the weights that gave the last answer, the `step` of its training.

        For the answers of a live model, whose version says nothing; a published one's are empty.
        Called by the thread that answers, right after it has.
        """
        told = self.source.told() if self.version == _LIVE else {}
        return {name: value for name, value in told.items() if value is not None}

    def arrays(self, rows: Any) -> dict[str, Array]:
        """Return rows as people have them in Python as arrays by the names of the inputs.

        Args:
            rows: an array, tensor, DataFrame or nested list, shaped (rows, ...), or one row; of a
                model of several inputs such by their names.

        Raises:
            RequestError: they are not what the model takes.
        """
        if self.preprocessing is not None:
            return {self.signature.inputs[0].name: array_of(self.preprocessing.batch(rows).cpu())}
        names = [spec.name for spec in self.signature.inputs]
        given = rows if isinstance(rows, Mapping) else {names[0]: rows}
        for name in given:
            if name not in names:
                raise UnknownNameError("input", str(name), names)
        missing = [name for name in names if name not in given]
        if missing:
            raise RequestError(
                f"the input {missing[0]!r} is missing: pass a dictionary of {', '.join(names)}"
            )
        return {spec.name: array_for(spec, given[spec.name]) for spec in self.signature.inputs}

    def check(self, inputs: Mapping[str, Array]) -> None:
        """Raise where inputs that the signature allows are still no rows to ask the model.

        Args:
            inputs: all of them by name, each of the signature's datatype and shape.

        Raises:
            RequestError: there are no rows, the inputs differ in theirs, a number is not finite, or
                a text is not UTF-8.
        """
        lengths = {name: len(array) for name, array in inputs.items()}
        if len(set(lengths.values())) > 1:
            raise RequestError(f"the inputs have {lengths} rows: expected one number for all")
        if 0 in lengths.values():
            raise RequestError("there are no rows to predict: pass at least one")
        for name, array in inputs.items():
            if array.dtype == object:
                rows_of(array)
            elif array.dtype.kind in "fV" and not np.isfinite(array).all():  # V: bfloat16
                what = "inputs" if len(inputs) == 1 else f"the rows of {name!r}"
                check_finite(what, torch.from_numpy(array.astype(np.float64)))

    def answer(self, inputs: Mapping[str, Array]) -> dict[str, Array]:
        """Return all outputs by name for rows that were checked: what `predict` says of them.

        Args:
            inputs: by name, raw as the signature has them. The model may write into those that can
                be written to.

        Raises:
            RequestError: the model does not answer with a row for each.
            ServiceError: a live model cannot be followed any more.
        """
        model = self.source.fresh()
        rows = {name: rows_of(array) for name, array in inputs.items()}
        with torch.inference_mode():
            return self._said(model, passed(model, self._ready(model, rows)), _length(rows))

    def stream(self, inputs: Mapping[str, Array]) -> Iterator[dict[str, Array]]:
        """Yield what the model's `stream` does, as it comes, by the weights of its beginning.

        Args:
            inputs: as `answer` has them. A single row may be answered by plain texts.

        Raises:
            RequestError: what the model yields has not a row for each.
        """
        model = self.source.apart()
        rows = {name: rows_of(array) for name, array in inputs.items()}
        with torch.inference_mode():
            steps = iter(passed(model, self._ready(model, rows), "stream"))
        while True:
            with torch.inference_mode():  # a thread's own, so never held between two steps
                said = next(steps, _END)
                if said is _END:
                    return
                outputs = self._said(
                    model, [said] if isinstance(said, str) else said, _length(rows)
                )
            yield outputs

    def _ready(self, model: nn.Module, rows: Mapping[str, Rows]) -> dict[str, Rows]:
        """Return rows as the model takes them, on its device."""
        device = self.source.device
        ready = {k: v.to(device) if isinstance(v, Tensor) else v for k, v in rows.items()}
        if self.preprocessing is not None and not isinstance(model, Onnx):
            ready = {k: self._standardize(v) for k, v in ready.items() if isinstance(v, Tensor)}
        return ready

    def _said(self, model: nn.Module, answer: Any, rows: int) -> dict[str, Array]:
        """Return what the model answered as arrays: of raw rows' models as float32."""
        outputs = named_outputs(model, answer, rows)
        if self.preprocessing is not None:
            outputs = {k: v.float() if isinstance(v, Tensor) else v for k, v in outputs.items()}
        return {name: array_of(value) for name, value in outputs.items()}

    @functools.cached_property
    def _standardize(self) -> Callable[[Tensor], Tensor]:
        assert self.preprocessing is not None
        return _standardizing(self.preprocessing)


def served_from(
    model: nn.Module | ModelVersion | str,
    *,
    name: str | None = None,
    example: Any = None,
    mode: Literal["snapshot", "live"] = "snapshot",
    probe: bool = False,
    threads: int | None = None,
) -> Served:
    """Return what a service answers with, having asked it once.

    Args:
        model: a live model; a version; or a version's reference.
        name: of the service; by default the version's, else `"model"`.
        example: rows as the live model takes them, which one that was neither built nor fitted
            needs: raw rows, shaped (rows, ...), or several inputs by the names of `forward`.
        mode: `"snapshot"`: as the live model is now, once no training moves it; `"live"`: as it
            goes on changing, from the moment between two steps on.
        probe: whether ONNX Runtime answers for a version where it is faster than torch; the first
            time on a machine it does so some seconds later, once that is found out.
        threads: that an answer may use then; None for as many as torch uses here.

    Raises:
        RequestError: there is no such version, nothing says what the model takes, it cannot be
            copied, it does not answer with a row for each, the mode is unknown or cannot be of a
            version, or the name cannot be a service's.
    """
    if mode not in ("snapshot", "live"):
        raise UnknownNameError("mode", mode, ("snapshot", "live"))
    if isinstance(model, str):
        model = version(model)
    if isinstance(model, ModelVersion):
        if mode == "live":
            raise RequestError(
                f"{model.ref} is a version, which never changes: leave mode= out, or pass the "
                "model that is being trained"
            )
        made = _published(model, check_name(name or model.name))
        made = _probed(made, model, threads) if probe else made
    elif isinstance(model, nn.Module):
        made = _live(model, check_name(name or _DEFAULT_NAME), example, mode)
    else:
        raise RequestError(
            f"cannot serve {type(model).__name__}: expected a model (an nn.Module), a model "
            'version, or its reference, for instance "name@3"'
        )
    made.answer(made.example)  # a first answer takes longer, and may fail
    return made


def _published(published: ModelVersion, name: str) -> Served:
    published.check_active()
    module, rows = published.load(), published.example
    return Served(
        name,
        str(published.version),
        published.ref,
        published.signature,
        published.preprocessing,
        published.card,
        _shown(rows if published.preprocessing is None else {"input": rows}),
        Still(module),
        _can_stream(module),
    )


def _probed(made: Served, published: ModelVersion, cores: int | None) -> Served:
    """Return what was made, to be answered by whatever is fastest here."""

    def answer(rows: Array) -> Array:
        return made.answer({"input": rows})["output"]

    return replace(made, source=Probed(published, made.source.fresh(), answer, cores))


def _live(model: nn.Module, name: str, example: Any, mode: str) -> Served:
    rows = _example(model, example)
    named = named_rows(model, rows)
    preprocessing = preprocessing_of(model, rows) if named is None else None
    source: Weights = Mirror(model) if mode == "live" else snapshot_of(model)
    module = source.fresh()
    if preprocessing is not None:
        attached(module).preprocessing = preprocessing
        named = {"input": preprocessing.batch(rows)}
    return Served(
        name,
        _LIVE,
        "live, as it changes" if mode == "live" else f"live, weights {source.told()['hash']}",
        signature_of(module, rows),
        preprocessing,
        _card(model),
        _shown(named or {}),
        source,
        _can_stream(module),
    )


def _example(model: nn.Module, given: Any) -> Any:
    """Return rows that show what the model takes."""
    memory = attached(model)
    if given is not None:
        return given
    if memory.example is not None:
        return memory.example
    if memory.preprocessing is None:
        raise RequestError(
            f"{type(model).__name__} was never built or fitted by the workbench, so nothing says "
            "what it takes: pass example=, a batch as forward takes it"
        )
    known = memory.preprocessing
    return torch.zeros((1, *known.shape), dtype=getattr(torch, known.dtype))


def _card(model: nn.Module) -> JSON:
    """Return what a person should know of a live model, in the words of a version's card."""
    memory = attached(model)
    training = memory.training
    data = None
    if training is not None:
        settings = training.settings
        data = {"name": settings.data, "fingerprint": settings.fingerprint}
    return {
        "model": type(model).__name__,
        "parameters": sum(p.numel() for p in model.parameters()),
        "architecture": memory.architecture,
        "lineage": {
            "training": training.name if training is not None else None,
            "data": data,
            "parent": memory.version,
        },
    }


def _can_stream(module: nn.Module) -> bool:
    return callable(getattr(module, "stream", None))


def _shown(rows: Mapping[str, Rows]) -> dict[str, Array]:
    """Return copies of the first rows."""
    return {name: array_of(_first(value)).copy() for name, value in rows.items()}


def _first(rows: Rows) -> Rows:
    return rows.detach().cpu()[:_SHOWN] if isinstance(rows, Tensor) else rows[:_SHOWN]


def _length(rows: Mapping[str, Rows]) -> int:
    return len(next(iter(rows.values())))


def _standardizing(preprocessing: Preprocessing) -> Callable[[Tensor], Tensor]:
    """Return what does as `preprocessing` does, bit by bit, with its constants kept.

    To make them anew takes longer than to use them on a single row.
    """
    if preprocessing.kind == "tensor":
        return preprocessing
    n = math.prod(preprocessing.shape[:2]) if preprocessing.kind == "image" else 1
    mean = torch.tensor(preprocessing.mean, dtype=torch.float32)
    scale = 1 / torch.tensor(preprocessing.std, dtype=torch.float32)
    mean, scale = mean.repeat(n), scale.repeat(n)

    def table(raw: Tensor) -> Tensor:
        return (raw.float() - mean.to(raw.device)) * scale.to(raw.device)

    def image(raw: Tensor) -> Tensor:
        pixels = raw if raw.ndim == 4 else raw.unsqueeze(-1)
        flat = pixels.flatten(1).float().sub_(mean.to(raw.device)).mul_(scale.to(raw.device))
        return flat.view(pixels.shape).permute(0, 3, 1, 2)

    return image if preprocessing.kind == "image" else table
