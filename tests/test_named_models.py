"""Versions of models that one tensor does not describe: several inputs, text, exact dtypes."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import changed, put, refused
from torch import Tensor, nn
from typer.testing import CliRunner

from workbench.cli import app
from workbench.errors import RequestError
from workbench.evaluation.calls import call, named_rows
from workbench.home import home
from workbench.registry import (
    ModelVersion,
    export_version,
    import_version,
    publish,
    signature_of,
    version,
)
from workbench.types import TensorSpec

NETS = """
import torch
from torch import nn

class Two(nn.Module):
    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(2, 3), nn.Embedding(5, 3)
    def forward(self, x, word):
        both = self.a(x) + self.b(word)
        return {"sum": both, "sign": both > 0}

class Text(nn.Module):
    def __init__(self, shout=False):
        super().__init__()
        self.scale, self.shout = nn.Parameter(torch.ones(1)), shout
    def forward(self, texts):
        said = [text.upper() if self.shout else text for text in texts]
        return {"echo": said, "length": torch.tensor([len(text) for text in texts]) * self.scale}

class Half(nn.Module):
    def __init__(self):
        super().__init__()
        self.linear, self.norm = nn.Linear(3, 2), nn.LayerNorm(2)
        self.register_buffer("shift", torch.ones(2), persistent=False)
        self.tied = self.linear
    def forward(self, x):
        return self.norm(self.linear(x)) + self.shift
"""


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Give a module of nets that can be imported."""
    (tmp_path / "named_nets.py").write_text(NETS)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("named_nets", None)
    return __import__("named_nets")


def same(a: Any, b: Any) -> bool:
    if isinstance(a, dict):
        return list(a) == list(b) and all(same(a[name], b[name]) for name in a)
    if isinstance(a, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    return bool(a == b)


def comes_back(model: nn.Module, example: Any) -> ModelVersion:
    """Publish a model, load it, and check that it answers bit for bit alike."""
    made = publish(model, "net", example=example)
    rows, loaded = named_rows(model, example), version(made.ref).load()
    assert rows is not None
    assert same(made.example, rows)
    assert same(call(loaded, rows), call(model, rows))
    assert same(call(loaded, made.example), call(model, rows))
    assert (made.record["call"], made.preprocessing, made.reference) == ("named", None, None)
    again = publish(loaded, "net")
    assert (again.signature, again.lineage["parent"]) == (made.signature, made.ref)
    return made


WORDS = {"x": torch.randn(3, 2), "word": torch.tensor([0, 4, 2])}


def test_several_inputs_and_outputs_come_back(nets: Any) -> None:
    made = comes_back(nets.Two(), WORDS)
    assert made.signature.inputs == (
        TensorSpec("x", "FP32", (-1, 2)),
        TensorSpec("word", "INT64", (-1,)),
    )
    assert made.signature.outputs == (
        TensorSpec("sum", "FP32", (-1, 3)),
        TensorSpec("sign", "BOOL", (-1, 3)),
    )
    assert made.signature == signature_of(nets.Two(), tuple(WORDS.values()))


def test_texts_come_back(nets: Any) -> None:
    made = comes_back(nets.Text(), ["so", "", "grüße 🙂"])
    assert made.example == {"input": ["so", "", "grüße 🙂"]}
    assert made.signature.inputs == (TensorSpec("input", "BYTES", (-1,)),)
    assert [spec.datatype for spec in made.signature.outputs] == ["BYTES", "FP32"]


@pytest.mark.parametrize(
    ("dtype", "word"),
    [(torch.bfloat16, "BF16"), (torch.float16, "FP16"), (torch.float64, "FP64")],
)
def test_an_exact_precision_comes_back(nets: Any, dtype: torch.dtype, word: str) -> None:
    made = comes_back(nets.Half().to(dtype), torch.randn(3, 3).to(dtype) / 7)
    assert (made.signature.inputs[0].datatype, made.signature.outputs[0].datatype) == (word, word)
    assert {value.dtype for value in made.load().state_dict().values()} == {dtype}


def test_mixed_precisions_and_tied_weights_come_back(nets: Any) -> None:
    class Mixed(nets.Half):  # type: ignore[misc]
        def forward(self, x: Tensor) -> Tensor:
            both: Tensor = self.norm(self.linear(x).float()) + self.shift
            return both

    nets.Mixed, Mixed.__module__, Mixed.__qualname__ = Mixed, "named_nets", "Mixed"
    model = Mixed()
    model.linear.double()
    loaded: Any = comes_back(model, torch.randn(3, 3).double()).load()
    assert (loaded.linear.weight.dtype, loaded.norm.weight.dtype) == (torch.float64, torch.float32)
    assert loaded.tied.weight is loaded.linear.weight


def test_only_the_first_rows_of_an_example_are_kept(nets: Any) -> None:
    long = {"x": torch.randn(50, 2), "word": torch.arange(50) % 5}
    made = publish(nets.Two(), "net", example=long)
    assert same(made.example, {name: rows[:4] for name, rows in long.items()})


@pytest.mark.parametrize("shape", [(2, 0), (2, 0, 3), (2, 2, 3), (2,)])
@pytest.mark.parametrize("dtype", ["int8", "uint16", "bool", "float64", "bfloat16", "int64"])
def test_examples_of_every_kind_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], dtype: str
) -> None:
    (tmp_path / "echo_nets.py").write_text(
        "from torch import nn\nclass Echo(nn.Module):\n"
        "    def forward(self, x, n): return {'y': x, 'm': n}"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    x = (torch.arange(60).reshape(5, 12)[: shape[0]] % 2).flatten()
    given = x[: int(torch.tensor(shape).prod())].reshape(shape).to(getattr(torch, dtype))
    both = {"x": given, "n": torch.zeros(shape[0])}
    made = publish(__import__("echo_nets").Echo(), "net", example=both)
    assert same(made.example, both)
    assert same(call(made.load(), made.example), {"y": both["x"], "m": both["n"]})


def test_a_named_version_travels(
    nets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = nets.Two()
    publish(model, "net", example=WORDS)
    file = export_version("net@1", tmp_path)
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "elsewhere"))
    found = import_version(file)
    assert same(call(found.load(), WORDS), call(model, WORDS))


