"""Model versions: `publish` writes one, whole or not at all; nothing ever changes it afterwards.

A version is the folder `models/<name>/<number>/`: `version.json` (architecture, preprocessing,
signature, settings, metrics, lineage, checksums), `weights.safetensors`, `example.json`, and
`program.pt2` where the model's class cannot be imported.
"""

from __future__ import annotations

import copy
import hashlib
import json
import math
import re
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

import workbench
from workbench import journal
from workbench.attached import attached
from workbench.errors import RequestError, TamperedError, UnknownNameError
from workbench.evaluation import Evaluation, infer, preprocessing_of
from workbench.home import home, new_folder, read_json, write_file, write_json
from workbench.modes import settled
from workbench.preprocessing import Preprocessing
from workbench.registry.architectures import architecture_of, rebuild
from workbench.registry.programs import save_program
from workbench.types import DATATYPES, JSON, NAME_PATTERN, Signature, TensorSpec

__all__ = ["ModelVersion", "list_models", "publish", "signature_of", "version"]

_FORMAT = 1
_KEYS = (
    "name", "version", "created", "architecture", "parameters", "preprocessing", "signature",
    "settings", "metrics", "lineage", "checksums",
)  # fmt: skip
_SAID = ("architecture", "preprocessing", "signature", "settings", "metrics")
_NAME = re.compile(NAME_PATTERN)


