"""`connect`: a service asked with only its address and a token, as another machine would."""

from __future__ import annotations

import functools
import io
import subprocess
import sys
from collections.abc import Callable, Iterator
from typing import Any

import jsonschema
import numpy as np
import pandas as pd
import pytest
import torch
from forms import shades
from PIL import Image
from torch import nn

import workbench as wb
from workbench.datasets import dataset
from workbench.errors import RequestError, ServiceError, UnknownNameError
from workbench.registry import history
from workbench.registry.drifts import WINDOW
from workbench.registry.verdicts import interval
from workbench.remote import RemoteService, connect
from workbench.serving import Service, serve

USER, BOSS = "u" * 32, "b" * 32
POINTS = pd.DataFrame(torch.linspace(-1, 1, 600).reshape(300, 2).numpy(), columns=["x", "y"])
POINTS = POINTS.sample(frac=1, random_state=0)
TRUTH = ["right" if x > 0 else "left" for x in POINTS["x"]]
FORMS: dict[str, Callable[[], Any]] = {
    "a table": lambda: POINTS[["y", "x"]][:20],  # found by their names
    "an array": lambda: POINTS.to_numpy()[:20],
    "a tensor": lambda: nn.Parameter(torch.tensor(POINTS.to_numpy()))[:20],
    "lists": lambda: [[float(x), float(y)] for x, y in POINTS.to_numpy()[:20]],
    "tensors in a list": lambda: list(torch.tensor(POINTS.to_numpy()[:20])),
    "objects": lambda: POINTS[:20].to_dict("records"),
}


@functools.cache
def model(*, is_right: bool) -> nn.Module:
    """Return a model that has learnt which points are left and right, or just the reverse."""
    targets = [(side == "right") == is_right for side in TRUTH]
    rows = POINTS, targets
    data = dataset("sides", train=rows, test=rows, classes=("left", "right"))
    net = wb.build("linear", data, seed=0)
    wb.fit(net, data, steps=30, batch_size=100, lr=1.0)
    return net


@pytest.fixture
def site() -> Iterator[Service]:
    """Serve the first of two versions, which is always wrong; the second is right."""
    for is_right in (False, True):
        wb.publish(model(is_right=is_right), "sides")
    wb.promote("sides@1", "champion")
    with serve("sides@champion", token=USER, admin_token=BOSS) as service:
        yield service


@pytest.fixture
def remote(site: Service) -> RemoteService:
    """Give the service as another machine has it."""
    return connect(site.url, BOSS)


def tell(remote: RemoteService, count: int, **more: Any) -> None:
    """Ask about so many points one by one, and tell later what they were."""
    for point, side in zip(POINTS.to_numpy()[:count], TRUTH, strict=False):
        assert remote.feedback(remote.predict(point), side, **more) == 1


# Answers.


@pytest.mark.parametrize("form", FORMS)
def test_rows_are_answered_as_predict_answers_them(remote: RemoteService, form: str) -> None:
    said = remote.predict(FORMS[form]())
    expected = wb.predict(model(is_right=False), POINTS[:20])
    assert (said.labels, said.values, said.model) == (expected.labels, None, "sides@1")
    assert said.probabilities is not None
    assert expected.probabilities is not None
    np.testing.assert_allclose(said.probabilities[:, 1:], expected.probabilities, atol=1e-6)
    assert said.classes == ("left", "right")
    assert repr(said).startswith(f"sides@1 of 20 rows: {said.labels[0]} " if said.labels else "-")


def test_a_version_is_asked_by_its_number_or_alias(remote: RemoteService) -> None:
    wb.promote("sides@2", "best")
    with pytest.raises(UnknownNameError, match="unknown version '2' of 'sides'"):
        remote.predict(POINTS[:3], version=2)  # it is not here before it is tried
    remote.challenge("best")
    assert remote.predict(POINTS[:3], version=2).labels == TRUTH[:3]
    assert remote.predict(POINTS[:3], version="best").model == "sides@2"


def test_values_come_as_numbers_and_of_several_models_one_is_named(site: Service) -> None:
    with (
        serve(nn.Linear(2, 1), name="halves", example=[[1.0, 2.0]]),
        serve(nn.Linear(2, 3), name="many", example=[[1.0, 2.0]]),
    ):
        remote = connect(site.url, site.token)
        assert sorted(remote.models()) == ["halves", "many", "sides"]
        with pytest.raises(RequestError, match=r"has 3 models, .*many.*: say which, model='NAME'"):
            remote.predict([[1, 2]])
        one, three = (remote.predict([[1, 2]] * 4, name) for name in ("halves", "many"))
    assert (one.model, one.labels, one.probabilities, one.classes) == ("halves@0", None, None, ())
    assert one.values is not None
    assert three.values is not None
    assert (one.values.shape, three.values.shape) == ((4,), (4, 3))
    assert connect(site.url, site.token).predict(POINTS[:1]).model == "sides@1"


