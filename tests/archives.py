"""Small archives in CIFAR-10's two formats, and the store that takes them for the real ones."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from safetensors import safe_open

from workbench.datasets.cifar10 import store
from workbench.datasets.sources import Arrays, Expected, sha256
from workbench.datasets.store import Stored

ARCHIVE = "cifar-10-binary.tar.gz"
DEAD = "http://127.0.0.1:9/archive"  # the discard port: nothing listens there
ROWS = 4  # a batch


def tiny() -> Arrays:
    """Return arrays as CIFAR-10's, of four rows a batch."""
    random = np.random.default_rng(0)
    n = 5 * ROWS
    return {
        "train_images": random.integers(0, 256, (n, 32, 32, 3), dtype=np.uint8),
        "train_labels": random.integers(0, 10, n, dtype=np.uint8),
        "test_images": random.integers(0, 256, (ROWS, 32, 32, 3), dtype=np.uint8),
        "test_labels": random.integers(0, 10, ROWS, dtype=np.uint8),
    }


TINY = tiny()
EXPECTED = {name: Expected(array.shape, sha256(array)) for name, array in TINY.items()}


def batches() -> Iterator[tuple[str, Any, Any]]:
    """Yield name, images and labels of each batch."""
    for i in range(5):
        rows = slice(i * ROWS, (i + 1) * ROWS)
        yield f"data_batch_{i + 1}", TINY["train_images"][rows], TINY["train_labels"][rows]
    yield "test_batch", TINY["test_images"], TINY["test_labels"]


def pack(path: Path, members: dict[str, bytes]) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(f"folder/{name}")
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def binary(path: Path, **changed: bytes) -> Path:
    """Write the authors' format: a label and the planes R, G, B a row."""
    members = {
        f"{name}.bin": np.concatenate(
            [labels[:, None], images.transpose(0, 3, 1, 2).reshape(-1, 3072)], 1
        ).tobytes()
        for name, images, labels in batches()
    }
    return pack(path, members | {f"{name}.bin": content for name, content in changed.items()})


def png(path: Path, *, width: int = 1024) -> Path:
    """Write the npm package's format: pictures with one image a row, and lists of labels."""
    members = {}
    for name, images, _ in batches():
        picture = io.BytesIO()
        Image.fromarray(images.reshape(-1, width, 3)).save(picture, "PNG")
        members[f"{name}.png"] = picture.getvalue()
    for part in ("train", "test"):
        members[f"{part}_lables.json"] = json.dumps(TINY[f"{part}_labels"].tolist()).encode()
    return pack(path, members)


def md5(path: Path) -> str:
    return hashlib.md5(path.read_bytes()).hexdigest()


def kept(path: Path, url: str = DEAD) -> Stored:
    """Return the store of the tiny arrays, whose binary archive lies at `path`."""
    return store(url=url, md5=md5(path), expected=EXPECTED)


def source_of(file: Path) -> str:
    with safe_open(file, "np") as opened:
        return str(opened.metadata()["source"])


def left_in(folder: Path) -> list[str]:
    """Return what lies in the folder beside the lock."""
    return sorted(path.name for path in folder.iterdir() if path.suffix != ".lock")
