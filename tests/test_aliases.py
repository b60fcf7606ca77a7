"""Aliases and retirements: the log says who moved what, when, why, and its last word counts."""

from __future__ import annotations

import json
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import workbench as wb
from workbench.datasets import dataset
from workbench.errors import RequestError, TamperedError, UnknownNameError
from workbench.evaluation import evaluate
from workbench.home import home
from workbench.journal import read_lines
from workbench.models import build
from workbench.registry import (
    demote,
    history,
    list_models,
    promote,
    publish,
    resolve,
    restore,
    retire,
    rollback,
    version,
)

X = torch.randn(12, 4, generator=torch.Generator().manual_seed(0))
DATA = dataset("points", train=(X, torch.arange(12) % 3))


def published(times: int, name: str = "net") -> None:
    for _ in range(times):
        model = build("linear", DATA, seed=0)
        publish(model, name, evaluation=evaluate(model, DATA.train))


def log(name: str = "net") -> Path:
    return home() / "models" / name / "log.jsonl"


def test_an_alias_moves_and_the_log_says_how() -> None:
    published(2)
    before = datetime.now(UTC)
    assert wb.promote("net@1", "champion", why="the first") == version("net@champion")
    assert promote("net@2", "champion").ref == version("net@champion").ref == "net@2"
    first, second = history("net")
    told = {key: first[key] for key in ("event", "alias", "version", "before", "why", "run")}
    assert told == {
        **{"event": "promote", "alias": "champion", "version": 1, "before": None},
        **{"why": "the first", "run": None},
    }
    assert first["evidence"] == {"net@1": version("net@1").metrics}
    assert first["who"].partition("@")[0] == wb.registry.lineage.user().partition("@")[0]
    assert before.isoformat() <= first["when"] <= second["when"] <= datetime.now(UTC).isoformat()
    assert (second["version"], second["before"]) == (2, 1)
    assert second["evidence"] == {f"net@{n}": version(f"net@{n}").metrics for n in (2, 1)}


def test_a_version_knows_its_aliases_as_they_move() -> None:
    published(2)
    one, two = version("net@1"), version("net@2")
    for alias in ("champion", "b", "a"):
        promote("net@1", alias)
    assert (one.aliases, two.aliases) == (("a", "b", "champion"), ())
    promote("net@a", "b2")
    promote("net@2", "champion")
    demote("net@a", why="of no use")
    assert (one.aliases, two.aliases) == (("b", "b2"), ("champion",))
    last = history("net")[-1]
    assert (last["event"], last["alias"], last["why"]) == ("demote", "a", "of no use")


def test_what_is_so_already_is_not_written_again() -> None:
    published(2)
    for _ in range(2):
        promote("net@2", "champion")
        retire("net@1")
    restore("net@1")
    restore("net@1")
    assert [line["event"] for line in history("net")] == ["promote", "retire", "restore"]


def test_a_rollback_takes_one_promotion_back_each_time() -> None:
    published(4)
    for number in (1, 2, 1, 3, 4):
        promote(f"net@{number}", "champion")
    promote("net@4", "other")
    assert wb.rollback("net@champion", why="it errs at night").ref == "net@3"
    last = history("net")[-1]
    told = {key: last[key] for key in ("event", "alias", "version", "before", "why", "rollback")}
    assert told == {
        **{"event": "promote", "alias": "champion", "version": 3, "before": 4},
        **{"why": "it errs at night", "rollback": True},
    }
    assert last["evidence"] == {f"net@{n}": version(f"net@{n}").metrics for n in (3, 4)}
    assert [rollback("net@champion").version for _ in range(2)] == [1, 2]
    promote("net@4", "champion")
    assert rollback("net@champion").ref == "net@2"
    assert (version("net@champion").version, version("net@other").version) == (2, 4)


def test_what_cannot_be_rolled_back_is_refused() -> None:
    published(3)
    promote("net@1", "champion")
    with pytest.raises(RequestError, match=r"net@champion is net@1, and was no other version befo"):
        rollback("net@champion")
    promote("net@2", "champion")
    retire("net@1", why="it leaks")
    with pytest.raises(RequestError, match=r"net@1 was retired on .* \(it leaks\)"):
        rollback("net@champion")
    for ref, said in (("net@chmpion", "did you mean champion"), ("nt@x", "unknown model 'nt'")):
        with pytest.raises(UnknownNameError, match=said):
            rollback(ref)
    demote("net@champion")
    promote("net@3", "champion")  # what was before the alias was taken away does not count
    with pytest.raises(RequestError, match=r"net@champion is net@3, and was no other version befo"):
        rollback("net@champion")
    assert version("net@champion").version == 3


