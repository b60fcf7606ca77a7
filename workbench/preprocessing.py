"""What turns raw inputs into what `forward` takes and outputs into labels, held as data.

Fitted on a training split once, then used alike by fit, evaluate, predict, publish and serve, so
that a model never meets inputs it was not trained on.
"""

from __future__ import annotations

import mmap
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from workbench.errors import RequestError
from workbench.types import JSON

__all__ = [
    "IN_MEMORY",
    "Kind",
    "Preprocessing",
    "as_tensor",
    "check_finite",
    "check_several",
    "is_mapped",
]

Kind = Literal["image", "table", "tensor"]

IN_MEMORY = 256 * 2**20  # bytes: what is larger, and lies in a file, is never copied into memory
_CHUNK = 4 * 2**20  # bytes that are looked at at once
# Linux lets private pages go past the memory only so; Python names the flag from 3.13 on
_NO_RESERVE = getattr(mmap, "MAP_NORESERVE", 0x4000 if sys.platform == "linux" else 0)


@dataclass(frozen=True)
class Preprocessing:
    """Raw rows to a batch for `forward`, and outputs back to labels.

    Args:
        kind: `"image"`: (rows, height, width[, channels]) to normalized (rows, channels, height,
            width); `"table"`: (rows, features), each feature standardized; `"tensor"`: as it is.
        shape: of one raw row.
        dtype: of raw inputs, in torch's word (`"uint8"`, `"float32"`).
        mean: in raw units; one number a channel of an image, or a feature of a table.
        std: likewise; 1 where a channel or feature is constant.
        classes: names in the order of the targets; empty for regression.
        features: names of a table's columns, where they have any: a DataFrame is read by them.
    """

    kind: Kind
    shape: tuple[int, ...]
    dtype: str
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    classes: tuple[str, ...] = ()
    features: tuple[str, ...] = ()

    @classmethod
    def fitted(
        cls, inputs: Tensor, classes: tuple[str, ...] = (), features: tuple[str, ...] = ()
    ) -> Preprocessing:
        """Return the preprocessing that fits raw training inputs.

        Args:
            inputs: raw rows, shaped (rows, ...): uint8 of three or four axes is images, two axes
                of floats a table, anything else is left as it is.
            classes: names in the order of the targets.
            features: names of a table's columns.
        """
        plain = cls("tensor", tuple(inputs.shape[1:]), str(inputs.dtype)[6:], classes=classes)
        if inputs.dtype == torch.uint8 and inputs.ndim in (3, 4):
            channels = inputs if inputs.ndim == 4 else inputs.unsqueeze(-1)
            mean, std = _image_statistics(channels)
            return replace(plain, kind="image", mean=mean, std=std)
        if inputs.is_floating_point() and inputs.ndim == 2:
            mean, std = _statistics(inputs)
            return replace(plain, kind="table", mean=mean, std=std, features=features)
        return plain

    def batch(self, rows: Any) -> Tensor:
        """Return raw rows as a tensor (rows, *shape) of the expected dtype, checked.

        Args:
            rows: an array, tensor, DataFrame or nested list; one row may come without its axis.

        Raises:
            RequestError: the shape differs, a value is not finite or does not fit the dtype, or a
                DataFrame lacks a column.
        """
        raw = as_tensor(self._by_name(rows))
        if tuple(raw.shape) == self.shape:
            raw = raw.unsqueeze(0)
        if tuple(raw.shape[1:]) != self.shape:
            raise RequestError(
                f"inputs have the shape {tuple(raw.shape)}, expected rows of {self.shape}: "
                f"pass (rows, {', '.join(map(str, self.shape)) or '...'})"
            )
        check_finite("inputs", raw)
        return self._cast(raw)

    def __call__(self, raw: Tensor) -> Tensor:
        """Return what `forward` takes for raw rows that `batch` has checked, on their device."""
        if self.kind == "tensor":
            return raw
        mean = torch.tensor(self.mean, dtype=torch.float32, device=raw.device)
        scale = 1 / torch.tensor(self.std, dtype=torch.float32, device=raw.device)
        if self.kind == "table":
            return (raw.float() - mean) * scale
        pixels = raw if raw.ndim == 4 else raw.unsqueeze(-1)
        n_pixels = pixels.shape[1] * pixels.shape[2]
        # A whole image at a time: to broadcast over three channels is six times as slow.
        flat = pixels.flatten(1).float().sub_(mean.repeat(n_pixels)).mul_(scale.repeat(n_pixels))
        return flat.view(pixels.shape).permute(0, 3, 1, 2)  # (rows, C, H, W)

    def labels(self, predicted: Tensor) -> list[str]:
        """Return the class names of predicted class indices, shaped (rows,)."""
        return [self.classes[i] for i in predicted.tolist()]

    def to_json(self) -> JSON:
        """Return the preprocessing as plain lists and dictionaries."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: JSON) -> Preprocessing:
        """Return the preprocessing that `to_json` wrote."""
        lists = ("shape", "mean", "std", "classes", "features")
        return cls(**{**data, **{name: tuple(data[name]) for name in lists}})

    def _by_name(self, rows: Any) -> Any:
        """Return a DataFrame's columns in the order of the features; anything else as it is."""
        named = hasattr(rows, "columns") and list(rows.columns) != list(range(len(rows.columns)))
        if not self.features or not named:  # columns numbered by pandas have no names
            return rows
        names = [str(name) for name in rows.columns]
        missing = [name for name in self.features if name not in names]
        if missing:
            raise RequestError(
                f"inputs lack the columns {', '.join(missing[:5])}: expected "
                f"{', '.join(self.features)}"
            )
        return rows.iloc[:, [names.index(name) for name in self.features]]

    def _cast(self, raw: Tensor) -> Tensor:
        dtype: torch.dtype = getattr(torch, self.dtype)
        if raw.dtype == dtype:
            return raw
        cast = raw.to(dtype)
        if not dtype.is_floating_point and not torch.equal(cast.to(raw.dtype), raw):
            raise RequestError(
                f"inputs of {str(raw.dtype)[6:]} do not fit {self.dtype} without loss, found "
                f"values from {raw.min().item():g} to {raw.max().item():g}: pass raw {self.dtype}"
            )
        return cast


