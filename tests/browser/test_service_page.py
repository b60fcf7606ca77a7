"""A service's page in a browser: sign in, try each kind of model, also behind Lab's proxy."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from pathlib import Path
from typing import Literal
from urllib.parse import urlsplit

import numpy as np
import pytest
from axe_playwright_python.base import AXE_SCRIPT
from forms import EVIL, serve_all
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect

from browser.server import LabServer
from workbench.serving import Service

DROP = """(form, [name, data]) => {
    const bytes = Uint8Array.from(atob(data), character => character.charCodeAt(0));
    const files = new DataTransfer();
    files.items.add(new File([bytes], "a.png", { type: "image/png" }));
    const event = name === "paste"
        ? new ClipboardEvent(name, { clipboardData: files, bubbles: true })
        : new DragEvent(name, { dataTransfer: files, bubbles: true, cancelable: true });
    form.querySelector(".drop").dispatchEvent(event);
}"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Service]]:
    """Serve a model of each kind."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(tmp_path_factory.mktemp("home")))
        patch.setenv("WORKBENCH_HEADLESS", "1")
        services = serve_all()
    yield services
    for service in services.values():
        service.stop()


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    """A page in a window of its own; what it throws, or its policy stops, fails the test."""
    with browser.new_context() as context:
        page, wrong = context.new_page(), []
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.on("console", lambda told: wrong.append(told.text) if "Policy" in told.text else None)
        yield page
        assert wrong == []


@pytest.fixture
def home(page: Page, site: dict[str, Service]) -> Page:
    """The page of the server, signed in."""
    page.goto(site["shades"].url)
    sign_in(page, site["shades"].token)
    expect(page.get_by_role("heading", name="4 models")).to_be_visible()
    return page


def sign_in(page: Page, token: str) -> None:
    page.get_by_label("Token").fill(token)
    page.keyboard.press("Enter")


def form(home: Page, name: str) -> Locator:
    return home.get_by_role("form", name=f"Try {name}")


def asked(home: Page, name: str) -> Locator:
    """Ask a model with what its form has, and return where the answer is shown."""
    form(home, name).get_by_role("button", name="Ask", exact=True).click()
    return home.locator(f"section[aria-labelledby=model-{name}] .answer")


def png(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def file(content: bytes) -> FilePayload:
    return {"name": "a.png", "mimeType": "image/png", "buffer": content}


def check_fits(page: Page, width: int) -> None:
    """Fail where a page is wider than its window, or with what axe-core finds wrong in it."""
    assert page.evaluate("document.documentElement.scrollWidth") == width
    page.evaluate(AXE_SCRIPT)
    found = page.evaluate("axe.run()")
    wrong = [
        f"{rule['id']}: {rule['help']}\n    {node['html']}"
        for rule in found["violations"]
        for node in rule["nodes"]
    ]
    assert not wrong, "\n".join(["not accessible:", *wrong])


def test_a_token_signs_in_and_another_does_not(page: Page, site: dict[str, Service]) -> None:
    service = site["shades"]
    page.goto(f"{service.url}/docs")
    expect(page.get_by_label("Token")).to_be_focused()
    assert page.evaluate("getComputedStyle(document.querySelector('.sign-in')).maxWidth") != "none"
    sign_in(page, "wrong")
    expect(page.get_by_role("alert")).to_have_text("That is not the token.")
    sign_in(page, service.token)
    expect(page.get_by_role("heading", name="4 models")).to_be_visible()
    assert page.url == f"{service.url}/"
    assert page.evaluate("document.cookie") == ""
    assert service.token not in page.content()
    page.get_by_role("link", name="Docs", exact=True).click()
    expect(page.get_by_role("heading", name="Ask this service")).to_be_visible()


def test_the_example_is_shown_with_the_classes_probabilities(
    home: Page, site: dict[str, Service]
) -> None:
    form(home, "shades").get_by_role("button", name="Take the example").click()
    expect(home.get_by_alt_text("The picture to ask about")).to_be_visible()
    answer = asked(home, "shades")
    bars = answer.locator(".bars li")
    expect(bars).to_have_count(2)
    shares = [
        float(text.split()[0]) for text in bars.locator("> span:nth-child(2)").all_inner_texts()
    ]
    assert abs(sum(shares) - 100) < 0.2
    assert shares == sorted(shares, reverse=True)
    expect(answer.locator(".label")).to_have_text(bars.first.locator("> span").first.inner_text())
    expect(answer.locator(".told")).to_contain_text("shades@1 in ")


@pytest.mark.parametrize("way", ["choose", "drop", "paste"])
def test_a_picture_is_answered_as_predict_does(
    home: Page, site: dict[str, Service], way: str
) -> None:
    pixels = np.full((6, 4, 3), 230, np.uint8)
    if way == "choose":
        content = file(png(pixels))
        home.locator("input[type=file]").set_input_files(content)
    else:
        data = base64.b64encode(png(pixels)).decode()
        form(home, "shades").evaluate(DROP, [way, data])
    answer = asked(home, "shades")
    labels = site["shades"].predict(pixels[None]).labels
    assert labels is not None
    expect(answer.locator(".label")).to_have_text(labels[0])


def test_a_picture_of_another_size_is_said_to_be_resized(home: Page) -> None:
    content = file(png(np.zeros((9, 20), np.uint8)))
    home.locator("input[type=file]").set_input_files(content)
    expect(asked(home, "shades").locator(".told")).to_contain_text("resized from 20 × 9")


def test_a_row_is_filled_in_and_answered_with_the_keyboard(
    home: Page, site: dict[str, Service]
) -> None:
    fields = form(home, "people").locator("input")
    fields.first.focus()
    for value in ("0.25", "0.5", "-1e-3"):
        home.keyboard.press("ControlOrMeta+a")
        home.keyboard.type(value)
        home.keyboard.press("Tab")
    home.keyboard.press("Enter")
    answer = home.locator("section[aria-labelledby=model-people] .answer .label")
    expected = site["people"].predict([[0.25, 0.5, -1e-3]]).output.item()
    expect(answer).not_to_be_empty()
    assert float(answer.inner_text()) == pytest.approx(expected, rel=1e-5)


def test_texts_and_tensors_are_answered_too(home: Page) -> None:
    home.get_by_label("Text").fill("<b>so</b>")
    expect(asked(home, "shout").locator(".said")).to_have_text("<B>SO</B>")
    home.get_by_label("A row as JSON").fill('{"left": [1, 2, 3], "right": 4}')
    expect(asked(home, "pair").locator("pre")).to_contain_text('"right": 4')


def test_an_error_stands_beside_the_form_until_the_next_answer(home: Page) -> None:
    home.get_by_label("A row as JSON").fill('{"left": [1, 2, 3]}')
    asked(home, "pair")
    alert = form(home, "pair").get_by_role("alert")
    expect(alert).to_have_text("row 0 lacks the input right")
    home.get_by_label("A row as JSON").fill('{"left": [1, 2, 3], "right": 4}')
    asked(home, "pair")
    expect(alert).to_be_hidden()
    content = file(b"no picture")
    home.locator("input[type=file]").set_input_files(content)
    asked(home, "shades")
    expect(form(home, "shades").get_by_role("alert")).to_contain_text("neither a PNG nor a JPEG")


def test_a_service_that_is_gone_and_a_sign_in_that_has_ended_are_said(home: Page) -> None:
    alert = form(home, "shout").get_by_role("alert")
    home.context.clear_cookies()
    asked(home, "shout")
    expect(alert).to_have_text("The sign-in has ended: reload the page.")
    home.context.set_offline(True)
    asked(home, "shout")
    expect(alert).to_have_text("The service does not answer: it may have been stopped.")


def test_nothing_of_a_model_runs_and_nothing_foreign_is_loaded(
    home: Page, site: dict[str, Service]
) -> None:
    seen: list[str] = []
    home.on("request", lambda request: seen.append(request.url))
    home.reload()
    form(home, "shades").get_by_role("button", name="Take the example").click()
    expect(asked(home, "shades")).to_contain_text(EVIL)
    expect(asked(home, "people").locator(".label")).not_to_be_empty()
    home.goto(f"{site['shades'].url}/docs")
    home.evaluate("document.querySelectorAll('details').forEach(e => e.open = true)")
    assert not home.evaluate("'ran' in document.documentElement.dataset")
    foreign = [url for url in seen if not url.startswith((site["shades"].url, "data:", "blob:"))]
    assert (foreign, len(seen) > 5) == ([], True)


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_pages_are_accessible_and_fit(
    home: Page, site: dict[str, Service], scheme: Literal["light", "dark"], width: int
) -> None:
    home.emulate_media(color_scheme=scheme)
    home.set_viewport_size({"width": width, "height": 800})
    form(home, "shades").get_by_role("button", name="Take the example").click()
    expect(asked(home, "shades").locator(".label")).to_be_visible()
    home.get_by_label("A row as JSON").fill("{")
    asked(home, "pair")
    expect(form(home, "pair").get_by_role("alert")).to_be_visible()
    check_fits(home, width)
    home.goto(f"{site['shades'].url}/docs")
    home.evaluate("[...document.querySelectorAll('details')].forEach((e, i) => e.open = i < 10)")
    check_fits(home, width)
    home.context.clear_cookies()
    home.reload()
    expect(home.get_by_label("Token")).to_be_visible()
    check_fits(home, width)


def test_the_docs_can_be_read_without_scripts(browser: Browser, site: dict[str, Service]) -> None:
    headers = {"X-Workbench-Token": site["shades"].token}
    with browser.new_context(java_script_enabled=False, extra_http_headers=headers) as context:
        page = context.new_page()
        page.goto(f"{site['shades'].url}/docs")
        command = page.get_by_role("group", name="Command for /models/people/predict")
        expect(command).to_be_hidden()
        page.get_by_text("Ask people with what you have").click()
        expect(command).to_contain_text('"$URL/models/people/predict"')
        page.goto(site["shades"].url)
        expect(form(page, "people").get_by_role("button", name="Ask")).to_be_disabled()


def test_it_works_behind_the_proxy_of_jupyter(
    page: Page, server: LabServer, site: dict[str, Service], tmp_path: Path
) -> None:
    service = site["people"]
    root = f"{server.url}proxy/{urlsplit(service.url).port}"
    page.goto(f"{server.url}tree?token={server.token}")  # signs in to Jupyter
    page.goto(f"{root}/docs")
    sign_in(page, service.token)
    expect(page.get_by_role("heading", name="4 models")).to_be_visible()
    assert page.url == f"{root}/"
    expect(asked(page, "people").locator(".label")).not_to_be_empty()
    command = page.get_by_role("group", name="Command for people")
    expect(command).to_contain_text("X-Workbench-Token: $(workbench token people)")
    expect(command).to_contain_text(f"{root}/models/people/predict")
    page.get_by_role("link", name="Docs", exact=True).click()
    expect(page.get_by_text(f"export URL={root}\n")).to_be_visible()
