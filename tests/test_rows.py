"""Rows as people have them: pictures, table rows and texts in, labels and values out."""

from __future__ import annotations

import base64
import contextlib
import io
import json
import struct
import time
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps
from torch import Tensor, nn
from trainings import images

import workbench as wb
from workbench.attached import attached
from workbench.datasets import dataset
from workbench.errors import RequestError, UnknownNameError
from workbench.preprocessing import Preprocessing
from workbench.serving import rows
from workbench.serving.answers import Refusal
from workbench.serving.photos import MAX_PIXELS, pixels
from workbench.serving.rows import from_values, pictures, plain, read_rows, say_rows
from workbench.serving.served import Served, served_from

JSON_TYPE = "application/json"
FEATURES = ("age", "weight", "height")


def file_of(image: Image.Image, kind: str = "PNG", **options: Any) -> bytes:
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


def noise(height: int, width: int, mode: str = "RGB") -> Image.Image:
    channels = len(mode)
    draw = np.random.default_rng(3).integers(0, 256, (height, width, channels), np.uint8)
    return Image.fromarray(draw.squeeze())


@pytest.fixture(scope="module")
def seeing() -> Served:
    """Give a model of 16 x 16 coloured pictures of three classes."""
    return served_from(wb.build("lenet", dataset("photos", train=images(30, 16)), seed=1))


@pytest.fixture(scope="module")
def counting() -> Served:
    """Give a model of a table whose columns have names, with two classes and one logit."""
    model, rows = nn.Linear(3, 1), torch.rand(40, 3) * 50
    attached(model).preprocessing = Preprocessing.fitted(rows, ("no", "yes"), FEATURES)
    return served_from(model, name="people")


class Joining(nn.Module):
    def forward(self, number: Tensor, text: list[str]) -> dict[str, Any]:
        return {"half": number / 2, "loud": [word.upper() for word in text]}


class Shouting(nn.Module):
    def forward(self, texts: list[str]) -> list[str]:
        return [text.upper() for text in texts]


def joining() -> Served:
    return served_from(Joining(), example={"number": torch.rand(2, 2), "text": ["a", "b"]})


def shouting() -> Served:
    return served_from(Shouting(), name="loud", example=["a"])


def asked(served: Served, kind: str, body: Any) -> tuple[list[Any], Any]:
    """Return what is said of the rows of a body, and the notes."""
    content = body if isinstance(body, bytes) else json.dumps(body).encode()
    inputs, notes = read_rows(kind, content, served)
    served.check(inputs)
    return say_rows(served.answer(inputs), served), notes


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("JPEG", {"quality": 95})])
def test_a_picture_is_answered_as_predict_answers_its_pixels(
    seeing: Served, kind: str, options: Any
) -> None:
    content = file_of(noise(16, 16), kind, **options)
    (row,), notes = asked(seeing, f"image/{kind.lower()}", content)
    said = wb.predict(seeing.source.fresh(), np.asarray(Image.open(io.BytesIO(content)))[None])
    assert said.labels is not None
    assert said.probabilities is not None
    assert row["label"] == said.labels[0]
    assert list(row["probabilities"]) == list(seeing.classes)
    assert list(row["probabilities"].values()) == said.probabilities[0].tolist()
    assert row["output"] == said.output[0].tolist()
    assert notes == {}


def test_a_picture_of_another_size_is_stretched_and_said_to_be(seeing: Served) -> None:
    image = noise(48, 64)
    inputs, notes = read_rows("image/png", file_of(image), seeing)
    assert notes == {"resized_from": [48, 64]}
    expected = image.resize((16, 16), Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(inputs["input"][0], np.asarray(expected))


def test_several_pictures_come_in_json(seeing: Served) -> None:
    files = [file_of(noise(16, 16)), file_of(noise(20, 16), "JPEG")]
    told = [{"b64": base64.b64encode(content).decode()} for content in files]
    inputs, notes = read_rows(JSON_TYPE, json.dumps(told).encode(), seeing)
    assert notes == {"resized_from": [None, [20, 16]]}
    np.testing.assert_array_equal(inputs["input"], pictures(np.array(files, object), seeing))
    np.testing.assert_array_equal(inputs["input"], from_values(files, seeing)["input"])
    single = read_rows(JSON_TYPE, json.dumps(told[0]).encode(), seeing)[0]
    np.testing.assert_array_equal(single["input"], inputs["input"][:1])
    mixed = from_values([files[0], inputs["input"][1].tolist()], seeing)
    np.testing.assert_array_equal(mixed["input"], inputs["input"])


def test_pixels_come_as_nested_lists(seeing: Served) -> None:
    rows = seeing.example["input"]
    for body in (rows.tolist(), {"input": rows[0].tolist()}, rows[0].tolist()):
        inputs, _ = read_rows(JSON_TYPE, json.dumps(body).encode(), seeing)
        assert inputs["input"].dtype == np.uint8
        np.testing.assert_array_equal(inputs["input"], rows[: len(inputs["input"])])


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_picture_is_turned_as_the_camera_was_held(orientation: int, kind: str) -> None:
    image = noise(6, 10)
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = file_of(image, kind, exif=exif)
    expected = np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(content))))
    array, resized, _ = pixels(content, expected.shape)
    assert resized is None
    np.testing.assert_array_equal(array, expected)


