"""What a service answers with: what `predict` says, in batches as alone, gone when dropped."""

from __future__ import annotations

import gc
import timeit
import weakref
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from trainings import images

import workbench as wb
from workbench.attached import attached
from workbench.datasets import Dataset, dataset
from workbench.errors import RequestError, UnknownNameError
from workbench.preprocessing import Preprocessing
from workbench.registry import publish
from workbench.serving.served import Served, _standardizing, served_from
from workbench.training import fit

ROWS = torch.arange(6, dtype=torch.float32).reshape(3, 2) / 7


class Both(nn.Module):
    def forward(self, left: Tensor, right: list[str]) -> dict[str, Any]:
        return {"twice": left * 2, "loud": [text.upper() for text in right]}


class Counting(nn.Linear):
    """Streams its answer times one, two and three."""

    def stream(self, x: Tensor) -> Iterator[Any]:
        assert torch.is_inference_mode_enabled()
        for factor in (1, 2, 3):
            yield self(x) * factor


class Spelling(nn.Module):
    """Streams the letters of a text."""

    def forward(self, texts: list[str]) -> list[str]:
        return texts

    def stream(self, texts: list[str]) -> Iterator[str]:
        yield from texts[0]


def table() -> Dataset:
    rows = torch.randn(30, 5) * 40
    return dataset("table", train=(rows, rows[:, 0] * 3))


def photos() -> Dataset:
    return dataset("photos", train=images(30, 16))


MODELS: dict[str, tuple[str, Callable[[], Dataset], dict[str, Any]]] = {
    "linear": ("linear", table, {}),
    "mlp": ("mlp", table, {}),
    "pixels": ("mlp", photos, {}),
    "lenet": ("lenet", photos, {}),
    "convnet": ("convnet", photos, {"size": "small"}),
}


@pytest.fixture(scope="module", params=MODELS)
def asked(request: pytest.FixtureRequest) -> tuple[Served, nn.Module, Tensor]:
    """Give a served model, the model itself, and rows to ask it."""
    name, make, sizes = MODELS[request.param]
    data = make()
    model = wb.build(name, data, seed=1, **sizes)
    return served_from(model), model, data.train.inputs


def test_an_answer_is_what_predict_says(asked: tuple[Served, nn.Module, Tensor]) -> None:
    served, model, rows = asked
    output = served.answer({"input": rows.numpy()})["output"]
    assert output.dtype == np.float32
    np.testing.assert_array_equal(output, wb.predict(model, rows).output.numpy())


