"""Augmentations: functions of (seed, epoch, row) alone, against torch's own padding and flips."""

from __future__ import annotations

import copy
from functools import partial
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.datasets import Dataset, Split, dataset
from workbench.errors import RequestError, UnknownNameError
from workbench.preprocessing import Preprocessing
from workbench.training import fit
from workbench.training.augmentations import AUGMENTATIONS, Augment, Draws, cutout, mirror, shift
from workbench.training.batches import TensorBatches

CPU = torch.device("cpu")
COLOUR, GREY = (10, 13, 3), (10, 13)  # not square, so that height and width cannot be confused
VARIANTS = [*AUGMENTATIONS.values(), partial(shift, by=3), partial(cutout, size=3)]


def images(shape: tuple[int, ...], rows: int = 60) -> Tensor:
    """Return random pixels, none of them black."""
    draw = torch.Generator().manual_seed(2)
    return torch.randint(1, 256, (rows, *shape), generator=draw, dtype=torch.uint8)


def small() -> Dataset:
    return dataset("small", train=(images(GREY, 12), torch.arange(12) % 2))


def net() -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(10 * 13, 2))


@pytest.mark.parametrize("shape", [COLOUR, GREY])
@pytest.mark.parametrize("augment", VARIANTS)
def test_a_row_gets_the_same_picture_in_any_company(
    augment: Augment, shape: tuple[int, ...]
) -> None:
    raw = images(shape)
    whole = augment(raw, Draws(7, 2, len(raw)))
    mixed = torch.randperm(len(raw))
    for size in (1, 7, len(raw)):
        for rows in mixed.split(size):
            draws = Draws(7, 2, len(raw)).of(rows)  # anew, as a later process would
            assert torch.equal(augment(raw[rows], draws), whole[rows])
    assert (whole.shape, whole.dtype) == (raw.shape, raw.dtype)


@pytest.mark.parametrize("augment", VARIANTS)
def test_another_seed_or_epoch_gives_other_pictures(augment: Augment) -> None:
    raw = images(COLOUR)
    first, seed, epoch = (augment(raw, Draws(*of, len(raw))) for of in ((0, 0), (1, 0), (0, 1)))
    assert not torch.equal(first, seed)
    assert not torch.equal(first, epoch)


@pytest.mark.parametrize("augment", VARIANTS)
def test_the_raw_images_stay(augment: Augment) -> None:
    raw = images(COLOUR)
    augment(raw, Draws(0, 0, len(raw)))
    assert torch.equal(raw, images(COLOUR))


@pytest.mark.parametrize("shape", [COLOUR, GREY])
def test_a_mirror_turns_each_image_in_every_second_epoch(shape: tuple[int, ...]) -> None:
    raw = images(shape, 400)
    turned = []
    for epoch in range(4):
        seen = mirror(raw, Draws(0, epoch, len(raw)))
        is_turned = (seen == raw.flip(2)).flatten(1).all(1)
        as_it_was = (seen == raw).flatten(1).all(1)
        assert torch.equal(is_turned, ~as_it_was)
        turned.append(is_turned)
    assert torch.equal(turned[0], ~turned[1])
    assert torch.equal(turned[0], turned[2])
    assert 150 < int(turned[0].sum()) < 250


def crops(raw: Tensor, by: int) -> Tensor:
    """Return all crops of images whose border was mirrored by torch, (crops, rows, ...)."""
    rows, height, width = raw.shape[:3]
    planes = raw.reshape(rows, height, width, -1).permute(0, 3, 1, 2).float()
    padded = F.pad(planes, (by,) * 4, mode="reflect").permute(0, 2, 3, 1).byte()
    moves = range(2 * by + 1)
    cut = [padded[:, y : y + height, x : x + width] for y in moves for x in moves]
    return torch.stack(cut).reshape(len(cut), *raw.shape)