@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "LA", "P", "1", "CMYK"])
@pytest.mark.parametrize("shape", [(8, 6), (8, 6, 1), (8, 6, 3), (8, 6, 4)])
def test_a_picture_is_coloured_as_the_model_has_it(mode: str, shape: tuple[int, ...]) -> None:
    image = noise(8, 6).convert(mode)
    content = file_of(image, "JPEG" if mode == "CMYK" else "PNG")
    array, *_ = pixels(content, shape)
    wanted = {1: "L", 3: "RGB", 4: "RGBA"}[shape[2] if len(shape) == 3 else 1]
    expected = Image.open(io.BytesIO(content)).convert(wanted)
    assert array.shape == shape
    np.testing.assert_array_equal(array, np.asarray(expected).reshape(shape))


def test_what_is_transparent_is_white() -> None:
    image = noise(4, 4).convert("RGBA")
    image.putalpha(0)
    assert pixels(file_of(image), (4, 4, 3))[0].min() == 255
    palette = noise(4, 4).convert("P")
    content = file_of(palette, transparency=bytes([0] * 256))
    assert pixels(content, (4, 4))[0].min() == 255


def test_sixteen_bits_become_eight() -> None:
    deep = np.arange(16, dtype=np.uint16).reshape(4, 4) * 4369
    array, *_ = pixels(file_of(Image.fromarray(deep)), (4, 4))
    np.testing.assert_array_equal(array, deep >> 8)


def chunk(kind: bytes, content: bytes) -> bytes:
    crc = zlib.crc32(kind + content)
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", crc)


