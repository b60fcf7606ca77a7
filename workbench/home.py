"""Where things live on this machine, and how they get there whole or not at all."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import platformdirs

__all__ = ["data_home", "home", "new_folder", "read_json", "write_file", "write_json"]


def home() -> Path:
    """Return the folder of runs, models and services: `WORKBENCH_HOME`, else the user's own."""
    return _folder("WORKBENCH_HOME", platformdirs.user_data_dir("workbench"))


def data_home() -> Path:
    """Return the folder of downloaded datasets: `WORKBENCH_DATA`, else in the user's cache."""
    return _folder("WORKBENCH_DATA", Path(platformdirs.user_cache_dir("workbench")) / "datasets")


def _folder(variable: str, default: str | Path) -> Path:
    return Path(os.environ.get(variable) or default).expanduser().absolute()


def write_file(path: Path, content: bytes, *, mode: int = 0o644) -> None:
    """Write `content` to `path` whole or not at all: temporary file, fsync, rename.

    Args:
        path: where to; missing folders are made.
        content: the bytes.
        mode: the permissions of the file.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, mode)
        os.replace(temporary, path)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary)
        raise
    _sync(path.parent)


def write_json(path: Path, data: Any, *, mode: int = 0o644) -> None:
    """Write `data` to `path` as readable JSON, whole or not at all; NaN is refused."""
    text = json.dumps(data, indent=2, ensure_ascii=False, allow_nan=False)
    write_file(path, (text + "\n").encode(), mode=mode)


def read_json(path: Path) -> Any:
    """Return what the JSON file at `path` holds."""
    return json.loads(path.read_text(encoding="utf-8"))


@contextlib.contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Give an empty folder to fill; on a good end it appears at `path` at once, else never.

    Raises:
        OSError: `path` is there already and is not empty.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        for file in temporary.rglob("*"):
            _sync(file)
        temporary.chmod(0o755)
        os.rename(temporary, path)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    _sync(path.parent)


def _sync(path: Path) -> None:
    """Flush a file or a folder to the disk, where the platform can."""
    if path.is_dir() and os.name == "nt":
        return
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
