"""The pages of a service: read as a browser reads them, and their commands run as they stand."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from asking import ROWS, ask, small_model
from bs4 import BeautifulSoup, Tag
from forms import EVIL, KINDS, serve_all
from PIL import Image
from torch import nn

from workbench.datasets import dataset
from workbench.models import build
from workbench.registry import demote, promote
from workbench.serving import Service
from workbench.serving.answers import Answer
from workbench.serving.openapi import openapi_document
from workbench.serving.pages import asset, docs_page, home_page, sign_in_page
from workbench.serving.served import Served, served_from


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("home")


@pytest.fixture(scope="module")
def site(home: Path) -> Iterator[dict[str, Service]]:
    """Serve a model of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(home))
        patch.setenv("WORKBENCH_HEADLESS", "1")
        services = serve_all()
    yield services
    for service in services.values():
        service.stop()


@pytest.fixture(autouse=True)
def _same_home(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORKBENCH_HOME", str(home))


@pytest.fixture(scope="module")
def pages(site: dict[str, Service], home: Path) -> dict[str, BeautifulSoup]:
    """The pages, as somebody sees them who is signed in; and the form, as anybody does."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(home))
        seen = {path: read(ask(site["shades"], "GET", path).body) for path in ("/", "/docs")}
    form = ask(site["shades"], "GET", "/", headers={"Accept": "text/html"})
    return {**seen, "sign-in": read(form.body)}


def read(page: bytes | Answer) -> BeautifulSoup:
    return BeautifulSoup(page.body if isinstance(page, Answer) else page, "html.parser")


def one(page: Tag, selector: str) -> Tag:
    (found,) = page.select(selector)
    return found


def facts(page: Tag) -> dict[str, str]:
    """Return what a model's card says."""
    return {
        name.text: said.text
        for name, said in zip(page.select("dt"), page.select("dd"), strict=True)
    }


def section(page: BeautifulSoup, name: str) -> Tag:
    return one(page, f"section[aria-labelledby=model-{name}]")


def served(**changes: Any) -> Served:
    return dataclasses.replace(served_from(small_model(), name="small", example=ROWS), **changes)


def test_a_card_says_what_a_version_is(pages: dict[str, BeautifulSoup]) -> None:
    part = section(pages["/"], "shades")
    assert one(part, "h2").text == "shades shades@1"
    said = facts(part)
    assert (said["version"], said["aliases"], said["data"]) == ("1", "champion", "shades")
    assert said["takes"] == "a picture of 4 × 6 in colour"
    assert said["answers"] == f"one of 2 classes: dark, {EVIL}"
    assert said["metrics"].startswith("loss 0.")
    assert "accuracy" in said["metrics"]
    assert len(said["fingerprint"]) >= 12
    assert said["size"] == "8,897 parameters"
    assert said["published"].endswith("UTC")
    assert said["tensors"] == "input UINT8 [-1, 6, 4, 3] → output FP32 [-1, 1]"


def test_aliases_are_those_of_now(site: dict[str, Service]) -> None:
    promote("shades@1", "shadow")
    page = read(ask(site["shades"], "GET", "/").body)
    assert facts(section(page, "shades"))["aliases"] == "champion, shadow"
    assert "one of 1, champion, shadow" in ask(site["shades"], "GET", "/docs").body.decode()
    demote("shades@shadow")


def test_a_card_says_where_a_version_comes_from_as_far_as_it_is_known() -> None:
    lineage = {
        "run": "20260101-120000-a-1f2e",
        "parameters": {"epochs": 2, "lr": 0.1},
        "cell": {"notebook": "/home/ada/a.ipynb", "execution_count": 7},
        "code": {"commit": "36f9193e", "dirty": False},
        "data": None,
        "parent": "small@1",
    }
    said = facts(read(home_page([served(card={"lineage": lineage})])))
    assert (said["run"], said["parent"]) == ("20260101-120000-a-1f2e", "small@1")
    assert (said["run with"], said["code"]) == ("epochs 2, lr 0.1", "36f9193e")
    assert said["cell"] == "7 of a.ipynb"
    bare = facts(read(home_page([served(card={})])))
    assert list(bare) == ["version", "takes", "answers", "tensors"]


def test_a_single_model_has_the_page_to_itself() -> None:
    page = read(home_page([served()]))
    assert one(page, "h1").text.startswith("small live, weights ")
    assert one(page, "title").text == "small · workbench"
    titles = ["Try it", "The model", "How it does", "From a terminal"]
    assert [h.text for h in page.select("h2")] == titles
    assert not page.select("nav")


def test_pictures_that_no_file_can_hold_are_filled_in_as_json() -> None:
    data = dataset("two", train=(torch.zeros(4, 5, 5, 2, dtype=torch.uint8), torch.arange(4) % 2))
    form = one(read(home_page([served_from(build("mlp", data))])), "form")
    assert form["data-kind"] == "json"


def test_of_a_name_the_default_version_is_shown() -> None:
    page = read(home_page([served(version="3"), served(version="2")]))
    assert facts(page)["version"] == "3"


def test_a_server_without_models_says_so() -> None:
    page = read(home_page([]))
    assert one(page, "main").text == "No model is loaded."
    assert "Whether the server lives" in read(docs_page(openapi_document([]))).text


def test_there_is_a_form_by_the_kind_of_each_model(pages: dict[str, BeautifulSoup]) -> None:
    forms = pages["/"].select("form")
    kinds = {form["action"]: form["data-kind"] for form in forms}
    assert kinds == {f"models/{name}/predict": kind for name, kind in KINDS.items()}
    for form in forms:
        labels = {label["for"] for label in form.select("label")}
        assert labels == {field["id"] for field in form.select("input, textarea")}


def test_the_fields_are_filled_with_the_example(site: dict[str, Service]) -> None:
    page = read(ask(site["shades"], "GET", "/").body)
    fields = section(page, "people").select("input")
    assert [field["name"] for field in fields] == ["age", EVIL, "1"]
    assert all(0 <= float(str(field["value"])) <= 1 for field in fields)
    assert one(section(page, "shout"), "textarea").text == "\n<hello> & 'you'"
    row = json.loads(one(section(page, "pair"), "textarea").text)
    assert list(row) == ["left", "right"]
    assert len(row["left"]) == 3
    picture = str(one(section(page, "shades"), ".example img")["src"])
    assert picture.startswith("data:image/png;base64,")


def test_numbers_of_an_example_are_the_shortest_that_are_the_same() -> None:
    example = {"input": np.array([[0.1, 1e-12]], np.float32)}
    fields = read(home_page([served(example=example)])).select("input")
    assert [field["value"] for field in fields] == ["0.1", "1e-12"]
    assert [field["name"] for field in fields] == ["x1", "x2"]


def test_a_table_of_many_features_is_filled_in_as_json() -> None:
    wide = served_from(nn.Linear(65, 1), example=[[0.5] * 65])
    form = one(read(home_page([wide])), "form")
    assert form["data-kind"] == "json"
    assert json.loads(one(form, "textarea").text) == [0.5] * 65


def test_each_card_says_where_its_model_is_watched(
    site: dict[str, Service], pages: dict[str, BeautifulSoup]
) -> None:
    for name in KINDS:
        card = one(section(pages["/"], name), ".watched")
        assert one(card, "noscript code").text == card["data-from"]
        told = ask(site[name], "GET", f"/{card['data-from']}").json
        assert told["model"].partition("@")[0] == card["data-name"] == name
        parts = [part["data-part"] for part in card.select(".part[hidden]")]
        assert parts == ["speed", "drift", "accuracy", "challenger"]
        assert len(card.select(".part details table")) == len(parts[1:])


def test_how_many_rows_are_missing_is_told_of_a_version_that_has_a_reference(
    site: dict[str, Service],
) -> None:
    before = ask(site["shades"], "GET", "/models/shades/monitor").json["looking"]
    site["shades"].predict(np.zeros((3, 6, 4, 3), np.uint8))
    after = ask(site["shades"], "GET", "/models/shades/monitor").json["looking"]
    assert (after["rows"] - before["rows"], after["window"]) == (3, 500)
    assert ask(site["people"], "GET", "/models/people/monitor").json["looking"] is None


def test_names_of_a_model_are_text_and_never_markup(pages: dict[str, BeautifulSoup]) -> None:
    for path, page in pages.items():
        assert ("onerror=" in page.text) == (path != "sign-in")
        assert not page.select("img[src=x]")
        scripts = [] if path == "sign-in" else ["assets/page.js", "assets/monitor.js"]
        assert [script["src"] for script in page.select("script")] == scripts
        named = [name for tag in page.find_all(True) for name in tag.attrs]
        assert not [name for name in named if name.startswith("on") or name == "style"]


def test_every_link_is_relative(pages: dict[str, BeautifulSoup]) -> None:
    links = [
        str(tag[name])
        for page in pages.values()
        for name in ("href", "src", "action")
        for tag in page.select(f"[{name}]")
    ]
    assert len(links) > 20
    assert [to for to in links if to.startswith("/") or ("://" in to)] == []


@pytest.mark.parametrize("path", ["/", "/docs"])
def test_a_page_may_do_what_it_needs_and_nothing_else(site: dict[str, Service], path: str) -> None:
    headers = ask(site["shades"], "GET", path).headers
    assert headers["Content-Security-Policy"] == (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; "
        "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'self'"
    )
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Referrer-Policy"] == "same-origin"
    assert headers["Cache-Control"] == "no-store"


def test_the_sign_in_loads_nothing_and_says_nothing_of_the_models(
    pages: dict[str, BeautifulSoup],
) -> None:
    page = pages["sign-in"]
    assert not [name for name in KINDS if name in page.text]
    assert not page.select("script, link[rel=stylesheet], [role=alert]")
    form = one(page, "form")
    assert (form["action"], form["method"]) == ("sign-in", "post")
    assert one(form, "input")["name"] == "token"
    assert "workbench token NAME" in page.text
    assert one(read(sign_in_page(wrong=True)), "[role=alert]").text == "That is not the token."


def test_only_the_pages_own_files_are_handed_out(site: dict[str, Service]) -> None:
    kinds = {"page.css": "css", "page.js": "javascript", "monitor.js": "javascript"}
    for name, kind in kinds.items():
        answer = ask(site["shades"], "GET", f"/assets/{name}")
        assert answer.headers["Content-Type"] == f"text/{kind}; charset=utf-8"
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert "--accent" in ask(site["shades"], "GET", "/assets/page.css").body.decode()
    assert asset("../page.css") is None
    assert ask(site["shades"], "GET", "/assets/pages.py").status == 404


@pytest.fixture
def shell(site: dict[str, Service], tmp_path: Path) -> Any:
    """Run a command where `workbench` is, and a picture."""
    Image.fromarray(np.zeros((6, 4, 3), np.uint8)).save(tmp_path / "picture.png")
    service = site["shades"]
    environment = {**os.environ, "URL": service.url, "TOKEN": service.token}
    environment["PATH"] = f"{Path(sys.executable).parent}:{environment['PATH']}"

    def run(command: str) -> str:
        return subprocess.run(
            ["bash", "-c", command],
            env=environment, cwd=tmp_path, capture_output=True, text=True, check=True,
        ).stdout  # fmt: skip

    return run


@pytest.mark.parametrize("name", KINDS)
def test_the_command_on_the_page_asks_the_model(
    site: dict[str, Service], pages: dict[str, BeautifulSoup], shell: Any, name: str
) -> None:
    code = one(section(pages["/"], name), ".snippet code")
    address = one(code, ".address")
    address.string = f"{site[name].url}/{address.text}"  # as the script does
    said = json.loads(shell(f"curl -s {code.text.removeprefix('curl ')}"))
    assert said["model"].startswith(f"{name}@")
    assert len(said["rows"]) == 1


def test_every_command_of_the_docs_works(pages: dict[str, BeautifulSoup], shell: Any) -> None:
    commands = [code.text for code in pages["/docs"].select(".operation > .snippet code")]
    assert len(commands) > 40
    write = "curl -s -o /dev/null -w '%{http_code}\\n' "
    told = shell("\n".join(write + command.removeprefix("curl ") for command in commands))
    for status, command in zip(told.split(), commands, strict=True):
        assert status == expected_of(command), command


def expected_of(command: str) -> str:
    """Return the status that a command is answered with by a service where nobody did anything."""
    path, changes = command.rpartition("$URL")[2].rstrip('"'), "-X " in command
    if path.endswith(("load", "/rollback", "/promote")) or (
        path.endswith("/challenger") and changes
    ):
        return "403"  # of administrators
    if path.endswith(("/feedback", "/challenger")):
        return "404"  # there is no such answer, and no challenger
    return "303" if path == "/sign-in" else "200"


@pytest.mark.parametrize(
    "client", ["tritonclient, unmodified", "Python alone", "Python of the workbench"]
)
def test_the_programs_of_the_docs_work(
    site: dict[str, Service], pages: dict[str, BeautifulSoup], client: str
) -> None:
    code = pages["/docs"].find("h3", string=client).find_next("code").text  # type: ignore[union-attr]
    names: dict[str, Any] = {"URL": site["pair"].url, "TOKEN": site["pair"].token}
    exec(code, names)
    assert names["answer"] is not None


def test_the_docs_tell_every_route_once(site: dict[str, Service]) -> None:
    document = ask(site["shades"], "GET", "/openapi.json").json
    page = read(docs_page(document))
    told = [code.text for code in page.select("code")]
    for path in document["paths"]:
        assert path in told
    assert "gRPC is not offered" in page.text
    assert site["shades"].token not in page.text
