"""Folders of images, one sub-folder a class: decoded once, all of one size."""

from __future__ import annotations

import hashlib
import json
import shutil
import struct
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from workbench.errors import RequestError, SourceError, TamperedError
from workbench.home import data_home, new_folder
from workbench.preprocessing import IN_MEMORY
from workbench.progress import progress

__all__ = ["pixels_of", "read_folder"]

_FORMAT = "workbench-folder-1"
_ARRAY = "images.npy"
_GREY = {"1", "L"}  # modes of Pillow
_UNREADABLE = (OSError, SyntaxError, ValueError, EOFError, struct.error)


def read_folder(folder: Path, image_size: Any = None) -> tuple[Any, Any, tuple[str, ...]]:
    """Return images, class indices and class names of a folder with one sub-folder a class.

    Classes and images come in the order of their names; hidden files are left out. More than 256
    MiB of pixels are kept in the data home, in a folder named by a hash of the listing (names,
    sizes, times) and of `image_size`, and come as a memory map.

    Args:
        folder: holds the classes' sub-folders.
        image_size: (height, width) to crop and resize to, one number for both, or None.

    Raises:
        RequestError: there are no classes, a file is no image, or the sizes differ.
        SourceError: the decoded images cannot be kept.
        TamperedError: those that were kept are damaged.
    """
    size = _size(image_size)
    classes = _class_folders(folder)
    lists = [_images_in(one) for one in classes]
    files = [file for one in lists for file in one]
    targets = np.repeat(np.arange(len(classes)), [len(one) for one in lists])
    kept = data_home() / "folders" / _key(folder, files, size)
    images = _kept_images(kept)
    if images is None:
        images = _decoded(folder, files, size, kept)
    return images, targets, tuple(one.name for one in classes)


def pixels_of(image: Any) -> Any:
    """Return a Pillow image as uint8 (height, width) where it is grey, else (height, width, 3).

    Raises:
        ValueError: it has more than 8 bits a channel, which a conversion would cut off.
    """
    _check_depth(image)
    return np.array(image.convert("L" if image.mode in _GREY else "RGB"))


def _check_depth(image: Any) -> None:
    if image.mode.startswith(("I", "F")):
        raise ValueError(f"its pixels are of Pillow's mode {image.mode}, expected 8 bits a channel")


def _size(given: Any) -> tuple[int, int] | None:
    """Return `image_size` as (height, width)."""
    both = (given, given) if isinstance(given, int) else given
    if both is None:
        return None
    whole = isinstance(both, (tuple, list)) and len(both) == 2
    if not whole or not all(isinstance(side, int) and side > 0 for side in both):
        raise RequestError(f"image_size is {given!r}, expected (height, width) or one number")
    return both[0], both[1]


def _visible(folder: Path) -> list[Path]:
    return sorted(
        (entry for entry in folder.iterdir() if not entry.name.startswith(".")),
        key=lambda entry: entry.name,
    )


def _class_folders(folder: Path) -> list[Path]:
    from PIL import Image

    entries = _visible(folder)
    known = Image.registered_extensions()
    loose = [entry for entry in entries if entry.suffix.lower() in known and entry.is_file()]
    classes = [entry for entry in entries if entry.is_dir()]
    if loose or not classes:
        found = f"images of no class, {loose[0].name}" if loose else "no sub-folders"
        raise RequestError(
            f"{folder} has {found}: put each image into a sub-folder named as its class"
        )
    return classes


def _images_in(folder: Path) -> list[Path]:
    files = _visible(folder)
    deeper = next((entry for entry in files if entry.is_dir()), None)
    if deeper:
        raise RequestError(
            f"{deeper} is a folder, expected images: pass the folder whose sub-folders are classes"
        )
    if not files:
        raise RequestError(f"{folder} has no images: put some in, or remove the folder")
    return files


def _key(folder: Path, files: list[Path], size: tuple[int, int] | None) -> str:
    """Return a hash of what decides the decoded images: the listing, and the size asked for."""
    told = hashlib.sha256(json.dumps([_FORMAT, str(folder.resolve()), size]).encode())
    for file in files:
        about = file.stat()
        name = file.relative_to(folder).as_posix()
        told.update(json.dumps([name, about.st_size, about.st_mtime_ns]).encode())
    return told.hexdigest()


