"""`inside`: a layer opened: its weights as pictures, and what it answers to one row."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from workbench.devices import device_of
from workbench.errors import RequestError, UnknownNameError
from workbench.evaluation.activations import Activation, activations
from workbench.evaluation.layers import Layer
from workbench.preprocessing import Preprocessing

__all__ = ["TILES", "Inside", "Tile", "inside"]

TILES = 32  # pictures of one kind at once
_SIDE = 48  # pixels of a map; larger ones are averaged down to that
_CHANNELS = 64  # of a filter that are shown
_HEIGHT, _WIDTH = 128, 256  # of a heat map, in cells
_BARS = 256
_BETWEEN = (0, 114, 178)  # blue, between channels, whose weights are grey

_Pixels = NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Tile:
    """A small picture.

    Args:
        name: what it shows.
        pixels: grey (height, width), or red, green and blue (height, width, 3).
    """

    name: str
    pixels: _Pixels = field(repr=False)


@dataclass(frozen=True, eq=False)
class Inside:
    """The weights of a layer, and its outputs for one row.

    Args:
        filters: pictures of its weights.
        filters_say: what they show and on which scale, in a sentence.
        maps: pictures of its outputs.
        bars: its outputs instead, where each unit has but one.
        maps_say: what either shows.
        units: how many filters or units there are, of which those from `first` on are shown.
        first: of the units that are shown.
    """

    filters: list[Tile] = field(repr=False)
    filters_say: str
    maps: list[Tile] = field(repr=False)
    bars: list[float] = field(repr=False)
    maps_say: str
    units: int
    first: int


def inside(
    model: nn.Module, layer: Layer, raw: Tensor, preprocessing: Preprocessing, *, first: int = 0
) -> Inside:
    """Return the weights of a layer as pictures, and what it answers to one row.

    Args:
        model: that was surveyed; nothing of it is changed.
        layer: one of the survey.
        raw: the row, shaped as the preprocessing says.
        preprocessing: what makes it into what the model takes.
        first: the first unit to show, of 32 pictures at once.

    Raises:
        RequestError: the layer's outputs cannot be seen.
        UnknownNameError: the model calls no such layer.
    """
    # Twice, since a model that squeezes its outputs would lose the axis of a single row.
    x = preprocessing(torch.stack([raw, raw]).to(device_of(model)))
    seen = _seen(model, layer, x)
    pictures, said, n = _filters(seen.layer, _image_taken(seen, x), first)
    maps, bars, about = _maps(seen, first)
    return Inside(pictures, said, maps, bars, about, max(n, seen.values.shape[1]), first)


def _seen(model: nn.Module, layer: Layer, x: Tensor) -> Activation:
    """Return what the layer answers to a batch."""
    found: dict[str, Activation | None] = {}

    def see(seen: Activation) -> None:
        found[seen.name] = _kept(seen) if seen.name == layer.name else None

    activations(model, x, see)
    seen = found.get(layer.name)
    if seen is None and layer.is_seen:
        raise UnknownNameError(f"layer of {type(model).__name__}", layer.name, found)
    if seen is None:
        raise RequestError(
            f"the outputs of {layer.name!r} cannot be seen: it answers with no plain tensor, or "
            "stands for what the model does outside its layers. Open another layer"
        )
    return seen


def _kept(seen: Activation) -> Activation:
    """Return an activation that stays as it is when the model goes on in place."""
    given = None if seen.given is None else seen.given.clone()
    return Activation(**{**vars(seen), "values": seen.values.clone(), "given": given})


def _image_taken(seen: Activation, x: Tensor) -> tuple[int, ...] | None:
    """Return channels, height and width where the layer is given the model's own image."""
    given = seen.given
    if given is None or given.numel() != x.numel() or x.ndim not in (3, 4):
        return None
    if not torch.equal(given.reshape(-1).to(x.dtype), x.reshape(-1)):
        return None
    return (1, *x.shape[1:]) if x.ndim == 3 else tuple(x.shape[1:])


# ---- Weights -------------------------------------------------------------------------------------


def _filters(
    layer: nn.Module | None, image: tuple[int, ...] | None, first: int
) -> tuple[list[Tile], str, int]:
    """Return a layer's weights as pictures, what they show, and how many filters there are.

    Args:
        layer: any module; None for a function.
        image: channels, height and width of the image that it is given, or None.
        first: of the filters that are shown.
    """
    if layer is None:
        return [], "A function has no weights.", 0
    own = [(name, p.detach().float().cpu()) for name, p in layer.named_parameters(recurse=False)]
    if not own:
        return [], f"{type(layer).__name__.lstrip('_')} has no weights.", 0
    matrices = [(name, weight) for name, weight in own if weight.ndim > 1]
    kernels = _kernels(layer, matrices[0][1], image) if matrices else None
    if kernels is None:
        return (*_heat_maps(matrices or own), 0)
    top = _largest(kernels)
    shown = kernels[first : first + TILES]
    n, channels, height, width = kernels.shape
    in_colour = image is not None and channels == 3
    tiles = [
        Tile(f"filter {first + i}", _in_colour(one, top) if in_colour else _mosaic(one, top))
        for i, one in enumerate(shown)
    ]
    said = f"{_part(first, len(shown), n, 'filter')}, {height}×{width} each"
    if in_colour:
        said += f", in colours; middle grey is 0, its ends are ±{top:.3g}."
        return tiles, _sentence(said), n
    if channels > 1:
        said += f" on {_part(0, min(channels, _CHANNELS), channels, 'channel')}, side by side"
    return tiles, _sentence(f"{said}; {_scale(top)}."), n


