"""A service's page in a browser: sign in, try each kind of model, watch it, also behind a proxy."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import numpy as np
import pytest
import torch
from asking import ask
from axe_playwright_python.base import AXE_SCRIPT
from forms import EVIL, people, serve_all
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Locator, Page, expect
from points import POINTS, labels, publish_both

from browser.server import LabServer
from workbench.serving import Service, serve

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
    expect(page.locator("[data-name=people] [role=status]")).to_contain_text("people@0 has no")
    command = page.get_by_role("group", name="Command for people")
    expect(command).to_contain_text("X-Workbench-Token: $(workbench token people)")
    expect(command).to_contain_text(f"{root}/models/people/predict")
    page.get_by_role("link", name="Docs", exact=True).click()
    expect(page.get_by_text(f"export URL={root}\n")).to_be_visible()


# How a model does.


@pytest.fixture
def points() -> Iterator[Service]:
    """A version that is right of three points in four, and another one to try beside it."""
    publish_both()
    with serve("points@1", admin_token="admin") as service:
        yield service


def tell(service: Service, method: str, path: str, told: Any = None) -> Any:
    body = None if told is None else json.dumps(told).encode()
    headers = {"Authorization": "Bearer admin"}
    answer = ask(service, method, f"/models/{service.name}/{path}", body, headers)
    assert answer.status == 200, answer.body
    return answer


def answer(service: Service, rows: torch.Tensor, *, label: Any = None, group: str = "") -> None:
    """Ask about rows, say what they are if that is given, and have them written down."""
    given = tell(service, "POST", "predict", rows.tolist()).headers["X-Request-Id"]
    if label is not None:
        tell(service, "POST", "feedback", {"id": given, "label": label, "group": group})
    while [given] != [one["id"] for one in tell(service, "GET", "answers?last=1").json["answers"]]:
        pass  # the challenger, which is asked too, has not answered yet


def watch(page: Page, service: Service) -> Locator:
    """Open the page of a service, with a clock that is moved by hand, and return its part."""
    page.clock.install()
    page.goto(service.url)
    sign_in(page, service.token)
    expect(page.locator(".watched [role=status]")).not_to_be_empty()
    return page.locator(".watched")


def part(card: Locator, title: str) -> Locator:
    return card.locator(".part").filter(has=card.page.get_by_role("heading", name=title))


def teach_all(service: Service) -> None:
    """Give a service a window without drift and one with, labels by group, and a challenger."""
    tell(service, "PUT", "challenger", {"version": "2"})
    for rows in POINTS[1500:].split(100):
        answer(service, rows, label=labels(rows), group=EVIL)
    for rows in (POINTS[1500:] + torch.tensor([2.0, 0.0])).split(100):
        answer(service, rows)


def test_drift_is_drawn_as_it_is_told(page: Page, points: Service) -> None:
    teach_all(points)
    card = watch(page, points)
    told = tell(points, "GET", "monitor").json["drift"]
    figures = sorted(told["figures"], key=lambda one: -one["psi"] / one["threshold"])
    lines = part(card, "Drift").locator(".lines li")
    alarms = {one["figure"] for one in figures if one["alarm"]}
    assert 0 < len(alarms) < len(figures)
    most = max(max(one["psi"], one["threshold"]) for one in figures)
    for line, one in zip(lines.all(), figures, strict=True):
        assert one["figure"] == line.locator(".name").inner_text()
        assert (one["figure"] in alarms) == ("alarm" in line.inner_text())
        assert f"{one['psi']:.2f}" in line.inner_text()
        drawn = float(line.locator("rect").get_attribute("width") or 0)
        assert drawn == pytest.approx(100 * one["psi"] / most)
    expect(part(card, "Drift").get_by_role("img")).to_have_accessible_name(
        "Oldest first: none, alarm"
    )
    expect(card.get_by_role("status")).to_contain_text(f"alarm in {len(alarms)} of 4 figures")


def test_labels_and_a_challenger_are_drawn_as_they_are_told(page: Page, points: Service) -> None:
    teach_all(points)
    card = watch(page, points)
    told = tell(points, "GET", "monitor").json
    low, high = (f"{100 * end:.1f}" for end in told["accuracy"]["interval"])
    said = f"{100 * told['accuracy']['accuracy']:.1f} % ({low} to {high})"
    lines = part(card, "By labels").locator(".lines li:not(.scale)")
    expect(lines).to_have_text([f"all {said} 500 labels", f"{EVIL} {said} 500 labels"])
    assert not page.evaluate("'ran' in document.documentElement.dataset")
    sides = part(card, "Challenger")
    expect(sides).to_contain_text("points@2 is asked all requests too, unheard.")
    expect(sides).to_contain_text("Too few labels: 500 of 1,000 are missing.")
    sides.get_by_text("As a table").click()
    expect(sides.get_by_role("rowheader")).to_have_text(
        ["points@1, champion", "points@2, challenger"]
    )
    better = told["challenger"]["evidence"]["challenger"]["accuracy"]
    expect(sides.get_by_role("row").last).to_contain_text(f"500{100 * better:.1f} %")


def test_rows_come_in_while_the_page_is_open(page: Page, points: Service) -> None:
    card = watch(page, points)
    drift = part(card, "Drift")
    expect(drift).to_contain_text("0 of 500 rows are there: 500 more are needed")
    answer(points, POINTS[1500:1620])
    page.clock.run_for(6000)
    expect(drift).to_contain_text("120 of 500 rows are there: 380 more are needed")
    for rows in POINTS[1620:].split(100):
        answer(points, rows)
    page.clock.run_for(6000)
    expect(card.get_by_role("status")).to_have_text("No drift in the last rows of points@1.")
    drift.get_by_text("As a table").click()
    expect(drift.get_by_role("row")).to_have_count(5)
    page.clock.run_for(6000)
    expect(part(card, "Speed")).to_contain_text("5 answers since the service was started, ")
    expect(part(card, "Speed")).to_contain_text("a second in the last ")
    expect(drift.get_by_role("row")).to_have_count(5)  # the table has stayed open


def test_nothing_is_asked_while_nobody_looks(page: Page, points: Service) -> None:
    watch(page, points)
    asked: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    hide = "Object.defineProperty(document, 'hidden', { value: %s, configurable: true })"
    page.evaluate(hide % "true")
    page.clock.run_for(30_000)
    assert asked == []
    page.evaluate(hide % "false")
    with page.expect_response("**/monitor"):
        page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")


def test_figures_stay_while_a_service_is_away(page: Page, points: Service) -> None:
    answer(points, POINTS[:7])
    card = watch(page, points)
    page.context.set_offline(True)
    page.clock.run_for(6000)
    expect(card.get_by_role("status")).to_contain_text("The service does not answer")
    expect(part(card, "Drift")).to_contain_text("7 of 500 rows")
    page.context.set_offline(False)
    page.clock.run_for(6000)
    expect(card.get_by_role("status")).to_contain_text("has not answered enough rows")


def test_of_values_the_mean_error_is_drawn(page: Page) -> None:
    with serve(people(), name="ages", admin_token="admin") as service:
        for value in range(3):
            answer(service, torch.rand(1, 3), label=float(value), group="old")
        card = watch(page, service)
        told = tell(service, "GET", "monitor").json["accuracy"]
        line = part(card, "By labels").locator("li").first
        assert float(line.inner_text().split()[1]) == pytest.approx(told["error"], rel=0.01)
        expect(part(card, "By labels")).to_contain_text("mean absolute error")
        expect(part(card, "Drift")).to_be_hidden()
        expect(card.get_by_role("status")).to_contain_text("ages@0 has no reference")


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 360)])
def test_what_is_watched_is_accessible_and_fits(
    page: Page, points: Service, scheme: Literal["light", "dark"], width: int
) -> None:
    teach_all(points)
    page.emulate_media(color_scheme=scheme)
    page.set_viewport_size({"width": width, "height": 800})
    card = watch(page, points)
    for fold in card.get_by_text("As a table").all():
        fold.click()
    expect(card.get_by_role("table")).to_have_count(3)
    check_fits(page, width)
