"""Mixed precision and a compiled forward pass: what is computed how, and how closely."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from workbench.datasets import Dataset, dataset
from workbench.errors import RequestError, UnknownNameError
from workbench.training import fit


def points() -> Dataset:
    draw = torch.Generator().manual_seed(1)
    X = torch.randn(64, 8, generator=draw)
    return dataset("points", train=(X, (X[:, 0] > 0).long()), validation=16)


class Seen(nn.Sequential):
    """A net that remembers in which type it answered while it was trained."""

    def __init__(self) -> None:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            super().__init__(nn.Linear(8, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 2))
        self.types: set[torch.dtype] = set()

    def forward(self, x: Tensor) -> Tensor:
        answer: Tensor = super().forward(x)  # type: ignore[no-untyped-call]
        if self.training:
            self.types.add(answer.dtype)
        return answer


@pytest.mark.parametrize("accumulate", [1, 2])
def test_bf16_is_of_the_forward_pass_alone(accumulate: int) -> None:
    met: list[torch.dtype] = []

    def loss(outputs: Tensor, targets: Tensor) -> Tensor:
        met.append(outputs.dtype)
        return nn.functional.cross_entropy(outputs, targets)

    model = Seen()
    training = fit(model, points(), epochs=2, precision="bf16", loss=loss, accumulate=accumulate)
    assert model.types == {torch.bfloat16}
    assert set(met) == {torch.float32}
    assert {p.dtype for p in model.parameters()} == {torch.float32}
    assert {b.dtype for b in model.buffers()} == {torch.float32, torch.int64}
    assert training.settings.precision == "bf16"


def test_bf16_is_torchs_autocast() -> None:
    ours, theirs, data = Seen(), Seen(), points()
    training = fit(ours, data, steps=1, batch_size=48, precision="bf16")
    X = data.train.inputs
    inputs = (X - X.mean(0)) / X.std(0, correction=0)
    with torch.autocast("cpu", torch.bfloat16):
        outputs = theirs.train()(inputs)
    expected = nn.functional.cross_entropy(outputs.float(), data.train.targets).item()
    assert training.history["loss"][0] == pytest.approx(expected, rel=2e-3)  # rows in other order


def test_bf16_learns_as_fp32_does() -> None:
    full, half = (
        fit(Seen(), points(), epochs=20, lr=0.01, precision=precision)
        for precision in ("fp32", "bf16")
    )
    assert half.history != full.history
    assert half.history["loss"] == pytest.approx(full.history["loss"], abs=0.05)


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UnknownNameError, match="unknown precision 'bf61': did you mean bf16"):
        fit(Seen(), points(), precision="bf61")  # type: ignore[arg-type]


def test_compiling_without_a_compiler_is_refused(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    message = (
        r"compile=True needs a C\+\+ compiler on the CPU, found none of g\+\+, clang\+\+ and "
        r"c\+\+: install one, or leave compile out"
    )
    with pytest.raises(RequestError, match=message):
        fit(Seen(), points(), compile=True)


@pytest.mark.full
@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")  # of torch's own
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor:UserWarning")  # likewise
def test_a_compiled_training_is_close_to_one_that_is_not(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path))
    plain, compiled = net_with_dropout(), net_with_dropout()
    how: Any = {"epochs": 4, "batch_size": 16, "lr": 0.01, "average": "ema"}
    expected = fit(plain, points(), **how)
    found = fit(compiled, points(), compile=True, **how)
    assert found.settings.compile
    for name in ("loss", "validation_loss"):
        assert found.history[name] == pytest.approx(expected.history[name], rel=1e-3, abs=1e-4)
    assert compiled.state_dict().keys() == plain.state_dict().keys()


def net_with_dropout() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Dropout(0.2), nn.Linear(16, 2))
