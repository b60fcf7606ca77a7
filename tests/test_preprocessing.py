"""Raw rows to what `forward` takes: by hand, against scikit-learn, and back from JSON."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from workbench.datasets import load
from workbench.errors import RequestError
from workbench.preprocessing import Preprocessing, as_tensor, check_finite

IMAGES = torch.randint(0, 256, (20, 6, 5, 3), dtype=torch.uint8)
TABLE = torch.randn(30, 4) * torch.tensor([1.0, 10.0, 0.1, 5.0]) + 3


def test_a_table_is_standardized_as_by_scikit_learn() -> None:
    from sklearn.preprocessing import StandardScaler

    expected = StandardScaler().fit_transform(TABLE.double().numpy())
    made = Preprocessing.fitted(TABLE)
    assert made.kind == "table"
    np.testing.assert_allclose(made(TABLE).numpy(), expected, atol=1e-5)


def test_images_become_normalized_channels_first() -> None:
    made = Preprocessing.fitted(IMAGES)
    ready = made(IMAGES)
    assert (made.kind, ready.shape, ready.dtype) == ("image", (20, 3, 6, 5), torch.float32)
    planes = IMAGES.double().permute(0, 3, 1, 2)
    assert torch.allclose(torch.tensor(made.mean).double(), planes.mean((0, 2, 3)))
    assert torch.allclose(torch.tensor(made.std).double(), planes.std((0, 2, 3), correction=0))
    assert torch.allclose(ready.mean((0, 2, 3)), torch.zeros(3), atol=1e-5)
    assert torch.allclose(ready.std((0, 2, 3), correction=0), torch.ones(3), atol=1e-5)


def test_grey_images_get_their_channel() -> None:
    made = Preprocessing.fitted(IMAGES[..., 0])
    assert made.shape == (6, 5)
    assert made(IMAGES[..., 0]).shape == (20, 1, 6, 5)


def test_what_is_constant_becomes_zero() -> None:
    table = torch.tensor([[1.0, 5.0], [3.0, 5.0]])
    made = Preprocessing.fitted(table)
    assert made.std == (1.0, 1.0)
    assert made(table).tolist() == [[-1.0, 0.0], [1.0, 0.0]]
    black = torch.zeros(2, 3, 3, dtype=torch.uint8)
    assert Preprocessing.fitted(black)(black).abs().sum() == 0


@pytest.mark.parametrize("inputs", [torch.randn(4, 3, 8, 8), torch.arange(6).reshape(3, 2)])
def test_anything_else_is_left_as_it_is(inputs: Tensor) -> None:
    made = Preprocessing.fitted(inputs)
    assert made.kind == "tensor"
    assert torch.equal(made(inputs), inputs)


@pytest.mark.parametrize("inputs", [IMAGES, IMAGES[..., 0], TABLE, torch.randn(3, 2, 2)])
def test_json_gives_back_the_same(inputs: Tensor) -> None:
    made = Preprocessing.fitted(inputs, ("cat", "dog"))
    again = Preprocessing.from_json(json.loads(json.dumps(made.to_json())))
    assert again == made
    assert torch.equal(again(inputs), made(inputs))


def test_the_raw_rows_stay_as_they_were() -> None:
    before = IMAGES.clone()
    Preprocessing.fitted(IMAGES)(IMAGES)
    assert torch.equal(IMAGES, before)


def test_labels_are_the_names_of_the_classes() -> None:
    made = Preprocessing.fitted(TABLE, ("cat", "dog"))
    assert made.labels(torch.tensor([1, 0, 1])) == ["dog", "cat", "dog"]


@pytest.mark.parametrize(
    "rows",
    [TABLE[:2], TABLE[:2].numpy(), TABLE[:2].tolist(), TABLE[:2].double().numpy(),
     pd.DataFrame(TABLE[:2].numpy(), columns=list("abcd"))],
)  # fmt: skip
def test_rows_come_in_many_guises(rows: Any) -> None:
    found = Preprocessing.fitted(TABLE).batch(rows)
    assert torch.equal(found, TABLE[:2])
    assert found.is_contiguous()  # a DataFrame lies column by column, and sums differ by order


def test_one_row_may_come_without_its_axis() -> None:
    made = Preprocessing.fitted(TABLE)
    assert torch.equal(made.batch(TABLE[0]), TABLE[:1])
    assert torch.equal(made.batch(TABLE[0].tolist()), TABLE[:1])


def test_whole_floats_pass_for_pixels() -> None:
    made = Preprocessing.fitted(IMAGES)
    assert torch.equal(made.batch(IMAGES.double().numpy()), IMAGES)
    assert torch.equal(made.batch(IMAGES.tolist()), IMAGES)


@given(st.lists(st.integers(0, 255), min_size=4, max_size=4))
@settings(max_examples=30, deadline=None)
def test_every_pixel_survives_the_cast(pixels: list[int]) -> None:
    made = Preprocessing("image", (2, 2), "uint8", (0.0,), (1.0,))
    assert made(made.batch([[pixels[:2], pixels[2:]]])).flatten().tolist() == pixels


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.zeros(2, 5), r"shape \(2, 5\), expected rows of \(4,\): pass \(rows, 4\)"),
        (torch.zeros(5), r"shape \(5,\), expected rows of \(4,\)"),
        (torch.zeros(()), r"shape \(\), expected rows of \(4,\)"),
        ([["a", "b", "c", "d"]], "inputs are not an array of numbers: can't convert"),
        ([[1.0, 2.0], [1.0]], "inputs are not an array of numbers: .*inhomogeneous"),
        ([None], "inputs are not an array of numbers"),
    ],
)
def test_rows_of_another_kind_are_refused(rows: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        Preprocessing.fitted(TABLE).batch(rows)


@pytest.mark.parametrize(
    ("values", "found"), [(0.5, "from 0.5 to 0.5"), (256.0, "256"), (-1.0, "-1")]
)
def test_what_is_no_pixel_is_refused(values: float, found: str) -> None:
    made = Preprocessing.fitted(IMAGES)
    with pytest.raises(RequestError, match=rf"float32 do not fit uint8 .*{found}.*pass raw uint8"):
        made.batch(torch.full((1, 6, 5, 3), values))


def test_read_only_and_wide_arrays_become_plain_tensors() -> None:
    array = np.arange(3.0)
    array.flags.writeable = False
    assert as_tensor(array).dtype == as_tensor(torch.ones(2).half()).dtype == torch.float32
    assert as_tensor([True, False]).dtype == torch.bool
    assert not as_tensor(torch.ones(2, requires_grad=True)).requires_grad


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_what_is_not_finite_is_refused(value: float) -> None:
    rows = torch.zeros(4, 3)
    rows[2, 1] = value
    message = "inputs hold NaN or infinite values in 1 of 4 rows, the first is row 2: drop"
    with pytest.raises(RequestError, match=message):
        Preprocessing("tensor", (3,), "float32").batch(rows)


@pytest.mark.parametrize("shape", [(), (3,), (0,), (0, 2), (3, 0), (2, 3, 4)])
def test_finite_values_of_any_shape_pass(shape: tuple[int, ...]) -> None:
    check_finite("inputs", torch.zeros(shape))
    if 0 not in shape:
        with pytest.raises(RequestError, match="inputs hold NaN or infinite values in"):
            check_finite("inputs", torch.full(shape, torch.inf))


def test_a_frame_is_read_by_the_names_of_its_columns() -> None:
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3, 4], "c": [True, False]})
    made = Preprocessing.fitted(as_tensor(frame), features=("a", "b", "c"))
    assert made.batch(frame[["c", "a", "b"]]).tolist() == [[1, 3, 1], [2, 4, 0]]
    with pytest.raises(RequestError, match="inputs lack the columns b: expected a, b, c"):
        made.batch(frame[["a", "c"]])
    assert made.batch(pd.DataFrame([[1, 3, 1]])).tolist() == [[1, 3, 1]]


def test_columns_may_be_named_by_numbers() -> None:
    frame = pd.DataFrame({2019: [1.0, 2.0], 2020: [3.0, 4.0]})
    made = Preprocessing.fitted(as_tensor(frame), features=("2019", "2020"))
    assert made.batch(frame[[2020, 2019]]).tolist() == [[1, 3], [2, 4]]


def test_parts_of_the_rows_give_the_statistics_of_the_whole(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    table, images = torch.randn(101, 4, dtype=torch.float64) + 1e4, IMAGES
    whole = [Preprocessing.fitted(rows) for rows in (table, images)]
    monkeypatch.setattr("workbench.preprocessing._CHUNK", 300)
    parts = [Preprocessing.fitted(rows) for rows in (table, images)]
    np.testing.assert_allclose(parts[0].mean, whole[0].mean, rtol=1e-14)
    np.testing.assert_allclose(parts[0].std, whole[0].std, rtol=1e-9)
    assert parts[1] == whole[1]
    table[[7, 90]] = np.nan
    with pytest.raises(RequestError, match="in 2 of 101 rows, the first is row 7"):
        check_finite("inputs", table)


def test_columns_that_are_no_numbers_are_named() -> None:
    frame = pd.DataFrame({"age": [1.0], "town": ["Ulm"]})
    with pytest.raises(RequestError, match=r"the columns town are not numbers: encode them first"):
        as_tensor(frame)


def test_a_split_is_no_rows() -> None:
    with pytest.raises(RequestError, match=r"got a Split, expected rows: pass its \.inputs"):
        as_tensor(load("digits").test)
