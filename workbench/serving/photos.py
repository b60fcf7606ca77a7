"""A PNG or JPEG as it lies in a file, to the pixels that a model takes.

A file is a stranger's: its size is bounded before a pixel is decoded, and of what is not pixels a
decoder gets to see nothing but what colours mean, so that neither texts, profiles nor broken EXIF
can cost memory or make it print. How a camera was held is read here.
"""

from __future__ import annotations

import contextlib
import io
import math
import struct
import threading
from collections.abc import Iterator

import numpy as np
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile
from PIL.PngImagePlugin import PngImageFile

from workbench.errors import RequestError
from workbench.serving.tensors import Array

__all__ = ["MAX_PIXELS", "MAX_TOGETHER", "pixels"]

MAX_PIXELS = 25_000_000  # of one picture
MAX_TOGETHER = 100_000_000  # of those of one request, as they come or as the model takes them
_LEAST = 10_000  # pixels that a picture counts as: even an empty one takes its time
_MAX_SCANS = 64  # of a progressive JPEG; each goes over all of it
_LARGE = 2**20  # pixels
_large = threading.Lock()  # one that is larger is decoded at a time, so that memory is bounded
_PNG, _JPEG = b"\x89PNG\r\n\x1a\n", b"\xff\xd8"
_OF_PIXELS = (b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND")
_TURNS = {  # by EXIF's orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}


def pixels(
    content: bytes, shape: tuple[int, ...], left: int = MAX_TOGETHER
) -> tuple[Array, tuple[int, int] | None, int]:
    """Return a picture as uint8 of `shape`, the size it had, and how many pixels are left.

    The size is its height and width, None where those are the model's. The picture is turned as the
    camera was held, put on white where it is transparent, made grey or coloured as the model has
    it, and stretched to the model's size.

    Args:
        content: of a PNG or JPEG file.
        shape: (height, width) or (height, width, channels).
        left: pixels that the pictures of its request may have from this one on.

    Raises:
        RequestError: it is neither, is damaged or cut short, has more than 25 million pixels or
            more than are left, or the model takes no pictures of one, three or four channels.
    """
    channels = shape[2] if len(shape) == 3 else 1
    if channels not in _MODES:
        raise RequestError(f"the model takes {channels} channels, and a picture has 1, 3 or 4")
    image, left = _decoded(content, math.prod(shape[:2]), left)
    size = image.height, image.width
    image = _in_mode(image, _MODES[channels])
    if size != shape[:2]:
        image = image.resize((shape[1], shape[0]), Image.Resampling.BILINEAR)
    array = np.array(image, dtype=np.uint8).reshape(shape)
    return array, None if size == shape[:2] else size, left


def _decoded(content: bytes, becomes: int, left: int) -> tuple[Image.Image, int]:
    """Return the picture of a file, upright, and what is left without it of so many pixels.

    It counts as the pixels that it `becomes` where it has fewer.
    """
    try:
        if content.startswith(_PNG):
            file, turn = _png(content)
            image: Image.Image = PngImageFile(io.BytesIO(file))
        elif content.startswith(_JPEG):
            file, turn = _jpeg(content)
            image = JpegImageFile(io.BytesIO(file))
        else:
            raise RequestError("the picture is neither a PNG nor a JPEG: send one of them")
        size = image.width * image.height
        if size > MAX_PIXELS:
            raise RequestError(
                f"the picture has {image.height} x {image.width} pixels, expected at most "
                f"{MAX_PIXELS:,}: make it smaller"
            )
        left -= max(size, becomes, _LEAST)
        if left < 0:
            raise RequestError(
                f"the pictures have over {MAX_TOGETHER:,} pixels together, each counting as "
                f"{max(becomes, _LEAST):,} at least: send them in several requests"
            )
        with _large if size > _LARGE else contextlib.nullcontext():
            image.load()
    except RequestError:
        raise
    except Exception as error:  # a decoder raises many kinds, none of them its own
        said = str(error)[:80] or type(error).__name__
        reason = "image file is truncated" if isinstance(error, struct.error) else said
        raise RequestError(f"the picture cannot be read, {reason}: is the file whole?") from None
    return image.transpose(_TURNS[turn]) if turn in _TURNS else image, left


def _in_mode(image: Image.Image, mode: str) -> Image.Image:
    if image.mode.startswith("I"):  # 16 bits, which `convert` would cut off at 255
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).astype(np.uint8))
    if mode != "RGBA" and (image.mode in ("LA", "RGBA", "PA") or "transparency" in image.info):
        seen = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    return image.convert(mode)


def _png(content: bytes) -> tuple[bytes, int]:
    """Return the chunks of a PNG that pixels are made of, and its orientation."""
    parts, turn = [_PNG], 1
    at = len(_PNG)
    while at < len(content):
        (length,) = struct.unpack_from(">I", content, at)
        kind, end = content[at + 4 : at + 8], at + 12 + length
        if end > len(content):
            raise ValueError("image file is truncated")
        if kind in _OF_PIXELS:
            parts.append(content[at:end])
        elif kind == b"eXIf":
            turn = _orientation(content[at + 8 : end - 4])
        if kind == b"IEND":
            return b"".join(parts), turn
        at = end
    raise ValueError("image file is truncated")


def _jpeg(content: bytes) -> tuple[bytes, int]:
    """Return the segments of a JPEG that pixels are made of, and its orientation."""
    if content.count(b"\xff\xda") > _MAX_SCANS:
        raise ValueError(f"more than {_MAX_SCANS} scans")
    parts, turn = [_JPEG], 1
    for marker, start, end in _segments(content):
        body = content[start + 4 : end]
        if marker == 0xE1 and body.startswith(b"Exif\0\0"):
            turn = _orientation(body[6:])
        # Of the applications' own, the first says how densities, the last how colours are meant.
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)):
            parts.append(content[start:end])
    return b"".join(parts), turn


def _segments(content: bytes) -> Iterator[tuple[int, int, int]]:
    """Yield marker, start and end of each segment; the last is all from the first scan on."""
    at = len(_JPEG)
    while True:
        while content[at : at + 2] == b"\xff\xff":
            at += 1
        prefix, marker, length = struct.unpack_from(">BBH", content, at)
        if prefix != 0xFF:
            raise ValueError("no marker where one belongs")
        if marker == 0xDA:
            yield marker, at, len(content)
            return
        yield marker, at, at + 2 + length
        at += 2 + length


def _orientation(exif: bytes) -> int:
    """Return EXIF's orientation; 1, which is upright, where it says none."""
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None:
        return 1
    try:
        (at,) = struct.unpack_from(f"{order}I", exif, 4)
        (count,) = struct.unpack_from(f"{order}H", exif, at)
        for entry in range(at + 2, at + 2 + 12 * min(count, 512), 12):
            tag, kind = struct.unpack_from(f"{order}HH", exif, entry)
            if (tag, kind) == (0x0112, 3):
                return int(struct.unpack_from(f"{order}H", exif, entry + 8)[0])
    except struct.error:
        pass
    return 1
