"""The endpoints of the repository: which versions there are, and loading them into the server.

Loading and unloading need the token of an administrator. Nothing that a request carries is ever
loaded: its name is looked up in the registry of this machine, and that is all.
"""

from __future__ import annotations

import asyncio

from workbench.errors import RequestError, TamperedError
from workbench.registry import resolve
from workbench.registry.versions import look_through
from workbench.serving.answers import Answer, Refusal, json_answer
from workbench.serving.fleets import Fleet
from workbench.serving.requests import Request
from workbench.serving.shelf import Shelf
from workbench.types import JSON

__all__ = ["Repository"]

_MAX_BODY = 64 * 2**10  # bytes: what is asked here are a few words


class Repository:
    """Moves versions between the registry and the processes of a service.

    Args:
        shelf: of the server.
        fleet: the processes.
        follows: the alias whose version is the default, wherever it moves; None for none.
    """

    def __init__(self, shelf: Shelf, fleet: Fleet, *, follows: str | None = None) -> None:
        self._shelf, self._fleet, self._follows = shelf, fleet, follows

    async def index(self, request: Request) -> Answer:
        """Say which models are here, and which could be loaded."""
        told = await request.json(most=_MAX_BODY)
        if not isinstance(told.get("ready", False), bool):
            raise RequestError("ready is neither true nor false")
        here = [_entry(served.name, served.version, "READY") for served in self._shelf]
        if told.get("ready"):
            return json_answer(here)
        loaded = {served.model for served in self._shelf}
        known, _ = await asyncio.to_thread(look_through)  # a warning would land in some cell
        rest = [
            _entry(
                version.name,
                str(version.version),
                "UNAVAILABLE",
                "retired" if version.retired else "unloaded",
            )
            for version in known
            if version.ref not in loaded
        ]
        return json_answer(here + rest)

    async def load(self, request: Request) -> Answer:
        """Load a version from the registry; of a name alone the newest, as its default from now."""
        ref, told = await _asked(request)
        for name in told:
            raise RequestError(
                f"load has the parameter {name!r:.80}: a model comes from the registry and nowhere "
                "else; publish it there, and name a version in the path, NAME@3"
            )
        if "@" not in ref and ref in self._shelf and self._follows is not None:
            raise Refusal(
                409,
                f"the default of {ref!r} follows {ref}@{self._follows or 'its newest version'}: "
                f"promote a version to that, or load one beside it as {ref}@3",
            )
        try:
            name, number = await asyncio.to_thread(resolve, ref)
            do = "load" if "@" in ref else "put"
            await self._fleet.carry_out({"do": do, "ref": f"{name}@{number}"})
        except TamperedError as error:
            raise Refusal(400, str(error)) from None
        return json_answer({})

    async def unload(self, request: Request) -> Answer:
        """Take a name, or one version of it, off the server."""
        ref, _ = await _asked(request)
        name, _, number = ref.partition("@")
        served = self._shelf.find(name, number or None)
        exact = f"{name}@{served.version}" if number else name
        await self._fleet.carry_out({"do": "unload", "ref": exact})
        return json_answer({})


async def _asked(request: Request) -> tuple[str, JSON]:
    """Return the reference in a request's path, and its parameters."""
    parameters = (await request.json(most=_MAX_BODY)).get("parameters") or {}
    if not isinstance(parameters, dict):
        raise RequestError("parameters is not an object")
    return request.params["model"], parameters


def _entry(name: str, version: str, state: str, reason: str = "") -> JSON:
    return {"name": name, "version": version, "state": state, "reason": reason}
