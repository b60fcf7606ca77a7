"""`Server`: a thread with an event loop of its own that answers HTTP for the models of a shelf.

It takes no signal, so the kernel's loop and its interrupt stay theirs; it prints nothing, so no
cell shows what it did not do.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import socket
import sys
import threading
import time
from collections.abc import Collection

import uvicorn

from workbench.errors import RequestError, ServiceError
from workbench.serving.app import Application
from workbench.serving.batching import Batcher
from workbench.serving.client import ServiceClient
from workbench.serving.connections import Connection
from workbench.serving.security import new_token
from workbench.serving.shelf import Shelf

__all__ = ["DRAIN", "START", "Server"]

START = 30.0  # seconds until the first answer
DRAIN = 30.0  # seconds for the answers under way when a server stops
_CLOSE = 5  # seconds more for what is no answer: a stream, a request that is half here
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # bound to every address: how it is asked from here
_BACKLOG = 2048  # connections that wait to be accepted

logging.getLogger("uvicorn").addHandler(logging.NullHandler())


class Server:
    """A listening server; `start` returns once it answers.

    Args:
        host: address to listen on.
        port: to listen on; 0 for one that is free.
        token: what requests carry; None for a random one.
        admin_token: what those carry that load and unload models; None lets nobody.
        allowed_hosts: names that it may be asked by besides its own.

    Raises:
        RequestError: the port or a token is none.
        ServiceError: the address cannot be listened on.
    """

    def __init__(
        self,
        *,
        host: str,
        port: int = 0,
        token: str | None = None,
        admin_token: str | None = None,
        allowed_hosts: Collection[str] = (),
    ) -> None:
        self.host, self.token = host, new_token() if token is None else token
        self.admin_token, self.allowed_hosts = admin_token, frozenset(allowed_hosts)
        self.shelf = Shelf()
        listener = _listen(host, port)
        self.port: int = listener.getsockname()[1]
        self._loop = _new_loop()
        self._batcher = Batcher(self._loop)
        try:
            self.app = Application(
                self.shelf,
                self._batcher,
                token=self.token,
                admin_token=admin_token,
                host=host,
                allowed_hosts=self.allowed_hosts,
            )
        except BaseException:
            self._let_go(listener)
            raise
        self._failure: BaseException | None = None
        self._uvicorn = uvicorn.Server(
            uvicorn.Config(
                self.app.asgi,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                date_header=False,
                headers=[("cross-origin-resource-policy", "same-origin")],
                timeout_graceful_shutdown=_CLOSE,
            )
        )
        self._thread = threading.Thread(
            target=self._run, args=(listener,), name=f"workbench-serve-{self.port}", daemon=True
        )

    @property
    def url(self) -> str:
        """Root of the server, without the token."""
        address = _ANY.get(self.host, self.host)
        return f"http://{f'[{address}]' if ':' in address else address}:{self.port}"

    @property
    def is_running(self) -> bool:
        """Whether it answers still."""
        stopping = self._uvicorn.should_exit or self._batcher.is_draining
        return self._thread.is_alive() and not stopping

    def start(self) -> None:
        """Answer, from the moment this returns.

        Raises:
            ServiceError: no answer came in time, or the server failed.
        """
        self._thread.start()
        client = ServiceClient(self.url, self.token, timeout=START)
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and self._thread.is_alive():
            try:
                if client.is_ready():
                    return
            except TimeoutError:
                break
            time.sleep(0.01)
        raise ServiceError(
            f"the service did not answer at {self.url} within {START:g} s: "
            f"{self._failure or 'its server started and stayed silent'}; pass another port=, or "
            "try `workbench serve`, whose stderr has its errors"
        ) from self._failure

    def stop(self) -> None:
        """Answer what was accepted, then stop and free the port; a second time does nothing."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._begin_end)
        if self._thread.is_alive():
            self._thread.join(DRAIN + 2 * _CLOSE)

    def _begin_end(self) -> None:
        self._ending = self._loop.create_task(self._end())

    async def _end(self) -> None:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._batcher.drain(), DRAIN)
        self._uvicorn.should_exit = True

    def _run(self, listener: socket.socket) -> None:
        """Serve until asked to stop: the thread's whole work."""
        try:
            with asyncio.Runner(loop_factory=lambda: self._loop) as runner:
                runner.run(self._uvicorn.serve(sockets=[listener]))
        except BaseException as error:  # uvicorn exits by SystemExit, which a thread swallows
            self._failure = error
            self.app.keep(error, "the server")
        finally:
            self._let_go(listener)

    def _let_go(self, listener: socket.socket) -> None:
        listener.close()
        self._batcher.close()
        self._loop.close()


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return a loop that nobody else knows of, the fast kind where there is one."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop


def _listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; binding in the caller makes its errors the cell's own."""
    if not 0 <= _number(port) <= 65535:
        raise RequestError(f"port {port} is none: expected 0 to 65535, 0 for a free one")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=_BACKLOG)
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
