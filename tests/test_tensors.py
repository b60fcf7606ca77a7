"""Tensors on the wire: every datatype both ways, and the quick way of JSON beside Python's own."""

from __future__ import annotations

import contextlib
import json
import threading
from typing import Any

import ml_dtypes
import msgspec
import numpy as np
import pytest
from arrays import ARRAYS, DTYPES, arrays, same
from hypothesis import given, settings
from hypothesis import strategies as st
from tritonclient.utils import deserialize_bytes_tensor, np_to_triton_dtype, serialize_byte_tensor

from workbench.errors import RequestError
from workbench.serving import tensors
from workbench.serving.answers import encode
from workbench.serving.tensors import (
    Array,
    datatype_of,
    from_bytes,
    from_json,
    is_sayable,
    read_json,
    to_bytes,
    to_json,
)
from workbench.types import DATATYPES

SAYABLE = [datatype for datatype in DTYPES if is_sayable(datatype)]
TEXTS = st.text(max_size=5).map(str.encode)


def raw(text: str | bytes) -> msgspec.Raw:
    return msgspec.Raw(text.encode() if isinstance(text, str) else text)


@settings(deadline=None)
@given(ARRAYS)
def test_any_array_survives_as_bytes_bit_for_bit(array: Array) -> None:
    back = from_bytes("x", datatype_of(array), array.shape, memoryview(to_bytes(array)))
    assert same(back, array)


@settings(deadline=None)
@given(st.data(), st.sampled_from(SAYABLE))
def test_any_finite_array_survives_as_json_bit_for_bit(data: st.DataObject, datatype: str) -> None:
    array: Array = data.draw(arrays(datatype, TEXTS))
    if array.dtype.kind == "f":
        array = np.nan_to_num(array)
    flat = to_json(array)
    nested = np.array(flat, object).reshape(array.shape).tolist()
    told = [flat, raw(encode(flat)), raw(json.dumps(flat))]
    if array.ndim and array.size:
        told += [nested, raw(encode(nested)), raw(json.dumps(nested, indent=1))]
    for form in told:
        assert same(from_json("x", datatype, array.shape, form), array)


@settings(deadline=None)
@given(ARRAYS)
def test_bytes_are_those_of_tritonclient(array: Array) -> None:
    assert datatype_of(array) == np_to_triton_dtype(array.dtype)
    if array.dtype != np.dtype(object):
        assert to_bytes(array) == array.tobytes()
    elif array.size:
        assert to_bytes(array) == serialize_byte_tensor(array).item()
        assert list(deserialize_bytes_tensor(to_bytes(array))) == list(array.reshape(-1))


@pytest.mark.parametrize("datatype", DTYPES)
@pytest.mark.parametrize("shape", [(0,), (0, 3), (3, 0), (2, 0, 4)])
def test_a_tensor_without_elements_has_its_shape(datatype: str, shape: tuple[int, ...]) -> None:
    empty = np.empty(shape, DTYPES[datatype])
    assert len(to_bytes(empty)) == 0
    assert same(from_bytes("x", datatype, shape, memoryview(b"")), empty)
    if is_sayable(datatype):
        assert to_json(empty) == []
        told: list[Any] = [[], raw("[]"), empty.tolist(), raw(json.dumps(empty.tolist()))]
        for data in told:
            assert same(from_json("x", datatype, shape, data), empty)


def test_the_datatypes_are_those_of_models_and_texts() -> None:
    assert set(DATATYPES.values()) | {"BYTES"} == set(DTYPES)
    for name, datatype in DATATYPES.items():
        assert datatype_of(np.zeros(1, getattr(ml_dtypes, name, None) or name)) == datatype


def test_bytes_of_a_big_endian_and_of_a_sliced_array_are_little_endian_rows() -> None:
    array = np.arange(6, dtype=">f4").reshape(2, 3).T
    assert to_bytes(array) == np.array([0, 3, 1, 4, 2, 5], "<f4").tobytes()
    assert datatype_of(array) == "FP32"
    assert to_bytes(np.arange(6, dtype="<i2")[::2]) == np.array([0, 2, 4], "<i2").tobytes()


