"""Datasets by name: what they are, how they are cut, what tells them apart, how they are listed."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import sklearn.datasets
import torch
from typer.testing import CliRunner

from workbench.cli.data import app
from workbench.datasets import Split, dataset, fetch, list_datasets, load
from workbench.datasets.splits import cut, sample
from workbench.errors import RequestError, UnknownNameError
from workbench.home import data_home
from workbench.journal import read_lines

SMALL = ("breast_cancer", "diabetes", "digits", "line", "wide", "wide_nonlinear")


def test_line_is_five_points() -> None:
    data = load("line")
    assert data.train.inputs.tolist() == [[1.0], [2.0], [3.0], [4.0], [5.0]]
    assert data.train.targets.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert (data.validation, data.test, data.classes) == (None, None, ())


@pytest.mark.parametrize(
    ("name", "shape", "dtype", "sizes"),
    [("digits", (8, 8), torch.uint8, (1437, 360)),
     ("breast_cancer", (30,), torch.float32, (455, 114)),
     ("diabetes", (10,), torch.float32, (354, 88))],
)  # fmt: skip
def test_bundled_data_is_cut_in_two(
    name: str, shape: tuple[int, ...], dtype: torch.dtype, sizes: tuple[int, int]
) -> None:
    data = load(name)
    assert data.test is not None
    assert (data.train.inputs.shape[1:], data.train.inputs.dtype) == (shape, dtype)
    assert (len(data.train), len(data.test), data.validation) == (*sizes, None)
    assert f"{sizes[1]} rows are cut off" in data.card.description


@pytest.mark.parametrize(
    ("name", "options"),
    [("digits", {}), ("breast_cancer", {}), ("diabetes", {"scaled": False})],
)
def test_bundled_data_is_scikit_learns(name: str, options: dict[str, bool]) -> None:
    theirs, data = getattr(sklearn.datasets, f"load_{name}")(**options), load(name)
    assert data.test is not None
    inputs = torch.cat([data.train.inputs, data.test.inputs]).flatten(1).double()
    targets = torch.cat([data.train.targets, data.test.targets]).double()
    ours = torch.cat([inputs, targets[:, None]], 1).numpy()
    whole = np.concatenate([theirs.data, theirs.target[:, None]], 1).astype(np.float32)
    key = np.lexsort(ours.T), np.lexsort(whole.T)
    assert np.array_equal(ours[key[0]].astype(np.float32), whole[key[1]])


def test_tables_name_their_features_and_classes() -> None:
    cancer = load("breast_cancer")
    assert cancer.classes == ("malignant", "benign")
    assert (len(cancer.features), cancer.features[0]) == (30, "mean radius")
    assert load("diabetes").features[:3] == ("age", "sex", "bmi")
    assert cancer.test is not None
    assert cancer.test.features == cancer.features
    assert load("digits").features == ()
    frame = pd.DataFrame({"a": [1.0, 2.0], "b": [3.0, 4.0]})
    assert dataset("mine", train=(frame, [0, 1])).features == ("a", "b")


def test_a_limit_leaves_the_validation_cut_alone() -> None:
    whole, small = load("digits", validation=300), load("digits", validation=300, train_limit=100)
    assert whole.validation is not None
    assert small.validation is not None
    assert torch.equal(whole.validation.inputs, small.validation.inputs)
    assert (len(whole.train), len(small.train)) == (1137, 100)
    counts = small.train.targets.bincount()
    assert (counts.min().item(), counts.max().item()) == (10, 10)


@pytest.mark.parametrize("classes", [(), ("a", "b", "c")])
def test_samples_nest_and_keep_their_order(classes: tuple[str, ...]) -> None:
    rows = torch.arange(90)
    split = Split(rows[:, None].float(), rows % 3, classes)
    kept = {n: sample(split, n).inputs.flatten().tolist() for n in (9, 30, 90)}
    assert set(kept[9]) < set(kept[30]) < set(kept[90])
    assert kept[30] == sorted(kept[30])
    assert sample(split, 90) is split
    held = cut(split, 30)[1]
    assert held is not None
    assert held.inputs.flatten().tolist() != kept[30]  # drawn apart from a validation cut


@pytest.mark.parametrize("n", [0, 4])
def test_a_sample_that_cannot_be_is_refused(n: int) -> None:
    split = Split(torch.zeros(3, 1), torch.zeros(3))
    with pytest.raises(RequestError, match=rf"cannot keep {n} rows of 3: pass 1 to 3"):
        sample(split, n)


def test_a_fingerprint_tells_content_and_cut() -> None:
    prints = [
        load("digits", validation=v, train_limit=n).fingerprint
        for v, n in ((None, None), (100, None), (100, 50), (100, 51))
    ]
    assert len({*prints, *(load(name).fingerprint for name in SMALL)}) == 9
    assert load("digits", validation=0, train_limit=1437).fingerprint == prints[0]
    assert load("digits", validation=100, train_limit=1337).fingerprint == prints[1]
    assert fetch("digits").fingerprint == prints[0]


def test_a_load_is_noted_in_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_RUN", str(tmp_path))
    data = load("line")
    (line,) = read_lines(tmp_path / "events.jsonl")
    told = {key: line[key] for key in ("event", "dataset", "fingerprint")}
    assert told == {"event": "load", "dataset": "line", "fingerprint": data.fingerprint}


@pytest.mark.parametrize(
    ("options", "message"),
    [({"validation": -1}, "validation of 'cifar10' is -1, expected .* from 0 to 49,999"),
     ({"validation": 50_000}, "validation of 'cifar10' is 50000, expected .* from 0 to 49,999"),
     ({"validation": 0.1}, "validation of 'cifar10' is 0.1, expected a number of rows"),
     ({"validation": True}, "validation of 'cifar10' is True, expected a number of rows"),
     ({"train_limit": 0}, "train_limit of 'cifar10' is 0, expected .* from 1 to 45,000"),
     ({"train_limit": 45_001}, "train_limit of 'cifar10' is 45001, expected .* to 45,000")],
)  # fmt: skip
def test_an_impossible_cut_is_refused_before_anything_is_fetched(
    options: Any, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "data"))
    with pytest.raises(RequestError, match=message):
        load("cifar10", **options)
    assert not (tmp_path / "data").exists()


def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UnknownNameError, match="unknown dataset 'digit': did you mean digits"):
        load("digit")


def test_cifar10_is_the_real_one() -> None:
    """Of the user's own data home; fetched, with a network, where it is not cached yet."""
    data = load("cifar10")
    assert data.validation is not None
    assert data.test is not None
    assert (len(data.train), len(data.validation), len(data.test)) == (45_000, 5_000, 10_000)
    assert data.train.inputs.shape[1:] == (32, 32, 3)
    assert data.train.targets.bincount().tolist() == [4500] * 10
    assert data.validation.targets.bincount().tolist() == [500] * 10
    found = hashlib.sha256(data.test.inputs.numpy().data).hexdigest()
    assert found == "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04"
    assert [data.classes[i] for i in data.test.targets[:4]] == ["cat", "ship", "ship", "airplane"]
    assert (data.classes[3], data.fingerprint[:12]) == ("cat", "e1d6cecf0b9b")


