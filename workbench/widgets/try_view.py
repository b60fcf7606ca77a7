"""`TryView`: a model to play with: draw, drop a picture, move sliders, and see what it says."""

from __future__ import annotations

import base64
import time
from typing import Any

import numpy as np
import torch
import traitlets
from torch import Tensor, nn

from workbench.errors import RequestError
from workbench.pictures import Picture
from workbench.progress import is_live
from workbench.registry import ModelVersion
from workbench.remote import RemoteService
from workbench.serving import Service
from workbench.serving.photos import pixels
from workbench.types import JSON
from workbench.widgets.faces import Face, action, css, javascript
from workbench.widgets.figures import plain
from workbench.widgets.images import address_of
from workbench.widgets.try_drawings import Paper
from workbench.widgets.try_subjects import Subject, subject_of

__all__ = ["TryView", "try_it"]

_CANVAS = 280  # pixels a side: a whole number of times what the images of digits have
_EXAMPLES = 12
_SLIDERS = 40  # numbers of a row that get one each; more are a text
_BARS = 12  # classes that get a bar
_VALUES = 100  # numbers of an answer that are shown
_SEEN = 256  # pixels a side that are shown of what the model sees
_THUMB = 64
_MAX_FILE = 6 * 2**20  # bytes: as base64 what a notebook's connection carries at once


def try_it(
    asked: nn.Module | ModelVersion | str | Service | RemoteService, *, model: str | None = None
) -> TryView | Picture:
    """Return a view to try a model in by hand; a picture of one answer where no page lives.

    Args:
        asked: a model, also one that is being trained; a version or its reference, such as
            `"digits@champion"`; a service, or what `connect` returned, which are asked over HTTP.
        model: which of those that a remote service has, where it has several.

    Raises:
        RequestError: it takes neither images nor up to 10,000 numbers a row.
        ServiceError: the service does not answer.
    """
    view = TryView(subject_of(asked, model))
    return view if is_live() else view.picture()


class TryView(Face):
    """Shows what a model says of an image that is drawn or dropped, or of numbers that are moved.

    A model that is being trained is asked again and again as it learns.

    Args:
        subject: what is tried.
    """

    _esm = javascript("faces", "try")
    _css = css("try")

    given = traitlets.Dict().tag(sync=True)  # what never changes, so that `shown` stays small

    def __init__(self, subject: Subject) -> None:
        super().__init__()
        self._subject = subject
        self._is_image = subject.known.kind == "image"
        shape = subject.known.shape
        self._paper = Paper.of(subject.rows if self._is_image else torch.empty(0), shape)
        spread = torch.linspace(0, max(0, len(subject.rows) - 1), min(_EXAMPLES, len(subject.rows)))
        self._examples = subject.rows[spread.long()]
        self._row: Tensor | None = None
        self._said: JSON | None = None
        self._origin, self._turn = "", 0
        self.given = self._what_is_given()
        if len(self._examples):
            self.pick(0)
        elif not self._is_image:
            self._try(torch.zeros(shape), "zeros", turn=True)
        self.refresh()
        if self._is_learning:
            self.follow()

    @action
    def draw_on(self, canvas: str, fit: bool) -> None:
        """Ask about a drawing.

        Args:
            canvas: the content of a PNG, as base64.
            fit: whether it is scaled and put into the middle, as the images that it knows are.
        """
        if not (self._is_image and self._paper.can_be_drawn_on):
            raise RequestError(f"{self._subject.name} takes no grey images, so draw nothing")
        drawn, _, _ = pixels(_bytes(canvas), (_CANVAS, _CANVAS))
        self._try(self._paper.drawn(torch.from_numpy(drawn), fit=fit), "a drawing")

    @action
    def clear(self) -> None:
        """Ask about nothing any more."""
        self._row, self._said, self._origin = None, None, ""

    @action
    def upload(self, file: str, content: str) -> None:
        """Ask about a picture.

        Args:
            file: what it is called.
            content: of a PNG or JPEG, as base64.
        """
        if not self._is_image:
            raise RequestError(f"{self._subject.name} takes numbers, not pictures")
        image, size, _ = pixels(_bytes(content), self._subject.known.shape)
        resized = f", resized from {size[1]} × {size[0]}" if size else ""
        row = self._paper.dimmed(torch.from_numpy(image))
        self._try(row, f"{file:.80}{resized}", turn=True)

    @action
    def pick(self, example: int) -> None:
        """Ask about a row that the model knows, counted from 0."""
        if not 0 <= example < len(self._examples):
            raise RequestError(f"example {example} is not there: there are {len(self._examples)}")
        self._try(self._examples[example], f"example {example + 1}", turn=True)

    @action
    def move(self, values: list[float | None]) -> None:
        """Ask about a row of numbers, which are those of the sliders."""
        for feature, value in zip(self._subject.features, values, strict=False):
            if value is None:
                raise RequestError(f"{feature} has no value: give it a number")
        self._try(torch.tensor(values), "values")

    @action
    def fill(self, text: str) -> None:
        """Ask about a row of numbers in a text, apart by commas, blanks or lines."""
        words, n = text.replace(",", " ").split(), self._subject.known.shape[0]
        if len(words) != n:
            raise RequestError(f"there are {len(words):,} values, expected {n:,}")
        self._try(torch.tensor([_number(i, word) for i, word in enumerate(words, 1)]), "values")

    def catch_up(self) -> bool:
        """Ask again while the model learns; return whether it does."""
        if self._row is not None:
            self._said = self._asked(self._row)
        self.refresh()
        return self._is_learning

    def draw(self) -> JSON:
        """Return what is to be seen now."""
        return {
            "title": f"Try {self._subject.name}",
            "origin": self._origin,
            "turn": self._turn,
            "answer": self._said,
            "learns": self._is_learning,
            **(self._seen() if self._is_image else self._values()),
        }

    def picture(self) -> Picture:
        """Return the last answer, beside what was seen."""
        return _picture(self._subject, self._row, self._paper.white, self._said)

    def __repr__(self) -> str:
        said = "nothing asked yet" if self._said is None else _worded(self._said)
        return f"Try {self._subject.name} {self._subject.way}: {said}"

    @property
    def _is_learning(self) -> bool:
        training = self._subject.training
        return training is not None and bool(training.is_going)

    def _try(self, row: Tensor, origin: str, *, turn: bool = False) -> None:
        """Ask about a row; `turn` says that the page is to show it in its controls."""
        raw = self._subject.known.batch(row[None])[0]
        self._row, self._origin, self._said = raw, origin, None
        self._turn += turn
        self._said = self._asked(raw)

    def _asked(self, row: Tensor) -> JSON:
        started = time.perf_counter()
        who, said = self._subject.answer(row)
        milliseconds = 1000 * (time.perf_counter() - started)
        return {"who": who, "ms": float(f"{milliseconds:.3g}"), **_shown(said)}

    def _what_is_given(self) -> JSON:
        subject, shape = self._subject, self._subject.known.shape
        given = {
            "name": subject.name,
            "way": subject.way,
            "kind": "image" if self._is_image else "table",
            "shape": list(shape),
            "examples": len(self._examples),
        }
        if self._is_image:
            thumbs = [address_of(_fewer(row, _THUMB), self._paper.white) for row in self._examples]
            drawing = {"draws": self._paper.can_be_drawn_on, "dark": self._paper.is_dark}
            return {**given, **drawing, "canvas": _CANVAS, "most": _MAX_FILE, "thumbs": thumbs}
        ranges = [r and [r.low, r.high, r.step] for r in subject.ranges]
        few = shape[0] <= _SLIDERS
        named = {"features": subject.features, "ranges": ranges} if few else {}
        return {**given, "sliders": few, **named}

    def _seen(self) -> JSON:
        if self._row is None:
            return {"seen": None}
        return {"seen": address_of(_fewer(self._row, _SEEN), self._paper.white)}

    def _values(self) -> JSON:
        values = [] if self._row is None else self._row.tolist()
        return {"values": [float(f"{value:.7g}") for value in values]}