def test_a_rollback_of_what_moves_meanwhile_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    published(3)
    for number in (1, 2):
        promote(f"net@{number}", "champion")
    moves = iter(["net@3"])

    def slow_check(made: wb.ModelVersion) -> None:
        for ref in moves:
            promote(ref, "champion")

    monkeypatch.setattr(wb.ModelVersion, "check", slow_check)
    with pytest.raises(RequestError, match="net@champion was moved by somebody else at this mom"):
        rollback("net@champion")
    assert version("net@champion").version == 3


def test_evidence_is_what_was_given() -> None:
    published(1)
    promote("net@1", "champion", evidence={"p": 0.01, "labels": 1000})
    assert history("net")[-1]["evidence"] == {"p": 0.01, "labels": 1000}
    for strange in ({"p": float("nan")}, {"x": X}, "good", [1]):
        given: Any = strange
        with pytest.raises(RequestError, match="expected a dictionary of what JSON can hold: evi"):
            promote("net@1", "other", evidence=given)
    why: Any = None
    with pytest.raises(RequestError, match="why is a NoneType, expected a sentence: why="):
        promote("net@1", "other", why=why)
    assert version("net@1").aliases == ("champion",)


def test_a_run_is_named_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published(1)
    run = tmp_path / "20260101-000000-demo-abcd"
    run.mkdir()
    monkeypatch.setenv("WORKBENCH_RUN", str(run))
    promote("net@1", "champion")
    assert history("net")[-1]["run"] == run.name
    event = read_lines(run / "events.jsonl")[-1]
    told = {key: event[key] for key in ("event", "ref", "alias", "before")}
    assert told == {"event": "promote", "ref": "net@1", "alias": "champion", "before": None}


@pytest.mark.parametrize("alias", ["", "../x", "a/b", ".x", "a b", "é", "x\n", "n" * 101, None])
def test_what_cannot_be_a_name_cannot_be_an_alias(alias: Any) -> None:
    published(1)
    with pytest.raises(RequestError, match=r"cannot be an alias: use letters, digits"):
        promote("net@1", alias)
    assert not log().exists()


@pytest.mark.parametrize("alias", ["1", "007", "v2", "V2", "latest", "Newest"])
def test_what_reads_like_a_version_cannot_be_an_alias(alias: str) -> None:
    published(1)
    with pytest.raises(RequestError, match="cannot be an alias, since it reads like a version"):
        promote("net@1", alias)


def test_an_unknown_alias_gets_a_suggestion() -> None:
    published(2)
    promote("net@1", "champion")
    message = "unknown version of net 'champoin': did you mean champion. There are: 1, 2, champion"
    with pytest.raises(UnknownNameError, match=message):
        version("net@champoin")
    with pytest.raises(UnknownNameError, match="unknown alias of net 'champ': did you mean champi"):
        demote("net@champ")
    with pytest.raises(UnknownNameError, match="unknown alias of net '2': There are: champion"):
        demote("net@2")
    for ask in (history, demote):
        with pytest.raises(UnknownNameError, match="unknown model 'nte': did you mean net"):
            ask("nte")


def test_a_retired_version_is_out_of_use_and_still_there() -> None:
    published(3)
    retire("net@3", why="too slow")
    assert [resolve(ref) for ref in ("net", "net@3")] == [("net", 2), ("net", 3)]
    made = version("net@3")
    assert (made.retired, version("net").retired) == (True, False)
    assert [found.ref for found in list_models()] == ["net@1", "net@2", "net@3"]
    message = (
        r"net@3 was retired on 20..-..-.. \(too slow\): take another .* workbench restore net@3"
    )
    with pytest.raises(RequestError, match=message):
        promote("net@3", "champion")
    with pytest.raises(RequestError, match=message):
        made.check_active()
    assert made.load() is not None
    assert restore("net@3", why="fast enough") == version("net")
    made.check_active()


def test_without_a_version_in_use_one_must_be_named() -> None:
    published(2)
    for number in (1, 2):
        retire(f"net@{number}", why="old")
    message = (
        r"every version of net was retired, net@2 last \(old\): say which you mean, as in net@2"
    )
    with pytest.raises(RequestError, match=message):
        version("net")
    published(1)
    assert version("net").ref == "net@3"


def test_an_aliased_version_is_not_retired_before_its_alias_moved() -> None:
    published(2)
    promote("net@1", "champion")
    with pytest.raises(RequestError, match="net@1 is champion, so it is in use: promote another "):
        retire("net@1")
    promote("net@2", "champion")
    assert retire("net@1").retired


