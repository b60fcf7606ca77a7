"""Figures that show themselves once and need no pyplot."""

from __future__ import annotations

import io
import subprocess
import sys
from pathlib import Path

from matplotlib.image import imread

import workbench
from workbench.pictures import Picture


def test_a_picture_is_a_png_of_its_shape() -> None:
    picture = Picture(3, 2)
    picture.subplots().plot([1, 2, 3])
    content = picture._repr_png_()
    assert content.startswith(b"\x89PNG")
    height, width = imread(io.BytesIO(content)).shape[:2]
    assert width / height == 3 / 2


def test_a_picture_is_drawn_again_the_same() -> None:
    picture = Picture(2, 2)
    picture.subplots().plot([1, 2, 3])
    assert picture._repr_png_() == picture._repr_png_()


def test_pictures_do_not_load_pyplot() -> None:
    code = """
import sys
from workbench.pictures import Picture
picture = Picture(2, 2)
picture.subplots().plot([1, 2])
picture._repr_png_()
print("matplotlib.pyplot" in sys.modules)
"""
    root = Path(workbench.__file__).parents[1]
    said = subprocess.run(
        [sys.executable, "-c", code], cwd=root, capture_output=True, text=True, check=True
    )
    assert said.stdout == "False\n"
