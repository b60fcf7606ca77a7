"""The messages of V1: rows and columns, base64, what is refused and why."""

from __future__ import annotations

import base64
import contextlib
import json
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workbench.errors import RequestError
from workbench.serving.tensors import Array
from workbench.serving.v1 import V1Request, open_b64, read_v1, write_v1
from workbench.types import Signature, TensorSpec

ONE = Signature((TensorSpec("input", "FP32", (-1, 2)),), (TensorSpec("output", "FP32", (-1, 3)),))
TWO = Signature(
    (TensorSpec("text", "BYTES", (-1,)), TensorSpec("mask", "BOOL", (-1, 2))), ONE.outputs
)
PNG = b"\x89PNG\r\n\x00\xff"
B64 = {"b64": base64.b64encode(PNG).decode()}
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=3) | st.binary(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=2), inner),
    max_leaves=8,
)


def body(**said: Any) -> bytes:
    return json.dumps(said).encode()


def test_rows_are_read() -> None:
    rows = [[1, 2.5], [3, 4]]
    for name in ({}, {"signature_name": "serving_default"}, {"signature_name": None}):
        assert read_v1(body(instances=rows, **name), ONE) == V1Request(rows, None)
    named = [{"text": "a", "mask": [True, False]}]
    assert read_v1(body(instances=named), TWO) == V1Request(named, None)


def test_columns_are_read_with_or_without_the_one_name() -> None:
    column = [[1, 2.5], [3, 4]]
    for said in (column, {"input": column}):
        assert read_v1(body(inputs=said), ONE) == V1Request(None, {"input": column})
    columns = {"mask": [[True, False]], "text": ["a"]}
    assert read_v1(body(inputs=columns), TWO) == V1Request(None, columns)


@pytest.mark.parametrize(
    ("said", "read"),
    [
        ({"instances": [B64, [B64, "x"]]}, V1Request([PNG, [PNG, "x"]], None)),
        ({"instances": [{"text": B64}]}, V1Request([{"text": PNG}], None)),
        ({"inputs": B64}, V1Request(None, {"input": PNG})),
        ({"inputs": {"input": [B64]}}, V1Request(None, {"input": [PNG]})),
        ({"instances": [{"b64": "", "x": 1}]}, V1Request([{"b64": "", "x": 1}], None)),
    ],
)
def test_base64_is_bytes_wherever_a_value_may_be(said: dict[str, Any], read: V1Request) -> None:
    assert read_v1(body(**said), ONE) == read
    escaped = json.dumps(said).replace("b64", "\\u0062\\u00364")
    assert read_v1(escaped.encode(), ONE) == read


