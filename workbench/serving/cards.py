"""A model on its service's page: what it is, a form to try it, how it does, how to ask it.

Names, classes and whatever a card says come from the model, and are escaped like all other text.
"""

from __future__ import annotations

import base64
import io
import json
import shlex
from collections.abc import Iterable
from pathlib import PurePath
from typing import Any

import numpy as np
from PIL import Image

from workbench.runs.pages import Html, facts, fold, join, moment, scroll, tag
from workbench.serving.examples import (
    aliases_of,
    columns_of,
    features_of,
    kind_of,
    model_path,
    row_of,
)
from workbench.serving.served import Served
from workbench.serving.tensors import Array
from workbench.types import JSON, TensorSpec

__all__ = ["model_section"]

_LISTED = 12  # names that are listed before the rest is folded
_LONG = 2000  # characters of a row that a command still shows
_WATCHED = {
    "speed": "Speed",
    "drift": "Drift",
    "accuracy": "By labels that came later",
    "challenger": "Challenger",
}


def model_section(served: Served, *, alone: bool) -> Html:
    """Return what the page says of one model.

    Args:
        served: the model.
        alone: whether the page has no other, and is called by its name already.
    """
    level, name = (1, f"model-{served.name}") if alone else (2, f"model-{served.name}")
    title = None if alone else tag("h2", served.name, " ", _ref(served), id=name)
    below, inner = f"h{level + 1}", f"h{level + 2}"
    columns = tag(
        "div",
        tag("div", tag(below, "Try it"), _form(served), class_="card"),
        tag("div", tag(below, "The model"), _card(served), class_="card"),
        class_="columns",
    )
    watched = tag(
        "div", tag(below, "How it does"), *_watched(served, inner), class_="card watched",
        data_name=served.name, data_from=f"{model_path(served)}/monitor",
    )  # fmt: skip
    command = tag("div", tag(below, "From a terminal"), *_command(served), class_="card")
    label = {"aria_label": served.name} if alone else {"aria_labelledby": name}
    return tag("section", title, columns, watched, command, class_="model", **label)


def _ref(served: Served) -> Html:
    return tag("span", served.model, class_="ref")


# What the model is.


def _card(served: Served) -> Html:
    size, created = served.card.get("parameters"), served.card.get("created")
    pairs = [
        ("version", served.version),
        ("aliases", ", ".join(aliases_of(served))),
        ("takes", _takes(served)),
        ("answers", _answers(served)),
        ("metrics", _metrics(served.card.get("metrics") or {})),
        ("size", f"{size:,} parameters" if isinstance(size, int) else None),
        *_lineage(served.card.get("lineage") or {}),
        ("published", moment(created) if created else None),
        ("tensors", _tensors(served)),
    ]
    return join(facts(pairs), _class_list(served))


def _lineage(lineage: JSON) -> Iterable[tuple[str, str | None]]:
    """Yield where a version comes from, as far as it is known."""
    data, cell, code = (lineage.get(part) or {} for part in ("data", "cell", "code"))
    notebook = PurePath(str(cell.get("notebook") or "a notebook")).name
    given = (lineage.get("parameters") or {}).items()
    yield "data", _text(data.get("name"))
    yield "fingerprint", _code(data.get("fingerprint"))
    yield "run", _code(lineage.get("run"))
    yield "run with", ", ".join(f"{name} {value}" for name, value in given)
    yield "cell", f"{cell.get('execution_count')} of {notebook}" if cell else None
    yield "code", _code(code.get("commit"))
    yield "parent", _text(lineage.get("parent"))


def _metrics(metrics: JSON) -> Html | None:
    said = [tag("li", name, " ", tag("b", _number(value))) for name, value in metrics.items()]
    return tag("ul", *said, class_="figures") if said else None


