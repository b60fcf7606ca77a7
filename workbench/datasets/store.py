"""Decoded arrays on disk: fetched once, written whole or not at all, memory-mapped ever after.

One file a dataset, `<name>/<name>.safetensors` in the data home, with a lock beside it. Its
metadata holds the format's version, the hash of the content and the source it came from.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
import sys
import tempfile
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.datasets.sources import (
    Expected,
    Source,
    check_arrays,
    first_answering,
    is_offline,
)
from workbench.errors import SourceError, TamperedError
from workbench.home import data_home, write_file

if TYPE_CHECKING:
    from torch import Tensor

    from workbench.datasets.splits import Card, Dataset

__all__ = ["Stored", "stored_file"]

_FORMAT = "workbench-dataset-1"
_SCRATCH = ".fetch."
_PATIENCE = 2.0  # seconds to wait for another process before saying so


def stored_file(name: str) -> Path:
    """Return where the decoded arrays of a fetched dataset lie, or will."""
    return data_home() / name / f"{name}.safetensors"


@dataclass(frozen=True)
class Stored:
    """Arrays of a dataset that is fetched once and kept decoded.

    Args:
        name: of the dataset.
        sources: in the order to try them.
        expected: what the arrays must be, whatever the source.
        archive: name of the file that a user without network can put beside them.
    """

    name: str
    sources: tuple[Source, ...]
    expected: Mapping[str, Expected]
    archive: str

    @property
    def content(self) -> str:
        """The SHA-256 of the arrays' names, shapes and hashes: equal for every source."""
        told = {name: [list(want.shape), want.sha256] for name, want in self.expected.items()}
        return hashlib.sha256(json.dumps(told, sort_keys=True).encode()).hexdigest()

    def dataset(self, classes: tuple[str, ...], card: Card, *, verify: bool = False) -> Dataset:
        """Return the arrays `train_images`, `train_labels` and those of test as a dataset.

        Args:
            classes: the names of the labels, in their order.
            card: what a person should know of it.
            verify: as in `load`.

        Raises:
            SourceError: no source answered, or the arrays cannot be kept.
        """
        from workbench.datasets.splits import Dataset, Split

        found = self.load(verify=verify)
        train, test = (
            Split(found[f"{part}_images"], found[f"{part}_labels"].long(), classes)
            for part in ("train", "test")
        )
        return Dataset(self.name, train, None, test, self.content, card)

    def load(self, *, verify: bool = False) -> dict[str, Tensor]:
        """Return the arrays, mapped from the file; they are fetched first where it is missing.

        A damaged file is fetched again, with a warning that says why.

        Args:
            verify: compare every byte of the file to its SHA-256; else its size, shapes and the
                hash stored in it are checked.

        Raises:
            SourceError: no source answered, or the arrays cannot be kept.
        """
        file = stored_file(self.name)
        with contextlib.suppress(FileNotFoundError, TamperedError):
            return self._read(file, verify=verify)
        try:
            with _alone(file.parent / f"{self.name}.lock", self.name):
                try:
                    return self._read(file, verify=verify)  # another process may have been faster
                except TamperedError as error:
                    warnings.warn(f"{error}: it is fetched again", stacklevel=2)
                except FileNotFoundError:
                    pass
                self._fetch(file)
        except SourceError:
            raise
        except OSError as error:
            raise SourceError(
                f"dataset {self.name!r} cannot be kept in {file.parent}: {error}. Make room or "
                "give write permission there, or set WORKBENCH_DATA to another folder."
            ) from error
        return self._read(file, verify=False)

    def _read(self, file: Path, *, verify: bool) -> dict[str, Tensor]:
        from safetensors import SafetensorError, safe_open

        try:
            with safe_open(file, "pt") as opened:
                metadata = opened.metadata() or {}
                arrays = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
        except FileNotFoundError:
            raise
        except (SafetensorError, OSError) as error:
            raise TamperedError(f"{file} cannot be read ({error})") from None
        for key, want in (("format", _FORMAT), ("content", self.content)):
            if metadata.get(key) != want:
                raise TamperedError(
                    f"{file} has the {key} {metadata.get(key)!r}, expected {want!r}"
                )
        self._check(file, arrays, verify=verify)
        return arrays

    def _check(self, file: Path, arrays: dict[str, Tensor], *, verify: bool) -> None:
        shapes = {name: (tuple(array.shape), str(array.dtype)) for name, array in arrays.items()}
        wanted = {name: (want.shape, "torch.uint8") for name, want in self.expected.items()}
        if shapes != wanted:
            raise TamperedError(f"{file} holds {shapes}, expected {wanted}")
        if verify:
            try:
                check_arrays(arrays, self.expected)
            except SourceError as error:
                raise TamperedError(f"{file} is damaged ({error})") from None

    def _fetch(self, file: Path) -> None:
        from safetensors.numpy import save

        _sweep(file)
        there = (
            f"{self.archive} into {file.parent}, or set WORKBENCH_DATA to a folder that holds "
            f"{self.name}/{self.archive} or {self.name}/{file.name}"
        )
        otherwise = f"Put {there}."
        if is_offline():
            otherwise = (
                f"This machine is offline (WORKBENCH_OFFLINE is set) and {file} is missing. Run "
                f"`workbench data fetch {self.name}` on a machine with a network and copy that "
                f"file here, put {there}, or unset WORKBENCH_OFFLINE."
            )
        with tempfile.TemporaryDirectory(
            dir=file.parent, prefix=_SCRATCH, ignore_cleanup_errors=True
        ) as scratch:
            arrays, source = first_answering(
                self.name, self.sources, self.expected, Path(scratch), otherwise=otherwise
            )
        about = {"format": _FORMAT, "content": self.content, "source": source}
        write_file(file, save(arrays, about))


@contextlib.contextmanager
def _alone(lock: Path, name: str) -> Iterator[None]:
    """Let one process at a time fetch; the system frees the lock of one that dies."""
    from filelock import FileLock, Timeout

    lock.parent.mkdir(parents=True, exist_ok=True)
    held = FileLock(lock)
    try:
        held.acquire(timeout=_PATIENCE)
    except Timeout:
        print(f"waiting for another process that fetches {name}", file=sys.stderr)
        held.acquire()
    try:
        yield
    finally:
        held.release()


def _sweep(file: Path) -> None:
    """Remove what a killed fetch left behind; only called by the one that holds the lock."""
    for left in file.parent.glob(f"{_SCRATCH}*"):
        shutil.rmtree(left, ignore_errors=True)
    for left in file.parent.glob(f".{file.name}.*"):
        left.unlink(missing_ok=True)