@settings(deadline=None)
@given(VALUES)
def test_any_value_survives_with_its_bytes(value: Any) -> None:
    def hidden(inner: Any) -> Any:
        if isinstance(inner, bytes):
            return {"b64": base64.b64encode(inner).decode()}
        if isinstance(inner, list):
            return [hidden(part) for part in inner]
        return {k: hidden(v) for k, v in inner.items()} if isinstance(inner, dict) else inner

    assert read_v1(body(instances=[hidden(value)]), ONE).rows == [value]


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({}, "the body needs either instances, a list of rows, or inputs, the tensors by name"),
        ({"instances": [1], "inputs": [1]}, "the body needs either instances"),
        ({"instances": None}, "the body needs either instances"),
        ({"instances": 1}, r"Expected `array \| null`, got `int` - at `\$.instances`"),
        ({"instances": {"b64": ""}}, r"Expected `array \| null`, got `object`"),
        ({"instances": [1], "signature_name": "x"}, "unknown signature_name 'x': expected 'servi"),
        ({"instances": [1], "signature_name": 1}, r"got `int` - at `\$.signature_name`"),
        ({"inputs": {"x": [1]}}, "unknown input 'x': the model has input"),
        ({"inputs": {}}, "input 'input' is missing: the model takes input"),
        ({"instances": [{"b64": "x"}]}, "{\"b64\": 'x'} is not base64"),
        ({"instances": [{"b64": "è"}]}, "{\"b64\": 'è'} is not base64"),
        ({"instances": [{"b64": "YQ==\n"}]}, "is not base64"),
        ({"instances": [{"b64": 1}]}, '{"b64": 1} is not base64'),
        ({"instances": [{"b64": ["YQ=="]}]}, "is not base64"),
    ],
)
def test_a_malformed_request_is_refused(said: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_v1(body(**said), ONE)


def test_columns_of_several_inputs_need_their_names() -> None:
    with pytest.raises(RequestError, match="inputs has no names, and the model takes text, mask"):
        read_v1(body(inputs=[1]), TWO)
    with pytest.raises(RequestError, match="input 'mask' is missing: the model takes text, mask"):
        read_v1(body(inputs={"text": ["a"]}), TWO)


def test_what_is_nested_too_deep_is_refused() -> None:
    for depth in (100, 900):
        deep = "[" * depth + "]" * depth
        with pytest.raises(RequestError, match="nested too deep: expected at most 100 levels"):
            read_v1(f'{{"instances": [{deep}]}}'.encode(), ONE)
        with pytest.raises(RequestError, match="nested too deep"):
            read_v1(f'{{"inputs": {{"a": {deep}}}}}'.encode(), ONE)
    with pytest.raises(RequestError, match="the body is JSON nested too deep"):
        read_v1(b'{"instances": ' + b"[" * 99_999, ONE)
    fits = json.loads("[" * 100 + "]" * 100)
    assert open_b64(fits) == fits


@settings(deadline=None)
@given(st.binary(max_size=60), st.integers(0, 60), st.binary(max_size=3))
def test_no_bytes_raise_anything_but_a_request_error(noise: bytes, at: int, put: bytes) -> None:
    valid = body(inputs={"input": [[1, 2], B64]}, signature_name="serving_default")
    for said in (noise, valid[:at] + put + valid[at + 1 :]):
        for signature in (ONE, TWO):
            with contextlib.suppress(RequestError):
                read_v1(said, signature)


# Answers.

OUTPUT = np.array([[0.5, np.nan], [1, 2]])
TEXTS = np.array([b"a", "è".encode()], object)


@pytest.mark.parametrize(
    ("outputs", "columnar", "said"),
    [
        ({"output": OUTPUT}, False, {"predictions": [[0.5, None], [1.0, 2.0]]}),
        ({"output": OUTPUT}, True, {"outputs": [[0.5, None], [1.0, 2.0]]}),
        (
            {"output": OUTPUT, "label": TEXTS},
            False,
            {
                "predictions": [
                    {"output": [0.5, None], "label": "a"},
                    {"output": [1.0, 2.0], "label": "è"},
                ]
            },
        ),
        (
            {"output": OUTPUT, "label": TEXTS},
            True,
            {"outputs": {"output": [[0.5, None], [1.0, 2.0]], "label": ["a", "è"]}},
        ),
        ({"label": TEXTS[:0]}, False, {"predictions": []}),
        ({"a": OUTPUT[:0], "b": OUTPUT[:0]}, False, {"predictions": []}),
    ],
)
def test_an_answer_has_the_form_of_its_request(
    outputs: dict[str, Array], columnar: bool, said: dict[str, Any]
) -> None:
    assert json.loads(write_v1(outputs, columnar=columnar)) == said


def test_bytes_are_base64_by_the_name_or_where_they_are_no_text() -> None:
    texts = np.array([[b"a"], [PNG]], object)
    said = json.loads(write_v1({"png_bytes": texts, "png": texts}, columnar=True))["outputs"]
    assert said == {"png_bytes": [[{"b64": "YQ=="}], [B64]], "png": [["a"], [B64]]}
    assert read_v1(body(instances=said["png_bytes"]), ONE).rows == texts.tolist()


@pytest.mark.parametrize("dtype", ["f2", ml_dtypes.bfloat16])
def test_half_precision_is_said_as_numbers(dtype: Any) -> None:
    rows = np.array([[1.5, -2]], dtype)
    assert json.loads(write_v1({"output": rows}, columnar=False)) == {"predictions": [[1.5, -2.0]]}
