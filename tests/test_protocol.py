"""The messages of V2, as bytes: what is read, what is answered, what is refused and why."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from arrays import DTYPES, same
from messages import HALF, PICTURES, SEVERAL, SIGNATURE, output, request, several
from tritonclient.http import InferenceServerClient

from workbench.errors import RequestError
from workbench.serving.protocol import (
    InferRequest,
    Wanted,
    read_answer,
    read_infer,
    write_answer,
    write_infer,
)
from workbench.serving.tensors import Array
from workbench.types import Signature, TensorSpec

# Reading.


def test_a_json_request_is_read() -> None:
    asked = read_infer(request(id="seven"), None, SIGNATURE)
    assert same(asked.inputs["input"], np.array([[1, 2], [3, 4.5]], np.float32))
    assert (asked.id, asked.outputs) == ("seven", {"output": Wanted()})


def test_a_nested_request_equals_the_flat_one() -> None:
    asked = read_infer(request(tensor={"data": [[1, 2], [3, 4.5]]}), None, SIGNATURE)
    assert same(asked.inputs["input"], np.array([[1, 2], [3, 4.5]], np.float32))


def test_what_is_null_or_unknown_counts_as_left_out() -> None:
    asked = read_infer(request(id=None, parameters=None, outputs=None, x=1), None, SIGNATURE)
    assert asked == InferRequest(asked.inputs, {"output": Wanted()})
    with pytest.raises(RequestError, match="needs either data or the parameter binary_data_size"):
        read_infer(request(tensor={"data": None}), None, SIGNATURE)


def test_several_inputs_are_read_whatever_their_order() -> None:
    asked = read_infer(several(parameters={"binary_data_output": True}), None, SEVERAL)
    assert same(asked.inputs["text"], np.array([b"a", "è".encode()], object))
    assert same(asked.inputs["mask"], np.array([[True, False], [True, True]]))
    assert asked.outputs == dict.fromkeys(("logits", "label", "half"), Wanted(binary=True))


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
    assert asked.outputs == {"output": Wanted(binary)}
    answer = write_answer(asked, "m", "3", {"output": np.zeros((1, 3), np.float32)})
    assert (answer.header_length is not None) == binary


def test_outputs_are_those_asked_for_in_their_order() -> None:
    ranked = {"name": "logits", "parameters": {"classification": 2, "binary_data": True}}
    asked = read_infer(several(outputs=[{"name": "label"}, ranked]), None, SEVERAL)
    assert list(asked.outputs.items()) == [
        ("label", Wanted()),
        ("logits", Wanted(binary=True, classes=2)),
    ]


def test_a_binary_request_is_read() -> None:
    array = np.array([[1, 2], [3, np.nan]], np.float32)
    message = write_infer({"input": array})
    asked = read_infer(message.body, str(message.header_length), SIGNATURE)
    assert same(asked.inputs["input"], array)
    assert asked.outputs == {"output": Wanted(binary=True)}


def test_parameters_without_a_meaning_are_handed_on() -> None:
    said = {"temperature": 0.5, "mode": "fast", "n": 3, "log": False}
    known = {"timeout": 1_500_000, "binary_data_output": False, "sequence_id": 0, "priority": 0}
    asked = read_infer(request(parameters={**said, **known}), None, SIGNATURE)
    assert (asked.parameters, asked.timeout) == (said, 1.5)
    assert read_infer(request(parameters={"timeout": 0}), None, SIGNATURE).timeout is None


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"timeout": -1}, "the request has timeout -1: expected 0 or more, a whole number"),
        ({"timeout": 1.5}, "the request has timeout 1.5: expected 0 or more"),
        ({"timeout": True}, "the request has timeout True: expected 0 or more"),
        ({"timeout": "1"}, "the request has timeout '1': expected 0 or more"),
        ({"timeout": 2**63}, "the request has timeout 9223372036854775808: expected 0 or more"),
        ({"priority": 1}, "the request has priority, which is not offered: leave it out"),
        ({"sequence_id": "a"}, "the request has sequence_id, which is not offered"),
        ({"sequence_start": True}, "the request has sequence_start, which is not offered"),
        ({"sequence_end": True}, "the request has sequence_end, which is not offered"),
        ({"headers": "x"}, "the request has headers, which is not offered"),
        ({"triton_x": 1}, "the parameter 'triton_x': names that begin with triton_ are reserved"),
        (
            {"x": [1]},
            r"Expected `bool \| int \| float \| str \| null`, got `array` - at `\$.parame",
        ),
        ({"binary_data_output": 1}, "the request has binary_data_output 1: expected true or false"),
    ],
)
def test_a_parameter_that_cannot_be_kept_is_refused(
    parameters: dict[str, Any], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        read_infer(request(parameters=parameters), None, SIGNATURE)


# Raw requests and pictures.


def test_a_raw_body_is_the_rows_of_the_one_input() -> None:
    array = np.arange(6, dtype=np.float32).reshape(3, 2)
    asked = read_infer(array.tobytes(), "0", SIGNATURE)
    assert same(asked.inputs["input"], array)
    assert asked.outputs == {"output": Wanted(binary=True)}


def test_a_raw_body_of_a_text_is_that_text() -> None:
    text = Signature((TensorSpec("input", "BYTES", (-1,)),), SIGNATURE.outputs)
    for said in (b"\x00 any\xff", b""):
        assert same(read_infer(said, "0", text).inputs["input"], np.array([said], object))
    pairs = Signature((TensorSpec("input", "BYTES", (-1, 2)),), SIGNATURE.outputs)
    with pytest.raises(RequestError, match="0 needs an input of one text a row, not 2"):
        read_infer(b"x", "0", pairs)


def test_a_raw_body_must_be_whole_rows_of_one_input() -> None:
    with pytest.raises(RequestError, match="has 7 bytes, expected rows of 8 bytes each"):
        read_infer(b"1234567", "0", SIGNATURE)
    with pytest.raises(RequestError, match="has 0 bytes, expected rows of 8 bytes each"):
        read_infer(b"", "0", SIGNATURE)
    two = Signature(SIGNATURE.inputs * 2, SIGNATURE.outputs)
    with pytest.raises(RequestError, match="0 needs a model of one input, not 2"):
        read_infer(b"12345678", "0", two)
    variable = Signature((TensorSpec("input", "FP32", (-1, -1)),), SIGNATURE.outputs)
    with pytest.raises(RequestError, match=r"rows have a fixed shape, not \[-1, -1\]"):
        read_infer(b"12345678", "0", variable)


@pytest.mark.parametrize("shape", [(2,), (2, 1)])
def test_pictures_may_come_as_files(shape: tuple[int, ...]) -> None:
    files = np.array([b"\x89PNG", b"\xff\xd8"], object).reshape(shape)
    message = write_infer({"input": files})
    asked = read_infer(message.body, str(message.header_length), PICTURES)
    assert same(asked.inputs["input"], files)


@pytest.mark.parametrize("shape", [(), (2, 2), (1, 2, 2, 3)])
def test_files_of_pictures_are_one_a_row(shape: tuple[int, ...]) -> None:
    message = write_infer({"input": np.full(shape, b"x", object)})
    with pytest.raises(RequestError, match=r"expected \[rows\] or \[rows, 1\] where BYTES are the"):
        read_infer(message.body, str(message.header_length), PICTURES)


@pytest.mark.parametrize(
    "spec", [TensorSpec("input", "UINT8", (-1, 4)), TensorSpec("input", "FP32", (-1, 2, 2, 3))]
)
def test_no_other_input_may_come_as_files(spec: TensorSpec) -> None:
    message = write_infer({"input": np.array([b"x"], object)})
    with pytest.raises(RequestError, match="has the datatype 'BYTES', expected"):
        read_infer(message.body, str(message.header_length), Signature((spec,), SIGNATURE.outputs))


# Answering.


def answered(asked: InferRequest, outputs: dict[str, Array], **more: Any) -> Any:
    return json.loads(write_answer(asked, "m", "3", outputs, **more).body)


def test_an_answer_says_who_answers_and_what_was_asked() -> None:
    asked = InferRequest({}, {"b": Wanted(), "a": Wanted()}, id="seven")
    rows = {"a": np.array([[1.5]], np.float32), "b": np.array([[True]]), "c": np.zeros(1)}
    assert answered(asked, rows, parameters={"weights": "ab"}) == {
        "model_name": "m",
        "model_version": "3",
        "id": "seven",
        "parameters": {"weights": "ab"},
        "outputs": [
            {"name": "b", "datatype": "BOOL", "shape": [1, 1], "data": [True]},
            {"name": "a", "datatype": "FP32", "shape": [1, 1], "data": [1.5]},
        ],
    }
    assert list(answered(InferRequest({}, {}), {})) == ["model_name", "model_version", "outputs"]


def test_what_is_not_finite_travels_as_bytes_and_is_null_in_json() -> None:
    array = np.array([[np.nan, np.inf, -np.inf]], np.float32)
    as_json = answered(InferRequest({}, {"output": Wanted()}), {"output": array})
    assert as_json["outputs"][0]["data"] == [None, None, None]
    as_bytes = write_answer(InferRequest({}, {"output": Wanted(True)}), "m", "1", {"output": array})
    back = read_answer(as_bytes.body, str(as_bytes.header_length))["output"]
    assert same(back, array)


@pytest.mark.parametrize(
    ("count", "classes", "first", "second"),
    [
        (1, ("a", "b", "c"), ["2.5:1:b"], ["7.0:0:a"]),
        (2, ("a", "b", "c:d"), ["2.5:1:b", "0.1:2:c:d"], ["7.0:0:a", "7.0:2:c:d"]),
        (9, (), ["2.5:1", "0.1:2", "-1.0:0"], ["7.0:0", "7.0:2", "nan:1"]),
        (2, ("a", "b"), ["2.5:1", "0.1:2"], ["7.0:0", "7.0:2"]),
    ],
)
def test_the_best_classes_of_each_row(
    count: int, classes: tuple[str, ...], first: list[str], second: list[str]
) -> None:
    logits = np.array([[-1, 2.5, 0.1], [7, np.nan, 7]], np.float32)
    asked = InferRequest({}, {"output": Wanted(classes=count)})
    (said,) = answered(asked, {"output": logits}, classes=classes)["outputs"]
    assert (said["datatype"], said["shape"]) == ("BYTES", [2, len(first)])
    assert said["data"] == first + second


@pytest.mark.parametrize("dtype", [d for k, d in DTYPES.items() if k not in ("BOOL", "BYTES")])
def test_classes_of_any_numbers_are_ranked_and_tritonclient_reads_them(dtype: Any) -> None:
    rows = np.array([[1, 3, 2], [3, 0, 1]]).astype(dtype)
    asked = InferRequest({}, {"output": Wanted(binary=True, classes=2)})
    answer = write_answer(asked, "m", "1", {"output": rows})
    result = InferenceServerClient.parse_response_body(
        answer.body, header_length=answer.header_length
    )
    ranked = [[text.split(b":")[1] for text in row] for row in result.as_numpy("output")]
    assert ranked == [[b"1", b"2"], [b"0", b"2"]]


def test_equal_classes_keep_their_order() -> None:
    asked = InferRequest({}, {"output": Wanted(classes=3)})
    (said,) = answered(asked, {"output": np.arange(500)[None] % 2})["outputs"]
    assert said["data"] == ["1:1", "1:3", "1:5"]


def test_an_output_of_one_number_a_row_has_one_class() -> None:
    asked = InferRequest({}, {"output": Wanted(classes=3)})
    (said,) = answered(asked, {"output": np.array([4, 5], np.int64)})["outputs"]
    assert (said["shape"], said["data"]) == ([2, 1], ["4:0", "5:0"])
    (said,) = answered(asked, {"output": np.zeros((0, 3), np.float32)})["outputs"]
    assert (said["shape"], said["data"]) == ([0, 3], [])


# What is refused.

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
        ({"shape": [2.0, 2]}, r"Expected `int`, got `float` - at `\$.inputs\[0\].shape\[0\]`"),
        ({"shape": [True, 2]}, r"Expected `int`, got `bool` - at `\$.inputs\[0\].shape\[0\]`"),
        ({"shape": 2}, r"Expected `array`, got `int` - at `\$.inputs\[0\].shape`"),
        ({"shape": [3, 2]}, r"has 4 values, expected 6 for shape \[3, 2\]"),
        ({"data": [[1, 2], [3]]}, r"data not nested as its shape \[2, 2\]"),
        ({"data": [[1, 2, 3, 4]]}, r"data not nested as its shape \[2, 2\]"),
        ({"data": [[[1], [2]], [[3], [4]]]}, "and its data has list"),
        ({"data": [1, 2, 3, "4"]}, "is FP32, and its data has a string"),
        ({"data": [1, 2, 3, True]}, "is FP32, and its data has bool"),
        ({"data": [1, 2, 3, None]}, "is FP32, and its data has null"),
        ({"data": [1, 2, 3, {}]}, "is FP32, and its data has an object"),
        ({"data": [1, 2, 3, 1e39]}, "has a value that does not fit FP32"),
        ({"data": [1, 2, 3, 10**400]}, "has a value that does not fit FP32"),
        ({"data": 4}, "has data that is not a list"),
        ({"data": ...}, "needs either data or the parameter binary_data_size"),
        ({"parameters": {"binary_data_size": 16}}, "needs either data or the parameter"),
        ({"data": ..., "parameters": {"binary_data_size": -1}}, "binary_data_size -1: expected 0"),
        ({"data": ..., "parameters": {"binary_data_size": "9"}}, "binary_data_size '9': expected"),
        ({"data": ..., "parameters": {"binary_data_size": True}}, "binary_data_size True: expect"),
        ({"data": ..., "parameters": {"binary_data_size": 2**70}}, "binary_data_size 1180591620"),
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
        (b'{"inputs": [' + b"1," * 2**22 + b"1]}", "the body has more than 4194304 values"),
    ],
)
def test_a_malformed_request_is_refused(body: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        read_infer(body, None, SIGNATURE)


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        ([output("o")], "unknown output 'o': the model has output"),
        ([output(), output()], "output 'output' is given twice"),
        ([output(binary_data=1)], "output 'output' has binary_data 1: expected true or false"),
        ([output(classification=-1)], "output 'output' has classification -1: expected 0 or more"),
        ([output(classification=1.5)], "output 'output' has classification 1.5: expected 0 or"),
        ([output(classification=True)], "output 'output' has classification True: expected 0"),
        ([output(shared_memory_region="r")], "output 'output' is to go to shared memory, which"),
    ],
)
def test_an_output_that_cannot_be_had_is_refused(
    outputs: list[dict[str, Any]], message: str
) -> None:
    with pytest.raises(RequestError, match=message):
        read_infer(request(outputs=outputs), None, SIGNATURE)


def test_an_output_that_json_cannot_say_is_refused_before_the_model_is_asked() -> None:
    with pytest.raises(RequestError, match="output 'output' is FP16, which JSON cannot say: use"):
        read_infer(request(), None, HALF)
    asked = read_infer(request(outputs=[output(binary_data=True)]), None, HALF)
    assert asked.outputs == {"output": Wanted(binary=True)}
    asked = read_infer(request(outputs=[output(classification=1)]), None, HALF)
    assert asked.outputs == {"output": Wanted(classes=1)}


def test_texts_and_truths_have_no_classes() -> None:
    with pytest.raises(RequestError, match="output 'label' is BYTES, which ranks no classes"):
        read_infer(several(outputs=[output("label", classification=1)]), None, SEVERAL)


def test_texts_that_are_none_are_refused_as_json() -> None:
    asked = InferRequest({}, {"label": Wanted()})
    with pytest.raises(RequestError, match="BYTES that are not UTF-8: use the binary data format"):
        write_answer(asked, "m", "1", {"label": np.array([b"\xff"], object)})


def test_an_input_given_twice_or_not_at_all_is_refused() -> None:
    said = json.loads(request())
    said["inputs"] *= 2
    with pytest.raises(RequestError, match="input 'input' is given twice"):
        read_infer(json.dumps(said).encode(), None, SIGNATURE)
    with pytest.raises(RequestError, match="input 'mask' is missing: the model takes text, mask"):
        read_infer(
            json.dumps({"inputs": json.loads(several())["inputs"][1:]}).encode(), None, SEVERAL
        )


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
