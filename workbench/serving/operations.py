"""What the OpenAPI document says of any one operation: its answer, its parameters, its errors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from workbench.serving.schemas import TEXT
from workbench.types import JSON

__all__ = [
    "ANY",
    "ASKED",
    "ERRORS",
    "NAMED",
    "SENT",
    "error",
    "operation",
    "path_parameter",
    "reading",
]

ERRORS: Mapping[str, str] = {
    "400": "It is malformed, or is not what the model takes; the reason says which part.",
    "401": "It has no valid token.",
    "403": "Its Host, Origin or Sec-Fetch-Site is of another site, or it needs an administrator.",
    "404": "There is no such model, version or path.",
    "405": "The path has other methods; Allow names them.",
    "408": "It did not arrive whole in time.",
    "409": "It is not so now: a live model has no versions, or the rule does not let promote.",
    "413": "Its body is larger than 64 MiB, inflated too.",
    "415": "Its Content-Type or Content-Encoding is not offered.",
    "429": "The line is full: try again after the seconds in Retry-After.",
    "431": "Its headers are too large.",
    "500": "The model failed; the number in the reason finds the error where the service runs.",
    "501": "It is not offered here.",
    "503": "A model is being loaded, or the service stops: try again after Retry-After.",
    "504": "It was not answered within its own deadline.",
}
ANY = ("400", "401", "403", "408", "431", "500", "503")
NAMED = (*ANY, "404")
SENT = (*ANY, "413", "415")
ASKED = (*NAMED, "413", "415", "429", "504")


def operation(
    tag: str,
    summary: str,
    content: JSON,
    *,
    given: list[JSON] | None = None,
    body: JSON | None = None,
    refuses: Sequence[str] = ANY,
) -> JSON:
    """Return what one method of a path does.

    Args:
        tag: the group it is in.
        summary: what it does.
        content: of its answer, by media type.
        given: its parameters.
        body: content of the request, by media type.
        refuses: the statuses of its errors.
    """
    responses: dict[str, Any] = {"200": {"description": "As asked.", "content": content}}
    responses |= {s: {"$ref": f"#/components/responses/E{s}"} for s in sorted(refuses)}
    return {
        "tags": [tag],
        "summary": summary,
        **({"parameters": given} if given else {}),
        **({"requestBody": {"required": True, "content": body}} if body else {}),
        "responses": responses,
    }


def reading(
    tag: str,
    summary: str,
    schema: JSON,
    *,
    given: list[JSON] | None = None,
    refuses: Sequence[str] = ANY,
) -> JSON:
    """Return what a method does that answers JSON and takes no body.

    Args:
        tag: the group it is in.
        summary: what it does.
        schema: of its answer.
        given: its parameters.
        refuses: the statuses of its errors.
    """
    content = {"application/json": {"schema": schema}}
    return operation(tag, summary, content, given=given, refuses=refuses)


def path_parameter(name: str, values: Sequence[str]) -> JSON:
    """Return a part of a path that is one of some values."""
    return {"name": name, "in": "path", "required": True, "schema": {"enum": list(values)}}


def error(status: str) -> JSON:
    """Return the answer of a status, one of `ERRORS`."""
    headers = {"429": "Retry-After", "503": "Retry-After", "405": "Allow"}
    name = headers.get(status)
    named = {name: {"schema": TEXT}} if name else {}
    content = {"application/json": {"schema": {"$ref": "#/components/schemas/Error"}}}
    return {"description": ERRORS[status], "headers": named, "content": content}
