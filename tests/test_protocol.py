"""The messages, as bytes: what is read, what is refused and why, and round trips."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from workbench.errors import RequestError
from workbench.serving.protocol import (
    InferRequest,
    encode,
    read_answer,
    read_infer,
    read_instances,
    write_answer,
    write_infer,
    write_predictions,
)
from workbench.serving.tensors import Array, datatype_of, from_bytes, from_json, to_bytes, to_json
from workbench.types import Signature, TensorSpec

SIGNATURE = Signature(
    (TensorSpec("input", "FP32", (-1, 2)),), (TensorSpec("output", "FP32", (-1, 3)),)
)
DATATYPES = ["bool", "u1", "u2", "u4", "u8", "i1", "i2", "i4", "i8", "f4", "f8"]
ARRAYS = st.sampled_from(DATATYPES).flatmap(
    lambda kind: hnp.arrays(kind, hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4))
)


def same(a: Array, b: Array) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()


@given(ARRAYS)
def test_any_array_survives_as_bytes_bit_for_bit(array: Array) -> None:
    back = from_bytes("x", datatype_of(array), array.shape, memoryview(to_bytes(array)))
    assert same(back, array)


@given(ARRAYS.filter(lambda array: bool(np.isfinite(array).all())))
def test_any_finite_array_survives_as_json_bit_for_bit(array: Array) -> None:
    flat = json.loads(encode(to_json(array)))
    nested = json.loads(encode(array.tolist()))
    assert same(from_json("x", datatype_of(array), array.shape, flat), array)
    if array.ndim and array.size:
        assert same(from_json("x", datatype_of(array), array.shape, nested), array)


@given(st.dictionaries(st.text(min_size=1), ARRAYS, min_size=1, max_size=3))
def test_a_message_of_several_tensors_survives(tensors: dict[str, Array]) -> None:
    asked = InferRequest({}, dict.fromkeys(tensors, True))
    told = write_answer(asked, "m", "1", tensors)
    back = read_answer(told.body, str(told.header_length))
    assert list(back) == list(tensors)
    assert all(same(back[name], array) for name, array in tensors.items())


def test_bytes_of_a_big_endian_and_of_a_sliced_array_are_little_endian_rows() -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3).T
    assert to_bytes(array) == np.array([0, 3, 1, 4, 2, 5], "<f4").tobytes()


def test_what_is_not_finite_travels_as_bytes_and_is_null_in_json() -> None:
    array = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    as_json = write_answer(InferRequest({}, {"output": False}), "m", "1", {"output": array})
    assert json.loads(as_json.body)["outputs"][0]["data"] == [None, None, None]
    as_bytes = write_answer(InferRequest({}, {"output": True}), "m", "1", {"output": array})
    back = read_answer(as_bytes.body, str(as_bytes.header_length))["output"]
    assert same(back, array)


def request(**changes: Any) -> bytes:
    tensor: dict[str, Any] = {"name": "input", "datatype": "FP32", "shape": [2, 2]}
    tensor |= {"data": [1, 2, 3, 4.5], **changes.pop("tensor", {})}
    told = {"inputs": [{k: v for k, v in tensor.items() if v is not ...}], **changes}
    return json.dumps(told).encode()


def test_a_json_request_is_read() -> None:
    asked = read_infer(request(id="seven"), None, SIGNATURE)
    assert same(asked.inputs["input"], np.array([[1, 2], [3, 4.5]], np.float32))
    assert (asked.id, asked.outputs) == ("seven", {"output": False})


def test_a_nested_request_equals_the_flat_one() -> None:
    asked = read_infer(request(tensor={"data": [[1, 2], [3, 4.5]]}), None, SIGNATURE)
    assert same(asked.inputs["input"], np.array([[1, 2], [3, 4.5]], np.float32))


@pytest.mark.parametrize(
    ("parameters", "outputs", "binary"),
    [
        ({}, None, False),
        ({"binary_data_output": True}, None, True),
        ({"binary_data_output": True}, [{"name": "output"}], True),
        (
            {"binary_data_output": True},
            [{"name": "output", "parameters": {"binary_data": False}}],
            False,
        ),
        ({}, [{"name": "output", "parameters": {"binary_data": True}}], True),
    ],
)
def test_an_output_comes_in_the_form_asked_for(
    parameters: dict[str, bool], outputs: Any, binary: bool
) -> None:
    asked = read_infer(request(parameters=parameters, outputs=outputs), None, SIGNATURE)
    assert asked.outputs == {"output": binary}
    told = write_answer(asked, "m", "3", {"output": np.zeros((1, 3), np.float32)})
    assert (told.header_length is not None) == binary


def test_a_binary_request_is_read() -> None:
    array = np.array([[1, 2], [3, np.nan]], np.float32)
    message = write_infer({"input": array})
    asked = read_infer(message.body, str(message.header_length), SIGNATURE)
    assert same(asked.inputs["input"], array)
    assert asked.outputs == {"output": True}


def test_a_raw_body_is_the_rows_of_the_one_input() -> None:
    array = np.arange(6, dtype=np.float32).reshape(3, 2)
    asked = read_infer(array.tobytes(), "0", SIGNATURE)
    assert same(asked.inputs["input"], array)
    assert asked.outputs == {"output": True}


def test_a_raw_body_must_be_whole_rows_of_one_input() -> None:
    with pytest.raises(RequestError, match="has 7 bytes, expected rows of 8 bytes each"):
        read_infer(b"1234567", "0", SIGNATURE)
    two = Signature(SIGNATURE.inputs * 2, SIGNATURE.outputs)
    with pytest.raises(RequestError, match="0 needs a model of one input, not 2"):
        read_infer(b"12345678", "0", two)


BINARY = {"data": ..., "parameters": {"binary_data_size": 16}}


@pytest.mark.parametrize(
    ("tensor", "message"),
    [
        ({"datatype": "FP64"}, "has the datatype 'FP64', expected 'FP32'"),
        ({"name": "x"}, "unknown input 'x': the model has input"),
        ({"shape": [4]}, r"has the shape \[4\], expected \[-1, 2\] where -1 is any number"),
        ({"shape": [2, 3]}, r"has the shape \[2, 3\], expected \[-1, 2\]"),
        ({"shape": [-2, 2]}, "expected at most 32 axes, none negative"),
        ({"shape": [2**80, 2]}, "at most 2147483648 elements"),
        ({"shape": [2.5, 2]}, r"Expected `int`, got `float` - at `\$.inputs\[0\].shape\[0\]`"),
        ({"shape": [3, 2]}, r"has 4 values, expected 6 for shape \[3, 2\]"),
        ({"data": [[1, 2], [3]]}, r"data not nested as its shape \[2, 2\]"),
        ({"data": [[1, 2, 3, 4]]}, r"data not nested as its shape \[2, 2\]"),
        ({"data": [[[1], [2]], [[3], [4]]]}, "and its data has list"),
        ({"data": [1, 2, 3, "4"]}, "is FP32, and its data has a string"),
        ({"data": [1, 2, 3, True]}, "is FP32, and its data has bool"),
        ({"data": [1, 2, 3, None]}, "is FP32, and its data has null"),
        ({"data": [1, 2, 3, {}]}, "is FP32, and its data has an object"),
        ({"data": [1, 2, 3, 1e39]}, "has a value that does not fit FP32"),
        ({"data": [1, 2, 3, 10**400]}, "the body is not what was expected|does not fit FP32"),
        ({"data": 4}, "has data that is not a list"),
        ({"data": ...}, "needs either data or the parameter binary_data_size"),
        ({"parameters": {"binary_data_size": 16}}, "needs either data or the parameter"),
        ({"data": ..., "parameters": {"binary_data_size": -1}}, "binary_data_size -1: expected 0"),
        ({"data": ..., "parameters": {"binary_data_size": "9"}}, "binary_data_size '9': expected"),
        (BINARY, "says 16 bytes follow, and 0 do"),
        ({"parameters": {"shared_memory_region": "r"}}, "is in shared memory, which is not"),
    ],
)
def test_a_malformed_tensor_is_refused(tensor: dict[str, Any], message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_infer(request(tensor=tensor), None, SIGNATURE)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "the body is not JSON: Input data was truncated"),
        (b"{", "the body is not JSON"),
        (b"[]", "the body is not what was expected: Expected `object`, got `array`"),
        (b"{}", "missing required field `inputs`"),
        (b'{"inputs": [], "id": "\xff"}', "the body is not UTF-8"),
        (b'{"inputs": []}', "input 'input' is missing: the model takes input"),
        (b"[" * 100_000, "the body is"),
        (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", "the body is"),
        (request(tensor={"data": "deep"}).replace(b'"deep"', b"[" * 99_999), "nested too deep"),
        (request(tensor={"data": [0, 0, 0, 1]}).replace(b"1]", b"NaN]"), "the body is not JSON"),
        (request(outputs=[{"name": "o"}]), "unknown output 'o': the model has output"),
        (request(outputs=[{"name": "output"}] * 2), "output 'output' is given twice"),
        (
            request(outputs=[{"name": "output", "parameters": {"classification": 2}}]),
            "output 'output' asks for classification: not offered",
        ),
        (
            request(outputs=[{"name": "output", "parameters": {"binary_data": 1}}]),
            "output 'output' has binary_data 1: expected true or false",
        ),
        (request(parameters={"binary_data_output": 1}), "the request has binary_data_output 1"),
    ],
)
def test_a_malformed_request_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_infer(body, None, SIGNATURE)


def test_an_input_given_twice_is_refused() -> None:
    told = json.loads(request())
    told["inputs"] *= 2
    with pytest.raises(RequestError, match="input 'input' is given twice"):
        read_infer(json.dumps(told).encode(), None, SIGNATURE)


@pytest.mark.parametrize("length", ["-1", "1.5", "x", "", "٣", "99999", "9" * 5000])
def test_a_header_length_that_is_none_is_refused(length: str) -> None:
    with pytest.raises(RequestError, match=r"Inference-Header-Content-Length is .*expected an int"):
        read_infer(request(), length, SIGNATURE)


def test_a_header_that_cuts_the_json_or_leaves_bytes_over_is_refused() -> None:
    body = request()
    with pytest.raises(RequestError, match="the body is not JSON: Input data was truncated"):
        read_infer(body, "20", SIGNATURE)
    with pytest.raises(RequestError, match="the body has 3 bytes more than its tensors"):
        read_infer(body + b"abc", str(len(body)), SIGNATURE)


def test_raw_bytes_must_be_as_many_as_the_shape_says() -> None:
    head = request(tensor={"data": ..., "parameters": {"binary_data_size": 4}})
    with pytest.raises(RequestError, match=r"has 4 bytes, expected 16 for FP32 of shape \[2, 2\]"):
        read_infer(head + b"1234", str(len(head)), SIGNATURE)


@pytest.mark.parametrize("datatype", ["FP16", "BF16", "BYTES", "fp32"])
def test_other_datatypes_are_refused_by_name(datatype: str) -> None:
    with pytest.raises(RequestError, match=f"has the datatype '{datatype}': expected one of BOOL"):
        from_json("x", datatype, [1], [1])
    with pytest.raises(RequestError, match="arrays of float16 have no datatype here: expected one"):
        datatype_of(np.zeros(1, np.float16))


@pytest.mark.parametrize(("datatype", "value"), [("UINT8", 256), ("UINT8", -1), ("INT64", 2**63)])
def test_an_integer_out_of_range_is_refused(datatype: str, value: int) -> None:
    with pytest.raises(RequestError, match=f"has a value that does not fit {datatype}"):
        from_json("x", datatype, [1], [value])


def test_integers_and_booleans_are_not_taken_for_each_other() -> None:
    with pytest.raises(RequestError, match="is UINT8, and its data has float"):
        from_json("x", "UINT8", [1], [1.0])
    with pytest.raises(RequestError, match="is BOOL, and its data has int"):
        from_json("x", "BOOL", [1], [1])
    with pytest.raises(RequestError, match="has a byte that is neither 0 nor 1"):
        from_bytes("x", "BOOL", [1], memoryview(b"\x02"))


@given(st.binary(max_size=200), st.none() | st.text(max_size=5) | st.integers(0, 220).map(str))
def test_no_bytes_raise_anything_but_a_request_error(body: bytes, length: str | None) -> None:
    for read in (
        lambda: read_infer(body, length, SIGNATURE),
        lambda: read_answer(body, length),
        lambda: read_instances(body),
    ):
        with contextlib.suppress(RequestError):
            read()


def test_v1_instances_and_predictions() -> None:
    assert read_instances(b'{"instances": [[1, 2]], "signature_name": "x"}') == [[1, 2]]
    assert write_predictions(np.array([[0.5, np.nan]])) == b'{"predictions":[[0.5,null]]}'
    with pytest.raises(RequestError, match="missing required field `instances`"):
        read_instances(b'{"inputs": []}')
