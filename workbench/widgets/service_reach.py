"""`Reached`: a service as it is reached from here, and what can be done with it from here."""

from __future__ import annotations

import json
import os
from typing import Any
from urllib.parse import quote, urlsplit

from workbench.errors import RequestError, UnknownNameError
from workbench.remote import RemoteService
from workbench.remote.wire import Wire
from workbench.serving import Service, serve
from workbench.serving.client import Listing, read_listing
from workbench.serving.server import command_line
from workbench.types import JSON

__all__ = ["DEEDS", "Reached", "one_of", "row_example", "wire_of"]

_PATIENCE = 20.0  # seconds for an answer over HTTP, while somebody looks at it
_SHOWN = 300  # characters of an example in the command

DEEDS = {
    "swap": "swapping", "promote": "promoting", "stop": "stopping", "again": "serving again",
}  # fmt: skip
_ALONE = {"swap": "workbench serve --reload follows its alias by itself: promote a version"}
_ELSEWHERE = {
    "swap": "it runs on another machine, or in another home: run serve(...) again there",
    "promote": "its registry is on another machine, or in another home: workbench promote there",
    "stop": "it runs on another machine, or in another home: workbench stop there",
}


class Reached:
    """One name of a service: of this kernel, of another process of this machine, or elsewhere.

    Args:
        asked: the service, or what `connect` returned.
        model: which of those that a remote service has, where it has several.

    Raises:
        RequestError: the remote service has no such model, or several and none is named.
        ServiceError: it does not answer.
    """

    def __init__(self, asked: Service | RemoteService, model: str | None = None) -> None:
        self._asked = asked
        self.name = asked.name if isinstance(asked, Service) else one_of(asked, model)
        self._listing = None if isinstance(asked, Service) else _listed(self.name, asked.url)
        self.wire = wire_of(asked)

    @property
    def own(self) -> Service | None:
        """The service, if it is one of this kernel."""
        return self._asked if isinstance(self._asked, Service) else None

    @property
    def url(self) -> str:
        """Root of its server, without the token."""
        return self._asked.url

    @property
    def page(self) -> str:
        """Where a browser finds its page, on a hub through its proxy."""
        prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
        return f"{self.url}/" if prefix is None else f"{prefix}proxy/{urlsplit(self.url).port}/"

    def why_not(self, deed: str, state: str, ref: str) -> str:
        """Return why one of `DEEDS` cannot be done; nothing where it can.

        Args:
            deed: one of them.
            state: of the service: `"running"`, `"draining"`, `"stopped"`, `"not reached"`.
            ref: the version that answered last; empty of a live model.
        """
        if deed == "again":
            return self._why_not_again(state, ref)
        if deed == "promote" and (self.own or self._listing):
            return ""  # an alias is of the registry, whatever the service does
        if deed != "promote" and state != "running":
            return f"the service is {state}"
        if self.own is not None:
            return ""
        if self._listing is None:
            return _ELSEWHERE[deed]
        here = f"it lives in a kernel or a script, process {self._listing.pid}: do it there"
        return _ALONE.get(deed, "") if self._listing.stands_alone else here

    def check(self, deed: str, state: str, ref: str) -> None:
        """Raise where one of `DEEDS` cannot be done.

        Raises:
            RequestError: it cannot be.
        """
        reason = self.why_not(deed, state, ref)
        if reason:
            raise RequestError(f"{DEEDS[deed]} cannot be done: {reason}")

    def swap(self, ref: str) -> None:
        """Let a version answer from now on, at the same address."""
        assert self.own is not None
        serve(ref, name=self.name, host=self.own._server.host)

    def stop(self) -> None:
        """Take nothing more, answer what was accepted, and stop; return once it has."""
        if self.own is not None:
            self.own.stop()
        elif self._listing is not None:
            self._listing.stop()

    def again(self, ref: str) -> None:
        """Serve a version at the address and by the token that the service had."""
        assert self.own is not None
        server = self.own._server
        self._asked = serve(
            ref, name=self.name, host=server.host, port=server.port, token=server.token,
            admin_token=server.admin_token, allowed_hosts=server.allowed_hosts,
        )  # fmt: skip
        self.wire = wire_of(self._asked)

    def command(self, told: JSON, row: Any) -> str:
        """Return a command that asks it; its token comes from its machine, or from a variable.

        Args:
            told: what V2 says of the model.
            row: that the model takes, as `row_example` returns it.
        """
        if self.own is not None:
            return self.own._curl()
        bearer = f"$({command_line()} token {self.name})" if self._listing else "$TOKEN"
        start = f'curl -H "Authorization: Bearer {bearer}"'
        address = f"{self.url}/models/{self.name}/predict"
        (spec, *_) = told["inputs"]
        if spec["datatype"] == "UINT8" and len(spec["shape"]) > 2:
            kind = '-H "Content-Type: image/png"'
            return f"{start} {kind} --data-binary @picture.png {address}"
        text = json.dumps(row, ensure_ascii=False)
        if row is None or len(text) > _SHOWN or "'" in text:
            return f"{start} {self.url}/v2/models/{self.name}"
        return f"{start} -H \"Content-Type: application/json\" --data-raw '{text}' {address}"

    def _why_not_again(self, state: str, ref: str) -> str:
        if state != "stopped":
            return f"the service is {state}"
        if self.own is None:
            return f"it lived in another process: workbench serve {self.name} there"
        return "" if ref else "it answered with a live model, not a version: run serve(model) again"


def wire_of(service: Service | RemoteService) -> Wire:
    """Return the way by which a service is asked over HTTP."""
    if isinstance(service, RemoteService):
        return service._wire
    return Wire(service.url, service.token, timeout=_PATIENCE)


def row_example(wire: Wire, name: str) -> Any:
    """Return a row that a service's model takes, as people write it; None where it is too large."""
    number = wire.ask("GET", f"/v2/models/{quote(name)}/config")["version_policy"]["specific"]
    key = f"{name}.{number['versions'][0]}.Row"
    examples = wire.ask("GET", "/openapi.json")["components"]["examples"]
    return examples.get(key, {}).get("value")


def one_of(remote: RemoteService, model: str | None) -> str:
    """Return the name of the model that is meant."""
    names = remote.models()
    if model is None and len(names) != 1:
        raise RequestError(f"the service has {', '.join(names) or 'no model'}: say which, model=")
    if model is not None and model not in names:
        raise UnknownNameError("model", model, names)
    return model or names[0]


def _listed(name: str, url: str) -> Listing | None:
    """Return what a service has left on this machine; None of one elsewhere."""
    found = read_listing(name)
    return found if found is not None and found.url == url else None
