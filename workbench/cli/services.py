"""`workbench serve`, `workbench token` and `workbench services`."""

from __future__ import annotations

import json
import logging
import os
import signal
import threading
from types import FrameType
from typing import Annotated

import typer

__all__ = ["register"]

_LOOK = 0.5  # seconds between two looks at whether the service lives


def register(app: typer.Typer) -> None:
    """Add the commands of services to `app`."""
    app.command("serve")(_serve)
    app.command("token")(_token)
    app.command("services")(_services)


def _serve(
    model: Annotated[
        str, typer.Argument(metavar="NAME[@VERSION|@ALIAS]", help="A published model.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="Port to listen on; 0 for a free one.")] = 0,
    allowed_host: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="What a proxy asks by; may be given several times."),
    ] = None,
) -> None:
    """Serve a published model until Ctrl-C or SIGTERM; the first line of stdout is its URL.

    Whoever sends the token in WORKBENCH_ADMIN_TOKEN, where that is set, may load and unload
    versions while it runs.
    """
    from workbench.errors import ServiceError
    from workbench.serving import serve

    received: list[int] = []
    asked_to_stop = threading.Event()

    def stop(number: int, frame: FrameType | None) -> None:
        received.append(number)
        asked_to_stop.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    _log_to_stderr()
    admin_token = os.environ.pop("WORKBENCH_ADMIN_TOKEN", None)  # no child inherits it
    hosts = allowed_host or ()
    with serve(
        model, host=host, port=port, admin_token=admin_token, allowed_hosts=hosts
    ) as service:
        typer.echo(service.url)
        typer.echo(f"{service.model}; its token: workbench token {service.name}")
        while not asked_to_stop.wait(_LOOK):
            if not service.is_running:
                raise ServiceError(f"service {service.name!r} ended by itself: stderr says why")
    if signal.SIGINT in received:
        raise typer.Exit(3)


def _log_to_stderr() -> None:
    """Let what a service logs be seen: nobody else's cell is there to be disturbed."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for name in ("workbench.serving", "uvicorn"):
        logging.getLogger(name).addHandler(handler)


def _token(name: Annotated[str, typer.Argument(help="A running service.")]) -> None:
    """Print the token of a running service."""
    from workbench.serving import find_service

    typer.echo(find_service(name).token)


def _services(
    as_json: Annotated[bool, typer.Option("--json", help="Print them as JSON.")] = False,
) -> None:
    """List the services that live, without their tokens."""
    from workbench.serving import list_services

    found = list_services()
    if as_json:
        rows = [{"name": s.name, "url": s.url, "pid": s.pid, "model": s.model} for s in found]
        typer.echo(json.dumps(rows, indent=2))
    elif not found:
        typer.echo("no service runs; start one with `workbench serve NAME`")
    else:
        width = max(len(service.name) for service in found)
        for service in found:
            typer.echo(
                f"{service.name:{width}}  {service.url}  process {service.pid}  {service.model}"
            )
