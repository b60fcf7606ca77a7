"""Secrets kept out of what a run leaves: their values are known, and struck from every text.

Known are the values of environment variables whose names say that they are secret, among them those
that parameters such as `api_key` come in (`WORKBENCH_PARAMETER_API_KEY`).
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

__all__ = ["Redaction"]

_SECRET = re.compile(
    r"(passwd|password|passphrase|secret|token|api_?key|access_?key|secret_?key|private_?key"
    r"|credentials?)$",
    re.IGNORECASE,
)
_SHORTEST = 8  # characters; a shorter value is found in too many innocent places
_STRUCK = "(secret)"


class Redaction:
    """Strikes secrets from texts.

    Args:
        environment: variables by name; those of this process by default.

    >>> Redaction({"API_TOKEN": "abcd1234", "HOME": "/home/me"})("token abcd1234 in /home/me")
    'token (secret) in /home/me'
    """

    def __init__(self, environment: Mapping[str, str] | None = None) -> None:
        given = os.environ if environment is None else environment
        values = {v for k, v in given.items() if _SECRET.search(k) and len(v) >= _SHORTEST}
        found = sorted(values, key=len, reverse=True)  # the whole before its parts
        self._pattern = re.compile("|".join(map(re.escape, found))) if found else None

    def __call__(self, data: Any) -> Any:
        """Return plain data with the secrets struck from every text in it; keys stay."""
        if self._pattern is None:
            return data
        if isinstance(data, str):
            return self._pattern.sub(_STRUCK, data)
        if isinstance(data, list):
            return [self(item) for item in data]
        if isinstance(data, dict):
            return type(data)({key: self(value) for key, value in data.items()})
        return data