@settings(max_examples=10, deadline=None)
@given(cuts=st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_a_batched_answer_is_the_single_one(
    asked: tuple[Served, nn.Module, Tensor], cuts: list[int]
) -> None:
    served, _, raw = asked
    rows = raw.numpy()
    whole = served.answer({"input": rows})["output"]
    parts = [part for part in np.split(rows, np.cumsum(cuts)) if len(part)]
    joined = np.concatenate([served.answer({"input": part})["output"] for part in parts])
    assert np.abs(joined - whole).max() <= 1e-5 * max(1, np.abs(whole).max())


@pytest.mark.parametrize("shape", [(4, 6), (4, 6, 3), (7,)])
def test_the_preprocessing_is_the_same_bit_by_bit(shape: tuple[int, ...]) -> None:
    channels = shape[2] if len(shape) == 3 else 1
    n = shape[0] if len(shape) == 1 else channels
    kind: Any = "table" if len(shape) == 1 else "image"
    numbers = tuple(torch.rand(n).mul(99).tolist()), tuple(torch.rand(n).add(0.1).tolist())
    known = Preprocessing(kind, shape, "float32" if n == 7 else "uint8", *numbers)
    raw = torch.rand(5, *shape).mul(255)
    raw = raw if n == 7 else raw.byte()
    same, expected = _standardizing(known)(raw), known(raw)
    assert torch.equal(same, expected)
    assert same.stride() == expected.stride()


def test_the_bytes_of_a_request_are_never_written_to() -> None:
    class Writing(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(2)

    served = served_from(Writing(), example=ROWS)
    body = ROWS.numpy().tobytes()
    rows = np.frombuffer(body, np.float32).reshape(3, 2)
    np.testing.assert_array_equal(served.answer({"input": rows})["output"], ROWS.numpy() * 2)
    assert body == ROWS.numpy().tobytes()


def test_a_model_stays_in_evaluation_mode_whatever_is_done_to_its_source() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Dropout(0.9))
    served = served_from(model, example=ROWS)
    model.train()
    first, second = (served.answer({"input": ROWS.numpy()})["output"] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert model.training
    nn.init.zeros_(model.get_parameter("0.weight"))
    np.testing.assert_array_equal(served.answer({"input": ROWS.numpy()})["output"], first)


def test_several_inputs_and_texts_are_answered_by_name() -> None:
    served = served_from(Both(), example={"left": ROWS[:2].double(), "right": ["a", "b"]})
    assert [(s.name, s.datatype, s.shape) for s in served.signature.inputs] == [
        ("left", "FP64", (-1, 2)),
        ("right", "BYTES", (-1,)),
    ]
    answer = served.answer(served.arrays({"left": ROWS.numpy(), "right": ["x", "ß", ""]}))
    np.testing.assert_array_equal(answer["twice"], 2 * ROWS.double().numpy())
    assert answer["loud"].tolist() == [b"X", b"SS", b""]
    assert (served.preprocessing, served.classes, served.features) == (None, (), ())
    assert served.example["right"].tolist() == [b"a", b"b"]


def test_half_precision_goes_in_and_comes_out_as_it_is() -> None:
    model = nn.Linear(2, 3).bfloat16()
    rows = ROWS.bfloat16()
    served = served_from(model, example=rows)
    output = served.answer(served.example)["output"]
    assert output.dtype == served.example["input"].dtype == "bfloat16"
    with torch.inference_mode():
        np.testing.assert_array_equal(output.astype(np.float32), model(rows[:2]).float().numpy())


NAN = np.array([[1, 1], [np.nan, 1]], np.float32)


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({"left": ROWS[:0].numpy(), "right": np.empty(0, object)}, "there are no rows to predict"),
        ({"left": ROWS.numpy(), "right": np.array([b"a"], object)}, "have {'left': 3, 'right': 1}"),
        (
            {"left": NAN, "right": np.array([b"a"] * 2, object)},
            "the rows of 'left' hold NaN or .* 1 of 2",
        ),
        ({"left": ROWS[:1].numpy(), "right": np.array([b"\xff"], object)}, "a text is not UTF-8"),
    ],
)
def test_what_no_model_should_be_asked_is_refused(inputs: Any, message: str) -> None:
    served = served_from(Both(), example={"left": ROWS, "right": ["a", "b", "c"]})
    with pytest.raises(RequestError, match=message):
        served.check(inputs)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_what_is_not_finite_is_refused_in_each_precision(dtype: str) -> None:
    torchs: torch.dtype = getattr(torch, dtype)
    served = served_from(nn.Linear(2, 3).to(torchs), example=ROWS.to(torchs))
    served.check(served.example)
    bad = served.example["input"].copy()
    bad[1, 0] = np.inf
    with pytest.raises(RequestError, match="inputs hold NaN or infinite values in 1 of 2 rows"):
        served.check({"input": bad})


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ({"left": ROWS}, "the input 'right' is missing: pass a dictionary of left, right"),
        ({"left": ROWS, "rihgt": ["a"]}, "unknown input 'rihgt': did you mean right"),
        (ROWS, "the input 'right' is missing"),
    ],
)
def test_rows_that_lack_an_input_are_refused(rows: Any, message: str) -> None:
    served = served_from(Both(), example={"left": ROWS, "right": ["a", "b", "c"]})
    with pytest.raises(RequestError, match=message):
        served.arrays(rows)


def test_a_version_answers_as_it_was_published() -> None:
    data = table()
    model = wb.build("mlp", data, seed=2)
    made = publish(model, "net")
    fit(model, data, steps=2)
    served = served_from("net", name="other")
    assert (served.name, served.version, served.model, served.ref) == (
        "other",
        "1",
        "net@1",
        "net@1",
    )
    assert served.card == made.card
    assert served.weights() == {}
    rows = data.train.inputs
    np.testing.assert_array_equal(
        served.answer(served.arrays(rows))["output"], wb.predict(made.load(), rows).output.numpy()
    )
    assert len(served.example["input"]) == 2


def test_a_version_kept_as_a_program_answers() -> None:
    class Local(nn.Linear):
        pass

    model = Local(2, 3)
    publish(model, "local", example=ROWS)
    served = served_from("local@1")
    for rows in (ROWS, ROWS[:1], torch.rand(600, 2)):
        expected = wb.predict(model, rows).output.numpy()
        answer = served.answer({"input": rows.numpy()})["output"]
        np.testing.assert_allclose(answer, expected, rtol=1e-5, atol=1e-6)