def png(width: int, height: int, *more: bytes) -> bytes:
    """Return a small file that says it is a large picture."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = chunk(b"IDAT", zlib.compress(bytes(100)))
    return b"".join([b"\x89PNG\r\n\x1a\n", head, *more, data, chunk(b"IEND", b"")])


def scans(n: int) -> bytes:
    content = file_of(noise(8, 8), "JPEG", progressive=True)
    at = content.index(b"\xff\xda")
    return content[:at] + content[at:-2] * n + content[-2:]


WHOLE = {"PNG": file_of(noise(16, 16)), "JPEG": file_of(noise(16, 16), "JPEG")}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"GIF89a", "the picture is neither a PNG nor a JPEG"),
        (b"", "the picture is neither a PNG nor a JPEG"),
        (b"\xff\xd8", "the picture cannot be read, "),
        (b"\x89PNG\r\n\x1a\n", "cannot be read, image file is truncated: is the file whole"),
        (b"\x89PNG\r\n\x1a\n" + chunk(b"IEND", b""), "the picture cannot be read"),
        (WHOLE["PNG"][:-20], "the picture cannot be read, image file is truncated"),
        (WHOLE["JPEG"][:-200], "the picture cannot be read, .*truncated"),
        (WHOLE["PNG"].replace(b"IDAT", b"IDAU"), "the picture cannot be read"),
        (png(5001, 5000), f"has 5000 x 5001 pixels, expected at most {MAX_PIXELS:,}: make it smal"),
        (png(2**31 - 1, 2**31 - 1), "make it smaller"),
        (png(4000, 4000), "the picture cannot be read"),
        (scans(40), "cannot be read, more than 64 scans"),
    ],
)
def test_a_file_that_is_no_whole_picture_is_refused(content: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        pixels(content, (16, 16, 3))


def test_what_is_not_pixels_costs_nothing_and_warns_of_nothing() -> None:
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(200 * 2**20)))
    broken = chunk(b"eXIf", b"MM\0*\0\0\0\x08\xff\xff\x01\x12") + chunk(b"acTL", bytes(8))
    whole = WHOLE["PNG"]
    content = whole[:33] + text + broken + whole[33:]
    exif = b"\xff\xe1\x00\x14Exif\0\0II*\0\x08\0\0\0\xff\xff\x01\x12"
    photo = WHOLE["JPEG"][:2] + exif + WHOLE["JPEG"][2:]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for spoilt, kind in ((content, "PNG"), (photo, "JPEG")):
            expected = np.asarray(Image.open(io.BytesIO(WHOLE[kind])))
            np.testing.assert_array_equal(pixels(spoilt, (16, 16, 3))[0], expected)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_a_damaged_file_is_a_picture_or_refused(data: st.DataObject) -> None:
    content = bytearray(WHOLE[data.draw(st.sampled_from(sorted(WHOLE)))])
    for _ in range(data.draw(st.integers(1, 5))):
        content[data.draw(st.integers(2, len(content) - 1))] = data.draw(st.integers(0, 255))
    end = data.draw(st.integers(2, len(content)))
    with contextlib.suppress(RequestError):
        array, *_ = pixels(bytes(content[:end]), (16, 16, 3))
        assert array.shape == (16, 16, 3)


def test_a_model_of_other_channels_takes_no_picture() -> None:
    with pytest.raises(RequestError, match="takes 5 channels, and a picture has 1, 3 or 4"):
        pixels(WHOLE["PNG"], (16, 16, 5))


def test_a_damaged_picture_is_named_by_its_row(seeing: Served) -> None:
    with pytest.raises(RequestError, match="row 1: the picture is neither a PNG nor a JPEG"):
        pictures(np.array([WHOLE["PNG"], b"x"], object), seeing)


@pytest.mark.parametrize("size", [(1, 1), (16, 16), (200, 50), (160, 90)])
def test_the_pictures_of_a_request_are_bounded_together(
    seeing: Served, monkeypatch: pytest.MonkeyPatch, size: tuple[int, int]
) -> None:
    monkeypatch.setattr(rows, "MAX_TOGETHER", 3 * max(10_000, size[0] * size[1]))
    file = file_of(noise(*size))
    assert len(from_values(3 * [file], seeing)["input"]) == 3
    said = "row 4: the pictures have over 100,000,000 pixels together, each counting as 10,000"
    with pytest.raises(RequestError, match=said):
        from_values([file, np.zeros((16, 16, 3)).tolist(), *3 * [file]], seeing)
    with pytest.raises(RequestError, match=said.replace("4", "3")):
        pictures(np.array(4 * [file], object), seeing)


def test_a_picture_counts_as_the_pixels_it_becomes() -> None:
    assert pixels(file_of(noise(1, 1)), (200, 100, 3), 50_000)[2] == 30_000


ROW = {"age": 31, "weight": 70.5, "height": True}
LISTED = [31, 70.5, 1]


@pytest.mark.parametrize(
    "body",
    [ROW, [ROW], LISTED, [LISTED], dict(reversed(ROW.items())), {"input": LISTED}],
)
def test_a_row_of_a_table_comes_by_features_or_in_order(counting: Served, body: Any) -> None:
    (row,), _ = asked(counting, "Application/JSON; charset=utf-8", body)
    said = wb.predict(counting.source.fresh(), [[31, 70.5, 1]])
    assert said.labels is not None
    assert said.probabilities is not None
    (chance,) = said.probabilities[0].tolist()
    assert row["label"] == said.labels[0]
    assert row["probabilities"] == {"no": pytest.approx(1 - chance), "yes": chance}
    assert row["output"] == said.output[0].tolist()


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({**ROW, "agee": 1}, "unknown feature 'agee': did you mean age"),
        ({"age": 1}, "row 0 lacks the feature weight, height"),
        ([ROW, {**ROW, "age": "31"}], "row 1 has a string as the feature 'age': expected a number"),
        ({**ROW, "age": None}, "row 0 has null as the feature 'age'"),
        ([ROW, [1, 2]], "are not an array of numbers"),
        ([1, 2], r"inputs have the shape \(2,\), expected rows of \(3,\)"),
        ([[1, 2, None]], "are not an array of numbers"),
        ([[1, 2, "x"]], "are not an array of numbers"),
        ("text", "are not an array of numbers"),
        (None, "are not an array of numbers"),
        ([], "inputs have the shape"),
        (b"{", "the body is not JSON"),
        (b'{"age": 1e999}', "the body is not what was expected: Number out of range"),
    ],
)
def test_a_row_that_is_none_is_refused(counting: Served, body: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        asked(counting, JSON_TYPE, body)


def test_values_of_a_single_row_are_no_list_of_rows(counting: Served) -> None:
    with pytest.raises(RequestError, match="the rows are 3 values of one row: expected a list of"):
        from_values([1, 2, 3], counting)
    with pytest.raises(RequestError, match="expected a list of rows, found an object"):
        from_values(ROW, counting)


def test_features_without_names_are_told_to_come_in_order() -> None:
    served = served_from(wb.build("linear", dataset("t", train=(torch.rand(9, 2), torch.rand(9)))))
    with pytest.raises(RequestError, match="row 0 is an object, and 'model' has no names for what"):
        asked(served, JSON_TYPE, {"a": 1, "b": 2})


def test_a_regression_says_its_value() -> None:
    data = dataset("t", train=(torch.rand(9, 2), torch.rand(9)))
    served = served_from(wb.build("linear", data))
    rows, _ = asked(served, JSON_TYPE, [[1, 2], [3, 4]])
    output = wb.predict(served.source.fresh(), [[1.0, 2.0], [3.0, 4.0]]).output
    assert rows == [{"value": value} for value in output[:, 0].tolist()]
    several = served_from(nn.Linear(2, 3), example=torch.rand(2, 2))
    (row,), _ = asked(several, JSON_TYPE, [1, 2])
    assert len(row["output"]) == 3


def test_a_text_is_asked_as_it_is() -> None:
    served = shouting()
    assert asked(served, "text/plain; charset=utf-8", "straße\n".encode()) == (
        [{"output": "STRASSE\n"}],
        {},
    )
    assert asked(served, JSON_TYPE, "a")[0] == [{"output": "A"}]
    assert asked(served, JSON_TYPE, ["a", "b"])[0] == [{"output": "A"}, {"output": "B"}]
    assert asked(served, JSON_TYPE, {"input": "a"})[0] == [{"output": "A"}]
    with pytest.raises(RequestError, match="the text is not UTF-8"):
        asked(served, "text/plain", b"\xff")
    with pytest.raises(RequestError, match="input 'input' takes texts, found int"):
        asked(served, JSON_TYPE, [1])


def test_several_inputs_come_by_name() -> None:
    served = joining()
    body = [{"number": [1, 2], "text": "a"}, {"text": "b", "number": [3, 4]}]
    rows, _ = asked(served, JSON_TYPE, body)
    assert rows == [{"half": [0.5, 1.0], "loud": "A"}, {"half": [1.5, 2.0], "loud": "B"}]
    columns = from_values([[1, 2], [3, 4]], served, name="number")
    np.testing.assert_array_equal(columns["number"], [[1, 2], [3, 4]])
    assert columns["number"].dtype == np.float32


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ([{"number": [1, 2]}], "row 0 lacks the input text"),
        ({"number": [1, 2], "txet": "a"}, "unknown input 'txet': did you mean text"),
        ([{"number": [1, 2], "text": "a"}, 3], "row 1 is a number, expected an object of number"),
        ({"number": [1, 2, 3], "text": "a"}, r"input 'number' has the shape \(1, 3\)"),
        ({"number": [1, 2], "text": 3}, "input 'text' takes texts, found int"),
        ([[1, 2]], "the input 'text' is missing"),
    ],
)
def test_inputs_that_are_none_are_refused(body: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        asked(joining(), JSON_TYPE, body)


def test_flat_json_is_one_row() -> None:
    served = joining()
    body = b'{"id": "7", "parameters": {}, "number": [1, 2], "text": "a"}'
    row = plain(body, served)
    assert row == {"number": [1, 2], "text": "a"}
    assert from_values([row], served)["text"].tolist() == [b"a"]
    with pytest.raises(RequestError, match="the body is a list, expected an object of one row"):
        plain(b"[]", served)


@pytest.mark.parametrize(
    ("kind", "make", "message"),
    [
        ("image/gif", "seeing", "send image/png, image/jpeg or application/json"),
        ("text/plain", "seeing", "'model' is not asked by the Content-Type 'text/plain'"),
        (
            "image/png",
            "counting",
            "'people' is not asked by the Content-Type 'image/png'",
        ),
        ("", "counting", "Content-Type ''"),
    ],
)
def test_another_type_is_refused(
    request: pytest.FixtureRequest, kind: str, make: str, message: str
) -> None:
    with pytest.raises(Refusal, match=message) as refusal:
        read_rows(kind, b"x", request.getfixturevalue(make))
    assert refusal.value.status == 415


def test_pictures_for_another_model_are_refused(counting: Served) -> None:
    with pytest.raises(RequestError, match="'people' takes no pictures: send numbers"):
        pictures(np.array([WHOLE["PNG"]], object), counting)
    with pytest.raises(UnknownNameError):
        asked(counting, JSON_TYPE, {"x": 1})


def test_a_row_of_many_names_is_read_in_their_number() -> None:
    names = tuple(f"feature {i}" for i in range(20_000))
    model, table = nn.Linear(len(names), 1), torch.rand(4, len(names))
    attached(model).preprocessing = Preprocessing.fitted(table, (), names)
    wide = served_from(model, name="wide")
    row = dict(zip(reversed(names), table[0].tolist(), strict=True))
    begun = time.perf_counter()
    read = from_values([row], wide)["input"]
    assert time.perf_counter() - begun < 1
    np.testing.assert_array_equal(read[0], table[0].flip(0))
