"""The endpoints that watch a service, and that try one version against another."""

from __future__ import annotations

import asyncio
import contextlib
import math
from collections.abc import Sequence
from typing import Any, get_args

from workbench.errors import (
    RequestError,
    ServiceError,
    TamperedError,
    UnknownNameError,
    WorkbenchError,
)
from workbench.registry import promote, resolve, version
from workbench.registry.drifts import WINDOW
from workbench.registry.ledgers import Ledger
from workbench.registry.promotions import rollback, version_before
from workbench.registry.verdicts import Rule, Verdict, judge
from workbench.serving.answers import Answer, Refusal, json_answer
from workbench.serving.fleets import Fleet
from workbench.serving.metrics import exposition
from workbench.serving.monitoring import TICK, Monitor
from workbench.serving.requests import Request, Route
from workbench.serving.served import Served
from workbench.serving.shelf import Challenge, Mode, Shelf
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
        follows: the alias whose version is the default, wherever it moves; None for none.
    """

    def __init__(
        self,
        shelf: Shelf,
        monitor: Monitor,
        fleet: Fleet,
        *,
        alias: str,
        follows: str | None = None,
    ) -> None:
        self._shelf, self._monitor, self._fleet = shelf, monitor, fleet
        self._alias = alias
        self._answering = alias if follows is None else follows  # it moves, and the default does

    def routes(self) -> Sequence[Route]:
        """Return the routes of these endpoints."""
        model = "/models/{model}"
        return [
            Route("GET", "/metrics", self.metrics),
            Route("GET", f"{model}/monitor", self.monitor),
            Route("GET", f"{model}/answers", self.answers),
            Route("POST", f"{model}/feedback", self.feedback),
            Route("GET", f"{model}/challenger", self.challenger),
            Route("PUT", f"{model}/challenger", self.challenge, admin=True),
            Route("DELETE", f"{model}/challenger", self.end, admin=True),
            Route("POST", f"{model}/challenger/promote", self.promote, admin=True),
            Route("POST", f"{model}/rollback", self.rollback, admin=True),
        ]

    async def metrics(self, request: Request) -> Answer:
        """Tell what was counted, in the words of Prometheus."""
        accept = request.header(b"accept") or ""
        body, media_type = await self._fleet.ask(self._exposed, accept)
        return Answer(body, media_type=media_type)

    async def monitor(self, request: Request) -> Answer:
        """Tell of the default of a name: drift, live accuracy, and what it is tried against."""
        served = self._shelf.find(request.params["model"])
        return json_answer(await self._fleet.ask(self._whole, served))

    async def answers(self, request: Request) -> Answer:
        """List the last answers of a name, newest first, with the labels that came later."""
        name = self._shelf.find(request.params["model"]).name
        for key in request.query.keys() - {"last", "version"}:
            raise UnknownNameError("query parameter", key, ("last", "version"))
        last = _whole_number(request.query, "last", 100, most=_MAX_ANSWERS)
        version = request.query.get("version")
        found = await self._fleet.ask(self._last, name, last, version)
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
        return json_answer({"labels": await self._kept(served, identity, label, group)})

    async def challenger(self, request: Request) -> Answer:
        """Tell how a challenger does beside the default, on the same requests."""
        served, challenge = self._tried(request)
        return json_answer(await self._fleet.ask(self._compared, served, challenge, Rule()))

    async def challenge(self, request: Request) -> Answer:
        """Try a version beside the default of its name."""
        served = self._shelf.find(request.params["model"])
        told = await _read(request, {"version", "mode", "share"})
        mode, share = told.get("mode", "shadow"), told.get("share", 1.0)
        if mode not in get_args(Mode):
            raise UnknownNameError("mode", str(mode), get_args(Mode))
        if isinstance(share, bool) or not (isinstance(share, int | float) and 0 < share <= 1):
            raise RequestError(f"share is {share!r:.40}: expected a number above 0, at most 1")
        ref = await asyncio.to_thread(_exact, served, told.get("version"))
        since = await self._fleet.ask(self._mark, served.name)
        told = {"ref": ref, "name": served.name, "mode": mode, "share": share, "since": since}
        await self._fleet.carry_out({"do": "challenge", **told})
        return await self.challenger(request)

    async def end(self, request: Request) -> Answer:
        """Try nothing beside the default any more."""
        served, _ = self._tried(request)
        await self._fleet.carry_out({"do": "end challenge", "name": served.name})
        return json_answer({})

    async def promote(self, request: Request) -> Answer:
        """Let an alias be on the challenger if it does better by the rule, or say why not.

        It is the default from then on where the alias is the one that answers.
        """
        served, challenge = self._tried(request)
        told = await _read(request, {"p", "labels", "alias"})
        rule = Rule(**{key: told[key] for key in ("p", "labels") if key in told})
        alias = told.get("alias", self._alias)
        if not isinstance(alias, str):
            raise RequestError(f"alias is {alias!r:.80}: expected a word such as {self._alias!r}")
        verdict = await self._fleet.ask(self._verdict, served, challenge, rule)
        if not verdict.promote:
            raise Refusal(409, verdict.reason)
        ref = challenge.served.model
        await self._fleet.check(_put(ref, served))
        await asyncio.to_thread(
            lambda: promote(ref, alias, why=verdict.reason, evidence=verdict.evidence)
        )
        told = {"promoted": ref, "reason": verdict.reason, "evidence": verdict.evidence}
        return json_answer({**told, **await self._moved(alias, ref, served)})

    async def rollback(self, request: Request) -> Answer:
        """Let an alias be on the version again that it was on before.

        That is the default from then on where the alias is the one that answers.
        """
        served = self._shelf.find(request.params["model"])
        told = await _read(request, {"alias", "why"})
        alias, why = told.get("alias", self._alias), told.get("why", "")
        name = _registered(served)
        ref = f"{name}@{alias}"
        before = "{}@{}".format(*await asyncio.to_thread(resolve, ref))
        now = (await asyncio.to_thread(version_before, ref)).ref
        await self._fleet.check(_put(now, served))
        await asyncio.to_thread(lambda: rollback(ref, why=why))
        answer = {"now": now, "before": before}
        return json_answer({**answer, **await self._moved(alias, now, served)})

    async def _moved(self, alias: str, ref: str, served: Served) -> JSON:
        """Let the version that an alias was moved to be the default, if that alias answers.

        Returns:
            `{"pending": True}` where not every process has done so by now.

        Raises:
            Refusal: 503, nobody could be told.
        """
        if alias != self._answering:
            return {}
        try:
            done = await self._fleet.give(_put(ref, served))
        except (Refusal, ServiceError, TamperedError) as error:
            raise Refusal(
                503,
                f"{alias} is on {ref} from now on, and {served.ref} still answers, since the "
                f"service could not be told: {error}",
            ) from None
        return {} if done else {"pending": True}

    def _exposed(self, accept: str) -> tuple[bytes, str]:
        """Return the metrics; of a ledger that cannot be read, what is known without it."""
        watched = {}
        for served in self._defaults():
            with contextlib.suppress(ServiceError, TamperedError):
                watched[served.name] = self._watched(served, groups=False)
        return exposition(self._fleet.counts(), list(self._shelf), watched, accept)

    def _mark(self, name: str) -> int:
        return self._monitor.ledger(name).order({"do": "mark"})

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

    def _watched(self, served: Served, *, groups: bool = True) -> JSON:
        """Return what is known of a version's drift and live accuracy."""
        ledger = self._monitor.ledger(served.name)
        windows = ledger.windows(version=served.version, last=1)
        return {
            "version": served.version,
            "drift": windows[0] if windows else None,
            "accuracy": ledger.accuracy(served.version, groups=groups),
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
            if self._monitor.reference(served)
            else None,
            "challenger": None if challenge is None else self._compared(served, challenge, Rule()),
            "log": {"dropped": self._monitor.dropped, "trouble": self._monitor.trouble},
        }

    def _last(self, name: str, last: int, version: str | None) -> list[JSON]:
        self._monitor.flush()
        return self._monitor.ledger(name).answers(last=last, version=version)

    async def _kept(self, served: Served, identity: str, label: Any, group: str | None) -> int:
        """Keep feedback; an answer that another process gave is known after its next tick."""
        given = (served, identity, label, group)
        with contextlib.suppress(UnknownNameError):
            return await self._fleet.ask(self._keep, *given)
        await asyncio.sleep(2 * TICK)
        try:
            return await self._fleet.ask(self._keep, *given)
        except UnknownNameError as error:
            _check_labels(label, served.classes)
            raise Refusal(404, str(error)) from None

    def _keep(self, served: Served, identity: str, label: Any, group: str | None) -> int:
        self._monitor.flush()
        ledger = self._monitor.ledger(served.name)
        _check_labels(label, self._classes(ledger, served, identity))
        return ledger.feedback(identity, label, group)

    def _classes(self, ledger: Ledger, served: Served, identity: str) -> Sequence[str]:
        """Return what the version could have said that gave an answer, if it is known."""
        number = ledger.version_of(identity)
        for here in self._shelf.versions(served.name):
            if here.version == number:
                return here.classes
        with contextlib.suppress(WorkbenchError, OSError):  # it is gone, or was a live model
            known = version(f"{served.model.partition('@')[0]}@{number}").preprocessing
            return known.classes if known else ()
        return ()

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


def _check_labels(label: Any, classes: Sequence[str]) -> None:
    """Raise where a label is none that the model could have said."""
    for one in label if isinstance(label, list) else [label]:
        if classes and one not in classes:
            raise Refusal(400, str(UnknownNameError("label", str(one), classes)))


def _put(ref: str, served: Served) -> JSON:
    """Return the order by which a version answers for the name of another."""
    return {"do": "put", "ref": ref, "name": served.name}


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
    """Return a request's JSON object, which has no other fields than these."""
    told = await request.json(most=_MAX_BODY)
    for name in told:
        if name not in known:
            raise UnknownNameError("field", name, sorted(known))
    for name, value in told.items():
        if isinstance(value, float) and not math.isfinite(value):
            raise RequestError(f"{name} is {value}: expected a finite number")
    return told
