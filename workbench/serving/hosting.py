"""`Server`: a thread with an event loop of its own that answers HTTP for the models of a shelf.

It takes no signal, so the kernel's loop and its interrupt stay theirs; it prints nothing, so no
cell shows what it did not do. In a kernel it listens by itself; of `workbench serve` each worker
process has one, and all of them accept from one socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection
from typing import TextIO

import uvicorn

from workbench.errors import ServiceError
from workbench.registry.ledgers import Ledger
from workbench.serving.app import Application
from workbench.serving.batching import Batcher
from workbench.serving.client import ServiceClient
from workbench.serving.connections import Connection
from workbench.serving.jobs import Jobs
from workbench.serving.listening import DRAIN, START, listen, url_of
from workbench.serving.monitoring import Monitor
from workbench.serving.orders import Orders
from workbench.serving.security import new_token
from workbench.serving.shelf import Shelf

__all__ = ["Server"]

_CLOSE = 5  # seconds more for what is no answer: a stream, a request that is half here

logging.getLogger("uvicorn").addHandler(logging.NullHandler())


class Server:
    """A listening server; `start` returns once it answers.

    Args:
        host: address to listen on.
        port: to listen on; 0 for one that is free.
        token: what requests carry; None for a random one.
        admin_token: what those carry that load and unload models; None lets nobody.
        allowed_hosts: names that it may be asked by besides its own.
        listener: a socket that listens already, which other processes accept from too; None for
            one of its own.
        access_log: where to write a line of JSON for each request; None for nowhere.
        ledger: that it shares with those other processes; None where it is alone.
        orders: makes what carries orders out on its shelf.
        jobs: notebooks that are run over the wire; None for none.
        alias: that a promotion moves, where none is named.
        follows: the alias whose version is the default, wherever it moves, `""` for the newest
            version; None where nothing is followed.

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
        listener: socket.socket | None = None,
        access_log: TextIO | None = None,
        ledger: Ledger | None = None,
        orders: Callable[[Shelf], Orders] = Orders,
        jobs: Jobs | None = None,
        alias: str = "champion",
        follows: str | None = None,
    ) -> None:
        self.host, self.token = host, new_token() if token is None else token
        self.admin_token, self.allowed_hosts = admin_token, frozenset(allowed_hosts)
        self.shelf = Shelf()
        self._shared = listener is not None
        listener = listen(host, port) if listener is None else listener
        self.port: int = listener.getsockname()[1]
        self._loop = _new_loop()
        self._batcher = Batcher(self._loop)
        self.monitor = Monitor(also=self._tick, is_alone=ledger is None)
        try:
            self.app = Application(
                self.shelf,
                self._batcher,
                token=self.token,
                admin_token=admin_token,
                host=host,
                allowed_hosts=self.allowed_hosts,
                monitor=self.monitor,
                ledger=ledger,
                orders=orders(self.shelf),
                jobs=jobs,
                access_log=access_log,
                alias=alias,
                follows=follows,
            )
        except BaseException:
            self._let_go(listener)
            raise
        self._failure: BaseException | None = None
        self._uvicorn = uvicorn.Server(_config(self.app))
        self._thread = threading.Thread(
            target=self._run, args=(listener,), name=f"workbench-serve-{self.port}", daemon=True
        )

    @property
    def url(self) -> str:
        """Root of the server, without the token."""
        return url_of(self.host, self.port)

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
        self.monitor.start()
        self.app.fleet.start()
        deadline = time.monotonic() + START
        with contextlib.suppress(TimeoutError):
            while time.monotonic() < deadline and self._thread.is_alive():
                if self._answers():
                    return
                time.sleep(0.01)
        raise ServiceError(
            f"the service did not answer at {self.url} within {START:g} s: "
            f"{self._failure or 'its server started and stayed silent'}; pass another port=, or "
            "try `workbench serve`, whose stderr has its errors"
        ) from self._failure

    def comes_round(self) -> None:
        """Return once the event loop has come round; as long as something holds it up, wait."""
        asyncio.run_coroutine_threadsafe(asyncio.sleep(0), self._loop).result()

    def _answers(self) -> bool:
        """Return whether it has begun; on a shared socket another process might answer for it."""
        if self._shared:
            return self._uvicorn.started
        return ServiceClient(self.url, self.token, timeout=START).is_ready()

    def stop(self) -> None:
        """Answer what was accepted, then stop and free the port; a second time does nothing."""
        with contextlib.suppress(RuntimeError):  # the loop is closed already
            self._loop.call_soon_threadsafe(self._begin_end)
        if self._thread.is_alive():
            self._thread.join(DRAIN + 2 * _CLOSE)

    def _begin_end(self) -> None:
        self.app.close()
        self._ending = self._loop.create_task(self._end())

    async def _end(self) -> None:
        if self._shared:  # who comes from now on is answered by another process
            for server in self._uvicorn.servers:
                server.close()
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
            self.app.fleet.close()
            self.monitor.close()
            self.app.close_log()

    def _tick(self) -> None:
        self.app.fleet.report()

    def _let_go(self, listener: socket.socket) -> None:
        listener.close()
        self._batcher.close()
        self._loop.close()


def _config(app: Application) -> uvicorn.Config:
    return uvicorn.Config(
        app.asgi,
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


def _new_loop() -> asyncio.AbstractEventLoop:
    """Return a loop that nobody else knows of, the fast kind where there is one."""
    if sys.platform == "win32":
        return asyncio.new_event_loop()
    import uvloop

    loop: asyncio.AbstractEventLoop = uvloop.new_event_loop()
    return loop
