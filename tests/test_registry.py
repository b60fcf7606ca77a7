"""Model versions: what is published comes back bit for bit, whole or not at all, and unchanged."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from torch import Tensor, nn
from typer.testing import CliRunner

import workbench
from workbench.attached import attached
from workbench.cli import app
from workbench.datasets import Split, dataset
from workbench.errors import RequestError, TamperedError, UnknownNameError
from workbench.evaluation import Evaluation, evaluate, predict
from workbench.home import home
from workbench.models import build
from workbench.registry import (
    ModelVersion,
    export_version,
    import_version,
    list_models,
    promote,
    publish,
    version,
)
from workbench.serving.tensors import datatype_of
from workbench.training import fit
from workbench.types import DATATYPES

ROOT = Path(workbench.__file__).parents[1]
X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
DATA = dataset("points", train=(X, torch.arange(12) % 3))


def fitted() -> nn.Module:
    """Return a model of ours that was trained a little."""
    model = build("mlp", DATA, hidden=(5,))
    fit(model, DATA, steps=2)
    return model


def importable(folder: Path, monkeypatch: pytest.MonkeyPatch, body: str) -> Any:
    """Return the class `Net` of a fresh module with this source."""
    name = f"nets_{abs(hash((str(folder), body)))}"
    (folder / f"{name}.py").write_text(f"import torch\nfrom torch import nn\n{body}")
    monkeypatch.syspath_prepend(str(folder))
    return __import__(name).Net


PLAIN = """
class Net(nn.Module):
    def __init__(self, act="relu"):
        super().__init__()
        self.linear, self.act = nn.Linear(4, 3), getattr(torch, act)
    def forward(self, x):
        return self.act(self.linear(x))
"""


def comes_back(model: nn.Module, rows: Any = X) -> ModelVersion:
    """Publish a model, load it, and check that it answers bit for bit alike."""
    made = publish(model, "net", example=rows[:3])
    loaded = version(made.ref).load()
    assert torch.equal(predict(loaded, rows).output, predict(model, rows).output)
    assert predict(loaded, rows).labels == predict(model, rows).labels
    assert not loaded.training or "program" in made.record["architecture"]
    assert attached(loaded).version == made.ref
    return made


def test_a_built_model_comes_back() -> None:
    made = comes_back(fitted())
    assert made.record["architecture"] == {
        "builder": "mlp",
        "sizes": {"inputs": [4], "outputs": 3, "hidden": [5]},
    }


def test_images_and_batchnorm_come_back() -> None:
    images = torch.randint(0, 256, (9, 16, 16, 3), dtype=torch.uint8)
    data = dataset("images", train=(images, torch.arange(9) % 3))
    model = build("convnet", data, widths=(4, 4, 4))
    fit(model, data, steps=2)
    made = comes_back(model, images)
    (spec,) = made.signature.inputs
    assert (spec.name, spec.datatype, spec.shape) == ("input", "UINT8", (-1, 16, 16, 3))
    (answer,) = made.signature.outputs
    assert (answer.name, answer.datatype, answer.shape) == ("output", "FP32", (-1, 3))


def test_an_importable_class_comes_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = comes_back(importable(tmp_path, monkeypatch, PLAIN)())
    assert made.record["architecture"]["class"].endswith(":Net")


def test_a_class_called_with_arguments_comes_back_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = comes_back(importable(tmp_path, monkeypatch, PLAIN)("tanh"))
    assert made.record["architecture"] == {"program": "program.pt2"}


CAPPED = """
class Config:
    def __init__(self, cap):
        self.cap = cap
class Net(nn.Module):
    def __init__(self, cap=100.0, p=0.0):
        super().__init__()
        self.linear, self.drop = nn.Linear(4, 3), nn.Dropout(p)
        self.cap = {cap}
    def forward(self, x):
        return self.drop(self.linear(x)).clamp(max={limit})
