"""What an address of an image holds."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
from PIL import Image

__all__ = ["pixels"]


def pixels(address: str) -> Any:
    """Return the pixels of an image that a page is given as its own content."""
    content = base64.b64decode(address.removeprefix("data:image/png;base64,"))
    return np.array(Image.open(io.BytesIO(content)))
