"""Secrets kept out of what a run leaves: their values are known, and struck from every text.

Known are the values of environment variables whose names say that they are secret, from eight
characters on, and those that secret parameters come in (`WORKBENCH_PARAMETER_API_KEY`), from four
on: shorter ones are found in too many innocent places. Each is struck as it is and as it stands in
quotes.
"""

from __future__ import annotations

import json
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
_DECLARED = "WORKBENCH_PARAMETER_"
_SHORTEST, _SHORTEST_DECLARED = 8, 4  # characters
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
        forms = {form for name, v in given.items() if _is_secret(name, v) for form in _forms(v)}
        found = sorted(forms, key=len, reverse=True)  # the whole before its parts
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


def _is_secret(name: str, value: str) -> bool:
    if name.startswith(_DECLARED):
        return len(value) >= _SHORTEST_DECLARED
    return bool(_SECRET.search(name)) and len(value) >= _SHORTEST


def _forms(value: str) -> tuple[str, ...]:
    """Return a value as it is, as Python shows it, and as JSON does."""
    shown = json.dumps(value), json.dumps(value, ensure_ascii=False), repr(value)
    return value, *(text[1:-1] for text in shown)
