"""What the dataset browser shows and does, without a browser."""

from __future__ import annotations

import base64
import json
import re

import numpy as np
import pytest
import torch
from pixels import pixels

from workbench import Dataset, dataset, load
from workbench.datasets.overviews import balance, find_rows, mean_images, statistics
from workbench.errors import RequestError
from workbench.pictures import Picture
from workbench.widgets import DatasetView

NAMES = [f"class {i}" for i in range(130)]


def view_of(name: str) -> DatasetView:
    return DatasetView(load(name))


def test_a_page_of_images_holds_the_rows_themselves() -> None:
    data, view = load("digits"), view_of("digits")
    assert (view.shown["found"], view.shown["pages"], len(view.shown["rows"])) == (1437, 24, 60)
    view.do("turn", page=23)
    last = view.shown["rows"][-1]
    assert (last["row"], last["label"]) == (1436, data.classes[data.train.targets[-1]])
    assert (pixels(last["src"]) == (data.train.inputs[-1].float() * 255 / 16).round().numpy()).all()
    view.do("turn", page=24)
    assert view.problem == "page 24 is not there: there are 24, from 0"
    assert view.shown["page"] == 23


def test_colours_stay_what_they_are() -> None:
    images = torch.randint(0, 256, (3, 5, 4, 3), dtype=torch.uint8)
    view = DatasetView(dataset("three", train=(images, torch.tensor([0, 1, 0]))))
    assert (pixels(view.shown["rows"][1]["src"]) == images[1].numpy()).all()


def test_rows_are_found_by_split_class_and_search() -> None:
    data, view = load("digits"), view_of("digits")
    view.do("choose", split="test", of="3")
    assert view.shown["found"] == int((data.test.targets == 3).sum())  # type: ignore[union-attr]
    view.do("choose", split="train", search="12")
    assert [row["row"] for row in view.shown["rows"]] == [12]
    view.do("choose", split="train", of="ten")
    assert "unknown class 'ten'" in view.problem
    assert view.shown["search"] == "12"
    view.do("choose", split="rest")
    assert "unknown split 'rest': did you mean test?" in view.problem


def test_a_table_is_searched_by_conditions() -> None:
    data = load("breast_cancer")
    columns = list(data.features)
    found = find_rows(data.train, search="mean area > 800", columns=columns)
    assert found.tolist() == (data.train.inputs[:, 3] > 800).nonzero()[:, 0].tolist()
    assert len(find_rows(data.train, search="malig")) == int((data.train.targets == 0).sum())
    sick = load("diabetes")
    few = find_rows(sick.train, search="target <= 50", columns=list(sick.features))
    assert few.tolist() == (sick.train.targets <= 50).nonzero()[:, 0].tolist()
    with pytest.raises(RequestError, match=r"unknown column 'mean aera': did you mean mean area\?"):
        find_rows(data.train, search="mean aera > 1", columns=columns)
    with pytest.raises(RequestError, match="nothing is called 'zebra': search for a row's number"):
        find_rows(data.train, search="zebra", columns=columns)


def test_the_balance_counts_every_row() -> None:
    data = load("breast_cancer")
    counts = balance(data)
    assert counts.sum().to_dict() == {"train": 455, "test": 114}
    assert counts.loc["benign", "train"] == int((data.train.targets == 1).sum())
    view = DatasetView(data)
    view.do("open_tab", tab="balance")
    assert view.shown["counts"]["test"] == counts["test"].tolist()
    regression = view_of("diabetes")
    regression.do("open_tab", tab="balance")
    assert sum(regression.shown["counts"]["train"]) == 354


def test_statistics_are_those_of_pandas() -> None:
    data, view = load("diabetes"), view_of("diabetes")
    found = statistics(data.train, data.features)
    assert np.allclose(found["median"], np.median(data.train.inputs.numpy(), axis=0))
    view.do("open_tab", tab="statistics")
    view.do("examine", column="bmi")
    assert (view.shown["column"], sum(view.shown["counts"]["all"])) == ("bmi", 354)
    view.do("examine", column="bmx")
    assert "unknown column 'bmx': did you mean bmi?" in view.problem
    view.do("open_tab", tab="augmentation")
    assert "unknown part of the view 'augmentation'" in view.problem


def test_a_mean_image_is_the_mean() -> None:
    data, view = load("digits"), view_of("digits")
    means = mean_images(data.train, 8)
    assert list(means) == list(data.classes[:8])
    sevens = data.train.inputs[data.train.targets == 7].float().mean(0)
    assert torch.allclose(means["7"], sevens, atol=1e-4)
    view.do("open_tab", tab="statistics")
    assert list(view.shown["means"]) == list(data.classes)


def test_photographs_are_sent_small() -> None:
    draw = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (130, 224, 112, 3), dtype=torch.uint8, generator=draw)
    view = DatasetView(dataset("photographs", train=(images, torch.arange(130)), classes=NAMES))
    first = pixels(view.shown["rows"][1]["src"])
    assert (first.shape, view.shown["pixels"]) == ((64, 32, 3), False)
    assert len(json.dumps(view.shown)) < 700_000
    view.do("open_tab", tab="statistics")
    assert list(view.shown["means"]) == list(view.shown["classes"])[:100]
    assert pixels(view.shown["means"]["class 7"]).shape == (64, 32, 3)
    view.do("open_tab", tab="augmentation")
    assert pixels(view.shown["epochs"][0][0]).shape == (64, 32, 3)


