"""Model versions: found by name and number or alias, checked, loaded; nothing ever changes one.

A version is the folder `models/<name>/<number>/`: `version.json` (architecture, preprocessing,
signature, settings, metrics, lineage, checksums), `weights.safetensors`, `example.json`,
`reference.json` where it was trained here, and `program.pt2` where the model's class cannot be
imported.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load as load_tensors
from torch import nn

from workbench.attached import attached
from workbench.errors import RequestError, TamperedError, UnknownNameError
from workbench.preprocessing import Preprocessing
from workbench.registry.aliases import standing
from workbench.registry.architectures import load_state, rebuild
from workbench.registry.folders import check_name, folder_of, is_number, names, numbers
from workbench.registry.records import (
    RECORD,
    content_problem,
    example_of,
    read_record,
    reference_of,
)
from workbench.registry.references import Reference
from workbench.types import JSON, Signature

__all__ = ["ModelVersion", "list_models", "look_through", "resolve", "version"]


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
    def aliases(self) -> tuple[str, ...]:
        """The aliases that are on it now."""
        return standing(self.name).of(self.version)

    @property
    def retired(self) -> bool:
        """Whether it was retired, and not restored since."""
        return self.version in standing(self.name).retired

    @property
    def signature(self) -> Signature:
        """What goes in and comes out when it is served."""
        return Signature.from_json(self.record["signature"])

    @property
    def preprocessing(self) -> Preprocessing | None:
        """What makes raw rows into what `forward` takes; None of a model that is called by name."""
        data = self.record["preprocessing"]
        return None if data is None else Preprocessing.from_json(data)

    @property
    def metrics(self) -> dict[str, float]:
        """The figures of the evaluation it was published with."""
        return dict(self.record["metrics"])

    @property
    def lineage(self) -> JSON:
        """The run or cell, its parameters, the data, code and parent it came from."""
        return dict(self.record["lineage"])

    @property
    def card(self) -> JSON:
        """What a person should know: model, data, figures, when and with what it was made.

        `reference` says of how many rows of which split (`rows_of`; of none that is said, the
        training split) the statistics are that drift is measured against; None where it was not
        trained here.
        """
        keys = ("name", "version", "created", "architecture", "parameters", "metrics", "reference")
        return {key: self.record[key] for key in (*keys, "lineage")}

    @property
    def example(self) -> Any:
        """A few raw rows, shaped (rows, ...), as the service takes them.

        Of a model of several inputs a dictionary of such, texts being lists.
        """
        return example_of(self.content("example.json"), self.record)

    @property
    def reference(self) -> Reference | None:
        """What training rows and the answers to them looked like; None if it has none."""
        there = "reference.json" in self.record["checksums"]
        return reference_of(self.content("reference.json") if there else None)

    def load(self) -> nn.Module:
        """Return the model with its weights, in evaluation mode, ready to predict, fit or serve.

        A version kept as a program can be served and asked, not trained.

        Raises:
            TamperedError: a file is not what was published.
            RequestError: its class cannot be imported here.
        """
        self.check()
        model = rebuild(self.record["architecture"], self.folder)
        if "program" not in self.record["architecture"]:
            self._load_weights(model)
            model.eval()
        memory = attached(model)
        memory.preprocessing = self.preprocessing
        memory.example, memory.version = self.example, self.ref
        return model

    def check(self) -> None:
        """Raise where a file of it is not what was published.

        Raises:
            TamperedError: one is not.
        """
        for file in self.record["checksums"]:
            self.content(file)

    def check_active(self) -> None:
        """Raise where it was retired, so that it is neither promoted nor served.

        Raises:
            RequestError: it was.
        """
        line = standing(self.name).retired.get(self.version)
        if line is not None:
            raise RequestError(
                f"{self.ref} was retired on {line['when'][:10]}{_because(line)}: take another "
                f"version, or restore it with workbench restore {self.ref}"
            )

    def __repr__(self) -> str:
        figures = "".join(f", {name} {value:.4g}" for name, value in self.metrics.items())
        return f"ModelVersion {self.ref}{figures}"

    def content(self, file: str) -> bytes:
        """Return the bytes of one of its files.

        Raises:
            TamperedError: they are not those that were published.
        """
        path = self.folder / file
        try:
            content = path.read_bytes()
        except FileNotFoundError:
            content = None
        except OSError as error:
            raise TamperedError(f"{path} of {self.ref} cannot be read: {error.strerror}") from None
        problem = content_problem(content, file, self.record)
        if problem or content is None:
            raise TamperedError(
                f"{path} of {self.ref} {problem}: it was changed or damaged; publish the model "
                "again, or import it from a file that workbench export wrote"
            )
        return content

    def _load_weights(self, model: nn.Module) -> None:
        try:
            load_state(model, load_tensors(self.content("weights.safetensors")))
        except (SafetensorError, RuntimeError) as error:
            raise TamperedError(
                f"{self.folder / 'weights.safetensors'} does not fit the model: {error}"
            ) from None


def version(ref: str) -> ModelVersion:
    """Return a published version.

    Args:
        ref: `"name@3"`; `"name@champion"` for the one that an alias is on now; or `"name"` for the
            newest that was not retired.

    Raises:
        RequestError: there is no such model, version or alias, or all of them were retired.
        TamperedError: its record cannot be read, was changed, or is of a newer format.
    """
    name, number = resolve(ref)
    folder = folder_of(name, number)
    return ModelVersion(name, number, folder, read_record(folder / RECORD, name, number))


def resolve(ref: str) -> tuple[str, int]:
    """Return the name and the number that a reference stands for now; reads no record.

    An alias costs a look or two at the file system, so a service can ask at each request.

    Args:
        ref: as `version` takes it.

    Raises:
        RequestError: there is no such model, version or alias, or all of them were retired.
        TamperedError: what the aliases are on cannot be read, or is gone.
    """
    name, at, word = ref.partition("@") if isinstance(ref, str) else (ref, "", "")
    check_name(name)
    number = int(word) if is_number(word) else standing(name).aliases.get(word) if at else None
    if number is not None and folder_of(name, number).is_dir():
        return name, number
    known = numbers(name)
    if not known:
        raise UnknownNameError("model", name, names())
    if not at:
        return name, _newest(name, known)
    if word in standing(name).aliases:
        raise TamperedError(
            f"{ref} is {name}@{number}, and its folder {folder_of(name, number)} is gone: put it "
            f"back, or promote another version to {word}"
        )
    raise UnknownNameError(f"version of {name}", word, [*map(str, known), *standing(name).aliases])


def list_models() -> list[ModelVersion]:
    """Return every published version, by name and number; of one that cannot be read, warn."""
    found, problems = look_through()
    for problem in problems:
        warnings.warn(problem, stacklevel=2)
    return found


def look_through() -> tuple[list[ModelVersion], list[str]]:
    """Return every version that can be read, by name and number, and of each other why not."""
    found, problems = [], []
    for name in names():
        for number in numbers(name):
            try:
                found.append(version(f"{name}@{number}"))
            except TamperedError as error:  # one damaged record must not hide all the others
                problems.append(str(error))
    return found, problems


def _newest(name: str, known: list[int]) -> int:
    retired = standing(name).retired
    in_use = [number for number in known if number not in retired]
    if not in_use:
        last = f"{name}@{known[-1]}"
        raise RequestError(
            f"every version of {name} was retired, {last} last{_because(retired[known[-1]])}: say "
            f"which you mean, as in {last}, or workbench restore it"
        )
    return in_use[-1]


def _because(line: JSON) -> str:
    return f" ({line['why']})" if line.get("why") else ""
