"""The routes that watch a service, as OpenAPI tells them, and those that try one version out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from workbench.serving.examples import model_path
from workbench.serving.operations import ANY, NAMED, operation, path_parameter, reading
from workbench.serving.schemas import COUNT, FLAG, NUMBER, TEXT, array_of, object_of
from workbench.serving.served import Served
from workbench.types import JSON

__all__ = ["watch_paths"]

_TAG = "Watching"
_SENT = (*NAMED, "413", "415")
_TEXT_OR_NULL: JSON = {"type": ["string", "null"]}
_NUMBER_OR_NULL: JSON = {"type": ["number", "null"]}


def watch_paths(named: Mapping[str, Sequence[Served]]) -> JSON:
    """Return the paths of watching.

    Args:
        named: the versions of each name, its default first.
    """
    paths: JSON = {"/metrics": {"get": _metrics()}}
    for versions in named.values():
        paths[f"/{model_path(versions[0])}/feedback"] = {"post": _feedback(versions[0])}
    if not named:
        return paths
    root, given = "/models/{model}", [path_parameter("model", list(named))]
    about = {"monitor": ("Drift, live accuracy and the challenger", _vitals())}
    about["challenger"] = "How the challenger does beside the default", _trial()
    for part, (summary, schema) in about.items():
        told = reading(_TAG, summary, schema, given=given, refuses=NAMED)
        paths[f"{root}/{part}"] = {"get": told}
    paths[f"{root}/answers"] = {"get": _answers(given)}
    paths[f"{root}/challenger"] |= _challenge(given)
    paths[f"{root}/challenger/promote"] = {"post": _promote(given)}
    paths[f"{root}/rollback"] = {"post": _rollback(given)}
    return paths


def _metrics() -> JSON:
    kinds = ("text/plain", "application/openmetrics-text")
    content = {kind: {"schema": TEXT} for kind in kinds}
    return operation(_TAG, "What was counted, for Prometheus", content, refuses=ANY)


def _feedback(served: Served) -> JSON:
    """Return what takes the labels of an answer; those of classes are among their names."""
    label: JSON = {"type": ["string", "number"]}
    if served.classes:
        label = {"enum": list(served.classes)}
    group = {"type": ["string", "null"], "minLength": 1, "maxLength": 100}
    told = {
        "id": {**TEXT, "description": "the X-Request-Id of the answer"},
        "label": {"anyOf": [label, array_of(label)], "description": "of several rows a list"},
        "group": {**group, "description": "of the rows, to look at their accuracy apart"},
    }
    return _changing(
        f"What rows of {served.name} turned out to be",
        object_of({"labels": {**COUNT, "description": "that are known by that"}}),
        object_of(told, ["id", "label"]),
        example={"id": "the answer's own", "label": served.classes[0] if served.classes else 1.5},
        refuses=_SENT,
    )


def _answers(given: Sequence[JSON]) -> JSON:
    last = {"type": "integer", "minimum": 1, "maximum": 10_000, "default": 100}
    asked = [
        {"name": "last", "in": "query", "description": "how many at most", "schema": last},
        {"name": "version", "in": "query", "description": "only of this one", "schema": TEXT},
    ]
    said: JSON = {"type": ["array", "null"], "description": "of each row the label, or the value"}
    later: JSON = {"labels": {"type": "array"}, "group": _TEXT_OR_NULL, "at": NUMBER}
    answer = object_of(
        {
            "id": TEXT,
            "at": {**NUMBER, "description": "seconds since 1970"},
            "version": TEXT,
            "weights": {**_TEXT_OR_NULL, "description": "their hash, of a live model"},
            "rows": COUNT,
            "said": said,
            "seconds": NUMBER,
            "shadow": {**_TEXT_OR_NULL, "description": "the version that was asked the same"},
            "shadow_said": said,
            "drawn": {**FLAG, "description": "whether traffic was split"},
            "feedback": _or_null(object_of(later)),
        }
    )
    summary = "The last answers, the newest first, with the labels that came later"
    schema = object_of({"answers": {"type": "array", "items": answer}})
    return reading(_TAG, summary, schema, given=[*given, *asked], refuses=NAMED)


def _challenge(given: Sequence[JSON]) -> JSON:
    """Return what begins a challenge and what ends it."""
    share = {**NUMBER, "exclusiveMinimum": 0, "maximum": 1, "default": 1.0}
    number = {"type": ["string", "integer"], "description": "its number, or an alias of it"}
    asked: JSON = {"version": number, "mode": {"enum": ["shadow", "split"]}, "share": share}
    begun = _changing(
        "Try a version beside the default",
        _trial(),
        object_of(asked, ["version"]),
        example={"version": "2", "mode": "shadow"},
        given=given,
    )
    ended = reading(
        _TAG, "Try nothing any more", {"type": "object"}, given=list(given), refuses=NAMED
    )
    return {"put": begun, "delete": ended}


def _promote(given: Sequence[JSON]) -> JSON:
    rule = {
        "p": {**NUMBER, "exclusiveMinimum": 0, "exclusiveMaximum": 1, "default": 0.05},
        "labels": {"type": "integer", "minimum": 1, "maximum": 1_000_000, "default": 1000},
        "alias": {**TEXT, "default": "champion"},
    }
    answer = object_of({"promoted": TEXT, "reason": TEXT, "evidence": {"type": "object"}})
    summary = "Make the challenger the default if it does better by the rule"
    example = {"p": 0.05, "labels": 1000}
    return _changing(summary, answer, object_of(rule, []), example=example, given=given)


def _rollback(given: Sequence[JSON]) -> JSON:
    asked = {"alias": {**TEXT, "default": "champion"}, "why": TEXT}
    answer = object_of({"now": TEXT, "before": TEXT})
    summary = "Let an alias be on the version before again, and that answer"
    example = {"why": "it is too slow"}
    return _changing(summary, answer, object_of(asked, []), example=example, given=given)


def _changing(
    summary: str,
    answer: JSON,
    asked: JSON,
    *,
    example: JSON,
    given: Sequence[JSON] = (),
    refuses: Sequence[str] = (*_SENT, "409"),
) -> JSON:
    """Return what takes an object without other properties."""
    told = operation(
        _TAG,
        summary,
        {"application/json": {"schema": answer}},
        given=list(given),
        body={
            "application/json": {
                "schema": {**asked, "additionalProperties": False},
                "examples": {"one": {"value": example}},
            }
        },
        refuses=refuses,
    )
    told["requestBody"]["required"] = bool(asked.get("required"))
    return told


def _vitals() -> JSON:
    """Return the schema of how a model does."""
    figures = {"labels": COUNT, "accuracy": NUMBER, "error": NUMBER, "interval": _interval()}
    groups = {"type": "object", "additionalProperties": object_of(figures, ["labels"])}
    accuracy = object_of({"version": TEXT, **figures, "groups": groups}, ["labels", "groups"])
    return object_of(
        {
            "model": TEXT,
            "run": {**_TEXT_OR_NULL, "description": "that the version comes from"},
            "version": TEXT,
            "drift": _or_null(_window()),
            "accuracy": accuracy,
            "windows": {"type": "array", "items": _window()},
            "looking": _or_null(object_of({"rows": COUNT, "window": COUNT})),
            "challenger": _or_null(_trial()),
            "log": object_of({"dropped": COUNT, "trouble": _TEXT_OR_NULL}),
        }
    )


def _window() -> JSON:
    """Return the schema of how the rows of a window differ from the version's reference."""
    figure = object_of(
        {
            "figure": TEXT,
            "psi": {**NUMBER, "description": "population stability index"},
            "threshold": {**NUMBER, "description": "of the alarm"},
            "ks": _NUMBER_OR_NULL,
            "p": _NUMBER_OR_NULL,
            "alarm": FLAG,
        }
    )
    names = {"type": "array", "items": TEXT, "description": "of the figures that give the alarm"}
    figures = {"type": "array", "items": figure}
    moments = {"first": NUMBER, "last": NUMBER}
    return object_of(
        {"version": TEXT, **moments, "rows": COUNT, "figures": figures, "alarm": names}
    )


def _trial() -> JSON:
    """Return the schema of how a challenger does."""
    return object_of(
        {
            "champion": TEXT,
            "challenger": TEXT,
            "mode": {"enum": ["shadow", "split"]},
            "share": NUMBER,
            "promote": {**FLAG, "description": "whether it would be, by p < 0.05 of 1,000 labels"},
            "reason": TEXT,
            "evidence": {"type": "object"},
        }
    )


def _interval() -> JSON:
    return _or_null({"type": "array", "items": NUMBER, "minItems": 2, "maxItems": 2})


def _or_null(schema: JSON) -> JSON:
    return {"anyOf": [schema, {"type": "null"}]}
