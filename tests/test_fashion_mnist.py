"""Fashion-MNIST's four files decode to the same bytes from every source, or are refused."""

from __future__ import annotations

import gzip
import hashlib
import re
import struct
import threading
from collections.abc import Callable, Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import DEAD, left_in, source_of

from workbench.datasets import load, sources
from workbench.datasets.fashion_mnist import decode_idx, store
from workbench.datasets.sources import Arrays, Expected, check_arrays, sha256
from workbench.datasets.store import Stored
from workbench.errors import SourceError

FILES = {
    "train_images": "train-images-idx3-ubyte.gz",
    "train_labels": "train-labels-idx1-ubyte.gz",
    "test_images": "t10k-images-idx3-ubyte.gz",
    "test_labels": "t10k-labels-idx1-ubyte.gz",
}
SHAPES = {
    "train_images": (6, 28, 28), "train_labels": (6,),
    "test_images": (3, 28, 28), "test_labels": (3,),
}  # fmt: skip
RANDOM = np.random.default_rng(0)
TINY: Arrays = {name: RANDOM.integers(0, 10, s, dtype=np.uint8) for name, s in SHAPES.items()}
EXPECTED = {name: Expected(array.shape, sha256(array)) for name, array in TINY.items()}


def idx(array: np.ndarray[Any, np.dtype[Any]]) -> bytes:
    """Return an array as the format's authors describe it: type, axes, lengths, bytes."""
    lengths = struct.pack(f">{array.ndim}I", *array.shape)
    return bytes([0, 0, 8, array.ndim]) + lengths + array.tobytes()


def write(folder: Path, **changed: bytes) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, file in FILES.items():
        content = changed.get(name) or gzip.compress(idx(TINY[name]), mtime=0)
        (folder / file).write_bytes(content)
    return folder


@pytest.fixture
def files(tmp_path: Path) -> Path:
    return write(tmp_path / "good")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: object) -> Path:
    """Give the dataset's folder in a data home of its own, where no apt-get is on PATH."""
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    made = tmp_path / "data" / "fashion_mnist"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def url(files: Path) -> Iterator[str]:
    """Give the URL of a server of the four files."""

    class Quiet(SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(files))) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


def kept(files: Path, url: str = DEAD, installed: Path = Path("/nowhere")) -> Stored:
    """Return the store of the tiny arrays, of which `files` has the official ones."""
    md5 = {n: hashlib.md5((files / file).read_bytes()).hexdigest() for n, file in FILES.items()}
    return store(url=url, md5=md5, expected=EXPECTED, installed=installed)


def check_loaded(kept: Stored, file: Path, source: str) -> None:
    found = kept.load()
    assert all(np.array_equal(found[name].numpy(), TINY[name]) for name in TINY)
    assert source_of(file) == source


def test_four_files_decode_to_what_they_were_made_of(files: Path) -> None:
    found = decode_idx(files)
    assert all(np.array_equal(found[name], TINY[name]) for name in TINY)
    check_arrays(found, EXPECTED)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", r"t10k-labels-idx1-ubyte.gz is no IDX file of bytes: its header b'' says"),
     (b"\0\0\x08", r"header b'.x00.x00.x08' says \(\) and -1 bytes follow"),
     (b"\0\0\x08\3\0\0", r"says \(0, 0, 0\) and -10 bytes follow"),
     (b"\0\0\x0d\1\0\0\0\1\0\0\0\0", r"its header b'.*r.*' says \(\) and 8 bytes follow"),
     (idx(TINY["test_labels"])[:-1], r"says \(3,\) and 2 bytes follow"),
     (idx(TINY["test_labels"]) + b"1", r"says \(3,\) and 4 bytes follow")],
)  # fmt: skip
def test_a_file_that_is_no_array_of_bytes_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    folder = write(tmp_path / "bad", test_labels=gzip.compress(content))
    with pytest.raises(SourceError, match=message):
        decode_idx(folder)


def test_files_put_there_by_hand_are_used(folder: Path, files: Path) -> None:
    write(folder)
    check_loaded(kept(files), folder / "fashion_mnist.safetensors", "cache")


def test_the_official_server_is_asked_next(folder: Path, files: Path, url: str) -> None:
    check_loaded(kept(files, url), folder / "fashion_mnist.safetensors", url)
    assert left_in(folder) == ["fashion_mnist.safetensors"]


