"""What the view of a model shows and does, without a browser."""

from __future__ import annotations

import base64
import gc
import json
import threading
import time
from typing import Any

import numpy as np
import pytest
import torch
from pixels import pixels
from torch import nn

from workbench import Callback, Dataset, build, dataset, fit, load
from workbench.datasets.splits import sample
from workbench.determinism import apart
from workbench.evaluation.surveys import survey
from workbench.pictures import Picture
from workbench.training.gradients import gradient_flow
from workbench.widgets import ModelView, model
from workbench.widgets.model_moments import Moment


def points() -> Dataset:
    X = torch.randn(60, 3, generator=torch.Generator().manual_seed(0))
    return dataset("points", train=(X, (X[:, 0] > 0).long()))


def digits(**sizes: Any) -> tuple[nn.Module, Dataset]:
    data = load("digits")
    return build("mlp", data, hidden=(40, 16), seed=0, **sizes), data


def test_the_layers_are_those_of_the_survey() -> None:
    net, data = digits()
    view = ModelView(net, data)
    found = survey(net, data)
    assert [row["name"] for row in view.shown["layers"]] == [layer.name for layer in found.layers]
    assert [row["warning"] for row in view.shown["layers"]] == [x.warning for x in found.layers]
    assert sum(row["share"] for row in view.shown["layers"]) == pytest.approx(1)
    assert view.shown["totals"].startswith(
        "3,426 parameters (3,426 trainable), 3,360 multiply-adds"
    )
    assert view.shown["seen"] == "Seen on 256 rows of train of digits"
    assert view.shown["layer"]["name"] == "layers.0"  # open from the beginning


def test_a_layer_is_opened() -> None:
    net, data = digits()
    view = ModelView(net, data)
    view.do("open_layer", layer="layers.4")
    told = next(layer for layer in survey(net, data).layers if layer.name == "layers.4")
    shown = view.shown["layer"]
    assert (shown["words"], shown["counts"]) == (told.words, list(told.spread))
    assert shown["ends"] == [told.low, told.high]
    assert [tile["name"] for tile in view.shown["filters"]] == ["weight"]
    assert pixels(view.shown["filters"][0]["src"]).shape == (10, 16)
    view.do("open_layer", layer="layers.9")
    assert "unknown layer 'layers.9': did you mean layers.4?" in view.problem
    assert view.shown["layer"]["name"] == "layers.4"


def test_a_row_is_chosen_by_class_and_turned_over() -> None:
    net, data = digits()
    view = ModelView(net, data)
    rows = sample(data.train, 256)
    net.eval()
    view.do("open_layer", layer="layers.4")
    view.do("choose", of="7")
    sevens = (rows.targets == 7).nonzero().flatten()
    assert (view.shown["row"], view.shown["rows"], view.shown["label"]) == (0, len(sevens), "7")
    view.do("turn", row=1)
    image = rows.inputs[sevens[1]]
    white = int(rows.inputs.max())
    expected = (image.float() * 255 / white).round().numpy()
    assert (pixels(view.shown["input"]["src"]) == expected).all()
    preprocessed = survey(net, data).preprocessing(image[None])
    outputs = net(preprocessed)[0].tolist()
    assert view.shown["bars"] == pytest.approx(outputs, abs=1e-5)
    view.do("turn", row=len(sevens))
    assert view.problem == f"row {len(sevens)} is not there: there are {len(sevens)}, from 0"
    view.do("choose", of="seven")
    assert "unknown class 'seven'" in view.problem
    view.do("choose", of="")
    assert (view.shown["row"], view.shown["rows"]) == (0, 256)


def test_a_class_without_rows_is_refused() -> None:
    data = dataset("d", train=(torch.randn(8, 2), [0, 1] * 4), classes=("a", "b", "c"))
    view = ModelView(nn.Linear(2, 3), data)
    view.do("choose", of="c")
    assert view.problem == "none of the rows that are shown is of the class 'c'"


def test_many_filters_are_shown_in_parts() -> None:
    view = ModelView(*digits())
    assert (view.shown["first"], view.shown["units"], view.shown["at_once"]) == (0, 40, 32)
    view.do("show_units", first=32)
    assert view.shown["filters"][0]["name"] == "filter 32"
    assert len(view.shown["filters"]) == 8
    view.do("show_units", first=40)
    assert view.problem == "unit 40 is not there: layers.0 has 40, from 0"
    view.do("open_layer", layer="layers.2")
    assert view.shown["first"] == 0


