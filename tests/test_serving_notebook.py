"""A notebook that serves, in a real kernel: run twice it swaps; a busy cell is no hindrance."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from jupyter_client.manager import start_new_kernel

from workbench.serving import find_service

CELL = """
import gc, json, logging, signal, sys, weakref
import torch, workbench as wb
before = globals().get("service")
model = torch.nn.Linear(2, 3)
model.weight.data.fill_(globals().get("turn", 0))
turn = globals().get("turn", 0) + 1
service = wb.serve(model, name="cell", example=torch.zeros(1, 2))
other = wb.serve(torch.nn.Linear(2, 1), name="other", example=torch.zeros(1, 2))
said = service.predict([[1.0, 1.0]]).output.tolist()[0]
"""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Any]]:
    """Return what runs a cell in a kernel and gives back what it printed."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(tmp_path_factory.mktemp("home")))
        manager, client = start_new_kernel()
        try:

            def run(code: str) -> str:
                told: list[str] = []

                def hear(message: dict[str, Any]) -> None:
                    content = message["content"]
                    told.append(content.get("text", "") + "".join(content.get("traceback", [])))

                client.execute_interactive(code, timeout=60, output_hook=hear)
                return "".join(told)

            yield run
        finally:
            client.stop_channels()
            manager.shutdown_kernel(now=True)


def test_the_cell_run_twice_swaps_on_the_same_address(run: Callable[[str], str]) -> None:
    assert run(CELL) == ""  # it prints nothing
    first = run("print(service.url, service.token, said)").split(maxsplit=2)
    run("gone = weakref.ref(service._served.source.fresh())")
    assert run(CELL) == ""
    again = run("print(service.url, service.token, said)").split(maxsplit=2)
    assert first[:2] == again[:2]
    assert first[2] != again[2]
    assert run("print(service is before, other.url == service.url)").split() == ["True", "True"]
    run("del before; service._server.monitor.flush()")  # the notes of its answers are written
    assert run("gc.collect(); print(gone())").strip() == "None"


def test_the_kernel_keeps_its_loop_its_signals_and_its_log(run: Callable[[str], str]) -> None:
    run(CELL)
    said = run(
        "print(signal.getsignal(signal.SIGINT) is signal.default_int_handler,"
        " signal.getsignal(signal.SIGTERM) == signal.SIG_DFL, logging.getLogger().handlers,"
        " __import__('asyncio').get_running_loop().is_running())"
    )
    assert said.split() == ["True", "True", "[]", "True"]


def test_it_answers_while_another_cell_is_busy(
    run: Callable[[str], str], monkeypatch: pytest.MonkeyPatch
) -> None:
    run(CELL)
    home = run("import os; print(os.environ['WORKBENCH_HOME'])").strip()
    monkeypatch.setenv("WORKBENCH_HOME", home)
    listing = find_service("cell")
    code = """
import subprocess, time
bearer = "Authorization: Bearer " + service.token
words = ["curl", "-s", "--max-time", "5", "-H", bearer, "-d", "[1.0, 1.0]"]
asked = subprocess.Popen([*words, service.url + "/models/cell/predict"], stdout=subprocess.PIPE)
until = time.time() + 1
while time.time() < until or asked.poll() is None and time.time() < until + 5:
    pass  # the cell is busy, the answer comes all the same
print(asked.stdout.read().decode())
"""
    said = run(code)
    assert listing.url in run("print(service.url)")
    assert '"rows":[{' in said


def test_it_stops_with_the_kernel(monkeypatch: pytest.MonkeyPatch, tmp_path: Any) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path))
    manager, client = start_new_kernel()
    try:
        client.execute_interactive(CELL, timeout=60)
        assert find_service("cell").client().is_ready()
        client.shutdown()
        manager.finish_shutdown()
    finally:
        client.stop_channels()
        manager.shutdown_kernel(now=True)
    assert not list((tmp_path / "services").glob("*.json"))
