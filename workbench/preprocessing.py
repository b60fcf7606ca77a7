"""What turns raw inputs into what `forward` takes and outputs into labels, held as data.

Fitted on a training split once, then used alike by fit, evaluate, predict, publish and serve, so
that a model never meets inputs it was not trained on.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from workbench.errors import RequestError
from workbench.types import JSON

__all__ = ["Kind", "Preprocessing", "as_tensor", "check_finite"]

Kind = Literal["image", "table", "tensor"]


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
            mean, std = _statistics(inputs.double())
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
        return pixels.float().sub_(mean).mul_(scale).permute(0, 3, 1, 2)  # (rows, C, H, W)

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
        missing = [name for name in self.features if name not in rows.columns]
        if missing:
            raise RequestError(
                f"inputs lack the columns {', '.join(missing[:5])}: expected "
                f"{', '.join(self.features)}"
            )
        return rows[list(self.features)]

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

    Raises:
        RequestError: the values are not numbers, or their rows differ in length.
    """
    if isinstance(values, Tensor):
        tensor = values.detach()
    elif hasattr(values, "inputs"):
        raise RequestError(f"got a {type(values).__name__}, expected rows: pass its .inputs")
    else:
        try:
            array = _numbers(values)
            tensor = torch.from_numpy(np.array(array) if not array.flags.writeable else array)
        except (TypeError, ValueError) as error:
            raise RequestError(f"inputs are not an array of numbers: {error}") from None
    narrow = tensor.float() if tensor.dtype in (torch.float64, torch.float16) else tensor
    return narrow.contiguous()


def check_finite(what: str, values: Tensor) -> None:
    """Raise where a value is NaN or infinite.

    Args:
        what: names the values in the message.
        values: shaped (rows, ...).

    Raises:
        RequestError: one is; the message says how many, and the first row.
    """
    if not values.is_floating_point() or values.isfinite().all():
        return
    bad = (~values.isfinite()).flatten(1).any(1) if values.ndim > 1 else ~values.isfinite()
    raise RequestError(
        f"{what} hold NaN or infinite values in {int(bad.sum())} of {len(bad)} rows, the first is "
        f"row {int(bad.nonzero()[0])}: drop those rows or fill them in"
    )


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
    """Return mean and standard deviation of (rows, columns); a constant column gets 1."""
    std, mean = torch.std_mean(columns, dim=0, correction=0)
    return tuple(mean.tolist()), tuple(torch.where(std > 0, std, 1.0).tolist())


def _image_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation of each channel of uint8 (rows, H, W, channels).

    From the histogram: exact, and no float copy of the images is made.
    """
    values = torch.arange(256, dtype=torch.float64)
    means, stds = [], []
    for channel in images.unbind(-1):
        share = torch.bincount(channel.flatten(), minlength=256).double() / max(channel.numel(), 1)
        mean = float(share @ values)
        std = float(share @ (values - mean) ** 2) ** 0.5
        means.append(mean)
        stds.append(std if std > 0 else 1.0)
    return tuple(means), tuple(stds)