def as_tensor(values: Any) -> Tensor:
    """Return an array, tensor, DataFrame or nested list as a tensor; float64 becomes float32.

    Row after row in memory, however it came: sums in another order would differ in their last bits.
    A memory map stays one: its pages are read when they are needed, and what is written into the
    tensor of a read-only one stays in memory, never in the file.

    Raises:
        RequestError: the values are not numbers, their rows differ in length, or a memory map of
            more than 256 MiB would have to be copied.
    """
    if isinstance(values, Tensor):
        tensor = values.detach()
    elif hasattr(values, "inputs"):
        raise RequestError(f"got a {type(values).__name__}, expected rows: pass its .inputs")
    else:
        try:
            array = _writeable(_numbers(values))
            tensor = torch.from_numpy(array)
        except RequestError:
            raise
        except (TypeError, ValueError) as error:
            raise RequestError(f"inputs are not an array of numbers: {error}") from None
    narrow = tensor.float() if tensor.dtype in (torch.float64, torch.float16) else tensor
    return narrow.contiguous()


def is_mapped(values: Any) -> bool:
    """Return whether an array lies in a file: a `numpy.memmap`, or a part of one."""
    return _map_of(values) is not None


def check_finite(what: str, values: Tensor) -> None:
    """Raise where a value is NaN or infinite.

    Args:
        what: names the values in the message.
        values: shaped (rows, ...).

    Raises:
        RequestError: one is; the message says how many, and the first row.
    """
    if not values.is_floating_point():
        return
    rows = torch.atleast_1d(values).unsqueeze(-1).flatten(1)
    if all(bool(part.isfinite().all()) for part in _chunks(rows)):
        return
    bad = torch.cat([~part.isfinite().all(1) for part in _chunks(rows)])
    raise RequestError(
        f"{what} hold NaN or infinite values in {int(bad.sum())} of {len(bad)} rows, the first is "
        f"row {int(bad.nonzero()[0])}: drop those rows or fill them in"
    )


def check_several(taker: str, classes: Sequence[str]) -> None:
    """Raise where there is one class alone, and none to tell it from.

    Args:
        taker: what needs several, for the message.
        classes: the names; none of a regression.

    Raises:
        RequestError: there is one.
    """
    if len(classes) == 1:
        raise RequestError(
            f"{taker} needs two classes or more, found one alone, {classes[0]!r}: name the others "
            "too by dataset(..., classes=[...]), or give floats for a regression"
        )


