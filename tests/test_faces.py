"""What every face does with what a page asks for, without a browser."""

from __future__ import annotations

import re
import threading
from pathlib import Path

import pytest
from kernels import SETUP, Kernel

from workbench import widgets
from workbench.errors import RequestError
from workbench.types import JSON
from workbench.widgets.faces import Face, action, checked_place, css

WIDGETS = Path(widgets.__file__).parent


class Divider(Face):
    """Shows twelve divided by what the page asks for."""

    def __init__(self) -> None:
        super().__init__()
        self._by = 3
        self.refresh()

    @action
    def divide(self, by: int) -> None:
        """Divide by this from now on."""
        if by < 0:
            raise RequestError(f"by is {by}, expected 0 or more")
        self._by = by

    def draw(self) -> JSON:
        return {"title": "Twelve", "is": 12 // self._by}


def asked(face: Face, number: int, name: str, *, asker: str = "one", **what: object) -> None:
    face._answer(None, {"ask": name, "asker": asker, "number": number, **what}, [])
    assert face.answered[asker] == number  # else the page would wait for ever


def test_what_is_asked_for_is_done_and_shown() -> None:
    face = Divider()
    asked(face, 1, "divide", by=4)
    assert (face.shown["is"], face.problem) == (3, "")


def test_what_is_asked_again_is_not_done_again() -> None:
    face = Divider()
    asked(face, 1, "divide", by=4)
    asked(face, 2, "divide", by=2)
    face._answer(None, {"ask": "divide", "asker": "one", "number": 1, "by": 4}, [])
    assert (face.shown["is"], face.answered) == (6, {"one": 2})
    asked(face, 1, "divide", asker="two", by=6)  # another output counts for itself
    assert (face.shown["is"], face.answered) == (2, {"one": 2, "two": 1})


def test_what_is_asked_again_is_answered_with_all_that_is_shown(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The first answer may have got lost, and what it told."""
    face, told = Divider(), list[object]()
    asked(face, 1, "divide", by=4)
    monkeypatch.setattr(face, "send_state", told.append)
    asked(face, 1, "divide", by=4)
    assert [sorted(names) for names in told] == [["answered", "problem", "shown"]]  # type: ignore[call-overload]


def test_a_page_that_stays_is_told_all_and_looked_for_a_while(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    face, told = Divider(), list[object]()
    monkeypatch.setattr(face, "send_state", told.append)
    assert not face.is_seen
    face.stay()
    assert (face.is_seen, len(told)) == (True, 1)
    face.close()
    assert not face.is_seen


def test_an_error_stays_as_long_as_nothing_else_is_asked_for() -> None:
    face = Divider()
    asked(face, 1, "divide", by=-1)
    asked(face, 2, "stay")
    assert face.problem == "by is -1, expected 0 or more"
    assert face.is_seen
    asked(face, 3, "divide", by=1)
    assert face.problem == ""


def test_why_a_view_cannot_catch_up_stands_there_until_it_can(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    face = Divider()
    face._by = 0
    with pytest.raises(ZeroDivisionError):
        face.look()
    assert face.problem.startswith("ZeroDivisionError")
    face._by = 2
    face.look()
    assert (face.problem, face.shown["is"]) == ("", 6)


def test_what_is_asked_again_while_it_is_being_done_is_done_once() -> None:
    """The page asks in one subshell and then in another, which are two threads."""
    begun, until, deeds = threading.Event(), threading.Event(), list[int]()

    class Slow(Divider):
        @action
        def divide(self, by: int) -> None:
            deeds.append(by)
            begun.set()
            until.wait(20)

    face, asks = Slow(), {"ask": "divide", "asker": "one", "number": 1, "by": 4}
    threads = [threading.Thread(target=face._answer, args=(None, asks, [])) for _ in range(2)]
    threads[0].start()
    assert begun.wait(20)
    threads[1].start()
    threads[1].join(0.1)  # long enough to be done, were it not for the first
    until.set()
    for thread in threads:
        thread.join(20)
    assert (deeds, face.answered) == ([4], {"one": 1})


def test_who_asked_long_ago_is_forgotten() -> None:
    face = Divider()
    for number in range(1, 101):
        asked(face, 1, "divide", asker=f"output {number}", by=number)
    assert list(face.answered) == [f"output {number}" for number in range(85, 101)]


@pytest.mark.parametrize("made", ["wb.load('digits').show()", "wb.widgets.view([training])"])
def test_a_page_is_heard_in_its_own_subshell(made: str) -> None:
    """Whatever other one, which may be gone, the widget last spoke in."""
    kernel = Kernel({"WORKBENCH_HEADLESS": None})
    try:
        kernel.run(f"{SETUP}\ntraining = wb.fit(Net(), data, epochs=1).wait()\nview = {made}")
        kernel.run("view.comm._reply_subshell_id = 'gone'")
        kernel.run("route = getattr(view.comm, '_reply_subshell_for', lambda data, named: named)")
        assert kernel.value("route({'method': 'custom'}, 'its own')") == "its own"
    finally:
        kernel.close()


def test_an_error_is_told_and_leaves_what_is_shown() -> None:
    face = Divider()
    asked(face, 1, "divide", by=-1)
    assert (face.shown["is"], face.problem) == (4, "by is -1, expected 0 or more")
    asked(face, 2, "refresh")
    assert face.problem == "Divider has no action 'refresh'"


def test_what_cannot_be_drawn_is_answered_too(caplog: pytest.LogCaptureFixture) -> None:
    face = Divider()
    asked(face, 1, "divide", by=0)
    assert face.shown["is"] == 4
    assert face.problem.startswith("ZeroDivisionError")
    assert "Divider failed at divide" in caplog.text
    asked(face, 2, "divide", by=6)
    assert (face.shown["is"], face.problem) == (2, "")


def test_a_place_that_is_not_there_is_refused() -> None:
    assert checked_place("page", 2, 3) == 2
    for place in (-1, 3):
        with pytest.raises(RequestError, match=rf"^page {place} is not there: there are 3, from 0"):
            checked_place("page", place, 3)


def test_no_style_names_its_own_element_otherwise() -> None:
    """Such a rule would be looked for inside of that element."""
    faces = {path.stem for path in WIDGETS.glob("*.css")} - {"base", "charts", "run_lines"}
    roots = "|".join({"face", *faces})
    for path in WIDGETS.glob("*.css"):
        found = re.findall(rf"\.wb-(?:{roots})(?=[ .:\[)])", path.read_text("utf-8"))
        assert path.stem == "base" or not found, (path.name, found)


def test_a_style_is_for_its_own_face_alone() -> None:
    style = css("charts", "training")
    shared, _, own = style.partition("@scope (.wb-training) to (:scope .wb-face)")
    assert ".wb-face {" in shared
    assert ".wb-bar" in own
    assert ".wb-bar" not in shared