def test_an_installed_package_is_used(folder: Path, files: Path, tmp_path: Path) -> None:
    there = write(tmp_path / "usr")
    check_loaded(kept(files, DEAD, there), folder / "fashion_mnist.safetensors", str(there))


def test_the_package_is_downloaded_and_unpacked_last(
    folder: Path, files: Path, command: Callable[[str, str], None]
) -> None:
    command("apt-get", 'for last; do :; done; echo deb > "${last}_1_all.deb"')
    there = "usr/share/datasets/fashion-mnist"
    command("dpkg-deb", f'mkdir -p "$3/{there}" && cp {files}/* "$3/{there}"')
    source = "Debian's package dataset-fashion-mnist"
    check_loaded(kept(files), folder / "fashion_mnist.safetensors", source)
    assert left_in(folder) == ["fashion_mnist.safetensors"]


@pytest.mark.parametrize(
    ("apt", "dpkg", "message"),
    [("echo 'E: Unable to locate package' >&2; exit 100", "",
      "apt-get download ended with 100: E: Unable to locate package"),
     ("exit 0", "", "apt-get download dataset-fashion-mnist ended well and left no package"),
     ("echo > x.deb", "echo bad >&2; exit 2", "dpkg-deb -x ended with 2: bad"),
     ("echo > x.deb", "exit 0", "there is no .*/unpacked/usr/.*/train-images-idx3-ubyte.gz"),
     ("exec sleep 60", "", "apt-get download gave no byte for 0.3 s and was given up")],
)  # fmt: skip
def test_a_package_that_fails_is_named(
    apt: str, dpkg: str, message: str, folder: Path, files: Path,
    command: Callable[[str, str], None], monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr(sources, "_SILENCE", 0.3)
    command("apt-get", apt)
    command("dpkg-deb", dpkg)
    with pytest.raises(SourceError, match=f"  Debian's package dataset-fashion-mnist: {message}"):
        kept(files).load()
    assert left_in(folder) == []


def test_when_nothing_answers_every_source_is_named(folder: Path, files: Path) -> None:
    with pytest.raises(SourceError) as caught:
        kept(files).load()
    first, cache, server, installed, debian, last = str(caught.value).splitlines()
    assert first == "no source of dataset 'fashion_mnist' answered:"
    assert cache == f"  cache: there is no {folder / FILES['train_images']}"
    assert server.startswith(f"  {DEAD}: ")
    assert installed == "  /nowhere: there is no /nowhere/train-images-idx3-ubyte.gz"
    assert debian.endswith("apt-get and dpkg-deb were not found on PATH: they come with Debian")
    assert last == (
        f"Put *-ubyte.gz into {folder}, or set WORKBENCH_DATA to a folder that holds "
        "fashion_mnist/*-ubyte.gz or fashion_mnist/fashion_mnist.safetensors."
    )


def test_offline_nothing_is_asked(
    folder: Path, files: Path, url: str, command: Callable[[str, str], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("WORKBENCH_OFFLINE", "1")
    command("apt-get", f"echo started > {folder / 'mark'}")
    command("dpkg-deb", "")
    with pytest.raises(SourceError, match=r"package .*: not asked, since WORKBENCH_OFFLINE is set"):
        kept(files, url).load()
    assert left_in(folder) == []


def test_another_file_than_the_official_one_is_refused(folder: Path, files: Path, url: str) -> None:
    known = kept(files, url)
    write(files, train_labels=gzip.compress(idx(TINY["train_labels"] + 1)))
    with pytest.raises(SourceError, match=re.escape(f"{url}: train-labels-idx1-ubyte.gz has the")):
        known.load()


def test_fashion_mnist_is_the_real_one() -> None:
    """Of the user's own data home; fetched, with a network, where it is not cached yet."""
    data = load("fashion_mnist")
    assert data.validation is not None
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (55_000, 5_000, 10_000)
    assert (data.train.inputs.shape[1:], str(data.train.inputs.dtype)) == ((28, 28), "torch.uint8")
    assert data.train.targets.bincount().tolist() == [5500] * 10
    assert data.test.targets.bincount().tolist() == [1000] * 10
    assert [data.classes[i] for i in data.test.targets[:3]] == ["Ankle boot", "Pullover", "Trouser"]
    assert (data.card.licence, data.fingerprint[:12]) == ("MIT", "71cf642e341a")
