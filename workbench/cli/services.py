"""`workbench serve`, `workbench token` and `workbench services`."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from workbench.serving import Listing
    from workbench.supervision.jobhost import JobHost
    from workbench.supervision.workers import Plan

__all__ = ["register"]


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
    workers: Annotated[int, typer.Option(min=1, help="Processes that answer.")] = 1,
    follow: Annotated[
        bool, typer.Option("--reload", help="Answer with the version that the alias moves to.")
    ] = False,
    jobs: Annotated[
        list[Path] | None,
        typer.Option(metavar="NOTEBOOK", help="One that an administrator may run over HTTP."),
    ] = None,
) -> None:
    """Serve a published model until Ctrl-C or SIGTERM; the first line of stdout is its URL.

    It is printed once each worker has answered by itself. Whoever sends the token in
    WORKBENCH_ADMIN_TOKEN, where that is set, may load and unload versions and start jobs.
    """
    from workbench.serving.security import warn_of_exposure
    from workbench.supervision.supervising import supervise
    from workbench.supervision.workers import log_to_stderr

    log_to_stderr()
    warn_of_exposure(host)
    plan = _plan(model, host, workers, allowed_host or (), follow, jobs or ())
    if supervise(plan, port=port, ready=_say_ready, jobs=_host_of(plan)):
        raise typer.Exit(3)


def _plan(
    model: str,
    host: str,
    workers: int,
    allowed_hosts: Sequence[str],
    follows: bool,
    notebooks: Sequence[Path],
) -> Plan:
    """Return what the workers are to do; the tokens leave the environment."""
    from workbench.serving.security import new_token
    from workbench.supervision.workers import Plan

    admin_token = os.environ.pop("WORKBENCH_ADMIN_TOKEN", None)  # no child inherits it
    return Plan(
        model,
        host=host,
        workers=workers,
        token=os.environ.pop("WORKBENCH_TOKEN", "") or new_token(),  # the same after a start
        admin_token=admin_token,
        alias=_alias_of(model, follows),
        allowed_hosts=frozenset(allowed_hosts),
        follows=follows,
        notebooks=_listed(notebooks, admin_token),
    )


def _alias_of(model: str, follows: bool) -> str:
    """Return the alias that a promotion moves: the one that answers, if it is one.

    Raises:
        RequestError: a version that never changes is to be followed.
    """
    from workbench.errors import RequestError

    name, _, alias = model.partition("@")
    if not alias.isdigit():
        return alias or "champion"
    if follows:
        raise RequestError(
            f"--reload follows an alias, and {model} is one version for ever: serve "
            f"{name}@champion, or {name} for its newest version, or leave --reload out"
        )
    return "champion"


def _say_ready(listing: Listing) -> None:
    typer.echo(listing.url)
    typer.echo(f"{listing.model}; its token: workbench token {listing.name}")


def _listed(notebooks: Sequence[Path], admin_token: str | None) -> dict[str, Path]:
    """Return the notebooks that may be executed, by name.

    Raises:
        RequestError: nobody could have them executed, or one is none.
    """
    if not notebooks:
        return {}
    from workbench.errors import RequestError
    from workbench.runs.jobs import listed_notebooks

    if not admin_token:
        raise RequestError(
            "--jobs is for whoever has the administrator's token: set WORKBENCH_ADMIN_TOKEN"
        )

    return listed_notebooks(notebooks)


def _host_of(plan: Plan) -> Callable[[], JobHost] | None:
    """Return what makes the host of a service's jobs; None where it has none."""
    if not plan.notebooks:
        return None

    def make() -> JobHost:
        from workbench.runs.jobs import JobQueue
        from workbench.supervision.jobhost import JobHost

        return JobHost(JobQueue.of(plan.name), plan.notebooks)

    return make


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
