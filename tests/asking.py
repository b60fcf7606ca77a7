"""Small models to serve, and requests as raw as a test needs them."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import urlsplit

import torch
from torch import nn

from workbench.serving import Service

__all__ = ["ROWS", "Answer", "ask", "bearer", "infer_body", "small_model"]

ROWS = torch.arange(6, dtype=torch.float32).reshape(3, 2) / 7


class Answer:
    """The answer to one request."""

    def __init__(self, status: int, headers: http.client.HTTPMessage, body: bytes) -> None:
        self.status, self.headers, self.body = status, headers, body

    @property
    def json(self) -> Any:
        """The body, read as strict JSON."""
        return json.loads(self.body, parse_constant=lambda word: 1 / 0)

    @property
    def error(self) -> str:
        """The reason given, the body having nothing beside it."""
        assert self.headers["Content-Type"] == "application/json"
        assert list(self.json) == ["error"]
        return str(self.json["error"])


def small_model(factor: float = 1.0) -> nn.Module:
    """Return a model of two features to three outputs, the same for the same factor."""
    model = nn.Linear(2, 3)
    with torch.no_grad():
        model.weight.copy_(torch.arange(6).reshape(3, 2) / 3 * factor)
        model.bias.fill_(factor)
    return model


def bearer(service: Service) -> dict[str, str]:
    """Return the header that carries the token."""
    return {"Authorization": f"Bearer {service.token}"}


def infer_body(rows: torch.Tensor = ROWS, **more: Any) -> bytes:
    """Return a V2 request in JSON."""
    told = {"name": "input", "datatype": "FP32", "shape": list(rows.shape), "data": rows.tolist()}
    return json.dumps({"inputs": [told], **more}).encode()


def ask(
    service: Service,
    method: str,
    path: str,
    body: bytes | Iterator[bytes] | None = None,
    headers: Mapping[str, str] | None = None,
) -> Answer:
    """Send one request, by default with the token, and return its answer; iterators go chunked."""
    parts = urlsplit(service.url)
    connection = http.client.HTTPConnection(parts.hostname or "", parts.port, timeout=20)
    try:
        sent = bearer(service) if headers is None else dict(headers)
        connection.request(method, path, body, sent, encode_chunked=isinstance(body, Iterator))
        answer = connection.getresponse()
        return Answer(answer.status, answer.headers, answer.read())
    finally:
        connection.close()
