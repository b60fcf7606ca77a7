"""Four kinds of descent against torch, and what the playground keeps, without a browser."""

from __future__ import annotations

import base64
import json

import numpy as np
import pytest
import torch

from workbench.errors import RequestError
from workbench.pictures import Picture
from workbench.widgets import DescentView, descent
from workbench.widgets.descent_paths import METHODS, Numbers, Surface, order, paths, surfaces


def torch_path(
    surface: Surface, method: str, start: tuple[float, float], rate: float, batch: int, steps: int
) -> Numbers:
    """Return what torch's own optimizer makes of the same batches, by automatic gradients."""
    theta = torch.tensor(start, dtype=torch.float64, requires_grad=True)
    momentum = 0.9 if method == "momentum" else 0
    optimizer: torch.optim.Optimizer = torch.optim.SGD([theta], rate, momentum=momentum)
    if method == "Adam":
        optimizer = torch.optim.Adam([theta], rate)
    x, y, path = torch.tensor(surface.x), torch.tensor(surface.y), [theta.detach().numpy().copy()]
    each = -(-len(x) // batch)
    for step in range(steps):
        rows = list(order(len(x), step // each)[step % each * batch :][:batch])
        rows = list(range(len(x))) if method == "gradient descent" else rows
        line = surface.kind == "line"
        a, b = theta
        predicted = a + b * x[rows] if line else b * torch.tanh(a * x[rows])
        optimizer.zero_grad()
        torch.mean((predicted - y[rows]) ** 2).backward()
        optimizer.step()
        path.append(theta.detach().numpy().copy())
    return np.stack(path)


@pytest.mark.parametrize("name", surfaces())
@pytest.mark.parametrize("batch", [1, 5])
def test_every_path_is_that_of_torch(name: str, batch: int) -> None:
    surface = surfaces()[name]
    found = paths(surface, surface.start, rate=0.02, batch=batch, steps=200)
    assert tuple(found) == METHODS
    for method, path in found.items():
        expected = torch_path(surface, method, surface.start, 0.02, batch, 200)
        assert np.abs(path - expected).max() < 1e-9


def test_with_all_points_a_batch_is_gradient_descent() -> None:
    surface = surfaces()["noisy line"]
    found = paths(surface, (0, 0), rate=0.1, batch=20, steps=50)
    assert np.allclose(found["SGD"], found["gradient descent"], rtol=1e-12)
    noisy = paths(surface, (0, 0), rate=0.1, batch=19, steps=50)
    assert np.abs(noisy["SGD"] - noisy["gradient descent"]).max() > 0.01


@pytest.mark.parametrize("name", ["noisy line", "five points of y = x"])
def test_gradient_descent_explodes_above_its_limit_and_not_below(name: str) -> None:
    surface = surfaces()[name]
    limit, n = surface.limits()[-1], len(surface.x)
    below = paths(surface, surface.start, rate=0.99 * limit, batch=n, steps=1000)
    assert surface.loss(below["gradient descent"][-1]) < surface.loss(np.array(surface.start))
    above = paths(surface, surface.start, rate=1.1 * limit, batch=n, steps=1000)
    assert len(above["gradient descent"]) < 100
    assert surface.loss(above["gradient descent"][-1]) > 1e6
    assert np.isfinite(above["gradient descent"]).all()
    assert len(above["momentum"]) == len(above["Adam"]) == 1001


def test_the_limit_of_a_batch_is_that_of_the_steepest() -> None:
    surface = surfaces()["five points of y = x"]
    assert surface.limits()[0] == pytest.approx(2 / (2 * (1 + 5**2)))
    pairs = [np.array([[1, 1], [a, b]]) for a in range(1, 6) for b in range(1, a)]
    steepest = max(np.linalg.eigvalsh(x @ x.T)[-1] for x in pairs)  # 2/2 of both points
    assert surface.limits()[1] == pytest.approx(2 / steepest)
    assert surfaces()["one neuron"].limits() == []


@pytest.mark.parametrize("name", surfaces())
def test_the_minima_are_minima(name: str) -> None:
    surface = surfaces()[name]
    every = np.arange(len(surface.x))
    for theta in surface.minima:
        assert np.abs(surface.gradient(theta, every)).max() < 1e-6
        around = theta + 0.1 * np.random.default_rng(0).normal(size=(100, 2))
        assert (surface.loss(around) > surface.loss(theta)).all()


def test_with_the_sign_error_every_method_climbs() -> None:
    surface = surfaces()["five points of y = x"]
    found = paths(surface, (1, 1), rate=0.01, batch=5, steps=300, uphill=True)
    for path in found.values():
        assert surface.loss(path[-1]) > 10 * surface.loss(path[0])


def test_epochs_are_shuffles_of_mulberry32() -> None:
    assert sorted(order(20, 3)) == list(range(20))
    assert order(20, 3) != order(20, 4)
    assert order(5, 0) == (4, 2, 3, 0, 1)  # as Node counts with the published lines of Mulberry32


def test_what_a_page_tells_is_kept() -> None:
    view = DescentView()
    reached = {"SGD": [1.0, 2.0, 3.0]}
    view.do("keep", page="ab", reached=reached, rate=0.2, start=[1, 2], step=7, uphill=True)
    assert view.shown["settings"]["start"] == [1, 2]
    assert (view.settings.rate, view.settings.step, view.settings.uphill) == (0.2, 7, True)
    assert (view.shown["page"], view.shown["reached"]) == ("ab", reached)
    view.do("keep", surface="five points of y = x")
    assert (view.settings.start, view.settings.batch) == ((-3, 2.6), 4)
    assert (view.shown["page"], view.shown["reached"]) == ("", {})  # so the page follows
    assert len(json.dumps(view.shown, allow_nan=False)) < 10_000


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"surface": "noisy lin"}, "unknown surface 'noisy lin': did you mean noisy line?"),
        ({"rate": 0}, "rate is 0: it must be from 1e-06 to 1"),
        ({"batch": 21}, "batch is 21: it must be from 1 to 20"),
        ({"step": 1001}, "step is 1001: it must be from 0 to 1000"),
        ({"start": [1]}, r"start is \(1,\): it must be two numbers, θ₀ and θ₁"),
    ],
)
def test_what_cannot_be_is_refused(settings: dict[str, object], message: str) -> None:
    view = DescentView()
    before = view.settings
    with pytest.raises(RequestError, match=message):
        view.keep(**settings)  # type: ignore[arg-type]
    view.do("keep", **settings)
    assert view.problem
    assert view.settings == before


def test_headless_it_is_a_picture_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "1")
    assert isinstance(descent(), Picture)
    view = DescentView()
    view.do("keep", step=100)
    bundle = view._repr_mimebundle_()
    found = view.settings.paths()["Adam"][-1]
    assert f"Adam {view.settings.on.loss(found):.4g}" in bundle["text/plain"]
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
