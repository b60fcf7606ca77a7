"""`DescentView`: a loss surface to go down on, by four methods, from a point that is dragged."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from workbench.errors import RequestError, UnknownNameError
from workbench.pictures import Picture
from workbench.progress import is_live
from workbench.types import JSON
from workbench.widgets.descent_paths import MOST_STEPS, Numbers, Surface, paths, surfaces
from workbench.widgets.faces import Face, action, css, javascript

__all__ = ["Descending", "DescentView", "descent"]

_STILL = 100  # steps in the picture of a playground that nobody has played in


def descent() -> DescentView | Picture:
    """Return a playground for gradient descent; a picture of it where no page lives."""
    view = DescentView()
    return view if is_live() else view.picture()


@dataclass(frozen=True)
class Descending:
    """What determines every path: equal settings give equal paths.

    Args:
        surface: name of one of the surfaces.
        start: θ₀ and θ₁ of the first point.
        rate: learning rate α, above 0 and at most 1.
        batch: points a step of all methods but gradient descent.
        uphill: whether the sign is wrong: θ ← θ + α∇L.
        step: the last one that is shown.
        speed: steps a second while it plays.

    Raises:
        RequestError: one of them cannot be.
    """

    surface: str
    start: tuple[float, float]
    rate: float = 0.03
    batch: int = 4
    uphill: bool = False
    step: int = 0
    speed: float = 30

    def __post_init__(self) -> None:
        if self.surface not in surfaces():
            raise UnknownNameError("surface", self.surface, surfaces())
        bounds = {"rate": (1e-6, 1), "batch": (1, len(self.on.x)), "step": (0, MOST_STEPS),
                  "speed": (1, 1000)}  # fmt: skip
        for name, (low, high) in bounds.items():
            value = getattr(self, name)
            if not low <= value <= high:
                raise RequestError(f"{name} is {value:g}: it must be from {low:g} to {high:g}")
        if len(self.start) != 2 or not np.isfinite(self.start).all():
            raise RequestError(f"start is {self.start}: it must be two numbers, θ₀ and θ₁")

    @property
    def on(self) -> Surface:
        """The surface itself."""
        return surfaces()[self.surface]

    def paths(self, steps: int | None = None) -> dict[str, Numbers]:
        """Return the path of each method, shaped (steps + 1, 2), up to `step` or `steps`."""
        how: dict[str, Any] = {"rate": self.rate, "batch": self.batch, "uphill": self.uphill}
        return paths(self.on, self.start, steps=self.step if steps is None else steps, **how)


class DescentView(Face):
    """Lets gradient descent, SGD, momentum and Adam go down a loss surface, side by side.

    The page computes and moves by itself, and tells the kernel now and then what it shows:
    `settings`, and in `shown["reached"]` where each method has come to.
    """

    _esm = javascript("faces", "charts", "descent_paths", "descent_ground", "descent")
    _css = css("descent")

    def __init__(self) -> None:
        super().__init__()
        first = next(iter(surfaces().values()))
        self.settings = Descending(first.name, first.start)
        self._reached: JSON = {}
        self._page = ""
        self.refresh()

    @action
    def keep(self, page: str = "", reached: JSON | None = None, **settings: Any) -> None:
        """Show other settings, or keep what a page shows already.

        Args:
            page: that tells it and needs not be told.
            reached: θ₀, θ₁ and loss of each method there.
            settings: those of `Descending` that change; another surface brings its own start.
        """
        chosen = surfaces().get(settings.get("surface", self.settings.surface))
        if chosen and chosen is not self.settings.on:
            batch = min(self.settings.batch, len(chosen.x))
            settings = {"start": chosen.start, "batch": batch, **settings}
        if "start" in settings:
            settings["start"] = tuple(settings["start"])
        self.settings = replace(self.settings, **settings)
        self._page, self._reached = page, reached or {}

    def draw(self) -> JSON:
        """Return the surfaces and the settings; the page does the rest."""
        settings = asdict(self.settings)
        return {
            "title": "Gradient descent on a loss surface",
            "surfaces": {name: surface.to_json() for name, surface in surfaces().items()},
            "settings": {**settings, "start": list(self.settings.start)},
            "most": MOST_STEPS,
            "page": self._page,
            "reached": self._reached,
        }

    def picture(self) -> Picture:
        """Return the paths on the surface, and the loss by step."""
        settings, surface = self.settings, self.settings.on
        found = settings.paths(settings.step or _STILL)
        figure = Picture(9, 3.6)
        left, right = figure.subplots(1, 2)
        _draw_surface(left, surface)
        for i, (method, path) in enumerate(found.items()):
            left.plot(*path.T, color=f"C{i}", linewidth=1.2)
            left.plot(*path[-1], color=f"C{i}", marker="osD^"[i], markersize=6)
            right.plot(surface.loss(path), color=f"C{i}", marker="osD^"[i], markevery=[-1],
                       label=method)  # fmt: skip
        left.plot(*settings.start, marker="o", color="k", fillstyle="none")
        sign = "+" if settings.uphill else "−"
        left.set(xlabel="θ₀", ylabel="θ₁", title=f"{surface.name}: {surface.formula}",
                 xlim=(surface.low[0], surface.high[0]),
                 ylim=(surface.low[1], surface.high[1]))  # fmt: skip
        rule = f"θ ← θ {sign} {settings.rate:g} ∇L, batches of {settings.batch}"
        right.set(xlabel="step", ylabel="loss", yscale="log", title=rule)
        right.legend(frameon=False, fontsize=8)
        return figure

    def __repr__(self) -> str:
        found = self.settings
        losses = {name: found.on.loss(path[-1]) for name, path in found.paths().items()}
        told = ", ".join(f"{name} {loss:.4g}" for name, loss in losses.items())
        return f"descent on {found.surface}, loss at step {found.step}: {told}"


def _draw_surface(axes: Any, surface: Surface) -> None:
    """Draw rings of equal loss, dense around the minima."""
    sides = [np.linspace(surface.low[i], surface.high[i], 120) for i in range(2)]
    first, second = np.meshgrid(*sides)
    loss = surface.loss(np.stack([first, second], -1))
    above = loss - loss.min()
    axes.contour(first, second, np.log1p(1000 * above / above.max()), 14, colors="0.75",
                 linewidths=0.8)  # fmt: skip
    axes.plot(*surface.minima.T, "kx")