"""


@pytest.mark.parametrize(
    ("cap", "limit"),
    [
        ("cap", "self.cap"),
        ("[cap]", "self.cap[0]"),
        ("{'a': (cap,)}", "self.cap['a'][0]"),
        ("lambda: cap", "self.cap()"),
        ("Config(cap)", "self.cap.cap"),
    ],
)
def test_arguments_that_the_example_does_not_exercise_are_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cap: str, limit: str
) -> None:
    made = importable(tmp_path, monkeypatch, CAPPED.format(cap=cap, limit=limit))
    assert "class" in publish(made(), "net", example=X[:2]).record["architecture"]
    capped = made(cap=6.0)
    far = X * 100
    assert predict(capped, far).output.max() == 6
    stored = publish(capped, "net", example=X[:2])
    assert torch.equal(predict(stored.load(), far).output, predict(capped, far).output)
    dropping = publish(made(p=0.5), "net", example=X[:2])
    assert dropping.record["architecture"] == {"program": "program.pt2"}


def test_a_layer_with_other_settings_is_not_the_builders() -> None:
    model = fitted()
    model.get_submodule("layers").register_module("1", nn.Threshold(0.0, 0.0))  # answers as a ReLU
    assert comes_back(model).record["architecture"] == {"program": "program.pt2"}


RECURRENT = """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.scale, self.act = float("nan"), torch.tanh
        self.lstm, self.head = nn.LSTM(4, 3, batch_first=True), nn.Linear(3, 2)
        self.norm = nn.utils.parametrizations.weight_norm(nn.Linear(2, 2))
    def forward(self, x):
        return self.norm(self.act(self.head(self.lstm(x)[0][:, -1])))
