"""A shelf that follows an alias: what moves it, and what does not."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable

import pytest
from supervised import publish
from waiting import once

import workbench as wb
from workbench.home import home
from workbench.serving.served import Served, served_from
from workbench.serving.shelf import Shelf
from workbench.supervision.following import Follower

Load = Callable[[str, str | None], Served]


def shelf_with(ref: str) -> Shelf:
    """Return a shelf with one version, three being published and the first the champion."""
    for number in (1, 2, 3):
        publish("moody", number)
    wb.promote("moody@1", "champion")
    shelf = Shelf()
    shelf.put(served_from(ref))
    return shelf


def here(shelf: Shelf) -> list[str]:
    return [served.model for served in shelf.versions("moody")]


def noting(loaded: list[str]) -> Load:
    def load(ref: str, name: str | None) -> Served:
        loaded.append(ref)
        return served_from(ref, name=name)

    return load


def test_a_shelf_goes_where_the_alias_goes_and_keeps_nothing_of_before() -> None:
    shelf, loaded = shelf_with("moody@1"), list[str]()
    follower = Follower(shelf, "moody@champion", name="moody", load=noting(loaded))
    follower.look()
    assert (here(shelf), loaded) == (["moody@1"], [])
    wb.promote("moody@3", "champion")
    follower.look()
    follower.look()
    assert (here(shelf), loaded, follower.trouble) == (["moody@3"], ["moody@3"], None)
    wb.promote("moody@1", "champion")
    follower.look()
    assert here(shelf) == ["moody@1"]


def test_a_version_that_waits_beside_is_not_loaded_again() -> None:
    shelf, loaded = shelf_with("moody@1"), list[str]()
    challenger = served_from("moody@2")
    shelf.add(challenger)
    wb.promote("moody@2", "champion")
    Follower(shelf, "moody@champion", name="moody", load=noting(loaded)).look()
    assert shelf.find("moody") is challenger
    assert loaded == []


def test_the_newest_version_is_followed_by_the_name_alone() -> None:
    shelf = shelf_with("moody@3")
    publish("moody", 4)
    Follower(shelf, "moody", name="moody").look()
    assert here(shelf) == ["moody@4"]


def test_a_broken_version_changes_nothing_is_said_once_and_tried_ever_less_often(
    caplog: pytest.LogCaptureFixture,
) -> None:
    shelf, loaded = shelf_with("moody@1"), list[str]()
    follower = Follower(shelf, "moody@champion", name="moody", load=noting(loaded))
    wb.promote("moody@2", "champion")
    weights = home() / "models/moody/2/weights.safetensors"
    content = weights.read_bytes()
    weights.write_bytes(b"")
    for _ in range(15):
        follower.look()
    assert loaded == ["moody@2"] * 4  # at the looks 1, 2, 4 and 8
    assert here(shelf) == ["moody@1"]
    assert [record.levelno for record in caplog.records] == [logging.ERROR]
    told = "moody@2 does not answer for moody@champion, the version before does: "
    assert (follower.trouble or "").startswith(told)
    weights.write_bytes(content)
    follower.look()
    assert (here(shelf), follower.trouble) == (["moody@2"], None)


def test_an_alias_that_is_gone_or_back_leaves_what_answers() -> None:
    shelf = shelf_with("moody@1")
    follower = Follower(shelf, "moody@champion", name="moody")
    wb.promote("moody@2", "champion")
    shutil.move(home() / "models/moody/2", home() / "elsewhere")
    follower.look()
    assert "its folder" in (follower.trouble or "")
    wb.promote("moody@1", "champion")
    follower.look()
    assert (here(shelf), follower.trouble) == (["moody@1"], None)


def test_a_model_that_raises_at_its_first_answer_is_none(caplog: pytest.LogCaptureFixture) -> None:
    shelf = shelf_with("moody@1")

    def raising(ref: str, name: str | None) -> Served:
        raise ArithmeticError("at the first row")

    follower = Follower(shelf, "moody@champion", name="moody", load=raising)
    wb.promote("moody@2", "champion")
    follower.look()
    assert here(shelf) == ["moody@1"]
    assert (follower.trouble or "").endswith("ArithmeticError: at the first row")
    assert "Traceback" in caplog.text


def test_a_name_that_an_administrator_has_taken_away_stays_away() -> None:
    shelf = shelf_with("moody@1")
    shelf.take("moody")
    wb.promote("moody@2", "champion")
    Follower(shelf, "moody@champion", name="moody").look()
    assert here(shelf) == []


def test_it_follows_by_itself_until_it_is_closed() -> None:
    shelf = shelf_with("moody@1")
    follower = Follower(shelf, "moody@champion", name="moody")
    follower.start()
    wb.promote("moody@2", "champion")
    once(lambda: here(shelf) == ["moody@2"])
    follower.close()
    wb.promote("moody@3", "champion")
    follower._thread.join(20)
    assert here(shelf) == ["moody@2"]