def test_numbers_are_not_copied() -> None:
    array = np.arange(6, dtype=np.float32)
    assert np.shares_memory(np.frombuffer(to_bytes(array), np.float32), array)
    sent = array.tobytes()
    back = from_bytes("x", "FP32", [6], memoryview(sent))
    assert np.shares_memory(back, np.frombuffer(sent, np.uint8))


# The quick way of JSON.

LIMITS = """0 -0 -0.0 1.0 1e2 1E-3 -2.5e+3 255 256 1e39 3.4028235677973366e38 5e-324 1e-400 1e309
9007199254740993 9223372036854775807 9223372036854775808 -9223372036854775808
-9223372036854775809 18446744073709551615 18446744073709551616"""
WRONG = 'true null "1" [1] [] {} 01 1. .5 +1 NaN Infinity - 1e "]'
NUMERALS = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False).map(repr),
    st.integers(-300, 300).map(str),
    st.integers(-(2**70), 2**70).map(str),
    st.sampled_from(LIMITS.split()),
)
ODD = st.sampled_from([*WRONG.split(), "9" * 400])
NUMBERS = [datatype for datatype in SAYABLE if datatype not in ("BOOL", "BYTES")]


@st.composite
def lists(draw: st.DrawFn, numerals: st.SearchStrategy[str]) -> tuple[list[int], str]:
    """Give a shape and JSON of it, flat or nested, with white space here and there."""
    shape = draw(st.lists(st.integers(0, 3), min_size=1, max_size=3))
    count, space = int(np.prod(shape)), draw(st.sampled_from(["", " ", "\r\n\t"]))
    said = draw(st.lists(numerals, min_size=count, max_size=count))
    for size in shape[:0:-1] if draw(st.booleans()) and count else []:
        parts = [said[i : i + size] for i in range(0, len(said), size)]
        said = [f"[{space}{f'{space},'.join(part)}]" for part in parts]
    return shape, f"[{f',{space}'.join(said)}{space}]"


def either(datatype: str, shape: list[int], text: str) -> tuple[Array | None, Array | None]:
    """Return what is read of JSON, and of what Python's own parser says of it; None if refused."""
    quick = careful = None
    with contextlib.suppress(RequestError):
        quick = from_json("x", datatype, shape, raw(text))
    with contextlib.suppress(RequestError, ValueError, ZeroDivisionError):
        values = json.loads(text, parse_constant=lambda word: 1 / 0)
        careful = from_json("x", datatype, shape, values)
    return quick, careful


@settings(deadline=None)
@given(lists(NUMERALS), st.sampled_from(["FP64", "FP32"]))
def test_floats_are_read_as_pythons_parser_reads_them(
    told: tuple[list[int], str], datatype: str
) -> None:
    quick, careful = either(datatype, *told)
    assert (quick is None) == (careful is None)
    assert quick is None or careful is None or same(quick, careful)


@settings(deadline=None)
@given(lists(st.integers(-300, 300).map(str)), st.sampled_from(NUMBERS))
def test_whole_numbers_are_read_as_pythons_parser_reads_them(
    told: tuple[list[int], str], datatype: str
) -> None:
    quick, careful = either(datatype, *told)
    assert (quick is None) == (careful is None)
    assert quick is None or careful is None or same(quick, careful)


@settings(deadline=None)
@given(st.data(), lists(NUMERALS | ODD), st.sampled_from(SAYABLE))
def test_whatever_is_wrong_is_refused_as_by_pythons_parser(
    data: st.DataObject, told: tuple[list[int], str], datatype: str
) -> None:
    shape, text = told
    cut = data.draw(st.integers(0, len(text)))
    text = text[:cut] + data.draw(st.sampled_from(["", ",", "[", "]", " ", "0", "\0"])) + text[cut:]
    quick, careful = either(datatype, shape, text)
    assert (quick is None) == (careful is None)
    assert quick is None or careful is None or same(quick, careful)


