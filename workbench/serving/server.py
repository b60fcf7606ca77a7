"""`serve` and `Service`: a model behind HTTP, from the kernel that holds it.

A service has a thread and an event loop of its own and takes no signal, so the kernel's loop and
its interrupt stay theirs; it prints nothing, so no cell shows what it did not do.
"""

from __future__ import annotations

import atexit
import errno
import html
import logging
import os
import socket
import threading
import time
from types import TracebackType
from typing import Any

import h11
import torch
import uvicorn
from filelock import Timeout
from torch import nn
from uvicorn.protocols.http.h11_impl import H11Protocol

from workbench.errors import RequestError, ServiceError
from workbench.evaluation import Prediction
from workbench.registry import ModelVersion
from workbench.serving.app import Application, Stats
from workbench.serving.client import (
    Listing,
    ServiceClient,
    read_listing,
    remove_listing,
    start_lock,
    write_listing,
)
from workbench.serving.protocol import encode
from workbench.serving.security import new_token
from workbench.serving.served import Served, served_from

__all__ = ["Service", "serve"]

_START = 30.0  # seconds until the first answer
_DRAIN = 5  # seconds for the answers under way when a service stops
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # bound to every address: how it is asked from here

logging.getLogger("uvicorn").addHandler(logging.NullHandler())

_NO_HTTP = "the bytes are no HTTP/1.1 request: ask by http://, since https:// is not spoken here"

_lock = threading.RLock()
_running: dict[str, Service] = {}


def serve(
    model: nn.Module | ModelVersion | str,
    *,
    name: str | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    token: str | None = None,
    example: Any = None,
) -> Service:
    """Put a model behind HTTP and return its service once it answers.

    Run again under the same name, it swaps the model and returns the same service, at the same
    address and with the same token; requests under way are answered by the model before.

    Args:
        model: a live model, of which a snapshot is taken; a version; or its reference, `"name@3"`.
        name: of the service; by default the version's, else `"model"`.
        host: address to listen on; another than this machine's own lets others ask.
        port: to listen on; 0 for one that is free, or the running service's.
        token: what requests carry; None for a random one, or the running service's.
        example: raw rows, shaped (rows, ...), for a live model that was neither built nor fitted.

    Raises:
        RequestError: there is no such version, or nothing says what the model takes.
        ServiceError: the port is in use, the name is served elsewhere, or the running service of
            that name has another host, port or token.
    """
    served = served_from(model, name=name, example=example)
    with _lock:
        running = _running.get(served.name)
        if running is not None and running.is_running:
            running._check_same(host, port, token)
            running._swap(served)
            return running
        service = _start(served, host=host, port=port, token=token)
        _running[served.name] = service
        return service