@dataclass(frozen=True)
class ModelVersion:
    """One published model: immutable weights with everything that explains them.

    Args:
        name: of the model.
        version: its number, from 1.
        folder: where it lies.
        record: what `version.json` says.
    """

    name: str
    version: int
    folder: Path
    record: JSON = field(repr=False, compare=False)

    @property
    def ref(self) -> str:
        """`name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def signature(self) -> Signature:
        """What goes in and comes out when it is served."""
        return Signature.from_json(self.record["signature"])

    @property
    def metrics(self) -> dict[str, float]:
        """The figures of the evaluation it was published with."""
        return dict(self.record["metrics"])

    @property
    def lineage(self) -> JSON:
        """The run, data, training and parent it came from."""
        return dict(self.record["lineage"])

    @property
    def card(self) -> JSON:
        """What a person should know: model, data, figures, when and with what it was made."""
        keys = ("name", "version", "created", "architecture", "parameters", "metrics", "lineage")
        return {key: self.record[key] for key in keys}

    @property
    def example(self) -> Tensor:
        """A few raw rows, shaped (rows, ...), as the service takes them."""
        self._check("example.json")
        preprocessing = Preprocessing.from_json(self.record["preprocessing"])
        return preprocessing.batch(read_json(self.folder / "example.json")["rows"])

    def load(self) -> nn.Module:
        """Return the model with its weights, in evaluation mode, ready to predict, fit or serve.

        A version kept as a program can be served and asked, not trained.

        Raises:
            TamperedError: a file is not what was published.
            RequestError: its class cannot be imported here.
        """
        for file in self.record["checksums"]:
            self._check(file)
        model = rebuild(self.record["architecture"], self.folder)
        if "program" not in self.record["architecture"]:
            _load_weights(model, self.folder / "weights.safetensors")
            model.eval()
        memory = attached(model)
        memory.preprocessing = Preprocessing.from_json(self.record["preprocessing"])
        memory.example, memory.version = self.example, self.ref
        return model

    def __repr__(self) -> str:
        figures = "".join(f", {name} {value:.4g}" for name, value in self.metrics.items())
        return f"ModelVersion {self.ref}{figures}"

    def _check(self, file: str) -> None:
        path = self.folder / file
        found = _sha256(path.read_bytes()) if path.exists() else "nothing"
        expected = self.record["checksums"].get(file)
        if found != expected:
            raise TamperedError(
                f"{path} of {self.ref} has SHA-256 {found[:12]}, published was "
                f"{str(expected)[:12]}: it was changed or damaged; publish the model again"
            )


def publish(
    model: nn.Module,
    name: str,
    *,
    evaluation: Evaluation | None = None,
    example: Any = None,
) -> ModelVersion:
    """Keep the model as the next version of `name`, with all that explains it.

    It is kept in the first of three ways that gives the same model back: by the name of its
    builder, where `build` made it; by its class, where that can be imported and called without
    arguments, and wherever it is loaded too; else as a program, which can be served anywhere and
    not be trained. `workbench show` says which.

    Args:
        model: built or fitted; a module that was neither needs `example`.
        name: letters, digits, `.`, `_`, `-`.
        evaluation: its figures become the version's metrics.
        example: raw rows, shaped (rows, ...), by default some the model was built or fitted with.

    Raises:
        RequestError: the name cannot be a folder's, the model or the evaluation is none, there is
            no example, or no way to store the model without pickle.
    """
    if not isinstance(model, nn.Module):
        raise RequestError(
            f"publish got {model!r:.80}, a {type(model).__name__}, expected a torch module first: "
            "publish(model, 'name')"
        )
    _check_name(name)
    metrics = _metrics(evaluation)
    place = journal.count("publish")
    with settled(model):
        made, before = _publish(model, name, metrics, _example(model, example), place)
    journal.note("publish", ref=made.ref, folder=str(made.folder), before=before)
    return made


def _publish(
    model: nn.Module, name: str, metrics: dict[str, float], rows: Any, place: int
) -> tuple[ModelVersion, bool]:
    """Return the version, and whether an earlier attempt at this run has made it already."""
    preprocessing = preprocessing_of(model, rows)
    raw = preprocessing.batch(rows)
    architecture = architecture_of(model, raw, preprocessing) or {"program": "program.pt2"}
    files = {
        "weights.safetensors": _weights(model),
        "example.json": json.dumps({"rows": raw.tolist()}).encode(),
    }
    if "program" in architecture:
        two = raw if len(raw) > 1 else torch.cat([raw, raw])
        files["program.pt2"] = save_program(copy.deepcopy(model).cpu(), preprocessing(two))
    memory = attached(model)
    training = memory.training
    record = {
        "format": _FORMAT,
        "name": name,
        "created": journal.now(),
        "architecture": architecture,
        "parameters": sum(p.numel() for p in model.parameters()),
        "preprocessing": preprocessing.to_json(),
        "signature": signature_of(model, raw).to_json(),
        "settings": training.settings.to_json() if training else None,
        "metrics": metrics,
        "lineage": _lineage(model, place),
        "checksums": {file: _sha256(content) for file, content in files.items()},
    }
    before = _published_before(name, record, place)
    made = before or _write(name, record, files)
    memory.version = made.ref
    return made, before is not None


def _published_before(name: str, record: JSON, place: int) -> ModelVersion | None:
    """Return the version that an earlier attempt at this run made here, if it says the same."""
    run = journal.run_id()
    ours = json.loads(json.dumps({key: record[key] for key in _SAID}))  # as it will be read
    for number in reversed(_numbers(name) if journal.is_resumed() else ()):
        found = _read(name, number)
        if (found.lineage["run"], found.lineage.get("publish")) == (run, place):
            sums = (r["checksums"]["weights.safetensors"] for r in (found.record, record))
            same = len(set(sums)) == 1 and all(found.record[k] == ours[k] for k in _SAID)
            return found if same else None
    return None


def version(ref: str) -> ModelVersion:
    """Return a published version.

    Args:
        ref: `"name@3"`, or `"name"` for the newest.

    Raises:
        RequestError: there is no such model or version.
        TamperedError: its record cannot be read, or is of a newer format.
    """
    name, at, number = ref.partition("@")
    _check_name(name)
    numbers = _numbers(name)
    if not numbers:
        raise UnknownNameError("model", name, _names())
    if at and number not in map(str, numbers):
        raise UnknownNameError(f"version of {name}", number, map(str, numbers))
    return _read(name, int(number) if at else numbers[-1])


def list_models() -> list[ModelVersion]:
    """Return every published version, by name and number; of one that cannot be read, warn."""
    found = []
    for name in _names():
        for number in _numbers(name):
            try:
                found.append(_read(name, number))
            except TamperedError as error:  # one damaged record must not hide all the others
                warnings.warn(str(error), stacklevel=2)
    return found


def signature_of(model: nn.Module, example: Any) -> Signature:
    """Return what the model takes, raw rows called `input`, and answers, called `output`.

    Args:
        model: asked once to see the shape of its outputs.
        example: raw rows, shaped (rows, ...).
    """
    preprocessing = preprocessing_of(model, example)
    output = infer(model, preprocessing.batch(example)[:2], preprocessing)
    row = TensorSpec("input", DATATYPES[preprocessing.dtype], (-1, *preprocessing.shape))
    return Signature((row,), (TensorSpec("output", "FP32", (-1, *output.shape[1:])),))


def _example(model: nn.Module, given: Any) -> Any:
    rows = attached(model).example if given is None else given
    if rows is None:
        raise RequestError(
            f"{type(model).__name__} was never fitted, so nothing says what it takes: "
            "pass example=, a few rows as forward takes them"
        )
    return rows


def _metrics(evaluation: Evaluation | None) -> dict[str, float]:
    if not isinstance(evaluation, Evaluation | None):
        raise RequestError(
            f"evaluation is a {type(evaluation).__name__}, expected what evaluate returns: "
            "evaluation=evaluate(model, data.test)"
        )
    metrics = evaluation.metrics if evaluation is not None else {}
    strange = {name: value for name, value in metrics.items() if not math.isfinite(value)}
    if strange:
        raise RequestError(
            f"the evaluation has figures that are not finite: {strange}; look for NaN in the rows "
            "and in the model's weights before publishing it"
        )
    return metrics


def _lineage(model: nn.Module, place: int) -> JSON:
    """Return where a model comes from; of a run also its `place` among what that publishes."""
    memory, run = attached(model), journal.run_id()
    settings = memory.training.settings if memory.training else None
    return {
        "run": run,
        **({"publish": place} if run else {}),
        "data": {"name": settings.data, "fingerprint": settings.fingerprint} if settings else None,
        "parent": memory.version,
        "workbench": workbench.__version__,
        "torch": torch.__version__,
    }


def _write(name: str, record: JSON, files: dict[str, bytes]) -> ModelVersion:
    """Write the folder under the next free number; where another takes it first, the one after.

    Raises:
        RequestError: something that is no version lies where the folder belongs.
    """
    while True:
        number = max(_numbers(name), default=0) + 1
        folder = _root() / name / str(number)
        whole = {**record, "version": number}
        try:
            with new_folder(folder) as temporary:
                for file, content in files.items():
                    write_file(temporary / file, content, mode=0o444)
                write_json(temporary / "version.json", whole, mode=0o444)
        except OSError:
            if number in _numbers(name):
                continue
            for place in (folder, folder.parent):
                if place.exists() and not place.is_dir():
                    raise RequestError(
                        f"{place} is a file, expected a folder or nothing: "
                        "move it away and publish again"
                    ) from None
            raise
        return _read(name, number)


def _read(name: str, number: int) -> ModelVersion:
    folder = _root() / name / str(number)
    try:
        record = read_json(folder / "version.json")
        if record["format"] > _FORMAT:
            raise TamperedError(
                f"{name}@{number} has format {record['format']}, this workbench reads up to "
                f"{_FORMAT}: upgrade with pip install --upgrade maas-workbench"
            )
        missing = [key for key in _KEYS if key not in record]
        if missing or (record["name"], record["version"]) != (name, number):
            raise KeyError(*(missing or ("of another version", record["name"], record["version"])))
    except (OSError, ValueError, KeyError, TypeError) as error:
        if isinstance(error, TamperedError):
            raise
        raise TamperedError(f"{folder / 'version.json'} cannot be read: {error!r}") from None
    return ModelVersion(name, number, folder, record)


def _weights(model: nn.Module) -> bytes:
    state = model.state_dict()
    strange = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise RequestError(
            f"the state of {type(model).__name__} holds more than tensors: {strange[:3]}; "
            "only tensors can be published"
        )
    return save_tensors({k: v.detach().cpu().contiguous().clone() for k, v in state.items()})


def _load_weights(model: nn.Module, path: Path) -> None:
    try:
        model.load_state_dict(load_tensors(path.read_bytes()), strict=True)
    except (SafetensorError, RuntimeError) as error:
        raise TamperedError(f"{path} does not fit the model: {error}") from None


def _root() -> Path:
    return home() / "models"


def _names() -> list[str]:
    folders = _root().glob("*/") if _root().is_dir() else []
    return sorted(f.name for f in folders if _NAME.fullmatch(f.name) and _numbers(f.name))


def _numbers(name: str) -> list[int]:
    folder = _root() / name
    return sorted(int(f.name) for f in folder.glob("*/") if f.name.isascii() and f.name.isdigit())


def _check_name(name: str) -> None:
    if not isinstance(name, str) or not _NAME.fullmatch(name):
        raise RequestError(
            f"{name!r} cannot name a model: use letters, digits, '.', '_' and '-', "
            "beginning with a letter or a digit"
        )


def _sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