def test_it_is_shown_with_all_its_inputs(nets: Any) -> None:
    publish(nets.Two(), "net", example=WORDS)
    lines = CliRunner().invoke(app, ["show", "net"]).output.splitlines()
    told = {line.split("  ")[0]: line.split("  ")[-1].strip() for line in lines}
    assert told["takes"] == "x FP32 [-1, 2], word INT64 [-1]"
    assert told["answers"] == "sum FP32 [-1, 3], sign BOOL [-1, 3]"
    assert told["classes"] == "none: called by the names of its inputs"
    assert told["reference"] == "none: it was not trained here"


def test_what_only_a_program_could_hold_is_refused(nets: Any) -> None:
    message = (
        "Text cannot be stored: its class cannot be imported and built without arguments, and a "
        "program takes one tensor, not the inputs input by name: move the class into a module"
    )
    with pytest.raises(RequestError, match=message):
        publish(nets.Text(shout=True), "net", example=["a"])
    assert not home().exists()


def test_rows_that_are_no_numbers_are_refused(nets: Any) -> None:
    bad = {"x": torch.tensor([[1.0, 2.0], [float("nan"), 0.0]]), "word": torch.tensor([1, 2])}
    with pytest.raises(RequestError, match="the rows of 'x' hold NaN or infinite values in 1 of 2"):
        publish(nets.Two(), "net", example=bad)
    with pytest.raises(RequestError, match="unknown input of Two 'words': did you mean word"):
        publish(nets.Two(), "net", example={"x": WORDS["x"], "words": WORDS["word"]})


def test_an_example_that_is_another_models_is_refused(
    nets: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(nets.Two(), "net", example=WORDS)
    file = export_version("net@1", tmp_path)
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "elsewhere"))
    cases: dict[str, Any] = {
        r"KeyError\('word'\)": {"x": [[1, 2]]},
        "invalid for input of size": {"x": [[1, 2, 3]], "word": [1]},
        "cannot be read: ": {"x": "abc", "word": 3},
    }
    for message, inputs in cases.items():
        text = json.dumps({"inputs": inputs}).encode()
        refused(changed(file, put("example.json", text)), message)
