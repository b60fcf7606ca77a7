"""Takes the pictures of the notebooks' index from their stored outputs: `python docs/covers.py`."""

from __future__ import annotations

import base64
import io
from pathlib import Path

import nbformat
from PIL import Image

NOTEBOOKS = Path(__file__).resolve().parent.parent / "notebooks"
COVERS = {  # of each notebook the cell whose last picture says most
    "01": "c30",  # three ways down one valley
    "02": "c79",  # the same program in Keras and in torch
    "03": "c07",  # clothes of each class
    "04": "c64",  # where the line wins, and where it sees nothing
    "05": "c54",  # the photographs that the net gets most wrong
    "13": "cell-19",  # the drift that a service has seen
    "ga": "c19",  # gradient descent to play with
}
SIZE = (480, 320)  # pixels at most
COLOURS = 128  # of the palette, so that a file stays under 60 kB


def main() -> None:
    """Write one small PNG a notebook, named by the start of its own name."""
    folder = NOTEBOOKS / "pictures"
    folder.mkdir(exist_ok=True)
    for start, cell in COVERS.items():
        (path,) = NOTEBOOKS.glob(f"{start}*.ipynb")
        cover(path, cell).save(folder / f"{start}.png", optimize=True)


def cover(path: Path, cell: str) -> Image.Image:
    """Return the last picture that a cell of a notebook has stored, small and on white."""
    (found,) = [each for each in nbformat.read(path, 4).cells if each.id == cell]
    pictures = [o.data["image/png"] for o in found.outputs if "image/png" in o.get("data", {})]
    image = Image.open(io.BytesIO(base64.b64decode(pictures[-1]))).convert("RGBA")
    white = Image.new("RGBA", image.size, "white")
    flat = Image.alpha_composite(white, image).convert("RGB")
    flat.thumbnail(SIZE, Image.Resampling.LANCZOS)
    return flat.quantize(COLOURS, dither=Image.Dither.NONE)


if __name__ == "__main__":
    main()
