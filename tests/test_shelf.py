"""The shelf of a server: which version answers for a name, while others come and go."""

from __future__ import annotations

import itertools
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace

import pytest
from asking import ROWS, small_model

from workbench.serving.answers import Refusal
from workbench.serving.served import Served, served_from
from workbench.serving.shelf import Shelf


@pytest.fixture(scope="module")
def model() -> Served:
    return served_from(small_model(), name="net", example=ROWS)


def numbers(shelf: Shelf) -> list[str]:
    return [f"{served.name}@{served.version}" for served in shelf]


def test_the_highest_that_is_left_answers_once_the_default_is_gone(model: Served) -> None:
    shelf = Shelf()
    for number in ("10", "2", "9"):
        shelf.add(replace(model, version=number))
    assert numbers(shelf) == ["net@10", "net@2", "net@9"]
    shelf.take("net", "10")
    assert numbers(shelf) == ["net@9", "net@2"]
    assert (shelf.find("net").version, shelf.find("net", "2").version) == ("9", "2")
    shelf.take("net", "2")
    shelf.take("net", "7")
    assert numbers(shelf) == ["net@9"]
    shelf.take("net")
    assert "net" not in shelf
    with pytest.raises(Refusal, match="unknown model 'net': this service has no model"):
        shelf.find("net")


def test_a_model_takes_the_place_of_the_one_before(model: Served) -> None:
    shelf = Shelf()
    shelf.put(replace(model, version="1"))
    shelf.add(replace(model, version="2"))
    shelf.put(replace(model, version="3"))
    assert numbers(shelf) == ["net@3", "net@2"]
    shelf.put(replace(model, version="2"))
    assert numbers(shelf) == ["net@2"]
    shelf.add(other := replace(model, version="2"))
    assert shelf.find("net") is other
    with pytest.raises(Refusal, match="unknown version '3' of 'net': this service has '2'"):
        shelf.find("net", "3")


def test_a_name_is_on_its_way_until_the_last_of_its_loads_ends(model: Served) -> None:
    shelf = Shelf()
    with shelf.on_the_way("net"):
        with shelf.on_the_way("net"):
            pass
        assert shelf.loading
        with pytest.raises(Refusal, match="'net' is being loaded"):
            shelf.find("net")
        shelf.put(model)
        assert shelf.find("net") is model
    assert not shelf.loading


def changes(shelf: Shelf, model: Served, name: str) -> Iterator[None]:
    """Put, add, count and take models of a name without end."""
    for i in itertools.count():
        shelf.put(replace(model, name=name, version=str(i)))
        shelf.add(replace(model, name=name, version=str(i + 1)))
        shelf.tally(shelf.find(name))
        yield
        if i % 9 == 8:
            shelf.forget(name)


def test_who_looks_while_it_changes_sees_no_half_of_it(model: Served) -> None:
    """Two threads change it, as a cell and an administrator's request do; a third looks."""
    shelf, done, failed = Shelf(), threading.Event(), list[BaseException]()

    def change(name: str) -> None:
        try:
            for _ in itertools.takewhile(lambda _: not done.is_set(), changes(shelf, model, name)):
                shelf.counts()
        except BaseException as error:
            failed.append(error)

    pause = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    threads = [threading.Thread(target=change, args=(name,)) for name in ("a", "b")]
    try:
        for thread in threads:
            thread.start()
        for _ in range(3000):
            found = [served.name for served in shelf]
            assert found == sorted(found)
            assert max(map(found.count, found), default=0) <= 2
            shelf.counts()
    finally:
        done.set()
        for thread in threads:
            thread.join(20)
        sys.setswitchinterval(pause)
    assert failed == []