@pytest.mark.parametrize(
    ("shape", "text"),
    [
        ([2], "[1]"),
        ([2, 2], "[1,2,3,4,5]"),
        ([2], "[[1,2],[]]"),
        ([2, 1], "[[],[1]]"),
        ([2, 1], "[[],[1,2]]"),
        ([2, 1], "[[1,2],[]]"),
        ([2, 2], "[[1,2,3],[4]]"),
        ([2, 2], "[[1,2],3,4]"),
        ([2, 2], "[1,2,[3,4]]"),
        ([2, 2], "[[[1,2],[3,4]]]"),
        ([1, 2], "[[[1],[2]]]"),
        ([2, 2, 1], "[[[1],[2]],[[3,4],[]]]"),
        ([], "[[1]]"),
    ],
)
@pytest.mark.parametrize("datatype", ["FP32", "INT64", "UINT8", "BYTES"])
def test_lists_nested_otherwise_than_the_shape_are_refused(
    shape: list[int], text: str, datatype: str
) -> None:
    with pytest.raises(RequestError, match=r"not nested as its shape|its data has|has \d values"):
        from_json("x", datatype, shape, raw(text))


@pytest.mark.parametrize("datatype", NUMBERS)
def test_the_quick_way_is_taken(monkeypatch: pytest.MonkeyPatch, datatype: str) -> None:
    monkeypatch.setattr(tensors, "_flat", None)  # what the careful way begins with
    rows = np.arange(60).reshape(4, 3, 5).astype(DTYPES[datatype])
    for data in (rows.tolist(), rows.ravel().tolist()):
        assert same(from_json("x", datatype, [4, 3, 5], raw(json.dumps(data, indent=1))), rows)
    with pytest.raises(TypeError, match="not callable"):
        from_json("x", datatype, [4, 3, 5], rows.tolist())


@pytest.mark.parametrize("datatype", SAYABLE)
def test_without_simdjson_the_same_is_read(monkeypatch: pytest.MonkeyPatch, datatype: str) -> None:
    monkeypatch.setattr(tensors, "simdjson", None)
    rows = np.array([[b"0", b"1"]], object) if datatype == "BYTES" else np.eye(2)
    rows = rows.astype(DTYPES[datatype])
    told = raw(encode(to_json(rows)))
    assert same(from_json("x", datatype, rows.shape, told), rows)


