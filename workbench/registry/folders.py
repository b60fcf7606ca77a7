"""Where model versions lie: `models/<name>/<number>/` below the home."""

from __future__ import annotations

import re
from pathlib import Path

from workbench.errors import RequestError
from workbench.home import home
from workbench.types import NAME_PATTERN

__all__ = ["check_name", "folder_of", "is_name", "is_number", "names", "numbers"]

_NAME = re.compile(NAME_PATTERN)
_NUMBER = re.compile(r"[1-9][0-9]{0,8}")


def folder_of(name: str, number: int | str | None = None) -> Path:
    """Return the folder of a model, or of one of its versions."""
    folder = home() / "models" / name
    return folder if number is None else folder / str(number)


def names() -> list[str]:
    """Return the models of which there is a version, by name."""
    root = home() / "models"
    folders = root.glob("*/") if root.is_dir() else []
    return sorted(f.name for f in folders if is_name(f.name) and numbers(f.name))


def numbers(name: str) -> list[int]:
    """Return the versions that there are of a model, ascending."""
    return sorted(int(f.name) for f in folder_of(name).glob("*/") if is_number(f.name))


def is_name(name: object) -> bool:
    """Return whether that can name a model."""
    return isinstance(name, str) and _NAME.fullmatch(name) is not None


def is_number(word: str) -> bool:
    """Return whether that is the number of a version, written as its folder is called."""
    return _NUMBER.fullmatch(word) is not None


def check_name(name: object) -> None:
    """Raise where that cannot name a model.

    Raises:
        RequestError: it cannot.
    """
    if not is_name(name):
        raise RequestError(
            f"{name!r:.120} cannot name a model: use letters, digits, '.', '_' and '-', "
            "beginning with a letter or a digit"
        )