@pytest.mark.parametrize(("shape", "by"), [(COLOUR, 2), (GREY, 2), (GREY, 1), (COLOUR, 0)])
def test_a_shift_is_a_crop_of_the_mirrored_border(shape: tuple[int, ...], by: int) -> None:
    raw = images(shape, 300)
    moved = shift(raw, Draws(0, 0, len(raw)), by=by)
    fits = (crops(raw, by) == moved).flatten(2).all(2)
    assert torch.equal(fits.sum(0), torch.ones(300, dtype=torch.int64))
    assert fits.any(1).all()  # every move occurs


@pytest.mark.parametrize("size", [1, 4, 5])
@pytest.mark.parametrize("shape", [COLOUR, GREY])
def test_a_cutout_blackens_one_square_and_nothing_else(shape: tuple[int, ...], size: int) -> None:
    raw = images(shape, 2_000)
    black = (seen := cutout(raw, Draws(0, 0, len(raw)), size=size)) == 0
    mask = black.reshape(*black.shape[:3], -1).all(3)  # all channels alike
    assert torch.equal(seen[~black], raw[~black])
    rows, columns = mask.any(2), mask.any(1)
    assert torch.equal(mask, rows[:, :, None] & columns[:, None, :])
    for stretch in (rows, columns):
        assert (stretch.int().diff(dim=1).abs().sum(1) <= 2).all()  # in one piece
        sides = stretch.sum(1)
        assert (int(sides.min()), int(sides.max())) == ((size + 1) // 2, size)  # at a border
    assert mask.any(0).all()  # no place is always spared


def test_purposes_and_epochs_have_numbers_of_their_own() -> None:
    draws = Draws(0, 0, 1_000)
    one, other = draws.uniform("one"), draws.uniform("other")
    assert torch.equal(one, draws.uniform("one"))
    assert abs(float(torch.corrcoef(torch.stack([one, other]))[0, 1])) < 0.1
    assert (float(one.min()) >= 0, float(one.max()) < 1) == (True, True)
    later = Draws(0, 1, 1_000)
    assert not torch.equal(later.uniform("one"), one)
    kept = [of.uniform("kept", each_epoch=False) for of in (draws, later)]
    assert torch.equal(*kept)


def test_batches_of_any_size_show_the_same_pictures() -> None:
    split = Split(images(COLOUR), torch.arange(60), tuple(map(str, range(60))))
    ready = Preprocessing.fitted(split.inputs, split.classes)
    seen = []
    for size in (4, 16, 60):
        augment = [mirror, shift, cutout]
        batches = TensorBatches(
            split, size, seed=3, device=CPU, preprocessing=ready, augment=augment
        )
        inputs, targets = (torch.cat(part) for part in zip(*batches.epoch(1), strict=True))
        seen.append(inputs[targets.argsort()])
    assert torch.equal(seen[0], seen[1])
    assert torch.equal(seen[0], seen[2])


def test_augmentations_are_taken_by_name_as_functions_and_in_order() -> None:
    def dark(raw: Tensor, draws: Draws) -> Tensor:
        return torch.zeros_like(raw)

    def bright(raw: Tensor, draws: Draws) -> Tensor:
        return torch.full_like(raw, 255)

    model = net()
    one, last = (
        fit(copy.deepcopy(model), small(), steps=2, augment=given)
        for given in (bright, ("mirror", dark, bright))
    )
    assert one.history == last.history
    settings = fit(net(), small(), steps=1, augment=["mirror", partial(shift, by=1)]).settings
    assert settings.augment == ("mirror", "shift(by=1)")


def test_rows_that_are_no_images_cannot_be_augmented() -> None:
    table = dataset("table", train=(torch.randn(8, 3), torch.arange(8) % 2))
    with pytest.raises(
        RequestError, match=r"works on raw images \(uint8\), not on rows of 'table'"
    ):
        fit(nn.Linear(3, 2), table, augment="mirror")


@pytest.mark.parametrize("given", ["miror", ["shift", "miror"]])
def test_an_unknown_augmentation_gets_the_nearest_name(given: Any) -> None:
    with pytest.raises(UnknownNameError, match="unknown augmentation 'miror': did you mean mirr"):
        fit(net(), small(), augment=given)
