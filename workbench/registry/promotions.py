"""Versions that people mean by a word: `promote` moves it, `retire` takes a version out of use."""

from __future__ import annotations

import json
from typing import Any

from workbench.errors import RequestError, UnknownNameError, WorkbenchError
from workbench.registry.aliases import Standing, append, check_alias, standing
from workbench.registry.folders import check_name, names, numbers
from workbench.registry.versions import ModelVersion, version
from workbench.types import JSON

__all__ = ["demote", "history", "promote", "restore", "retire", "rollback", "version_before"]


def promote(ref: str, alias: str, *, why: str = "", evidence: JSON | None = None) -> ModelVersion:
    """Let an alias be on a version from now on, and say in the model's log who did so and why.

    It moves at once for everybody; where it is on that version already, nothing is done.

    Args:
        ref: `"name@3"`; also by another alias, as `"name@candidate"`.
        alias: a word such as `"champion"`, no number.
        why: in a sentence, for those who read the log.
        evidence: that it is better, as JSON; by default the metrics of the version and of the one
            that the alias was on.

    Raises:
        RequestError: there is no such version, it was retired, or that cannot be an alias.
        TamperedError: a file of the version is not what was published, or the log is damaged.
    """
    check_alias(alias)
    _check_told(why, evidence)
    made = version(ref)
    made.check()

    def moved(now: Standing) -> JSON | None:
        made.check_active()
        before = now.aliases.get(alias)
        if before == made.version:
            return None
        shown = evidence if evidence is not None else _metrics(made, before)
        where = {"alias": alias, "version": made.version, "before": before}
        return {"event": "promote", **where, "why": why, "evidence": shown}

    append(made.name, moved)
    return made


def demote(ref: str, *, why: str = "") -> None:
    """Take an alias away, so that it means no version any more.

    Args:
        ref: `"name@champion"`.
        why: in a sentence, for those who read the log.

    Raises:
        RequestError: there is no such model or alias.
        TamperedError: the log is damaged.
    """
    name, _, alias = ref.partition("@")
    _check_told(why, None)
    _check_known(name)

    def gone(now: Standing) -> JSON:
        if alias not in now.aliases:
            raise UnknownNameError(f"alias of {name}", alias, now.aliases)
        before = now.aliases[alias]
        return {"event": "demote", "alias": alias, "version": before, "before": before, "why": why}

    append(name, gone)


def rollback(ref: str, *, why: str = "") -> ModelVersion:
    """Let an alias be on the version again that it was on before, and return that version.

    Asked again, it goes on to the one before that: each time one promotion is taken back.

    Args:
        ref: `"name@champion"`.
        why: in a sentence, for those who read the log.

    Raises:
        RequestError: there is no such model or alias, it was on no version before, or that one was
            retired since.
        TamperedError: a file of that version is not what was published, or the log is damaged.
    """
    _check_told(why, None)
    name, _, alias = ref.partition("@")
    made = version_before(ref)

    def back(now: Standing) -> JSON:
        if _before(now, name, alias) != made.version:
            raise RequestError(
                f"{ref} was moved by somebody else at this moment: see workbench show {ref}, and "
                "ask again"
            )
        made.check_active()
        before = now.aliases[alias]
        where = {"alias": alias, "version": made.version, "before": before, "rollback": True}
        return {"event": "promote", **where, "why": why, "evidence": _metrics(made, before)}

    append(name, back)
    return made


def version_before(ref: str) -> ModelVersion:
    """Return the version that a rollback of an alias leads to.

    Args:
        ref: `"name@champion"`.

    Raises:
        RequestError: there is no such model or alias, or it was on no version before.
        TamperedError: a file of that version is not what was published, or the log is damaged.
    """
    name, _, alias = ref.partition("@")
    _check_known(name)
    made = version(f"{name}@{_before(standing(name), name, alias)}")
    made.check()
    return made


