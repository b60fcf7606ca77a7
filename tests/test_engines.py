"""What computes a version's answers: ONNX Runtime says what torch does, or torch answers."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import ask, small_model
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from trainings import images

import workbench as wb
from workbench.datasets import dataset
from workbench.home import home
from workbench.registry import publish
from workbench.serving import contests, engines, probes, serve
from workbench.serving.contests import choose
from workbench.serving.describing import config, metadata
from workbench.serving.engines import Engine
from workbench.serving.probes import Probed
from workbench.serving.served import Served, served_from

WON = """\
import os, sys
from workbench.serving import contests
os.nice = lambda by: by  # the test waits for it
with open(os.path.join(os.environ["WORKBENCH_HOME"], "began"), "a") as file:
    file.write("once ")
contests._WORTH = contests._WORSE = contests._LIMIT = 0.0
contests.main(sys.argv[1:])
"""
ROWS = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))


class Deciding(nn.Linear):
    """Does this or that, by what it is asked: which no export can follow."""

    def __init__(self) -> None:
        super().__init__(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x if x.sum() > 0 else -x)


class Logarithms(nn.Linear):
    """Has negative answers without end, which are infinite from -90 on as they are exported."""

    def __init__(self) -> None:
        super().__init__(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.logsigmoid(super().forward(x))


class Sums(nn.Linear):
    """Adds what logarithms stand for: from 89 on an infinite sum as it is exported."""

    def __init__(self) -> None:
        super().__init__(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        return torch.logaddexp(y, y.flip(1))


class Streaming(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 2)

    def stream(self, x: Tensor) -> Iterator[Tensor]:
        yield self(x)


class Exact(nn.Linear):
    def __init__(self) -> None:
        super().__init__(4, 2, dtype=torch.float64)


class Talking(nn.Module):
    def forward(self, texts: list[str]) -> list[str]:
        return texts


@pytest.fixture
def eager(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let ONNX Runtime answer whenever it can, however fast it is."""
    _let_it_win(monkeypatch)