def test_a_version_of_several_inputs_answers_by_name(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "nets_by_name.py").write_text(
        "from torch import nn\nclass Net(nn.Module):\n"
        "    def forward(self, a, b): return {'sum': a + b, 'words': ['x'] * len(a)}\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    model = __import__("nets_by_name").Net()
    publish(model, "sums", example={"a": ROWS, "b": ROWS})
    served = served_from("sums@1")
    answer = served.answer(served.arrays({"a": ROWS, "b": ROWS}))
    np.testing.assert_array_equal(answer["sum"], 2 * ROWS.numpy())
    assert answer["words"].tolist() == [b"x"] * 3


def test_a_live_model_says_what_it_is() -> None:
    data = photos()
    model = wb.build("lenet", data)
    training = fit(model, data, steps=2)
    served = served_from(model)
    assert served.takes_images
    assert served.ref == "model@0"
    told = served.weights()
    assert served.model == f"live, weights {told['hash']}"
    assert told["step"] == 2
    assert served.card["model"] == "LeNet"
    assert served.card["lineage"]["data"] == {"name": "photos", "fingerprint": data.fingerprint}
    assert served.card["lineage"]["training"] == training.name
    assert served_from(model, mode="live").model == "live, as it changes"


class Pooling(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(0, keepdim=True)


@pytest.mark.parametrize(
    ("model", "how", "message"),
    [
        (3, {}, "cannot serve int: expected a model"),
        (nn.Linear(2, 3), {}, "Linear was never built or fitted by the workbench"),
        (Pooling(), {"example": ROWS}, "Pooling returned 'output' as a tensor of the shape"),
        (
            nn.Linear(2, 3),
            {"example": ROWS, "mode": "liev"},
            "unknown mode 'liev': did you mean live",
        ),
        (nn.Linear(2, 3), {"example": ROWS, "name": "../x"}, "'../x' cannot be"),
    ],
)
def test_what_cannot_be_served_is_said_to_be(model: Any, how: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        served_from(model, **how)


def test_a_version_is_never_live() -> None:
    made = publish(wb.build("linear", table()), "net")
    with pytest.raises(RequestError, match="net@1 is a version, which never changes: leave mode="):
        served_from(made, mode="live")
    with pytest.raises(UnknownNameError):
        served_from("other")


@pytest.mark.parametrize("mode", ["snapshot", "live"])
def test_a_model_is_gone_when_nobody_serves_it(mode: Any) -> None:
    data = photos()
    model = wb.build("lenet", data)
    fit(model, data, steps=1)
    served = served_from(model, mode=mode)
    served.answer(served.example)
    for step in served.stream(served.example) if served.can_stream else ():
        assert step
    module = weakref.ref(served.source.fresh())
    assert attached(served.source.fresh()).training is None
    del served
    gc.collect()
    assert module() is None


def test_a_stream_comes_in_parts() -> None:
    model = Counting(2, 3)
    served = served_from(model, example=ROWS)
    assert served.can_stream
    whole = served.answer({"input": ROWS.numpy()})["output"]
    parts = []
    for part in served.stream({"input": ROWS.numpy()}):
        assert not torch.is_inference_mode_enabled()
        parts.append(part["output"])
    assert len(parts) == 3
    np.testing.assert_allclose(parts[2], whole * 3)


def test_a_stream_of_texts_may_yield_them_bare() -> None:
    served = served_from(Spelling(), example=["ab"])
    said = [part["output"].tolist() for part in served.stream(served.arrays(["hey"]))]
    assert said == [[b"h"], [b"e"], [b"y"]]
    assert not served_from(Both(), example={"left": ROWS[:1], "right": ["a"]}).can_stream


@pytest.mark.full
def test_asking_costs_little_more_than_the_model_does() -> None:
    data = photos()
    served = served_from(wb.build("convnet", data, size="small"))
    row = served.example["input"][:1]
    model = served.source.fresh()
    batch = served._standardize(torch.from_numpy(row.copy()))
    with torch.inference_mode():
        alone = min(timeit.repeat(lambda: model(batch), number=10, repeat=9))
    asked = min(timeit.repeat(lambda: served.answer({"input": row}), number=10, repeat=9))
    assert asked < 2 * alone
