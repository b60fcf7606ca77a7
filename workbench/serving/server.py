"""`serve` and `Service`: a model behind HTTP, from the kernel that holds it.

The models of one kernel share a server, as long as they are asked for at the same address. Served
again under its name, a model is swapped where it is: same address, same token, no request dropped.
"""

from __future__ import annotations

import atexit
import html
import json
import os
import shlex
import shutil
import sys
import threading
from collections.abc import Collection
from types import TracebackType
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from workbench.errors import RequestError, ServiceError
from workbench.evaluation import Prediction
from workbench.home import home
from workbench.registry import ModelVersion
from workbench.serving.app import Stats
from workbench.serving.client import (
    Listing,
    ServiceClient,
    remove_listing,
    starting,
    write_listing,
)
from workbench.serving.examples import row_of
from workbench.serving.hosting import Server
from workbench.serving.listening import DRAIN, START
from workbench.serving.security import warn_of_exposure
from workbench.serving.served import Served, served_from
from workbench.serving.tensors import Array

if TYPE_CHECKING:
    from workbench.pictures import Picture
    from workbench.widgets import ServiceView

__all__ = ["Service", "command_line", "serve"]

_SHOWN = 300  # characters of an example in the command that is printed

_lock = threading.RLock()
_running: dict[str, Service] = {}


def serve(
    model: nn.Module | ModelVersion | str,
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    admin_token: str | None = None,
    allowed_hosts: Collection[str] = (),
    example: Any = None,
    mode: Literal["snapshot", "live"] = "snapshot",
) -> Service:
    """Put a model behind HTTP and return its service once it answers.

    Run again under the same name, it swaps the model and returns the same service, at the same
    address and with the same token; requests under way are answered by the model before. Under
    another name, the model joins the kernel's server, unless it is to have an address of its own.

    Args:
        model: a live model; a version; or its reference, `"name@3"` or `"name@champion"`.
        name: of the service; by default the version's, else `"model"`.
        host: address to listen on; another than this machine's own lets others ask.
        port: to listen on; 0 for the running server's, or one that is free.
        token: what requests carry; None for the running server's, or a random one.
        admin_token: what requests carry that load and unload versions; None lets nobody.
        allowed_hosts: names that a proxy asks by, for instance `"hub.example.org"`.
        example: raw rows, shaped (rows, ...), for a live model that was neither built nor fitted;
            of several inputs a dictionary by the names of `forward`'s parameters, of texts a list.
        mode: of a live model, `"snapshot"`: it answers as it is now; `"live"`: as it is when it is
            asked, also while `fit` goes on.

    Raises:
        RequestError: there is no such version, nothing says what the model takes, or the two tokens
            are one.
        ServiceError: the port is in use, the name is served elsewhere, or the running service of
            that name has another host, port or token.
    """
    served = served_from(model, name=name, example=example, mode=mode)
    asked = _Asked(host, port, token, admin_token, frozenset(allowed_hosts))
    with _lock:
        running = _running.get(served.name)
        if running is not None and running._server.is_running:  # an administrator may have unloaded
            asked.check(running)
            running._swap(served)
            return running
        if running is not None:
            running.stop()  # its server failed: what it left goes
        warn_of_exposure(host)
        service = _start(served, asked)
        _running[served.name] = service
        return service