def test_threads_read_at_once() -> None:
    wrong: list[int] = []

    def read(seed: int) -> None:
        rows = np.random.default_rng(seed).random((500,))
        told = raw(json.dumps(rows.tolist()))
        wrong.extend(seed for _ in range(50) if not same(from_json("x", "FP64", [500], told), rows))

    threads = [threading.Thread(target=read, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# What is refused.


@pytest.mark.parametrize("datatype", ["FP16", "BF16"])
def test_half_precision_is_refused_in_json_both_ways(datatype: str) -> None:
    for data in ([1.0], raw("[1.0]"), []):
        with pytest.raises(
            RequestError, match=f"{datatype}, which JSON cannot say: use the binary"
        ):
            from_json("x", datatype, [len(data) if data == [] else 1], data)
    with pytest.raises(RequestError, match=f"JSON cannot say {datatype}: use the binary data form"):
        to_json(np.zeros(1, DTYPES[datatype]))


@pytest.mark.parametrize("datatype", ["FP8", "fp32", "STRING", ""])
def test_other_datatypes_are_refused_by_name(datatype: str) -> None:
    with pytest.raises(RequestError, match=f"has the datatype '{datatype}': expected one of BOOL"):
        from_json("x", datatype, [1], [1])
    with pytest.raises(RequestError, match=f"has the datatype '{datatype}': expected one of BOOL"):
        from_bytes("x", datatype, [1], memoryview(b""))


@pytest.mark.parametrize("dtype", ["c8", "U3", "S3", "M8[s]"])
def test_other_arrays_are_refused_by_name(dtype: str) -> None:
    with pytest.raises(RequestError, match="have no datatype here: expected one of BOOL, UINT8"):
        datatype_of(np.zeros(1, dtype))


def test_objects_are_bytes_and_nothing_else() -> None:
    for tell in (to_bytes, to_json):
        with pytest.raises(RequestError, match="an array of objects has a str, expected bytes"):
            tell(np.array(["x"], object))


def test_bytes_that_are_no_text_are_refused_in_json() -> None:
    assert to_json(np.array([["è".encode()]], object)) == ["è"]
    with pytest.raises(RequestError, match="JSON cannot say BYTES that are not UTF-8: use the bin"):
        to_json(np.array([b"\xff"], object))


@pytest.mark.parametrize(
    ("count", "data", "message"),
    [
        (1, b"\x01\x00", "has 2 bytes, which end within element 0 of 1"),
        (1, b"\x02\x00\x00\x00x", "has 5 bytes, which end within element 0 of 1"),
        (2, b"\x01\x00\x00\x00x", "has 5 bytes, which end within element 1 of 2"),
        (1, b"\xff\xff\xff\xffx", "which end within element 0 of 1"),
        (2**22, b"", "which end within element 0 of 4194304"),
        (2**22 + 1, b"", "has 4194305 elements of BYTES: expected at most 4194304"),
        (1, b"\x00\x00\x00\x00x", "has 5 bytes, 1 more than its 1 elements of BYTES"),
        (0, b"x", "has 1 bytes, 1 more than its 0 elements of BYTES"),
    ],
)
def test_texts_must_be_as_long_as_they_say(count: int, data: bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        from_bytes("x", "BYTES", [count], memoryview(data))


@pytest.mark.parametrize(
    "shape", [[-1], [2, -3], [2**31 + 1], [2**80, 2], [2**80, 0], [2**31, 2**31, 0], [1] * 33]
)
def test_a_shape_that_is_none_is_refused(shape: list[int]) -> None:
    message = "has the shape .*: expected at most 32 axes, none negative, and at most 2147483648"
    with pytest.raises(RequestError, match=message):
        from_json("x", "FP32", shape, [])
    with pytest.raises(RequestError, match=message):
        from_bytes("x", "FP32", shape, memoryview(b""))


@pytest.mark.parametrize(("datatype", "value"), [("UINT8", 256), ("UINT8", -1), ("INT64", 2**63)])
def test_an_integer_out_of_range_is_refused(datatype: str, value: int) -> None:
    for data in ([value], raw(f"[{value}]")):
        with pytest.raises(RequestError, match=f"has a value that does not fit {datatype}"):
            from_json("x", datatype, [1], data)


@pytest.mark.parametrize(
    ("datatype", "text", "message"),
    [
        ("UINT8", "[1.0]", "is UINT8, and its data has float"),
        ("INT32", "[true]", "is INT32, and its data has bool"),
        ("BOOL", "[1]", "is BOOL, and its data has int"),
        ("BYTES", "[1]", "is BYTES, and its data has int"),
        ("FP32", "[null]", "is FP32, and its data has null"),
        ("FP32", '["1"]', "is FP32, and its data has a string"),
        ("FP32", "[{}]", "is FP32, and its data has an object"),
        ("FP32", "[1e39]", "has a value that does not fit FP32"),
        ("FP32", "[1e400]", "the data of tensor 'x' is not what was expected: Number out of range"),
        ("FP32", "[1,]", "the data of tensor 'x' is not JSON: .*trailing comma"),
        ("FP32", "[NaN]", "the data of tensor 'x' is not JSON"),
        ("BYTES", '["\\ud800"]', "the data of tensor 'x' is not JSON"),
        ("BYTES", b'["\xff"]', "the data of tensor 'x' is not UTF-8"),
        ("FP32", "4", "has data that is not a list"),
        ("FP32", "[" * 5000, "the data of tensor 'x' is JSON nested too deep"),
    ],
)
def test_a_value_of_another_kind_is_refused(datatype: str, text: str | bytes, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        from_json("x", datatype, [1], raw(text))


def test_a_byte_that_is_no_boolean_is_refused() -> None:
    with pytest.raises(RequestError, match="has a byte that is neither 0 nor 1"):
        from_bytes("x", "BOOL", [1], memoryview(b"\x02"))


def test_json_of_more_values_than_memory_is_spent_on_is_refused() -> None:
    said = b"[" + b"[]," * 2**21 + b"[]]"
    with pytest.raises(RequestError, match="the body has more than 4194304 values: send fewer"):
        read_json(said, Any)
    text = b'["' + b"x" * 2**23 + b'"]'
    assert from_json("x", "BYTES", [1], msgspec.Raw(text))[0] == text[2:-2]
