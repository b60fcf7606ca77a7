"""The registry under SIGKILL and under many hands: the old state or the new, and no other."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from forks import ACTIONS, prepared, storm

from workbench.registry import history, list_models, version

if not hasattr(os, "fork"):
    pytest.skip("processes are forked here", allow_module_level=True)

OLD = ("net@1 champion", "net@2")
NEW = {
    "publish": (*OLD, "net@3"),
    "promote": ("net@1", "net@2 champion"),
    "retire": ("net@1 champion", "net@2 retired"),
    "import": (*OLD, "other@1"),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Give the homes as a storm has left them."""
    root = tmp_path_factory.mktemp("storm")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(root / "template"))
        prepared(root / "template")
    storm(root, NEW, processes=3, times=5)
    return root


def state() -> tuple[str, ...]:
    """Return what the registry says, all of which is whole."""
    found = []
    for made in list_models():
        assert made.load() is not None
        words = (made.ref, *made.aliases, *(["retired"] if made.retired else []))
        found.append(" ".join(words))
    return tuple(found)


@pytest.mark.parametrize("action", NEW)
def test_a_kill_leaves_the_old_state_or_the_new(
    places: Path, action: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    for place in sorted((places / action).iterdir()):
        monkeypatch.setenv("WORKBENCH_HOME", str(place))
        seen.append(state())
        ACTIONS[action]()  # whatever the killed one has left is in nobody's way
        numbers = [made.version for made in list_models() if made.name == "net"]
        assert state() == NEW[action] or (action, numbers) == ("publish", [1, 2, 3, 4])
    assert (seen[0], seen[-1]) == (OLD, NEW[action])
    turn = seen.index(NEW[action])
    assert set(seen[:turn]) == {OLD}
    assert set(seen[turn:]) == {NEW[action]}
    assert len(seen) > 5


def check_together(processes: int, times: int) -> None:
    """Check that each of the processes was alone at each moment."""
    numbers = list(range(1, processes * times + 1))
    assert [made.version for made in list_models()] == numbers
    assert all(made.load() for made in list_models())
    lines = history("net")
    moved = [line["version"] for line in lines]
    assert sorted(moved) == numbers
    assert [line["before"] for line in lines] == [None, *moved[:-1]]
    assert version("net@champion").version == moved[-1]
    assert {line["why"] for line in lines} == {f"by {worker}" for worker in range(processes)}


def test_processes_that_publish_and_promote_at_once_never_collide(
    places: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(places / "together"))
    check_together(3, 5)


@pytest.mark.full
def test_many_processes_never_collide(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    storm(tmp_path, (), processes=8, times=50)
    monkeypatch.setenv("WORKBENCH_HOME", str(tmp_path / "together"))
    check_together(8, 50)
