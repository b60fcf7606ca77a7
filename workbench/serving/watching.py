"""The endpoints that watch a service, and that try one version against another."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from typing import Any, get_args

from workbench.errors import RequestError, UnknownNameError, WorkbenchError
from workbench.registry import promote, resolve, version
from workbench.registry.drifts import WINDOW
from workbench.registry.promotions import rollback
from workbench.registry.verdicts import Rule, Verdict, judge
from workbench.serving.answers import Answer, Refusal, json_answer
from workbench.serving.fleets import Fleet
from workbench.serving.metrics import exposition
from workbench.serving.monitoring import TICK, Monitor
from workbench.serving.requests import Request, Route
from workbench.serving.served import Served
from workbench.serving.shelf import Challenge, Mode, Shelf
from workbench.serving.tensors import read_json
from workbench.types import JSON

__all__ = ["Watching"]

_MAX_BODY = 2**20  # bytes: labels of one request's rows at most
_MAX_ANSWERS = 10_000  # that one request lists
_GROUP = 100  # letters of a group's name


class Watching:
    """Says how a service does, takes labels that come later, and tries challengers.

    Args:
        shelf: of the server.
        monitor: that writes its answers down.
        fleet: the processes that answer.
        alias: that a promotion moves, where none is named.
    """

    def __init__(self, shelf: Shelf, monitor: Monitor, fleet: Fleet, *, alias: str) -> None:
        self._shelf, self._monitor, self._fleet = shelf, monitor, fleet
        self._alias = alias

    def routes(self) -> Sequence[Route]:
        """Return the routes of these endpoints."""
        model = "/models/{model}"
        return [
            Route("GET", "/metrics", self.metrics),
            Route("GET", f"{model}/monitor", self.monitor),
            Route("GET", f"{model}/answers", self.answers),
            Route("POST", f"{model}/feedback", self.feedback),
            Route("GET", f"{model}/challenger", self.challenger),
            Route("PUT", f"{model}/challenger", self.challenge),
            Route("DELETE", f"{model}/challenger", self.end),
            Route("POST", f"{model}/challenger/promote", self.promote),
            Route("POST", f"{model}/rollback", self.rollback),
        ]

    async def metrics(self, request: Request) -> Answer:
        """Tell what was counted, in the words of Prometheus."""
        body, media_type = await asyncio.to_thread(
            lambda: exposition(
                self._fleet.counts(),
                list(self._shelf),
                {served.name: self._watched(served) for served in self._defaults()},
                request.header(b"accept") or "",
            )
        )
        return Answer(body, media_type=media_type)

    async def monitor(self, request: Request) -> Answer:
        """Tell of the default of a name: drift, live accuracy, and what it is tried against."""
        served = self._shelf.find(request.params["model"])
        return json_answer(await asyncio.to_thread(self._whole, served))

    async def answers(self, request: Request) -> Answer:
        """List the last answers of a name, newest first, with the labels that came later."""
        name = self._shelf.find(request.params["model"]).name
        for key in request.query.keys() - {"last", "version"}:
            raise UnknownNameError("query parameter", key, ("last", "version"))
        last = _whole_number(request.query, "last", 100, most=_MAX_ANSWERS)
        version = request.query.get("version")
        found = await asyncio.to_thread(self._last, name, last, version)
        return json_answer({"answers": found})

    async def feedback(self, request: Request) -> Answer:
        """Take what the rows of an earlier request turned out to be."""
        served = self._shelf.find(request.params["model"])
        told = await _read(request, {"id", "label", "group"})
        identity, label, group = told.get("id"), told.get("label"), told.get("group")
        if not isinstance(identity, str) or label is None:
            raise RequestError(
                'feedback is {"id": the X-Request-Id of an answer, "label": what it turned out to '
                "be}, a list of labels for several rows"
            )
        if not (group is None or (isinstance(group, str) and 0 < len(group) <= _GROUP)):
            raise RequestError(f"group is {group!r:.80}: expected a text of 1 to {_GROUP} letters")
        _check_labels(label, served)
        return json_answer({"labels": await self._kept(served.name, identity, label, group)})

    async def challenger(self, request: Request) -> Answer:
        """Tell how a challenger does beside the default, on the same requests."""
        served, challenge = self._tried(request)
        return json_answer(await asyncio.to_thread(self._compared, served, challenge, Rule()))

    async def challenge(self, request: Request) -> Answer:
        """Try a version beside the default of its name."""
        _check_admin(request)
        served = self._shelf.find(request.params["model"])
        told = await _read(request, {"version", "mode", "share"})
        mode, share = told.get("mode", "shadow"), told.get("share", 1.0)
        if mode not in get_args(Mode):
            raise UnknownNameError("mode", str(mode), get_args(Mode))
        if isinstance(share, bool) or not (isinstance(share, int | float) and 0 < share <= 1):
            raise RequestError(f"share is {share!r:.40}: expected a number above 0, at most 1")
        ref = await asyncio.to_thread(_exact, served, told.get("version"))
        since = await asyncio.to_thread(self._monitor.ledger(served.name).order, {"do": "mark"})
        told = {"ref": ref, "name": served.name, "mode": mode, "share": share, "since": since}
        await self._fleet.give({"do": "challenge", **told})
        return await self.challenger(request)

    async def end(self, request: Request) -> Answer:
        """Try nothing beside the default any more."""
        _check_admin(request)
        served, _ = self._tried(request)
        await self._fleet.give({"do": "end challenge", "name": served.name})
        return json_answer({})

    async def promote(self, request: Request) -> Answer:
        """Make the challenger the default if it does better by the rule, or say why not."""
        _check_admin(request)
        served, challenge = self._tried(request)
        told = await _read(request, {"p", "labels", "alias"})
        rule = Rule(**{key: told[key] for key in ("p", "labels") if key in told})
        alias = told.get("alias", self._alias)
        if not isinstance(alias, str):
            raise RequestError(f"alias is {alias!r:.80}: expected a word such as {self._alias!r}")
        verdict = await asyncio.to_thread(self._verdict, served, challenge, rule)
        if not verdict.promote:
            raise Refusal(409, verdict.reason)
        ref = challenge.served.model
        await asyncio.to_thread(
            lambda: promote(ref, alias, why=verdict.reason, evidence=verdict.evidence)
        )
        await self._fleet.give({"do": "put", "ref": ref, "name": served.name})
        told = {"promoted": ref, "reason": verdict.reason, "evidence": verdict.evidence}
        return json_answer(told)

    async def rollback(self, request: Request) -> Answer:
        """Let an alias be on the version again that it was on before, and that be the default."""
        _check_admin(request)
        served = self._shelf.find(request.params["model"])
        told = await _read(request, {"alias", "why"})
        alias, why = told.get("alias", self._alias), told.get("why", "")
        name = _registered(served)
        now = await asyncio.to_thread(lambda: rollback(f"{name}@{alias}", why=why))
        await self._fleet.give({"do": "put", "ref": now.ref, "name": served.name})
        return json_answer({"now": now.ref, "before": served.model})

    def _defaults(self) -> list[Served]:
        return list({served.name: served for served in reversed(list(self._shelf))}.values())

    def _tried(self, request: Request) -> tuple[Served, Challenge]:
        """Return the default of a name and what is tried beside it."""
        served = self._shelf.find(request.params["model"])
        challenge = self._shelf.challenge(served.name)
        if challenge is None:
            raise Refusal(
                404,
                f"nothing is tried beside {served.ref}: PUT a version to /models/{served.name}"
                "/challenger",
            )
        return served, challenge

    def _watched(self, served: Served) -> JSON:
        """Return what is known of a version's drift and live accuracy."""
        ledger = self._monitor.ledger(served.name)
        windows = ledger.windows(version=served.version, last=1)
        return {
            "version": served.version,
            "drift": windows[0] if windows else None,
            "accuracy": ledger.accuracy(served.version),
        }

    def _whole(self, served: Served) -> JSON:
        self._monitor.flush()
        ledger, challenge = self._monitor.ledger(served.name), self._shelf.challenge(served.name)
        return {
            "model": served.ref,
            "run": (served.card.get("lineage") or {}).get("run"),
            **self._watched(served),
            "windows": ledger.windows(version=served.version),
            "looking": {"rows": ledger.looking(served.version), "window": WINDOW}
            if _has_reference(served)
            else None,
            "challenger": None if challenge is None else self._compared(served, challenge, Rule()),
            "log": {"dropped": self._monitor.dropped, "trouble": self._monitor.trouble},
        }

    def _last(self, name: str, last: int, version: str | None) -> list[JSON]:
        self._monitor.flush()
        return self._monitor.ledger(name).answers(last=last, version=version)

    async def _kept(self, name: str, identity: str, label: Any, group: str | None) -> int:
        """Keep feedback; an answer that another process gave is known after its next tick."""
        ledger = self._monitor.ledger(name)
        await asyncio.to_thread(self._monitor.flush)
        with contextlib.suppress(UnknownNameError):
            return await asyncio.to_thread(ledger.feedback, identity, label, group)
        await asyncio.sleep(2 * TICK)
        try:
            return await asyncio.to_thread(ledger.feedback, identity, label, group)
        except UnknownNameError as error:
            raise Refusal(404, str(error)) from None

    def _compared(self, served: Served, challenge: Challenge, rule: Rule) -> JSON:
        verdict = self._verdict(served, challenge, rule)
        return {
            "champion": served.ref,
            "challenger": challenge.served.ref,
            "mode": challenge.mode,
            "share": challenge.share,
            "promote": verdict.promote,
            "reason": verdict.reason,
            "evidence": verdict.evidence,
        }

    def _verdict(self, served: Served, challenge: Challenge, rule: Rule) -> Verdict:
        self._monitor.flush()
        scores = self._monitor.ledger(served.name).comparison(
            served.version,
            challenge.served.version,
            since=challenge.since,
            mode=challenge.mode,
            labels=rule.labels,
        )
        return judge(rule, scores)


