"""The OpenAPI document of a server: each of its routes, made of the models that it has now.

What is sent to a model is described for that model, at a path of its own; what a server says of
its models is described once, at a path with their names to choose from.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from workbench import __version__
from workbench.serving.examples import (
    aliases_of,
    columns_of,
    infer_example,
    kind_of,
    model_path,
    row_of,
)
from workbench.serving.jobpaths import job_paths
from workbench.serving.operations import (
    ANY,
    ASKED,
    ERRORS,
    NAMED,
    SENT,
    error,
    operation,
    path_parameter,
    reading,
)
from workbench.serving.schemas import (
    COUNT,
    FLAG,
    TEXT,
    array_of,
    config,
    generate_request,
    generated,
    infer_request,
    inferred,
    metadata,
    object_of,
    prediction_request,
    predictions,
    rows_answer,
    rows_request,
    statistics,
)
from workbench.serving.served import Served
from workbench.serving.watchpaths import watch_paths
from workbench.types import JSON

__all__ = ["NOT_OFFERED", "openapi_document"]

NOT_OFFERED = (
    *(f"/v2{model}/trace/setting" for model in ("", "/models/{model}")),
    "/v2/logging",
    *(
        f"/v2/{kind}sharedmemory{region}/{what}"
        for kind in ("system", "cuda")
        for region in ("", "/region/{name}")
        for what in ("status", "register", "unregister")
    ),
)  # routes of Triton's that there is no use for here

_TAGS: Mapping[str, str] = {
    "Ask a model": "Pictures, rows of a table or texts in; labels, probabilities or values out.",
    "V2": "The Open Inference Protocol, which tritonclient and KServe speak.",
    "V1": "The protocol of TensorFlow Serving.",
    "Watching": "How a model does: drift, live accuracy by labels that come later, and figures for "
    "Prometheus. Trying one version against another needs the administrator's token.",
    "Jobs": "Notebooks that are run where the service is, with the administrator's token.",
    "Repository": "Which versions there are. Loading and unloading need the administrator's token.",
    "Pages": "For people.",
    "Not offered": "What Triton has and nobody needs here: each of these answers 501.",
}
_ABOUT = """\
Every route but `/v2/health/live` wants the token: `Authorization: Bearer TOKEN`, or \
`X-Workbench-Token: TOKEN` where a proxy needs the other header, or the cookie of the sign-in. \
`workbench token NAME` prints it. Every error is `{"error": "why"}`. A body may be sent as gzip or \
deflate; an answer to an inference is sent so where Accept-Encoding asks for it. A path without a \
version asks the model's default one; a version is digits, or an alias of the registry.\
"""
_OCTETS = "application/octet-stream"
_HEADER = "Inference-Header-Content-Length"
_SAID: JSON = {
    "X-Request-Id": {"description": "by which feedback can come later", "schema": TEXT},
    "X-Model-Version": {"description": "what answered, NAME@VERSION", "schema": TEXT},
}
_BYTES: JSON = {"type": "string", "format": "binary"}


def openapi_document(models: Sequence[Served], *, jobs: Mapping[str, JSON] | None = None) -> JSON:
    """Return the document of a server, by OpenAPI 3.1.

    Args:
        models: a name's default before its other versions.
        jobs: by the name of each notebook that may be run, the schema of what it takes; None where
            none may be.
    """
    named: dict[str, list[Served]] = {}
    for served in models:
        named.setdefault(served.name, []).append(served)
    paths: dict[str, JSON] = {}
    examples = _examples(models)
    for name, versions in named.items():
        paths |= _model_paths(name, versions, examples)
    paths |= watch_paths(named) | ({} if jobs is None else job_paths(jobs))
    for part in (_v2(named), _v1(named), _repository(models), _pages(), _not_offered()):
        paths |= part
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "workbench",
            "version": __version__,
            "description": _ABOUT,
            "license": {"name": "MIT", "identifier": "MIT"},
        },
        "servers": [{"url": ".", "description": "where this document is"}],
        "tags": [
            {"name": name, "description": about}
            for name, about in _TAGS.items()
            if name != "Jobs" or jobs is not None
        ],
        "security": [{"bearer": []}, {"header": []}, {"cookie": []}],
        "paths": paths,
        "components": {
            "schemas": _schemas(models),
            "examples": examples,
            "responses": {f"E{status}": error(status) for status in ERRORS},
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "header": {"type": "apiKey", "in": "header", "name": "X-Workbench-Token"},
                "cookie": {
                    "type": "apiKey",
                    "in": "cookie",
                    "name": "workbench-PORT",
                    "description": "PORT is the service's own; a sign-in sets it",
                },
            },
        },
    }