def test_the_flow_is_that_of_the_gradient() -> None:
    net, data = digits()
    fit(net, data, epochs=1)
    view = ModelView(net, data)
    view.do("open_tab", tab="gradient flow")
    found = gradient_flow(net, data)
    assert view.shown["words"] == found.words
    assert [row["layer"] for row in view.shown["flow"]] == ["layers.0", "layers.2", "layers.4"]
    norms = found.by_layer()["gradient_norm"].tolist()
    assert [row["gradient_norm"] for row in view.shown["flow"]] == pytest.approx(norms)
    low, high = view.shown["scales"][0]
    for row, norm in zip(view.shown["flow"], norms, strict=True):
        assert row["bars"][0] == pytest.approx(np.log10(norm / low) / np.log10(high / low))
    assert len(view.shown["each"]) == 6
    view.do("open_tab", tab="gradients")
    assert "unknown part of the view 'gradients': did you mean gradient flow?" in view.problem


def test_a_model_without_a_gradient_says_why_where_it_would_be() -> None:
    view = ModelView(nn.Sequential(nn.Linear(3, 2), nn.Softmax(1)), points())
    view.do("open_tab", tab="gradient flow")
    assert view.problem == ""
    assert view.shown["words"][0].startswith(
        "There is no gradient to show: Sequential answers with"
    )


def test_after_more_training_it_is_stale_until_one_looks_again() -> None:
    net, data = digits()
    training = fit(net, data, steps=5)
    view = ModelView(net, data)
    before = view.shown["layer"]["words"]
    assert (view.shown["is_stale"], view.look()) == (False, False)
    assert view.shown["seen"].endswith(f", after step 5 of training {training.name!r}")
    view.do("open_layer", layer="layers.0")
    training.extend(steps=20)
    view.look()
    assert view.shown["is_stale"]
    assert view.shown["layer"]["words"] == before  # of the moment that was looked at
    view.do("open_tab", tab="gradient flow")
    assert "rows of step 5 of training" in view.shown["words"][0]
    view.do("open_tab", tab="layers")
    view.do("look_again")
    assert (view.shown["is_stale"], view.problem) == (False, "")
    assert view.shown["layer"]["words"] != before
    assert "after step 25 of training" in view.shown["seen"]


def test_a_model_that_is_gone_cannot_be_looked_at_again() -> None:
    net, data = digits()
    view = ModelView(net, data)
    del net
    gc.collect()
    view.do("look_again")
    assert view.problem == "the model 'mlp' is gone: keep it in a variable, and run the cell again"
    view.do("open_layer", layer="layers.2")
    assert view.problem == ""


def test_one_looks_while_it_learns_and_moves_no_number() -> None:
    """The view of a training in another thread neither waits for its end nor changes it."""
    data, found = points(), list[Any]()
    alone, watched = (build("mlp", data, hidden=(8,), seed=0) for _ in range(2))
    how: Any = {"epochs": 200, "batch_size": 4, "seed": 1}
    fit(alone, data, **how)
    begun, seen = threading.Event(), threading.Event()

    class Slow(Callback):
        def on_step(self, training: Any, step: int) -> None:
            begun.set()
            if not seen.is_set():
                time.sleep(0.01)  # so that it does not end before one has looked

    def live() -> None:
        with apart():  # as in a notebook
            fit(watched, data, callbacks=[Slow()], **how)

    thread = threading.Thread(target=live)
    thread.start()
    begun.wait(60)
    try:
        for _ in range(2):
            view = ModelView(watched, data)
            view.do("open_tab", tab="gradient flow")
            found.append((view.shown["words"][0], view.problem, thread.is_alive()))
    finally:
        seen.set()
        thread.join()
    assert all(problem == "" and alive for _, problem, alive in found)
    assert all(words.startswith("The gradient of the 4 rows of step ") for words, _, _ in found)
    pairs = zip(alone.parameters(), watched.parameters(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_model_that_cannot_be_copied_is_seen_itself() -> None:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    vars(net)["lock"] = threading.Lock()
    view = ModelView(net, points())
    view.do("open_layer", layer="1")
    assert view.problem == ""
    view.do("open_tab", tab="gradient flow")
    assert view.shown["words"][0].startswith(
        "There is no gradient to show: Sequential cannot be copied, and gradients are taken on a"
    )


def test_a_model_without_layers_shows_what_it_holds() -> None:
    class Formula(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.inner = nn.Parameter(torch.zeros(3, 2)), nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.w

    view = ModelView(Formula(), points())
    assert view.shown["layer"] is None
    assert [row["name"] for row in view.shown["layers"]] == ["(no layer)"]
    assert view.shown["layers"][0]["parameters"] == 6
    assert isinstance(view.picture(), Picture)


def sequence_model() -> tuple[nn.Module, Dataset]:
    words = torch.randint(9, (20, 6), generator=torch.Generator().manual_seed(0))
    net = nn.Sequential(nn.Embedding(9, 4), nn.Flatten(), nn.Linear(24, 2))
    return net, dataset("words", train=(words, torch.arange(20) % 2))


def regression() -> tuple[nn.Module, Dataset]:
    data = load("diabetes")
    return build("mlp", data, hidden=(5,)), data


def broken() -> tuple[nn.Module, Dataset]:
    net = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))
    with torch.no_grad():
        net[0].weight.fill_(torch.nan)  # type: ignore[operator]
    return net, points()


def photographs() -> tuple[nn.Module, Dataset]:
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (40, 32, 32, 3), dtype=torch.uint8, generator=generator)
    data = dataset("photographs", train=(images, torch.arange(40) % 10))
    return build("convnet", data, size="small", seed=0), data