def _let_it_win(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(probes, "_NOTICED", 0.0)
    patch.setattr(probes, "_CONTEST", ("-c", WON))


@pytest.fixture
def ending(monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Return what lets a probe's process do something else."""

    def do(script: str) -> None:
        monkeypatch.setattr(probes, "_NOTICED", 0.0)
        monkeypatch.setattr(probes, "_CONTEST", ("-c", script))

    return do


class Task:
    """A net that began to be served twice at once."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        data = dataset("photos", train=images(30, 16))
        self.rows, self.model = data.train.inputs, wb.build("lenet", data, seed=1)
        self.ref = publish(self.model, "net").ref
        self.served, self.second = self.serve(), self.serve()
        for served in (self.served, self.second):
            probed(served)

    def serve(self) -> Served:
        return served_from(self.ref, probe=True, threads=1)

    @property
    def kept(self) -> Path:
        (folder,) = (path for path in (self.folder / "engines").iterdir() if path.is_dir())
        return folder


@pytest.fixture(scope="module")
def task(tmp_path_factory: pytest.TempPathFactory) -> Task:
    with pytest.MonkeyPatch.context() as patch:
        _let_it_win(patch)
        folder = tmp_path_factory.mktemp("home")
        patch.setenv("WORKBENCH_HOME", str(folder))
        return Task(folder)


def ask_served(served: Served, rows: Tensor) -> np.ndarray[Any, Any]:
    return served.answer({"input": rows.numpy()})["output"]


def published(model: nn.Module) -> str:
    return publish(model, "small", example=ROWS).ref


def probed(served: Served) -> Engine:
    """Return the engine of a version once its probe has ended."""
    assert isinstance(served.source, Probed)
    return served.source.wait(200)


def test_its_answers_are_those_of_torch(task: Task) -> None:
    assert probed(task.served).name == "onnxruntime"
    expected = wb.predict(task.model, task.rows).output.numpy()
    found = ask_served(task.served, task.rows)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5 * max(1, np.abs(expected).max()))


@settings(max_examples=20, deadline=None)
@given(cuts=st.lists(st.integers(1, 12), min_size=1, max_size=5))
def test_a_batched_answer_is_the_single_one(task: Task, cuts: list[int]) -> None:
    whole = ask_served(task.served, task.rows)
    parts = [p for p in np.split(task.rows.numpy(), np.cumsum(cuts)) if len(p)]
    joined = np.concatenate([task.served.answer({"input": part})["output"] for part in parts])
    assert np.abs(joined - whole).max() <= 1e-5 * max(1, np.abs(whole).max())


def test_the_largest_batch_is_answered(task: Task) -> None:
    rows = task.rows[torch.arange(256) % 30]
    assert len(ask_served(task.served, rows)) == 256


def test_torch_s_copy_of_the_model_is_let_go(task: Task) -> None:
    assert list(task.served.source.fresh().parameters()) == []


def test_of_two_at_once_one_probes(task: Task) -> None:
    assert task.second.engine == task.served.engine
    assert (task.folder / "began").read_text() == "once "


def test_metadata_names_the_engine_and_why(task: Task) -> None:
    told = metadata(task.served, ["1"])
    assert told["platform"] == config(task.served)["platform"] == "onnxruntime_onnx"
    engine = json.loads(json.dumps(told["parameters"]["engine"]))
    assert engine["name"] == "onnxruntime"
    assert engine["reason"].startswith("ONNX Runtime is ")
    assert {name: set(taken) for name, taken in engine["seconds"].items()} == {
        "torch": {"1", "32"},
        "onnxruntime": {"1", "32"},
    }


def test_what_was_found_is_remembered(task: Task, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(task.folder))
    again = task.serve()
    assert again.engine == task.served.engine  # at once
    np.testing.assert_array_equal(ask_served(again, task.rows), ask_served(task.served, task.rows))


@pytest.mark.parametrize("file", ["model.onnx", "engine.json"])
def test_a_damaged_file_is_no_memory(task: Task, tmp_path: Path, file: str) -> None:
    assert engines.kept(task.kept) is not None
    content = (task.kept / file).read_bytes()
    shutil.copytree(task.kept, tmp_path, dirs_exist_ok=True)
    for damaged in (content[: len(content) // 2], b"", b"{}" + content):
        (tmp_path / file).write_bytes(damaged)
        assert engines.kept(tmp_path) is None


@pytest.mark.full
@pytest.mark.usefixtures("eager")
def test_that_a_model_cannot_be_exported_is_remembered(capfd: pytest.CaptureFixture[str]) -> None:
    ref = published(Deciding())
    served = served_from(ref, probe=True)
    engine = probed(served)
    assert engine.name == "torch"
    assert engine.reason.startswith("it cannot be exported to ONNX, ")
    assert metadata(served, ["1"])["platform"] == "pytorch"
    np.testing.assert_array_equal(ask_served(served, ROWS), ask_served(served_from(ref), ROWS))
    assert capfd.readouterr() == ("", "")
    assert served_from(ref, probe=True).engine == engine


def test_torch_answers_until_the_probe_has_ended(
    ending: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(probes, "_PATIENCE", 0.1)
    ending("import sys; sys.stdin.read()")
    ref = published(nn.Linear(4, 2))
    served = served_from(ref, probe=True)
    assert served.engine == Engine("torch", "the probe has not ended yet")
    np.testing.assert_array_equal(ask_served(served, ROWS), ask_served(served_from(ref), ROWS))
    reason = "the probe failed: TimeoutError: it took more than 0.1 s"
    assert probed(served) == Engine("torch", reason)


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("import os; os.kill(os.getpid(), 9)", "OSError: its process ended with -9"),
        ("pass", "OSError: nothing is in "),
    ],
)
def test_a_probe_that_came_to_nothing_is_not_remembered(
    ending: Callable[[str], None], script: str, reason: str
) -> None:
    ending(script)
    engine = probed(served_from(published(nn.Linear(4, 2)), probe=True))
    assert engine.name == "torch"
    assert engine.reason.startswith(f"the probe failed: {reason}")
    assert [path.name for path in (home() / "engines").iterdir()] == [".lock"]


@pytest.mark.full
def test_a_probe_ends_with_whoever_began_it(tmp_path: Path) -> None:
    command = [sys.executable, *probes._CONTEST, published(nn.Linear(4, 2)), f"{tmp_path}/x", "1"]
    done = subprocess.run(command, stdin=subprocess.DEVNULL, timeout=60, check=False)
    assert (done.returncode, (tmp_path / "x").exists()) == (1, False)


def test_a_model_that_is_fast_anyway_is_not_probed(
    ending: Callable[[str], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    ending("1 / 0")
    monkeypatch.setattr(probes, "_NOTICED", 10.0)
    served = served_from(published(nn.Linear(4, 2)), probe=True)
    assert served.engine is not None
    assert "32 rows in " in served.engine.reason
    assert served.engine.reason.endswith("faster would not be noticed")


def test_what_was_not_installed_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    served = served_from(published(nn.Linear(4, 2)), probe=True)
    expected = "onnx is not installed: pip install 'maas-workbench[export]'"
    assert served.engine == Engine("torch", expected)


@pytest.mark.parametrize(
    ("model", "example", "reason"),
    [
        (Streaming(), ROWS, "the model streams"),
        (Talking(), ["a", "b"], "the model is called by name, "),
        (Exact(), ROWS.double(), "the model is called by name, "),
    ],
)
def test_what_only_torch_can_do_is_not_probed(model: nn.Module, example: Any, reason: str) -> None:
    served = served_from(publish(model, "own", example=example).ref, probe=True)
    assert served.engine is not None
    assert (served.engine.name, served.engine.seconds) == ("torch", {})
    assert served.engine.reason.startswith(reason)


def test_a_large_version_is_not_exported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "_LARGEST", 100)
    served = served_from(published(nn.Linear(4, 2)), probe=True)
    assert served.engine is not None
    assert "are exported" in served.engine.reason


@pytest.mark.filterwarnings("ignore")  # what torch says while it exports
@pytest.mark.parametrize(
    ("model", "name", "reason"),
    [
        (nn.Linear(4, 2), "onnxruntime", "ONNX Runtime is "),
        (Logarithms(), "torch", "ONNX Runtime is out: the answers differ by "),
        (Sums(), "torch", "ONNX Runtime is out: the answers differ by inf of the largest"),
        (Deciding(), "torch", "it cannot be exported to ONNX, "),
    ],
)
def test_a_program_of_other_answers_far_from_the_example_is_found_out(
    monkeypatch: pytest.MonkeyPatch, model: nn.Module, name: str, reason: str
) -> None:
    for limit in ("_WORTH", "_WORSE", "_LIMIT"):
        monkeypatch.setattr(contests, limit, 0.0)
    made = publish(model, "small", example=ROWS[:1])
    engine, program = contests.contest(made, 1)
    assert engine.name == name
    assert engine.reason.startswith(reason)
    assert (program is not None) == (name == "onnxruntime")


@pytest.mark.usefixtures("eager")
def test_a_home_that_keeps_nothing_keeps_no_service_down() -> None:
    ref = published(nn.Linear(4, 2))
    (home() / "engines").write_text("a file in the way")
    served = served_from(ref, probe=True)
    assert probed(served).reason.startswith("the probe failed: FileExistsError: ")
    assert ask_served(served, ROWS).shape == (40, 2)


def test_a_kernel_s_service_probes_nothing() -> None:
    version = publish(small_model(), "small", example=torch.zeros(2, 2))
    with serve(version) as service:
        told = ask(service, "GET", "/v2/models/small").json
    assert (told["platform"], told["parameters"]) == ("pytorch", {"model": "small@1"})
    assert not (home() / "engines").exists()


def test_only_so_many_are_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_KEPT", 2)
    for number in range(4):
        engines.keep(tmp_path / f"{number}", Engine("torch", "it is faster"), None)
    assert len(list(tmp_path.iterdir())) == 2
    assert engines.kept(tmp_path / "3") == (Engine("torch", "it is faster"), None)


@pytest.mark.parametrize(
    ("one", "batch", "name", "reason"),
    [
        (2.0, 1.0, "onnxruntime", "ONNX Runtime is 2.00 times as fast as torch for 1 row, 1.00 "),
        (1.05, 1.05, "torch", "ONNX Runtime is 1.05 times as fast as torch for 1 row, 1.05 "),
        (0.5, 0.5, "torch", "ONNX Runtime is 0.50 times as fast as torch for 1 row, 0.50 "),
        (9.0, 0.8, "torch", "ONNX Runtime is 9.00 times as fast as torch for 1 row, 0.80 "),
        (0.8, 9.0, "torch", "ONNX Runtime is 0.80 times as fast as torch for 1 row, 9.00 "),
    ],
)
def test_the_faster_is_chosen_where_it_is_so_clearly(
    one: float, batch: float, name: str, reason: str
) -> None:
    engine = choose({"torch": {"1": one, "32": batch}, "onnxruntime": {"1": 1.0, "32": 1.0}})
    assert engine.name == name
    clearly = "" if name == "onnxruntime" else ": not clearly faster"
    assert engine.reason == f"{reason}times for 32{clearly}"


def rows_alone(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    return rows * (1 + 1e-4 * (len(rows) == 1))


def lifted(rows: np.ndarray[Any, Any], by: float) -> np.ndarray[Any, Any]:
    """Return outputs by which the second class is likelier, if it was as likely."""
    lifted: np.ndarray[Any, Any] = rows + np.array([0, by])
    return lifted


def small_ones(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    if rows.max() > 1:
        raise ValueError("there are no such words")
    return rows


@pytest.mark.parametrize(
    ("one", "other", "said"),
    [
        (np.array, lambda rows: rows + 2e-5, "the answers differ by 2e-05 of the largest, "),
        (np.array, lambda rows: rows[:, :1], "the answers have the shapes (1, 2) and (1, 1) for 1"),
        (np.array, lambda rows: rows * np.nan, "the answers differ by nan of the largest, "),
        (np.array, rows_alone, "the answers differ by 0.0001 of the largest, over 1e-05 for 1 "),
        (np.array, lambda rows: rows.clip(max=9), "the answers differ by 0.9 of the largest, "),
        (np.array, small_ones, "only one of the two answers for far"),
        (small_ones, np.array, "only one of the two answers for far"),
        (np.array, lambda rows: lifted(rows, 1e-4 * (rows[0, 0] > 1)), "the labels differ for far"),
        (np.array, np.array, ""),
        (np.array, lambda rows: lifted(rows, 1e-7), ""),
        (small_ones, small_ones, ""),
        (lambda rows: np.log(rows - 1), lambda rows: np.log(rows - 1), ""),
        (lambda rows: rows / 0, lambda rows: rows * np.inf, ""),
    ],
)
@pytest.mark.filterwarnings("ignore:divide by zero")
def test_other_answers_are_found_out(one: Any, other: Any, said: str) -> None:
    rows, far = np.ones((32, 2)), np.array([[1.01, 1.01], [90, 1]])
    found = contests._differs(one, other, rows, {"far": far}, ("cat", "dog"))
    assert (found or "").startswith(f"ONNX Runtime is out: {said}" if said else "")
    assert bool(found) is bool(said)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_rows_beyond_the_example_are_all_over_a_datatype(dtype: torch.dtype) -> None:
    example = (torch.arange(12) % 2).reshape(2, 6).to(dtype)
    made = engines.rows_beyond(publish(nn.Identity(), "same", example=example))
    numbers = np.concatenate(list(made.values()))
    assert str(numbers.dtype) == str(dtype)[6:]
    limits = (0, 1) if dtype == torch.bool else (torch.iinfo(dtype).min, torch.iinfo(dtype).max)
    assert (numbers.min(), numbers.max()) == limits
    assert all(rows.shape == (8, 6) and not rows.flags.writeable for rows in made.values())


def test_rows_beyond_an_example_of_floats_are_near_and_far_and_finite() -> None:
    for example in (ROWS[:1], ROWS * 1e36):
        made = engines.rows_beyond(publish(nn.Identity(), "same", example=example))
        assert {rows.dtype for rows in made.values()} == {np.dtype(np.float32)}
        sizes = [float(np.abs(rows).max()) for rows in made.values()]
        assert np.isfinite(sizes).all()
        assert max(sizes) >= 100 * min(size for size in sizes if size)


def test_timings_are_taken_in_turns() -> None:
    taken: list[tuple[str, int]] = []

    def one(rows: Any) -> Any:
        taken.append(("a", len(rows)))
        return rows

    def other(rows: Any) -> Any:
        taken.append(("b", len(rows)))
        return rows

    seconds = contests._race({"torch": one, "onnxruntime": other}, np.zeros((32, 1)))
    turn = [("a", 1), ("a", 32), ("b", 1), ("b", 32)]
    assert taken == turn * (len(taken) // 4)
    assert set(seconds) == {"torch", "onnxruntime"}
