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
from pathlib import Path
from typing import Any

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
_KEYS = (
    "name", "version", "created", "architecture", "parameters", "call", "preprocessing",
    "signature", "settings", "metrics", "reference", "lineage", "checksums",
)  # fmt: skip
_HASH = re.compile(r"[0-9a-f]{64}")
_DTYPES = {word: name for name, word in DATATYPES.items()}


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


def record_of(content: bytes, where: str) -> JSON:
    """Return the record that some bytes are, checked.

    Args:
        content: of a `version.json`.
        where: it was found, for the messages.

    Raises:
        TamperedError: it is none, is of a newer format, or is not what was published.
    """
    try:
        record = json.loads(content)
        form = record["format"]
        if form > _FORMAT:
            raise TamperedError(
                f"{record.get('name')}@{record.get('version')} has format {form}, this workbench "
                f"reads up to {_FORMAT}: upgrade with pip install --upgrade maas-workbench"
            )
        record = sealed(_upgraded(record)) if form == 1 else _unbroken(record, where)
        _check_parts(record)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
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
        example_of(contents["example.json"], record)
        reference_of(contents.get("reference.json"))
    except (ValueError, KeyError, TypeError, AttributeError, RuntimeError, RecursionError) as error:
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
    """Raise KeyError, TypeError or ValueError where a part is missing, or is none of its kind."""
    missing = [key for key in _KEYS if key not in record]
    if missing:
        raise KeyError(*missing)
    files, plain = set(record["checksums"]), record["call"] == "rows"
    needed = {"weights.safetensors", "example.json"}
    needed |= {"program.pt2"} if "program" in record["architecture"] else set()
    needed |= {"reference.json"} if record["reference"] else set()
    wrong = {
        "format": record["format"] != _FORMAT,
        "name": not is_name(record["name"]),
        "version": type(record["version"]) is not int or not is_number(str(record["version"])),
        "metrics": not all(isinstance(v, (int, float)) for v in record["metrics"].values()),
        "created": not isinstance(record["created"], str),
        "files": not needed <= files <= set(FILES),
        "checksums": not all(map(_HASH.fullmatch, record["checksums"].values())),
        "call": not (plain or record["call"] == "named"),
        "lineage": not isinstance(record["lineage"], dict),
        "preprocessing": plain != isinstance(record["preprocessing"], dict),
    }
    strange = [part for part, is_wrong in wrong.items() if is_wrong]
    if strange:
        raise ValueError(f"strange {', '.join(strange)}")
    Signature.from_json(record["signature"])
    if plain:
        Preprocessing.from_json(record["preprocessing"])