"""


def test_a_class_with_layers_of_many_kinds_stays_a_class(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = comes_back(importable(tmp_path, monkeypatch, RECURRENT)(), torch.randn(6, 5, 4))
    assert "class" in made.record["architecture"]


def test_a_built_model_that_was_changed_comes_back_as_it_was() -> None:
    model, wider = fitted(), fitted()
    model.get_submodule("layers").register_module("1", nn.Tanh())
    assert comes_back(model).record["architecture"] == {"program": "program.pt2"}
    wider.get_submodule("layers").register_module("2", nn.Linear(5, 3, bias=False))
    assert comes_back(wider).record["architecture"] == {"program": "program.pt2"}


def test_a_module_without_weights_comes_back() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Softplus())
    assert comes_back(model).record["architecture"] == {"program": "program.pt2"}


def test_a_loaded_model_can_be_fitted_and_published_again() -> None:
    first = publish(fitted(), "net")
    model = first.load()
    fit(model, DATA, steps=1)
    second = publish(model, "net")
    assert (second.ref, second.lineage["parent"]) == ("net@2", "net@1")
    assert first.lineage["parent"] is None


def test_a_version_tells_where_it_comes_from() -> None:
    model = fitted()
    found = evaluate(model, DATA.train)
    made = publish(model, "net", evaluation=found)
    assert made == version("net@1") == version("net")
    assert made.metrics == found.metrics
    assert made.record["settings"]["steps"] == 2
    assert made.card["parameters"] == sum(p.numel() for p in model.parameters())
    assert torch.equal(made.example, DATA.train.inputs[:4])
    assert repr(made).startswith("ModelVersion net@1, loss ")


def test_versions_are_numbered_and_listed() -> None:
    assert list_models() == []
    refs = [publish(build("linear", DATA), name).ref for name in ("b", "a", "b")]
    assert refs == ["b@1", "a@1", "b@2"]
    assert [made.ref for made in list_models()] == ["a@1", "b@1", "b@2"]
    assert version("b").ref == "b@2"


def test_the_files_of_a_version_are_read_only() -> None:
    made = publish(fitted(), "net")
    files = sorted(path.name for path in made.folder.iterdir())
    assert files == ["example.json", "reference.json", "version.json", "weights.safetensors"]
    assert all(path.stat().st_mode & 0o222 == 0 for path in made.folder.iterdir())


def rewrite(path: Path, content: bytes) -> None:
    path.chmod(0o644)
    path.write_bytes(content)


def damage(path: Path, how: str) -> None:
    content = path.read_bytes()
    if how in ("gone", "a folder"):
        path.unlink()
    if how == "a folder":
        path.mkdir()
    elif how != "gone":
        flipped = content[:-1] + bytes([content[-1] ^ 1])
        cut = content[: len(content) // 2]
        rewrite(path, {"changed": flipped, "cut": cut, "emptied": b""}[how])


FOUND = {
    "changed": "has SHA-256 [0-9a-f]{12}, published was [0-9a-f]{12}",
    "cut": "has SHA-256 [0-9a-f]{12}, published was [0-9a-f]{12}",
    "emptied": "is empty, published was [0-9a-f]{12}",
    "gone": "is not there",
}


@pytest.mark.parametrize(
    "file", ["weights.safetensors", "example.json", "program.pt2", "reference.json"]
)
@pytest.mark.parametrize("how", FOUND)
def test_a_file_that_was_changed_is_refused(file: str, how: str) -> None:
    if file == "program.pt2":
        made = publish(nn.Sequential(nn.Linear(4, 3)), "net", example=X[:2])
    else:
        made = publish(fitted(), "net")
    damage(made.folder / file, how)
    message = f"{file} of net@1 {FOUND[how]}: it was changed or damaged; publish the model again"
    with pytest.raises(TamperedError, match=message):
        version("net@1").load()
    with pytest.raises(TamperedError, match=message):
        promote("net@1", "champion")


def test_a_file_that_cannot_be_read_is_refused() -> None:
    made = publish(fitted(), "net")
    damage(made.folder / "weights.safetensors", "a folder")
    with pytest.raises(TamperedError, match=r"weights\.safetensors of net@1 cannot be read: Is a "):
        made.load()


def seal(record: dict[str, Any]) -> bytes:
    """Return a record as bytes, with the seal that it would have if it had been published so."""
    said = {key: value for key, value in record.items() if key != "seal"}
    text = json.dumps(said, sort_keys=True, separators=(",", ":"))
    return json.dumps({**said, "seal": hashlib.sha256(text.encode()).hexdigest()}).encode()


def set_key(key: str, value: Any) -> Callable[[dict[str, Any]], object]:
    return lambda record: record.update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            set_key("format", 99),
            "net@1 has format 99, this workbench reads up to 2: upgrade with pip",
        ),
        (
            lambda record: record.pop("format"),
            r"version\.json cannot be read: KeyError\('format'\)",
        ),
        (lambda record: record.pop("checksums"), "missing required field `checksums`"),
        (lambda record: record.pop("lineage"), "missing required field `lineage`"),
        (set_key("version", 7), r"it is of another version, net@7, expected net@1: put its folder"),
        (set_key("name", "other"), r"it is of another version, other@1, expected net@1"),
        (set_key("name", "../x"), r"cannot be read: ValueError\('strange name'\)"),
        (set_key("version", "1"), r"Expected `int`, got `str` - at `\$\.version`"),
        (set_key("format", 0), r"cannot be read: ValueError\('strange format'\)"),
        (set_key("call", "shell"), r"Invalid enum value 'shell' - at `\$\.call`"),
        (set_key("preprocessing", None), r"cannot be read: ValueError\('strange preprocessing'\)"),
        (set_key("signature", {}), r"missing required field `inputs` - at `\$\.signature`"),
        (set_key("checksums", {"../x": "0" * 64}), r"ValueError\('strange files'\)"),
        (set_key("metrics", {"loss": "low"}), r"Expected `float`, got `str` - at `\$\.metrics"),
        (set_key("created", 0), r"Expected `datetime`, got `int` - at `\$\.created`"),
        (set_key("created", "x"), r"Invalid RFC3339 encoded datetime - at `\$\.created`"),
        (set_key("parameters", "many"), r"Expected `int`, got `str` - at `\$\.parameters`"),
        (set_key("parameters", True), r"Expected `int`, got `bool` - at `\$\.parameters`"),
        (set_key("architecture", "program"), r"Expected `object`, got `str` - at `\$\.archite"),
        (set_key("lineage", {}), r"missing required field `run` - at `\$\.lineage`"),
        (lambda record: record["lineage"].update(origin={"ref": "a@1", "seal": "b"}),
         r"missing required field `by` - at `\$\.lineage\.origin`"),
        (lambda record: record["lineage"].update(cell={"notebook": None}),
         r"missing required field `execution_count` - at `\$\.lineage\.cell`"),
        (lambda record: record["signature"]["inputs"].clear(), "strange signature"),
        (lambda record: record["signature"]["inputs"][0].update(shape=[-1, 9]),
         r"signature of other rows than \[4\]"),
        (lambda record: record["preprocessing"].update(features=["a"]),
         r"1 features of rows \[4\]"),
        (lambda record: record["checksums"].pop("example.json"), r"ValueError\('strange files'\)"),
    ],
)  # fmt: skip
def test_a_record_that_was_published_by_nobody_is_refused(
    change: Callable[[dict[str, Any]], object], message: str
) -> None:
    path = publish(build("linear", DATA), "net").folder / "version.json"
    record = json.loads(path.read_text())
    change(record)
    rewrite(path, seal(record))
    with pytest.raises(TamperedError, match=message):
        version("net@1")


@pytest.mark.parametrize(
    "change",
    [
        set_key("metrics", {"accuracy": 1.0}),
        set_key("seal", "0" * 64),
        lambda record: record.pop("seal"),
        lambda record: record["lineage"].update(run="mine"),
    ],
)
def test_a_record_that_was_changed_breaks_its_seal(
    change: Callable[[dict[str, Any]], object],
) -> None:
    path = publish(build("linear", DATA), "net").folder / "version.json"
    record = json.loads(path.read_text())
    rewrite(path, json.dumps(record, sort_keys=True).encode())
    assert version("net@1").record == record  # the order of the keys says nothing
    change(record)
    rewrite(path, json.dumps(record).encode())
    message = r"version\.json is not the record that was published: its seal is .*, its content's w"
    with pytest.raises(TamperedError, match=message):
        version("net@1")


def test_a_version_of_the_first_format_is_read() -> None:
    model = fitted()
    made = publish(model, "net")
    newer = ("call", "reference", "seal")
    record = {key: value for key, value in made.record.items() if key not in newer}
    record["checksums"].pop("reference.json")
    rewrite(made.folder / "version.json", json.dumps({**record, "format": 1}).encode())
    old = version("net@1")
    assert torch.equal(predict(old.load(), X).output, predict(model, X).output)
    assert (old.reference, old.card["reference"], old.preprocessing) == (
        None,
        None,
        made.preprocessing,
    )
    assert version(export_and_import(old)).load() is not None


def export_and_import(made: ModelVersion) -> str:
    """Return what a version is called after it was exported, removed and imported."""
    file = export_version(made.ref, made.folder.parent / "net.zip")
    shutil.rmtree(made.folder)
    return import_version(file).ref


@pytest.mark.parametrize("newer", ["call", "reference", "seal"])
def test_a_record_whose_seal_was_taken_off_is_refused(newer: str) -> None:
    path = publish(build("linear", DATA), "net").folder / "version.json"
    record = {**json.loads(path.read_text()), "format": 1, "metrics": {"accuracy": 1.0}}
    rewrite(path, json.dumps({k: v for k, v in record.items() if k != "seal"}).encode())
    with pytest.raises(TamperedError, match="format 1 with call, reference, which it had not"):
        version("net@1")
    others = {"call", "reference", "seal"} - {newer}
    rewrite(path, json.dumps({k: v for k, v in record.items() if k not in others}).encode())
    with pytest.raises(TamperedError, match=f"format 1 with {newer}, which it had not"):
        version("net@1")


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"null", b"\xff"])
def test_a_record_that_is_no_record_is_refused(content: bytes) -> None:
    path = publish(build("linear", DATA), "net").folder / "version.json"
    rewrite(path, content)
    with pytest.raises(TamperedError, match=r"version\.json cannot be read"):
        version("net@1")


@pytest.mark.parametrize(
    ("architecture", "error", "message"),
    [
        ({"class": "no_such_module:Net"}, RequestError, "'no_such_module:Net' cannot be imported"),
        ({"class": "os:system"}, RequestError, "os:system is no torch module"),
        ({"class": "__main__:Net"}, RequestError, "of a notebook or script cannot be imported"),
        ({"builder": "mpl", "sizes": {}}, UnknownNameError, "unknown model builder 'mpl': did"),
        ({"builder": "mlp", "sizes": {"inputs": [9], "outputs": 3}}, TamperedError, "does not fit"),
        ({"magic": 1}, TamperedError, r"an architecture of no known kind: \['magic'\]"),
    ],
)
def test_an_architecture_that_was_changed_is_refused(
    architecture: dict[str, Any], error: type[Exception], message: str
) -> None:
    path = publish(build("linear", DATA), "net").folder / "version.json"
    record = json.loads(path.read_text())
    record["architecture"] = architecture
    rewrite(path, seal(record))
    with pytest.raises(error, match=message):
        version("net@1").load()


def test_a_constructor_that_raises_is_a_request_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    switch = "import os\n" + PLAIN.replace(
        "        super()",
        "        if 'NET_OFF' in os.environ: raise KeyError('no licence')\n        super()",
    )
    made = publish(importable(tmp_path, monkeypatch, switch)(), "net", example=X[:2])
    monkeypatch.setenv("NET_OFF", "1")
    message = "Net' cannot be imported and made here: KeyError: 'no licence'. Install"
    with pytest.raises(RequestError, match=message):
        made.load()


@pytest.mark.parametrize("where", ["net/1", "net"])
def test_a_file_where_a_version_belongs_is_refused(where: str) -> None:
    path = home() / "models" / where
    path.parent.mkdir(parents=True)
    path.write_text("mine")
    with pytest.raises(RequestError, match=f"{where} is a file, expected a folder or nothing: mov"):
        publish(build("linear", DATA), "net")
    assert path.read_text() == "mine"


def test_versions_can_be_kept_in_sets() -> None:
    model = build("linear", DATA)
    first, second = publish(model, "net"), publish(model, "net")
    assert {first, version("net@1"), second} == {first, second}


def test_what_is_no_model_or_no_evaluation_is_refused() -> None:
    strange: Any = "x"
    with pytest.raises(RequestError, match=r"got 'x', a str, expected a torch module first: pub"):
        publish(strange, "net")
    figures: Any = {"accuracy": 1.0}
    with pytest.raises(RequestError, match="evaluation is a dict, expected what evaluate returns"):
        publish(build("linear", DATA), "net", evaluation=figures)
    assert list_models() == []


def test_a_version_shows_how_it_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    plain = importable(tmp_path, monkeypatch, PLAIN)
    publish(build("linear", DATA), "net")
    publish(plain(), "net", example=X[:2])
    publish(plain("tanh"), "net", example=X[:2])
    shown = [CliRunner().invoke(app, ["show", f"net@{i}"]).output for i in (1, 2, 3)]
    kept = [re.search(r"^kept as +(.*)$", text, re.M) for text in shown]
    assert [found and found[1] for found in kept] == [
        "builder linear",
        f"class {plain.__module__}:Net, importable where its module is",
        "program: can be served anywhere, not trained",
    ]


@pytest.mark.parametrize(
    "name", ["", "../x", "a/b", ".hidden", "a b", "x\n", "é", "-x", "n" * 101, None]
)
def test_a_name_that_cannot_be_a_folder_is_refused(name: Any) -> None:
    with pytest.raises(RequestError, match=r"cannot name a model: use letters, digits"):
        publish(build("linear", DATA), name)
    assert not home().exists()


@pytest.mark.parametrize("ref", ["../x", "../x@1", "@1", ""])
def test_a_reference_cannot_leave_the_registry(ref: str) -> None:
    with pytest.raises(RequestError, match="cannot name a model"):
        version(ref)


def test_an_unknown_model_or_version_gets_a_suggestion() -> None:
    with pytest.raises(UnknownNameError, match="unknown model 'digits': There is no model yet"):
        version("digits")
    publish(build("linear", DATA), "digits")
    with pytest.raises(UnknownNameError, match="unknown model 'digit': did you mean digits"):
        version("digit")
    for number in ("2", "01", "latest", "", "-1", "../1", "1/"):
        with pytest.raises(UnknownNameError, match=f"unknown version of digits '{number}'"):
            version(f"digits@{number}")


def test_a_name_with_no_whole_version_is_no_model() -> None:
    (home() / "models" / "half" / ".1.tmp").mkdir(parents=True)
    assert list_models() == []
    with pytest.raises(UnknownNameError, match="unknown model 'half': There is no model yet"):
        version("half")


def test_a_model_that_was_never_fitted_needs_an_example() -> None:
    message = "Linear was never fitted, so nothing says what it takes: pass example=, a few rows"
    with pytest.raises(RequestError, match=message):
        publish(nn.Linear(4, 3), "net")


def test_state_that_is_no_tensor_is_refused() -> None:
    class Odd(nn.Linear):
        def get_extra_state(self) -> dict[str, int]:
            return {"a": 1}

        def set_extra_state(self, state: object) -> None: ...

    with pytest.raises(RequestError, match=r"state of Odd holds more than tensors: \['_extra_st"):
        publish(Odd(4, 3), "net", example=X[:2])


def test_a_model_that_cannot_be_stored_leaves_nothing() -> None:
    class Branching(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    with pytest.raises(RequestError, match="Branching cannot be stored"):
        publish(Branching(), "net", example=X[:2])
    assert list_models() == []


def test_figures_that_are_not_numbers_are_refused() -> None:
    split = Split(X, torch.zeros(12))
    broken = Evaluation(split, torch.full((12, 1), float("nan")))
    with pytest.raises(
        RequestError, match=r"figures that are not finite: {'loss': nan.*look for NaN"
    ):
        publish(build("linear", DATA), "net", evaluation=broken)


def test_a_damaged_record_hides_no_other_version() -> None:
    publish(fitted(), "whole")
    record = publish(fitted(), "broken").folder / "version.json"
    record.chmod(0o644)
    record.write_text("{")
    with pytest.warns(UserWarning, match=r"broken/1/version\.json cannot be read"):
        assert [made.ref for made in list_models()] == ["whole@1"]


def test_the_datatypes_are_those_that_services_speak() -> None:
    for name, word in DATATYPES.items():
        dtype = ml_dtypes.bfloat16 if name == "bfloat16" else name
        assert datatype_of(np.zeros(1, dtype)) == word
        assert isinstance(getattr(torch, name), torch.dtype)
