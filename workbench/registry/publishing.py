"""`publish`: a version is written whole or not at all, with all that explains it."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Mapping
from typing import Any

import torch
from safetensors.torch import save as save_tensors
from torch import Tensor, nn

from workbench import journal
from workbench.attached import attached
from workbench.errors import RequestError
from workbench.evaluation import Evaluation, infer
from workbench.home import new_folder, write_file, write_json
from workbench.modes import settled
from workbench.registry.aliases import standing
from workbench.registry.architectures import architecture_of
from workbench.registry.folders import check_name, folder_of, numbers
from workbench.registry.lineage import lineage_of
from workbench.registry.programs import save_program
from workbench.registry.records import RECORD, sealed, sha256
from workbench.registry.references import Reference
from workbench.registry.signatures import Shown, shown_by
from workbench.registry.versions import ModelVersion, version
from workbench.types import JSON

__all__ = ["publish", "write_version"]

_SAID = ("architecture", "call", "preprocessing", "signature", "settings", "metrics")


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
    not be trained, and takes one tensor. `workbench show` says which.

    Args:
        model: built or fitted; a module that was neither needs `example`.
        name: letters, digits, `.`, `_`, `-`.
        evaluation: its figures become the version's metrics.
        example: raw rows, shaped (rows, ...), by default some the model was built or fitted with;
            of a model that takes several inputs, or texts, a dictionary of such by the names of
            `forward`'s parameters. The first four are kept.

    Raises:
        RequestError: the name cannot be a folder's, the model or the evaluation is none, there is
            no example, or no way to store the model without pickle.
        TamperedError: the log of aliases of that name is damaged.
    """
    if not isinstance(model, nn.Module):
        raise RequestError(
            f"publish got {model!r:.80}, a {type(model).__name__}, expected a torch module first: "
            "publish(model, 'name')"
        )
    check_name(name)
    metrics = _metrics(evaluation)
    place = journal.count("publish")
    with settled(model):
        made, before = _publish(model, name, metrics, _example(model, example), place)
    journal.note("publish", ref=made.ref, folder=str(made.folder), before=before)
    return made


def write_version(
    name: str, record: JSON, files: Mapping[str, bytes], *, number: int | None = None
) -> ModelVersion:
    """Write a version under the next number; where another takes it first, under the one after.

    Args:
        name: of the model.
        record: all of it but its name and version.
        files: by name; `record` has their checksums.
        number: to take if it is free, rather than the next.

    Raises:
        RequestError: something that is no version lies where the folder belongs.
    """
    while True:
        taken = {*numbers(name), *standing(name).versions}  # no log may speak of another version
        if number is None or number in taken:
            number = max(taken, default=0) + 1
        folder = folder_of(name, number)
        try:
            with new_folder(folder) as temporary:
                for file, content in files.items():
                    write_file(temporary / file, content, mode=0o444)
                whole = sealed({"name": name, "version": number, **record})
                write_json(temporary / RECORD, whole, mode=0o444)
        except OSError:
            if number in numbers(name):
                continue
            for place in (folder, folder.parent):
                if place.exists() and not place.is_dir():
                    raise RequestError(
                        f"{place} is a file, expected a folder or nothing: "
                        "move it away and publish again"
                    ) from None
            raise
        return version(f"{name}@{number}")


def _publish(
    model: nn.Module, name: str, metrics: dict[str, float], rows: Any, place: int
) -> tuple[ModelVersion, bool]:
    """Return the version, and whether an earlier attempt at this run has made it already."""
    shown, memory = shown_by(model, rows), attached(model)
    architecture = architecture_of(model, shown.answers) or {"program": "program.pt2"}
    reference = _reference(model)
    files = _files(model, shown, reference, as_program="program" in architecture)
    training, preprocessing = memory.training, shown.preprocessing
    record = {
        "created": journal.now(),
        "architecture": architecture,
        "parameters": sum(p.numel() for p in model.parameters()),
        "call": "rows" if preprocessing else "named",
        "preprocessing": preprocessing.to_json() if preprocessing else None,
        "signature": shown.signature.to_json(),
        "settings": training.settings.to_json() if training else None,
        "metrics": metrics,
        "reference": reference.origin() if reference else None,
        "lineage": lineage_of(model, place),
        "checksums": {file: sha256(content) for file, content in files.items()},
    }
    before = _published_before(name, record, place)
    made = before or write_version(name, record, files)
    memory.version = made.ref
    return made, before is not None


def _files(
    model: nn.Module, shown: Shown, reference: Reference | None, *, as_program: bool
) -> dict[str, bytes]:
    """Return what a version's files hold, by name, but for its record."""
    files = {
        "weights.safetensors": _weights(model),
        "example.json": json.dumps(shown.few()).encode(),
    }
    if reference:
        files["reference.json"] = json.dumps(reference.to_json(), allow_nan=False).encode()
    if as_program:
        files["program.pt2"] = _program(model, shown)
    return files


def _published_before(name: str, record: JSON, place: int) -> ModelVersion | None:
    """Return the version that an earlier attempt at this run made here, if it says the same."""
    run = journal.run_id()
    ours = json.loads(json.dumps({key: record[key] for key in _SAID}))  # as it will be read
    for number in reversed(numbers(name) if journal.is_resumed() else ()):
        found = version(f"{name}@{number}")
        if (found.lineage["run"], found.lineage.get("publish")) == (run, place):
            sums = (r["checksums"]["weights.safetensors"] for r in (found.record, record))
            same = len(set(sums)) == 1 and all(found.record[k] == ours[k] for k in _SAID)
            return found if same else None
    return None


def _example(model: nn.Module, given: Any) -> Any:
    rows = attached(model).example if given is None else given
    if rows is None:
        raise RequestError(
            f"{type(model).__name__} was never fitted, so nothing says what it takes: "
            "pass example=, a few rows as forward takes them"
        )
    return rows


def _reference(model: nn.Module) -> Reference | None:
    """Return the reference by the rows that `fit` remembered, if there are any."""
    memory = attached(model)
    if memory.sample is None or memory.preprocessing is None:
        return None
    raw = memory.preprocessing.batch(memory.sample)
    output = infer(model, raw, memory.preprocessing)
    return Reference.of(raw, output, memory.preprocessing, memory.sample_split)


def _program(model: nn.Module, shown: Shown) -> bytes:
    if shown.preprocessing is None:
        raise RequestError(
            f"{type(model).__name__} cannot be stored: its class cannot be imported and built "
            "without arguments, and a program takes one tensor, not the inputs "
            f"{', '.join(shown.rows)} by name: move the class into a module, with a default for "
            "each argument"
        )
    two = shown.raw if len(shown.raw) > 1 else torch.cat([shown.raw, shown.raw])
    return save_program(copy.deepcopy(model).cpu(), shown.preprocessing(two))


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


def _weights(model: nn.Module) -> bytes:
    state = model.state_dict()
    strange = [key for key, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise RequestError(
            f"the state of {type(model).__name__} holds more than tensors: {strange[:3]}; "
            "only tensors can be published"
        )
    return save_tensors({k: v.detach().cpu().contiguous().clone() for k, v in state.items()})
