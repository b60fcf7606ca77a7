"""The OpenAPI document of a server as a page: read without scripts, and without a network."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable
from typing import Any

from workbench.runs.pages import Html, join, table, tag
from workbench.types import JSON

__all__ = ["documentation"]

_LONG = 600  # characters of an example that a command shows

_GRPC = """\
gRPC is not offered: it needs a second port, a proxy of a notebook server does not pass it on, and \
the stubs that tritonclient and KServe bring clash in one process. Binary tensors over HTTP are as \
compact. Shared memory, tracing and the log's settings answer 501: tensors travel in the request \
itself, and no request changes how the service works.\
"""

_TRITON = """\
import numpy as np
import tritonclient.http as triton

client = triton.InferenceServerClient(URL.partition("//")[2])
{inputs}
answer = client.infer({name!r}, inputs, headers={{"Authorization": f"Bearer {{TOKEN}}"}})
answer.as_numpy({output!r})"""
_KSERVE = """\
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

client = InferenceRESTClient(RESTConfig(protocol="v2"))
{inputs}
asked = InferRequest(model_name={name!r}, infer_inputs=inputs)
headers = {{"Authorization": f"Bearer {{TOKEN}}"}}
answer = await client.infer(URL, asked, model_name={name!r}, headers=headers)"""
_PYTHON = """\
import json, urllib.request

body = {body}
headers = {{"Authorization": f"Bearer {{TOKEN}}", "Content-Type": {media!r}}}
request = urllib.request.Request(f"{{URL}}/models/{name}/predict", body, headers)
answer = json.load(urllib.request.urlopen(request))"""
_OURS = """\
import workbench as wb

service = wb.connect(URL, TOKEN)
answer = service.predict({rows}, {name!r})
service.monitor({name!r})"""


def documentation(document: JSON) -> Html:
    """Return what the page says of each route of an OpenAPI document, with a command for each."""
    offered = [_group(document, group) for group in document["tags"]]
    return join(
        tag("p", _prose(document["info"]["description"])),
        _contents(document),
        _begin(),
        *offered,
        _clients(document),
        _not_offered(document),
        _errors(document),
    )


def _contents(document: JSON) -> Html:
    links = [
        tag("li", tag("a", t["name"], href=f"#{_anchor(t['name'])}")) for t in document["tags"]
    ]
    links.insert(-1, tag("li", tag("a", "Clients", href="#clients")))
    links.append(tag("li", tag("a", "Errors", href="#errors")))
    return tag("nav", tag("ul", *links), aria_label="Contents")


def _begin() -> Html:
    lines = (
        "export URL=",
        tag("span", "http://127.0.0.1:8000", class_="address", data_path="."),
        "\nexport TOKEN=$(workbench token NAME)",
    )
    about = "The commands below come after these two, the first of which has this page's address."
    proxied = " The proxy before the service wants its own credentials too."
    told = tag("p", about, tag("span", proxied, class_="proxied", hidden=""))
    return join(told, _snippet(join(*lines), "The first two commands"))


def _group(document: JSON, group: JSON) -> Html | None:
    """Return a group's operations, those of a version or label being told with the model's own."""
    told: dict[str, list[tuple[str, str, JSON]]] = {}
    for path, methods in document["paths"].items():
        for method, operation in methods.items():
            if group["name"] in operation["tags"] and _answers(operation):
                plain = re.sub(r"/(version|label)s/{\1}|/$", "", path)
                told.setdefault(f"{method} {plain}", []).append((method, path, operation))
    title = tag("h2", group["name"], id=_anchor(group["name"]))
    operations = [_operation(document, same) for same in told.values()]
    return join(title, tag("p", group["description"]), *operations) if operations else None


def _answers(operation: JSON) -> dict[str, JSON]:
    """Return the answers that are no errors."""
    return {s: told for s, told in operation["responses"].items() if "$ref" not in told}


