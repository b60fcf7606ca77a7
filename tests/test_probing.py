"""The probe: what it chooses by which timings, what it remembers, and that it leaves no trace."""

from __future__ import annotations

import random
import time
from contextlib import AbstractContextManager
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from workbench import probing
from workbench.determinism import seed_everything
from workbench.devices import hardware, threads
from workbench.errors import RequestError
from workbench.home import data_home, read_json, write_json
from workbench.probing import Configuration, Probe, choose, probe

FP32, FP32_LAST = Configuration("fp32", False, 2), Configuration("fp32", True, 2)
BF16, BF16_LAST = Configuration("bf16", False, 2), Configuration("bf16", True, 2)
ONE = Configuration("fp32", False, 1)


pytestmark = pytest.mark.usefixtures("own_data")


def chosen(found: Probe) -> Configuration:
    return Configuration(found.precision, found.channels_last, found.threads)


def test_the_fastest_is_chosen() -> None:
    found = choose({FP32: 0.004, FP32_LAST: 0.0032, BF16: 0.0025, BF16_LAST: 0.0019})
    assert chosen(found) == BF16_LAST
    assert found.sentence == (
        "bf16, channels_last and 2 threads: 1.7 times as fast as fp32 "
        "(1.9 ms against 3.2 ms a step)"
    )
    assert found.seconds["fp32, contiguous and 2 threads"] == 0.004


@pytest.mark.parametrize(
    ("seconds", "precision"), [(0.0099, "bf16"), (0.0101, "fp32"), (0.44, "fp32")]
)
def test_bf16_must_be_a_tenth_faster(seconds: float, precision: str) -> None:
    assert choose({FP32: 0.011, BF16: seconds}).precision == precision


@pytest.mark.parametrize(("seconds", "expected"), [(0.0099, ONE), (0.0101, FP32)])
def test_one_thread_must_be_a_tenth_faster(seconds: float, expected: Configuration) -> None:
    assert chosen(choose({ONE: seconds, FP32: 0.011})) == expected


@pytest.mark.parametrize(
    ("bf16", "slower", "reason"),
    [
        ({BF16: 0.44}, None, "bf16 took 44 times as long"),
        ({BF16: 0.0095}, None, "bf16 was only 1.05 times as fast"),
        ({}, 9.04, "bf16 took 9.0 times as long on a tiny step"),
        ({}, None, "bf16 was not timed"),
    ],
)
def test_a_refusal_says_why(
    bf16: dict[Configuration, float], slower: float | None, reason: str
) -> None:
    found = choose({FP32: 0.01, **bf16}, slower)
    assert found.sentence == f"fp32, contiguous and 2 threads: 10 ms a step; {reason}"


def test_a_busy_machine_gets_all_its_threads() -> None:
    found = choose({ONE: 0.01, FP32: 0.2}, busy=True)
    assert chosen(found) == FP32
    assert "`workbench doctor --fresh`" in found.sentence


def test_nothing_is_chosen_without_a_timing_in_fp32() -> None:
    with pytest.raises(ValueError, match="no timing in fp32 among bf16, contiguous and 2 threads"):
        choose({BF16: 1.0})
    assert choose({ONE: 0.1}).sentence.startswith("fp32, contiguous and 1 thread: 100 ms a step")


def test_a_stall_and_the_warm_up_do_not_count() -> None:
    rounds = [{FP32: 9.0, BF16: 1.0, ONE: 18.0}, {FP32: 0.2, BF16: 0.1}]
    rounds += [{FP32: 4.0, BF16: 2.0}, {FP32: 0.2, BF16: 0.1}]  # a stall that hits all alike
    assert probing._typical(rounds) == {FP32: 0.2, BF16: 0.1, ONE: 0.4}  # ONE has no other
    assert probing._typical(rounds[:2]) == {FP32: 0.2, BF16: 0.1, ONE: 0.4}


def test_few_or_uneven_timings_are_noticed() -> None:
    rounds = [{FP32: 9.0}, {FP32: 0.2}, {FP32: 0.25}, {FP32: 0.3}]
    assert not probing._disturbed(rounds)
    assert probing._disturbed(rounds[:3])
    assert probing._disturbed([*rounds, {FP32: 0.31}, {FP32: 0.31}, {FP32: 0.31}])


