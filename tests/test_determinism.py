"""Seeds, the device, and what is remembered beside a model."""

from __future__ import annotations

import copy
import gc
import random
import subprocess
import sys
import weakref

import numpy as np
import pytest
import torch
from torch import nn

from workbench.attached import attached
from workbench.determinism import generator, seed_everything
from workbench.devices import choose_device, hardware
from workbench.errors import RequestError


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


def test_a_seed_decides_every_global_generator() -> None:
    seed_everything(7)
    first = draws()
    seed_everything(7)
    assert draws() == first
    seed_everything(8)
    assert all(a != b for a, b in zip(draws(), first, strict=True))


def test_a_generator_is_a_function_of_its_purpose() -> None:
    def numbers(*purpose: int | str) -> list[int]:
        drawn: list[int] = torch.randint(2**62, (4,), generator=generator(0, *purpose)).tolist()
        return drawn

    assert numbers("order", 1) == numbers("order", 1)
    others = [numbers("order", 2), numbers("order"), numbers("order", "1"), numbers("draws", 1)]
    assert numbers("order", 1) not in others


def test_a_generator_leaves_the_global_one_alone() -> None:
    before = torch.get_rng_state()
    torch.randperm(10, generator=generator(0, "order"))
    assert torch.equal(torch.get_rng_state(), before)


def test_a_generator_is_the_same_in_every_process() -> None:
    code = (
        "from workbench.determinism import generator as g; print(g(3, 'order', 2).initial_seed())"
    )
    said = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = {sys.path}\n{code}"],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert int(said.stdout) == generator(3, "order", 2).initial_seed()


def test_the_device_is_the_one_named() -> None:
    assert choose_device("cpu") == choose_device(torch.device("cpu")) == torch.device("cpu")
    expected = "cuda" if torch.cuda.is_available() else "cpu"
    assert choose_device() == torch.device(expected)


@pytest.mark.parametrize("name", ["banana", "cuda:99"])
def test_a_device_that_is_not_there_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match=f"device '{name}' cannot be used here: .*device='cpu'"):
        choose_device(name)


def test_the_hardware_is_described() -> None:
    told = hardware()
    assert told["threads"] == torch.get_num_threads()
    assert told["instruction_set"] == torch.backends.cpu.get_cpu_capability()
    assert told["cores"] >= 1
    assert len(told["gpus"]) == torch.cuda.device_count()


def test_what_is_attached_is_of_one_model_and_not_in_its_state() -> None:
    model = nn.Linear(2, 1)
    attached(model).version = "net@3"
    assert attached(model).version == "net@3"
    assert attached(copy.deepcopy(model)).version is None
    assert set(model.state_dict()) == {"weight", "bias"}


def test_what_is_attached_does_not_keep_a_model_alive() -> None:
    model = nn.Linear(2, 1)
    attached(model).example = torch.zeros(1, 2)
    gone = weakref.ref(model)
    del model
    gc.collect()
    assert gone() is None
