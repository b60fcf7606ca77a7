"""The record of a version: `version.json`, sealed by its own hash, which names all other files'.

The seal is the SHA-256 of the record without it, as JSON of sorted keys without spaces, so a record
of which one character was changed is refused. It proves that nothing was damaged or mixed up, not
who wrote it. Format 1, which had no seal, is read as if it had been written in format 2.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

import msgspec
import torch
from torch import Tensor

from workbench.errors import TamperedError
from workbench.preprocessing import Preprocessing
from workbench.registry.folders import is_name, is_number
from workbench.registry.references import Reference
from workbench.types import DATATYPES, JSON, Signature

__all__ = [
    "FILES",
    "RECORD",
    "check_content",
    "content_problem",
    "example_of",
    "identity",
    "read_record",
    "record_of",
    "reference_of",
    "sealed",
    "sha256",
]

_FORMAT = 2
RECORD = "version.json"
FILES = ("weights.safetensors", "example.json", "reference.json", "program.pt2")
_HASH = re.compile(r"[0-9a-f]{64}")
_WRONG = (ValueError, KeyError, TypeError, AttributeError, RecursionError)  # of foreign JSON
_DTYPES = {word: name for name, word in DATATYPES.items()}


class _Data(msgspec.Struct):
    name: str | None
    fingerprint: str | None


class _Code(msgspec.Struct):
    commit: str


class _Cell(msgspec.Struct):
    notebook: str | None
    execution_count: int


class _Origin(msgspec.Struct):
    ref: str
    seal: str
    by: str


class _Lineage(msgspec.Struct):
    """What any format says of where a version comes from; the newer parts may be missing."""

    run: str | None
    data: _Data | None
    parent: str | None
    parameters: JSON | None = None
    cell: _Cell | None = None
    code: _Code | None = None
    origin: _Origin | None = None


class _Reference(msgspec.Struct):
    rows: int


class _Record(msgspec.Struct):
    """The parts of a record, each of its kind."""

    format: int
    name: str
    version: int
    created: datetime
    architecture: JSON
    parameters: int
    call: Literal["rows", "named"]
    preprocessing: Preprocessing | None
    signature: Signature
    settings: JSON | None
    metrics: dict[str, float]
    reference: _Reference | None
    lineage: _Lineage
    checksums: dict[str, str]


def sha256(content: bytes) -> str:
    """Return the SHA-256 of bytes in hexadecimal digits."""
    return hashlib.sha256(content).hexdigest()


def sealed(record: JSON) -> JSON:
    """Return a record as it will be read, with its format and its seal."""
    said = {key: value for key, value in record.items() if key not in ("format", "seal")}
    plain: JSON = json.loads(json.dumps({"format": _FORMAT, **said}, allow_nan=False))
    return {**plain, "seal": _seal(plain)}


def identity(record: JSON) -> str:
    """Return the seal that a version was published with, which it keeps wherever it is taken."""
    origin = record["lineage"].get("origin")
    return str((origin or record)["seal"])


def read_record(path: Path, name: str, number: int) -> JSON:
    """Return the record of `name@number`.

    Raises:
        TamperedError: it cannot be read, is of a newer format, or is not what was published.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise TamperedError(f"{path} cannot be read: {error.strerror}") from None
    record = record_of(content, str(path))
    if (record["name"], record["version"]) != (name, number):
        raise TamperedError(
            f"{path} cannot be read: it is of another version, {record['name']}@"
            f"{record['version']}, expected {name}@{number}: put its folder back where it was"
        )
    return record


def record_of(content: bytes, where: str, *, exported: bool = False) -> JSON:
    """Return the record that some bytes are, checked.

    Args:
        content: of a `version.json`.
        where: it was found, for the messages.
        exported: it was in a file from elsewhere, where only a sealed one is believed.

    Raises:
        TamperedError: it is none, is of another format, or is not what was published.
    """
    try:
        record = json.loads(content)
        form = record["format"]
        if form > _FORMAT:
            raise TamperedError(
                f"{record.get('name')}@{record.get('version')} has format {form}, this workbench "
                f"reads up to {_FORMAT}: upgrade with pip install --upgrade maas-workbench"
            )
        if form == 1 and exported:
            raise TamperedError(
                f"{where} has format 1, which has no seal and was never exported: publish the "
                "model again and export that"
            )
        record = sealed(_upgraded(record)) if form == 1 else _unbroken(record, where)
        _check_parts(record)
    except (*_WRONG, msgspec.ValidationError) as error:
        if isinstance(error, TamperedError):
            raise
        raise TamperedError(f"{where} cannot be read: {error!r:.300}") from None
    return record