def test_this_machine_is_timed() -> None:
    start = time.perf_counter()
    found = probe("cpu")
    assert time.perf_counter() - start < 5  # under one where nothing else runs
    assert str(chosen(found)) in found.seconds or "uneven" in found.sentence
    assert found.sentence.startswith(f"{chosen(found)}: ")
    assert 1 <= found.threads <= torch.get_num_threads()
    assert all(0 < seconds < 5 for seconds in found.seconds.values())


@pytest.mark.usefixtures("quick")
def test_an_answer_is_remembered_until_asked_afresh() -> None:
    first = probe("cpu")
    assert probe("cpu") == first  # to the last digit of each timing
    assert probe("cpu", fresh=True).seconds != first.seconds
    assert len(read_json(data_home() / "probe.json")["probes"]) == 1


@pytest.mark.usefixtures("quick")
def test_machines_that_share_a_folder_keep_their_own() -> None:
    first = probe("cpu")
    path = data_home() / "probe.json"
    kept = read_json(path)
    assert kept["probes"][0]["machine"] == {
        **hardware(), "torch": str(torch.__version__), "device": "cpu",
    }  # fmt: skip
    kept["probes"][0]["machine"]["processor"] = "another"
    write_json(path, kept)
    assert probe("cpu").seconds != first.seconds
    mine, other = reversed(read_json(path)["probes"])
    assert (other["probe"]["sentence"], mine["machine"]["processor"]) == (
        first.sentence,
        hardware()["processor"],
    )


@pytest.mark.parametrize(
    ("written", "damaged"),
    [
        ("", ""),
        ("{", "["),
        ("workbench-probe-1", "workbench-probe-9"),
        ('"precision": "', '"precision": "fp16'),
        ('"threads": ', '"threads": -'),
        ('"channels_last": ', '"channels_last": 1'),
    ],
)
@pytest.mark.usefixtures("quick")
def test_a_damaged_memory_is_timed_anew(written: str, damaged: str) -> None:
    probe("cpu")
    path = data_home() / "probe.json"
    path.write_text(path.read_text().replace(written, damaged) if written else "")
    found = probe("cpu")
    assert found.precision in ("fp32", "bf16")
    assert found.threads >= 1
    assert read_json(path)["probes"][0]["probe"]["sentence"] == found.sentence
    assert probe("cpu") == found


@pytest.mark.usefixtures("quick")
def test_a_folder_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("WORKBENCH_DATA", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match=r"cannot be remembered in .*probe\.json .*WORKBENCH_DATA"):
        found = probe("cpu")
    assert found.precision in ("fp32", "bf16")


def test_the_device_must_be_there() -> None:
    with pytest.raises(RequestError, match="device 'cuda:99' cannot be used here"):
        probe("cuda:99")


def draws() -> tuple[float, float, float]:
    return random.random(), float(np.random.rand()), float(torch.rand(()))


@pytest.mark.usefixtures("quick")
def test_timing_leaves_no_trace() -> None:
    seed_everything(3)
    expected = draws()
    seed_everything(3)
    more = (psutil.cpu_count(logical=False) or 1) + 1  # than any that is timed
    with threads(more):
        probe("cpu")
        assert torch.get_num_threads() == more
    assert draws() == expected
    assert torch.is_grad_enabled()
    assert not torch.is_autocast_enabled("cpu")
    assert torch.is_autocast_cache_enabled()


@pytest.mark.parametrize(
    "mode", [torch.no_grad(), torch.inference_mode(), torch.autocast("cpu", torch.bfloat16)]
)
@pytest.mark.usefixtures("quick")
def test_it_can_be_asked_within_any_mode(mode: AbstractContextManager[object]) -> None:
    def modes() -> tuple[bool, bool, bool]:
        return (
            torch.is_grad_enabled(),
            torch.is_inference_mode_enabled(),
            torch.is_autocast_enabled("cpu"),
        )

    with mode:
        before = modes()
        assert probe("cpu").seconds
        assert modes() == before