def _takes(served: Served) -> str:
    kind = kind_of(served)
    if kind == "image":
        height, width, *channels = served.signature.inputs[0].shape[1:]
        looks = {1: "grey", 3: "colour", 4: "colour and transparency"}
        return f"a picture of {width} × {height} in {looks[channels[0] if channels else 1]}"
    if kind == "table" or served.features:
        names = served.features[:_LISTED]
        more = f" and {len(served.features) - _LISTED} more" if served.features[_LISTED:] else ""
        told = f": {', '.join(names)}{more}" if names else ""
        return f"{served.signature.inputs[0].shape[1]} numbers{told}"
    return "a text" if kind == "text" else f"rows of {_names(served.signature.inputs)}"


def _answers(served: Served) -> str:
    if not served.classes:
        outputs = served.signature.outputs
        rows = f"rows of {_names(outputs)}"
        single = [(s.datatype, s.shape[1:]) for s in outputs]
        plain = {("FP32", (1,)): "a number", ("BYTES", ()): "a text"}
        return plain.get(single[0], rows) if len(single) == 1 else rows
    shown = ", ".join(served.classes[:_LISTED])
    more = ", …" if len(served.classes) > _LISTED else ""
    return f"one of {len(served.classes)} classes: {shown}{more}"


def _class_list(served: Served) -> Html | None:
    if len(served.classes) <= _LISTED:
        return None
    names = [tag("li", name) for name in served.classes]
    return fold(f"All {len(names)} classes", tag("ul", *names, class_="names"), kind="inside")


def _tensors(served: Served) -> Html:
    lines = [_spec(spec) for spec in served.signature.inputs]
    lines += ["→"] + [_spec(spec) for spec in served.signature.outputs]
    return tag("code", " ".join(lines))


def _spec(spec: TensorSpec) -> str:
    return f"{spec.name} {spec.datatype} [{', '.join(map(str, spec.shape))}]"


def _names(specs: Iterable[TensorSpec]) -> str:
    return ", ".join(spec.name for spec in specs)


# The form.


def _form(served: Served) -> Html:
    kind = kind_of(served)
    fields = {"image": _picture_field, "table": _table_fields, "text": _text_field}
    inside = fields.get(kind, _json_field)(served)
    buttons = tag("p", tag("button", "Ask", type="submit", class_="ask"), class_="buttons")
    form = tag(
        "form",
        tag("fieldset", inside, buttons, disabled=""),  # until the script is there
        tag("p", role="alert", class_="wrong", hidden=""),
        action=f"{model_path(served)}/predict",
        method="post",
        data_kind=kind,
        aria_label=f"Try {served.name}",
    )
    scripts = tag("noscript", tag("p", "The form needs scripts; the command below needs none."))
    answer = tag("div", class_="answer", role="status", aria_label="Answer", tabindex="-1")
    return join(scripts, form, answer)


def _picture_field(served: Served) -> Html:
    name = f"picture-{served.name}"
    chooser = tag(
        "input", type="file", id=name, name="picture", accept="image/png,image/jpeg", required=""
    )
    told = tag("label", "Choose a PNG or JPEG, drop one here, or paste one", for_=name)
    preview = tag("img", class_="preview", alt="The picture to ask about", hidden="")
    return join(tag("div", told, chooser, preview, class_="drop"), _example_button(served))


def _example_button(served: Served) -> Html | None:
    """Return a button that takes the version's own example, where that can be shown."""
    png = _png(next(iter(served.example.values()))[0])
    if png is None:
        return None
    data = base64.b64encode(png).decode()
    picture = tag("img", src=f"data:image/png;base64,{data}", alt="")
    button = tag("button", picture, "Take the example", type="button", class_="example")
    return tag("p", button)


def _table_fields(served: Served) -> Html:
    row = next(iter(served.example.values()))[0]
    fields = []
    for number, (feature, value) in enumerate(zip(features_of(served), row, strict=True)):
        name = f"feature-{served.name}-{number}"
        field = tag(
            "input", id=name, type="number", step="any", required="",
            name=feature, value=_number(value),
        )  # fmt: skip
        fields.append(tag("div", tag("label", feature, for_=name), field))
    named = "names" if served.features else None
    return tag("div", *fields, class_="fields", data_row=named or "list")


