"""What a run's environment fixes before anything is loaded."""

from __future__ import annotations

import platform

import psutil
import pytest

from workbench.errors import RequestError, UnknownNameError
from workbench.runs import envelopes
from workbench.runs.envelopes import Envelope, make_envelope


@pytest.fixture(autouse=True)
def _unset(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in envelopes._HEEDED:
        monkeypatch.delenv(name, raising=False)


def test_the_same_machine_has_its_cores_and_what_the_user_has_set(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cores = psutil.cpu_count(logical=False) or psutil.cpu_count()
    assert make_envelope().variables == {
        **{"OMP_NUM_THREADS": str(cores), "PYTHONHASHSEED": "0"},
        "CUBLAS_WORKSPACE_CONFIG": ":4096:8",
    }
    assert make_envelope(threads=1).threads == 1
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    monkeypatch.setenv("MKL_CBWR", "AVX2")
    assert (make_envelope(threads=1).threads, make_envelope().variables["MKL_CBWR"]) == (5, "AVX2")


def test_around_it_nothing_else_decides(monkeypatch: pytest.MonkeyPatch) -> None:
    envelope = make_envelope()
    around = envelope.around({"MKL_CBWR": "COMPATIBLE", "HOME": "/me", "OMP_NUM_THREADS": "9"})
    assert around == {"HOME": "/me", **envelope.variables}
    assert Envelope.from_json(envelope.to_json()) == envelope


@pytest.mark.skipif(platform.machine() != "x86_64", reason="it is for x86 alone")
def test_any_x86_caps_what_processors_differ_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "5")
    found = make_envelope("any-x86")
    assert found.variables["OMP_NUM_THREADS"] == "1"
    assert found.variables["ATEN_CPU_CAPABILITY"] == "avx2"
    assert found.variables["ONEDNN_MAX_CPU_ISA"] == "AVX2"
    assert found.variables["MKL_CBWR"] == "COMPATIBLE"
    assert "not verified across processors" in found.note


def test_another_level_and_another_machine_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UnknownNameError, match=r"level of determinism 'any-x8': did you mean any-"):
        make_envelope("any-x8")
    monkeypatch.setattr(platform, "machine", lambda: "arm64")
    with pytest.raises(RequestError, match=r"'any-x86' is for x86 .* this is arm64: take 'same-ma"):
        make_envelope("any-x86")
    monkeypatch.setattr(platform, "machine", lambda: "x86_64")
    monkeypatch.setattr(envelopes, "processor_flags", lambda: {"sse2"})
    with pytest.raises(RequestError, match="this is x86_64 without AVX2"):
        make_envelope("any-x86")