@pytest.mark.parametrize("act", [retire, restore])
def test_a_version_to_retire_or_restore_is_named_by_its_number(act: Any) -> None:
    published(1)
    with pytest.raises(
        RequestError, match=f"{act.__name__} got 'net', expected a version's number"
    ):
        act("net")
    with pytest.raises(UnknownNameError, match="unknown version of net '7'"):
        act("net@7")


def test_what_a_killed_process_left_of_a_line_is_not_read_and_cut() -> None:
    published(2)
    promote("net@1", "champion")
    whole = log().read_bytes()
    for left in (b'{"format": 1, "eve', whole[:-1], b"\0" * 20):
        log().write_bytes(whole + left)
        assert (version("net@champion").ref, len(history("net"))) == ("net@1", 1)
    promote("net@2", "champion")
    lines = log().read_bytes().splitlines()
    assert (lines[0] + b"\n", len(lines)) == (whole, 2)
    assert json.loads(lines[1])["before"] == 1


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", r"cannot be read: JSONDecodeError.*it was changed or damaged; put it back, or take"),
        ("[]", "cannot be read: TypeError"),
        ("{}", r"cannot be read: KeyError\('format'\)"),
        ('{"format": 2}', "has format 2, this workbench reads up to 1: upgrade with pip install"),
        ('{"format": 1, "event": "delete", "version": 1, "alias": "x"}', "no event of a version"),
        (
            '{"format": 1, "event": "promote", "version": "1", "alias": "x"}',
            "no event of a version",
        ),
        ('{"format": 1, "event": "promote", "version": 1, "alias": "../x"}', "no event of a vers"),
        ('{"format": 1, "event": "promote", "version": 1}', r"KeyError\('alias'\)"),
    ],
)
def test_a_log_that_was_changed_is_refused(line: str, message: str) -> None:
    published(1)
    promote("net@1", "champion")
    with log().open("a") as file:
        file.write(f"{line}\n")
    for ask in (lambda: version("net@champion"), lambda: version("net"), lambda: history("net")):
        with pytest.raises(TamperedError, match=rf"line 2 of .*log\.jsonl .*{message}"):
            ask()
    with pytest.raises(TamperedError, match="line 2 of "):
        promote("net@1", "other")
    assert version("net@1").load() is not None  # what is not the log's is not its business
    assert [made.ref for made in list_models()] == ["net@1"]


def test_a_number_that_the_log_speaks_of_is_never_given_to_another() -> None:
    published(2)
    promote("net@2", "champion")
    version("net@2").folder.rename(home() / "gone")
    with pytest.raises(
        TamperedError, match=r"net@champion is net@2, and its folder .* is gone: put"
    ):
        version("net@champion")
    published(1)
    assert version("net").ref == "net@3"
    assert history("net")[-1]["version"] == 2
    promote("net@3", "champion")
    assert history("net")[-1]["evidence"] == {"net@3": version("net@3").metrics, "net@2": None}


def test_an_alias_is_found_without_listing_or_reading() -> None:
    published(2)
    promote("net@2", "champion")
    assert resolve("net@champion") == ("net", 2)
    touched: list[str] = []
    sys.addaudithook(lambda event, given: touched.append(event) if watching else None)
    watching = True
    assert resolve("net@champion") == ("net", 2)
    watching = False
    assert not {"open", "os.listdir", "os.scandir"} & set(touched)
    line = {**history("net")[-1], "version": 1, "before": 2}
    with log().open("a") as file:  # as another process would
        file.write(json.dumps(line) + "\n")
    assert resolve("net@champion") == ("net", 1)


def test_a_full_disk_leaves_the_log_as_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    published(1)
    promote("net@1", "champion")
    whole, write = log().read_bytes(), os.write

    def full(handle: int, content: bytes) -> int:
        monkeypatch.setattr(os, "write", fails)
        return write(handle, content[:10])

    def fails(handle: int, content: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space left"):
        promote("net@1", "other")
    assert log().read_bytes() == whole


def test_what_is_loaded_by_an_alias_answers_as_that_version() -> None:
    models = [build("linear", DATA, seed=seed) for seed in (0, 1)]
    for model in models:
        publish(model, "net")
    promote("net@1", "champion")
    assert torch.equal(wb.predict(version("net@champion").load(), X).output, ask(models[0]))
    promote("net@2", "champion")
    assert torch.equal(wb.predict(version("net@champion").load(), X).output, ask(models[1]))


def ask(model: nn.Module) -> torch.Tensor:
    return wb.predict(model, X).output
