"""What a sweep tries: the points that alternatives, ranges and files make."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from writing import write_notebook

from workbench.errors import RequestError
from workbench.runs.spaces import LogUniform, Uniform, asked_points, make_points, read_points, split

CELL = "lr = 0.1\nwidths = (16,)\nname = 'a'\nn = 1\nseed = 0"


@pytest.fixture
def notebook(tmp_path: Path) -> Path:
    return write_notebook(tmp_path / "a.ipynb", "1", parameters=CELL)


def points(notebook: Path, *pairs: str, file: Path | None = None, **how: Any) -> list[Any]:
    return asked_points(notebook, pairs, file, samples=how.get("samples"), seeds=how.get("seeds"))


def test_alternatives_are_combined_in_order(notebook: Path) -> None:
    assert points(notebook, "lr=0.01,1", "n=2,3") == [
        *[{"lr": 0.01, "n": 2}, {"lr": 0.01, "n": 3}, {"lr": 1, "n": 2}, {"lr": 1, "n": 3}]
    ]
    assert points(notebook, "widths=(1,2),(3,)", "name=b,'c,d'") == [
        {"widths": widths, "name": name} for widths in ((1, 2), (3,)) for name in ("b", "c,d")
    ]
    assert points(notebook) == [{}]


def test_every_point_is_run_with_several_seeds(notebook: Path) -> None:
    assert points(notebook, "n=1,2", seeds=2) == [
        {"n": n, "seed": seed} for n in (1, 2) for seed in (0, 1)
    ]


def test_values_are_drawn_from_ranges_and_always_the_same(notebook: Path) -> None:
    drawn = points(notebook, "lr=log:1e-4..1e-1", "n=1..9", samples=200)
    assert drawn == points(notebook, "lr=log:1e-4..1e-1", "n=1..9", samples=200)
    assert {point["n"] for point in drawn} == set(range(1, 10))
    powers = [math.floor(math.log10(point["lr"])) for point in drawn]
    assert [40 < powers.count(power) < 95 for power in (-4, -3, -2)] == [True] * 3
    assert len(points(notebook, "lr=0.1..0.2", "n=1,2", samples=3)) == 6


@given(st.floats(1e-6, 1e6), st.floats(1.01, 1e3), st.integers(0, 3))
def test_what_is_drawn_lies_between_the_ends(low: float, factor: float, seed: int) -> None:
    import random

    for space in (Uniform(low, low * factor), LogUniform(low, low * factor)):
        assert low <= space.draw(random.Random(seed)) <= low * factor


def test_a_file_lists_points_which_pairs_are_combined_with(notebook: Path, tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("lr,name\n0.5,x\n1,5\n")
    found = points(notebook, "n=1,2", file=tmp_path / "a.csv")
    assert found == [
        {"lr": a, "name": b, "n": n} for a, b in ((0.5, "x"), (1, "5")) for n in (1, 2)
    ]
    (tmp_path / "a.yaml").write_text("- {lr: 0.5}\n- {lr: 1, n: 3}\n")
    assert points(notebook, file=tmp_path / "a.yaml") == [{"lr": 0.5}, {"lr": 1, "n": 3}]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.json", '[{"widths": [3, 4]}, {"widths": []}]'),
        ("a.yaml", "- {widths: [3, 4]}\n- {widths: []}\n"),
        ("a.csv", 'widths\n"[3, 4]"\n[]\n'),
    ],
)
def test_a_list_in_a_file_is_one_value(
    name: str, text: str, notebook: Path, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(text)
    found = points(notebook, "n=1,2", file=tmp_path / name)
    assert found == [{"widths": widths, "n": n} for widths in ([3, 4], []) for n in (1, 2)]


@pytest.mark.parametrize(
    ("space", "how", "message"),
    [
        ({"lr": Uniform(0, 1)}, {}, "lr is a range, so say how many points to draw: samples=20"),
        ({"lr": [1]}, {"samples": 3}, "samples=3, but no parameter is a range to draw from"),
        ({"lr": Uniform(0, 1)}, {"samples": 0}, "samples=0, but it must be 1 or more"),
        ({"seed": [1]}, {"seeds": 2}, "seeds=2, but seed has values already"),
        ({"n": [1]}, {"seeds": 0}, "seeds=0, but it must be 1 or more"),
        ({"n": []}, {}, "the sweep has 0 points, expected 1 to 100,000"),
        ({"n": list(range(400)), "m": list(range(400))}, {}, "the sweep has 160,000 points"),
    ],
)
def test_a_space_without_points_is_refused(space: Any, how: Any, message: str) -> None:
    with pytest.raises(RequestError, match=message):
        make_points(space, **how)


@pytest.mark.parametrize(
    ("low", "high", "kind"),
    [
        (1, 1, Uniform),
        (2, 1, Uniform),
        (0, 1, LogUniform),
        ("a", 1, Uniform),
        (0, math.inf, Uniform),
    ],
)
def test_a_range_that_is_none_is_refused(low: Any, high: Any, kind: type) -> None:
    with pytest.raises(
        RequestError, match=r"a range from .*, expected two finite numbers.*, the s"
    ):
        kind(low, high)


def test_what_cannot_be_read_is_refused(notebook: Path, tmp_path: Path) -> None:
    with pytest.raises(RequestError, match=r"-p 'lr=a..b' is not a range of numbers: write -p lr="):
        points(notebook, "lr=a..b")
    with pytest.raises(RequestError, match="-p 'lr' is not an assignment"):
        points(notebook, "lr")
    with pytest.raises(RequestError, match=r"no file of points '.*b.csv': No such file"):
        read_points(tmp_path / "b.csv")
    for name, text, message in (
        ("a.json", "{", "is not CSV, JSON or YAML: "),
        ("a.json", "{}", "lists no points: expected a CSV file with a header, or a JSON"),
        ("a.csv", "", "lists no points"),
        ("a.yaml", "[1, 2]", "lists no points"),
    ):
        (tmp_path / name).write_text(text)
        with pytest.raises(RequestError, match=message):
            read_points(tmp_path / name)


@given(st.lists(st.tuples(st.integers(), st.text("ab,(['\\", max_size=3)), min_size=1))
def test_a_list_of_literals_is_split_where_its_commas_are(values: list[Any]) -> None:
    assert split(",".join(map(repr, values))) == [repr(value) for value in values] or any(
        "\\" in repr(value) for value in values
    )
