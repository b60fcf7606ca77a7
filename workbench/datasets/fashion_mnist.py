"""`fashion_mnist`: 70,000 small grey pictures of clothes, from whichever source answers.

Every source has the same four files of the IDX format, gzipped; the bytes within are checked.
"""

from __future__ import annotations

import gzip
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.datasets.sources import Arrays, Expected, Source, apt_download, download
from workbench.datasets.store import Stored, stored_file
from workbench.errors import SourceError
from workbench.progress import progress

if TYPE_CHECKING:
    import numpy as np

    from workbench.datasets.splits import Dataset

__all__ = ["decode_idx", "fashion_mnist", "store"]

_CLASSES = (
    *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
    *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
)
_URL = "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com"
_PACKAGE, _PACKAGE_SIZE = "dataset-fashion-mnist", 30_900_652
_INSTALLED = Path("/usr/share/datasets/fashion-mnist")
_FILES = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}
_MD5 = {  # as its authors state
    "train_images": "8d4fb7e6c68d591d4c3dfef9ec88bf0d",
    "train_labels": "25c81989df183df01b3e8a0aad5dffbe",
    "test_images": "bef4ecab320f06d8554ea6380940ec79",
    "test_labels": "bb300cfdad3c16e7a12a480ee83cd310",
}
_ARRAYS = {
    "train_images": Expected(
        (60_000, 28, 28), "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012"
    ),
    "train_labels": Expected(
        (60_000,), "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7"
    ),
    "test_images": Expected(
        (10_000, 28, 28), "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a"
    ),
    "test_labels": Expected(
        (10_000,), "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9"
    ),
}


def fashion_mnist(*, verify: bool = False) -> Dataset:
    """Return Fashion-MNIST: uint8 images shaped (28, 28), 60,000 to train on and 10,000 to test.

    Args:
        verify: compare every byte of a cached copy to its SHA-256.

    Raises:
        SourceError: it is not cached and no source answered.
    """
    from workbench.datasets.splits import Card

    card = Card(
        description="70,000 grey pictures of 28×28 pixels of Zalando's articles in 10 classes; "
        "10,000 are the test split of its authors.",
        source="Xiao, Rasul and Vollgraf (2017), Fashion-MNIST: a Novel Image Dataset for "
        "Benchmarking Machine Learning Algorithms",
        licence="MIT",
    )
    return store().dataset(_CLASSES, card, verify=verify)


def store(
    *,
    url: str = _URL,
    md5: Mapping[str, str] = _MD5,
    expected: Mapping[str, Expected] = _ARRAYS,
    installed: Path = _INSTALLED,
) -> Stored:
    """Return where Fashion-MNIST is kept and how it gets there.

    Args:
        url: of the folder with the four files.
        md5: of each file, by the name of its array.
        expected: what the decoded arrays must be.
        installed: where Debian's package puts the four files.
    """

    def from_server(scratch: Path) -> Arrays:
        for name, file in _FILES.items():
            download(f"{url}/{file}", scratch / file, md5=md5[name])
        return decode_idx(scratch)

    def from_debian(scratch: Path) -> Arrays:
        root = apt_download(_PACKAGE, scratch, size=_PACKAGE_SIZE)
        return decode_idx(root / _INSTALLED.relative_to("/"))

    sources = (
        Source("cache", lambda _: decode_idx(stored_file("fashion_mnist").parent)),
        Source(url, from_server),
        Source(f"{installed}", lambda _: decode_idx(installed)),
        Source(f"Debian's package {_PACKAGE}", from_debian),
    )
    return Stored("fashion_mnist", sources, expected, archive="*-ubyte.gz")


def decode_idx(folder: Path) -> Arrays:
    """Return the arrays of the four files in a folder.

    Raises:
        SourceError: a file is missing, or is not what its header says.
    """
    missing = [file for file in _FILES.values() if not (folder / file).exists()]
    if missing:
        raise SourceError(f"there is no {folder / missing[0]}")
    with progress(len(_FILES), "decoding fashion_mnist", unit="file") as bar:
        arrays = {}
        for name, file in _FILES.items():
            arrays[name] = _array(folder / file)
            bar.update()
    return arrays


def _array(path: Path) -> np.ndarray[Any, np.dtype[Any]]:
    """Return what an IDX file of bytes holds: 0, 0, 8, the axes' number and lengths, then bytes."""
    import numpy as np

    content = gzip.decompress(path.read_bytes())
    axes = content[3] if content.startswith(b"\0\0\x08") and len(content) > 3 else 0
    shape = tuple(int.from_bytes(content[4 * i : 4 * i + 4]) for i in range(1, axes + 1))
    size = len(content) - 4 - 4 * axes
    if not axes or math.prod(shape) != size:
        raise SourceError(
            f"{path.name} is no IDX file of bytes: its header {content[:4]!r} says {shape} "
            f"and {size} bytes follow"
        )
    return np.frombuffer(content, np.uint8, offset=4 + 4 * axes).reshape(shape)