# What is said of each model, in the components.


def _key(served: Served, kind: str) -> str:
    return f"{served.name}.{served.version}.{kind}"


def _schemas(models: Sequence[Served]) -> JSON:
    found: JSON = {"Error": object_of({"error": TEXT})}
    kinds = {
        "Row": rows_request, "Rows": rows_answer, "Infer": infer_request, "Inferred": inferred,
        "Predict": prediction_request, "Predicted": predictions, "Generate": generate_request,
        "Generated": generated,
    }  # fmt: skip
    for served in models:
        found |= {_key(served, kind): schema(served) for kind, schema in kinds.items()}
    return found


def _examples(models: Sequence[Served]) -> JSON:
    found: JSON = {}
    for served in models:
        columns, simple = columns_of(served), row_of(served)
        bodies = {
            "Row": simple,
            "Infer": infer_example(served),
            "Predict": None if simple is None else {"instances": [simple]},
            "Generate": columns,
        }
        found |= {
            _key(served, kind): {"summary": "one row", "value": body}
            for kind, body in bodies.items()
            if body is not None
        }
    return found


def _schema(models: Iterable[Served], kind: str) -> JSON:
    refs = [{"$ref": f"#/components/schemas/{_key(served, kind)}"} for served in models]
    return refs[0] if len(refs) == 1 else {"anyOf": refs}


def _json(models: Iterable[Served], kind: str, examples: JSON) -> JSON:
    """Return JSON content of that kind, with the examples that there are of it."""
    told = list(models)
    shown = {
        f"{served.name}@{served.version}": {"$ref": f"#/components/examples/{_key(served, kind)}"}
        for served in told
        if _key(served, kind) in examples
    }
    return {"schema": _schema(told, kind), **({"examples": shown} if shown else {})}


# A model's own paths.


def _model_paths(name: str, versions: list[Served], examples: JSON) -> JSON:
    default, paths = versions[0], {}
    v2, v1, own = f"/v2/models/{name}", f"/v1/models/{name}", f"/{model_path(default)}"
    version, label = _version(versions), _version(versions, "label")
    for models, part, given in (
        ([default], "", []),
        (versions, "/versions/{version}", [version]),
    ):
        paths[f"{own}{part}/predict"] = {"post": _predict(models, given, examples)}
        paths[f"{v2}{part}/infer"] = {"post": _infer(models, given, examples)}
        paths[f"{v2}{part}/generate"] = {"post": _generate(models, given, examples)}
        paths[f"{v2}{part}/generate_stream"] = {
            "post": _generate(models, given, examples, parts=True)
        }
        paths[f"{v1}{part}:predict"] = {"post": _predict_v1(models, given, examples)}
    paths[f"{v1}/labels/{{label}}:predict"] = {"post": _predict_v1(versions, [label], examples)}
    for path in paths.values():
        answer = path["post"]["responses"]["200"]
        answer["headers"] = {**answer.get("headers", {}), **_SAID}
    return paths


def _predict(models: list[Served], given: list[JSON], examples: JSON) -> JSON:
    kind = kind_of(models[0])
    content: JSON = {"application/json": _json(models, "Row", examples)}
    if kind == "image":
        content = {"image/png": {"schema": _BYTES}, "image/jpeg": {"schema": _BYTES}, **content}
    if kind == "text":
        content = {"text/plain": {"schema": TEXT}, **content}
    return operation(
        "Ask a model",
        f"Ask {models[0].name} with what you have",
        {"application/json": {"schema": _schema(models, "Rows")}},
        given=[*given, _deadline()],
        body=content,
        refuses=ASKED,
    )


def _infer(models: list[Served], given: list[JSON], examples: JSON) -> JSON:
    length = {
        "name": _HEADER,
        "in": "header",
        "description": "bytes of the JSON that raw tensors follow; absent where there are none",
        "schema": COUNT,
    }
    asked = operation(
        "V2",
        f"Ask {models[0].name} with tensors",
        {"application/json": {"schema": _schema(models, "Inferred")}, _OCTETS: {"schema": _BYTES}},
        given=[*given, length, _deadline()],
        body={"application/json": _json(models, "Infer", examples), _OCTETS: {"schema": _BYTES}},
        refuses=ASKED,
    )
    told = {"description": length["description"], "schema": COUNT}
    asked["responses"]["200"]["headers"] = {_HEADER: told}
    return asked


