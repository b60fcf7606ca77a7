"""CIFAR-10's two archives decode to the same bytes, and anything else is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import EXPECTED, TINY, binary, pack, png

from workbench.datasets.cifar10 import decode_binary, decode_png
from workbench.datasets.sources import Arrays, check_arrays
from workbench.errors import SourceError


@pytest.mark.parametrize(("write", "decode"), [(binary, decode_binary), (png, decode_png)])
def test_both_archives_decode_to_the_same(
    write: Callable[[Path], Path], decode: Callable[[Path], Arrays], tmp_path: Path
) -> None:
    found = decode(write(tmp_path / "archive.tgz"))
    assert sorted(found) == sorted(TINY)
    assert all(np.array_equal(found[name], TINY[name]) for name in TINY)
    check_arrays(found, EXPECTED)


def test_an_archive_that_is_not_one_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar.gz"
    with pytest.raises(SourceError, match=r"data_batch_2.bin has 5 bytes, expected rows of 3073"):
        decode_binary(binary(path, data_batch_2=b"12345"))
    with pytest.raises(SourceError, match=r"a.tar.gz has no data_batch_1.bin, .*test_batch.bin"):
        decode_binary(pack(path, {"other": b""}))
    with pytest.raises(SourceError, match=r"data_batch_1.png is 512 pixels wide, expected 1024"):
        decode_png(png(path, width=512))


@pytest.mark.parametrize(
    ("changed", "message"),
    [({"test_labels": None}, "test_labels is missing, found train_images, "),
     ({"test_labels": TINY["test_labels"][:2]},
      r"test_labels is uint8 \(2,\), expected uint8 \(4,\)"),
     ({"test_labels": TINY["test_labels"].astype(np.int64)},
      r"test_labels is int64 \(4,\), expected uint8 \(4,\)"),
     ({"test_labels": TINY["test_labels"] + 1},
      "test_labels has the SHA-256 [0-9a-f]{64}, expected [0-9a-f]{64}")],
)  # fmt: skip
def test_other_arrays_are_refused(changed: dict[str, Any], message: str) -> None:
    arrays = {name: array for name, array in (TINY | changed).items() if array is not None}
    with pytest.raises(SourceError, match=message):
        check_arrays(arrays, EXPECTED)
