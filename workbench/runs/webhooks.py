"""Telling a webhook how a run ended; what is wrong with the webhook never changes the run.

A webhook's URL often is a secret itself, so nothing here says more of it than its host.
"""

from __future__ import annotations

import http.client
import json
import re
import threading
import urllib.error
import urllib.request
from pathlib import Path
from typing import IO, Any
from urllib.parse import urlsplit

from workbench.errors import RequestError
from workbench.types import JSON

__all__ = ["check_url", "notify"]

_PATIENCE = 10.0  # seconds for all of it: name, connection, answer
_LONGEST = 300  # characters of an error's value that fit a chat's line


def check_url(url: str) -> None:
    """Check that a webhook can be asked, and ask nothing.

    Raises:
        RequestError: it is no address of HTTP or HTTPS.
    """
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
        usable = usable and parts.username is None  # which would be taken for the host's name
    except ValueError:  # a port that is no number, or half a bracket
        usable = False
    if not usable or not re.fullmatch(r"[!-~]+", url):
        raise RequestError(
            "the webhook is not a URL that can be posted to: expected http:// or https://, a host, "
            "no user and no spaces, as in https://hooks.example.org/services/..."
        )


def notify(url: str, record: JSON, folder: Path) -> str | None:
    """Post how a run ended; return None, or what went wrong in a line to print.

    Its `text` alone says it all in one line, as chats show it. No redirect is followed: most would
    lose what is posted, and any could lead elsewhere.

    Args:
        url: of the webhook.
        record: of the run.
        folder: of the run.
    """
    try:
        check_url(url)
    except RequestError as error:
        return str(error)
    body = json.dumps(_message(record, folder)).encode()
    said: list[str | None] = []
    # A thread, since no timeout of a socket counts the name service or a server that drips bytes.
    post = threading.Thread(target=lambda: said.append(_post(url, body)), daemon=True)
    post.start()
    post.join(_PATIENCE)
    wrong = said[0] if said else _silent()
    return wrong and f"the webhook at {urlsplit(url).hostname} {wrong}: it was not told of the run"


def _post(url: str, body: bytes) -> str | None:
    """Return what went wrong, in words that hold nothing of the URL."""
    headers = {"Content-Type": "application/json", "User-Agent": "workbench"}
    request = urllib.request.Request(url, body, headers, method="POST")
    opener = urllib.request.build_opener(_NoRedirect)
    try:
        opener.open(request, timeout=_PATIENCE).close()
    except urllib.error.HTTPError as error:
        error.close()
        return f"answered {error.code} {http.client.responses.get(error.code, '')}".rstrip()
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, TimeoutError):
            return _silent()
        why = getattr(reason, "strerror", None) or type(reason).__name__
        return f"cannot be reached ({why})"
    return None


def _silent() -> str:
    return f"gave no answer within {_PATIENCE:g} s"


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    """Lets a redirect be the answer that it is."""

    def redirect_request(
        self, req: Any, fp: IO[bytes], code: int, msg: str, headers: Any, newurl: str
    ) -> None:
        """Go nowhere."""


def _message(record: JSON, folder: Path) -> JSON:
    error = record.get("error") or {}
    required = [r for r in record.get("requirements") or () if not r["holds"]]
    return {
        "text": _line(record, error, required, folder),
        "id": record["id"],
        "notebook": record["notebook"]["path"],
        "state": record["state"],
        "error": {key: error.get(key) for key in ("name", "value")} if error else None,
        "cell": error.get("cell"),
        "heading": error.get("heading"),
        "metrics": record["metrics"],
        "failed_requirements": required,
        "folder": str(folder),
    }


def _line(record: JSON, error: JSON, required: list[JSON], folder: Path) -> str:
    """Return what a person wants to read first."""
    where = f" in cell {error['cell']}" if error.get("cell") else ""
    where += f" ({error['heading']})" if error.get("heading") else ""
    said = [f"{Path(record['notebook']['path']).stem} {record['state']}{where}"]
    if error.get("name"):
        said.append(f"{error['name']}: {error.get('value') or 'no reason was given'}"[:_LONGEST])
    said += [f"required {r['text']}, {r.get('message') or r.get('found')}" for r in required]
    return " ".join(f"workbench: {'; '.join(said)}; {folder}".split())
