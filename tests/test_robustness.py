"""Images made worse as NumPy and scipy make them worse, the same ones each time."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter
from torch import Tensor, nn

from workbench.datasets import Split, load
from workbench.errors import RequestError
from workbench.evaluation import evaluate, robustness
from workbench.evaluation.corruptions import blurred, noisy, shifted
from workbench.evaluation.significance import wilson
from workbench.models import build
from workbench.training import fit

SHAPES = [(6, 9, 7), (6, 9, 7, 3)]
NONE: dict[str, Any] = {"noise": (), "blur": (), "shift": ()}


def pictures(shape: tuple[int, ...], seed: int = 0) -> Tensor:
    draws = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, generator=draws, dtype=torch.uint8)


@pytest.fixture(scope="module")
def trained() -> tuple[nn.Module, Split]:
    data = load("digits")
    model = build("mlp", data, hidden=(32,))
    fit(model, data, epochs=5)
    return model, data.test  # type: ignore[return-value]


@pytest.mark.parametrize("shape", SHAPES)
def test_a_strength_of_0_changes_no_image(shape: tuple[int, ...]) -> None:
    images = pictures(shape)
    for same in (noisy(images, 0), blurred(images, 0), shifted(images, 0)):
        assert torch.equal(same, images)
        assert same.dtype == torch.uint8


def test_a_strength_of_0_is_what_evaluate_says(trained: Any) -> None:
    model, split = trained
    found = robustness(model, split, noise=(0,), blur=(0,), shift=(0,))
    accuracy = evaluate(model, split).accuracy
    assert found.table["accuracy"].tolist() == [accuracy] * 4
    assert found.table["kind"].tolist() == ["clean", "noise", "blur", "shift"]
    ends = wilson(round(accuracy * len(split)), len(split))
    assert found.table[["low", "high"]].to_numpy().tolist() == [list(ends)] * 4


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("pixels", [1, 3, 6])
def test_a_shift_rolls_and_goes_on_with_the_edge(shape: tuple[int, ...], pixels: int) -> None:
    images = pictures((40, *shape[1:]))
    margins = ((pixels, pixels), (pixels, pixels), *((0, 0),) * (len(shape) - 3))
    _, height, width = shape[:3]
    steps = {(0, 1): 0, (0, -1): 0, (1, 0): 0, (-1, 0): 0}
    for before, after in zip(images.numpy(), shifted(images, pixels).numpy(), strict=True):
        framed = np.pad(before, margins, mode="edge")
        found = []
        for down, across in steps:
            rolled = np.roll(framed, (down * pixels, across * pixels), (0, 1))
            inner = rolled[pixels : pixels + height, pixels : pixels + width]
            found += [(down, across)] * np.array_equal(inner, after)
        steps[found[0]] += 1
    assert all(count > 2 for count in steps.values())


def test_each_distance_goes_the_same_way() -> None:
    images = torch.zeros(30, 9, 9, dtype=torch.uint8)
    images[:, 4, 4] = 255
    places = [shifted(images, pixels).float() for pixels in (1, 2)]
    moves = [p.flatten(1).argmax(1) for p in places]
    offsets = [(m // 9 - 4, m % 9 - 4) for m in moves]
    assert torch.equal(offsets[1][0], 2 * offsets[0][0])
    assert torch.equal(offsets[1][1], 2 * offsets[0][1])
    assert not torch.equal(shifted(images, 1), shifted(images, 1, seed=1))


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("deviation", [0.3, 0.5, 1, 2, 5.0])
def test_a_blur_is_scipys_gaussian(shape: tuple[int, ...], deviation: float) -> None:
    images = pictures(shape)
    sigma = (0, deviation, deviation, *(0,) * (len(shape) - 3))
    reach = np.ceil(3 * deviation)
    expected = gaussian_filter(
        images.numpy().astype(float), sigma, mode="nearest", radius=int(reach)
    )
    apart = blurred(images, deviation).double() - torch.from_numpy(expected)
    assert float(apart.abs().max()) <= 0.5 + 1e-9


@pytest.mark.parametrize("shape", [(2500, 5, 4), (1200, 5, 4, 3)])
def test_noise_has_its_deviation_and_is_the_same_twice(shape: tuple[int, ...]) -> None:
    images = torch.full(shape, 128, dtype=torch.uint8)
    state = torch.get_rng_state()
    once, again = noisy(images, 10), noisy(images, 10)
    assert torch.equal(once, again)
    assert torch.equal(torch.get_rng_state(), state)
    assert not torch.equal(once, noisy(images, 10, seed=1))
    differences = once.double() - 128
    assert float(differences.std()) == pytest.approx(10, rel=0.02)
    assert float(differences.mean()) == pytest.approx(0, abs=0.2)
    halves = noisy(images, 5).double() - 128
    assert float((differences - 2 * halves).abs().max()) <= 1.5  # the same noise, rounded
    assert not torch.equal(once[:200], once[1000:1200])  # each thousand has noise of its own


def test_noise_keeps_within_black_and_white() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).repeat(50).reshape(10, 2, 5)
    found = noisy(images, 300)
    assert set(found.unique().tolist()) >= {0, 255}
    assert found.dtype == torch.uint8


@pytest.mark.parametrize("made", [noisy, blurred, shifted])
def test_the_images_of_the_split_stay_as_they_are(made: Any) -> None:
    images = pictures((1500, 4, 4))
    before = images.clone()
    assert not torch.equal(made(images, 2), before)
    assert torch.equal(images, before)


def test_the_table_has_what_evaluate_says_of_worse_images(trained: Any) -> None:
    model, split = trained
    found = robustness(model, split, noise=(2, 4), blur=(1.0,), shift=(1,), seed=3)
    worse = [
        split.inputs,
        noisy(split.inputs, 2, 3),
        noisy(split.inputs, 4, 3),
        blurred(split.inputs, 1.0),
        shifted(split.inputs, 1, 3),
    ]
    expected = [
        evaluate(model, Split(images, split.targets, split.classes)).accuracy for images in worse
    ]
    assert found.table["accuracy"].tolist() == expected
    assert found.table["strength"].tolist() == [0, 2, 4, 1, 1]
    assert found.table.equals(
        robustness(model, split, noise=(2, 4), blur=(1.0,), shift=(1,), seed=3).table
    )
    assert repr(found) == (
        f"accuracy {expected[0]:.4g} on clean images, {min(expected[1:3]):.4g} at noise "
        f"{2 if expected[1] <= expected[2] else 4}, {expected[3]:.4g} at blur 1, "
        f"{expected[4]:.4g} at shift 1"
    )


def test_a_model_of_colour_images_is_asked_too() -> None:
    images = pictures((20, 32, 32, 3))
    split = Split(images, torch.arange(20) % 2, ("cat", "dog"))
    net = nn.Sequential(nn.Flatten(), nn.Linear(32 * 32 * 3, 2))
    model = nn.Sequential(Floats(), net)
    found = robustness(model, split, noise=(8,), blur=(1,), shift=(2,))
    assert len(found.table) == len(found.images) == 4
    assert found.examples._repr_png_().startswith(b"\x89PNG")


class Floats(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.float()


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"noise": (-1,)}, r"noise has the strength -1, expected 0 or more"),
        ({"blur": (float("inf"),)}, r"blur has the strength inf, expected 0 or more"),
        ({"noise": (float("nan"),)}, r"noise has the strength nan, expected 0 or more"),
        ({"shift": (0.5,)}, r"shift has the strength 0.5, expected whole pixels below 8"),
        ({"shift": (8,)}, r"shift has the strength 8, expected whole pixels below 8"),
        ({"noise": ("8",)}, r"noise has the strength '8', expected 0 or more"),
        ({"seed": -1}, r"seed must be a whole number"),
    ],
)
def test_strengths_that_cannot_be_are_refused(trained: Any, given: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        robustness(*trained, **(NONE | given))


@pytest.mark.parametrize(
    ("inputs", "classes", "message"),
    [
        (torch.zeros(4, 3), ("a", "b"), r"robustness takes uint8 images with classes, got rows of"),
        (torch.zeros(4, 3, 3), ("a", "b"), r"got rows of \(3, 3\) of float32 with 2 classes"),
        (torch.zeros(4, 3, 3).byte(), (), r"got rows of \(3, 3\) of uint8 with 0 classes"),
    ],
)
def test_rows_that_are_no_images_are_refused(inputs: Tensor, classes: Any, message: str) -> None:
    targets = torch.zeros(4).long() if classes else torch.zeros(4)
    split = Split(inputs, targets, classes)
    with pytest.raises(RequestError, match=message):
        robustness(nn.Identity(), split)
    with pytest.raises(RequestError, match="robustness takes a Split, got NoneType"):
        robustness(nn.Identity(), None)  # type: ignore[arg-type]


@pytest.mark.parametrize("kept", [("noise", "blur", "shift"), ("shift",), ()])
def test_pictures_of_robustness_can_be_drawn(trained: Any, kept: tuple[str, ...]) -> None:
    strengths = {"noise": (1, 2), "blur": (0.5,), "shift": (1, 2, 3)}
    given = NONE | {kind: strengths[kind] for kind in kept}
    found = robustness(*trained, **given)
    assert [axes.get_title() for axes in found.plot().axes] == list(kept or [""])
    for picture in (found.plot(), found.examples):
        assert picture._repr_png_().startswith(b"\x89PNG")
    assert len(found.images) == 1 + sum(len(strengths[kind]) for kind in kept)
