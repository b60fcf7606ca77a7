"""Finding the services of this machine and asking them; loads no torch.

A service leaves one file, readable by its user alone, with its address and its token. It lives as
long as its process does and its listener takes that token, ready or not; the files of dead ones are
removed when they are met.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import re
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlsplit

import psutil
from filelock import FileLock, Timeout

from workbench.errors import RequestError, ServiceError, UnknownNameError
from workbench.home import home, read_json, write_json
from workbench.serving.protocol import HEADER, read_answer, write_infer
from workbench.serving.tensors import Array
from workbench.types import NAME_PATTERN

__all__ = [
    "Listing",
    "ServiceClient",
    "check_name",
    "find_service",
    "list_services",
    "read_listing",
    "remove_listing",
    "start_lock",
    "starting",
    "write_listing",
]

_FORMAT = 1
_PATIENCE = 2.0  # seconds for a sign of life
_LONGEST_END = 90.0  # seconds that a service may take to end, with its workers and its job


@dataclass(frozen=True)
class Listing:
    """What the file of a service says.

    Args:
        name: of the service, and of its model in requests.
        url: root of its server.
        token: what requests carry.
        pid: the process it lives in.
        model: what answers, in words: a version's reference, or the hash of live weights.
        stands_alone: whether the process is `workbench serve`, and no kernel.
    """

    name: str
    url: str
    token: str = field(repr=False)
    pid: int
    model: str
    stands_alone: bool = False

    def client(self, *, timeout: float = 60.0) -> ServiceClient:
        """Return a client of this service; `timeout` in seconds."""
        return ServiceClient(self.url, self.token, timeout=timeout)

    def stop(self) -> None:
        """Tell a service of `workbench serve` to end, and return once it has.

        Raises:
            RequestError: it lives in a kernel.
            ServiceError: it did not end in time.
        """
        if not self.stands_alone:
            raise RequestError(
                f"service {self.name!r} lives in a kernel or a script, process {self.pid}: call "
                "its stop() there, or shut that down"
            )
        until = time.monotonic() + _LONGEST_END
        with contextlib.suppress(psutil.NoSuchProcess):
            process = psutil.Process(self.pid)
            process.terminate()
            while process.status() != psutil.STATUS_ZOMBIE:
                if time.monotonic() > until:
                    raise ServiceError(
                        f"service {self.name!r} was told to end {_LONGEST_END:g} s ago, and its "
                        f"process {self.pid} still lives: look at its stderr, or kill it"
                    )
                time.sleep(0.05)


class ServiceClient:
    """Asks a service over HTTP, one connection a request.

    Args:
        url: root of its server.
        token: what requests carry.
        timeout: seconds to wait for each answer.
    """

    def __init__(self, url: str, token: str, *, timeout: float = 60.0) -> None:
        self.url, self._token, self._timeout = url.rstrip("/"), token, timeout

    def is_ready(self) -> bool:
        """Return whether the service answers, takes this token, and is ready.

        Raises:
            TimeoutError: something listens and does not answer in time.
        """
        try:
            status, _, _ = self._ask("GET", "/v2/health/ready")
        except TimeoutError:
            raise
        except (OSError, http.client.HTTPException):
            return False
        return status == 200

    def is_alive(self) -> bool:
        """Return whether a service is there that takes this token, be it ready, busy or stopping.

        Only what proves the contrary counts: nobody listens, or somebody else does.
        """
        try:
            status, _, _ = self._ask("GET", "/v2/health/ready")
        except ConnectionRefusedError:
            return False
        except OSError:  # it is silent or hung up, or this process can open no more connections
            return True
        except http.client.HTTPException:
            return False
        return status in (200, 503)

    def infer(self, name: str, inputs: dict[str, Array]) -> dict[str, Array]:
        """Return the outputs for `inputs` by name, both as raw bytes on the way.

        Args:
            name: of the service.
            inputs: by name; each first axis is rows.

        Raises:
            ServiceError: the service is gone, or answers with an error.
        """
        message = write_infer(inputs)
        path = f"/v2/models/{quote(name)}/infer"
        try:
            status, headers, body = self._ask(
                "POST", path, message.body, {HEADER: str(message.header_length)}
            )
        except (OSError, http.client.HTTPException) as error:
            raise ServiceError(
                f"service {name!r} at {self.url} does not answer ({error}): "
                "see `workbench services` for those that live"
            ) from None
        if status != 200:
            raise ServiceError(f"service {name!r} answered {status}: {_reason(body)}")
        try:
            return read_answer(body, headers.get(HEADER))
        except RequestError as error:
            raise ServiceError(f"service {name!r} answered what cannot be read: {error}") from None

    def _ask(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, http.client.HTTPMessage, bytes]:
        parts = urlsplit(self.url)
        connection = http.client.HTTPConnection(
            parts.hostname or "", parts.port, timeout=self._timeout
        )
        sent = {"Authorization": f"Bearer {self._token}", **(headers or {})}
        with contextlib.closing(connection):
            connection.request(method, parts.path + path, body or None, sent)
            answer = connection.getresponse()
            return answer.status, answer.headers, answer.read()


def check_name(name: str) -> str:
    """Return the name of a service, having checked that a file and a path can carry it.

    Raises:
        RequestError: it cannot.
    """
    if not re.fullmatch(NAME_PATTERN, name):
        raise RequestError(
            f"service name {name!r:.120} cannot be used: expected up to 100 letters, digits, "
            "dots, dashes and underscores, the first a letter or digit"
        )
    return name


def list_services() -> list[Listing]:
    """Return the services that live on this machine, by name; files of dead ones are removed."""
    names = sorted(path.stem for path in _folder().glob("*.json") if not path.name.startswith("."))
    found = [read_listing(name) for name in names]
    return [listing for listing in found if listing is not None]


def find_service(name: str) -> Listing:
    """Return the living service of that name.

    Raises:
        UnknownNameError: there is none.
    """
    listing = read_listing(check_name(name))
    if listing is None:
        raise UnknownNameError("service", name, [known.name for known in list_services()])
    return listing


@contextlib.contextmanager
def starting(name: str, *, timeout: float) -> Iterator[None]:
    """Hold a name, under which nothing lives, for as long as its service takes to start.

    Args:
        name: of the service.
        timeout: seconds to wait for another process that is starting one.

    Raises:
        ServiceError: another process serves that name, or has been starting it for too long.
    """
    try:
        lock = start_lock(name, timeout=timeout).acquire()
    except Timeout as busy:
        raise ServiceError(
            f"service {name!r} is being started by another process, which holds "
            f"{busy.lock_file}: wait for it, or choose another name="
        ) from None
    with lock:
        known = read_listing(name)
        if known is not None:
            raise ServiceError(
                f"service {name!r} runs at {known.url} already, in process {known.pid}: "
                "stop it (workbench stop, or its stop() in a kernel), or choose another name="
            )
        yield


def start_lock(name: str, *, timeout: float) -> FileLock:
    """Return the lock that a process holds from its look for a name to writing that name's file.

    Args:
        name: of the service.
        timeout: seconds to wait for another process.
    """
    _folder().mkdir(parents=True, exist_ok=True)
    return FileLock(_folder() / f"{name}.lock", timeout=timeout)


def write_listing(listing: Listing) -> None:
    """Write the file of a service, for its user's eyes only."""
    write_json(_file(listing.name), {"format": _FORMAT, **asdict(listing)}, mode=0o600)


def remove_listing(listing: Listing) -> None:
    """Remove the file of a service, unless another service has the name by now."""
    told = _read(listing.name)
    if told is not None and (told.token, told.pid) == (listing.token, listing.pid):
        _file(listing.name).unlink(missing_ok=True)


def read_listing(name: str) -> Listing | None:
    """Return what the file of a living service says, or None; that of a dead one is removed.

    A file of another format is left alone and counts as none.
    """
    listing = _read(name)
    if listing is None or _lives(listing):
        return listing
    remove_listing(listing)
    return None


def _read(name: str) -> Listing | None:
    try:
        told: dict[str, Any] = read_json(_file(name))
        return Listing(**told) if told.pop("format") == _FORMAT else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def _lives(listing: Listing) -> bool:
    return _is_process(listing.pid) and listing.client(timeout=_PATIENCE).is_alive()


def _is_process(pid: int) -> bool:
    if os.name == "nt":
        return True  # there signal 0 would end the process; the listener decides alone
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _folder() -> Path:
    return home() / "services"


def _file(name: str) -> Path:
    return _folder() / f"{name}.json"


def _reason(body: bytes) -> str:
    try:
        return str(json.loads(body)["error"])
    except (ValueError, KeyError, TypeError):
        return "no reason given"