class Service:
    """A running service: its address, its token, and a way to ask it. Made by `serve`.

    Args:
        served: what answers first.
        server: that it is reached by; started where it is not running yet.
    """

    def __init__(self, served: Served, server: Server) -> None:
        self.name, self._server = served.name, server
        self._stopped: Stats | None = None  # what was counted by then
        server.shelf.put(served)
        self._listing = self._listed(served)
        try:
            if not server.is_running:
                server.start()
            write_listing(self._listing)
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Root of the server, without the token."""
        return self._server.url

    @property
    def token(self) -> str:
        """What requests carry, as `Authorization: Bearer` or `X-Workbench-Token`."""
        return self._server.token

    @property
    def model(self) -> str:
        """What answers: a version's reference, or `live, weights <hash>`."""
        return self._served.model if self.is_running else self._listing.model

    @property
    def is_running(self) -> bool:
        """Whether it answers still."""
        return self._stopped is None and self._server.is_running and self.name in self._server.shelf

    @property
    def last_error(self) -> str | None:
        """The traceback of the last request that a model failed at, with its number, or None."""
        return self._server.app.last_error

    def predict(self, rows: Any) -> Prediction:
        """Return what the service says of raw rows, asked over HTTP; equal to `predict`'s answer.

        Args:
            rows: an array, tensor, DataFrame or nested list, shaped (rows, ...), or one row.

        Raises:
            RequestError: the rows are not what the model was trained on, or it is one that takes
                its inputs by name.
            ServiceError: the service has stopped, or answers with an error.
        """
        known = self._served.preprocessing
        if known is None:
            names = ", ".join(spec.name for spec in self._served.signature.inputs)
            raise RequestError(
                f"{self.name!r} takes its inputs as they are, by name: ask "
                f"infer({{...}}) with {names}"
            )
        (output,) = self.infer(rows).values()
        return Prediction.of(torch.from_numpy(output.copy()), known)

    def infer(self, inputs: Any) -> dict[str, Array]:
        """Return all outputs by name, asked over HTTP.

        Args:
            inputs: by name an array, tensor or list of texts each, whose first axis is rows; of a
                model of one input its rows alone.

        Raises:
            RequestError: they are not what the model takes.
            ServiceError: the service has stopped, or answers with an error.
        """
        return ServiceClient(self.url, self.token).infer(self.name, self._served.arrays(inputs))

    def stats(self) -> Stats:
        """Return how many inferences were asked for, how many failed, and how long they took."""
        return self._stopped or self._server.app.stats(self.name)

    def show(self) -> ServiceView | Picture:
        """Return a live view: traffic, drift, the last requests; swap, promote, stop.

        Where no page lives, headless or in a script, it is a picture.
        """
        from workbench.widgets import service

        return service(self)

    def stop(self) -> None:
        """Stop answering; the last service of a server frees its port.

        Twice does nothing, nor does it in a child of the process that serves.
        """
        if self._stopped is not None or self._listing.pid != os.getpid():
            return
        self._stopped = self.stats()  # set first: a later service may have the name, and its file
        with _lock:
            if _running.get(self.name) is self:
                del _running[self.name]
            last = not any(other._server is self._server for other in _running.values())
        if last:
            self._server.stop()
        self._stopped = self._server.app.stats(self.name)  # what was under way is counted too
        remove_listing(self._listing)
        self._server.shelf.forget(self.name)

    def __enter__(self) -> Service:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def __repr__(self) -> str:
        if not self.is_running:
            return f"Service {self.name!r} is stopped"
        return f"Service {self.name!r} at {self.url} answers with {self.model}\n{self._curl()}"

    def _repr_html_(self) -> str:
        name = html.escape(self.name)
        if not self.is_running:
            return f"<p>Service <b>{name}</b> is stopped</p>"
        prefix = os.environ.get("JUPYTERHUB_SERVICE_PREFIX")
        page = f"{self.url}/" if prefix is None else f"{prefix}proxy/{self._server.port}/"
        page = html.escape(page)
        link = f'<a href="{page}" target="_blank" rel="noopener">{page}</a>'
        said = f"at {link} answers with {html.escape(self.model)}"
        return f"<p>Service <b>{name}</b> {said}</p><pre>{html.escape(self._curl())}</pre>"

    @property
    def _served(self) -> Served:
        if not self.is_running:
            raise ServiceError(f"service {self.name!r} is stopped: run serve(...) again")
        return self._server.shelf.find(self.name)

    def _curl(self) -> str:
        """Return a command that asks the service; the token stays out of what a notebook saves."""
        served = self._served
        bearer = f'-H "Authorization: Bearer $({command_line()} token {self.name})"'
        address = f"{self.url}/models/{self.name}/predict"
        if served.takes_images:
            kind = '-H "Content-Type: image/png"'
            return f"curl {bearer} {kind} --data-binary @picture.png {address}"
        row = json.dumps(row_of(served), ensure_ascii=False)
        if row == "null" or len(row) > _SHOWN:
            return f"curl {bearer} {self.url}/v2/models/{self.name}"
        kind = '-H "Content-Type: application/json"'
        return f"curl {bearer} {kind} --data-raw {shlex.quote(row)} {address}"

    def _listed(self, served: Served) -> Listing:
        return Listing(self.name, self.url, self.token, os.getpid(), served.model)

    def _swap(self, served: Served) -> None:
        self._server.shelf.put(served)
        self._listing = self._listed(served)
        write_listing(self._listing)


class _Asked:
    """The address that was asked for, where it was."""

    def __init__(
        self,
        host: str,
        port: int,
        token: str | None,
        admin_token: str | None,
        allowed_hosts: frozenset[str],
    ) -> None:
        self.host, self.port, self.token = host, port, token
        self.admin_token, self.allowed_hosts = admin_token, allowed_hosts

    def other(self, server: Server) -> list[str]:
        """Return what was asked for and a running server has not."""
        found = []
        if self.host != server.host:
            found.append(f"host {self.host}")
        if self.port not in (0, server.port):
            found.append(f"port {self.port}")
        if self.token not in (None, server.token):
            found.append("another token")
        if self.admin_token not in (None, server.admin_token):
            found.append("another admin_token")
        if not self.allowed_hosts <= server.allowed_hosts:
            found.append("other allowed_hosts")
        return found

    def check(self, service: Service) -> None:
        """Raise ServiceError where another address or token is asked for than a service has."""
        other = self.other(service._server)
        if other:
            raise ServiceError(
                f"service {service.name!r} runs at {service.url} already, and "
                f"{' and '.join(other)} was asked for: call its stop() first, or leave that out "
                "to swap the model"
            )

    def server(self) -> Server:
        """Return the kernel's server that fits, or a new one."""
        for service in _running.values():
            if service._server.is_running and not self.other(service._server):
                return service._server
        return Server(
            host=self.host,
            port=self.port,
            token=self.token,
            admin_token=self.admin_token,
            allowed_hosts=self.allowed_hosts,
        )


def _start(served: Served, asked: _Asked) -> Service:
    """Return a new service, no other process having looked for its name or taken it meanwhile.

    Raises:
        ServiceError: another process serves that name, or has been starting it for too long.
    """
    with starting(served.name, timeout=START + DRAIN):
        return Service(served, asked.server())


def command_line() -> str:
    """Return how another shell calls the command line of this very environment and home."""
    found = shutil.which("workbench")
    command = "workbench" if found else f"{shlex.quote(sys.executable)} -m workbench"
    if not os.environ.get("WORKBENCH_HOME"):
        return command
    return f"WORKBENCH_HOME={shlex.quote(str(home()))} {command}"


@atexit.register
def _stop_all() -> None:
    for service in list(_running.values()):
        service.stop()