def _operation(document: JSON, same: list[tuple[str, str, JSON]]) -> Html:
    (method, path, operation), *others = same
    body = operation.get("requestBody")
    summary = tag(
        "summary",
        tag("span", method.upper(), class_=f"method {method}"),
        tag("code", path, class_="path"),
        tag("span", _prose(operation["summary"]), class_="about"),
    )
    given = {p["name"]: p for _, _, other in same for p in other.get("parameters", ())}
    parts = [
        *(tag("p", "also ", tag("code", other)) for _, other, _ in others),
        _parameters(given.values()),
        _contents_of(document, "Send", body["content"]) if body else None,
        *(
            _contents_of(document, f"Answer {status}", told.get("content", {}))
            for status, told in _answers(operation).items()
        ),
        tag("h3", "Command"),
        _snippet(_command(document, method, path, operation), f"Command for {path}"),
        _refusals(operation),
    ]
    return tag("details", summary, *parts, class_="more operation")


def _parameters(parameters: Iterable[JSON]) -> Html | None:
    rows = [[p["name"], p["in"], _kind(p["schema"]), p.get("description", "")] for p in parameters]
    if not rows:
        return None
    head = ["name", "in", "what", "meaning"]
    return join(tag("h3", "Parameters"), table(head, rows, "Parameters"))


def _kind(schema: JSON) -> str:
    listed = schema.get("enum")
    return f"one of {', '.join(map(str, listed))}" if listed else str(schema.get("type", "any"))


def _contents_of(document: JSON, title: str, content: JSON) -> Html:
    parts = []
    for media, told in content.items():
        schema = _resolved(document, told.get("schema", {}))
        text = json.dumps(schema, indent=1, ensure_ascii=False)
        code = _snippet(text, f"Schema of {media}")
        is_plain = schema.get("type") == "string" or not schema
        parts.append(
            tag("p", tag("code", media))
            if is_plain
            else tag("details", tag("summary", tag("code", media), ", its schema"), code)
        )
    return join(tag("h3", title), *(parts or [tag("p", "nothing")]))


def _refusals(operation: JSON) -> Html:
    statuses = [s for s, response in operation["responses"].items() if "$ref" in response]
    return tag("p", tag("a", "Errors", href="#errors"), f": {', '.join(statuses)}", class_="about")


def _command(document: JSON, method: str, path: str, operation: JSON) -> Html:
    """Return a curl command that asks the route, each choice being the first one there is."""
    for parameter in operation.get("parameters", ()):
        first = (parameter["schema"].get("enum") or parameter["schema"].get("examples") or [""])[0]
        path = path.replace(f"{{{parameter['name']}}}", str(first))
    header = tag("span", "Authorization: Bearer", class_="header")
    parts = [] if operation.get("security") == [] else [join('-H "', header, ' $TOKEN"')]
    body = operation.get("requestBody")
    if body:
        media, told = next(iter(body["content"].items()))
        parts += [Html(f'-H "Content-Type: {media}"'), join(_data(document, media, told))]
    if method not in ("get", "post") or (method == "post" and not body):
        parts.append(Html(f"-X {method.upper()}"))
    first, *rest = [*parts, join(f'"$URL{path}"')]
    return join("curl ", first, *(join(" \\\n  ", part) for part in rest))


def _data(document: JSON, media: str, told: JSON) -> str:
    if media.startswith("image/"):
        return f"--data-binary @picture.{media.partition('/')[2]}"
    if media.endswith("urlencoded"):
        return '-d "token=$TOKEN"'
    for example in told.get("examples", {}).values():
        said = json.dumps(_resolved(document, example)["value"], ensure_ascii=False)
        return (
            f"--data-raw {shlex.quote(said)}" if len(said) < _LONG else "--data-binary @body.json"
        )
    return "--data-raw '{}'" if media == "application/json" else "--data-binary @body"