def test_pictures_go_as_their_files() -> None:
    data = shades()
    net, pictures = wb.build("mlp", data, seed=0), data.train.inputs
    file = io.BytesIO()
    Image.fromarray(pictures[1].numpy()).save(file, "PNG")
    with serve(net, name="shades") as service:
        remote = connect(service.url, service.token)
        expected = wb.predict(net, pictures[1:2]).labels
        assert remote.predict(file.getvalue()).labels == expected
        assert remote.predict([file.getvalue()] * 2).labels == (expected or []) * 2


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        (np.array([[1.0, np.nan]]), "it has NaN or infinite values, which JSON has no word for"),
        (torch.tensor([[1.0, torch.inf]]), "NaN or infinite"),
        (POINTS[:2].assign(x=None), "NaN or infinite"),
        (object(), "object is none of numbers, texts, lists, arrays, tables"),
        ([[1.0]], r"shape \(1, 1\), expected rows of \(2,\)"),
        (POINTS[["x"]], "row 0 lacks the feature y"),
        (POINTS.assign(z=1), "unknown feature 'z'"),
    ],
)
def test_what_are_no_rows_is_said(remote: RemoteService, rows: Any, reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        remote.predict(rows)


# Watching.


def test_labels_that_come_later_give_live_accuracy_by_group(remote: RemoteService) -> None:
    assert "labels  none yet" in repr(remote.monitor())
    tell(remote, 20, group="new & old")
    answer = remote.predict(POINTS[:5], version=None)
    wrong = ["left" if side == "right" else "right" for side in TRUTH[:5]]
    assert remote.feedback(answer.id, np.array(wrong)) == 5  # which the model says, too
    told = remote.monitor()
    ends = interval(5, 25)
    assert told["accuracy"]["interval"] == pytest.approx(ends)
    assert f"accuracy 20.0% (95 %: {ends[0]:.1%} to {ends[1]:.1%}) by 25 labels" in repr(told)
    assert "  new & old  accuracy 0.0% (95 %: 0.0% to 16.1%) by 20 labels" in repr(told)
    assert "<th>  new &amp; old</th><td>accuracy 0.0%" in told._repr_html_()


def test_answers_are_a_table_with_the_labels_that_came(remote: RemoteService) -> None:
    assert list(remote.answers().columns[-2:]) == ["labels", "group"]
    tell(remote, 3)
    last = remote.predict(POINTS[:2])
    table = remote.answers(last=3)
    assert table["id"][0] == last.id
    assert list(table["rows"]) == [2, 1, 1]
    assert list(table["labels"]) == [None, [TRUTH[2]], [TRUTH[1]]]
    assert (table["at"] - pd.Timestamp.now("UTC")).abs().max() < pd.Timedelta(minutes=5)
    assert len(remote.answers(version="2")) == 0


def test_drifted_rows_give_the_alarm(remote: RemoteService) -> None:
    assert "drift   not known yet: 0 of the 500 rows of a window" in repr(remote.monitor())
    for shift in (0.0, 3.0):
        for _ in range(WINDOW // 100):  # the last rows are looked at with each look
            remote.predict(POINTS[:100] + shift)
            told = remote.monitor()
        assert bool(told["drift"]["alarm"]) == (shift > 0)
        assert (
            "drift   ALARM in the last 500 rows, by PSI (from 0.2 on): input x " in repr(told)
        ) == (shift > 0)
    table = told.table()
    assert list(table["input x"] > 0.2) == [False, True]
    assert list(table.index) == sorted(table.index)


def test_counts_and_metrics_tell_of_the_same_answers(remote: RemoteService) -> None:
    for _ in range(3):
        remote.predict(POINTS[:2])
    (told,) = remote.stats().values()
    assert (told["answered"], told["failed"], told["rows"]) == (3, 0, 6)
    assert told["mean_seconds"] > 0
    assert 'workbench_rows_total{model="sides",version="1"} 6.0' in remote.metrics()


def test_what_is_told_is_what_the_document_says(remote: RemoteService) -> None:
    for _ in range(WINDOW // 100):
        remote.predict(POINTS[:100] + 3)
        remote.monitor()
    remote.challenge(2)
    tell(remote, 3, group="g")
    document = remote._wire.ask("GET", "/openapi.json")
    for part in ("monitor", "answers", "challenger"):
        told = document["paths"][f"/models/{{model}}/{part}"]["get"]["responses"]["200"]["content"]
        found = remote._wire.ask("GET", f"/models/sides/{part}")
        jsonschema.validate(found, strict(told["application/json"]["schema"]))


def strict(schema: Any) -> Any:
    """Return a schema by which an object has no properties that the schema does not name."""
    if isinstance(schema, list):
        return [strict(part) for part in schema]
    if not isinstance(schema, dict):
        return schema
    closed = {"additionalProperties": False} if isinstance(schema.get("properties"), dict) else {}
    return {**{key: strict(part) for key, part in schema.items()}, **closed}


# Champion and challenger.


def test_a_better_challenger_is_promoted_and_rolled_back(remote: RemoteService) -> None:
    begun = remote.challenge(2)
    assert "sides@2 is asked the same as sides@1 in 100% of requests: too few" in repr(begun)
    tell(remote, 12)
    with pytest.raises(RequestError, match="too few labels: 988 of 1,000 are missing"):
        remote.promote()
    assert remote.challenger()["evidence"]["challenger"]["accuracy"] == 1
    assert remote.promote(labels=12, p=0.001) == "sides@2"
    assert remote.predict(POINTS[:9]).labels == TRUTH[:9]
    assert "better: accuracy 1 against 0" in history("sides")[-1]["why"]
    assert remote.rollback(why="only a try") == "sides@1"
    assert remote.predict(POINTS[:9]).model == "sides@1"


def test_traffic_is_split_until_the_challenge_ends(remote: RemoteService) -> None:
    told = remote.challenge("2", "split", 0.5)
    assert "sides@2 answers instead of sides@1 in 50% of requests" in repr(told)
    assert {remote.predict(POINTS[:1]).model for _ in range(64)} == {"sides@1", "sides@2"}
    assert remote.monitor()["challenger"]["mode"] == "split"
    assert "challenger  sides@2 answers instead" in repr(remote.monitor())
    remote.end_challenge()
    with pytest.raises(RequestError, match="nothing is tried beside sides@1"):
        remote.challenger()


# Refusals.


@pytest.mark.parametrize(
    ("ask", "kind", "reason"),
    [
        (lambda r: r.predict([[1, 2]], "side"), UnknownNameError, "unknown model 'side'"),
        (lambda r: r.feedback("none", "left", model="sides"), UnknownNameError, "unknown answer"),
        (lambda r: r.feedback(r.predict(POINTS[:1]), "up"), UnknownNameError, "label 'up'"),
        (lambda r: r.challenge(9), UnknownNameError, "unknown version"),
        (lambda r: r.challenge(2, share=2), RequestError, "share is 2"),
        (lambda r: r.promote(p=7), RequestError, "nothing is tried"),
        (lambda r: r.rollback(), RequestError, "was no other version before"),
        (lambda r: r.answers(last=0), RequestError, "last is '0': expected a whole number"),
        (lambda r: r.train("night"), RequestError, "there is no POST /jobs"),
    ],
)
def test_a_refusal_is_raised_with_the_services_reason(
    remote: RemoteService, ask: Callable[[RemoteService], Any], kind: type[Exception], reason: str
) -> None:
    with pytest.raises(kind, match=reason):
        ask(remote)


def test_each_token_opens_what_it_is_for(site: Service) -> None:
    with pytest.raises(RequestError, match="does not take this token: `workbench token NAME`"):
        connect(site.url, "wrong")
    user = connect(site.url, USER)
    assert user.predict(POINTS[:1]).model == "sides@1"
    for ask in (lambda: user.challenge(2), user.rollback):
        with pytest.raises(RequestError, match="this needs the administrator's token"):
            ask()
    assert USER not in repr(user)


def test_from_another_process_nothing_heavy_is_loaded_to_ask(site: Service) -> None:
    code = (
        "import sys, workbench as wb; service = wb.connect(*sys.argv[1:]); "
        "print(service.predict([[0.5, 0.5]]).labels, service.monitor()['model']); "
        "print([m for m in ('torch', 'pandas', 'starlette', 'sklearn') if m in sys.modules])"
    )
    program = [sys.executable, "-c", code, site.url, USER]
    told = subprocess.run(program, capture_output=True, text=True, check=True)
    assert told.stdout == "['left'] sides@1\n[]\n"


@pytest.mark.parametrize(
    "url",
    ["", "there", "ftp://there", "http://", "http://there:99999", "http://[::1", "http://a:b"],
)
def test_what_is_no_address_is_said(url: str) -> None:
    with pytest.raises(RequestError, match="is no address of a service: expected one like 'http"):
        connect(url, USER)


def test_where_nothing_answers_is_said(site: Service) -> None:
    remote = connect(site.url, USER)
    site.stop()
    with pytest.raises(ServiceError, match=r"at http.* does not answer \(.*refused.*\): is it"):
        remote.monitor()
