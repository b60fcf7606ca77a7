"""The notebooks of a folder as a gallery: what its `README.md` says of each, in its order.

The page is the one truth: a row of a table that links to a notebook is its entry, with a picture,
the minutes and what comes out where the table has them. A notebook without a row comes last.
"""

from __future__ import annotations

import base64
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from PIL import Image

from workbench.lab import START

__all__ = ["Entry", "entries", "thumbnail"]

_LINK = re.compile(r"(?<!!)\[([^\[\]!]+)\]\(([^()\s]+\.ipynb)\)[\s:]*(.*)")
_PICTURE = re.compile(r"!\[([^\]]*)\]\(([^()\s]+)\)")
_MARKS = re.compile(r"\[([^\]]*)\]\([^)]*\)|[*`]")
_MINUTES, _RESULT = ("minutes",), ("what comes out", "result")
_WIDTH = 360  # pixels of a thumbnail


@dataclass(frozen=True)
class Entry:
    """One notebook of a gallery.

    Args:
        file: its name in the folder.
        title: its first heading, else its name.
        about: what happens in it; empty where nobody says.
        minutes: how long it takes, in words.
        result: what comes out.
        picture: a file, if there is one.
        alt: what is to be seen in the picture.
    """

    file: str
    title: str
    about: str = ""
    minutes: str = ""
    result: str = ""
    picture: Path | None = None
    alt: str = ""


def entries(folder: Path) -> list[Entry]:
    """Return the notebooks of a folder: those of its README in that order, then the others."""
    files = {path.name: path for path in sorted(folder.glob("*.ipynb")) if path.name != START}
    readme = folder / "README.md"
    lines = readme.read_text("utf-8", "replace").splitlines() if readme.is_file() else []
    told = {entry.file: entry for entry in _rows(folder, lines) if entry.file in files}
    return [*told.values(), *(_entry(path) for name, path in files.items() if name not in told)]


def thumbnail(picture: Path) -> str | None:
    """Return a small copy of a picture as an address; None if it cannot be read."""
    try:
        return _thumbnail(picture, picture.stat().st_mtime_ns)
    except OSError:  # Pillow's own for what is no image is one of these
        return None


@lru_cache(maxsize=256)
def _thumbnail(picture: Path, _: int) -> str:
    with Image.open(picture) as image:
        small = image.convert("RGB")
    small.thumbnail((_WIDTH, _WIDTH))
    content = io.BytesIO()
    small.save(content, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(content.getvalue()).decode()


def _rows(folder: Path, lines: Sequence[str]) -> Iterator[Entry]:
    """Yield an entry for each row of a table that links to a notebook of the folder itself."""
    names: list[str] = []
    for line in lines:
        if not line.lstrip().startswith("|"):
            names = []
            continue
        cells = [cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip().strip("|"))]
        names = names or [cell.lower() for cell in cells]
        found = next(filter(None, map(_LINK.search, cells)), None)
        if found and "/" not in found[2]:
            yield _of_row(folder, found, cells, names)


def _of_row(folder: Path, link: re.Match[str], cells: Sequence[str], names: Sequence[str]) -> Entry:
    seen = next(filter(None, map(_PICTURE.search, cells)), None)
    known = dict(zip(names, cells, strict=False))
    minutes, result = (
        next((_plain(known[name]) for name in wanted if name in known), "")
        for wanted in (_MINUTES, _RESULT)
    )
    return Entry(
        link[2],
        _title(folder / link[2]),
        _plain(link[3]),
        minutes,
        result,
        folder / seen[2] if seen else None,
        seen[1] if seen else "",
    )


def _entry(path: Path) -> Entry:
    return Entry(path.name, _title(path))


def _plain(text: str) -> str:
    """Return Markdown of a line without its marks."""
    return _MARKS.sub(lambda found: found[1] or "", text).strip()


def _title(path: Path) -> str:
    """Return the first heading of a notebook, else its name; it is read once for each change."""
    try:
        return _heading(path, path.stat().st_mtime_ns) or path.stem
    except OSError:
        return path.stem


@lru_cache(maxsize=256)
def _heading(path: Path, _: int) -> str:
    try:
        cells = json.loads(path.read_bytes())["cells"]
        texts = ["".join(c["source"]) for c in cells if c["cell_type"] == "markdown"]
    except (OSError, ValueError, KeyError, TypeError):
        return ""  # what is no notebook has no heading
    found = re.search(r"(?m)^#\s+(.+?)\s*#*$", "\n".join(texts[:3]))
    return _plain(found[1]) if found else ""
