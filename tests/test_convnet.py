"""The convnet's tricks, each against its closed form, and the recipes that ride with its sizes."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from workbench.datasets import dataset
from workbench.errors import RequestError
from workbench.models import build, construct
from workbench.models.convnet import SIZES, ConvNet, recipe_of
from workbench.models.norms import FastBiasNorm
from workbench.models.starts import dirac, whiten
from workbench.training import fit


def photographs(rows: int, channels: int, side: int) -> Tensor:
    """Return images whose pixels resemble their neighbours, shaped (rows, C, side, side)."""
    noise = torch.randn(
        rows, channels, side, side, generator=torch.Generator().manual_seed(rows + side)
    )
    return noise.cumsum(2).cumsum(3) / side


def moments(answers: Tensor) -> Tensor:
    """Return the second moments of channels, shaped (C, C), of answers shaped (rows, C, H, W)."""
    columns = answers.transpose(0, 1).flatten(1).double()
    return columns @ columns.T / columns.shape[1]


@pytest.mark.parametrize(("channels", "kernel"), [(3, 2), (1, 2), (5, 2), (3, 3), (1, (2, 3))])
def test_whitened_patches_have_the_identity_for_a_covariance(channels: int, kernel: Any) -> None:
    size = (kernel, kernel) if isinstance(kernel, int) else kernel
    n, images = channels * size[0] * size[1], photographs(200, channels, 24)
    conv = whiten(nn.Conv2d(channels, n, size, stride=size, bias=False), images, eps=1e-9)
    assert torch.allclose(moments(conv(images)), torch.eye(n).double(), atol=1e-3)


def test_eps_keeps_noise_small() -> None:
    images = photographs(100, 1, 16)
    images[:, :, :, 1::2] = images[:, :, :, ::2]  # some directions never occur
    conv = whiten(nn.Conv2d(1, 4, 2, stride=2, bias=False), images, eps=0.01)
    tiles = F.unfold(images, 2, stride=2).transpose(0, 1).flatten(1).double()
    values = torch.linalg.eigvalsh(tiles @ tiles.T / tiles.shape[1])
    assert torch.allclose(moments(conv(images)).diag(), values / (values + 0.01), atol=1e-4)
    assert conv.weight.abs().max() <= 1 / 0.01**0.5


def test_twice_the_filters_whiten_with_both_signs_and_are_frozen() -> None:
    images = photographs(50, 3, 17)  # an odd side: its last pixels make no patch
    both = whiten(nn.Conv2d(3, 24, 2, bias=False), images)
    one = whiten(nn.Conv2d(3, 12, 2, bias=False), images)
    assert torch.equal(both.weight, torch.cat([one.weight, -one.weight]))
    assert not both.weight.requires_grad


@pytest.mark.parametrize(
    "conv",
    [
        nn.Conv2d(3, 13, 2, bias=False),
        nn.Conv2d(3, 24, 2),
        nn.Conv2d(3, 12, 2, bias=False, dilation=2),
        nn.Conv2d(4, 8, 2, bias=False, groups=2),
    ],
)
def test_a_convolution_that_cannot_whiten_is_refused(conv: nn.Conv2d) -> None:
    with pytest.raises(RequestError, match=r"whiten cannot set Conv2d\(.*: expected bias=False"):
        whiten(conv, photographs(9, conv.in_channels, 16))


@pytest.mark.parametrize("n_out", [3, 5, 8])
def test_an_identity_start_passes_its_input_on(n_out: int) -> None:
    conv, x = nn.Conv2d(5, n_out, 3, padding=1, bias=False), torch.randn(2, 5, 6, 6)
    before = conv.weight.detach().clone()
    assert dirac(conv) is conv
    assert torch.equal(conv(x)[:, :5], x[:, :n_out])
    assert torch.equal(conv.weight[5:], before[5:])
    assert conv.weight.requires_grad


@pytest.mark.parametrize("boost", [1.0, 8.0])
def test_a_boosted_bias_learns_as_at_a_rate_of_its_own(boost: float) -> None:
    fast, plain = FastBiasNorm(3, boost=boost), nn.BatchNorm2d(3)
    plain.weight.requires_grad = False
    rule: dict[str, Any] = {"momentum": 0.9, "nesterov": True}
    steppers = (
        torch.optim.SGD([fast.bias], lr=0.01, **rule),
        torch.optim.SGD([plain.bias], lr=0.01 * boost**2, **rule),  # 64 times for boost=8
    )
    for _ in range(4):
        x, aim = torch.randn(6, 3, 4, 4), torch.randn(6, 3, 4, 4)
        for norm, stepper in zip((fast, plain), steppers, strict=True):
            stepper.zero_grad()
            F.mse_loss(norm(x), aim).backward()
            stepper.step()
    assert fast.bias.abs().max() > 0
    assert torch.allclose(fast.boost * fast.bias, plain.bias, rtol=1e-4)


def test_a_fast_norm_is_batch_norm_but_for_its_pace() -> None:
    fast, plain = FastBiasNorm(3, pace=0.25), nn.BatchNorm2d(3, momentum=0.25)
    for _ in range(3):
        x = torch.randn(6, 3, 4, 4)
        assert torch.allclose(fast(x), plain(x), atol=1e-6)
    assert torch.equal(fast.eval()(x), plain.eval()(x))


def photos(side: int, channels: int = 3, rows: int = 24) -> Any:
    images = photographs(rows, channels, side).permute(0, 2, 3, 1)
    raw = (images - images.min()) / (images.max() - images.min()) * 255
    return dataset("photos", train=(raw.to(torch.uint8), torch.arange(rows) % 3))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize(("side", "channels"), [(16, 3), (33, 1), (48, 4)])
def test_every_size_takes_images_of_every_kind(size: str, side: int, channels: int) -> None:
    data = photos(side, channels)
    model = build("convnet", data, size=size)
    assert model(torch.randn(2, channels, side, side)).shape == (2, 3)
    assert isinstance(model, ConvNet)
    assert model.stem.out_channels == 8 * channels


@pytest.mark.parametrize("size", SIZES)
def test_a_recipe_rides_with_the_model(size: str) -> None:
    model = build("convnet", photos(16), size=size)
    assert isinstance(model, ConvNet)
    assert model.recipe == recipe_of(**SIZES[size])
    assert model.recipe.keys() <= inspect.signature(fit).parameters.keys()
    model.recipe["lr"] = 9.0  # a copy: what one model is told stays with it
    sizes = {**SIZES[size], "inputs": [3, 16, 16], "outputs": 3}
    assert construct({"builder": "convnet", "sizes": sizes}).recipe == recipe_of(**SIZES[size])


def test_a_recipe_of_ten_epochs_is_airbenchs_for_a_mean_loss() -> None:
    """Two steps by the published rule, which sums the loss, and two by ours, end alike."""
    recipe, rows = recipe_of(**SIZES["large"]), torch.randn(500, 6)
    kilostep = 1024 * (1 + 1 / (1 - 0.85))
    lr, decay = 11.5 / kilostep, 0.0153 * len(rows) / kilostep
    theirs, ours = (nn.Parameter(torch.ones(6)) for _ in range(2))
    sgd: dict[str, Any] = {"momentum": recipe["momentum"], "nesterov": True}
    summed = torch.optim.SGD([theirs], lr=lr, weight_decay=decay / lr, **sgd)
    mean = torch.optim.SGD([ours], lr=recipe["lr"], weight_decay=recipe["weight_decay"], **sgd)
    for _ in range(2):
        for stepper, losses in (
            (summed, (rows @ theirs).tanh().sum()),
            (mean, (rows @ ours).tanh().mean()),
        ):
            stepper.zero_grad()
            losses.backward()
            stepper.step()
    assert torch.allclose(theirs, ours, rtol=0.01)


def test_fit_follows_the_recipe_where_nothing_is_said() -> None:
    data = photos(16)
    model = build("convnet", data)
    settings = fit(model, data, steps=1, lr=0.01, precision="fp32").settings
    followed = {**recipe_of(**SIZES["small"]), "lr": 0.01, "batch_size": 24, "precision": "fp32"}
    assert {name: getattr(settings, name) for name in followed} == followed


@pytest.mark.parametrize(
    ("widths", "stride", "message"),
    [
        ((8,) * 4, 2, r"has 4 blocks, .* at most 3 where the stem leaves 8 pixels: take fewer"),
        ((8,) * 2, 5, r"has 2 blocks, .* at most 1 where the stem leaves 3 pixels"),
    ],
)
def test_more_blocks_than_pixels_are_refused(
    widths: tuple[int, ...], stride: int, message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        ConvNet((3, 16, 16), 10, widths=widths, stride=stride)
