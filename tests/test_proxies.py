"""A service behind jupyter-server-proxy, as plain Lab, a hub and Binder show it."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import numpy as np
import pytest
import tritonclient.http as triton
from asking import ROWS, infer_body, small_model
from browser.server import lab_server

import workbench as wb
from workbench.serving import Service, serve

BROWSER = {"Accept": "text/html"}
HUB = "hub.example.org"


@dataclass(frozen=True)
class Proxied:
    """A service, and how it is asked through Lab.

    Args:
        service: that is asked.
        url: of the proxy, up to the service's root.
        lab: the headers that Lab wants; it passes them on.
    """

    service: Service
    url: str
    lab: Mapping[str, str]

    @property
    def headers(self) -> dict[str, str]:
        """What a client sends: Lab's token where it looks for it, and ours beside it."""
        return {**self.lab, "X-Workbench-Token": self.service.token}

    def ask(self, method: str, path: str, **more: Any) -> httpx.Response:
        """Ask through the proxy, following no redirect."""
        headers = {**self.headers, **more.pop("headers", {})}
        return httpx.request(
            method, self.url + path, headers=headers, timeout=30, trust_env=False, **more
        )


@pytest.fixture(scope="module")
def proxied(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Proxied]:
    folder = tmp_path_factory.mktemp("lab")
    (folder / "files").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WORKBENCH_HOME", str(folder / "home"))
        patch.setenv("WORKBENCH_ALLOWED_HOSTS", HUB)
        with (
            lab_server(folder / "files", folder) as lab,
            serve(small_model(), name="small", example=ROWS) as service,
        ):
            url = f"{lab.url}proxy/{service.url.rpartition(':')[2]}/"
            yield Proxied(service, url, {"Authorization": f"token {lab.token}"})


def test_a_model_is_described_and_asked_through_the_proxy(proxied: Proxied) -> None:
    assert proxied.ask("GET", "v2/models/small").json()["name"] == "small"
    answer = proxied.ask("POST", "v2/models/small/infer", content=infer_body()).json()
    (output,) = answer["outputs"]
    expected = wb.predict(small_model(), ROWS).output.flatten().tolist()
    assert np.ravel(output["data"]).tolist() == expected


def test_the_proxy_s_own_token_is_not_ours(proxied: Proxied) -> None:
    answer = proxied.ask("GET", "v2", headers={"X-Workbench-Token": "wrong"})
    assert answer.status_code == 401
    assert answer.json()["error"].startswith("no valid token: send the header Authorization")
    assert "X-Workbench-Token: TOKEN through a proxy" in answer.json()["error"]


def test_a_refusal_and_a_packed_answer_come_through_whole(proxied: Proxied) -> None:
    answer = proxied.ask("POST", "v2/models/small/infer", content=b"{")
    assert (answer.status_code, list(answer.json())) == (400, ["error"])
    rows = ROWS.repeat(500, 1)
    body = infer_body(rows)
    for encoding in ("gzip", "deflate"):
        packed = proxied.ask(
            "POST", "v2/models/small/infer", content=body, headers={"Accept-Encoding": encoding}
        )
        assert packed.headers["Content-Encoding"] == encoding
        assert packed.json()["outputs"][0]["shape"] == [1500, 3]


def test_tritonclient_asks_by_the_path_of_the_proxy(proxied: Proxied) -> None:
    tensor = triton.InferInput("input", [3, 2], "FP32")
    tensor.set_data_from_numpy(ROWS.numpy())
    base = proxied.url.removeprefix("http://").rstrip("/")
    with triton.InferenceServerClient(base) as client:
        assert client.is_server_live(headers=proxied.headers)
        metadata = client.get_model_metadata("small", headers=proxied.headers)
        assert metadata["outputs"][0]["shape"] == [-1, 3]
        result = client.infer("small", [tensor], headers=proxied.headers)
    expected = wb.predict(small_model(), ROWS).output.numpy()
    np.testing.assert_array_equal(result.as_numpy("output"), expected)


def test_a_browser_signs_in_and_stays_below_the_proxy_s_path(proxied: Proxied) -> None:
    with httpx.Client(headers=proxied.lab, timeout=30, trust_env=False) as browser:
        form = browser.get(proxied.url, headers=BROWSER)
        assert (form.status_code, b'action="sign-in"' in form.content) == (401, True)
        origin = {"Origin": proxied.url.split("/proxy")[0], "Sec-Fetch-Site": "same-origin"}
        signed = browser.post(
            f"{proxied.url}sign-in", data={"token": proxied.service.token}, headers=origin
        )
        assert (signed.status_code, signed.headers["Location"]) == (303, "./")
        (cookie,) = [each for each in browser.cookies.jar if each.name.startswith("workbench-")]
        assert cookie.path == httpx.URL(proxied.url).path.rstrip("/")
        assert str(signed.next_request and signed.next_request.url) == proxied.url
        page = browser.get(proxied.url, headers=BROWSER)
        assert (page.status_code, b"small" in page.content) == (200, True)
        asked = browser.post(f"{proxied.url}v2/models/small/infer", content=infer_body())
        assert asked.json()["model_name"] == "small"


def test_every_link_of_the_page_is_relative_and_leads_somewhere(proxied: Proxied) -> None:
    for path in ("", "docs"):
        page = proxied.ask("GET", path, headers=BROWSER)
        links = [part.split('"')[0] for name in ("href", "src", "action")
                 for part in page.text.split(f' {name}="')[1:]]  # fmt: skip
        inside = [link for link in links if not link.startswith(("#", "data:", "https:"))]
        assert inside
        for link in inside:
            assert not link.startswith(("/", "http:")), link
            told = proxied.ask("OPTIONS", link)  # a form's address takes no GET
            assert told.status_code in (200, 405), link


def test_a_hub_asks_by_its_own_name_where_that_is_allowed(proxied: Proxied) -> None:
    hub = {"Host": HUB, "Origin": f"https://{HUB}", "Sec-Fetch-Site": "same-origin"}
    direct = {**hub, "X-Workbench-Token": proxied.service.token}
    address = f"{proxied.service.url}/v2/models/small/infer"
    answer = httpx.post(address, content=infer_body(), headers=direct, trust_env=False)
    assert json.loads(answer.content)["model_name"] == "small"
    other = httpx.post(
        address, content=infer_body(), headers={**direct, "Host": "other.example"}, trust_env=False
    )
    assert other.status_code == 403
    assert f"[::1], {HUB}, or allow that name by serve(" in other.json()["error"]
