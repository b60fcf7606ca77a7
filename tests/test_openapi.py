"""The OpenAPI document: valid, whole, and true of the service by all that schemathesis tries."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
import torch
from asking import ROWS, ask, small_model
from forms import KINDS, serve_all
from openapi_spec_validator import validate
from torch import nn

from workbench.serving import Service
from workbench.serving.openapi import openapi_document
from workbench.serving.served import Served, served_from
from workbench.types import JSON

HERE = Path(__file__).parent
CONFIGURATION = """\
[checks] # 501 is the answer where that is all there is, 504 where a tiny timeout was drawn
not_a_server_error.expected-statuses = ["2xx", "3xx", "4xx", "501", "504"]
[[operations]] # no schema says how many rows the answer of that id had, and whether they were named
include-path-regex = "/feedback$"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "403", "404"]
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    """Serve a model of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("WORKBENCH_HEADLESS", "1")
        services = serve_all()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("workbench.serving.watching.TICK", 0.0)  # no other process knows more answers
        yield services["shades"]
    for service in services.values():
        service.stop()


@pytest.fixture
def document(site: Service) -> JSON:
    found: JSON = ask(site, "GET", "/openapi.json").json
    return found


def schema(document: JSON, name: str) -> Any:
    """Return what checks instances against a schema of the document."""
    whole = {**document, "$ref": f"#/components/schemas/{name}"}
    return jsonschema.Draft202012Validator(whole)


def small(**example: Any) -> Served:
    return served_from(small_model(), name="small", **{"example": ROWS, **example})


def test_it_is_a_document_of_openapi(document: JSON) -> None:
    validate(document)
    assert document["openapi"] == "3.1.0"
    assert document["servers"] == [{"url": ".", "description": "where this document is"}]


def test_a_server_without_models_has_one_too() -> None:
    document = openapi_document([])
    validate(document)
    assert "/v2/models" in document["paths"]
    assert "/v2/models/{model}" not in document["paths"]


def test_jobs_are_told_where_there_are_any() -> None:
    asked = {"type": "object", "properties": {"epochs": {"type": "integer"}}}
    document = openapi_document([], jobs={"night": asked})
    validate(document)
    assert document["paths"].keys() - openapi_document([])["paths"].keys() == {
        *("/jobs", "/jobs/notebooks", "/jobs/{id}", "/jobs/{id}/events", "/jobs/{id}/cancel")
    }
    assert "Jobs" in [tag["name"] for tag in document["tags"]]
    assert "Jobs" not in [tag["name"] for tag in openapi_document([])["tags"]]


def test_it_tells_every_route_of_the_service(site: Service, document: JSON) -> None:
    told = [(m.upper(), path) for path, methods in document["paths"].items() for m in methods]
    routes = site._server.app._routes._routes
    missing = [
        (route.method, route.path)
        for pattern, route in routes
        if not any(m == route.method and pattern.match(path) for m, path in told)
    ]
    assert missing == []


def test_every_status_of_an_error_is_told_with_its_shape(document: JSON) -> None:
    asks = document["paths"]["/v2/models/people/infer"]["post"]["responses"]
    statuses = "200 400 401 403 404 408 413 415 429 431 500 503 504"
    assert sorted(asks) == statuses.split()
    for answer in document["components"]["responses"].values():
        known = answer["content"]["application/json"]["schema"]
        assert known == {"$ref": "#/components/schemas/Error"}
    assert "Retry-After" in document["components"]["responses"]["E429"]["headers"]


def test_all_but_liveness_and_the_sign_in_want_a_token(document: JSON) -> None:
    free = [
        path
        for path, methods in document["paths"].items()
        for operation in methods.values()
        if operation.get("security") == []
    ]
    assert sorted(free) == ["/sign-in", "/sign-in", "/v2/health/live"]
    assert document["security"] == [{"bearer": []}, {"header": []}, {"cookie": []}]


@pytest.mark.parametrize("kind", ["Row", "Infer", "Predict", "Generate"])
def test_the_examples_are_what_their_schemas_say(document: JSON, kind: str) -> None:
    examples = document["components"]["examples"]
    names = [name for name in examples if name.endswith(f".{kind}")]
    assert len(names) == len(KINDS)
    for name in names:
        schema(document, name).validate(examples[name]["value"])


@pytest.mark.parametrize(
    "change",
    [
        {"name": "other"},
        {"datatype": "FP64"},
        {"shape": [3]},
        {"shape": [1, 2]},
        {"shape": [0, 3]},
        {"data": ["1"]},
        {"data": [[1.0]]},
        {"data": [1e39]},
        {"data": [[1.0, 2.0, 3.0, 4.0]]},
        {"data": []},
    ],
)
def test_a_wrong_tensor_is_wrong_by_the_schema_and_to_the_service(
    site: Service, document: JSON, change: JSON
) -> None:
    known = schema(document, "people.0.Infer")
    body = document["components"]["examples"]["people.0.Infer"]["value"]
    known.validate(body)
    body["inputs"][0] |= change
    with pytest.raises(jsonschema.ValidationError):
        known.validate(body)
    sent = json.dumps(body).encode()
    assert ask(site, "POST", "/v2/models/people/infer", sent).status == 400


def test_a_version_is_told_by_its_number_and_its_aliases(tmp_path: Path) -> None:
    from workbench.registry import promote, publish

    made = publish(small_model(), "digits", example=ROWS)
    promote(made.ref, "champion")
    document = openapi_document([served_from("digits@1")])
    (version,) = document["paths"]["/v1/models/digits/versions/{version}:predict"]["post"][
        "parameters"
    ][:1]
    assert version["schema"] == {"enum": ["1", "champion"]}


def test_versions_of_a_name_are_each_told() -> None:
    one, other = small(), served_from(nn.Linear(3, 1), name="small", example=[[0.0] * 3])
    document = openapi_document([one, dataclasses.replace(other, version="7")])
    validate(document)
    paths = document["paths"]
    plain = paths["/models/small/predict"]["post"]["requestBody"]["content"]["application/json"]
    named = paths["/models/small/versions/{version}/predict"]["post"]["requestBody"]["content"]
    assert plain["schema"] == {"$ref": "#/components/schemas/small.0.Row"}
    assert named["application/json"]["schema"] == {
        "anyOf": [{"$ref": f"#/components/schemas/small.{n}.Row"} for n in (0, 7)]
    }


def test_an_example_that_nobody_could_read_is_left_out() -> None:
    large = served_from(nn.Flatten(), name="large", example=torch.zeros(1, 3, 100, 100))
    document = openapi_document([large])
    assert document["components"]["examples"] == {}
    assert "examples" not in str(document["paths"]["/v2/models/large/infer"])


def test_half_precision_has_no_example_in_json_by_v2() -> None:
    half = served_from(nn.Linear(2, 1).half(), name="half", example=torch.zeros(1, 2).half())
    assert half.signature.inputs[0].datatype == "FP16"
    assert "half.0.Infer" not in openapi_document([half])["components"]["examples"]
    assert half.example["input"].dtype == np.float16


def fuzz(site: Service, folder: Path, *options: str) -> str:
    """Let schemathesis look for an answer that the document does not tell of; return its report."""
    configuration = folder / "schemathesis.toml"
    configuration.write_text(CONFIGURATION)
    program = [sys.executable, "-m", "schemathesis.cli", f"--config-file={configuration}", "run"]
    asked = [f"{site.url}/openapi.json", f"--header=Authorization: Bearer {site.token}"]
    always = ["--continue-on-failure", "--seed=1", "--exclude-path=/sign-in"]  # each takes a second
    environment = {**os.environ, "SCHEMATHESIS_HOOKS": "fuzzing", "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        [*program, *asked, *always, *options],
        env=environment, cwd=folder, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-2000:]
    return done.stdout


def test_the_service_does_what_the_document_says(site: Service, tmp_path: Path) -> None:
    report = fuzz(
        site, tmp_path, "--max-examples=3", "--phases=examples,coverage,fuzzing",
        "--exclude-path-regex={version}|{label}",
    )  # fmt: skip
    assert int(re.search(r"(\d+) generated", report)[1]) > 1000  # type: ignore[index]


@pytest.mark.full
def test_the_service_does_what_the_document_says_for_long(site: Service, tmp_path: Path) -> None:
    report = fuzz(site, tmp_path, "--max-examples=60", "--phases=examples,coverage,fuzzing")
    assert int(re.search(r"(\d+) generated", report)[1]) > 5000  # type: ignore[index]