@pytest.mark.parametrize("made", [digits, sequence_model, regression, broken, photographs])
def test_whatever_is_shown_is_small_and_plain(made: Any) -> None:
    net, data = made()
    view = ModelView(net, data)
    for layer in view.shown["layers"]:
        view.do("open_layer", layer=layer["name"])
        assert (view.problem, view.shown["layer"]["name"]) == ("", layer["name"])
        assert len(json.dumps(view.shown, allow_nan=False)) < 200_000
    view.do("open_tab", tab="gradient flow")
    assert view.problem == ""
    assert len(json.dumps(view.shown, allow_nan=False)) < 50_000
    content = view.picture()._repr_png_()
    assert len(content) < 100_000


def test_a_row_that_is_no_image_is_shown_by_its_values() -> None:
    net, data = regression()
    view = ModelView(net, data)
    row = sample(data.train, 256)
    names, values = zip(*view.shown["input"]["values"], strict=True)
    assert names == data.features
    assert values == pytest.approx(row.inputs[0].tolist())
    assert view.shown["label"] == f"{float(row.targets[0]):.4g}"
    assert view.shown["classes"] == []


def test_a_large_image_is_sent_small_and_encoded_once() -> None:
    images = torch.randint(0, 256, (8, 448, 224, 3), dtype=torch.uint8)
    data = dataset("large", train=(images, torch.arange(8) % 2))
    view = ModelView(nn.Sequential(nn.Flatten(), nn.AdaptiveAvgPool1d(2)), data)
    src = view.shown["input"]["src"]
    means = images[0].reshape(224, 2, 112, 2, 3).double().mean((1, 3)).numpy()
    assert abs(pixels(src) - means).max() <= 0.51
    view.refresh()
    assert view.shown["input"]["src"] is src
    view.do("turn", row=1)
    assert view.shown["input"]["src"] != src


def test_many_layers_are_listed_in_part() -> None:
    net = nn.Sequential(*(nn.Linear(3, 3) for _ in range(250)))
    data = dataset("d", train=(torch.randn(9, 3), torch.randn(9, 3)))
    view = ModelView(net, data)
    assert (len(view.shown["layers"]), view.shown["more_layers"]) == (200, 50)


def test_a_moment_keeps_nothing_of_a_training_going_on() -> None:
    net, data = digits()
    moment = Moment(net, data)
    before = moment.survey.layers[0].weight_norm
    with torch.no_grad():
        net.layers[0].weight.mul_(2)  # type: ignore[union-attr, index]
    again = Moment(net, data).survey.layers[0].weight_norm
    assert again == pytest.approx(2 * (before or 0))
    assert moment.inside(moment.survey.layers[0], 0, 0)["filters_say"].startswith("Filters 0 to 31")


def test_headless_it_is_a_picture_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "1")
    net, data = digits()
    picture = model(net, data)
    assert isinstance(picture, Picture)
    titles = [axes.get_title() for part in picture.subfigs for axes in part.axes][:2]
    assert titles == ["parameters", "multiply-adds"]
    bundle = ModelView(net, data)._repr_mimebundle_()
    assert bundle["text/plain"].startswith("Model mlp: 3,426 parameters (3,426 trainable), ")
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")