def test_of_many_columns_the_first_are_told_and_any_is_examined() -> None:
    rows = torch.rand(20, 300, generator=torch.Generator().manual_seed(0))
    view = DatasetView(dataset("many", train=(rows, torch.arange(20) % 2)))
    view.do("open_tab", tab="statistics")
    assert [name for name, *_ in view.shown["table"]] == [f"x{i}" for i in range(1, 101)]
    assert (view.shown["names"][-1], view.shown["more_columns"]) == ("x100", 200)
    assert view.shown["table"][99][1] == pytest.approx(float(rows[:, 99].double().mean()))
    view.do("examine", column="x300")
    ends = [view.shown["edges"][0], view.shown["edges"][-1]]
    assert ends == pytest.approx([float(rows[:, 299].min()), float(rows[:, 299].max())])


@pytest.mark.parametrize("channels", [2, 4])
def test_what_no_screen_shows_is_a_table_of_values(channels: int) -> None:
    images = torch.randint(0, 256, (6, 3, 5, channels), dtype=torch.uint8)
    view = DatasetView(dataset("d", train=(images, torch.arange(6) % 2)))
    assert (view.shown["kind"], view.shown["columns"][0]) == ("table", "x1")
    assert view.shown["rows"][4]["values"] == images[4].flatten()[:30].tolist()
    assert isinstance(view.picture(), Picture)


def test_what_is_varied_is_what_fit_sees() -> None:
    view = view_of("digits")
    view.do("open_tab", tab="augmentation")
    first, second = view.shown["epochs"][:2]
    originals = view.shown["originals"]
    for i in range(len(originals)):  # mirrored in one of any two epochs
        assert {first[i], second[i]} >= {originals[i]}
    assert pixels(first[0]).tolist() in [
        pixels(originals[0]).tolist(),
        pixels(originals[0])[:, ::-1].tolist(),
    ]
    view.do("vary", augment=["cutout", "spin"])
    assert "unknown augmentation 'spin'" in view.problem
    view.do("vary", augment=[])
    assert view.shown["epochs"][0] == originals


def test_what_is_no_action_is_refused() -> None:
    view = view_of("line")
    view.do("close")
    assert view.problem == "DatasetView has no action 'close'"
    view.do("turn", sheet=1)
    assert "unexpected keyword argument" in view.problem


@pytest.mark.parametrize("name", ["digits", "breast_cancer", "diabetes", "line", "wide"])
def test_whatever_is_shown_is_small_and_plain(name: str) -> None:
    view = view_of(name)
    for tab in view.shown["tabs"]:
        view.do("open_tab", tab=tab)
        assert len(json.dumps(view.shown, allow_nan=False)) < 200_000
        assert view.problem == ""


def test_headless_it_is_a_picture_and_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HEADLESS", "1")
    data: Dataset = load("digits")
    assert isinstance(data.show(), Picture)
    assert isinstance(load("diabetes").show(), Picture)
    bundle = DatasetView(data)._repr_mimebundle_()
    assert bundle["text/plain"] == repr(data)
    assert base64.b64decode(bundle["image/png"]).startswith(b"\x89PNG")


def test_a_search_takes_numbers_as_people_write_them() -> None:
    data = dataset("few", train=(torch.tensor([[-2.0], [0.5], [2.0]]), torch.arange(3) % 2))
    for search, rows in (
        ("x1 > +1", [2]), ("x1 > -.5", [1, 2]), ("x1 < 1.", [0, 1]), ("x1 > 1E-1", [1, 2]),
        ("x1 > -2e+0", [1, 2]), ("x1 < 1e999", [0, 1, 2]), ("9" * 5000, []), ("2", [2]),
    ):  # fmt: skip
        assert find_rows(data.train, search=search, columns=["x1"]).tolist() == rows
    for search in ("x1 > .", "x1 > 1.2.3", "x1 > 1e", "²"):
        with pytest.raises(RequestError, match=f"nothing is called {re.escape(repr(search))}"):
            find_rows(data.train, search=search, columns=["x1"])


def test_a_row_is_opened_alone_until_other_rows_are_sought() -> None:
    view = DatasetView(load("breast_cancer"))
    view.do("open_row", row=3)
    alone = view.shown["alone"]
    assert (alone["row"], alone["label"], alone["more"]) == (3, view.shown["rows"][3]["label"], 0)
    assert dict(alone["features"])["mean radius"] == view.shown["rows"][3]["values"][0]
    view.do("choose", split="test")
    assert view.shown["alone"] is None
    view.do("open_row", row=114)
    assert view.problem == "row 114 is not there: there are 114, from 0"
    pictures = DatasetView(load("digits"))
    pictures.do("open_row", row=0)
    assert pictures.shown["alone"]["src"] == pictures.shown["rows"][0]["src"]
    pictures.do("open_row", row=-1)
    assert pictures.shown["alone"] is None