def _check_admin(request: Request) -> None:
    if not request.is_admin:
        raise Refusal(
            403,
            "this needs the administrator's token: start the service with admin_token=, or with "
            "WORKBENCH_ADMIN_TOKEN, and send that one",
        )


def _check_labels(label: Any, served: Served) -> None:
    """Raise where a label is none that the model could have said."""
    if not served.classes:
        return
    for one in label if isinstance(label, list) else [label]:
        if one not in served.classes:
            raise UnknownNameError("label", str(one), served.classes)


def _has_reference(served: Served) -> bool:
    """Return whether there is anything that drift is measured from; a live model has nothing."""
    with contextlib.suppress(WorkbenchError):  # the version is gone, and answers still
        return served.version != "0" and version(served.model).reference is not None
    return False


def _registered(served: Served) -> str:
    """Return the name in the registry of what answers."""
    name, at, _ = served.model.partition("@")
    if not at:
        raise Refusal(409, f"{served.name!r} is a live model, which has no versions: publish it")
    return name


def _exact(served: Served, version: Any) -> str:
    """Return the reference by number of a version that is named by number or alias."""
    if isinstance(version, bool) or not isinstance(version, str | int):
        raise RequestError(
            f"version is {version!r:.80}: expected the challenger's number, or an alias of it"
        )
    name, number = resolve(f"{_registered(served)}@{version}")
    return f"{name}@{number}"


def _whole_number(query: JSON, name: str, default: int, *, most: int) -> int:
    said = query.get(name)
    if said is None:
        return default
    if not (said.isascii() and said.isdigit() and len(said) <= 9 and 0 < int(said) <= most):
        raise RequestError(f"{name} is {said!r:.40}: expected a whole number from 1 to {most}")
    return int(said)


async def _read(request: Request, known: set[str]) -> JSON:
    """Return a request's JSON object; of an empty body an empty one."""
    told: JSON = read_json((await request.body(most=_MAX_BODY)) or b"{}", dict)
    for name in told:
        if name not in known:
            raise UnknownNameError("field", name, sorted(known))
    for name, value in told.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"{name} is {value}: expected a finite number")
    return told