class Service:
    """A running service: its address, its token, and a way to ask it. Made by `serve`."""

    def __init__(self, served: Served, *, host: str, port: int, token: str | None) -> None:
        self.name = served.name
        self.token = new_token() if token is None else token
        self._host = host
        self._app = Application(served, token=self.token, host=host)
        self._stopped = False
        self._failure: BaseException | None = None
        listener = _listen(host, port)
        self._port: int = listener.getsockname()[1]
        self._server = uvicorn.Server(
            uvicorn.Config(
                self._app.asgi,
                loop="asyncio",
                http=_Protocol,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                timeout_graceful_shutdown=_DRAIN,
            )
        )
        self._thread = threading.Thread(
            target=self._run, args=(listener,), name=f"workbench-serve-{self.name}", daemon=True
        )
        self._thread.start()
        try:
            self._wait_ready()
            write_listing(self._listing())
        except BaseException:
            self.stop()
            raise

    @property
    def url(self) -> str:
        """Root of the server, without the token."""
        address = _ANY.get(self._host, self._host)
        return f"http://{f'[{address}]' if ':' in address else address}:{self._port}"

    @property
    def model(self) -> str:
        """What answers: a version's reference, or `live, weights <hash>`."""
        return self._app.served.model

    @property
    def is_running(self) -> bool:
        """Whether it answers still."""
        return self._thread.is_alive() and not self._server.should_exit

    @property
    def last_error(self) -> str | None:
        """The traceback of the last request that the model failed at, with its number, or None."""
        return self._app.last_error

    def predict(self, rows: Any) -> Prediction:
        """Return what the service says of raw rows, asked over HTTP; equal to `predict`'s answer.

        Args:
            rows: an array, tensor, DataFrame or nested list, shaped (rows, ...), or one row.

        Raises:
            RequestError: the rows are not what the model was trained on.
            ServiceError: the service has stopped, or answers with an error.
        """
        if not self.is_running:
            raise ServiceError(f"service {self.name!r} is stopped: run serve(...) again")
        served = self._app.served
        raw = served.preprocessing.batch(rows)
        inputs = {served.signature.inputs[0].name: raw.cpu().numpy()}
        outputs = ServiceClient(self.url, self.token).infer(self.name, inputs)
        output = torch.from_numpy(outputs[served.signature.outputs[0].name].copy())
        return Prediction.of(output, served.preprocessing)

    def stats(self) -> Stats:
        """Return how many inferences were asked for, how many failed, and how long they took."""
        return self._app.stats()

    def stop(self) -> None:
        """Stop answering and free the port; a second time does nothing."""
        if self._stopped:
            return
        self._stopped = True  # a later service may have the name, and its file, by now
        self._server.should_exit = True
        self._thread.join(_DRAIN + 5)
        self._app.close()
        remove_listing(self._listing())
        with _lock:
            if _running.get(self.name) is self:
                del _running[self.name]

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
        if not self.is_running:
            return f"<p>Service <b>{html.escape(self.name)}</b> is stopped</p>"
        said = f"at {self.url} answers with {html.escape(self.model)}"
        return (
            f"<p>Service <b>{html.escape(self.name)}</b> {said}</p>"
            f"<pre>{html.escape(self._curl())}</pre>"
        )

    def _curl(self) -> str:
        # The token stays out of what a notebook saves.
        bearer = f"Authorization: Bearer $(workbench token {self.name})"
        return f'curl -H "{bearer}" {self.url}/v2/models/{self.name}'

    def _listing(self) -> Listing:
        return Listing(self.name, self.url, self.token, os.getpid(), self.model)

    def _swap(self, served: Served) -> None:
        self._app.served = served
        write_listing(self._listing())

    def _check_same(self, host: str, port: int, token: str | None) -> None:
        """Raise ServiceError where another address or token is asked for than this one has."""
        asked = {
            "host": host if host != self._host else None,
            "port": port if port not in (0, self._port) else None,
        }
        other = [f"{key} {value}" for key, value in asked.items() if value is not None]
        if token not in (None, self.token):
            other.append("another token")
        if other:
            raise ServiceError(
                f"service {self.name!r} runs at {self.url} already, and {' and '.join(other)} "
                "was asked for: call its stop() first, or leave that out to swap the model"
            )

    def _run(self, listener: socket.socket) -> None:
        """Serve until asked to stop: the thread's whole work."""
        try:
            self._server.run(sockets=[listener])
        except BaseException as error:  # uvicorn exits by SystemExit, which a thread swallows
            self._failure = error
            self._app.keep(error, "the server")
        finally:
            listener.close()

    def _wait_ready(self) -> None:
        client = ServiceClient(self.url, self.token, timeout=_START)
        deadline = time.monotonic() + _START
        while time.monotonic() < deadline and self._thread.is_alive():
            try:
                if client.is_ready():
                    return
            except TimeoutError:
                break
            time.sleep(0.02)
        raise ServiceError(
            f"service {self.name!r} did not answer at {self.url} within {_START:g} s: "
            f"{self._failure or 'its server started and stayed silent'}; pass another port=, or "
            "try `workbench serve`, whose stderr has its errors"
        ) from self._failure


class _Protocol(H11Protocol):
    """A connection that tells bytes which are no request as every other error."""

    def send_400_response(self, msg: str) -> None:
        """Answer what cannot be parsed, and close the connection."""
        body = encode({"error": _NO_HTTP})
        headers = [
            ("Content-Type", "application/json"),
            ("Content-Length", str(len(body))),
            ("Connection", "close"),
        ]
        events = (
            h11.Response(status_code=400, headers=headers, reason=b"Bad Request"),
            h11.Data(data=body),
            h11.EndOfMessage(),
        )
        for event in events:
            self.transport.write(self.conn.send(event) or b"")
        self.transport.close()


def _start(served: Served, *, host: str, port: int, token: str | None) -> Service:
    """Return a new service, no other process having looked for its name or taken it meanwhile.

    Raises:
        ServiceError: another process serves that name, or has been starting it for too long.
    """
    try:
        with start_lock(served.name, timeout=_START + _DRAIN):
            _check_free(served.name)
            return Service(served, host=host, port=port, token=token)
    except Timeout as busy:
        raise ServiceError(
            f"service {served.name!r} is being started by another process, which holds "
            f"{busy.lock_file}: wait for it, or choose another name="
        ) from None


def _check_free(name: str) -> None:
    """Raise ServiceError where another process serves that name."""
    known = read_listing(name)
    if known is not None:
        raise ServiceError(
            f"service {name!r} runs at {known.url} already, in process {known.pid}: "
            "stop it there, or choose another name="
        )


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; binding in the caller makes its errors the cell's own."""
    if not 0 <= _number(port) <= 65535:
        raise RequestError(f"port {port} is none: expected 0 to 65535, 0 for a free one")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            raise ServiceError(
                f"port {port} of {host} is in use: pass another, or port=0 for a free one"
            ) from None
        raise ServiceError(
            f"cannot listen on {host} port {port} ({error.strerror or error}): pass an address "
            "of this machine, and a port from 1024 on or 0"
        ) from None


def _number(port: object) -> int:
    """Return a port as it came, having checked that it is a whole number."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise RequestError(
            f"port is {type(port).__name__} {port!r:.40}: expected an int from 0 to 65535, "
            "0 for a free one"
        )
    return port


@atexit.register
def _stop_all() -> None:
    for service in list(_running.values()):
        service.stop()
