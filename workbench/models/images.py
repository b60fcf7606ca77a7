"""What a net for images asks of them."""

from __future__ import annotations

from workbench.errors import RequestError

__all__ = ["image_shape"]

_SIDE = 16  # what three halvings, or two 5×5 convolutions with pools, can still work on


def image_shape(inputs: tuple[int, ...]) -> tuple[int, int, int]:
    """Return channels, height and width, having checked that a net can work on such images.

    Args:
        inputs: shape of one image as `forward` takes it.

    Raises:
        RequestError: a side is too short.
    """
    channels, height, width = inputs
    if min(height, width) < _SIDE:
        raise RequestError(
            f"images of {height}×{width} are too small, expected {_SIDE} or more a side: "
            "use 'mlp' or 'linear', or enlarge them"
        )
    return channels, height, width