def content_problem(content: bytes | None, file: str, record: JSON) -> str | None:
    """Return what is wrong with the content of a version's file, or None.

    Args:
        content: None where there is no such file.
        file: its name.
        record: says which content was published.
    """
    expected = record["checksums"].get(file)
    if content is None:
        return "is not there"
    if sha256(content) == expected:
        return None
    found = f"has SHA-256 {sha256(content)[:12]}" if content else "is empty"
    return f"{found}, published was {str(expected)[:12]}"


def check_content(contents: Mapping[str, bytes], record: JSON, where: str) -> None:
    """Raise where example and reference, whose checksums are right, are not those of a version.

    Raises:
        TamperedError: they are not.
    """
    try:
        example = example_of(contents["example.json"], record)
        if record["call"] == "rows":
            Preprocessing.from_json(record["preprocessing"])(example)
        reference_of(contents.get("reference.json"))
    except (*_WRONG, RuntimeError) as error:
        raise TamperedError(f"{where} cannot be read: {error!r:.300}") from None


def example_of(content: bytes, record: JSON) -> Any:
    """Return a few raw rows, shaped (rows, ...); or such by name, of a model that is called so."""
    data = json.loads(content)
    if record["call"] == "rows":
        return Preprocessing.from_json(record["preprocessing"]).batch(data["rows"])
    specs = Signature.from_json(record["signature"]).inputs
    return {s.name: _typed(data["inputs"][s.name], s.datatype, s.shape[1:]) for s in specs}


def reference_of(content: bytes | None) -> Reference | None:
    """Return the reference that a file holds; None without one."""
    return None if content is None else Reference.from_json(json.loads(content))


def _typed(rows: list[Any], datatype: str, shape: tuple[int, ...]) -> Tensor | list[str]:
    if datatype == "BYTES":
        return [str(text) for text in rows]
    dtype: torch.dtype = getattr(torch, _DTYPES[datatype])
    return torch.tensor(rows, dtype=dtype).reshape(len(rows), *shape)


def _seal(record: JSON) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return sha256(text.encode())


def _upgraded(record: JSON) -> JSON:
    newer = [key for key in ("call", "reference", "seal") if key in record]
    if newer:
        raise ValueError(f"format 1 with {', '.join(newer)}, which it had not")
    return {"call": "rows", "reference": None, **record}


def _unbroken(record: JSON, where: str) -> JSON:
    said = record.get("seal")
    found = _seal({key: value for key, value in record.items() if key != "seal"})
    if said != found:
        raise TamperedError(
            f"{where} is not the record that was published: its seal is {said!s:.12}, its "
            f"content's would be {found[:12]}: it was changed or damaged; publish the model again"
        )
    return record


def _check_parts(record: JSON) -> None:
    """Raise where a part is missing, or is none of its kind.

    Raises:
        ValidationError, KeyError, TypeError or ValueError: one is.
    """
    told = msgspec.convert(record, _Record)
    plain = told.call == "rows"
    needed = {"weights.safetensors", "example.json"}
    needed |= {"program.pt2"} if "program" in told.architecture else set()
    needed |= {"reference.json"} if told.reference else set()
    wrong = {
        "format": told.format != _FORMAT,
        "name": not is_name(told.name),
        "version": not is_number(str(told.version)),
        "files": not needed <= told.checksums.keys() <= set(FILES),
        "checksums": not all(map(_HASH.fullmatch, told.checksums.values())),
        "preprocessing": plain == (told.preprocessing is None),
        "signature": not (told.signature.inputs and told.signature.outputs),
    }
    strange = [part for part, is_wrong in wrong.items() if is_wrong]
    if strange:
        raise ValueError(f"strange {', '.join(strange)}")
    if plain:
        _check_rows(Preprocessing.from_json(record["preprocessing"]), told.signature)


def _check_rows(preprocessing: Preprocessing, signature: Signature) -> None:
    """Raise ValueError where raw rows are other ones to the two of them."""
    features, shape = preprocessing.features, preprocessing.shape
    if [spec.shape[1:] for spec in signature.inputs] != [shape]:
        raise ValueError(f"signature of other rows than {list(shape)}")
    if features and (len(features),) != shape:
        raise ValueError(f"{len(features)} features of rows {list(shape)}")
