"""Whole messages: round trips by our own client and tritonclient's, and whatever else may come."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import numpy as np
from arrays import ARRAYS, same
from hypothesis import given, settings
from hypothesis import strategies as st
from messages import HALF, PICTURES, SEVERAL, SIGNATURE, output, request, several
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput

from workbench.errors import RequestError
from workbench.serving.protocol import (
    InferRequest,
    Wanted,
    read_answer,
    read_infer,
    write_answer,
    write_infer,
)
from workbench.serving.tensors import Array, datatype_of, is_sayable
from workbench.types import Signature, TensorSpec

NAMED = st.dictionaries(st.text(min_size=1, max_size=5), ARRAYS, min_size=1, max_size=3)


def told(array: Array) -> Array:
    """Return an array that JSON can say too."""
    if array.dtype.kind == "f":
        return np.asarray(np.nan_to_num(array))  # of no axes it gives a scalar
    if array.dtype == np.dtype(object):
        array = array.copy()
        array.reshape(-1)[:] = [value.hex().encode() for value in array.reshape(-1)]
    return array


def specs(arrays: dict[str, Array]) -> tuple[TensorSpec, ...]:
    return tuple(TensorSpec(name, datatype_of(a), a.shape) for name, a in arrays.items())


# Round trips, by our own client and by tritonclient.


@settings(deadline=None)
@given(NAMED)
def test_a_request_survives(arrays: dict[str, Array]) -> None:
    message = write_infer(arrays)
    signature = Signature(specs(arrays), SIGNATURE.outputs)
    asked = read_infer(message.body, str(message.header_length), signature)
    assert list(asked.inputs) == list(arrays)
    assert all(same(asked.inputs[name], array) for name, array in arrays.items())
    assert asked == InferRequest(asked.inputs, {"output": Wanted(binary=True)})


@settings(deadline=None)
@given(NAMED, st.lists(st.booleans(), min_size=3, max_size=3))
def test_an_answer_of_json_and_bytes_mixed_survives(
    arrays: dict[str, Array], binary: list[bool]
) -> None:
    arrays = {name: told(array) for name, array in arrays.items()}
    asked = InferRequest(
        {},
        {
            name: Wanted(raw or not is_sayable(datatype_of(array)))
            for (name, array), raw in zip(arrays.items(), binary, strict=False)
        },
    )
    answer = write_answer(asked, "m", "1", arrays)
    length = None if answer.header_length is None else str(answer.header_length)
    back = read_answer(answer.body, length)
    assert list(back) == list(arrays)
    assert all(same(back[name], array) for name, array in arrays.items())


@settings(deadline=None)
@given(NAMED, st.lists(st.booleans(), min_size=3, max_size=3))
def test_what_tritonclient_sends_is_read(arrays: dict[str, Array], binary: list[bool]) -> None:
    arrays = {name: told(array) for name, array in arrays.items()}
    inputs = []
    for (name, array), raw in zip(arrays.items(), binary, strict=False):
        inputs.append(InferInput(name, list(array.shape), datatype_of(array)))
        inputs[-1].set_data_from_numpy(array, raw or not is_sayable(datatype_of(array)))
    body, length = InferenceServerClient.generate_request_body(inputs, request_id="7", timeout=2)
    signature = Signature(specs(arrays), SIGNATURE.outputs)
    asked = read_infer(body, None if length is None else str(length), signature)
    assert all(same(asked.inputs[name], array) for name, array in arrays.items())
    assert asked == InferRequest(asked.inputs, {"output": Wanted(True)}, "7", {}, 2e-6)


@settings(deadline=None)
@given(NAMED, st.lists(st.booleans(), min_size=3, max_size=3))
def test_what_tritonclient_reads_is_what_was_answered(
    arrays: dict[str, Array], binary: list[bool]
) -> None:
    arrays = {name: told(array) for name, array in arrays.items()}
    wanted = {
        name: raw or not is_sayable(datatype_of(array))
        for (name, array), raw in zip(arrays.items(), binary, strict=False)
    }
    body, _ = InferenceServerClient.generate_request_body(
        [], outputs=[InferRequestedOutput(name, raw) for name, raw in wanted.items()]
    )
    asked = read_infer(body, None, Signature((), specs(arrays)))
    answer = write_answer(asked, "m", "1", arrays)
    parse = InferenceServerClient.parse_response_body
    result = parse(answer.body, header_length=answer.header_length)
    for name, array in arrays.items():
        back = result.as_numpy(name)
        if array.dtype == np.dtype(object) and not wanted[name]:  # it leaves strings as they are
            texts = [text.encode() for text in back.reshape(-1)]
            back = np.array([*texts, None], object)[:-1].reshape(back.shape)
        assert same(back, array)


# Whatever comes.

ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)
BINARY_BODY = write_infer(
    {"text": np.array([b"ab", b""], object), "mask": np.array([[True, False], [False, True]])}
)
VALID = [
    (several(parameters={"timeout": 5}, outputs=[output("logits", classification=2)]), None),
    (BINARY_BODY.body, BINARY_BODY.header_length),
]
ANSWER = write_answer(
    InferRequest({}, {"a": Wanted(), "b": Wanted(True)}, "1"),
    *("m", "1"),
    {"a": np.array([b"x"], object), "b": np.array([1.5])},
)


def refused_or_read(body: bytes, length: int | None) -> None:
    said = None if length is None else str(length)
    for signature in (SEVERAL, SIGNATURE, PICTURES, HALF):
        with contextlib.suppress(RequestError):
            read_infer(body, said, signature)
    with contextlib.suppress(RequestError):
        read_answer(body, said)


@settings(deadline=None)
@given(st.binary(max_size=200), st.none() | st.integers(-3, 220))
def test_no_bytes_raise_anything_but_a_request_error(body: bytes, length: int | None) -> None:
    refused_or_read(body, length)


@settings(deadline=None)
@given(st.data(), st.sampled_from([*VALID, (ANSWER.body, ANSWER.header_length)]))
def test_no_change_of_some_bytes_does(
    data: st.DataObject, message: tuple[bytes, int | None]
) -> None:
    body, length = message
    for _ in range(data.draw(st.integers(1, 3))):
        start = data.draw(st.integers(0, len(body)))
        end = data.draw(st.integers(start, min(start + 4, len(body))))
        put = data.draw(st.binary(max_size=4) | st.sampled_from([b'"', b"[", b"}", b"-", b"1e9"]))
        body = body[:start] + put + body[end:]
    shift = data.draw(st.sampled_from([0, 0, 0, -1, 1, 4]))
    refused_or_read(body, None if length is None else max(0, length + shift))


@settings(deadline=None)
@given(st.data(), ANYTHING)
def test_no_change_of_a_value_does(data: st.DataObject, value: Any) -> None:
    head = BINARY_BODY.body[: BINARY_BODY.header_length]
    body = data.draw(st.sampled_from([VALID[0][0], head, request()]))
    place = said = json.loads(body)
    while True:  # down to some value of the message, and put another there
        key = data.draw(
            st.sampled_from(list(place) if isinstance(place, dict) else range(len(place)))
        )
        if not place[key] or not isinstance(place[key], dict | list) or data.draw(st.booleans()):
            break
        place = place[key]
    place[key] = value
    changed = json.dumps(said).encode()
    tail = BINARY_BODY.body[BINARY_BODY.header_length :] if body == head else b""
    refused_or_read(changed + tail, len(changed) if body == head else None)
