"""The socket that a server listens on, and how it is asked from here; loads no torch."""

from __future__ import annotations

import errno
import socket

from workbench.errors import RequestError, ServiceError

__all__ = ["DRAIN", "START", "listen", "url_of"]

START = 30.0  # seconds until the first answer
DRAIN = 30.0  # seconds for the answers under way when a server stops
_ANY = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # bound to every address: how it is asked from here
_BACKLOG = 2048  # connections that wait to be accepted


def listen(host: str, port: int) -> socket.socket:
    """Return a listening socket; binding in the caller makes its errors the cell's own.

    Args:
        host: address to listen on.
        port: to listen on; 0 for one that is free.

    Raises:
        RequestError: the port is none.
        ServiceError: the address cannot be listened on.
    """
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


def url_of(host: str, port: int) -> str:
    """Return the root of a server that is bound to an address, as it is asked from here."""
    address = _ANY.get(host, host)
    return f"http://{f'[{address}]' if ':' in address else address}:{port}"


def _number(port: object) -> int:
    """Return a port as it came, having checked that it is a whole number."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise RequestError(
            f"port is {type(port).__name__} {port!r:.40}: expected an int from 0 to 65535, "
            "0 for a free one"
        )
    return port