def test_cifar10_is_mapped_and_cannot_be_written_to() -> None:
    first = load("cifar10", validation=0)
    before = first.train.inputs[0].clone()
    first.train.inputs[0] = 0  # lands in this process alone
    assert torch.equal(load("cifar10", validation=0).train.inputs[0], before)
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str(data_home() / "cifar10" / "cifar10.safetensors") in maps.read_text()


def test_the_list_says_what_is_cached(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    rows = {row["name"]: row for row in list_datasets()}
    assert sorted(rows) == sorted({*SMALL, "cifar10", "fashion_mnist"})
    file = tmp_path / "cifar10" / "cifar10.safetensors"
    missing = {"cached": False, "bytes": None, "path": str(file)}
    assert {key: rows["cifar10"][key] for key in missing} == missing
    assert (rows["line"]["cached"], rows["line"]["path"]) == (None, None)
    file.parent.mkdir()
    file.write_bytes(b"123")
    (row,) = (row for row in list_datasets() if row["name"] == "cifar10")
    assert (row["cached"], row["bytes"]) == (True, 3)


@pytest.mark.parametrize("name", SMALL)
def test_the_list_tells_the_truth(name: str) -> None:
    (row,) = (row for row in list_datasets() if row["name"] == name)
    data = load(name)
    parts = [len(part) if part else 0 for part in (data.train, data.validation, data.test)]
    assert [row["train"], row["validation"], row["test"]] == parts
    assert row["shape"] == list(data.train.inputs.shape[1:])


def test_listing_needs_no_torch() -> None:
    program = (
        "import sys, workbench.datasets as d; d.list_datasets(); print('torch' in sys.modules)"
    )
    out = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert out.stdout.strip() == b"False"


def test_the_command_lists(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path))
    lines = CliRunner().invoke(app, []).stdout.splitlines()
    assert lines[0].split() == ["NAME", "TRAIN", "VALIDATION", "TEST", "SHAPE", "CACHED", "SIZE"]
    assert lines[2].split() == ["cifar10", "45,000", "5,000", "10,000", "32×32×3", "no", "-"]
    assert lines[6].split() == ["line", "5", "0", "0", "1", "-", "-"]
    assert json.loads(CliRunner().invoke(app, ["--json"]).stdout) == list_datasets()


def test_the_command_fetches() -> None:
    lines = CliRunner().invoke(app, ["fetch", "line"]).stdout.splitlines()
    assert lines == [
        repr(load("line")),
        f"fingerprint {load('line').fingerprint}",
        "path        none: there is nothing to fetch",
    ]
    out = CliRunner().invoke(app, ["fetch", "cifar10"]).stdout
    assert out.splitlines()[-1] == f"path        {data_home() / 'cifar10' / 'cifar10.safetensors'}"


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [("cifar", 2, "error: unknown dataset 'cifar': did you mean cifar10?"),
     ("cifar10", 4, "error: no source of dataset 'cifar10' answered:")],
)  # fmt: skip
def test_the_command_exits_with_what_went_wrong(
    name: str, code: int, message: str, tmp_path: Path
) -> None:
    dead = {"https_proxy": "http://127.0.0.1:9", "PATH": "", "WORKBENCH_DATA": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-m", "workbench", "data", "fetch", name],
        capture_output=True, text=True, env=os.environ | dead, check=False,
    )  # fmt: skip
    assert ended.returncode == code, ended.stderr
    assert message in ended.stderr