def _generate(
    models: list[Served], given: list[JSON], examples: JSON, *, parts: bool = False
) -> JSON:
    said = _schema(models, "Generated")
    data = {"type": "string", "contentMediaType": "application/json", "contentSchema": said}
    events = {"text/event-stream": {"schema": object_of({"data": data})}}
    return operation(
        "V2",
        f"Ask {models[0].name} with one row" + (", answered in parts" if parts else ""),
        events if parts else {"application/json": {"schema": said}},
        given=[*given, _deadline()],
        body={"application/json": _json(models, "Generate", examples)},
        refuses=ASKED,
    )


def _predict_v1(models: list[Served], given: list[JSON], examples: JSON) -> JSON:
    return operation(
        "V1",
        f"Ask {models[0].name} with rows or columns",
        {"application/json": {"schema": _schema(models, "Predicted")}},
        given=[*given, _deadline()],
        body={"application/json": _json(models, "Predict", examples)},
        refuses=ASKED,
    )


def _deadline() -> JSON:
    return {
        "name": "X-Request-Timeout",
        "in": "header",
        "description": "seconds after which the answer is of no use: 504 then",
        "schema": {"type": "number", "exclusiveMinimum": 0},
    }


# What a server says of its models.


def _v2(named: Mapping[str, list[Served]]) -> JSON:
    live, health = object_of({"live": FLAG}), object_of({"live": FLAG, "ready": FLAG})
    server = object_of({"name": TEXT, "version": TEXT, "extensions": array_of(TEXT)})
    names = object_of({"models": {"type": "array", "items": TEXT}})
    open_ = reading("V2", "Whether the server lives", live, refuses=("400", "403", "408", "431"))
    counted = object_of({"model_stats": {"type": "array", "items": statistics()}})
    paths: JSON = {
        "/v2/health/live": {"get": {**open_, "security": []}},
        "/v2/health/ready": {"get": reading("V2", "Whether every model is ready", health)},
        "/v2": {"get": reading("V2", "What the server is", server)},
        "/v2/": {"get": reading("V2", "What the server is", server)},
        "/v2/models": {"get": reading("V2", "Names of the models", names)},
        "/v2/models/stats": {"get": reading("V2", "Statistics of all models", counted)},
    }
    if not named:
        return paths
    ready = object_of({"name": TEXT, "ready": FLAG})
    about = {
        "": ("What the model takes and answers", metadata()),
        "/ready": ("Whether the model is ready", ready),
        "/config": ("The model's configuration, in Triton's words", config()),
        "/stats": ("The model's statistics", counted),
    }
    for root, given in _roots("/v2/models/{model}", named, ("version",)):
        for part, (summary, schema) in about.items():
            paths[f"{root}{part}"] = {
                "get": reading("V2", summary, schema, given=given, refuses=NAMED)
            }
    return paths


def _v1(named: Mapping[str, list[Served]]) -> JSON:
    names = object_of({"models": {"type": "array", "items": TEXT}})
    paths: JSON = {"/v1/models": {"get": reading("V1", "Names of the models", names)}}
    if not named:
        return paths
    state = object_of({"version": TEXT, "state": TEXT, "status": object_of({"error_code": TEXT})})
    status = object_of(
        {"name": TEXT, "ready": FLAG, "model_version_status": {"type": "array", "items": state}}
    )
    told = object_of({"model_spec": object_of({"name": TEXT, "version": TEXT}), "metadata": {}})
    for root, given in _roots("/v1/models/{model}", named, ("version", "label")):
        for part, summary, schema in (
            ("", "The state of the model's versions", status),
            ("/metadata", "What the model takes and answers", told),
        ):
            paths[f"{root}{part}"] = {
                "get": reading("V1", summary, schema, given=given, refuses=NAMED)
            }
    return paths


