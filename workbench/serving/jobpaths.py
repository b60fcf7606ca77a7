"""The routes of jobs as OpenAPI tells them: what each notebook takes is a schema of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.serving.schemas import COUNT, FLAG, NUMBER, TEXT, object_of
from workbench.types import JSON

__all__ = ["job_paths"]

_TAG = "Jobs"
_ANY = ("400", "401", "403", "408", "431", "500", "503")
_NAMED = (*_ANY, "404")
_SENT = (*_NAMED, "413", "415", "429")
_STATES = (
    *("queued", "running", "done", "failed", "interrupted", "killed", "timed out"),
    "cancelled",
)


def job_paths(schemas: Mapping[str, JSON]) -> JSON:
    """Return the paths of jobs.

    Args:
        schemas: of what each notebook takes, by its name.
    """
    job, given = _job(), [_id()]
    listed = {"type": "array", "items": object_of({"notebook": TEXT, "parameters": {}})}
    jobs = object_of({"jobs": {"type": "array", "items": job}})
    notebooks = object_of({"notebooks": listed})
    started = _operation("Run a notebook", job, refuses=_SENT)
    started["responses"]["202"] = started["responses"].pop("200")
    started["requestBody"] = {
        "required": True,
        "content": {"application/json": {"schema": {"anyOf": _requests(schemas)}}},
    }
    return {
        "/jobs/notebooks": {"get": _operation("Notebooks, and what they take", notebooks)},
        "/jobs": {"get": _operation("The last jobs, the newest first", jobs), "post": started},
        "/jobs/{id}": {"get": _operation("How a job stands", job, given, _NAMED)},
        "/jobs/{id}/events": {"get": _events()},
        "/jobs/{id}/cancel": {"post": _operation("End a job", job, given, _NAMED)},
    }


def _requests(schemas: Mapping[str, JSON]) -> list[JSON]:
    """Return the schema of a request for each notebook."""
    found = []
    for name, schema in schemas.items():
        parameters = {key: value for key, value in schema.items() if key != "$schema"}
        asked = object_of({"notebook": {"const": name}, "parameters": parameters}, ["notebook"])
        found.append({**asked, "additionalProperties": False})
    return found


def _job() -> JSON:
    """Return the schema of a job."""
    or_null = {"type": ["string", "null"]}
    cell = object_of({"number": COUNT, "of": COUNT, "heading": or_null})
    return object_of(
        {
            "id": TEXT,
            "notebook": TEXT,
            "parameters": {"type": "object"},
            "state": {"enum": list(_STATES)},
            "place": {"type": ["integer", "null"], "description": "in the queue, from 1 on"},
            "cancelling": FLAG,
            "cell": {"anyOf": [cell, {"type": "null"}]},
            "attempts": COUNT,
            **{moment: or_null for moment in ("queued", "started", "ended")},
            "seconds": {"type": ["number", "null"]},
            "metrics": {"type": "object", "additionalProperties": NUMBER},
            "published": {"type": "array", "items": TEXT},
            "error": or_null,
        }
    )


def _events() -> JSON:
    last = {
        "name": "Last-Event-ID",
        "in": "header",
        "description": "of the last event that came: what is after it is told, else everything",
        "schema": TEXT,
    }
    told = _operation("What happens in a job, as it does", {}, [_id(), last], (*_NAMED, "429"))
    event = object_of({"event": TEXT, "id": TEXT, "data": TEXT})
    told["responses"]["200"]["content"] = {"text/event-stream": {"schema": event}}
    told["responses"]["204"] = {"description": "The job is over, and all of it was told."}
    return told


def _id() -> JSON:
    return {"name": "id", "in": "path", "required": True, "schema": TEXT}


def _operation(
    summary: str, schema: JSON, given: Sequence[JSON] = (), refuses: Sequence[str] = _ANY
) -> JSON:
    """Return what one method of a path does; all of them want the administrator's token."""
    answer = {"description": "As asked.", "content": {"application/json": {"schema": schema}}}
    return {
        "tags": [_TAG],
        "summary": summary,
        **({"parameters": list(given)} if given else {}),
        "responses": {
            "200": answer,
            **{s: {"$ref": f"#/components/responses/E{s}"} for s in sorted(refuses)},
        },
    }
