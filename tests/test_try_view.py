"""What a model says in the view to try it in, and of which rows, without a browser."""

from __future__ import annotations

import base64
import copy
import functools
import io
import json
import threading
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from forms import Pair, Shout
from PIL import Image, ImageDraw
from points import POINTS, publish_both
from torch import Tensor, nn
from waiting import once

import workbench as wb
from workbench.attached import attached
from workbench.errors import RequestError, ServiceError, UnknownNameError
from workbench.pictures import Picture
from workbench.registry import ModelVersion
from workbench.serving import serve
from workbench.serving.photos import pixels
from workbench.widgets import TryView, try_it
from workbench.widgets.try_drawings import Paper
from workbench.widgets.try_subjects import Range, subject_of

DIGITS = {
    "0": [(140, 50), (90, 90), (80, 160), (120, 225), (170, 215), (195, 140), (170, 70), (140, 50)],
    "1": [(110, 80), (140, 50), (140, 230)],
    "2": [(80, 90), (120, 50), (180, 80), (90, 220), (200, 220)],
    "3": [(80, 60), (180, 60), (120, 130), (190, 180), (150, 230), (80, 220)],
    "4": [(150, 50), (70, 150), (210, 150), (160, 150), (160, 230)],
    "5": [(190, 50), (90, 50), (90, 130), (170, 130), (190, 180), (150, 225), (80, 220)],
    "6": [(170, 50), (100, 120), (90, 190), (130, 230), (180, 200), (160, 150), (95, 180)],
    "7": [(60, 60), (200, 60), (120, 220)],
    "9": [(180, 120), (120, 130), (110, 80), (160, 50), (185, 80), (180, 230)],
}


@functools.cache
def digits() -> nn.Module:
    """Return a model that reads digits."""
    data = wb.load("digits")
    model = wb.build("mlp", data, hidden=(64,), seed=0)
    wb.fit(model, data, epochs=20)
    return model


@functools.cache
def patients() -> nn.Module:
    """Return a model of ten numbers by name to one."""
    data = wb.load("diabetes")
    model = wb.build("linear", data, seed=0)
    wb.fit(model, data, epochs=2)
    return model


def view_of(asked: Any, model: str | None = None) -> TryView:
    return TryView(subject_of(asked, model))


def png(image: Image.Image) -> str:
    content = io.BytesIO()
    image.save(content, format="PNG")
    return base64.b64encode(content.getvalue()).decode()


def strokes(points: list[tuple[int, int]], scale: float = 1, by: int = 0) -> Image.Image:
    """Return a drawing of a pen on the canvas, smaller and elsewhere if that is said."""
    image, pen = Image.new("L", (280, 280)), 26 * scale
    moved = [(x * scale + by, y * scale + by) for x, y in points]
    draw = ImageDraw.Draw(image)
    draw.line(moved, fill=255, width=round(pen), joint="curve")
    for x, y in (moved[0], moved[-1]):
        draw.ellipse((x - pen / 2, y - pen / 2, x + pen / 2, y + pen / 2), fill=255)
    return image


def canvas(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image))


def seen(view: TryView) -> Any:
    content = base64.b64decode(view.shown["seen"].removeprefix("data:image/png;base64,"))
    return np.array(Image.open(io.BytesIO(content)))


def shares(view: TryView) -> list[float]:
    return [share for _, share in view.shown["answer"]["bars"]]


# Drawings and pictures.


def test_an_example_is_answered_as_predict_answers_it() -> None:
    view, sample = view_of(digits()), attached(digits()).sample
    assert sample is not None
    view.do("pick", example=11)
    said = wb.predict(digits(), sample[-1:])
    assert said.labels is not None
    assert said.probabilities is not None
    assert view.shown["answer"]["label"] == said.labels[0]
    assert np.allclose(shares(view), said.probabilities[0])
    assert (seen(view) == (sample[-1].float() * 255 / 16).round().numpy()).all()
    view.do("pick", example=12)
    assert view.problem == "example 12 is not there: there are 12"
    assert view.shown["origin"] == "example 12"  # counted from 1 for people, and still the last


def test_a_canvas_that_is_an_example_enlarged_is_that_example() -> None:
    view = view_of(digits())
    first, before = seen(view), shares(view)
    large = Image.fromarray(first).resize((280, 280), Image.Resampling.NEAREST)
    view.do("draw_on", canvas=png(large), fit=False)
    assert view.shown["origin"] == "a drawing"
    assert (seen(view) == first).all()
    assert shares(view) == before


