"""Tests of shares and differences against scipy's, and the counts that show nothing."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import stats

from workbench.evaluation.significance import mcnemar, paired_t, wilson


@pytest.mark.parametrize(("right", "n"), [(0, 1), (1, 1), (3, 10), (50, 50), (999, 1000)])
@pytest.mark.parametrize("level", [0.5, 0.95, 0.99])
def test_a_share_lies_where_scipy_says(right: int, n: int, level: float) -> None:
    oracle = stats.binomtest(right, n).proportion_ci(level, method="wilson")
    assert wilson(right, n, level) == pytest.approx((oracle.low, oracle.high), abs=1e-12)


@pytest.mark.parametrize("counts", [(1, 0), (6, 0), (0, 6), (20, 5), (9, 10), (7, 7), (400, 500)])
def test_mcnemar_is_the_two_sided_binomial_test(counts: tuple[int, int]) -> None:
    assert mcnemar(*counts) == pytest.approx(stats.binomtest(counts[0], sum(counts)).pvalue)


def test_two_that_are_never_alone_right_do_not_differ() -> None:
    assert mcnemar(0, 0) == 1.0


@pytest.mark.parametrize("scale", [1e-300, 1.0, 1e300])
@pytest.mark.parametrize("n", [2, 3, 50])
def test_the_paired_t_is_scipys_at_any_scale(n: int, scale: float) -> None:
    draw = np.random.default_rng(n)
    first, second = draw.standard_normal(n), draw.standard_normal(n) + 0.3
    p = stats.ttest_rel(first, second).pvalue
    assert paired_t((first * scale).tolist(), (second * scale).tolist()) == pytest.approx(p)


@pytest.mark.parametrize(
    ("first", "second", "p"),
    [
        ([], [], 1.0),
        ([1.0], [2.0], 1.0),
        ([2.0, 2.0], [2.0, 2.0], 1.0),
        ([0.0, 0.0], [0.0, 0.0], 1.0),
        ([1.0, 3.0], [3.0, 1.0], 1.0),
        ([2.0, 2.0], [1.0, 1.0], 0.0),
    ],
)
def test_scores_without_spread_or_number_have_a_p_too(
    first: list[float], second: list[float], p: float
) -> None:
    assert paired_t(first, second) == p


def test_they_load_no_torch_and_no_scipy_stats() -> None:
    said = subprocess.run(
        [
            sys.executable,
            "-c",
            "import sys; from workbench.evaluation.significance import mcnemar, paired_t\n"
            "mcnemar(3, 1), paired_t([1.0, 2.0, 4.0], [1.0, 1.0, 1.0])\n"
            "print({'torch', 'scipy.stats'} & {*sys.modules})",
        ],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.strip() == "set()"