def _kernels(layer: nn.Module, weight: Tensor, image: tuple[int, ...] | None) -> Tensor | None:
    """Return weights as (filters, channels, height, width), or None of what is no filter."""
    if isinstance(layer, _ConvNd):
        if isinstance(layer, _ConvTransposeNd) and layer.groups == 1:
            weight = weight.transpose(0, 1)
        if weight.ndim == 3:
            return weight.unsqueeze(1)  # channels by steps, as one picture
        return weight.flatten(1, -3)
    if image is not None and weight.ndim == 2 and weight.shape[1] == math.prod(image):
        return weight.reshape(-1, *image)
    return None


def _heat_maps(weights: list[tuple[str, Tensor]]) -> tuple[list[Tile], str]:
    """Return weights as one picture each: units downwards, what they are given across."""
    top = max(_largest(weight) for _, weight in weights)
    tiles, parts = [], []
    for name, weight in weights:
        flat = weight.reshape(1, -1) if weight.ndim < 2 else weight.flatten(1)
        shown = flat[:_HEIGHT, :_WIDTH]
        tiles.append(Tile(name, _signed(shown, top)))
        whole = (
            "" if shown.shape == flat.shape else f" (the first {'×'.join(map(str, shown.shape))})"
        )
        parts.append(f"{name} {'×'.join(map(str, weight.shape))}{whole}")
    return tiles, f"{', '.join(parts)}; {_scale(top)}."


def _scale(top: float) -> str:
    return f"grey is 0, white {top:.3g}, black -{top:.3g}"


def _in_colour(kernel: Tensor, top: float) -> _Pixels:
    return _signed(kernel.permute(1, 2, 0), top)


def _mosaic(kernel: Tensor, top: float) -> _Pixels:
    """Return a filter shaped (channels, height, width) as its channels side by side."""
    parts: _Pixels = _signed(kernel[:_CHANNELS], top)
    n, height, width = parts.shape
    across = math.ceil(math.sqrt(n))
    down = math.ceil(n / across)
    if n == 1:
        one: _Pixels = parts[0]
        return one
    shape = (down * (height + 1) - 1, across * (width + 1) - 1, 3)
    whole = np.full(shape, _BETWEEN, np.uint8)
    for i, part in enumerate(parts):
        y, x = (i // across) * (height + 1), (i % across) * (width + 1)
        whole[y : y + height, x : x + width] = part[..., None]
    return whole


# ---- Outputs -------------------------------------------------------------------------------------


def _maps(seen: Activation, first: int) -> tuple[list[Tile], list[float], str]:
    """Return what a layer answers to the first row, as pictures or as bars, and what they show."""
    if not seen.by_row:
        return [], [], "This layer mixes the rows: it has no outputs of one row alone."
    outputs = seen.values[0].float().cpu()  # (units, places)
    units = len(outputs)
    if not seen.places:
        bars: list[float] = outputs[:_BARS, 0].tolist()
        return [], bars, _sentence(f"{_part(0, len(bars), units, 'unit')}, a bar each.")
    low, high = _ends(outputs)
    scale = f"black is {low:.3g}, white {high:.3g}"
    if len(seen.places) == 1:
        shown = outputs[:_HEIGHT, :_WIDTH]
        across = _part(0, shown.shape[1], seen.places[0], "place")
        said = f"{_part(0, len(shown), units, 'unit')} downwards, {across} across; {scale}."
        return [Tile("outputs", _between(shown, low, high))], [], _sentence(said)
    height, width = math.prod(seen.places[:-1]), seen.places[-1]
    shown = _small(outputs[first : first + TILES].reshape(-1, height, width))
    tiles = [Tile(f"channel {first + i}", _between(one, low, high)) for i, one in enumerate(shown)]
    said = f"{_part(first, len(tiles), units, 'channel')} of {height}×{width}; {scale}."
    return tiles, [], _sentence(said)


def _small(maps: Tensor) -> Tensor:
    """Return maps shaped (n, height, width), averaged down where they are large."""
    height, width = maps.shape[1:]
    if max(height, width) <= _SIDE:
        return maps
    return F.adaptive_avg_pool2d(maps, (min(height, _SIDE), min(width, _SIDE)))


def _signed(values: Tensor, top: float) -> _Pixels:
    """Return values from -top to top as bytes, 0 being the middle."""
    return _between(values, -top, top)


def _between(values: Tensor, low: float, high: float) -> _Pixels:
    share = (values - low) / (high - low) if high > low else torch.full_like(values, 0.5)
    pixels = share.nan_to_num(0.5, 1.0, 0.0).clamp(0, 1).mul(255).round().to(torch.uint8)
    array: _Pixels = pixels.numpy()
    return array


def _largest(values: Tensor) -> float:
    low, high = _ends(values)
    return max(-low, high)


def _ends(values: Tensor) -> tuple[float, float]:
    finite = values[values.isfinite()]
    return (float(finite.min()), float(finite.max())) if finite.numel() else (0.0, 0.0)


def _part(first: int, shown: int, whole: int, what: str) -> str:
    """Return which of how many: `"6 filters"`, `"filters 32 to 63 of 256"`."""
    if shown == whole:
        return f"{whole:,} {what}{'s'[: whole - 1]}"
    return f"{what}s {first:,} to {first + shown - 1:,} of {whole:,}"


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:]