def _text_field(served: Served) -> Html:
    return _area(served, "Text", _example_text(served))


def _json_field(served: Served) -> Html:
    row = row_of(served)
    return _area(
        served, "A row as JSON", "" if row is None else json.dumps(row, ensure_ascii=False)
    )


def _area(served: Served, label: str, text: str) -> Html:
    name = f"input-{served.name}"
    # A newline that begins a text area's content is not part of it: one is given away.
    area = tag("textarea", f"\n{text}", id=name, name="input", rows="6", spellcheck="false")
    return tag("div", tag("label", label, for_=name), area)


# How it does: what the script fills in.


def _watched(served: Served, heading: str) -> Iterable[Html]:
    """Yield a part for each thing that is watched; what is drawn is there as a table too."""
    address = tag("code", f"{model_path(served)}/monitor")
    yield tag("noscript", tag("p", "The figures need scripts; ", address, " has them as JSON."))
    yield tag("p", role="status", class_="told")
    for part, title in _WATCHED.items():
        table = scroll(tag("table", tag("thead"), tag("tbody")), f"{title} of {served.name}")
        yield tag(
            "div",
            tag(heading, title),
            tag("div", class_="seen"),
            None if part == "speed" else fold("As a table", table, kind="inside"),
            class_="part",
            data_part=part,
            hidden="",
        )


# The command.


def _command(served: Served) -> tuple[Html, Html]:
    """Return the curl command of a model, and what is to be known of it.

    The script puts the page's own address in; behind a proxy's path it names the other header too.
    """
    kind = kind_of(served)
    media = {"image": "image/png", "text": "text/plain"}.get(kind, "application/json")
    token = f"$(workbench token {served.name})"
    lines = (
        join('curl -H "', tag("span", "Authorization: Bearer", class_="header"), f' {token}" \\\n'),
        f'  -H "Content-Type: {media}" {_sent(served, kind)} \\\n  ',
        tag("span", f"{model_path(served)}/predict", class_="address"),
    )
    text = tag(
        "pre", tag("code", *lines), class_="snippet", tabindex="0", role="group",
        aria_label=f"Command for {served.name}",
    )  # fmt: skip
    proxied = "The proxy before the service wants its own credentials too. "
    note = tag(
        "p",
        "The token is on the machine that serves. ",
        tag("span", proxied, class_="proxied", hidden=""),
        tag("a", "More ways to ask", href="docs"),
    )
    return text, note


def _sent(served: Served, kind: str) -> str:
    if kind == "image":
        return "--data-binary @picture.png"
    if kind == "text":
        return f"--data-raw {shlex.quote(_example_text(served))}"
    said = json.dumps(row_of(served), ensure_ascii=False)
    short = said != "null" and len(said) <= _LONG
    return f"--data-raw {shlex.quote(said)}" if short else "--data-binary @row.json"


# Values.


def _example_text(served: Served) -> str:
    (text,) = (columns_of(served) or {"input": ""}).values()
    return str(text)


def _number(value: Any) -> str:
    """Return a number as one says it: a figure to four digits, a value of an example whole."""
    return f"{value:.4g}" if isinstance(value, float) else str(value).removesuffix(".0")


def _text(value: Any) -> str | None:
    return None if value is None else str(value)


def _code(value: Any) -> Html | None:
    return None if value is None else tag("code", str(value))


def _png(image: Array) -> bytes | None:
    """Return a raw picture, (height, width[, channels]) of uint8, as a PNG; None for another."""
    plane = image[..., 0] if image.ndim == 3 and image.shape[-1] == 1 else image
    if plane.dtype != np.uint8 or not (plane.ndim == 2 or plane.shape[-1] in (3, 4)):
        return None
    file = io.BytesIO()
    Image.fromarray(np.ascontiguousarray(plane)).save(file, "PNG")
    return file.getvalue()
