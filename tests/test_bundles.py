"""A version as one file: it arrives whole, and whatever was done to it on the way is refused."""

from __future__ import annotations

import contextlib
import copy
import functools
import io
import json
import operator
import os
import shutil
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from bundles import Entries, changed, put, refused, reseal
from torch import nn
from typer.testing import CliRunner

from workbench.cli import app
from workbench.datasets import dataset
from workbench.errors import RequestError, TamperedError, WorkbenchError
from workbench.evaluation import evaluate, predict
from workbench.models import build
from workbench.registry import (
    ModelVersion,
    export_version,
    import_version,
    list_models,
    promote,
    publish,
    retire,
    version,
)
from workbench.serving.pages import home_page
from workbench.serving.served import served_from
from workbench.training import fit

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
DATA = dataset("points", train=(X, torch.arange(12) % 3))


def published(name: str = "net", seed: int = 0) -> tuple[nn.Module, ModelVersion]:
    model = build("mlp", DATA, hidden=(5,), seed=seed)
    fit(model, DATA, steps=2)
    return model, publish(model, name, evaluation=evaluate(model, DATA.train))


@pytest.fixture
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Give what takes this test to another home."""
    return lambda: monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "elsewhere"))


def test_a_version_arrives_as_it_was(tmp_path: Path, elsewhere: Callable[[], None]) -> None:
    model, made = published()
    file = export_version("net@1", tmp_path)
    assert file == tmp_path / "net@1.zip"
    elsewhere()
    found = import_version(file)
    assert (found.ref, found.folder) == ("net@1", tmp_path / "elsewhere" / "models" / "net" / "1")
    assert torch.equal(predict(found.load(), X).output, predict(model, X).output)
    differing = {key for key in made.record if made.record[key] != found.record[key]}
    assert differing == {"lineage", "seal"}
    assert (found.reference, found.metrics) == (made.reference, made.metrics)
    origin = found.lineage.pop("origin")
    assert {**made.lineage, "origin": origin} == found.lineage
    assert (origin["ref"], origin["seal"]) == ("net@1", made.record["seal"])
    assert sorted(p.name for p in found.folder.iterdir()) == sorted(os.listdir(made.folder))
    assert all(path.stat().st_mode & 0o222 == 0 for path in found.folder.iterdir())


def test_a_program_arrives_too(tmp_path: Path, elsewhere: Callable[[], None]) -> None:
    model = nn.Sequential(nn.Linear(4, 3))
    publish(model, "net", example=X[:2])
    file = export_version("net", tmp_path / "mine.zip")
    elsewhere()
    assert torch.equal(predict(import_version(file).load(), X).output, predict(model, X).output)


def test_two_exports_are_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published()
    first = export_version("net@1", tmp_path / "a.zip").read_bytes()
    promote("net@1", "champion")
    os.utime(version("net@1").folder / "version.json", (1, 1))
    assert export_version("net@champion", str(tmp_path / "b.zip")).read_bytes() == first
    monkeypatch.chdir(tmp_path)
    assert export_version("net@1") == Path("net@1.zip")
    assert export_version("net@1").read_bytes() == first
    names = zipfile.ZipFile(io.BytesIO(first)).namelist()
    assert names == ["version.json", "example.json", "reference.json", "weights.safetensors"]


def test_an_export_overwrites_nothing(tmp_path: Path) -> None:
    published()
    (tmp_path / "net@1.zip").write_text("mine")
    with pytest.raises(RequestError, match=r"net@1\.zip is there already: remove it, or export to"):
        export_version("net@1", tmp_path)
    assert (tmp_path / "net@1.zip").read_text() == "mine"


def test_a_damaged_version_is_not_exported(tmp_path: Path) -> None:
    (weights := published()[1].folder / "weights.safetensors").chmod(0o644)
    weights.write_bytes(b"")
    with pytest.raises(TamperedError, match=r"weights\.safetensors of net@1 is empty"):
        export_version("net@1", tmp_path)
    assert list(tmp_path.glob("*.zip")) == []


def test_a_version_that_is_here_is_returned(tmp_path: Path, elsewhere: Callable[[], None]) -> None:
    _, made = published()
    file = export_version("net@1", tmp_path)
    retire("net@1")
    assert import_version(file) == made
    elsewhere()
    published(seed=1)
    second = import_version(file)
    assert second.ref == "net@2"  # that number was free, 1 is another version here
    assert import_version(file) == second
    third = export_version("net@2", tmp_path / "again.zip")  # and back to where it was published
    assert import_version(third) == second


def test_it_comes_home_as_what_it_was(
    tmp_path: Path, elsewhere: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, made = published()
    file, before = export_version("net@1", tmp_path), os.environ["WORKBENCH_HOME"]
    elsewhere()
    there = export_version(import_version(file).ref, tmp_path / "there.zip")
    monkeypatch.setenv("WORKBENCH_HOME", before)
    assert import_version(there) == made
    shutil.rmtree(made.folder)
    assert import_version(there).lineage["origin"]["seal"] == made.record["seal"]


def test_a_free_number_is_kept(tmp_path: Path, elsewhere: Callable[[], None]) -> None:
    for seed in range(3):
        published(seed=seed)
    file = export_version("net@3", tmp_path)
    elsewhere()
    assert import_version(file).ref == "net@3"
    assert published(seed=5)[1].ref == "net@4"
    promote("net@4", "champion")
    shutil.rmtree(version("net@4").folder)
    other = changed(file, lambda entries: reseal(entries, version=4))
    assert import_version(other).ref == "net@5"  # the log speaks of another net@4
    far = changed(file, lambda entries: reseal(entries, version=10**9 - 1))
    assert import_version(far).ref == "net@6"  # or no number would be left


def empty(*names: str) -> Callable[[Entries], object]:
    return lambda entries: entries.update(dict.fromkeys(names, b""))


def put_part(entries: Entries, part: str, **said: Any) -> None:
    """Let a part of the record say something else."""
    reseal(entries, **{part: {**json.loads(entries["version.json"])[part], **said}})


def unsealed(entries: Entries) -> None:
    """Make the record one of the first format, in all that it says."""
    record = json.loads(entries["version.json"])
    newer = ("call", "reference", "seal")
    old = {key: value for key, value in record.items() if key not in newer}
    entries["version.json"] = json.dumps({**old, "format": 1}).encode()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (empty("../evil"), r"holds '\.\./evil', which is no file of a version: it is not"),
        (empty("/etc/passwd"), "holds '/etc/passwd', which is no file"),
        (empty("a\\b"), "which is no file of a version"),
        (empty("folder/"), "holds 'folder/', which is no file"),
        (empty("WEIGHTS.safetensors"), "holds 'WEIGHTS.safetensors', which is no file"),
        (empty("weights.safetensors"), r"weights\.safetensors is empty, published was"),
        (empty("program.pt2"), r"holds another version's files: program\.pt2 is empty, "),
        (lambda e: e.pop("version.json"), r"holds .*, expected version\.json and each file once"),
        (lambda e: e.pop("weights.safetensors"), r"files: weights\.safetensors is not there"),
        (lambda e: e.update({"version.json": b"{"}), r"version\.json in .* cannot be read: JSON"),
        (lambda e: e.update({"version.json": b"[" * 10**5}), "cannot be read: RecursionError"),
        (lambda e: e.update({"version.json": e["version.json"].replace(b"accuracy", b"accurate")}),
         "is not the record that was published"),
        (lambda e: reseal(e, format=99), "has format 99, this workbench reads up to 2: upgrade"),
        (lambda e: reseal(e, name="../x"), "strange name"),
        (lambda e: reseal(e, version=0), "strange version"),
        (lambda e: reseal(e, version=10**9), "strange version"),
        (lambda e: reseal(e, version=True), "Expected `int`, got `bool`"),
        (lambda e: reseal(e, checksums={}), "strange files"),
        (lambda e: reseal(e, lineage=[]), r"Expected `object`, got `array` - at `\$\.lineage`"),
        (lambda e: put_part(e, "lineage", origin=7), r"Expected `object \| null`, got `int`"),
        (lambda e: put_part(e, "lineage", origin={"ref": 7}), "Expected `str`, got `int`"),
        (unsealed, "has format 1, which has no seal and was never exported: publish the model"),
        (put("weights.safetensors", b""), "has weights that cannot be read"),
        (put("weights.safetensors", b"\xff" * 64), "has weights that cannot be read"),
        (lambda e: put("weights.safetensors", e["weights.safetensors"][:-1])(e),
         "has weights that cannot be read"),
        (put("example.json", b"{}"), r"cannot be read: KeyError\('rows'\)"),
        (put("example.json", b'{"rows": [[1]]}'), "inputs have the shape"),
        (lambda e: put_part(e, "preprocessing", mean=[0.0, 0.0]), "cannot be read: RuntimeError"),
        (put("reference.json", b'{"format": 1}'), r"cannot be read: KeyError\('inputs'\)"),
    ],
)  # fmt: skip
def test_a_file_that_was_changed_is_refused(
    tmp_path: Path,
    elsewhere: Callable[[], None],
    change: Callable[[Entries], object],
    message: str,
) -> None:
    published()
    file = changed(export_version("net@1", tmp_path), change)
    elsewhere()
    refused(file, message)


def places(told: Any, *before: Any) -> Iterator[tuple[Any, ...]]:
    """Yield where in a record there is something, as the keys that lead there."""
    if before:
        yield before
    if isinstance(told, dict):
        for key in told:
            yield from places(told[key], *before, key)
    elif told and isinstance(told, list):
        yield from places(told[0], *before, 0)


@pytest.mark.full
@pytest.mark.parametrize("strange", [None, "x", 7, True, [], {}, [1], {"a": 1}])
def test_whatever_a_record_says_it_is_refused_or_can_be_shown(
    tmp_path: Path, elsewhere: Callable[[], None], strange: Any
) -> None:
    published()
    file, record = export_version("net@1", tmp_path), dict(version("net@1").record)
    elsewhere()
    for *way, last in places({k: v for k, v in record.items() if k not in ("seal", "checksums")}):
        said = copy.deepcopy(record)
        functools.reduce(operator.getitem, way, said)[last] = strange
        crafted = changed(file, functools.partial(reseal, **said))
        with contextlib.suppress(WorkbenchError):
            ref = import_version(crafted).ref
            shown = CliRunner().invoke(app, ["show", ref])
            assert shown.exit_code == 0, (way, last, shown.exception)
            home_page([served_from(ref)])


def test_a_program_that_could_run_code_is_refused(
    tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    publish(nn.Sequential(nn.Linear(4, 3)), "net", example=X[:2])

    def infect(entries: Entries) -> None:
        program = io.BytesIO(entries["program.pt2"])
        with zipfile.ZipFile(program, "a") as archive:
            archive.writestr("archive/data/evil.pkl", b"cos\nsystem\n(S'true'\ntR.")
        entries["program.pt2"] = program.getvalue()
        reseal(entries)

    file = changed(export_version("net@1", tmp_path), infect)
    elsewhere()
    refused(file, r"the program's entry 'archive/data/evil\.pkl' holds .* bytes of an unknown kind")


def test_a_bomb_is_refused_before_it_is_opened(
    tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    published()
    file = export_version("net@1", tmp_path)
    bomb = changed(file, lambda e: e.update({"weights.safetensors": bytes(10**8)}), 8)
    assert bomb.stat().st_size < 10**6
    elsewhere()
    refused(bomb, "compressed, which export never does")
    refused(changed(file, lambda e: e.update({"version.json": bytes(2**26 + 1)})), "67,108,865 byt")


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_an_entry_that_is_there_twice_is_refused(
    tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    published()
    file = export_version("net@1", tmp_path)
    with zipfile.ZipFile(file, "a") as bundle:
        bundle.writestr("version.json", b"{}")
    elsewhere()
    refused(
        file, r"holds version\.json, .*, version\.json, expected version\.json and each file on"
    )


def test_entries_that_lie_within_each_other_are_refused(
    tmp_path: Path, elsewhere: Callable[[], None]
) -> None:
    published()
    file = export_version("net@1", tmp_path)
    with zipfile.ZipFile(file, "a") as bundle:
        for entry in bundle.filelist:
            entry.file_size = entry.compress_size = 10**5
        bundle._didModify = True  # type: ignore[attr-defined]
    elsewhere()
    refused(file, "holds entries that lie within each other")


@pytest.mark.parametrize("keep", [0, 1, 100, 2000, -1])
def test_a_file_that_was_cut_is_refused(
    tmp_path: Path, elsewhere: Callable[[], None], keep: int
) -> None:
    published()
    file = export_version("net@1", tmp_path)
    file.write_bytes(file.read_bytes()[:keep])
    elsewhere()
    refused(file, r"net@1\.zip .*: it is not what workbench export wrote; export the version again")


def test_every_byte_counts(tmp_path: Path, elsewhere: Callable[[], None]) -> None:
    published()
    file = export_version("net@1", tmp_path)
    content = file.read_bytes()
    elsewhere()
    for i in range(0, len(content), 97):
        file.write_bytes(content[:i] + bytes([content[i] ^ 0x10]) + content[i + 1 :])
        try:
            found = import_version(file)
        except TamperedError:
            continue
        assert found.load() is not None  # the byte was of the zip's own, such as a date
        assert found.lineage["origin"]["ref"] == "net@1"
    assert len(list_models()) <= 1


def test_what_is_no_file_is_a_wrong_request(tmp_path: Path) -> None:
    for place in (tmp_path, tmp_path / "nothing.zip"):
        with pytest.raises(
            RequestError, match=r"no file '.*': export writes one, as in NAME@3.zip"
        ):
            import_version(place)
