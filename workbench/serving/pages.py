"""The pages of a service: its models with forms to try them, its docs, and the sign-in.

They load three files of their own server and nothing else, and every link in them is relative, so
that they work offline and below the path of a proxy.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Sequence
from importlib.resources import files

from workbench import __version__
from workbench.runs.pages import Html, join, tag
from workbench.serving.answers import Answer
from workbench.serving.cards import model_section
from workbench.serving.docs import documentation
from workbench.serving.served import Served
from workbench.types import JSON

__all__ = ["asset", "docs_page", "home_page", "sign_in_page"]

_SCRIPTS = ("page.js", "monitor.js")  # the second uses what the first defines
_TYPES = {
    "page.css": "text/css; charset=utf-8",
    **dict.fromkeys(_SCRIPTS, "text/javascript; charset=utf-8"),
}


def home_page(models: Sequence[Served]) -> Answer:
    """Return the page of a server: each model's card, a form to try it, the command to ask it.

    Args:
        models: a name's default before its other versions, which are not shown.
    """
    shown = list({served.name: served for served in reversed(models)}.values())[::-1]
    alone = len(shown) == 1
    title = shown[0].name if alone else f"{len(shown)} models"
    ref = tag("span", shown[0].model, class_="ref") if alone else None
    links = [
        tag("li", tag("a", served.name, href=f"#model-{served.name}"))
        for served in (() if alone else shown)
    ]
    nav = tag("nav", tag("ul", *links), aria_label="Models") if links else None
    header = join(tag("h1", title, " ", ref), nav)
    main = join(*(model_section(served, alone=alone) for served in shown))
    return _page(title, header=header, main=main if shown else tag("p", "No model is loaded."))


def docs_page(document: JSON) -> Answer:
    """Return the documentation of a server, made of its OpenAPI document."""
    header = tag("h1", "Ask this service")
    return _page("Docs", header=header, main=documentation(document))


def sign_in_page(*, wrong: bool = False) -> Answer:
    """Return the form that asks for the token, which says nothing of the service.

    Args:
        wrong: whether another token was just given.
    """
    field = join(
        tag("label", "Token", for_="token"),
        tag(
            "input", id="token", name="token", type="password", required="", autofocus="",
            autocomplete="current-password", spellcheck="false",
            aria_describedby="told", aria_invalid="true" if wrong else None,
        ),
    )  # fmt: skip
    command = tag("code", "workbench token NAME")
    main = tag(
        "div",
        tag("h1", "Sign in"),
        tag("p", "That is not the token.", class_="wrong", role="alert") if wrong else None,
        tag("p", "Where the service runs, ", command, " prints its token.", id="told"),
        tag(
            "form",
            field,
            tag("p", tag("button", "Sign in", type="submit", class_="ask"), class_="buttons"),
            action="sign-in",
            method="post",
        ),
        class_="card sign-in",
    )
    return _page("Sign in", header=None, main=main, status=401)


def asset(name: str) -> Answer | None:
    """Return a file that the pages load, or None where they load none of that name."""
    if name not in _TYPES:
        return None
    content = _style() if name == "page.css" else _text(f"serving/{name}")
    headers = {"Cache-Control": "no-cache", "X-Content-Type-Options": "nosniff"}
    return Answer(content.encode(), media_type=_TYPES[name], headers=headers)


def _page(title: str, *, header: str | None, main: str, status: int = 200) -> Answer:
    """Return a whole page. What is shown before the sign-in loads nothing at all."""
    signed_in = status == 200
    style = (
        tag("link", rel="stylesheet", href="assets/page.css")
        if signed_in
        else tag("style", Html(_style()))
    )
    head = join(
        tag("meta", charset="utf-8"),
        tag("meta", name="viewport", content="width=device-width, initial-scale=1"),
        tag("title", f"{title} · workbench"),
        tag("link", rel="icon", href="data:,"),
        style,
        *(tag("script", src=f"assets/{name}", defer="") for name in _SCRIPTS if signed_in),
    )
    links = [tag("a", text, href=to) for text, to in (("Models", "."), ("Docs", "docs"))]
    links.append(tag("a", "OpenAPI", href="openapi.json"))
    told = tag("p", *(join(link, " · ") for link in links), f"workbench {__version__}")
    body = join(
        tag("header", header) if header else None,
        tag("main", main),
        tag("footer", told) if signed_in else None,
    )
    whole = tag("html", tag("head", head), tag("body", body), lang="en")
    return Answer(
        f"<!doctype html>\n{whole}\n".encode(),
        status,
        "text/html; charset=utf-8",
        {
            "Content-Security-Policy": _policy("'self'" if signed_in else _hashed(_style())),
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "SAMEORIGIN",
            # With no-referrer, a browser would say of the sign-in that its Origin is null.
            "Referrer-Policy": "same-origin",
            "Cache-Control": "no-store",
        },
    )


def _policy(style: str) -> str:
    """Return what a page may do. Its own origin may frame it: behind a proxy, that is Lab."""
    return (
        f"default-src 'none'; script-src 'self'; style-src {style}; img-src 'self' blob: data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    )


def _hashed(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _style() -> str:
    """Return the look that all pages of the workbench have, and what a service adds to it."""
    return _text("runs/page.css") + _text("serving/page.css")


def _text(path: str) -> str:
    return files("workbench").joinpath(path).read_text(encoding="utf-8")
