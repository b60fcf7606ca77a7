"""Each notebook notices the bugs it teaches: planted one by one, its own asserts catch them."""

from __future__ import annotations

import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lessons import COURSE, play
from mutants import MUTANTS, Mutant

# What is often written in the programs that the course corrects; slugs begin with these words.
TAUGHT = ("sign", "bias", "softmax", "broadcast", "train", "scaling")


def planted() -> Iterator[Any]:
    for path in COURSE:
        for mutant in MUTANTS[path.stem]:
            marks = [] if mutant.quick else [pytest.mark.full]
            yield pytest.param(path, mutant, id=f"{path.stem[:2]}-{mutant.slug}", marks=marks)


@pytest.mark.parametrize(("path", "mutant"), list(planted()))
def test_a_planted_bug_is_caught(path: Path, mutant: Mutant) -> None:
    with pytest.raises(mutant.raises) as caught:
        play(path, mutant.old, mutant.new)
    if mutant.raises is AssertionError:  # the notebook's own, not that of what it calls
        assert traceback.extract_tb(caught.tb)[-1].filename.startswith(path.name)


@pytest.mark.full
@pytest.mark.parametrize("path", COURSE, ids=lambda path: path.stem)
def test_without_a_bug_nothing_is_caught(path: Path) -> None:
    play(path)


def test_every_bug_that_is_taught_is_planted_somewhere() -> None:
    slugs = [mutant.slug for mutants in MUTANTS.values() for mutant in mutants]
    missing = [bug for bug in TAUGHT if not any(bug in slug for slug in slugs)]
    assert not missing, slugs
    assert all(any(mutant.quick for mutant in mutants) for mutants in MUTANTS.values())