def _clients(document: JSON) -> Html | None:
    """Return programs that ask the first model whose example can be written down."""
    examples = document["components"]["examples"]
    key = next((key for key in examples if key.endswith(".Infer")), None)
    if key is None:
        return None
    name = key.removesuffix(".Infer").rpartition(".")[0]
    answer = _resolved(document, {"$ref": f"#/components/schemas/{key}red"})
    row, tensors = (
        examples[f"{key.removesuffix('Infer')}Row"]["value"],
        examples[key]["value"]["inputs"],
    )
    output = answer["properties"]["outputs"]["items"]["properties"]["name"]["enum"][0]
    predict = document["paths"][f"/models/{name}/predict"]["post"]["requestBody"]["content"]
    media = next(iter(predict))
    rows, body = repr(row), f"json.dumps({row!r}).encode()"
    if len(body) > _LONG:
        rows, body = 'json.load(open("row.json"))', 'open("row.json", "rb").read()'
    if media == "text/plain":
        body = f"{row!r}.encode()"
    if media == "image/png":
        rows = body = 'open("picture.png", "rb").read()'
    known = {"name": name, "output": output, "body": body, "media": media}
    told = [
        ("tritonclient, unmodified", _TRITON.format(inputs=_inputs(tensors, "triton."), **known)),
        ("KServe's client", _KSERVE.format(inputs=_inputs(tensors, ""), **known)),
        ("Python alone", _PYTHON.format(**known)),
        ("Python of the workbench", _OURS.format(rows=rows, name=name)),
    ]
    parts = [join(tag("h3", title), _snippet(text, title)) for title, text in told]
    about = "URL and TOKEN stand for what the first two commands say."
    return join(tag("h2", "Clients", id="clients"), tag("p", about), *parts)


def _inputs(tensors: list[JSON], module: str) -> str:
    """Return the lines that make a client's inputs, of zeros or of an empty text."""
    lines = ["inputs = ["]
    for tensor in tensors:
        known = f"{tensor['name']!r}, {tensor['shape']}, {tensor['datatype']!r}"
        lines.append(f"    {module}InferInput({known}),")
    lines.append("]")
    for number, tensor in enumerate(tensors):
        dtype, shape = tensor["datatype"].lower().replace("fp", "float"), tensor["shape"]
        zeros = f"np.zeros({shape}, {dtype!r})"
        if tensor["datatype"] == "BYTES":
            zeros = f'np.full({shape}, b"text", object)'
        lines.append(f"inputs[{number}].set_data_from_numpy({zeros})")
    return "\n".join(lines)


def _not_offered(document: JSON) -> Html:
    paths = [
        path
        for path, methods in document["paths"].items()
        if not any(_answers(operation) for operation in methods.values())
    ]
    listed = tag("ul", *(tag("li", tag("code", path)) for path in paths), class_="names")
    return join(tag("h2", "Not offered", id="not-offered"), tag("p", _GRPC), listed)


def _errors(document: JSON) -> Html:
    rows = [
        [name.removeprefix("E"), response["description"]]
        for name, response in document["components"]["responses"].items()
    ]
    told = tag("p", "Each is ", tag("code", '{"error": "why"}'), " and nothing else.")
    head = ["status", "when"]
    return join(tag("h2", "Errors", id="errors"), told, table(head, rows, "Errors"))


def _snippet(text: str, label: str) -> Html:
    return tag(
        "pre", tag("code", text), class_="snippet", tabindex="0", role="group", aria_label=label
    )


def _resolved(document: JSON, told: Any) -> Any:
    """Return what a reference within the document refers to."""
    while isinstance(told, dict) and "$ref" in told:
        found: Any = document
        for key in told["$ref"].removeprefix("#/").split("/"):
            found = found[key]
        told = found
    return told


def _prose(text: str) -> Html:
    """Return text with what is between backticks as code.

    >>> _prose("see `GET /v2` & go")
    'see <code>GET /v2</code> &amp; go'
    """
    parts = re.split("`([^`]*)`", text)
    return join(*(tag("code", part) if i % 2 else part for i, part in enumerate(parts)))


def _anchor(name: str) -> str:
    return re.sub(r"\W+", "-", name.lower())