def test_digits_drawn_by_hand_are_read() -> None:
    view, read = view_of(digits()), {}
    for digit, points in DIGITS.items():
        view.do("draw_on", canvas=png(strokes(points)), fit=True)
        read[digit] = view.shown["answer"]["label"]
    assert sum(a == b for a, b in read.items()) >= len(DIGITS) - 1, read


def test_what_was_drawn_is_cleared_with_its_answer() -> None:
    view = view_of(digits())
    assert view.shown["answer"] is not None
    view.do("clear")
    assert (view.shown["answer"], view.shown["seen"], view.shown["origin"]) == (None, None, "")
    assert not view.look()


@pytest.mark.parametrize(("scale", "by"), [(1, 0), (0.5, 0), (0.5, 130), (0.8, 40)])
def test_a_drawing_is_scaled_and_centred_as_mnist_is(scale: float, by: int) -> None:
    paper = Paper((28, 28))
    image = paper.drawn(canvas(strokes(DIGITS["4"], scale, by)), fit=True).double()
    there = (image > 64).nonzero()
    height, width = (there.amax(0) - there.amin(0) + 1).tolist()
    assert [max(height, width), int(image.max())] == [20, 255]
    places = torch.arange(28) + 0.5
    for axis in (0, 1):  # of mass, as near to the middle as whole pixels can be
        assert abs(float((image.sum(axis) * places).sum() / image.sum()) - 14) <= 0.6
    same = paper.drawn(canvas(strokes(DIGITS["4"])), fit=True).double()
    assert float((image - same).abs().mean()) < 6  # of 255: it looks alike wherever it is drawn


def test_paper_is_as_its_images_are() -> None:
    images = wb.load("digits").train.inputs[:200]
    light = 255 - images.repeat_interleave(3, 1).repeat_interleave(3, 2) * 15
    framed = nn.functional.pad(light, (3, 3, 3, 3), value=255)
    assert Paper.of(images, (8, 8)) == Paper((8, 8), white=16, share=1.0)
    paper = Paper.of(framed, (30, 30))
    assert (paper.white, paper.is_dark, paper.share) == (255, False, 0.8)
    ink = Image.eval(strokes(DIGITS["1"]), lambda value: 255 - value)
    drawn = paper.drawn(canvas(ink), fit=True)
    assert [int(drawn.min()), int(drawn[0, 0])] == [0, 255]
    assert not Paper((8, 8, 3)).can_be_drawn_on
    assert Paper.of(torch.empty(0, 28, 28), (28, 28)) == Paper((28, 28))


def test_an_empty_canvas_is_no_drawing() -> None:
    view = view_of(digits())
    view.do("draw_on", canvas=png(Image.new("L", (280, 280))), fit=True)
    assert view.problem.startswith("nothing is drawn yet: draw with the mouse")
    colours = torch.randint(0, 256, (20, 8, 8, 3), dtype=torch.uint8)
    model = wb.build("mlp", wb.dataset("c", train=(colours, torch.arange(20) % 2)), seed=0)
    wb.fit(model, wb.dataset("c", train=(colours, torch.arange(20) % 2)), steps=1, batch_size=9)
    other = view_of(model)
    assert other.given["draws"] is False
    other.do("draw_on", canvas=png(strokes(DIGITS["1"])), fit=True)
    assert other.problem == "MLP takes no grey images, so draw nothing"


def test_a_picture_is_read_as_a_service_reads_it() -> None:
    view, photo = view_of(digits()), Image.fromarray(np.arange(600, dtype=np.uint8).reshape(20, 30))
    view.do("upload", file="some.png", content=png(photo))
    expected, _, _ = pixels(base64.b64decode(png(photo)), (8, 8))
    sixteenths = (expected * (16 / 255)).round()
    assert (seen(view) == (sixteenths * 255 / 16).round()).all()
    assert view.shown["origin"] == "some.png, resized from 30 × 20"
    said = wb.predict(digits(), torch.from_numpy(sixteenths).to(torch.uint8)[None])
    assert said.labels == [view.shown["answer"]["label"]]


def test_what_is_no_picture_is_told_so() -> None:
    view, whole = view_of(digits()), base64.b64decode(png(strokes(DIGITS["3"])))
    for content, told in [
        (b"GIF89a", "the picture is neither a PNG nor a JPEG: send one of them"),
        (whole[:-40], "the picture cannot be read, image file is truncated: is the file whole?"),
        (
            b"x" * 7 * 2**20,
            "the picture has over 6 MiB: make it smaller, or ask the service itself",
        ),
    ]:
        view.do("upload", file="it", content=base64.b64encode(content).decode())
        assert view.problem == told
    assert view.shown["origin"] == "example 1"
    numbers = view_of(patients())
    numbers.do("upload", file="it", content=png(strokes(DIGITS["3"])))
    assert numbers.problem == "Linear takes numbers, not pictures"