def _bytes(content: str) -> bytes:
    """Return what base64 says; what is too large is not even read."""
    if len(content) > 4 * _MAX_FILE / 3 + 4:
        raise RequestError(
            f"the picture has over {_MAX_FILE / 2**20:.0f} MiB: make it smaller, or ask the "
            "service itself"
        )
    return base64.b64decode(content)


def _number(place: int, word: str) -> float:
    try:
        return float(word)
    except ValueError:
        raise RequestError(f"value {place} is {word!r:.40}, expected a number") from None


def _fewer(image: Tensor, most: int) -> Tensor:
    """Return every so many pixels of an image, so that no side has more than `most`."""
    apart = -(-max(image.shape[:2]) // most)
    return image[::apart, ::apart]


def _shown(said: JSON) -> JSON:
    """Return what was said of a row as the page draws it."""
    if "label" not in said:
        values = said["output"] if "output" in said else [said.get("value")]
        flat = np.array(values, np.float64).reshape(-1).tolist()
        return {"values": [plain(v) for v in flat[:_VALUES]], "more": max(0, len(flat) - _VALUES)}
    bars = [(name, plain(share)) for name, share in said["probabilities"].items()]
    if len(bars) > _BARS:
        bars = sorted(bars, key=lambda bar: -(bar[1] or 0))
    rest = max(0, len(bars) - _BARS)
    return {"label": said["label"], "bars": bars[:_BARS], "more": rest}


def _worded(answer: JSON) -> str:
    """Return an answer in words."""
    if "label" in answer:
        sure = dict(answer["bars"]).get(answer["label"])
        return answer["label"] if sure is None else f"{answer['label']}, {sure:.0%}"
    more = ", …" if answer["more"] or len(answer["values"]) > 5 else ""
    said = ("no number" if value is None else f"{value:.4g}" for value in answer["values"][:5])
    return ", ".join(said) + more


def _picture(subject: Subject, row: Tensor | None, white: int, answer: JSON | None) -> Picture:
    figure = Picture(6, 2.6)
    left: Any
    right: Any
    left, right = figure.subplots(1, 2)
    if row is not None and subject.known.kind == "image":
        pixels = row.squeeze(-1) if row.ndim == 3 else row
        left.imshow(pixels.numpy(), cmap="gray", vmin=0, vmax=white)
        left.axis("off")
    elif row is not None:
        left.barh(subject.features[:_BARS][::-1], row[:_BARS].flip(0).double().numpy())
    left.set_title("what it sees", fontsize=9)
    if answer is not None and "bars" in answer:
        names, shares = zip(*answer["bars"][::-1], strict=True)
        right.barh(names, [share or 0 for share in shares])
        right.set_xlim(0, 1)
    elif answer is not None:
        right.axis("off")
        right.text(0.1, 0.5, _worded(answer), fontsize=14)
    title = subject.name if answer is None else f"{answer['who']}:\n{_worded(answer)}"
    right.set_title(title, fontsize=9)
    return figure
