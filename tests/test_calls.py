"""Models that are called as they are: by the names of their inputs, with texts, exact dtypes."""

from __future__ import annotations

from typing import Any, NamedTuple

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import workbench as wb
from workbench.errors import RequestError, UnknownNameError
from workbench.evaluation.calls import (
    array_for,
    array_of,
    call,
    called_signature,
    named_rows,
    rows_of,
)
from workbench.types import TensorSpec

TEXTS = ["a", "ß", ""]


class Both(nn.Module):
    """Takes two inputs, one of which may be left out."""

    def forward(self, left: Tensor, right: Tensor, *, scale: float = 1.0) -> dict[str, Tensor]:
        return {"sum": (left + right) * scale, "difference": left - right}


class Named(NamedTuple):
    large: Tensor
    words: list[str]


class Texts(nn.Module):
    def forward(self, texts: list[str]) -> Named:
        return Named(torch.tensor([len(text) for text in texts]), [t.upper() for t in texts])


class Answers(nn.Module):
    """Answers with whatever it is made with."""

    def __init__(self, answer: Any) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> Any:
        return self.answer(x)


ONES = torch.ones(2, 3)


@pytest.mark.parametrize(
    "example",
    [{"right": 2 * ONES, "left": ONES}, (ONES, 2 * ONES), (ONES.tolist(), 2 * ONES.numpy())],
)
def test_several_inputs_go_by_the_names_of_forward(example: Any) -> None:
    inputs = named_rows(Both(), example)
    assert inputs is not None
    outputs = call(Both(), inputs)
    assert list(outputs) == ["sum", "difference"]
    assert outputs["sum"] == pytest.approx(3 * ONES)
    assert outputs["difference"] == pytest.approx(-ONES)


@pytest.mark.parametrize("example", [TEXTS, tuple(TEXTS), np.array(TEXTS), {"texts": TEXTS}])
def test_texts_are_one_input_and_outputs_have_the_names_of_a_named_tuple(example: Any) -> None:
    inputs = named_rows(Texts(), example)
    assert inputs == {"input": TEXTS}
    outputs = call(Texts(), inputs)
    assert outputs["words"] == ["A", "SS", ""]
    assert called_signature(Texts(), inputs).to_json() == {
        "inputs": ({"name": "input", "datatype": "BYTES", "shape": (-1,)},),
        "outputs": (
            {"name": "large", "datatype": "INT64", "shape": (-1,)},
            {"name": "words", "datatype": "BYTES", "shape": (-1,)},
        ),
    }


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_a_precision_of_the_models_own_stays(dtype: torch.dtype) -> None:
    model = nn.Linear(3, 2).to(dtype)
    example = ONES.to(dtype)
    (inputs, signature) = named_rows(model, example), None
    assert inputs is not None
    signature = called_signature(model, inputs)
    expected = {torch.float16: "FP16", torch.bfloat16: "BF16", torch.float64: "FP64"}[dtype]
    assert [spec.datatype for spec in (*signature.inputs, *signature.outputs)] == [expected] * 2
    array = array_of(example)
    same = named_rows(model, {"input": array})
    assert same is not None
    assert torch.equal(same["input"], example)  # type: ignore[arg-type]


@pytest.mark.parametrize("example", [ONES, ONES.double(), ONES.numpy(), ONES.tolist(), ONES.byte()])
def test_one_plain_tensor_has_no_name(example: Any) -> None:
    assert named_rows(nn.Linear(3, 2), example) is None


def test_a_model_with_a_preprocessing_takes_plain_rows() -> None:
    data = wb.load("digits")
    assert named_rows(wb.build("mlp", data), {"x": data.train.inputs[:2]}) is None


@pytest.mark.parametrize(
    ("answer", "names"),
    [
        (lambda x: x, ["output"]),
        (lambda x: {"score": x}, ["output"]),
        (lambda x: (x, x), ["output_0", "output_1"]),
        (lambda x: [x, x], ["output_0", "output_1"]),
        (lambda x: ["a", "b"], ["output"]),
    ],
)
def test_outputs_have_names(answer: Any, names: list[str]) -> None:
    assert list(call(Answers(answer), {"input": ONES})) == names