# Numbers.


def test_numbers_are_moved_within_what_the_model_knows() -> None:
    view, sample = view_of(patients()), attached(patients()).sample
    assert sample is not None
    assert view.given["features"][:3] == ["age", "sex", "bmi"]
    lows, highs, steps = zip(*view.given["ranges"], strict=True)
    for ends, exact, way in ((lows, sample.amin(0), -1), (highs, sample.amax(0), 1)):
        beyond = way * (np.array(ends) - exact.numpy()) / np.array(steps)
        assert (beyond > -1e-3).all()
        assert (beyond < 1).all()
    assert (steps[0], steps[1]) == (1.0, 1.0)  # of whole numbers
    row = [*view.shown["values"]]
    row[2] = 40.0
    view.do("move", values=row)
    (value,) = view.shown["answer"]["values"]
    assert value == pytest.approx(float(wb.predict(patients(), [row]).output))
    view.do("move", values=[*row[:9], None])
    assert view.problem == "s6 has no value: give it a number"


@pytest.mark.parametrize(
    ("low", "high", "whole", "found"),
    [(0, 1, False, Range(0, 1, 0.005)), (3, 3, False, None), (1, 90, True, Range(1, 90, 1.0)),
     (-2e6, 5e6, False, Range(-2e6, 5e6, 50_000.0))],
)  # fmt: skip
def test_a_slider_has_round_steps(low: float, high: float, whole: bool, found: Any) -> None:
    assert Range.between(low, high, whole=whole) == found


def test_many_numbers_are_a_text() -> None:
    data = wb.load("wide", train_limit=200)
    model = wb.build("linear", data, seed=0)
    wb.fit(model, data, steps=2, lr=0.001)
    view = view_of(model)
    assert (view.given["sliders"], len(view.shown["values"])) == (False, 1000)
    view.do("fill", text=" ".join(["0.5"] * 999) + ",\n-1")
    row = torch.tensor([[0.5] * 999 + [-1]])
    assert view.shown["answer"]["values"][0] == pytest.approx(float(wb.predict(model, row).output))
    view.do("fill", text="1, 2")
    assert view.problem == "there are 2 values, expected 1,000"
    view.do("fill", text="1 " * 998 + "two 3")
    assert view.problem == "value 999 is 'two', expected a number"


def test_what_is_no_number_is_told_as_none() -> None:
    model = copy.deepcopy(patients())
    attached(model).__dict__.update(vars(attached(patients())))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(torch.nan)
    view = view_of(model)
    assert view.shown["answer"]["values"] == [None]
    assert repr(view) == "Try Linear in this kernel: no number"


# Ways to ask.


def test_a_version_is_asked_by_its_reference() -> None:
    worse, better = publish_both()
    wb.promote(better.ref, "champion")
    for asked, who in [("points@champion", better), (worse, worse), ("points", better)]:
        view = view_of(asked)
        assert view.shown["answer"]["who"] == who.ref
        view.do("move", values=POINTS[3].tolist())
        said = wb.predict(who.load(), POINTS[3:4]).probabilities
        assert said is not None
        assert shares(view) == pytest.approx([1 - float(said), float(said)])
    low, high, _ = view.given["ranges"][0]
    assert -5 < low < -2 < 2 < high < 5  # of the statistics that the version has of its data


def test_a_service_is_asked_over_http_whatever_answers_by_then() -> None:
    worse, better = publish_both()
    with serve(worse) as service:
        view = view_of(service)
        assert view.given["way"] == f"over HTTP, {service.url}"
        row = [1.0, -3.0]
        view.do("move", values=row)
        assert (view.shown["answer"]["who"], view.shown["answer"]["label"]) == (worse.ref, "above")
        assert service.predict([row]).labels == ["above"]
        serve(better, name="points")
        view.do("move", values=row)
        assert (view.shown["answer"]["who"], view.shown["answer"]["label"]) == (better.ref, "below")
        assert service.stats().requests == 4
    view.do("move", values=row)
    assert "does not answer" in view.problem
    assert view.shown["answer"] is None
    assert service.token not in json.dumps(view.get_state(), default=str)