def _chunks(rows: Tensor) -> Iterator[Tensor]:
    """Yield (rows, ...) in parts of about 4 MiB, so that what is made of one stays small."""
    size = rows[:1].nbytes
    yield from rows.split(max(1, _CHUNK // size) if size else max(1, len(rows)))


def _map_of(values: Any) -> np.memmap[Any, Any] | None:
    """Return the map of a whole file that an array is a view of, or None."""
    found = None
    while isinstance(values, np.ndarray):
        if isinstance(values, np.memmap) and isinstance(values.base, mmap.mmap):
            found = values
        values = values.base
    return found


def _writeable(array: Any) -> Any:
    """Return an array as one that may become a tensor, copied only where it must be.

    torch has no read-only tensors, and a write to read-only pages would end the process. So a map
    of a file is made again, of pages that are copied once they are written to.
    """
    whole = _map_of(array)
    if whole is None or array.size == 0:
        return array if array.flags.writeable else np.array(array)
    kept = array.flags.c_contiguous and array.dtype not in (np.float64, np.float16)
    if not kept and array.nbytes > IN_MEMORY:
        raise RequestError(
            f"inputs are a memory map of {array.dtype} that would have to be copied into memory, "
            f"{array.nbytes / 2**20:,.0f} MiB: write them part by part into another file, row "
            "after row and as float32 or uint8, by numpy.lib.format.open_memmap"
        )
    if array.flags.writeable:
        return array
    return _private(whole, array) if kept else np.array(array)


def _private(whole: np.memmap[Any, Any], array: Any) -> Any:
    """Return a contiguous part of a mapped file as an array of pages of its own.

    Raises:
        RequestError: the file is not there any more, or is shorter than it was.
    """
    first = whole.offset + array.ctypes.data - whole.ctypes.data
    start = first - first % mmap.ALLOCATIONGRANULARITY
    try:
        with Path(whole.filename or "").open("rb") as file:
            pages = _map(file.fileno(), first - start + array.nbytes, start)
    except (OSError, ValueError) as error:
        raise RequestError(
            f"inputs are a read-only memory map whose file cannot be mapped again ({error}): load "
            "it anew, by numpy.load(path, mmap_mode='r')"
        ) from None
    return np.frombuffer(pages, array.dtype, array.size, first - start).reshape(array.shape)


def _map(file: int, length: int, start: int) -> mmap.mmap:
    """Map a file as pages that are copied when written to, also one larger than the memory."""
    if sys.platform == "win32":
        return mmap.mmap(file, length, access=mmap.ACCESS_COPY, offset=start)
    flags = mmap.MAP_PRIVATE | _NO_RESERVE
    return mmap.mmap(file, length, flags, mmap.PROT_READ | mmap.PROT_WRITE, offset=start)


def _numbers(values: Any) -> Any:
    """Return the values as an array; a DataFrame of numbers and booleans as float32."""
    if not hasattr(values, "dtypes") or not hasattr(values, "columns"):
        return np.asarray(values)
    strange = [str(name) for name, dtype in values.dtypes.items() if dtype.kind not in "biuf"]
    if strange:
        raise RequestError(
            f"the columns {', '.join(strange[:5])} are not numbers: encode them first, for "
            "instance with pandas.get_dummies"
        )
    return values.to_numpy(dtype=np.float32)


def _statistics(columns: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of (rows, columns); a constant column gets 1.

    Parts are joined as in Chan, Golub and LeVeque, "Updating Formulae and a Pairwise Algorithm for
    Computing Sample Variances" (1979), so that no double copy of the whole is made.
    """
    n, mean, std = 0, torch.zeros(1), torch.zeros(1)
    for part in _chunks(columns):
        part_std, part_mean = torch.std_mean(part.double(), dim=0, correction=0)
        if n:
            share = len(part) / (n + len(part))
            step = part_mean - mean
            part_mean = mean + share * step
            var = (1 - share) * std**2 + share * part_std**2 + share * (1 - share) * step**2
            part_std = var.sqrt()
        n, mean, std = n + len(part), part_mean, part_std
    return tuple(mean.tolist()), tuple(torch.where(std > 0, std, 1.0).tolist())


def _image_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of uint8 (rows, H, W, channels).

    From the histogram: exact, and no float copy of the images is made.
    """
    counts = torch.zeros(images.shape[-1], 256, dtype=torch.int64)
    for part in _chunks(images):
        for number, channel in enumerate(part.unbind(-1)):
            counts[number] += torch.bincount(channel.flatten(), minlength=256)
    values = torch.arange(256, dtype=torch.float64)
    share = counts.double() / max(images[..., 0].numel(), 1)
    means = [float(part @ values) for part in share]
    spread = [
        float(part @ (values - mean) ** 2) ** 0.5 for part, mean in zip(share, means, strict=True)
    ]
    return tuple(means), tuple(std if std > 0 else 1.0 for std in spread)
