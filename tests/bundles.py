"""Bundles of versions that somebody has changed, and what an import makes of them."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from workbench.errors import TamperedError
from workbench.home import home
from workbench.registry import import_version

__all__ = ["Entries", "changed", "put", "refused", "reseal"]

Entries = dict[str, bytes]


def reseal(entries: Entries, **said: Any) -> None:
    """Let the record say something else, with the seal and the checksums that belong to it."""
    record = {**json.loads(entries["version.json"]), **said}
    record.pop("seal", None)
    for name in record["checksums"]:
        if name in entries:
            record["checksums"][name] = hashlib.sha256(entries[name]).hexdigest()
    text = json.dumps(record, sort_keys=True, separators=(",", ":"))
    record["seal"] = hashlib.sha256(text.encode()).hexdigest()
    entries["version.json"] = json.dumps(record).encode()


def put(name: str, content: bytes) -> Callable[[Entries], object]:
    """Return what puts other content into a bundle, whose checksum is right."""

    def change(entries: Entries) -> None:
        entries[name] = content
        reseal(entries)

    return change


def changed(file: Path, change: Callable[[Entries], object], how: int = zipfile.ZIP_STORED) -> Path:
    """Return a bundle that was made of another's entries after they were changed."""
    with zipfile.ZipFile(file) as old:
        entries = {name: old.read(name) for name in old.namelist()}
    change(entries)
    made = file.with_name("changed.zip")
    with zipfile.ZipFile(made, "w", how) as new:
        for name, content in entries.items():
            new.writestr(name, content)
    return made


def refused(file: Path, message: str) -> None:
    """Check that an import is refused and leaves nothing behind."""
    before = sorted(home().rglob("*"))
    with pytest.raises(TamperedError, match=message):
        import_version(file)
    assert sorted(home().rglob("*")) == before