def _roots(
    root: str, named: Mapping[str, list[Served]], kinds: Sequence[str]
) -> Iterable[tuple[str, list[JSON]]]:
    """Yield where a model's own paths begin, with and without a version, and the parameters."""
    model = path_parameter("model", list(named))
    every = [served for versions in named.values() for served in versions]
    yield root, [model]
    for kind in kinds:
        yield f"{root}/{kind}s/{{{kind}}}", [model, _version(every, kind)]


def _version(models: Sequence[Served], name: str = "version") -> JSON:
    aliases = [alias for served in models for alias in aliases_of(served)]
    known = list(dict.fromkeys([*(served.version for served in models), *aliases]))
    return path_parameter(name, known) | {"description": "in digits, or an alias of the registry"}


# The rest.


def _repository(models: Sequence[Served]) -> JSON:
    entry = object_of({"name": TEXT, "version": TEXT, "state": TEXT, "reason": TEXT})
    nothing = {"application/json": {"schema": {"type": "object"}}}
    given = [path_parameter("model", list(dict.fromkeys(served.name for served in models)))]
    given[0]["schema"] = {**TEXT, "examples": given[0]["schema"]["enum"][:1]}
    given[0]["description"] = "NAME, or NAME@VERSION for one version beside the others"
    body = {"application/json": {"schema": object_of({"ready": FLAG}, [])}}
    index = operation(
        "Repository",
        "Versions that are here, and with `ready` false also those that could be loaded",
        {"application/json": {"schema": {"type": "array", "items": entry}}},
        body=body,
        refuses=SENT,
    )
    index["requestBody"]["required"] = False
    told = {"application/json": {"schema": object_of({"parameters": {"type": "object"}}, [])}}
    changes = {
        f"/v2/repository/models/{{model}}/{what}": {
            "post": operation(
                "Repository", summary, nothing, given=given, body=told, refuses=(*SENT, "404")
            )
        }
        for what, summary in (
            ("load", "Load a version from the registry"),
            ("unload", "Take a model, or one version of it, off the server"),
        )
    }
    for path in changes.values():
        path["post"]["requestBody"]["required"] = False
    return {"/v2/repository/index": {"post": index}, **changes}


def _pages() -> JSON:
    page = {"text/html": {"schema": TEXT}}
    document = {"application/json": {"schema": {"type": "object"}}}
    alive = object_of({"status": {"const": "alive"}})  # for who does not accept a page
    name = path_parameter("name", ["page.css", "page.js", "monitor.js", "monitor.js"])
    file = {"text/css": {"schema": TEXT}, "text/javascript": {"schema": TEXT}}
    found = {
        "/": operation(
            "Pages",
            "The models, and forms to try them",
            {**page, "application/json": {"schema": alive}},
        ),
        "/docs": operation("Pages", "This documentation", page),
        "/openapi.json": operation("Pages", "This document", document),
        "/assets/{name}": operation("Pages", "What pages load", file, given=[name], refuses=NAMED),
    }
    for path in ("/", "/docs"):
        content = {**page, **error("401")["content"]}
        told = "Has no valid token: a form to sign in, where Accept has text/html."
        found[path]["responses"]["401"] = {"description": told, "content": content}
    pages: JSON = {path: {"get": operation} for path, operation in found.items()}
    return pages | {"/sign-in": _sign_in(page)}


def _sign_in(page: JSON) -> JSON:
    """Return the path of the form; there is nothing for who asks for it but the way to the page."""
    token = {"application/x-www-form-urlencoded": {"schema": object_of({"token": TEXT})}}
    refuses = tuple(status for status in (*SENT, "429") if status != "401")
    asked = operation("Pages", "The way to the page, which has the form", {}, refuses=ANY)
    signed = operation("Pages", "Sign in by a cookie", {}, body=token, refuses=refuses)
    signed["responses"]["401"] = {"description": "It is not the token.", "content": page}
    for told in (asked, signed):
        told["responses"]["303"] = {"description": "To the page."}
        del told["responses"]["200"]
    return {"get": {**asked, "security": []}, "post": {**signed, "security": []}}


def _not_offered() -> JSON:
    paths: JSON = {}
    for path in NOT_OFFERED:
        given = [
            path_parameter(name, ["any"]) for name in ("model", "name") if f"{{{name}}}" in path
        ]
        refuses = (*(NAMED if given else ANY), "501")
        told = operation("Not offered", "Answers 501", {}, given=given, refuses=refuses)
        del told["responses"]["200"]
        paths[path] = {"get": told, "post": told}
    return paths