def _decoded(folder: Path, files: list[Path], size: tuple[int, int] | None, kept: Path) -> Any:
    """Return all images, uint8 (rows, height, width[, 3]); many of them as a map of a file."""
    shape = _survey(folder, files, size)
    images = _each(files, "decoding", lambda file: _pixels(file, shape[1:]))
    if prod(shape) <= IN_MEMORY:
        return np.stack(list(images))
    try:
        with _alone(kept, folder):
            if _kept_images(kept) is None:  # another process may have been faster
                with new_folder(kept) as scratch, (scratch / _ARRAY).open("wb") as out:
                    about = {"descr": "|u1", "fortran_order": False, "shape": shape}
                    np.lib.format.write_array_header_2_0(out, about)
                    for pixels in images:
                        out.write(pixels)
    except OSError as error:
        raise SourceError(
            f"the decoded images of {folder} cannot be kept in {kept.parent}: {error}. Make room "
            "or give write permission there, or set WORKBENCH_DATA to another folder."
        ) from error
    return _kept_images(kept)


def _kept_images(kept: Path) -> Any:
    """Return the images that were decoded before, mapped from their file, or None."""
    try:
        return np.load(kept / _ARRAY, mmap_mode="r")
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, EOFError, ValueError) as error:
        raise TamperedError(
            f"{kept / 'images.npy'} is damaged ({error}): delete {kept}, and the images are "
            "decoded anew"
        ) from None


@contextmanager
def _alone(kept: Path, folder: Path) -> Iterator[None]:
    """Let one process at a time decode a folder; what a killed one left behind is removed."""
    from filelock import FileLock, Timeout

    kept.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(kept.with_suffix(".lock"))
    try:
        lock.acquire(timeout=2)
    except Timeout:
        print(f"waiting for another process that decodes {folder}", file=sys.stderr)
        lock.acquire()
    try:
        for left in kept.parent.glob(f".{kept.name}.*"):
            shutil.rmtree(left, ignore_errors=True)
        yield
    finally:
        lock.release()


def _survey(folder: Path, files: list[Path], size: tuple[int, int] | None) -> tuple[int, ...]:
    """Return the shape of all images together, from their headers."""
    found: dict[tuple[int, int], Path] = {}
    modes = set()
    for file, (mode, *sides) in zip(files, _each(files, "looking at", _header), strict=True):
        found.setdefault((sides[0], sides[1]), file)
        modes.add(mode)
    if size is None and len(found) > 1:
        told = [f"{file.relative_to(folder)} is {h}×{w}" for (h, w), file in found.items()][:2]
        raise RequestError(
            f"the images of {folder} differ in size: {' and '.join(told)} (height × width). Pass "
            "image_size=(height, width), and they are cropped and resized"
        )
    return (len(files), *(size or next(iter(found))), *(() if modes <= _GREY else (3,)))


def _header(file: Path) -> tuple[str, int, int]:
    """Return mode, height and width of an image as it is to be looked at."""
    from PIL import Image

    with Image.open(file) as image:
        _check_depth(image)
        lying = image.getexif().get(0x0112, 1) >= 5  # EXIF: the first row is a side of the picture
        width, height = image.size[::-1] if lying else image.size
        return image.mode, height, width


def _pixels(file: Path, shape: tuple[int, ...]) -> Any:
    """Return an upright image, cropped in the middle and resized where it has another size."""
    from PIL import Image, ImageOps

    with Image.open(file) as image:
        upright = ImageOps.exif_transpose(image).convert("RGB" if len(shape) == 3 else "L")
    return np.array(ImageOps.fit(upright, (shape[1], shape[0]), Image.Resampling.BILINEAR))


def _each(files: list[Path], label: str, look: Callable[[Path], Any]) -> Iterator[Any]:
    """Yield what `look` says of every file; at the end raise, naming those it failed with."""
    from PIL import Image

    failed = []
    with progress(len(files), label, unit="image") as bar:
        for file in files:
            try:
                seen = look(file)
            except (*_UNREADABLE, Image.DecompressionBombError) as error:
                failed.append(f"{file} ({error})")
            else:
                yield seen
            bar.update()
    if failed:
        more = "; ..." if len(failed) > 3 else ""
        raise RequestError(
            f"{len(failed)} of {len(files)} files cannot be read as images: "
            f"{'; '.join(failed[:3])}{more}. Mend them or move them out"
        )