def test_a_service_elsewhere_says_what_it_takes() -> None:
    people = pd.DataFrame(torch.rand(20, 2).numpy(), columns=["age", "weight"])
    data = wb.dataset("people", train=(people, people["age"] * 2))
    net = wb.build("linear", data, seed=0)
    wb.fit(net, data, steps=2, batch_size=20)
    with serve(net, name="people") as service, serve(digits(), name="reads"):
        remote = wb.connect(service.url, service.token)
        view, other = view_of(remote, "people"), view_of(remote, "reads")
        assert (view.given["features"], view.given["ranges"]) == (["age", "weight"], [None, None])
        view.do("move", values=[3.0, 4.0])
        (value,) = view.shown["answer"]["values"]
        assert value == pytest.approx(float(wb.predict(net, [[3.0, 4.0]]).output))
        assert (other.given["kind"], other.given["thumbs"][1:]) == ("image", [])
        other.do("draw_on", canvas=png(strokes(DIGITS["7"])), fit=True)
        assert (other.shown["answer"]["who"], other.shown["answer"]["label"]) == ("reads@0", "7")
        with pytest.raises(RequestError, match="the service has people, reads: say which, model="):
            view_of(remote)
        with pytest.raises(UnknownNameError, match="unknown model 'raeds': did you mean reads"):
            view_of(remote, "raeds")


def test_a_model_is_asked_while_it_learns() -> None:
    data = wb.load("digits")
    model = wb.build("mlp", data, hidden=(8,), seed=0)
    thread = threading.Thread(target=lambda: wb.fit(model, data, epochs=10_000))
    thread.start()
    once(lambda: (begun := attached(model).training) and len(begun.history) >= 5)
    training = attached(model).training
    assert training is not None
    try:
        view = view_of(model)
        before, step = shares(view), view.shown["answer"]["who"]
        assert step.startswith("MLP at step ")
        once(lambda: view.look() and shares(view) != before)
    finally:
        training.stop()
        thread.join()
    assert not view.look()
    last = attached(model).sample
    assert last is not None
    said = wb.predict(model, last[:1]).probabilities
    assert said is not None
    assert shares(view) == pytest.approx(said[0].tolist(), abs=1e-6)
    assert (view.shown["learns"], view.shown["answer"]["who"] == step) == (False, False)


def test_what_cannot_be_tried_is_said() -> None:
    images = "what can be tried are models of images"
    with serve(Shout(), name="shout", example=["a"]) as service:
        for asked in (service, wb.connect(service.url, service.token)):
            with pytest.raises(RequestError, match=f"shout takes texts: {images}"):
                try_it(asked)
    pair = {"left": torch.rand(2, 3), "right": torch.tensor([1.0, 2.0])}
    with serve(Pair(), name="pair", example=pair) as service:
        for asked in (service, wb.connect(service.url, service.token)):
            with pytest.raises(
                RequestError, match=f"takes its inputs by name, left, right: {images}"
            ):
                try_it(asked)
    with pytest.raises(RequestError, match=r"Linear was never built or fitted .* serve it with"):
        try_it(nn.Linear(2, 1))
    with pytest.raises(RequestError, match=r"cannot try a dict: expected a model \(an nn.Module\)"):
        try_it({})  # type: ignore[arg-type]
    with pytest.raises(UnknownNameError, match="unknown model 'none'"):
        try_it("none")


def test_a_service_that_is_gone_is_an_error_at_once() -> None:
    version = publish_both()[0]
    with serve(version) as service:
        remote = wb.connect(service.url, service.token)
    with pytest.raises(ServiceError, match="does not answer"):
        try_it(remote)
    with pytest.raises(ServiceError, match="service 'points' is stopped"):
        try_it(service)


# What is left of it.


def test_headless_it_is_a_picture_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "1")
    for model in (digits(), patients()):
        assert isinstance(try_it(model), Picture)
    bundle = view_of(digits())._repr_mimebundle_()
    assert bundle["text/plain"].startswith("Try MLP in this kernel: 0, 9")
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")


@pytest.mark.parametrize("model", [digits, patients])
def test_whatever_is_shown_is_small_and_plain(model: Any) -> None:
    view = view_of(model())
    for part, most in ((view.shown, 4_000), (view.given, 20_000)):
        assert len(json.dumps(part, allow_nan=False)) < most
    assert view.problem == ""


def test_versions_of_large_pictures_are_shown_small() -> None:
    images = torch.randint(0, 256, (6, 600, 300), dtype=torch.uint8)
    data = wb.dataset("large", train=(images, torch.arange(6) % 2))
    model = wb.build("linear", data, seed=0)
    wb.fit(model, data, steps=1, batch_size=6)
    made: ModelVersion = wb.publish(model, "large")
    view = view_of(made)
    assert seen(view).shape == (200, 100)
    assert view.given["shape"] == [600, 300]
