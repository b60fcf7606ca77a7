"""Who is promoted: the tests against scipy's, the rule to the letter, and how often chance wins."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from workbench.errors import RequestError
from workbench.registry.verdicts import Kind, Rule, Scores, interval, judge, spread

RULE = Rule(p=0.05, labels=200)


def pairs(both: int, won: int, lost: int, neither: int = 0) -> Scores:
    """Return scores of labels that both said right, the challenger alone, the champion alone."""
    champion = [1] * both + [0] * won + [1] * lost + [0] * neither
    challenger = [1] * both + [1] * won + [0] * lost + [0] * neither
    return Scores("accuracy", "shadow", champion, challenger)


def split(champion: int, challenger: int, n: int = 200) -> Scores:
    sides = [[1.0] * right + [0.0] * (n - right) for right in (champion, challenger)]
    return Scores("accuracy", "split", sides[0], sides[1])


def errors(mode: str, shift: float, n: int = 200) -> Scores:
    draw = np.random.default_rng(2)
    champion = np.abs(draw.standard_normal(n)) + 1
    mine = champion if mode == "shadow" else np.abs(draw.standard_normal(n)) + 1
    challenger = mine + shift + 0.1 * draw.standard_normal(n)
    return Scores("error", mode, champion.tolist(), challenger.tolist())


@pytest.mark.parametrize(("won", "lost"), [(20, 5), (5, 20), (10, 9), (6, 0), (5, 0), (1, 0)])
def test_the_same_requests_are_judged_by_mcnemar(won: int, lost: int) -> None:
    found = judge(RULE, pairs(200 - won - lost, won, lost))
    p = stats.binomtest(won, won + lost).pvalue
    assert found.evidence["p"] == pytest.approx(p)
    assert found.promote == (p < 0.05 and won > lost)


@pytest.mark.parametrize(("champion", "challenger"), [(150, 175), (175, 150), (150, 160)])
def test_different_requests_are_judged_by_fisher(champion: int, challenger: int) -> None:
    found = judge(RULE, split(champion, challenger))
    table = [[champion, 200 - champion], [challenger, 200 - challenger]]
    assert found.evidence["p"] == pytest.approx(stats.fisher_exact(table).pvalue)
    assert found.promote == (challenger == 175)
    assert found.evidence["challenger"]["accuracy"] == challenger / 200


@pytest.mark.parametrize(("mode", "shift"), [("shadow", -0.1), ("shadow", 0.1), ("split", -0.5)])
def test_values_are_judged_by_how_far_off_they_are(mode: str, shift: float) -> None:
    scores = errors(mode, shift)
    found = judge(RULE, scores)
    test: Any = stats.ttest_rel if mode == "shadow" else stats.ttest_ind
    more = {} if mode == "shadow" else {"equal_var": False}
    p = test(scores.challenger, scores.champion, **more).pvalue
    assert found.evidence["p"] == pytest.approx(p)
    assert found.promote == (shift < 0)
    assert found.evidence["champion"]["error"] == pytest.approx(np.mean(scores.champion))


@pytest.mark.parametrize(
    ("scores", "reason"),
    [
        (
            pairs(180, 16, 4),
            "better: accuracy 0.98 against 0.92 of the champion on the same 200 labels, p = 0.012",
        ),
        (
            pairs(180, 4, 16),
            "worse: accuracy 0.92 against 0.98 of the champion on the same 200 labels, p = 0.012",
        ),
        (
            pairs(190, 6, 4),
            "not shown to be better: accuracy 0.98 against 0.97 of the champion on the same 200 "
            "labels, p = 0.75, not below 0.05",
        ),
        (pairs(190, 0, 0), "too few labels: 10 of 200 are missing"),
        (
            Scores("accuracy", "split", [1.0] * 3, [1.0] * 250),
            "too few labels: 197 of the champion are missing, of 200 each",
        ),
        (
            Scores("accuracy", "split", [], [1.0]),
            "too few labels: 200 of the champion and 199 of the challenger are missing, "
            "of 200 each",
        ),
        (
            Scores("error", "shadow", [1.0] * 200, [1.0, math.inf] * 100),
            "of 200 values of the champion 0 are no numbers, of 200 of the challenger 100: promote "
            "by hand what should be",
        ),
        (
            Scores("error", "split", [2.0] * 200, [1.0] * 200),
            "better: mean absolute error 1 against 2 of the champion on 200 labels each, p = 0",
        ),
        (
            Scores("error", "shadow", [2.0] * 200, [2.0] * 200),
            "not shown to be better: mean absolute error 2 against 2 of the champion on the same "
            "200 labels, p = 1, not below 0.05",
        ),
    ],
)
def test_the_reason_is_said_in_a_sentence(scores: Scores, reason: str) -> None:
    found = judge(RULE, scores)
    assert found.reason == reason
    assert found.promote == reason.startswith("better")
    assert json.loads(json.dumps(found.evidence, allow_nan=False))["mode"] == scores.mode


def test_only_the_first_labels_decide() -> None:
    first = pairs(180, 16, 4)
    later = pairs(0, 0, 5000)
    both = Scores(
        "accuracy",
        "shadow",
        [*first.champion, *later.champion],
        [*first.challenger, *later.challenger],
    )
    assert judge(RULE, both) == judge(RULE, first)
    assert judge(Rule(labels=1000), both).reason.startswith("worse")


def test_what_is_known_so_far_is_shown() -> None:
    found = judge(Rule(), pairs(90, 8, 2)).evidence
    assert found["champion"]["labels"] == 100
    assert found["challenger"]["accuracy"] == 0.98
    assert found["rule"] == {"p": 0.05, "labels": 1000}
    assert judge(Rule(), pairs(0, 0, 0)).evidence["champion"] == {"labels": 0}


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        ({"p": 0}, "p is 0, expected a number between 0 and 1: p=0.05"),
        ({"p": 1.0}, "p is 1.0, expected"),
        ({"p": "0.05"}, "p is '0.05', expected"),
        ({"p": True}, "p is True, expected"),
        ({"p": math.nan}, "p is nan, expected"),
        ({"labels": 0}, "labels is 0, expected a whole number from 1 to 1,000,000: labels=1000"),
        ({"labels": 10.5}, "labels is 10.5, expected"),
        ({"labels": True}, "labels is True, expected"),
        ({"labels": 10**9}, "labels is 1000000000, expected"),
    ],
)
def test_a_rule_that_is_none_is_refused(rule: dict[str, Any], said: str) -> None:
    with pytest.raises(RequestError, match=said):
        Rule(**rule)


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (7, 10), (990, 1000)])
def test_an_interval_of_a_share_is_by_wilson(right: int, n: int) -> None:
    found = stats.binomtest(right, n).proportion_ci(0.95, method="wilson")
    assert interval(right, n) == pytest.approx([found.low, found.high], abs=1e-12)


def test_an_interval_of_a_mean_is_by_student() -> None:
    values = [3.0, 4.0, 5.5, 4.5]
    expected = stats.t.interval(0.95, 3, loc=np.mean(values), scale=stats.sem(values))
    assert spread(sum(values), sum(v * v for v in values), 4) == pytest.approx(list(expected))
    assert spread(3.0, 9.0, 1) is None
    assert spread(6.0, 12.0, 3) == [2.0, 2.0]


@pytest.mark.parametrize("mode", ["shadow", "split"])
@pytest.mark.parametrize("kind", ["accuracy", "error"])
def test_chance_promotes_one_of_two_equals_in_at_most_half_of_p(kind: Kind, mode: str) -> None:
    draw, promoted = np.random.default_rng(8), 0
    for _ in range(400):
        both = draw.random((2, 100)) < 0.8 if kind == "accuracy" else draw.random((2, 100))
        champion, challenger = both.astype(float).tolist()
        promoted += judge(Rule(labels=100), Scores(kind, mode, champion, challenger)).promote
    assert promoted <= stats.binom.ppf(0.999, 400, 0.025)


def test_a_better_one_is_promoted() -> None:
    draw, promoted = np.random.default_rng(9), 0
    for _ in range(50):
        champion, luck = draw.random(1000) < 0.85, draw.random(1000)
        challenger = np.where(champion, luck < 0.98, luck < 0.5)  # 0.91 right
        scores = [side.astype(float).tolist() for side in (champion, challenger)]
        promoted += judge(Rule(), Scores("accuracy", "shadow", *scores)).promote
    assert promoted == 50