def retire(ref: str, *, why: str = "") -> ModelVersion:
    """Take a version out of use: it is not the newest any more, nor promoted, nor served.

    It stays where it is, and is found by its number.

    Args:
        ref: `"name@3"`.
        why: in a sentence, for those who look for it.

    Raises:
        RequestError: there is no such version, or an alias is on it.
        TamperedError: the log is damaged.
    """
    made = _exact("retire", ref, why)

    def retired(now: Standing) -> JSON | None:
        on = now.of(made.version)
        if on:
            raise RequestError(
                f"{made.ref} is {', '.join(on)}, so it is in use: promote another version to that "
                f"first, or take it away with workbench demote {made.name}@{on[0]}"
            )
        known = made.version in now.retired
        return None if known else {"event": "retire", "version": made.version, "why": why}

    append(made.name, retired)
    return made


def restore(ref: str, *, why: str = "") -> ModelVersion:
    """Take a retired version into use again.

    Args:
        ref: `"name@3"`.
        why: in a sentence, for those who read the log.

    Raises:
        RequestError: there is no such version.
        TamperedError: the log is damaged.
    """
    made = _exact("restore", ref, why)

    def restored(now: Standing) -> JSON | None:
        known = made.version in now.retired
        return {"event": "restore", "version": made.version, "why": why} if known else None

    append(made.name, restored)
    return made


def history(name: str) -> list[JSON]:
    """Return the log of a model: how its aliases moved and what was retired, oldest first.

    Each line has `event` (promote, demote, retire or restore), `version`, `who`, `when`, `run` and
    `why`; those of an alias also `alias` and `before`; a promotion its `evidence`, and `rollback`
    where it takes another one back.

    Args:
        name: of the model.

    Raises:
        RequestError: there is no such model.
        TamperedError: the log is damaged.
    """
    _check_known(name)
    return [dict(line) for line in standing(name).lines]


def _before(now: Standing, name: str, alias: str) -> int:
    """Return the version that an alias was on before the one that it is on."""
    if alias not in now.aliases:
        raise UnknownNameError(f"alias of {name}", alias, now.aliases)
    been: list[int] = []  # what a rollback takes back is not in it
    for line in now.lines:
        if line.get("alias") == alias:
            if line["event"] == "demote":
                been.clear()
            elif line.get("rollback"):
                del been[-1:]
            else:
                been.append(line["version"])
    if len(been) < 2:
        raise RequestError(
            f"{name}@{alias} is {name}@{now.aliases[alias]}, and was no other version before: "
            f"promote the one that you want, as in workbench promote {name}@3 {alias}"
        )
    return been[-2]


def _exact(what: str, ref: str, why: str) -> ModelVersion:
    """Return the version of a reference that says which."""
    _check_told(why, None)
    if "@" not in str(ref):
        raise RequestError(
            f"{what} got {ref!r:.120}, expected a version's number too: {ref!s:.100}@3"
        )
    return version(ref)


def _check_known(name: Any) -> None:
    check_name(name)
    if not numbers(name):
        raise UnknownNameError("model", name, names())


def _check_told(why: Any, evidence: Any) -> None:
    if not isinstance(why, str):
        raise RequestError(f"why is a {type(why).__name__}, expected a sentence: why='...'")
    try:
        json.dumps(evidence, allow_nan=False)
        is_json = isinstance(evidence, dict | None)
    except (TypeError, ValueError, RecursionError):
        is_json = False
    if not is_json:
        raise RequestError(
            f"evidence is {evidence!r:.80}, expected a dictionary of what JSON can hold: "
            "evidence={'accuracy': 0.98}"
        )


def _metrics(made: ModelVersion, before: int | None) -> JSON:
    found: dict[str, JSON | None] = {made.ref: dict(made.metrics)}
    if before is not None:
        try:
            found[f"{made.name}@{before}"] = dict(version(f"{made.name}@{before}").metrics)
        except WorkbenchError:  # it is gone or damaged, which is a reason to move on
            found[f"{made.name}@{before}"] = None
    return found