def test_an_answer_shares_no_memory_with_the_model() -> None:
    kept = torch.ones(2, 3)
    (output,) = call(Answers(lambda x: kept), {"input": ONES}).values()
    assert isinstance(output, Tensor)
    with torch.inference_mode():
        output.zero_()
    assert kept.sum() == 6


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (
            lambda x: x[:1],
            r"returned 'output' as a tensor of the shape \(1, 3\), expected .* 2 rows",
        ),
        (lambda x: x.sum(), r"returned 'output' as a tensor of the shape \(\)"),
        (lambda x: (x, None), "returned 'output_1' as a NoneType, expected a tensor or a list of"),
        (lambda x: {}, "forward of Answers returned nothing"),
        (lambda x: ["a"], "returned 'output' as a list"),
    ],
)
def test_what_is_no_answer_is_said_to_be(answer: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        call(Answers(answer), {"input": ONES})


@pytest.mark.parametrize(
    ("example", "message"),
    [
        ({"left": ONES}, "example has the inputs left, and forward of Both takes left, right"),
        ({"left": ONES, "rihgt": ONES}, "unknown input of Both 'rihgt': did you mean right"),
        ({"left": ONES, "right": ONES[:1]}, "inputs of example have {'left': 2, 'right': 1} rows"),
        ({"left": ONES[:0], "right": ONES[:0]}, "expected one number above 0"),
        ({"left": ONES, "right": torch.tensor(1)}, "the input 'right' of example is one number"),
        ((ONES, ONES, ONES), "example is a tuple of 3, an input each, and forward of Both takes"),
        ({}, "example has the inputs none"),
    ],
)
def test_an_example_that_forward_does_not_take_is_refused(example: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        named_rows(Both(), example)


def test_a_dtype_that_no_protocol_knows_is_refused() -> None:
    with pytest.raises(RequestError, match="'output' is complex64, which no protocol of a service"):
        called_signature(Answers(lambda x: x.to(torch.complex64)), {"input": ONES})


@pytest.mark.parametrize("word", ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int64",
                                  "float16", "bfloat16", "float32", "float64"])  # fmt: skip
@pytest.mark.parametrize("writable", [True, False])
def test_arrays_become_tensors_of_their_dtype_and_back(word: str, writable: bool) -> None:
    dtype = ml_dtypes.bfloat16 if word == "bfloat16" else word
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    array.flags.writeable = writable
    tensor = rows_of(array)
    assert isinstance(tensor, Tensor)
    assert str(tensor.dtype) == f"torch.{word}"
    assert (tensor.data_ptr() == array.ctypes.data) == writable
    back = array_of(tensor)
    assert back.dtype == array.dtype
    np.testing.assert_array_equal(back, array)


def test_bytes_that_do_not_lie_as_torch_wants_them_are_copied() -> None:
    content = bytes(range(33))
    odd = np.frombuffer(memoryview(content)[1:], "<f4")
    tensor = rows_of(odd)
    assert isinstance(tensor, Tensor)
    np.testing.assert_array_equal(tensor.numpy().view(np.uint8), np.frombuffer(content, "u1")[1:])


def test_texts_become_bytes_and_back() -> None:
    assert rows_of(array_of(TEXTS)) == TEXTS
    with pytest.raises(RequestError, match="a text is not UTF-8"):
        rows_of(np.array([b"\xff"], object))


FP32 = TensorSpec("x", "FP32", (-1, 2))
UINT8 = TensorSpec("x", "UINT8", (-1, 2))
BYTES = TensorSpec("x", "BYTES", (-1,))


@pytest.mark.parametrize(
    ("spec", "values", "expected"),
    [
        (FP32, [1, 2], [[1, 2]]),
        (FP32, [[1, 2], [3, 4.5]], [[1, 2], [3, 4.5]]),
        (FP32, torch.ones(1, 2, dtype=torch.float64), [[1, 1]]),
        (UINT8, [[255, 0]], [[255, 0]]),
        (UINT8, torch.tensor([[1.0, 2.0]]), [[1, 2]]),
        (BYTES, "ß", ["ß".encode()]),
        (BYTES, ["a", b"b"], [b"a", b"b"]),
        (TensorSpec("x", "BF16", (-1, 1)), [[1.5]], [[1.5]]),
        (TensorSpec("x", "BOOL", (-1, 1)), [[True], [False]], [[True], [False]]),
    ],
)
def test_values_become_arrays_of_the_datatype(spec: TensorSpec, values: Any, expected: Any) -> None:
    array = array_for(spec, values)
    assert array.tolist() == expected
    assert array.ndim == len(spec.shape)


@pytest.mark.parametrize(
    ("spec", "values", "message"),
    [
        (FP32, [[1, 2, 3]], r"input 'x' has the shape \(1, 3\), expected rows of \(2,\)"),
        (FP32, 3, r"has the shape \(\)"),
        (FP32, [["a", "b"]], "input 'x' is not an array of numbers"),
        (FP32, [[1], [1, 2]], "input 'x' is not an array of numbers"),
        (UINT8, [[256, 0]], "does not fit UINT8 without loss, found values from 0 to 256"),
        (UINT8, [[0.5, 0]], "does not fit UINT8 without loss"),
        (UINT8, [[-1, 0]], "does not fit UINT8 without loss"),
        (BYTES, [1], "input 'x' takes texts, found int"),
    ],
)
def test_values_that_are_none_are_refused(spec: TensorSpec, values: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        array_for(spec, values)


def test_an_unknown_input_is_an_unknown_name() -> None:
    with pytest.raises(UnknownNameError):
        named_rows(Both(), {"left": ONES, "x": ONES})
